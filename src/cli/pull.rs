//! `bootward pull` and `bootward upgrade`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::deploy::act;
use crate::deploy::prepare::Options as Deploy;
use crate::fetch::{self, Url};
use crate::ostree::Checksum;
use crate::ostree::admit::{Policy, Trust};
use crate::ostree::keyring::{self, Source};
use crate::ostree::sign::{Keys, VerifiedCommit};
use crate::pull::{self, Progress, Wanted};
use crate::repo::store::STAGING;
use crate::repo::{Config, Store, refs};
use crate::sys::beneath::Beneath;
use crate::sys::files::Disk;
use crate::sys::{lock, mount, time};
use crate::trial::act::Site;
use crate::trial::floor;

use super::options::{Known, Options, Show, usage};

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
                       (default: that of --remote in the repository's config)
  --ref REF            the ref to follow
  --commit COMMIT      this commit of it and no other; it may be an older one
                       only with --downgrade
  --downgrade          take --commit although it is older than what was confirmed
  --keys FILE          trusted ed25519 keys, one a line in base64; or a directory
                       of such files (default: /etc/ostree/trusted.ed25519[.d],
                       revoked.ed25519[.d] and the same in /usr/share/ostree)
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
/// So long is somebody else's lock waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest configuration of a repository that is read, in bytes.
const CONFIG_MAX: usize = crate::keyfile::MAX_SIZE;

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
    match Asked::of(&options).and_then(|asked| asked.pull().map_err(|e| failed(&e))) {
        Ok(_) => ExitCode::SUCCESS,
        Err(code) => code,
    }
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
    match Asked::of(&options).and_then(|asked| asked.upgrade(&site, stateroot).map_err(|e| failed(&e))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

/// What was typed, understood.
struct Asked<'a> {
    options: &'a Options,
    sysroot: PathBuf,
    wanted: Wanted,
    keys: Keys,
    channels: usize,
    show: Show,
}

impl<'a> Asked<'a> {
    fn of(options: &'a Options) -> Result<Self, ExitCode> {
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
        let number = |name: &str, default: usize, most: usize| match options.value(name).map(str::parse) {
            None => Ok(default),
            Some(Ok(number)) if (1..=most).contains(&number) => Ok(number),
            Some(_) => Err(usage(&format!("{name} takes a number from 1 to {most}"))),
        };
        let threshold = number("--threshold", 1, crate::ostree::sign::MAX_KEYS)?;
        let keys = keyring::keys(&places(options.value("--keys")), threshold).map_err(|e| failed(&e))?;
        Ok(Asked {
            options,
            sysroot: options.value("--sysroot").unwrap_or("/sysroot").into(),
            wanted: Wanted {
                remote: remote.map(String::from),
                reference: Some(reference.into()),
                commit: commit.flatten(),
            },
            keys,
            channels: number("--channels", 4, 32)?,
            show: Show::of(options),
        })
    }

    /// The server: as typed, else as the repository's config has it for the remote.
    fn url(&self, config: &Config) -> Result<Url, String> {
        let url = match (self.options.value("--url"), &self.wanted.remote) {
            (Some(url), _) => url,
            (None, Some(remote)) => config.remote(remote, "url").ok_or_else(|| {
                format!("the repository's config has no url for the remote {remote}; give --url")
            })?,
            (None, None) => return Err("--url says where from".into()),
        };
        Url::parse(url).map_err(|e| format!("{url}: {e}"))
    }

    fn transport(&self) -> Result<fetch::Options, String> {
        #[cfg(feature = "tls")]
        {
            let identity = match (self.options.value("--cert"), self.options.value("--cert-key")) {
                (Some(certificate), Some(key)) => {
                    Some(fetch::tls::Identity { certificate: certificate.into(), key: key.into() })
                }
                (None, None) => None,
                _ => return Err("--cert and --cert-key go together".into()),
            };
            let authorities = self.options.value("--ca").map(PathBuf::from).into_iter().collect();
            Ok(fetch::Options { authorities, identity, ..fetch::Options::default() })
        }
        #[cfg(not(feature = "tls"))]
        Ok(fetch::Options::default())
    }

    fn pull(&self) -> Result<VerifiedCommit, String> {
        let sysroot = &self.sysroot;
        let told = |what: &str, errno: nix::errno::Errno| format!("{what}: {}", errno.desc());
        mount::make_writable(&[sysroot])
            .map_err(|(path, errno)| told(&format!("{} cannot be made writable", path.display()), errno))?;
        let tree = Beneath::open(sysroot).map_err(|errno| told(&sysroot.display().to_string(), errno))?;
        let config = tree.read("ostree/repo/config", CONFIG_MAX);
        let config = config.map_err(|errno| told("ostree/repo/config", errno))?;
        let config = Config::parse(&config).map_err(|e| e.to_string())?;
        let transport = self.transport()?;
        let server = fetch::open(&self.url(&config)?, &transport).map_err(|e| e.to_string())?;
        let _shared = lock::repository_shared(sysroot, PATIENCE)
            .map_err(|errno| told("the repository is being cleaned by somebody else", errno))?;
        let _own = lock::pull(sysroot, PATIENCE).map_err(|errno| told("another pull is running", errno))?;

        let options = pull::Options {
            channels: self.channels,
            check: self.options.has("--check"),
            scratch: (!self.options.has("--no-delta")).then(|| sysroot.join(STAGING)),
            ..pull::Options::default()
        };
        let floor = floor::read(sysroot);
        floor.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let judge =
            |commit: Vec<u8>, metadata: Option<&[u8]>| self.admit(&config, &floor.mark, commit, metadata);
        let (commit, metadata) =
            pull::head(&server, &self.wanted, &judge, &options).map_err(|e: Failure| e.to_string())?;
        let open = || Disk::open(sysroot, sysroot);
        let mut store = Store::new(open().map_err(|e| e.to_string())?, config.mode, 0);
        let mut tell = self.show.pulling();
        let found = (&commit, metadata.as_deref());
        let done = pull::pull(&server, &mut store, &open, found, &self.wanted, &options, &mut tell);
        self.show.pulled(&commit.commit().checksum(), &done.map_err(|e| e.to_string())?);
        Ok(commit)
    }

    fn admit(
        &self,
        config: &Config,
        floor: &crate::ostree::mark::Mark,
        commit: Vec<u8>,
        metadata: Option<&[u8]>,
    ) -> Result<VerifiedCommit, String> {
        let mut policy = Policy::new(Trust::Ed25519(&self.keys), floor);
        policy.reference = self.wanted.reference.as_deref();
        policy.unbound = self.options.has("--unbound");
        policy.collection = self.wanted.remote.as_deref().and_then(|r| config.remote(r, "collection-id"));
        policy.compatible = self.options.value("--compatible");
        policy.age.now = u64::try_from(time::wall()).ok();
        if self.options.has("--downgrade") {
            policy.exception = self.wanted.commit;
        }
        let name = Checksum::of(&commit);
        let admitted = policy.admit(&name, commit, metadata).map_err(|e| e.to_string())?;
        admitted.warnings.iter().for_each(|warning| log::warn!("{name}: {warning}"));
        Ok(admitted.commit)
    }

    fn upgrade(&self, site: &Site, stateroot: String) -> Result<(), String> {
        let commit = self.pull()?;
        let name = commit.commit().checksum();
        if !self.options.has("--force") {
            act::not_rejected(site, &name).map_err(|e| e.to_string())?;
        }
        let path = format!("ostree/deploy/{stateroot}/deploy/{name}.0");
        if Beneath::open(&site.sysroot).is_ok_and(|tree| tree.is_directory(&path)) {
            println!("{name} is deployed already");
            return Ok(());
        }
        let reference = self.wanted.reference.as_deref().unwrap_or_default();
        let refspec = match &self.wanted.remote {
            Some(remote) => format!("{remote}:{reference}"),
            None => reference.into(),
        };
        let deploy = Deploy { stateroot, refspec, trial: true, ..Deploy::default() };
        let json = self.show == Show::Json;
        let report = act::deploy(site, &commit, &deploy, &mut super::deploy::shown(json));
        super::deploy::show(&report.map_err(|e| e.to_string())?, false, json);
        Ok(())
    }
}

type Failure = pull::Error<crate::sys::files::FilesError>;

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
    fn pulling(self) -> impl FnMut(&Progress) {
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
