//! Stage 5: what the boot writes to the ledger, before it acts.

use std::path::Path;

use log::warn;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::ledger::{DeploymentId, Kind, Record, file, record::clip};
use crate::sys::medium::MediumError;
use crate::sys::time;

/// The records of one step of the boot, made durable together.
#[derive(Debug)]
pub struct Diary {
    boot: [u8; 16],
    pending: Vec<Record>,
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

    /// Writes what was noted and waits until it is durable. A medium that refuses is a warning, never the
    /// end of the boot. A root mounted read-only is made writable for as long as it takes.
    pub fn write(&mut self, sysroot: &Path) {
        let records = std::mem::take(&mut self.pending);
        if records.is_empty() {
            return;
        }
        let written = match append(sysroot, &records) {
            Err(e) if e.error.raw_os_error() == Some(Errno::EROFS as i32) => {
                let writable = remount(sysroot, MsFlags::empty()).is_ok();
                let again = append(sysroot, &records);
                if writable && let Err(e) = remount(sysroot, MsFlags::MS_RDONLY) {
                    warn!("{} stays writable: {e}", sysroot.display());
                }
                again
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

/// Remounts with the options that the mount has, but for read-only, which `flags` says.
fn remount(sysroot: &Path, flags: MsFlags) -> nix::Result<()> {
    let has = statvfs(sysroot)?.flags();
    let kept = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_SYNCHRONOUS, MsFlags::MS_SYNCHRONOUS),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
    ];
    let kept = kept.iter().filter(|(st, _)| has.contains(*st)).fold(flags, |all, (_, ms)| all | *ms);
    mount(None::<&str>, sysroot, None::<&str>, MsFlags::MS_REMOUNT | kept, None::<&str>)
}
