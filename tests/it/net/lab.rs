//! Two network namespaces with a wire between them: `dev0` is ours, `srv0` the other end. Nothing of it touches the
//! machine's own network, its resolv.conf or its clock.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bootward::net::{Error, Places, Settings, Up, Watch, configure_in};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Tells everything to a list; ends the wait after a time, so that a test that hangs fails.
pub struct Notes {
    pub lines: Vec<String>,
    until: Instant,
}

impl Notes {
    pub fn for_seconds(seconds: u64) -> Self {
        Notes { lines: Vec::new(), until: Instant::now() + Duration::from_secs(seconds) }
    }

    pub fn has(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }
}

impl Watch for Notes {
    fn tell(&mut self, line: &str) {
        self.lines.push(line.into());
    }

    fn alive(&mut self) -> bool {
        Instant::now() < self.until
    }
}

/// A process that ends with the test.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Lab {
    pub places: Places,
    pub directory: tempfile::TempDir,
    /// The other end's namespace.
    other: File,
    _holder: Server,
    pid: String,
}

/// Runs a body where it has a network of its own, in a thread that has left ours.
pub fn alone(body: impl FnOnce(&Lab) + Send) {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
            body(&Lab::new());
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sysfs = directory.path().join("sys");
        fs::create_dir(&sysfs).unwrap();
        mount(Some("sysfs"), &sysfs, Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
        let holder =
            Command::new("unshare").args(["-n", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        let pid = holder.id().to_string();
        let holder = Server(holder);
        let namespace = format!("/proc/{pid}/ns/net");
        let ours = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let machines = fs::read_link("/proc/self/ns/net").unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while [Some(&ours), Some(&machines)].contains(&fs::read_link(&namespace).ok().as_ref()) {
            assert!(Instant::now() < until, "no namespace for the other end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let places = Places { sysfs, resolver: directory.path().join("resolv.conf"), ..Places::default() };
        let lab = Lab { places, directory, other: File::open(namespace).unwrap(), _holder: holder, pid };
        lab.wire("dev0", "srv0");
        lab
    }

    /// One more wire, its other end up.
    pub fn wire(&self, ours: &str, theirs: &str) {
        ip(&format!("link add {ours} type veth peer name {theirs} netns {}", self.pid));
        self.there(&format!("ip link set lo up; ip link set {theirs} up"));
    }

    /// Runs a line of shell at the other end.
    pub fn there(&self, line: &str) -> String {
        let out = self.command("sh").args(["-c", line]).output().unwrap();
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Starts a program at the other end.
    pub fn serve(&self, program: &str, args: &[&str]) -> Server {
        let log =
            File::create(self.directory.path().join(format!("{}.log", program.replace('/', "-")))).unwrap();
        let mut command = self.command(program);
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Server(command.spawn().unwrap())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid)).arg(program);
        command
    }

    /// Runs a body at the other end, in a thread of its own.
    pub fn over_there<T: Send + 'static>(
        &self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let namespace = self.other.try_clone().unwrap();
        std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            body()
        })
    }

    /// dnsmasq at the other end with these options; it is 192.168.77.1 and answers for every name with 192.168.77.9.
    pub fn dnsmasq(&self, options: &[&str]) -> Server {
        self.there("ip addr replace 192.168.77.1/24 dev srv0");
        let leases = format!("--dhcp-leasefile={}", self.directory.path().join("leases").display());
        let mut args = vec![
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-hosts",
            "--no-resolv",
            "--no-ping",
            "--user=root",
            "--pid-file=",
            "--log-facility=-",
            "--log-dhcp",
            "--interface=srv0",
            "--bind-interfaces",
            "--address=/#/192.168.77.9",
            &leases,
        ];
        args.extend(options);
        self.serve("dnsmasq", &args)
    }

    pub fn configure(&self, settings: &Settings, notes: &mut Notes) -> Result<Up, Error> {
        configure_in(&self.places, "dev0", settings, notes)
    }

    pub fn resolver(&self) -> String {
        fs::read_to_string(&self.places.resolver).unwrap_or_default()
    }
}

/// `ip` at our end.
pub fn ip(args: &str) -> String {
    let out = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

pub fn addresses(up: &Up) -> Vec<String> {
    up.addresses.iter().map(ToString::to_string).collect()
}
