//! A slow link: two TUN devices in two network namespaces, and threads between them that delay every packet and let no
//! more through than the rate. It does what `tc netem` does, and needs no kernel that has it.
#![allow(unsafe_code, reason = "an ioctl")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use super::place::{RATE, output};

/// One way over the link.
const DELAY: Duration = Duration::from_millis(25);
/// Packets that it holds: about 42 are under way, the rest is the buffer of a router. More are dropped.
const PACKETS: usize = 1000;
/// What Ethernet adds to a packet, in bytes.
const FRAME: usize = 14;
/// The name of both devices.
pub const NAME: &str = "slow";

nix::ioctl_write_ptr_bad!(set_interface, 0x4004_54ca, [u8; 40]);

/// Makes the device in the namespace that this thread is in. It is there as long as the file is open.
fn device() -> io::Result<File> {
    // struct ifreq: the name, then the flags IFF_TUN | IFF_NO_PI.
    let mut request = [0; 40];
    request[..NAME.len()].copy_from_slice(NAME.as_bytes());
    request[16..18].copy_from_slice(&0x1001u16.to_ne_bytes());
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: TUNSETIFF reads and writes the 40 bytes of an ifreq.
    unsafe { set_interface(file.as_raw_fd(), &request) }?;
    Ok(file)
}

fn named(command: &mut Command, address: &str) -> io::Result<()> {
    let script = format!("ip address add {address} dev {NAME} && ip link set {NAME} up");
    output(command.args(["sh", "-c", &script])).map(drop)
}

/// Joins this process' namespace, and that of a process, which get these addresses. The threads stay until the end.
///
/// # Errors
/// When this machine has no TUN devices.
pub fn join(here: &str, there: &str, process: u32) -> io::Result<()> {
    let near = device()?;
    let namespace = File::open(format!("/proc/{process}/ns/net"))?;
    let far = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        device()
    });
    let far = far.join().map_err(|_| io::Error::other("the thread in the other namespace"))??;
    named(&mut Command::new("env"), here)?;
    named(Command::new("nsenter").arg(format!("--net=/proc/{process}/ns/net")), there)?;
    for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
        let (sender, receiver) = sync_channel(PACKETS);
        std::thread::spawn(move || read(from, &sender));
        std::thread::spawn(move || write(to, &receiver));
    }
    Ok(())
}

/// Others that are busy here must not slow the line.
fn hurry() {
    // SAFETY: numbers in, a number out.
    unsafe { nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, -20) };
}

/// When each packet is to arrive: after those before it, by the rate, and then the delay.
fn read(mut from: File, sender: &SyncSender<(Instant, Vec<u8>)>) {
    hurry();
    let mut free = Instant::now();
    let mut packet = [0; 2048];
    while let Ok(length) = from.read(&mut packet) {
        let time = Duration::from_secs_f64((length + FRAME) as f64 * 8.0 / RATE);
        let sent = free.max(Instant::now()) + time;
        if sender.try_send((sent + DELAY, packet[..length].to_vec())).is_ok() {
            free = sent;
        }
    }
}

fn write(mut to: File, receiver: &Receiver<(Instant, Vec<u8>)>) {
    hurry();
    while let Ok((due, packet)) = receiver.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // Nobody is there any more: it is lost, as on any line.
        let _ = to.write(&packet);
    }
}
