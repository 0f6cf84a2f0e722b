//! What is to be told in the ledger, collected and then made durable in one go: by the boot before it acts, and by the
//! verbs in the OS after they did.

use std::path::Path;

use log::warn;
use nix::errno::Errno;
use nix::mount::MsFlags;

use super::{DeploymentId, Kind, Record, file, record::clip};
use crate::sys::medium::MediumError;
use crate::sys::mount::remount;
use crate::sys::time;

/// The records of one step of the boot, made durable together.
#[derive(Debug)]
pub struct Diary {
    boot: [u8; 16],
    pending: Vec<Record>,
}

impl Default for Diary {
    fn default() -> Self {
        Diary::new()
    }
}

impl Diary {
    /// An empty one for this boot.
    pub fn new() -> Self {
        Diary { boot: time::boot_id(), pending: Vec::new() }
    }

    /// Notes something down; nothing is written yet.
    pub fn note(&mut self, kind: Kind, deployment: Option<DeploymentId>, text: &str) {
        self.pending.push(Record {
            kind,
            sequence: 0,
            time: time::wall(),
            uptime: time::uptime(),
            deployment: deployment.unwrap_or_default(),
            boot: self.boot,
            text: clip(text),
        });
    }

    /// The kernel's boot id, which the records of this boot share.
    pub fn boot(&self) -> [u8; 16] {
        self.boot
    }

    /// Writes what was noted and waits until it is durable. A medium that refuses is a warning, never the
    /// end of the boot. A root mounted read-only is made writable for as long as it takes.
    pub fn write(&mut self, sysroot: &Path) {
        let records = std::mem::take(&mut self.pending);
        if records.is_empty() {
            return;
        }
        let written = match append(sysroot, &records) {
            Err(e) if e.error.raw_os_error() == Some(Errno::EROFS as i32) => {
                while_writable(sysroot, || append(sysroot, &records))
            }
            other => other,
        };
        if let Err(e) = written {
            warn!("the boot ledger was not written, going on without: {e}");
        }
    }
}

/// Appends what the ledger does not already say. Attempts, failures and the like are told every time they
/// happen; a standing condition is told once, until it has left the ring.
fn append(sysroot: &Path, records: &[Record]) -> Result<(), MediumError> {
    let mut ring = file::open_or_create(sysroot)?;
    let standing = |kind| matches!(kind, Kind::Note | Kind::Skipped);
    let mut told = vec![false; records.len()];
    ring.each(|old| {
        for (told, new) in told.iter_mut().zip(records) {
            let same = old.kind == new.kind && old.deployment == new.deployment && old.text == new.text;
            *told |= standing(new.kind) && same;
        }
    })?;
    let told = told.iter().zip(records);
    let mut news: Vec<Record> = told.filter(|(told, _)| !**told).map(|(_, record)| record.clone()).collect();
    if news.is_empty() { Ok(()) } else { ring.append(&mut news) }
}

/// Does it with the file system mounted writable, which it is not before and after.
pub fn while_writable<T>(mounted: &Path, it: impl FnOnce() -> T) -> T {
    let writable = remount(mounted, MsFlags::empty()).is_ok();
    let done = it();
    if writable && let Err(e) = remount(mounted, MsFlags::MS_RDONLY) {
        warn!("{} stays writable: {e}", mounted.display());
    }
    done
}
