//! `bootward verify`: are deployments what their commits say?

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::ostree::Keys;
use crate::ostree::verify::{Check, Faults, Level, Progress, Report, keys, measure, verify};
use crate::sys::beneath::Beneath;
use crate::sysroot::{Deployment, Look, Machine, Sysroot};

use super::options::{Known, Options, Show, usage};
use super::status::{BOOT, JSON, Place, SYSROOT, booted};

const HELP: &str = "\
Usage: bootward verify [DEPLOYMENT ... | --all] [--level LEVEL] [--keys FILE]
                       [--timeout SECONDS] [--json] [--sysroot DIR] [--boot DIR]
       bootward verify --repair [DEPLOYMENT ... | --all] [--url URL ...] [...]

Holds deployments against their commits, as the guardian does before a boot with
[verify] in its configuration, and lists what differs, the first 100 things.
/etc and /var are the device's own and are not looked at. Changes nothing but
with --repair.

  DEPLOYMENT         its number in 'bootward status', or the first four or more
                     digits of its commit, with .SERIAL where two have the same
                     (default: the one that runs, else the first)
  --all              every deployment
  --level LEVEL      full: every byte and attribute, and kernel, initramfs and
                     device trees in the boot directory (default); metadata:
                     names, directories, links and empty files only
  --keys FILE        trusted ed25519 keys, one a line in base64: the commit must
                     be signed by one of them (default: no signature is needed)
  --timeout SECONDS  give up on a deployment after this long (default: never)
  --json             one JSON object a line, for programs: 'progress', 'fault'
                     and, once for each deployment, 'result', after a repair
                     also 'repaired'
  --sysroot DIR      the physical root, for example a mounted disk image
                     (default /sysroot)
  --boot DIR         the boot directory (default DIR/boot of the sysroot)

With --repair every object of their commits is held against its checksum first,
and what is missing or damaged is fetched, that and nothing else. Then the
deployment is put right from its objects: files that are damaged or missing are
linked anew, what is in no commit is removed, owners and modes are set, kernels
in the boot directory are copied again, the composefs image is made again. The
signatures of the commit come anew where they are missing or damaged (with --keys:
where none of them is a trusted key's). A hotfix ('ostree admin unlock') stays,
and so it stays damaged. A power cut costs nothing; the same again goes on.

  --url URL          where from: http://, https:// or file://; more than once for
                     mirrors (default: the url of --remote in the repository's
                     config)
  --remote NAME      (default: the one that the deployment's origin names)
  --channels N       connections at once (default 4)
  --ca FILE          CA certificates in PEM, needed for https
  --cert FILE        certificate of this device, for servers that ask for one
  --cert-key FILE    its key

Exit codes: 0 all of them are whole; 1 one is damaged, or not signed by a trusted
key; 2 wrong command line; 3 none is known to be damaged, but one could not be
checked to its end: no such sysroot, deployment or keys, or the time ran out.
";

/// What was asked could not be told.
const UNCHECKED: u8 = 3;
/// So much of a commit's checksum must be given.
const PREFIX_MIN: usize = 4;

const ALL: Known = Known { name: "--all", value: false };
const LEVEL: Known = Known { name: "--level", value: true };
const KEYS: Known = Known { name: "--keys", value: true };
const TIMEOUT: Known = Known { name: "--timeout", value: true };

/// Runs the verb.
pub fn run(arguments: &[String]) -> ExitCode {
    let known = [ALL, LEVEL, KEYS, TIMEOUT, JSON, SYSROOT, BOOT];
    #[cfg(feature = "recovery")]
    let known = [&known[..], &super::mend::OPTIONS].concat();
    let options = match Options::read(arguments, &known, HELP) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let done = Asked::of(&options).and_then(|asked| asked.run().map_err(|why| failed(&why)));
    done.unwrap_or_else(|code| code)
}

fn failed(why: &str) -> ExitCode {
    eprintln!("bootward: verify: {why}");
    ExitCode::from(UNCHECKED)
}

/// What was typed, understood.
struct Asked<'a> {
    place: Place,
    which: &'a [String],
    all: bool,
    level: Level,
    keys: Option<Keys>,
    budget: Option<Duration>,
    show: Show,
    #[cfg(feature = "recovery")]
    repair: Option<super::mend::Asked<'a>>,
}

impl<'a> Asked<'a> {
    fn of(options: &'a Options) -> Result<Self, ExitCode> {
        let which = options.rest.as_slice();
        let all = options.has(ALL.name);
        if all && !which.is_empty() {
            return Err(usage("verify takes deployments or --all, not both"));
        }
        let level = match options.value(LEVEL.name).map(Level::parse) {
            None => Level::Full,
            Some(Some(level)) if level != Level::None => level,
            Some(_) => return Err(usage("--level takes metadata or full")),
        };
        let budget = match options.value(TIMEOUT.name).map(str::parse) {
            None | Some(Ok(0)) => None,
            Some(Ok(seconds)) => Some(Duration::from_secs(seconds)),
            Some(Err(_)) => return Err(usage("--timeout takes a number of seconds")),
        };
        let place = Place::of(options, "/sysroot").map_err(|_| ExitCode::from(UNCHECKED))?;
        let keys = match options.value(KEYS.name) {
            Some("") => return Err(usage("--keys takes a file")),
            path => keys(path.unwrap_or("")).map_err(|fault| failed(&fault.to_string()))?,
        };
        let show = Show::of(options);
        Ok(Asked {
            place,
            which,
            all,
            level,
            keys,
            budget,
            show,
            #[cfg(feature = "recovery")]
            repair: super::mend::Asked::of(options)?,
        })
    }

    fn run(&self) -> Result<ExitCode, String> {
        let opened = |path: &Path| {
            Beneath::open(path).map_err(|errno| format!("{}: {}", path.display(), errno.desc()))
        };
        let tree = opened(&self.place.sysroot)?;
        let boot = opened(&self.place.boot);
        let sysroot = Sysroot::read(&Look {
            sysroot: &self.place.sysroot,
            boot: &self.place.boot,
            release: "",
            machine: Machine::native(),
            init: None,
        });
        let sysroot = sysroot.map_err(|e| e.to_string())?;
        let (mut damaged, mut unchecked) = (false, false);
        for index in self.chosen(&sysroot)? {
            let Some(deployment) = sysroot.deployments.get(index) else { continue };
            let path = deployment.path();
            let check = Check {
                sysroot: &tree,
                boot: boot.as_ref().ok(),
                path: &path,
                commit: &deployment.commit,
                boot_files: &deployment.boot_files,
                level: self.level,
                keys: self.keys.as_ref(),
                budget: self.budget,
                faults: Faults::Counted,
            };
            let total = if self.show == Show::Terminal && self.level == Level::Full {
                measure(&tree, &path)
            } else {
                0
            };
            let report = match self.put_right(index, deployment, &mut damaged) {
                Some(report) => report,
                None => verify(&check, &mut |progress| self.show.progress(index, progress, total)),
            };
            let verdict = Verdict::of(&report);
            self.show.result(index, deployment, &check, &report, verdict);
            damaged |= verdict == Verdict::Damaged;
            unchecked |= verdict == Verdict::Unchecked;
        }
        Ok(match (damaged, unchecked) {
            (true, _) => ExitCode::from(super::FAILED),
            (false, true) => ExitCode::from(UNCHECKED),
            (false, false) => ExitCode::SUCCESS,
        })
    }

    /// Puts it right where that was asked for; what is wrong with it then. A repair that failed is told, and counts as damage.
    #[cfg(feature = "recovery")]
    fn put_right(&self, index: usize, deployment: &Deployment, damaged: &mut bool) -> Option<Report> {
        let repair = self.repair.as_ref()?;
        match repair.put_right(deployment, self.keys.as_ref(), self.show) {
            Ok((repaired, report)) => {
                self.show.repaired(index, &repaired);
                Some(report)
            }
            Err(why) => {
                failed(&format!("{index}: {why}"));
                *damaged = true;
                None
            }
        }
    }

    #[cfg(not(feature = "recovery"))]
    fn put_right(&self, _: usize, _: &Deployment, _: &mut bool) -> Option<Report> {
        None
    }

    /// The deployments that were asked for, by their index.
    fn chosen(&self, sysroot: &Sysroot) -> Result<Vec<usize>, String> {
        let count = sysroot.deployments.len();
        if count == 0 {
            return Err("no deployment was found".into());
        }
        if self.all {
            return Ok((0..count).collect());
        }
        if self.which.is_empty() {
            return Ok(vec![booted(sysroot).unwrap_or(0)]);
        }
        self.which.iter().map(|name| find(&sysroot.deployments, name)).collect()
    }
}

fn find(deployments: &[Deployment], name: &str) -> Result<usize, String> {
    if name.len() < PREFIX_MIN {
        let index = name.parse().ok().filter(|index| *index < deployments.len());
        return index.ok_or_else(|| format!("there is no deployment '{name}'; 'bootward status' lists them"));
    }
    let (commit, serial) = match name.split_once('.') {
        Some((commit, serial)) => (commit, Some(serial)),
        None => (name, None),
    };
    let matches = |d: &Deployment| {
        d.commit.starts_with(commit) && serial.is_none_or(|serial| d.deploy_serial.to_string() == serial)
    };
    let mut found = deployments.iter().enumerate().filter(|(_, d)| matches(d)).map(|(index, _)| index);
    match (found.next(), found.next()) {
        (Some(index), None) => Ok(index),
        (None, _) => Err(format!("there is no deployment '{name}'; 'bootward status' lists them")),
        (Some(_), Some(_)) => Err(format!("'{name}' is more than one deployment; give its number")),
    }
}

/// What came of one deployment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Whole,
    Damaged,
    Unchecked,
}

impl Verdict {
    fn of(report: &Report) -> Self {
        if report.is_good() {
            Verdict::Whole
        } else if report.ran_out_of_time() {
            Verdict::Unchecked
        } else {
            Verdict::Damaged
        }
    }

    fn word(self) -> &'static str {
        match self {
            Verdict::Whole => "whole",
            Verdict::Damaged => "damaged",
            Verdict::Unchecked => "unchecked",
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line<'a> {
    Progress {
        index: usize,
        entries: u64,
        bytes: u64,
        seconds: f32,
    },
    #[cfg(feature = "recovery")]
    Repaired {
        index: usize,
        /// Objects of the commit.
        objects: u64,
        fetched: u64,
        bytes: u64,
        /// Paths of the deployment and the boot directory.
        mended: u64,
    },
    Fault {
        index: usize,
        /// What it is about: a path of the deployment, or of the boot directory after `boot/`.
        path: Option<String>,
        text: String,
    },
    Result {
        index: usize,
        stateroot: &'a str,
        commit: &'a str,
        deploy_serial: u32,
        result: &'static str,
        level: &'static str,
        /// The number of the key, from 1.
        signed_by: Option<usize>,
        /// How many things are wrong, of which the first 100 were told.
        faults: u64,
        /// Whether kernel and initramfs in the boot directory were compared.
        boot_files: bool,
        entries: u64,
        bytes: u64,
        seconds: f32,
    },
}

impl Show {
    fn json(line: &Line<'_>) {
        println!("{}", serde_json::to_string(line).unwrap_or_default());
    }

    #[cfg(feature = "recovery")]
    fn repaired(self, index: usize, repaired: &crate::upgrade::Repaired) {
        let crate::upgrade::Repaired { objects, fetched, bytes, mended } = *repaired;
        if self == Show::Json {
            return Self::json(&Line::Repaired { index, objects, fetched, bytes, mended });
        }
        if self == Show::Terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        println!(
            "{index}: {fetched} of {objects} objects fetched, {} kB; {mended} files put right",
            bytes / 1000
        );
    }

    fn progress(self, index: usize, progress: &Progress, total: u64) {
        let Progress { entries, bytes, time } = *progress;
        match self {
            Show::Text => {}
            Show::Json => Self::json(&Line::Progress { index, entries, bytes, seconds: time.as_secs_f32() }),
            Show::Terminal => {
                let (read, rate) = (bytes / 1_000_000, progress.rate());
                let left = match total.saturating_sub(bytes) / 1_000_000 {
                    left if rate > 0 && total > 0 => {
                        format!(" of {} MB, {rate} MB/s, {} s left", total / 1_000_000, left / rate)
                    }
                    _ => format!(" MB, {rate} MB/s"),
                };
                // Nobody minds if the terminal is gone.
                let _ = write!(std::io::stderr(), "\r{index}: {entries} files, {read}{left}\x1b[K");
            }
        }
    }

    fn result(
        self,
        index: usize,
        deployment: &Deployment,
        check: &Check<'_>,
        report: &Report,
        verdict: Verdict,
    ) {
        let Progress { entries, bytes, time } = report.progress;
        let kernel = check.level == Level::Full
            && check.boot.is_some()
            && deployment.boot_files.linux.is_some()
            && verdict != Verdict::Unchecked
            // Nothing is compared with what is not to be trusted.
            && entries > 0;
        if self == Show::Json {
            for fault in &report.faults {
                Self::json(&Line::Fault { index, path: fault.path(), text: fault.to_string() });
            }
            return Self::json(&Line::Result {
                index,
                stateroot: &deployment.stateroot,
                commit: &deployment.commit,
                deploy_serial: deployment.deploy_serial,
                result: verdict.word(),
                level: check.level.word(),
                signed_by: report.signed_by.map(|key| key + 1),
                faults: report.count,
                boot_files: kernel,
                entries,
                bytes,
                seconds: time.as_secs_f32(),
            });
        }
        if self == Show::Terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        println!("{index}: {}: {}", deployment.name(), verdict.word());
        for fault in &report.faults {
            println!("     {fault}");
        }
        if let Some(more @ 1..) = report.count.checked_sub(report.faults.len() as u64) {
            println!("     and {more} more");
        }
        let signed = match (report.signed_by, check.keys) {
            (Some(key), _) => format!("signed by key {}", key + 1),
            (None, Some(_)) => "not signed by a trusted key".into(),
            (None, None) => "signature not asked for".into(),
        };
        let (megabytes, seconds, rate) = (bytes / 1_000_000, time.as_secs_f32(), report.progress.rate());
        println!(
            "     {}: {entries} files, {megabytes} MB in {seconds:.1} s, {rate} MB/s; {signed}",
            check.level
        );
        if check.level == Level::Full && !kernel && verdict == Verdict::Whole {
            println!("     no boot entry names it: no kernel was compared");
        }
    }
}
