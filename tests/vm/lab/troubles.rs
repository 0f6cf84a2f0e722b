//! A network in trouble, one after the other on the way from the cable to the server: recovery says what is wrong, and
//! goes on as soon as it is not any more. The network is a namespace of its own with a tap device for the machine.

use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::recovery::{DESTROYED, Device, RECOVERS, is_clean, looks_around, published};
use super::scenes::BOOT;
use super::tools::{as_root, empty_dir, run};
use super::web::{Manner, Web};
use super::{Fault, Outcome};

/// A program that ends with this value.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// dnsmasq as DHCP and name server, with these options more.
fn dnsmasq(options: &[&str]) -> Outcome<Program> {
    let leases = empty_dir("troubles-leases")?.join("leases");
    let mut command = Command::new("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--no-ping"]);
    command.args(["--user=root", "--pid-file=", "--log-facility=-", "--interface=tap0", "--bind-interfaces"]);
    command.args(["--dhcp-range=192.168.77.50,192.168.77.99,255.255.255.0,600"]);
    command.arg(format!("--dhcp-leasefile={}", leases.display())).args(options);
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    started.map(Program).map_err(|e| Fault::new(format!("dnsmasq does not start: {e}; run tests/vm/setup")))
}

/// See the module.
///
/// # Errors
/// When it does not say what is wrong, or does not recover.
pub fn troubles() -> Outcome<String> {
    // Threads and programs that are started from there are in its network.
    let thread = std::thread::spawn(alone);
    thread.join().map_err(|_| Fault::new("the thread of this test panicked"))?
}

fn alone() -> Outcome<String> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|e| Fault::new(format!("no network namespace: {e}; run this test as root")))?;
    let script = "set -e; ip link set lo up; ip tuntap add tap0 mode tap; ip link set tap0 up
        ip addr add 192.168.77.1/24 dev tap0";
    run(as_root("sh").args(["-c", script]))?;
    let published = published("recovery-troubles-published")?;
    let device = Device {
        name: "recovery-troubles",
        published: &published,
        damage: DESTROYED,
        modules: &["virtio_net"],
        config: "urls = [\"http://updates.lab:8080/\"]\nwait_longest = 5\n\n[network]\ndhcp = 8\ndns = [\"192.168.77.250\"]\n".into(),
        extra: [
            "-netdev",
            "tap,id=n0,ifname=tap0,script=no,downscript=no",
            "-device",
            "virtio-net-pci,netdev=n0",
        ]
        .map(String::from)
        .into(),
    };
    let setup = device.setup()?;
    let mut vm = setup.start()?;
    vm.expect("no deployment is bootable", BOOT)?;
    vm.expect("nothing answers: check the DHCP server", 3 * RECOVERS)?;
    let server = dnsmasq(&[])?;
    // First by the configured name server, which does not exist, then by the network's own, which does not know it.
    vm.expect("cannot resolve 'updates.lab'", 3 * RECOVERS)?;
    vm.expect("asking the network's own name servers", 3 * RECOVERS)?;
    vm.expect("cannot resolve 'updates.lab'", 3 * RECOVERS)?;
    drop(server);
    let _server = dnsmasq(&["--address=/updates.lab/192.168.77.1"])?;
    vm.expect("cannot connect to updates.lab:8080", 3 * RECOVERS)?;
    let web = Web::start_at(&published.repo, "192.168.77.1:8080")?;
    web.set(Manner::Portal);
    vm.expect("a web page", 3 * RECOVERS)?;
    web.set(Manner::Busy(3));
    vm.expect("503", 3 * RECOVERS)?;
    web.set(Manner::Good);
    vm.expect("[os] up: 3", 3 * RECOVERS)?;
    looks_around(&mut vm, &["eth0: fetched "])?;
    is_clean(device.name, &setup.disks, &published.commit)?;
    Ok("DHCP was silent, then the name unknown, then the server down, a portal, busy: healed after all"
        .into())
}
