//! Where objects come from, as typed: `--url`, `--ca`, `--cert`, `--cert-key`.

use std::path::Path;
use std::process::ExitCode;

use crate::fetch::{self, Url};
use crate::upgrade;

use super::options::{Options, usage};

fn failed(why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("bootward: {why}");
    ExitCode::from(super::FAILED)
}

/// The servers: as typed, else the one that the repository's config has for the remote.
pub fn urls(options: &Options, sysroot: &Path, remote: Option<&str>) -> Result<Vec<Url>, ExitCode> {
    let parse = |url: &str| Url::parse(url).map_err(|e| failed(&format!("{url}: {e}")));
    let typed: Vec<Url> = options.values("--url").map(parse).collect::<Result<_, _>>()?;
    let Some(remote) = remote.filter(|_| typed.is_empty()) else { return Ok(typed) };
    let config = upgrade::config(sysroot).map_err(|e| failed(&e))?;
    match config.remote(remote, "url") {
        Some(url) => Ok(vec![parse(url)?]),
        None => {
            Err(failed(&format!("the repository's config has no url for the remote {remote}; give --url")))
        }
    }
}

/// How they are talked to.
pub fn transport(options: &Options) -> Result<fetch::Options, ExitCode> {
    #[cfg(feature = "tls")]
    {
        let identity = match (options.value("--cert"), options.value("--cert-key")) {
            (Some(certificate), Some(key)) => {
                Some(fetch::tls::Identity { certificate: certificate.into(), key: key.into() })
            }
            (None, None) => None,
            _ => return Err(usage("--cert and --cert-key go together")),
        };
        let authorities = options.value("--ca").map(std::path::PathBuf::from).into_iter().collect();
        Ok(fetch::Options { authorities, identity, ..fetch::Options::default() })
    }
    #[cfg(not(feature = "tls"))]
    {
        let _ = options;
        Ok(fetch::Options::default())
    }
}
