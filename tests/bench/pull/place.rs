//! Where it happens: filesystems in memory that are made anew for every run, a server, and two ways to it.
//!
//! ```text
//!   the bench, in a mount and a network namespace of its own
//!     lo ──────────────────────────── nginx
//!     slow (TUN) ──relay────── nginx in another network namespace
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::relay;

/// The rate of the slow link, in bits a second.
pub const RATE: f64 = 20e6;
const SERVER: &str = "10.77.0.1";
const CLIENT: &str = "10.77.0.2/24";
/// Room for a sysroot with two versions.
const DISK: u64 = 2 << 30;

/// Runs a tool, and returns what it printed.
///
/// # Errors
/// When it is missing or fails.
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

fn tool(line: &str) -> io::Result<String> {
    let mut words = line.split(' ');
    output(Command::new(words.next().unwrap_or_default()).args(words))
}

/// Which way the server is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The same host.
    Loopback,
    /// 50 ms there and back, 20 Mbit/s.
    Link,
}

/// Directories in memory that only this process sees, and which go with it.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
}

impl Place {
    /// Makes it; from here on this process has mounts and network interfaces of its own.
    ///
    /// # Errors
    /// When this is not root.
    pub fn new(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("size=80%"))?;
        tool("ip link set lo up")?;
        Ok(Place { dir: dir.into() })
    }

    /// A directory of that name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes a filesystem that runs begin with, from another one or from nothing.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn template(
        &self,
        name: &str,
        from: Option<&str>,
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let image = self.path(&format!("{name}.img"));
        match from {
            Some(from) => self.copy(from, &image)?,
            None => {
                fs::File::create(&image)?.set_len(DISK)?;
                let options = "-q -F -E lazy_itable_init=0,lazy_journal_init=0,nodiscard";
                tool(&format!("mkfs.ext4 {options} {}", image.display()))?;
            }
        }
        let disk = Disk::mount(&image, self.path("mnt"))?;
        make(disk.path())?;
        drop(disk);
        Ok(())
    }

    /// A fresh copy of a template, mounted.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn disk(&self, template: &str) -> io::Result<Disk> {
        let image = self.path("run.img");
        self.copy(template, &image)?;
        Disk::mount(&image, self.path("mnt"))
    }

    fn copy(&self, template: &str, to: &Path) -> io::Result<()> {
        let from = self.path(&format!("{template}.img"));
        output(Command::new("cp").arg("--sparse=always").arg(from).arg(to)).map(drop)
    }
}

/// A mounted filesystem. Goes with its value.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(image: &Path, at: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&at)?;
        // The loop device goes with the mount.
        output(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&at))?;
        Ok(Disk { at })
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for _ in 0..20 {
            if umount2(&self.at, MntFlags::empty()).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("bench: {} stays mounted", self.at.display());
    }
}

/// nginx, reached in one way. Ended with its value.
#[derive(Debug)]
pub struct Server {
    way: Way,
    child: Child,
    log: PathBuf,
    seen: (u64, u64),
}

impl Server {
    /// Starts it.
    ///
    /// # Errors
    /// When nginx or the link cannot be had.
    pub fn start(place: &Place, way: Way, root: &Path) -> io::Result<Self> {
        let dir = place.path(&format!("{way:?}"));
        fs::create_dir_all(&dir)?;
        let log = dir.join("access");
        // As Debian has it, where it matters.
        let config = format!(
            "daemon off; worker_processes 1; user root; pid {0}/pid; error_log {0}/error;\n\
             events {{ worker_connections 768; }}\n\
             http {{ sendfile on; tcp_nopush on; default_type application/octet-stream;\n\
             log_format bytes '$status $bytes_sent $uri'; access_log {0}/access bytes;\n\
             client_body_temp_path {0}/t1; proxy_temp_path {0}/t2; fastcgi_temp_path {0}/t3;\n\
             uwsgi_temp_path {0}/t4; scgi_temp_path {0}/t5;\n\
             server {{ listen 8080; root {1}; }} }}\n",
            dir.display(),
            root.display()
        );
        fs::write(dir.join("conf"), config)?;
        let mut command = match way {
            Way::Loopback => Command::new("nginx"),
            Way::Link => {
                let mut command = Command::new("unshare");
                command.args(["--net", "nginx"]);
                command
            }
        };
        let child = command.arg("-p").arg(&dir).arg("-c").arg(dir.join("conf")).spawn()?;
        let server = Server { way, child, log, seen: (0, 0) };
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(25));
            if dir.join("pid").exists() {
                if way == Way::Link {
                    relay::join(CLIENT, &format!("{SERVER}/24"), server.child.id())?;
                }
                return Ok(server);
            }
        }
        Err(io::Error::other(format!("nginx does not start, see {}/error", dir.display())))
    }

    /// Where a directory of it is.
    pub fn url(&self, directory: &str) -> String {
        let host = if self.way == Way::Link { SERVER } else { "127.0.0.1" };
        format!("http://{host}:8080/{directory}")
    }

    /// From here on requests and bytes count.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn begin(&mut self) -> io::Result<()> {
        let log = fs::OpenOptions::new().write(true).open(&self.log);
        log.map_err(|e| io::Error::other(format!("{}: {e}", self.log.display())))?.set_len(0)?;
        self.seen = counters(self.way)?;
        Ok(())
    }

    /// Requests answered since, and bytes on the wire; by loopback those of the answers, by the server's log.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn counted(&self) -> io::Result<(u64, u64)> {
        let (received, sent) = counters(self.way)?;
        let wire = received + sent - self.seen.0 - self.seen.1;
        let mut text = String::new();
        // The last lines come after the last byte.
        let mut same = false;
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(100));
            let now = fs::read_to_string(&self.log)?;
            same = now == text && now.ends_with('\n');
            if same {
                break;
            }
            text = now;
        }
        if !same {
            return Err(io::Error::other("the server's log has no request, or does not come to an end"));
        }
        let bytes = |line: &str| line.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        let answers = text.lines().map(bytes).sum();
        let wire = if self.way == Way::Link { wire } else { answers };
        Ok((text.lines().count() as u64, wire))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Bytes that the interface received, and sent.
fn counters(way: Way) -> io::Result<(u64, u64)> {
    let name = if way == Way::Link { "slow:" } else { "lo:" };
    let text = fs::read_to_string("/proc/self/net/dev")?;
    let numbers = text.lines().find_map(|line| line.trim_start().strip_prefix(name)).unwrap_or_default();
    let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    match numbers.as_slice() {
        [received, _, _, _, _, _, _, _, sent, ..] => Ok((*received, *sent)),
        _ => Err(io::Error::other(format!("no interface {name}"))),
    }
}
