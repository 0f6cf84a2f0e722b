//! Judges the states of a recording, by several workers at once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::disk::{Layout, Mounted, View, copy};
use super::loader::{Loaded, load};
use super::record::Recording;
use super::replay::Replay;
use super::states::{Class, State, states};
use super::systems::{Ended, Initramfs, System};
use super::tree::Tree;
use super::variables;

/// What became of one state with one system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A deployment runs, every file of it as it was committed.
    Whole(u32),
    /// A deployment runs that is not what was committed.
    Corrupt(String),
    /// No deployment runs.
    Dead(String),
    /// The bootloader has no whole kernel to start; no initramfs is ever reached.
    NoKernel(String),
    /// Linux itself cannot mount the root: nothing but a check of the file system can help.
    NoFilesystem(String),
}

/// A state's verdict.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The state.
    pub state: State,
    /// With which system.
    pub system: System,
    /// What came of it.
    pub verdict: Verdict,
}

/// What is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Campaign<'a> {
    /// The recording.
    pub recording: &'a Recording,
    /// Every version that was committed.
    pub trees: &'a [Tree],
    /// The device binary of bootward.
    pub bootward: &'a Path,
    /// With which systems.
    pub systems: &'a [System],
    /// How many at a time.
    pub workers: usize,
}

impl Campaign<'_> {
    /// Judges all states of `class`, or every `stride`th.
    ///
    /// # Errors
    /// When the laboratory itself fails.
    pub fn run(&self, class: Class, stride: usize) -> io::Result<Vec<Judged>> {
        let all = states(&self.recording.requests, class);
        let chosen: Vec<State> = all.into_iter().step_by(stride.max(1)).collect();
        self.judge(&chosen)
    }

    /// Judges these states, which are in order.
    ///
    /// # Errors
    /// When the laboratory itself fails.
    pub fn judge(&self, states: &[State]) -> io::Result<Vec<Judged>> {
        in_parallel(states, self.workers, |share| self.work(share))
    }

    fn work(&self, states: &[State]) -> io::Result<Vec<Judged>> {
        let place = Place::new()?;
        let initramfs = Initramfs::new(&place.dir, self.bootward)?;
        let requests = &self.recording.requests;
        let mut replay = Replay::new(self.recording, &place.dir)?;
        let mut all = Vec::new();
        let mut before: Option<(&State, Vec<Judged>)> = None;
        for state in states {
            // A flush changes nothing: what holds before it holds after it.
            let same = before.as_ref().is_some_and(|(b, _)| {
                b.more.is_empty()
                    && state.more.is_empty()
                    && !requests[b.first..state.first].iter().any(|r| r.writes())
            });
            let judged = if let (true, Some((_, old))) = (same, &before) {
                old.iter().map(|j| Judged { state: state.clone(), ..j.clone() }).collect()
            } else {
                let image = replay.make(state)?;
                let judged = self.look(&image, state, &initramfs, &place)?;
                // A boot has taken it, or nothing has started.
                if image.exists() {
                    fs::remove_file(image)?;
                }
                judged
            };
            all.extend(judged.iter().cloned());
            before = Some((state, judged));
        }
        Ok(all)
    }

    fn look(
        &self,
        image: &Path,
        state: &State,
        initramfs: &Initramfs,
        place: &Place,
    ) -> io::Result<Vec<Judged>> {
        let (layout, trees) = (self.recording.layout, self.trees);
        let loaded = load(image, layout, &place.mount, trees);
        let mut judged = Vec::new();
        for (n, &system) in self.systems.iter().enumerate() {
            let verdict = match &loaded {
                Loaded::Nothing(why) => Verdict::NoKernel(why.clone()),
                Loaded::Kernel { command_line } => {
                    // Each changes the disk as it boots: the last one may have it.
                    let own = if n + 1 == self.systems.len() {
                        image.into()
                    } else {
                        let own = image.with_extension(format!("{n}.img"));
                        copy(image, &own)?;
                        own
                    };
                    let verdict = boot(&own, layout, place, trees, initramfs, system, command_line)?;
                    fs::remove_file(own)?;
                    verdict
                }
            };
            judged.push(Judged { state: state.clone(), system, verdict });
        }
        Ok(judged)
    }
}

/// Shares `items` out among so many workers; what they return is in the items' order.
///
/// # Errors
/// The first of a worker's.
pub fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    workers: usize,
    work: impl Fn(&[T]) -> io::Result<Vec<R>> + Sync,
) -> io::Result<Vec<R>> {
    let share = items.len().div_ceil(workers.max(1)).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = items.chunks(share).map(|share| scope.spawn(|| work(share))).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| io::Error::other("a worker panicked"))??);
        }
        Ok(all)
    })
}

/// A worker's own mounts and scratch files, in memory.
#[derive(Debug)]
pub struct Place {
    /// For scratch files, in memory.
    pub dir: PathBuf,
    /// For mounts.
    pub mount: PathBuf,
}

impl Place {
    /// For the calling thread.
    ///
    /// # Errors
    /// Without root.
    pub fn new() -> io::Result<Self> {
        own_namespace()?;
        let dir = PathBuf::from("/mnt");
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        let mount = dir.join("disk");
        // With a place for a boot partition that is mounted alone.
        fs::create_dir_all(mount.join("boot"))?;
        Ok(Place { dir, mount })
    }
}

/// From here on this thread's mounts are its own.
///
/// # Errors
/// Without root.
pub fn own_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|e| io::Error::other(format!("no mount namespace of its own: {}; run as root", e.desc())))?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?)
}

/// Boots a disk, and looks at what runs.
///
/// # Errors
/// When the laboratory itself fails.
pub fn boot(
    image: &Path,
    layout: Layout,
    place: &Place,
    trees: &[Tree],
    initramfs: &Initramfs,
    system: System,
    command_line: &str,
) -> io::Result<Verdict> {
    match initramfs.boot(system, image, layout, command_line)? {
        Ended::Dead(why) => match Mounted::new(image, &layout[..1], &place.mount, View::Linux) {
            Ok(mounted) => mounted.close().map(|()| Verdict::Dead(why)),
            Err(e) => Ok(Verdict::NoFilesystem(e.to_string())),
        },
        Ended::Up { version, inode } => compare(image, layout, place, trees, version, inode),
    }
}

/// Whether the deployment that runs is as it was committed.
fn compare(
    image: &Path,
    layout: Layout,
    place: &Place,
    trees: &[Tree],
    version: u32,
    inode: u64,
) -> io::Result<Verdict> {
    let mounted = Mounted::new(image, layout, &place.mount, View::Linux)?;
    let deployments = fs::read_dir(mounted.at.join("ostree/deploy/lab/deploy"))?;
    let running = deployments
        .flatten()
        .find(|d| d.metadata().is_ok_and(|m| m.is_dir() && m.ino() == inode))
        // Only the path: an entry keeps its directory open.
        .map(|d| d.path())
        .ok_or_else(|| io::Error::other("what runs is no deployment"))?;
    let tree = trees.iter().find(|t| t.version == version);
    let verdict = match tree.map_or(Err("of no known version".into()), |t| t.compare(&running)) {
        Ok(()) => Verdict::Whole(version),
        Err(why) => Verdict::Corrupt(why),
    };
    let verdict = variables::wrong(&mounted.at, version).map_or(verdict, Verdict::Corrupt);
    mounted.close()?;
    Ok(verdict)
}

/// Counts of one class and system.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Whole, by version.
    pub whole: BTreeMap<u32, usize>,
    /// Corrupt, dead, without a kernel.
    pub corrupt: usize,
    /// No deployment runs although the kernel does.
    pub dead: usize,
    /// Never reached the kernel.
    pub no_kernel: usize,
    /// Linux cannot mount the root.
    pub no_filesystem: usize,
}

impl Counts {
    /// Counts the verdicts of one system.
    pub fn of(judged: &[Judged], system: System) -> Self {
        let mut counts = Counts::default();
        for j in judged.iter().filter(|j| j.system == system) {
            match &j.verdict {
                Verdict::Whole(version) => *counts.whole.entry(*version).or_default() += 1,
                Verdict::Corrupt(_) => counts.corrupt += 1,
                Verdict::Dead(_) => counts.dead += 1,
                Verdict::NoKernel(_) => counts.no_kernel += 1,
                Verdict::NoFilesystem(_) => counts.no_filesystem += 1,
            }
        }
        counts
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.whole.values().sum::<usize>() + self.corrupt + self.dead + self.no_kernel + self.no_filesystem
    }
}
