//! Mends the deployments that are there before anything whole is fetched.

use std::time::Duration;

use super::fetch::{Meter, pull_options, transport};
use super::status::Phase;
use super::worker::Worker;
use crate::deploy::act;
use crate::fetch::Url;
use crate::net::clock::Clock;
use crate::ostree::Checksum;
use crate::upgrade::{Mending, repair};

/// A deployment that lacks more bytes than this is not mended: what the server has now is fetched instead, and what came
/// by then is not fetched again.
const BYTES_MAX: u64 = 32 << 20;

/// Mends the first broken deployment that can be mended, with what is at hand, or with objects of these servers; whether
/// one was. What a deployment's name says is what it is made to be: nothing new gets onto the device by this.
pub(super) fn step(
    worker: &mut Worker,
    name: &str,
    sources: &[Url],
    clock: Option<&Clock>,
    came: &mut u64,
) -> bool {
    let site = worker.task.site.clone();
    for (index, _) in worker.task.broken.clone() {
        let Some(deployment) = worker.task.deployments.get(index).cloned() else { continue };
        let Some(commit) = Checksum::parse(&deployment.commit) else { continue };
        // Without its commit nothing is known of it, and one that failed here is not worth mending.
        let lost = act::commit(&site, &commit).is_err();
        if lost || act::not_rejected(&site.sysroot, &commit).is_err() || worker.shared.is_wished() {
            continue;
        }
        worker.shared.phase(if sources.is_empty() { Phase::Resuming } else { Phase::Fetching });
        worker.shared.tell(&format!("looking at what can be mended of deployment {index}"));
        let mending = Mending {
            transport: transport(&worker.task.settings.recovery, clock),
            options: pull_options(worker),
            patience: Duration::from_secs(60),
            ..Mending::new(&site, sources.to_vec())
        };
        let before = *came;
        let mut meter = Meter::new(worker, clock.is_some(), came).limited(BYTES_MAX).of(sources.len());
        let mended = repair(&mending, &deployment, &mut |progress| meter.goes_on(progress));
        match mended {
            Ok(done) => {
                let sentence = format!(
                    "{name}: mended {}: {} of {} objects fetched, {} kB, {} paths put right",
                    deployment.name(),
                    done.fetched,
                    done.objects,
                    done.bytes / 1000,
                    done.mended
                );
                worker.shared.tell(&sentence);
                worker.record(&sentence);
                return true;
            }
            Err(e) => {
                let more = if *came > before {
                    format!(" ({} kB came)", (*came - before) / 1000)
                } else {
                    String::new()
                };
                worker.shared.tell(&format!("deployment {index} is not mended: {e}{more}"));
            }
        }
    }
    false
}
