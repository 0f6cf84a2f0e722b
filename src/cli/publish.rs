//! `bootward keygen` and `bootward sign`: the publisher's side of what devices verify.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use nix::errno::Errno;
use serde::Serialize;

use crate::ostree::object::{COMMITMETA_MAX, Checksum, Kind, OBJECT_MAX};
use crate::ostree::sign::make::{SECRET_MAX, Secret, Signed, sign as add};
use crate::publish::{in_repo, keep_key, put_metadata};
use crate::storage::At;
use crate::sys::beneath::Beneath;
use crate::sys::files::Disk;
use crate::sys::{errno, random};

use super::finish;
use super::options::{Known, Options, usage};
use super::status::JSON;

const KEYGEN: &str = "\
Usage: bootward keygen [--output FILE] [--json]

Makes a pair of ed25519 keys for signing commits. FILE gets the secret key, as
'ostree sign' takes it (base64 of 64 bytes, mode 0600), FILE.pub the public
one, as devices have it (base64 of 32 bytes). Neither may be there already; where
a run was cut, so that FILE is there and FILE.pub is not, it is written of FILE.
The public key is printed.

  --output FILE  the file of the secret key (default bootward.key)
  --json         one JSON object, for programs

Exit codes: 0 done, 1 failed (reason on standard error), 2 wrong command line.
";

const SIGN: &str = "\
Usage: bootward sign --repo DIR --key FILE [--json] COMMIT|REF

Adds an ed25519 signature to the detached metadata of a commit, as 'ostree
sign' does (key ostree.sign.ed25519); everything else in there stays. A commit
that the key has signed before stays as it is. A power cut leaves the old
metadata or the new one.

  --repo DIR  the repository, of any mode
  --key FILE  the secret key, as keygen made it; - reads it from standard input
  --json      one JSON object, for programs
  COMMIT|REF  a commit's 64 digits, a ref of the repository, or REMOTE:REF

One signature more than a device looks at (32) is refused. Two at once on the
same commit: the later one may undo the other; run it again.

Exit codes: 0 signed, or signed before; 1 failed (reason on standard error);
2 wrong command line.
";

const OUTPUT: Known = Known { name: "--output", value: true };
const REPO: Known = Known { name: "--repo", value: true };
const KEY: Known = Known { name: "--key", value: true };

#[derive(Serialize)]
struct Made<'a> {
    secret_file: &'a str,
    public_file: &'a str,
    public: &'a str,
}

#[derive(Serialize)]
struct Done<'a> {
    commit: &'a str,
    public: &'a str,
    added: bool,
    signatures: usize,
}

/// Runs `bootward keygen`.
pub fn keygen(arguments: &[String]) -> ExitCode {
    let options = match Options::read(arguments, &[OUTPUT, JSON], KEYGEN) {
        Ok(options) => options,
        Err(code) => return code,
    };
    if !options.rest.is_empty() {
        return usage("keygen takes no more than options");
    }
    let path = options.value(OUTPUT.name).unwrap_or("bootward.key");
    finish(make(path, options.has(JSON.name)))
}

fn make(path: &str, json: bool) -> Result<String, String> {
    let above = Path::new(path).parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = Path::new(path).file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| format!("{path} cannot be a file"))?;
    let random = random::bytes().map_err(|e| format!("no randomness: {}", e.desc()))?;
    let secret = Secret::new(random).ok_or("no randomness: the kernel gave zeros")?;
    let mut disk = Disk::open(above, above).map_err(|e| e.to_string())?;
    let public =
        keep_key(&mut disk, &At::root(name), &secret).map_err(|e| format!("{}: {e}", above.display()))?;
    let public_path = format!("{path}.pub");
    Ok(if json {
        let made = Made { secret_file: path, public_file: &public_path, public: &public };
        serde_json::to_string(&made).unwrap_or_default()
    } else {
        public
    })
}

fn failed(what: impl std::fmt::Display, error: &std::io::Error) -> String {
    format!("{what}: {}", errno(error).desc())
}

/// Runs `bootward sign`.
pub fn sign(arguments: &[String]) -> ExitCode {
    let options = match Options::read(arguments, &[REPO, KEY, JSON], SIGN) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let (Some(repo), Some(key)) = (options.value(REPO.name), options.value(KEY.name)) else {
        return usage("sign needs --repo and --key");
    };
    let [name] = options.rest.as_slice() else { return usage("sign takes one commit or ref") };
    finish(secret(key).and_then(|key| put(Path::new(repo), &key, name, options.has(JSON.name))))
}

fn secret(path: &str) -> Result<Secret, String> {
    let mut text = Vec::new();
    let mut limited = |from: &mut dyn Read| from.take(SECRET_MAX as u64).read_to_end(&mut text);
    let read = match path {
        "-" => limited(&mut std::io::stdin()),
        path => File::open(path).and_then(|mut file| {
            let mode = file.metadata()?.permissions().mode();
            if mode & 0o077 != 0 {
                log::warn!("{path}: others can read this secret key (mode {:o})", mode & 0o777);
            }
            limited(&mut file)
        }),
    };
    read.map_err(|e| failed(path, &e))?;
    Secret::parse(&text).map_err(|e| format!("{path}: {e}"))
}

fn put(path: &Path, secret: &Secret, name: &str, json: bool) -> Result<String, String> {
    let at = |what: &str| format!("{}: {what}", path.display());
    let repo = Beneath::open(path).map_err(|e| at(e.desc()))?;
    let commit = resolve(&repo, name).map_err(|why| at(&why))?;
    let object = in_repo(&commit, Kind::Commit);
    let data = repo.read(&object, OBJECT_MAX).map_err(|e| at(&format!("{object}: {}", e.desc())))?;
    if Checksum::of(&data) != commit {
        return Err(at(&format!("{object} is damaged: it has another checksum")));
    }
    let place = in_repo(&commit, Kind::CommitMeta);
    let old = match repo.read(&place, COMMITMETA_MAX) {
        Err(Errno::ENOENT) => None,
        read => Some(read.map_err(|e| at(&format!("{place}: {}", e.desc())))?),
    };
    let Signed { metadata, signatures } =
        add(secret, &data, old.as_deref()).map_err(|e| at(&format!("commit {commit}: {e}")))?;
    if let Some(metadata) = &metadata {
        let aside = At::root(format!("tmp/bootward-sign-{}", std::process::id()));
        let mut disk = Disk::open(path, path).map_err(|e| e.to_string())?;
        put_metadata(&mut disk, &aside, &commit, metadata).map_err(|e| at(&e.to_string()))?;
    }
    let (public, commit) = (secret.public(), commit.to_string());
    Ok(match (json, &metadata) {
        (true, _) => {
            let done = Done { commit: &commit, public: &public, added: metadata.is_some(), signatures };
            serde_json::to_string(&done).unwrap_or_default()
        }
        (false, Some(_)) => format!("signed {commit} with {public}, {signatures} signatures"),
        (false, None) => format!("{commit} is signed with {public} already, {signatures} signatures"),
    })
}

fn resolve(repo: &Beneath, name: &str) -> Result<Checksum, String> {
    if let Some(commit) = Checksum::parse(name) {
        return Ok(commit);
    }
    let names = name.split(['/', ':']);
    if names.clone().any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("'{name}' is neither a commit nor a ref"));
    }
    let path = match name.split_once(':') {
        Some((remote, name)) => format!("refs/remotes/{remote}/{name}"),
        None => format!("refs/heads/{name}"),
    };
    let text = repo.read(&path, 256).map_err(|e| format!("ref {name}: {}", e.desc()))?;
    let commit = std::str::from_utf8(&text).ok().and_then(|text| Checksum::parse(text.trim_end()));
    commit.ok_or_else(|| format!("{path} is damaged: it names no commit"))
}
