//! Records what an operation writes to a disk: every request, in its order, with every flush.
//!
//! QEMU's storage daemon shows the disk as one file, through FUSE, and logs what reaches it. The file systems
//! are mounted from loop devices on that file; a sync of theirs becomes a flush in the log.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::blocklog::{self, Request};
use super::disk::{Layout, copy, size};

/// Time for the kernel's own write-back after an operation: ext4 commits every 5 seconds, and devices run on
/// after an update. Without it those writes would be seen as one unmount only.
pub const SETTLE: Duration = Duration::from_secs(7);
/// Time for the storage daemon to start or end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A disk before an operation, and what the operation wrote.
#[derive(Debug)]
pub struct Recording {
    /// The disk before.
    pub base: PathBuf,
    /// The file systems on it.
    pub layout: Layout,
    /// What reached the disk.
    pub requests: Vec<Request>,
}

/// Ends the daemon if nothing else did.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Recording {
    /// Carries out `operation` on a disk that is as `base`, in a mount namespace of the caller's own. Scratch files
    /// are in `dir`.
    ///
    /// # Errors
    /// When a tool fails, or when the log does not lead from the disk before to the disk after.
    pub fn make(
        base: &Path,
        layout: Layout,
        dir: &Path,
        operation: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let (live, log, export) = (dir.join("live.img"), dir.join("log.img"), dir.join("export"));
        copy(base, &live)?;
        // The log grows as it needs.
        File::create(&log)?.set_len(4 << 30)?;
        File::create(&export)?;
        let mut daemon = start(&live, &log, &export, size(layout))?;
        operation(&export)?;
        end(&mut daemon)?;
        let recording = Self::kept(base, layout, dir)?;
        recording.check(&live)?;
        fs::remove_file(&live)?;
        Ok(recording)
    }

    /// The recording that was made in `dir` before.
    ///
    /// # Errors
    /// When there is none.
    pub fn kept(base: &Path, layout: Layout, dir: &Path) -> io::Result<Self> {
        Ok(Recording { base: base.into(), layout, requests: blocklog::read(&dir.join("log.img"))? })
    }

    /// The disk before with everything replayed must be the disk after.
    fn check(&self, after: &Path) -> io::Result<()> {
        let (mut disk, after) = (fs::read(&self.base)?, fs::read(after)?);
        for request in self.requests.iter().filter(|r| r.writes()) {
            disk[request.range.start as usize..request.range.end as usize].copy_from_slice(&request.data);
        }
        if disk == after { Ok(()) } else { Err(io::Error::other("the log does not lead to the disk after")) }
    }
}

fn start(live: &Path, log: &Path, export: &Path, size: u64) -> io::Result<Daemon> {
    let shown = |p: &Path| p.display().to_string();
    let mut command = Command::new("qemu-storage-daemon");
    command.args(["--blockdev", &format!("driver=file,node-name=f,filename={}", shown(live))]);
    command.args(["--blockdev", &format!("driver=file,node-name=l,filename={}", shown(log))]);
    command.args(["--blockdev", "driver=blklogwrites,node-name=d,file=f,log=l"]);
    let mounted = format!("type=fuse,id=e,node-name=d,mountpoint={},writable=on", shown(export));
    command.args(["--export", &mounted]).stdin(Stdio::null()).stdout(Stdio::null());
    let missing = |e: io::Error| io::Error::other(format!("qemu-storage-daemon: {e}; run tests/vm/setup"));
    let mut daemon = Daemon(command.spawn().map_err(missing)?);
    let deadline = Instant::now() + PATIENCE;
    while fs::metadata(export).map_or(0, |m| m.len()) != size {
        if daemon.0.try_wait()?.is_some() || Instant::now() > deadline {
            return Err(io::Error::other("qemu-storage-daemon does not export the disk"));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(daemon)
}

/// Has the daemon finish its log.
fn end(daemon: &mut Daemon) -> io::Result<()> {
    let pid = nix::unistd::Pid::from_raw(daemon.0.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    let deadline = Instant::now() + PATIENCE;
    while daemon.0.try_wait()?.is_none() {
        if Instant::now() > deadline {
            return Err(io::Error::other("qemu-storage-daemon does not end"));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
