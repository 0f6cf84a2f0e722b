//! Mirrors of each other, asked one after the other.

use log::warn;

use crate::fetch::{self, AnyTransport, Stop, Url};
use crate::pull::{self, Progress};
use crate::sys::files::FilesError;

use super::watched::Tell;
use super::{Error, HASTE};

/// With several sources so many failures in a row are enough to ask the next one.
const TRIES: u32 = 3;

type Pulled = Result<Progress, pull::Error<FilesError>>;

/// Sources, and how they are talked to.
#[derive(Clone, Copy)]
pub(super) struct Supply<'a> {
    pub(super) sources: &'a [Url],
    pub(super) transport: &'a fetch::Options,
    /// The only source, where it was talked to just now.
    pub(super) known: Option<&'a AnyTransport>,
}

impl Supply<'_> {
    pub(super) fn open(&self, (url, haste): (&Url, u64), stop: &Stop) -> Result<AnyTransport, Error> {
        let mut options = fetch::Options { stop: stop.clone(), ..self.transport.clone() };
        options.limits.rate = options.limits.rate.saturating_mul(haste);
        let failed = |cause| Error::pull(url, pull::Error::Fetch { path: String::new(), cause });
        fetch::open(url, &options).map_err(failed)
    }

    /// How each is pulled from: where there are others, or another round anyway, none is waited for long.
    pub(super) fn options(&self, options: pull::Options) -> pull::Options {
        let mirrored = options.mirrored || self.sources.len() > 1;
        let tries = if mirrored { options.tries.min(TRIES) } else { options.tries };
        pull::Options { tries, mirrored, ..options }
    }

    /// Asks one source after the other until one has brought all; none is an error of its own.
    pub(super) fn rounds(
        &self,
        sources: &[usize],
        stop: &Stop,
        tell: Tell<'_>,
        pull: &mut dyn FnMut(&AnyTransport, Tell<'_>) -> Pulled,
    ) -> Result<Progress, Error> {
        let mut before = Progress::default();
        let mut haste = if sources.len() > 1 { HASTE } else { 1 };
        loop {
            let (mut failed, mut came) = (Vec::new(), 0);
            for url in sources.iter().filter_map(|index| self.sources.get(*index)) {
                let mut last = Progress::default();
                let mut tell = |now: &Progress| {
                    last = *now;
                    tell(&before.and(now));
                };
                let server =
                    self.known.map_or_else(|| self.open((url, haste), stop), |known| Ok(known.clone()));
                let pulled = server
                    .and_then(|server| pull(&server, &mut tell).map_err(|cause| Error::pull(url, cause)));
                match pulled {
                    Ok(now) => {
                        failed.iter().for_each(|e| warn!("{e}"));
                        return Ok(before.and(&now));
                    }
                    Err(e) if !e.of_source() => return Err(e),
                    Err(e) => failed.push(e),
                }
                came += last.fetched;
                before = before.and(&last);
            }
            if sources.len() < 2 || (came == 0 && haste == 1) {
                return Err(Error::of(failed));
            }
            haste = 1;
        }
    }
}
