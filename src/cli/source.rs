//! Where objects come from, as typed: `--url`, `--ca`, `--cert`, `--cert-key`.

use std::path::Path;

use crate::fetch::{self, Url};
use crate::upgrade;

use super::options::Options;

/// The servers: as typed, else the one that the repository's config has for the remote, if it has one.
pub fn urls(options: &Options, sysroot: &Path, remote: Option<&str>) -> Result<Vec<Url>, String> {
    let parse = |url: &str| Url::parse(url).map_err(|e| format!("{url}: {e}"));
    let typed: Vec<Url> = options.values("--url").map(parse).collect::<Result<_, _>>()?;
    let Some(remote) = remote.filter(|_| typed.is_empty()) else { return Ok(typed) };
    let config = upgrade::config(sysroot).map_err(|e| e.to_string())?;
    config.remote(remote, "url").map(parse).transpose().map(|url| url.into_iter().collect())
}

/// How they are talked to.
pub fn transport(options: &Options) -> Result<fetch::Options, String> {
    #[cfg(feature = "tls")]
    {
        let identity = match (options.value("--cert"), options.value("--cert-key")) {
            (Some(certificate), Some(key)) => {
                Some(fetch::tls::Identity { certificate: certificate.into(), key: key.into() })
            }
            (None, None) => None,
            _ => return Err("--cert and --cert-key go together".into()),
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
