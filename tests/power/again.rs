//! The guardian's own boot as the operation that is cut: it starts on what a cut update has left, replays journals and
//! writes its attempt down, and the power goes again.

use std::fs;
use std::io;
use std::path::Path;

use super::campaign::{Campaign, Place, in_parallel};
use super::disk::copy;
use super::loader::{Loaded, load};
use super::record::Recording;
use super::replay::Replay;
use super::states::State;
use super::systems::{Ended, Initramfs, System};

/// Has the system stay up until the kernel has written back what it likes.
const SETTLE: &str = "lab.settle";
/// So many boots are recorded at a time; they sleep most of it.
const AT_A_TIME: usize = 6;

/// Records a boot of each of these states, below `dir`. States without a kernel have none.
///
/// # Errors
/// When the laboratory itself fails, or a state does not boot.
pub fn record(campaign: &Campaign, states: &[State], dir: &Path) -> io::Result<Vec<(State, Recording)>> {
    in_parallel(states, AT_A_TIME, |share| {
        let place = Place::new()?;
        let initramfs = Initramfs::new(&place.dir, campaign.bootward)?;
        let mut replay = Replay::new(campaign.recording, &place.dir)?;
        let mut recorded = Vec::new();
        for state in share {
            let image = replay.make(state)?;
            let own = dir.join(state.to_string());
            if let Some(recording) = boot(campaign, &place, &initramfs, &image, &own)
                .map_err(|e| io::Error::other(format!("a boot of state {state}: {e}")))?
            {
                recorded.push((state.clone(), recording));
            }
            fs::remove_file(image)?;
        }
        Ok(recorded)
    })
}

/// The recording of the boot of `state` that was made last below `dir`.
///
/// # Errors
/// When there is none.
pub fn kept(campaign: &Campaign, state: &State, dir: &Path) -> io::Result<Recording> {
    let own = dir.join(state.to_string());
    Recording::kept(&own.join("base.img"), campaign.recording.layout, &own)
        .map_err(|e| io::Error::other(format!("no boot of state {state} was recorded: {e}")))
}

fn boot(
    campaign: &Campaign,
    place: &Place,
    initramfs: &Initramfs,
    image: &Path,
    dir: &Path,
) -> io::Result<Option<Recording>> {
    let layout = campaign.recording.layout;
    let Loaded::Kernel { command_line } = load(image, layout, &place.mount, campaign.trees) else {
        return Ok(None);
    };
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir)?;
    let base = dir.join("base.img");
    copy(image, &base)?;
    let words = format!("{command_line} {SETTLE}");
    let operation = |disk: &Path| match initramfs.boot(System::Bootward, disk, layout, &words)? {
        Ended::Up { .. } => Ok(()),
        Ended::Dead(why) => Err(io::Error::other(why)),
    };
    Recording::make(&base, layout, dir, operation).map(Some)
}
