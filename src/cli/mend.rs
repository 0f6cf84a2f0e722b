//! `bootward verify --repair`.

use std::process::ExitCode;

use crate::ostree::Keys;
use crate::ostree::verify::Report;
use crate::pull;
use crate::sysroot::Deployment;
use crate::trial::act::Site;
use crate::upgrade::{Error, Mending, Repaired, put_right};

use super::options::{Known, Options, Show, usage};
use super::source;

/// The options: whether, and where from.
pub const OPTIONS: [Known; 7] = [
    Known { name: REPAIR, value: false },
    Known { name: "--url", value: true },
    Known { name: "--remote", value: true },
    Known { name: "--channels", value: true },
    Known { name: "--ca", value: true },
    Known { name: "--cert", value: true },
    Known { name: "--cert-key", value: true },
];
const REPAIR: &str = "--repair";

/// A repair that was asked for.
pub struct Asked<'a> {
    options: &'a Options,
    site: Site,
    channels: usize,
}

impl<'a> Asked<'a> {
    /// What was typed; `None` where nothing is to be repaired.
    pub fn of(options: &'a Options) -> Result<Option<Self>, ExitCode> {
        if !options.has(REPAIR) {
            return match OPTIONS.iter().find(|option| options.has(option.name)) {
                Some(option) => Err(usage(&format!("{} goes with {REPAIR}", option.name))),
                None => Ok(None),
            };
        }
        if options.has("--level") || options.has("--timeout") {
            return Err(usage("--repair looks at everything, however long that takes"));
        }
        let channels = super::options::number(options, "--channels", 4, 32)?;
        Ok(Some(Asked { options, site: super::site(options), channels }))
    }

    /// Puts a deployment right.
    pub fn put_right(
        &self,
        deployment: &Deployment,
        keys: Option<&Keys>,
        show: Show,
    ) -> Result<(Repaired, Report), String> {
        let origin = deployment.refspec.as_deref().and_then(|refspec| refspec.split_once(':'));
        let remote = self.options.value("--remote").or(origin.map(|(remote, _)| remote));
        let mending = Mending {
            transport: source::transport(self.options)?,
            options: pull::Options { channels: self.channels, ..pull::Options::default() },
            ..Mending::new(&self.site, source::urls(self.options, &self.site.sysroot, remote)?)
        };
        let mut tell = show.pulling();
        let done = put_right(&mending, deployment, keys, &mut |progress| {
            tell(progress);
            true
        });
        done.map_err(|e: Error| e.to_string())
    }
}
