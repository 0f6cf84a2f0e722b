//! The two early systems, run for real in namespaces of their own: bootward as PID 1, and libostree's
//! ostree-prepare-root with what a product puts around it.
//!
//! Both get an initramfs, the disk and a command line, and end in the deployment's own init, which says where
//! it is. They are PID 1 of a process namespace: a restart ends the namespace and nothing else.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::chroot;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use super::disk::{Layout, Loop};
use super::tools::{lab, run};
use super::tree::UP;

/// Longest time for one boot.
const PATIENCE: Duration = Duration::from_secs(60);

/// What boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// bootward as `/init`.
    Bootward,
    /// Debian 12's ostree-prepare-root, 2022.7.
    PrepareRoot,
}

impl System {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            System::Bootward => "bootward",
            System::PrepareRoot => "ostree-prepare-root",
        }
    }
}

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// In a deployment's init.
    Up {
        /// What that called itself.
        version: u32,
        /// The inode of its root.
        inode: u64,
    },
    /// Not there; the last words of the system.
    Dead(String),
}

/// The initramfs of both, ready for use. One for each worker.
#[derive(Debug)]
pub struct Initramfs {
    dir: PathBuf,
}

impl Initramfs {
    /// Builds both below `dir`.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn new(dir: &Path, bootward: &Path) -> io::Result<Self> {
        for place in ["", "proc", "sys", "dev", "run", "sysroot", "boot", "etc/bootward"] {
            fs::create_dir_all(dir.join("bootward").join(place))?;
        }
        fs::copy(bootward, dir.join("bootward/init"))?;
        let tool = prepare_root()?;
        run(Command::new("cp").arg("-a").arg(tool).arg(dir.join("peer")))?;
        for place in ["proc", "sys", "dev", "run", "sysroot"] {
            fs::create_dir_all(dir.join("peer").join(place))?;
        }
        Ok(Initramfs { dir: dir.into() })
    }

    /// Boots the disk in `image`, which it changes.
    ///
    /// # Errors
    /// When the laboratory itself fails.
    pub fn boot(&self, system: System, image: &Path, layout: Layout, words: &str) -> io::Result<Ended> {
        self.boot_under(None, system, image, layout, words)
    }

    /// As [`Initramfs::boot`], everything a child of the program `under`.
    ///
    /// # Errors
    /// When the laboratory itself fails.
    pub fn boot_under(
        &self,
        under: Option<Command>,
        system: System,
        image: &Path,
        layout: Layout,
        words: &str,
    ) -> io::Result<Ended> {
        let loops: io::Result<Vec<Loop>> = layout.iter().map(|p| Loop::new(image, p)).collect();
        let loops = loops?;
        let root = loops[0].node.display();
        let log = self.dir.join("kmsg");
        let flags = layout[0].kind.options().map_or(String::new(), |options| format!("rootflags={options} "));
        let words = format!("{words} ostree_root={root} root={root} {flags}rw\n");
        fs::write(self.dir.join("cmdline"), words)?;
        fs::write(&log, "")?;
        let mut command = match under {
            None => Command::new("unshare"),
            Some(mut above) => {
                above.arg("unshare");
                above
            }
        };
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
        command.arg(std::env::current_exe()?).arg("--inside").arg(system.name()).arg(&self.dir);
        command.arg(layout[0].kind.name()).arg(layout[0].kind.options().unwrap_or_default());
        command.args(loops.iter().map(|l| &l.node));
        let (success, printed) = within(&mut command, PATIENCE)?;
        let up = printed.lines().find_map(|line| line.strip_prefix(UP)).and_then(|line| {
            let mut numbers = line.split_whitespace();
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        });
        if let (true, Some((version, inode))) = (success, up) {
            return Ok(Ended::Up { version, inode });
        }
        let log = fs::read_to_string(&log)?;
        let said = log.lines().filter(|l| l.starts_with("<3>") || l.starts_with("<4>")).map(|l| &l[3..]);
        let said: Vec<&str> = said.chain(printed.lines()).collect();
        Ok(Ended::Dead(said.join(" | ")))
    }
}

/// Debian 12's tool with its libraries, by the script that the comparison of mount tables uses.
fn prepare_root() -> io::Result<PathBuf> {
    let repo = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = lab();
    let above = all.parent().unwrap_or(&all);
    run(Command::new(repo.join("tests/it/prepare-oracle.sh")).arg("bookworm").arg(above))?;
    Ok(above.join("prepare-oracle-bookworm"))
}

/// Runs a command, at most so long. Whether it succeeded, and what it printed.
fn within(command: &mut Command, patience: Duration) -> io::Result<(bool, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok((false, format!("nothing happened within {} s", patience.as_secs())));
        }
        sleep(Duration::from_millis(1));
    };
    // What either prints fits into a pipe.
    let mut printed = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut printed)?;
    }
    if let Some(mut err) = child.stderr.take() {
        err.read_to_string(&mut printed)?;
    }
    Ok((status.success(), printed))
}

/// In the namespaces, as their PID 1: `SYSTEM DIRECTORY FILE_SYSTEM OPTIONS ROOT_DEVICE [BOOT_DEVICE]`, of the root.
pub fn inside(arguments: &[String]) -> ExitCode {
    let Err(error) = enter(arguments);
    println!("{error}");
    ExitCode::FAILURE
}

fn enter(arguments: &[String]) -> io::Result<std::convert::Infallible> {
    let [system, dir, kind, options, devices @ ..] = arguments else {
        return Err(io::Error::other("arguments"));
    };
    let dir = Path::new(dir);
    if system == System::Bootward.name() {
        // It deletes its initramfs as it leaves: this one is a copy.
        let root = dir.join("root");
        fs::create_dir_all(&root)?;
        mounted("tmpfs", &root)?;
        run(Command::new("cp").arg("-a").arg(dir.join("bootward/.")).arg(&root))?;
        surroundings(dir, &root)?;
        let boot = devices.get(1).map_or(String::new(), |d| format!("[boot]\ndevice = \"{d}\"\n"));
        let rest = "[root]\ntimeout = 5\n[recovery]\nconsole = \"/dev/null\"\nreboot_after = 1\n";
        fs::write(root.join("etc/bootward/bootward.toml"), boot + rest)?;
        chroot(&root)?;
        std::env::set_current_dir("/")?;
        return Err(Command::new("/init").exec());
    }
    let root = dir.join("peer");
    bind(&root, &root)?;
    mounted("tmpfs", &root.join("run"))?;
    surroundings(dir, &root)?;
    let sysroot = root.join("sysroot");
    mount(
        Some(devices[0].as_str()),
        &sysroot,
        Some(kind.as_str()),
        MsFlags::empty(),
        Some(options.as_str()),
    )?;
    chroot(&root)?;
    std::env::set_current_dir("/")?;
    // Not in place of this process: as PID 1 it would do what our other system does.
    run(Command::new("/usr/lib/ostree/ostree-prepare-root").arg("/sysroot"))?;
    chroot("/sysroot")?;
    std::env::set_current_dir("/")?;
    Err(Command::new("/sbin/init").exec())
}

/// What a kernel would have mounted or shown; its log is a file, and what could harm this machine is not there.
fn surroundings(dir: &Path, root: &Path) -> io::Result<()> {
    mounted("proc", &root.join("proc"))?;
    mounted("sysfs", &root.join("sys"))?;
    // The very file system that bootward would mount here: it finds its places taken, and what covers them stays.
    mounted("devtmpfs", &root.join("dev"))?;
    let null = root.join("dev/null");
    bind(&dir.join("kmsg"), &root.join("dev/kmsg"))?;
    bind(&null, &root.join("dev/console"))?;
    for hidden in ["sysrq-trigger", "sys/kernel/printk_devkmsg"] {
        let hidden = root.join("proc").join(hidden);
        if hidden.exists() {
            bind(&null, &hidden)?;
        }
    }
    bind(&dir.join("cmdline"), &root.join("proc/cmdline"))
}

fn mounted(kind: &str, at: &Path) -> io::Result<()> {
    let failed = |e: nix::errno::Errno| io::Error::other(format!("{kind} on {}: {}", at.display(), e.desc()));
    mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>).map_err(failed)
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    let failed = |e: nix::errno::Errno| io::Error::other(format!("bind on {}: {}", to.display(), e.desc()));
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(failed)
}
