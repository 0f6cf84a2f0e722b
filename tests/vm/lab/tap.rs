//! A network of one machine: a namespace with a tap device in it, and what serves there.

use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::tools::{as_root, empty_dir, run};
use super::{Fault, Outcome};

/// Does something in a thread that is alone in a network of its own; programs and threads that it starts are there too.
/// The other end of the tap device has these addresses.
///
/// # Errors
/// As `body`, or when there is no such network.
pub fn alone(addresses: &str, body: fn() -> Outcome<String>) -> Outcome<String> {
    let script = format!(
        "set -e; ip link set lo up; ip tuntap add tap0 mode tap; ip link set tap0 up
         for address in {addresses}; do ip addr add $address dev tap0 nodad; done"
    );
    let alone = move || {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|e| Fault::new(format!("no network namespace: {e}; run this test as root")))?;
        run(as_root("sh").args(["-c", &script]))?;
        body()
    };
    std::thread::spawn(alone).join().map_err(|_| Fault::new("the thread of this test panicked"))?
}

/// What QEMU is told of it.
pub fn device() -> Vec<String> {
    ["-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n0"]
        .map(String::from)
        .into()
}

/// A program that ends with this value.
pub struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// dnsmasq with these options.
///
/// # Errors
/// When it does not start.
pub fn dnsmasq(name: &str, options: &[&str]) -> Outcome<Program> {
    let leases = empty_dir(&format!("{name}-leases"))?.join("leases");
    let mut command = Command::new("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--no-ping"]);
    command.args(["--user=root", "--pid-file=", "--log-facility=-", "--interface=tap0", "--bind-interfaces"]);
    command.arg(format!("--dhcp-leasefile={}", leases.display())).args(options);
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    started.map(Program).map_err(|e| Fault::new(format!("dnsmasq does not start: {e}; run tests/vm/setup")))
}
