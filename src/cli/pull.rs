//! `bootward pull` and `bootward upgrade`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;

use crate::deploy::act;
use crate::deploy::prepare::Options as Deploy;
use crate::ostree::Checksum;
use crate::ostree::keyring::{self, KeyringError, Source, Trusted};
use crate::pull::{self, Progress, Wanted};
use crate::repo::refs;
use crate::upgrade::{self, Found, Request};

use super::options::{Known, Options, Show, number, usage};
use super::source;

const PULL: &str = "\
Usage: bootward pull [OPTION ...] --url URL --ref REF --keys FILE

Fetches a commit into the sysroot's repository, as 'ostree pull' does. It must be
signed by a trusted key, made for the ref, and not older than the newest commit
that was ever confirmed here; every object is believed by its checksum alone.
Whatever ends it, the next one goes on where it was: what came is not fetched
again. Deploys nothing.
";

const UPGRADE: &str = "\
Usage: bootward upgrade [OPTION ...] --url URL --ref REF --keys FILE

Fetches a commit as 'bootward pull' does and deploys it on trial as 'bootward
deploy --trial' does: it counts as good only after 'bootward confirm'. Does
nothing when the commit is deployed already, when it failed on this device
before, or when there is a file /var/lib/bootward/do_not_update.

  --stateroot OS       the stateroot (default: the running one's)
  --env-config FILE    fw_env.config (default /etc/fw_env.config, with --sysroot
                       none: the bootloader's variables are left alone)
  --force              take a commit that failed on this device, and never mind
                       the file do_not_update
";

const COMMON: &str = "
  --url URL            an archive repository: http://, https:// or file://
                       (default: that of --remote in the repository's config);
                       more than once for mirrors of it: the newest commit that
                       one of them has counts, a bad one holds nothing up
  --ref REF            the ref to follow
  --commit COMMIT      this commit of it and no other; it may be an older one
                       only with --downgrade
  --downgrade          take --commit although it is older than what was confirmed
  --keys FILE          trusted ed25519 keys, one a line in base64; or a directory
                       of such files (default: /etc/ostree/trusted.ed25519[.d],
                       revoked.ed25519[.d] and the same in /usr/share/ostree);
                       a build with the feature 'gpg' takes OpenPGP certificates
                       too (default, where there is no ed25519 key: those of
                       --remote in the repository, /usr/share/ostree/trusted.gpg.d)
  --threshold N        so many of the keys must have signed (default 1)
  --remote NAME        the ref becomes NAME:REF (default: a local ref)
  --compatible NAME    the hardware that it must be made for
  --unbound            take a commit that does not say for which refs it was made
  --channels N         connections at once (default 4)
  --check              read the objects that are here, fetch damaged ones again
  --no-delta           use no static delta
  --ca FILE            CA certificates in PEM, needed for https
  --cert FILE          certificate of this device, for servers that ask for one
  --cert-key FILE      its key
  --json               one JSON object a line, for programs: 'progress', 'result'
  --sysroot DIR        the physical root (default /sysroot)

Exit codes: 0 done, 1 failed (reason on standard error), 2 wrong command line.
";

const VALUES: [&str; 15] = [
    "--url",
    "--ref",
    "--commit",
    "--keys",
    "--threshold",
    "--remote",
    "--compatible",
    "--channels",
    "--ca",
    "--cert",
    "--cert-key",
    "--sysroot",
    "--stateroot",
    "--env-config",
    "--boot",
];
const FLAGS: [&str; 6] = ["--downgrade", "--unbound", "--check", "--no-delta", "--json", "--force"];
/// What only `upgrade` takes.
const UPGRADE_ONLY: [&str; 4] = ["--stateroot", "--env-config", "--boot", "--force"];
/// Where a developer keeps updates away, on the stateroot's `/var`.
const KEEP_AWAY: &str = "/var/lib/bootward/do_not_update";

fn known(upgrade: bool) -> Vec<Known> {
    let values = VALUES.iter().map(|name| Known { name, value: true });
    let flags = FLAGS.iter().map(|name| Known { name, value: false });
    values.chain(flags).filter(|k| upgrade || !UPGRADE_ONLY.contains(&k.name)).collect()
}

fn failed(why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("bootward: {why}");
    ExitCode::from(super::FAILED)
}

/// Runs `bootward pull`.
pub fn pull(arguments: &[String]) -> ExitCode {
    let options = match Options::read(arguments, &known(false), &format!("{PULL}{COMMON}")) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let sysroot = PathBuf::from(options.value("--sysroot").unwrap_or("/sysroot"));
    let done = keys(&options).and_then(|keys| {
        // Nothing is deployed, so it may be one that failed here.
        let request = Request { rejected_too: true, ..request(&options, &sysroot, &keys)? };
        fetch(&options, &request).map_err(|e| failed(&e))
    });
    done.map_or_else(|code| code, |_| ExitCode::SUCCESS)
}

/// Runs `bootward upgrade`.
pub fn upgrade(arguments: &[String]) -> ExitCode {
    let options = match Options::read(arguments, &known(true), &format!("{UPGRADE}{COMMON}")) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let away = Path::new(KEEP_AWAY);
    if !options.has("--sysroot") && !options.has("--force") && away.exists() {
        println!("{KEEP_AWAY} keeps updates away; remove it, or use --force");
        return ExitCode::SUCCESS;
    }
    let site = super::site(&options);
    let stateroot = options.value("--stateroot").map(String::from).or_else(|| act::booted_stateroot(&site));
    let Some(stateroot) = stateroot else { return usage("--stateroot says into which one") };
    let done = keys(&options).and_then(|keys| {
        let request = request(&options, &site.sysroot, &keys)?;
        let found = fetch(&options, &request).map_err(|e| failed(&e))?;
        let deploy = Deploy { stateroot, trial: true, ..Deploy::default() };
        let json = Show::of(&options) == Show::Json;
        match upgrade::deploy(&site, &request, &found, deploy, &mut super::deploy::shown(json)) {
            Ok(None) => println!("{} is deployed already", found.name()),
            Ok(Some(report)) => super::deploy::show(&report, false, json),
            Err(e) => return Err(failed(&e)),
        }
        Ok(())
    });
    done.map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

/// The trusted keys.
fn keys(options: &Options) -> Result<Trusted, ExitCode> {
    let threshold = number(options, "--threshold", 1, crate::ostree::sign::MAX_KEYS)?;
    trusted(options, threshold).map_err(|e| failed(&e))
}

/// What was typed, understood.
fn request<'a>(options: &'a Options, sysroot: &'a Path, keys: &'a Trusted) -> Result<Request<'a>, ExitCode> {
    if !options.rest.is_empty() {
        return Err(usage("the commit is named by --ref and --commit"));
    }
    let reference = options.value("--ref").filter(|name| refs::is_valid(name));
    let Some(reference) = reference else { return Err(usage("--ref takes the name of a ref")) };
    let remote = options.value("--remote");
    if remote.is_some_and(|name| !refs::is_remote(name)) {
        return Err(usage("--remote takes the name of a remote"));
    }
    let commit = options.value("--commit").map(Checksum::parse);
    if commit == Some(None) {
        return Err(usage("--commit takes the 64 digits of a commit"));
    }
    if options.has("--downgrade") && commit.is_none() {
        return Err(usage("--downgrade takes --commit besides: which one"));
    }
    let wanted = Wanted {
        remote: remote.map(String::from),
        reference: Some(reference.into()),
        commit: commit.flatten(),
    };
    let sources = source::urls(options, sysroot, remote).map_err(|e| failed(&e))?;
    Ok(Request {
        transport: source::transport(options).map_err(|e| failed(&e))?,
        compatible: options.value("--compatible"),
        unbound: options.has("--unbound"),
        downgrade: options.has("--downgrade"),
        rejected_too: options.has("--force"),
        delta: !options.has("--no-delta"),
        options: pull::Options {
            channels: number(options, "--channels", 4, 32)?,
            check: options.has("--check"),
            ..pull::Options::default()
        },
        ..Request::new(sysroot, sources, wanted, keys.trust())
    })
}

/// Finds and fetches, and shows how far it is.
fn fetch(options: &Options, request: &Request<'_>) -> Result<Found, upgrade::Error> {
    let found = upgrade::find(request, &mut |_| true)?;
    let show = Show::of(options);
    let mut tell = show.pulling();
    let done = upgrade::fetch(request, &found, &mut |progress| {
        tell(progress);
        true
    })?;
    show.pulled(&found.name(), &done);
    Ok(found)
}

/// The keys that were named, else those of ed25519 where libostree has them; where there are none, those of OpenPGP.
fn trusted(options: &Options, threshold: usize) -> Result<Trusted, KeyringError> {
    let found = keyring::trusted(&places(options.value("--keys")), threshold);
    #[cfg(feature = "gpg")]
    if !options.has("--keys")
        && let Err(KeyringError::Together(crate::ostree::sign::KeysError::Empty)) = found
    {
        let repository = Path::new(options.value("--sysroot").unwrap_or("/sysroot")).join(crate::repo::REPO);
        let global = Path::new("/usr/share/ostree/trusted.gpg.d");
        let places = keyring::gpg_places(&repository, options.value("--remote"), global)?;
        if !places.is_empty() {
            return keyring::trusted(&places, threshold);
        }
    }
    found
}

fn places(given: Option<&str>) -> Vec<Source> {
    match given.map(Path::new) {
        Some(path) if path.is_dir() => vec![Source::Directory(path.into())],
        Some(path) => vec![Source::File(path.into())],
        None => ["/etc/ostree", "/usr/share/ostree"].map(|path| Source::Layout(path.into())).into(),
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    Progress { objects: u64, known: u64, whole: bool, fetched: u64, bytes: u64, seconds: f32 },
    Result { commit: String, objects: u64, fetched: u64, bytes: u64 },
}

impl Show {
    /// Tells how far it is; the time left is a guess by the objects once all are known.
    pub(super) fn pulling(self) -> impl FnMut(&Progress) {
        let began = Instant::now();
        move |progress| {
            let seconds = began.elapsed().as_secs_f32();
            let Progress { objects, known, whole, fetched, bytes } = *progress;
            match self {
                Show::Text => {}
                Show::Json => {
                    let line = Line::Progress { objects, known, whole, fetched, bytes, seconds };
                    println!("{}", serde_json::to_string(&line).unwrap_or_default());
                }
                Show::Terminal => {
                    let rate = bytes as f32 / 1000.0 / seconds.max(0.1);
                    let more = if whole { "" } else { "+" };
                    let left = match fetched {
                        1.. if whole => {
                            let left = seconds * known.saturating_sub(objects) as f32 / fetched as f32;
                            format!(", {left:.0} s left")
                        }
                        _ => String::new(),
                    };
                    // Nobody minds if the terminal is gone.
                    let _ = write!(
                        std::io::stderr(),
                        "\r{objects} of {known}{more} objects, {} kB, {rate:.0} kB/s{left}\x1b[K",
                        bytes / 1000
                    );
                }
            }
        }
    }

    fn pulled(self, commit: &Checksum, progress: &Progress) {
        let Progress { objects, fetched, bytes, .. } = *progress;
        match self {
            Show::Json => {
                let line = Line::Result { commit: commit.to_string(), objects, fetched, bytes };
                println!("{}", serde_json::to_string(&line).unwrap_or_default());
            }
            _ => {
                if self == Show::Terminal {
                    let _ = write!(std::io::stderr(), "\r\x1b[K");
                }
                println!("{commit}: {fetched} objects fetched, {} kB", bytes / 1000);
            }
        }
    }
}
