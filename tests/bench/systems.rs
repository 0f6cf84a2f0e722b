//! What is measured, each in an initramfs of its own, and the disk that all of them prepare.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chroot, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};

use super::nothing;

const PREPARE: &str = include_str!("prepare.sh");
const INIT: &str = include_str!("init.sh");
const OURS: &str = "bootward";
/// As ostree-prepare-root did until v2025.7.
const OURS_WITH_BOOT: &str = "bootward, with `/boot`";
/// The applets that the scripts call.
const APPLETS: [&str; 11] =
    ["cat", "mkdir", "mount", "readlink", "rmdir", "sh", "sleep", "switch_root", "true", "umount", "losetup"];

/// A program and its surroundings.
#[derive(Clone, Debug)]
pub struct System {
    /// Its name in the report.
    pub name: String,
    /// What is executed, in its initramfs.
    pub command: Vec<&'static str>,
    /// It is `/init`: PID 1, in a copy of its initramfs that it may delete, and it mounts the disk itself.
    pub first: bool,
    /// The name of the one that leaves the same mounts.
    pub like: Option<&'static str>,
    place: PathBuf,
    tree: PathBuf,
    /// The disk's device.
    device: PathBuf,
}

/// Everything in a tmpfs that only this process sees, and which goes with it.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    /// The options of the boot entry.
    options: String,
    /// Mounted all the time: the tools find the disk in memory.
    mounted: Loop,
    /// Mounted by each `/init` anew.
    fresh: Loop,
}

/// A loop device. Goes with its value.
#[derive(Debug)]
struct Loop(PathBuf);

impl Loop {
    fn new(image: &Path) -> io::Result<Self> {
        let node = output(Command::new("losetup").args(["--find", "--show"]).arg(image))?;
        Ok(Loop(PathBuf::from(node.trim())))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

impl Place {
    /// Makes the disk: a sysroot of the machine's own `ostree`, with one commit deployed twice; `init` is its init.
    ///
    /// # Errors
    /// When a tool is missing or fails.
    pub fn new(init: &[u8]) -> io::Result<Self> {
        let dir = super::lab().join("bench");
        fs::create_dir_all(&dir)?;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mounted("tmpfs", &dir)?;
        let (tree, sysroot) = (dir.join("tree"), dir.join("sysroot"));
        for place in ["usr/bin", "usr/sbin", "usr/etc", "usr/lib/modules/6.1.0", "boot", "dev", "proc", "run"]
        {
            fs::create_dir_all(tree.join(place))?;
        }
        for place in ["sys", "sysroot", "tmp", "var"] {
            fs::create_dir(tree.join(place))?;
        }
        for link in ["bin", "sbin", "lib"] {
            symlink(format!("usr/{link}"), tree.join(link))?;
        }
        symlink("sysroot/ostree", tree.join("ostree"))?;
        fs::write(tree.join("usr/lib/modules/6.1.0/vmlinuz"), "kernel\n")?;
        fs::write(tree.join("usr/lib/modules/6.1.0/initramfs.img"), "initramfs\n")?;
        fs::write(tree.join("usr/lib/os-release"), "ID=os\n")?;
        fs::write(tree.join("usr/etc/hostname"), "device\n")?;
        program(&tree.join("usr/sbin/init"), init)?;
        let repo = format!("--repo={}", sysroot.join("ostree/repo").display());
        let above = format!("--sysroot={}", sysroot.display());
        let ostree = |words: &[&str]| {
            let mut command = Command::new("ostree");
            output(command.args(words).env("OSTREE_SYSROOT_DEBUG", "mutable-deployments"))
        };
        fs::create_dir(&sysroot)?;
        ostree(&["admin", "init-fs", &sysroot.display().to_string()])?;
        ostree(&["admin", &above, "os-init", "os"])?;
        ostree(&[&repo, "config", "set", "sysroot.bootloader", "none"])?;
        ostree(&[&repo, "config", "set", "sysroot.readonly", "true"])?;
        ostree(&[&repo, "commit", "-b", "os", "--no-xattrs", &format!("--tree=dir={}", tree.display())])?;
        for _ in 0..2 {
            ostree(&["admin", &above, "deploy", "--os=os", "os"])?;
        }
        let entries = sysroot.join("boot/loader/entries");
        let mut entries: Vec<PathBuf> =
            fs::read_dir(entries)?.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>()?;
        entries.sort();
        let entry = fs::read_to_string(entries.last().ok_or_else(|| io::Error::other("no boot entry"))?)?;
        let options = entry.lines().find_map(|l| l.strip_prefix("options ")).unwrap_or_default().into();
        let image = |name: &str| {
            let image = dir.join(name);
            let mut mke2fs = Command::new("mke2fs");
            mke2fs.args(["-q", "-t", "ext4", "-L", "otaroot", "-d"]).arg(&sysroot).arg(&image).arg("16M");
            output(&mut mke2fs)?;
            Loop::new(&image)
        };
        let (kept, fresh) = (image("mounted")?, image("fresh")?);
        let physical = dir.join("physical");
        fs::create_dir(&physical)?;
        mount(Some(&kept.0), &physical, Some("ext4"), MsFlags::empty(), None::<&str>)?;
        Ok(Place { dir, options, mounted: kept, fresh })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The disk that no kernel but the virtual machine's has mounted.
    pub fn image(&self) -> PathBuf {
        self.dir.join("fresh")
    }

    /// The options of the boot entry.
    pub fn options(&self) -> &str {
        &self.options
    }

    fn make_tree(&self, name: &str) -> io::Result<PathBuf> {
        let tree = self.dir.join(name);
        for place in ["bin", "dev", "etc", "proc", "run", "sys", "sysroot"] {
            fs::create_dir_all(tree.join(place))?;
        }
        fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
        for applet in APPLETS {
            symlink("busybox", tree.join("bin").join(applet))?;
        }
        Ok(tree)
    }

    fn system(&self, name: &str, tree: &Path, command: &[&'static str]) -> io::Result<System> {
        let first = command == ["/init"];
        let device = if first { &self.fresh.0 } else { &self.mounted.0 };
        let line = format!("{} ostree_root={} rw\n", self.options, device.display());
        fs::write(self.dir.join(if first { "cmdline-init" } else { "cmdline" }), line)?;
        Ok(System {
            name: name.into(),
            command: command.into(),
            first,
            like: None,
            place: self.dir.clone(),
            tree: tree.into(),
            device: device.clone(),
        })
    }

    /// Everything that is measured, the guardian first: the tools alone, and whole initramfs.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub fn systems(&self, guardian: &Path, others: &[String]) -> io::Result<Vec<System>> {
        let ours = self.make_tree("bootward")?;
        fs::copy(guardian, ours.join("init"))?;
        program(&ours.join("nothing"), nothing::PROGRAM)?;
        let script = self.make_tree("shell")?;
        program(&script.join("prepare"), PREPARE.as_bytes())?;
        program(&script.join("init"), INIT.replace("$PREPARE", "/prepare").as_bytes())?;
        let mut tools = vec![
            self.system(OURS, &ours, &["/init", "prepare-root", "/sysroot"])?,
            self.system(OURS_WITH_BOOT, &ours, &["/init", "prepare-root", "--bind-boot", "/sysroot"])?,
        ];
        let mut whole = vec![self.system("bootward", &ours, &["/init"])?];
        for (number, other) in others.iter().enumerate() {
            let tree = self.make_tree(&format!("other-{number}"))?;
            fs::copy(other, tree.join("init"))?;
            let name = format!("bootward, {other}");
            let tool = self.system(&name, &tree, &["/init", "prepare-root", "/sysroot"])?;
            tools.push(System { like: Some(OURS), ..tool });
            whole.push(self.system(&name, &tree, &["/init"])?);
        }
        for (suite, like) in [("bookworm", OURS_WITH_BOOT), ("forky", OURS)] {
            let oracle = oracle(suite)?;
            let tree = self.dir.join(suite);
            output(Command::new("cp").arg("-a").arg(oracle).arg(&tree))?;
            let version = version(&tree)?;
            self.make_tree(suite)?;
            let tool = "/usr/lib/ostree/ostree-prepare-root";
            program(&tree.join("init"), INIT.replace("$PREPARE", tool).as_bytes())?;
            let name = format!("ostree-prepare-root {version}");
            tools.push(System { like: Some(like), ..self.system(&name, &tree, &[tool, "/sysroot"])? });
            whole.push(self.system(&format!("shell and {name}"), &tree, &["/init"])?);
        }
        let shell = self.system("busybox shell script", &script, &["/prepare"])?;
        tools.push(System { like: Some(OURS), ..shell });
        tools.push(self.system("busybox, one applet", &script, &["/bin/true"])?);
        tools.push(self.system("a program that only exits", &ours, &["/nothing"])?);
        whole.push(self.system("busybox shell script", &script, &["/init"])?);
        tools.append(&mut whole);
        Ok(tools)
    }
}

impl System {
    /// Its initramfs, as a directory.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Makes this process one that stands before its exec, in the initramfs. It is in namespaces of its own already.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter(&self) -> io::Result<()> {
        let root = if self.first {
            let root = self.place.join("root");
            fs::create_dir_all(&root)?;
            mounted("tmpfs", &root)?;
            output(Command::new("cp").arg("-a").arg(self.tree.join(".")).arg(&root))?;
            root
        } else {
            bind(&self.tree, &self.tree)?;
            self.tree.clone()
        };
        mounted("proc", &root.join("proc"))?;
        bind(
            &self.place.join(if self.first { "cmdline-init" } else { "cmdline" }),
            &root.join("proc/cmdline"),
        )?;
        mounted("devtmpfs", &root.join("dev"))?;
        if self.first {
            mounted("sysfs", &root.join("sys"))?;
            // What is said there stays here, and what could harm this machine is not there.
            fs::write(self.place.join("kmsg"), "")?;
            bind(&self.place.join("kmsg"), &root.join("dev/kmsg"))?;
            for hidden in ["dev/console", "proc/sysrq-trigger", "proc/sys/kernel/printk_devkmsg"] {
                if root.join(hidden).exists() {
                    bind(&root.join("dev/null"), &root.join(hidden))?;
                }
            }
        } else {
            mounted("tmpfs", &root.join("run"))?;
            let none = None::<&str>;
            mount(Some(&self.device), &root.join("sysroot"), Some("ext4"), MsFlags::empty(), none)?;
        }
        let said = fs::File::create(self.place.join("said"))?;
        nix::unistd::dup2_stdin(fs::File::open("/dev/null")?)?;
        nix::unistd::dup2_stdout(&said)?;
        nix::unistd::dup2_stderr(&said)?;
        chroot(&root)?;
        std::env::set_current_dir("/")
    }

    /// What the last run said.
    pub fn said(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.place.join(name)).unwrap_or_default();
        format!("{}{}", read("said"), if self.first { read("kmsg") } else { String::new() })
    }

    /// The mounts below the `/sysroot` of a tool, as one sees them who is in its namespace but not in its root.
    ///
    /// # Errors
    /// The kernel's.
    pub fn mounts(&self) -> io::Result<Vec<String>> {
        let sysroot = self.tree.join("sysroot");
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        let fields = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let below = fields.filter_map(|f| {
            let place = Path::new(f[4]).strip_prefix(&sysroot).ok()?;
            Some(format!("/{} is {} {}", place.display(), f[3], f[5].split(',').next()?))
        });
        Ok(below.collect())
    }
}

/// Debian's tool with what it links against, by the script that the comparison of mount tables uses.
fn oracle(suite: &str) -> io::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/prepare-oracle.sh");
    output(Command::new(script).arg(suite).arg(super::lab()))?;
    Ok(super::lab().join(format!("prepare-oracle-{suite}")))
}

fn version(tree: &Path) -> io::Result<String> {
    let text = output(Command::new("chroot").arg(tree).args(["/usr/bin/ostree", "--version"]))?;
    let version = text.lines().find_map(|l| l.trim().strip_prefix("Version: ")).unwrap_or_default();
    Ok(version.trim_matches('\'').into())
}

/// Runs a command and returns what it printed.
///
/// # Errors
/// When it does not start or fails, with its own words.
pub fn output(command: &mut Command) -> io::Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| io::Error::other(format!("{shown}: {e}; run tests/vm/setup")))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{shown}: {}\n{printed}{complaint}", output.status)))
}

/// Writes an executable file.
///
/// # Errors
/// The kernel's.
pub fn program(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn mounted(kind: &str, at: &Path) -> io::Result<()> {
    let failed = |e: nix::errno::Errno| io::Error::other(format!("{kind} on {}: {}", at.display(), e.desc()));
    mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>).map_err(failed)
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    let failed = |e: nix::errno::Errno| io::Error::other(format!("bind on {}: {}", to.display(), e.desc()));
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(failed)
}
