//! G11: a device that is full, or nearly so: at every level of free space around what a pull needs, on a filesystem of its own
//! in memory that nobody else sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;

use bootward::pull::{self, Error, Options, Progress, Wanted};
use bootward::repo::{Mode, Store};
use bootward::sys::files::{Disk, FilesError};

use crate::fixture::ostree;
use crate::pull::trusted;
use crate::shelf::Shelf;

const BLOCK: u64 = 4096;
/// What stays free on a device, in bytes, as `pull` has it.
const RESERVE: u64 = 8 << 20;
/// The whole filesystem, in bytes.
const DISK: u64 = 32 << 20;

/// A device on a tmpfs, of which only this thread and what it starts know.
struct Device {
    keep: tempfile::TempDir,
}

impl Device {
    fn new(inodes: Option<u64>) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let inodes = inodes.map_or(String::new(), |n| format!(",nr_inodes={n}"));
        let options = format!("size={DISK}{inodes}");
        mount(Some("tmpfs"), keep.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let device = Device { keep };
        fs::create_dir(device.root()).unwrap();
        fs::create_dir(device.root().join("ostree")).unwrap();
        ostree(&["init", "--repo", device.repo().to_str().unwrap(), "--mode=bare"]);
        device
    }

    fn root(&self) -> PathBuf {
        self.keep.path().join("sysroot")
    }

    fn repo(&self) -> PathBuf {
        self.root().join("ostree/repo")
    }

    /// Leaves so many bytes free.
    fn leave(&self, bytes: u64) {
        let filler = self.keep.path().join("filler");
        let _ = fs::remove_file(&filler);
        let stat = statvfs(self.keep.path()).unwrap();
        let free = stat.blocks_available() * stat.fragment_size();
        let file = fs::File::create(&filler).unwrap();
        let fill = i64::try_from(free.checked_sub(bytes).unwrap()).unwrap();
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, fill).unwrap();
    }

    fn pull(&self, shelf: &Shelf) -> Result<Progress, Error<FilesError>> {
        let wanted = Wanted { reference: Some("os/main".into()), ..Wanted::default() };
        let options = Options { channels: 2, tries: 2, ..Options::default() };
        let (commit, metadata) = pull::head(&shelf, &wanted, &trusted, &options)?;
        let open = || Disk::open(&self.root(), &self.root());
        let mut store = Store::new(open().unwrap(), Mode::Bare, 0);
        let commit = (&commit, metadata.as_deref());
        pull::pull(&shelf, &mut store, &open, commit, &wanted, &options, &mut |_| ())
    }

    fn has_ref(&self) -> bool {
        self.repo().join("refs/heads/os/main").exists()
    }

    fn clean(&self) {
        ostree(&["fsck", "--repo", self.repo().to_str().unwrap()]);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.keep.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A server's repository, whose commit says what its objects take or does not.
fn server(keep: &Path, sizes: bool) -> Shelf {
    let (repo, tree) = (keep.join(format!("server-{sizes}")), keep.join("tree"));
    let repo = repo.to_str().unwrap();
    fs::create_dir_all(tree.join("usr/share")).unwrap();
    let mut number = 1u32;
    for n in 0..60usize {
        let content: Vec<u8> = (0..n * 400)
            .map(|_| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (number >> 24) as u8
            })
            .collect();
        fs::write(tree.join(format!("usr/share/{n}")), content).unwrap();
    }
    ostree(&["init", "--repo", repo, "--mode=archive"]);
    let mut words = vec!["commit", "--repo", repo, "-b", "os/main", tree.to_str().unwrap()];
    words.extend(sizes.then_some("--generate-sizes"));
    ostree(&words);
    Shelf::of(Path::new(repo))
}

/// Runs something in a thread with mounts of its own.
fn apart(work: impl FnOnce() + Send) {
    assert!(nix::unistd::geteuid().is_root(), "this test mounts: run it as root");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
            work();
        });
    });
}

/// Everything in the repository.
fn listing(repo: &Path) -> String {
    let out = Command::new("find").arg(repo).args(["-printf", "%P %s %m\n"]).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn at_every_level_of_free_space_a_pull_is_refused_or_whole() {
    let keep = tempfile::tempdir().unwrap();
    apart(|| {
        for sizes in [true, false] {
            let shelf = server(keep.path(), sizes);
            let (mut refused, mut done) = (0, 0);
            let taken = needed(&shelf);
            // From nothing to 64 blocks more than it takes, by eight blocks near that.
            let far = (0..taken / BLOCK - 64).step_by(usize::try_from(taken / BLOCK / 4).unwrap());
            let near = (taken / BLOCK - 64..=taken / BLOCK + 64).step_by(8);
            for blocks in far.chain(near) {
                let device = Device::new(None);
                device.leave(RESERVE + blocks * BLOCK);
                let before = listing(&device.repo());
                match device.pull(&shelf) {
                    Ok(_) => {
                        done += 1;
                        assert!(device.has_ref());
                    }
                    Err(Error::Room { needed, free }) => {
                        refused += 1;
                        assert!(needed > free, "{blocks}: {needed} {free}");
                        assert!(!device.has_ref(), "{blocks}");
                        if sizes {
                            // Before anything is touched; what is made in any case is its own places.
                            let now = listing(&device.repo());
                            let new = now.lines().filter(|line| !before.contains(line));
                            let places = |line: &&str| !line.starts_with("tmp") && !line.starts_with("state");
                            assert_eq!(new.filter(places).filter(|l| l.contains('.')).count(), 0, "{now}");
                        }
                        device.leave(RESERVE + taken + 128 * BLOCK);
                        device.pull(&shelf).unwrap();
                    }
                    Err(other) => panic!("{blocks} blocks: {other}"),
                }
                device.clean();
            }
            println!("sizes {sizes}: {taken} bytes needed; {refused} refused, {done} done");
            assert!(refused >= 6 && done >= 6, "{refused} {done}");
        }
    });
}

/// What a pull leaves on the filesystem, in bytes.
fn needed(shelf: &Shelf) -> u64 {
    let device = Device::new(None);
    let free = || {
        let stat = statvfs(device.keep.path()).unwrap();
        stat.blocks_available() * stat.fragment_size()
    };
    let before = free();
    device.pull(shelf).unwrap();
    before - free()
}

#[test]
fn a_filesystem_without_room_for_another_file() {
    let keep = tempfile::tempdir().unwrap();
    apart(|| {
        for sizes in [true, false] {
            let shelf = server(keep.path(), sizes);
            let mut refused = 0;
            for inodes in (40..400).step_by(24) {
                let device = Device::new(Some(inodes));
                match device.pull(&shelf) {
                    Ok(_) => {}
                    // Of a commit that does not say what it takes it is found out by the way.
                    Err(error @ (Error::NoFiles | Error::Store(_))) => {
                        assert!(!sizes || matches!(error, Error::NoFiles), "{inodes}: {error}");
                        assert!(error.to_string().contains("room") || error.to_string().contains("space"));
                        refused += 1;
                        assert!(!device.has_ref(), "{inodes}");
                        let (at, more) = (device.keep.path(), Some("nr_inodes=2000"));
                        mount(None::<&str>, at, None::<&str>, MsFlags::MS_REMOUNT, more).unwrap();
                        device.pull(&shelf).unwrap();
                    }
                    Err(other) => panic!("{inodes} inodes: {other}"),
                }
                device.clean();
            }
            assert!((2..14).contains(&refused), "{refused}");
        }
    });
}
