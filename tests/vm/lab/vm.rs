//! A virtual machine and its serial console.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::tools::lab;
use super::{Fault, Outcome};

/// More machines at once than this make each other miss their deadlines on two cores.
const AT_ONCE: usize = 2;
/// A failure shows this many lines of the console.
const LINES_SHOWN: usize = 30;
/// Between two typed characters: a serial line has no flow control here.
const TYPING: Duration = Duration::from_millis(2);

/// What kind of machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Machine {
    /// 64-bit Arm: starts fastest under emulation.
    Arm64,
    /// 64-bit x86.
    Amd64,
}

/// Everything that QEMU is told.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Name of the transcript in `target/lab/logs`.
    pub name: String,
    /// The kind of machine.
    pub machine: Machine,
    /// Memory in MiB.
    pub memory: u32,
    /// Starts instead of the kernel, and finds kernel, initramfs and command line on the disks by itself; the machine
    /// then restarts when it is reset, as a device does.
    pub firmware: Option<PathBuf>,
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The kernel command line.
    pub command_line: String,
    /// Raw disk images, in the order vda, vdb, ...
    pub disks: Vec<PathBuf>,
    /// More for QEMU's command line.
    pub extra: Vec<String>,
    /// Print the console while it runs.
    pub live: bool,
}

impl Setup {
    fn command(&self, serial: &str) -> Command {
        let (program, machine) = match self.machine {
            Machine::Arm64 => ("qemu-system-aarch64", ["-M", "virt", "-cpu", "cortex-a53"]),
            Machine::Amd64 => ("qemu-system-x86_64", ["-M", "q35", "-cpu", "qemu64"]),
        };
        let mut command = Command::new(program);
        command.args(machine).args(["-accel", "tcg", "-nodefaults", "-monitor", "none"]);
        command.args(["-display", "none", "-serial", serial, "-m", &self.memory.to_string()]);
        if let Some(firmware) = &self.firmware {
            command.arg("-bios").arg(firmware);
        } else {
            command.arg("-no-reboot").arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initramfs);
            command.args(["-append", &self.command_line]);
        }
        command.args(&self.extra);
        for (number, disk) in self.disks.iter().enumerate() {
            let path = disk.display();
            command.arg("-drive").arg(format!("if=none,id=disk{number},format=raw,file={path}"));
            command.arg("-device").arg(format!("virtio-blk-pci,drive=disk{number}"));
        }
        command
    }

    /// Gives the console to the person at the terminal until the machine ends.
    ///
    /// # Errors
    /// When QEMU does not start or fails.
    pub fn interactive(&self) -> Outcome<()> {
        let mut command = self.command("mon:stdio");
        // With the monitor on the same line, ctrl-a x ends the machine.
        let status = command.status().map_err(|e| Fault::new(format!("qemu does not start: {e}")))?;
        if status.success() { Ok(()) } else { Err(Fault::new(format!("qemu: {status}"))) }
    }

    /// Starts the machine, once there is room for it.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(&self) -> Outcome<Vm> {
        let room = Room::take();
        let path = lab().join("logs").join(format!("{}.log", self.name));
        super::tools::write(&path, "")?;
        let log = File::create(&path).map_err(|e| Fault::file("write", &path, &e))?;
        let mut child = self
            .command("stdio")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Fault::new(format!("qemu does not start: {e}; run tests/vm/setup")))?;
        let (sender, console) = channel();
        if let Some(output) = child.stdout.take() {
            let (sender, live) = (sender.clone(), self.live);
            std::thread::spawn(move || pump(output, Some(log), live, &sender));
        }
        if let Some(errors) = child.stderr.take() {
            std::thread::spawn(move || pump(errors, None, false, &sender));
        }
        let keyboard = child.stdin.take();
        Ok(Vm { child, keyboard, console, text: String::new(), seen: 0, log: path, _room: room })
    }
}

fn pump(mut from: impl Read, mut log: Option<File>, live: bool, to: &Sender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let part = buffer.get(..count).unwrap_or_default();
        if let Some(log) = &mut log {
            let _ = log.write_all(part);
        }
        if live {
            let mut terminal = std::io::stdout().lock();
            let _ = terminal.write_all(part).and_then(|()| terminal.flush());
        }
        if to.send(part.to_vec()).is_err() {
            return;
        }
    }
}

/// A place among the machines that may run at once.
struct Room;

static RUNNING: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Room {
    fn take() -> Self {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= AT_ONCE {
            running = FREED.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        *running += 1;
        Room
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}

/// A running machine. It ends with this value at the latest.
pub struct Vm {
    child: Child,
    keyboard: Option<ChildStdin>,
    console: Receiver<Vec<u8>>,
    text: String,
    /// Everything before this offset in `text` was matched already.
    seen: usize,
    log: PathBuf,
    _room: Room,
}

/// `seconds`, scaled by `BOOTWARD_LAB_PATIENCE` for slower machines.
pub fn patience(seconds: u64) -> Duration {
    let factor = std::env::var("BOOTWARD_LAB_PATIENCE").ok().and_then(|v| v.parse().ok()).unwrap_or(1_u64);
    Duration::from_secs(seconds * factor.clamp(1, 100))
}

impl Vm {
    /// Waits until `pattern` appears after what was matched before, and returns the text up to and with it.
    ///
    /// # Errors
    /// When it does not come within `seconds`, when the kernel panics, or when the machine ends before.
    pub fn expect(&mut self, pattern: &str, seconds: u64) -> Outcome<String> {
        self.await_end(pattern, seconds, &|text| text.find(pattern).map(|at| at + pattern.len()))
    }

    /// The same for words that may be spread over several rows.
    ///
    /// # Errors
    /// As [`Vm::expect`].
    pub fn expect_words(&mut self, words: &str, seconds: u64) -> Outcome<String> {
        self.await_end(words, seconds, &|text| folded(text, words))
    }

    /// Waits until `end` finds the end of `pattern` in what was not matched before.
    fn await_end(
        &mut self,
        pattern: &str,
        seconds: u64,
        end: &dyn Fn(&str) -> Option<usize>,
    ) -> Outcome<String> {
        let deadline = Instant::now() + patience(seconds);
        let mut ended = false;
        loop {
            let fresh = self.text.get(self.seen..).unwrap_or_default();
            if let Some(end) = end(fresh) {
                let matched = fresh.get(..end).unwrap_or_default().to_string();
                self.seen += end;
                return Ok(matched);
            }
            if fresh.contains("Kernel panic - not syncing") && !pattern.contains("panic") {
                return Err(self.failure(&format!("the kernel panicked while '{pattern}' was awaited")));
            }
            if ended {
                return Err(self.failure(&format!("the machine ended while '{pattern}' was awaited")));
            }
            match self.console.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(part) => self.text.push_str(&String::from_utf8_lossy(&part)),
                Err(RecvTimeoutError::Disconnected) => ended = true,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.failure(&format!("'{pattern}' did not come within {seconds} s")));
                }
            }
        }
    }

    /// Waits for the rest of the line that `pattern` begins, and returns it without `pattern`.
    ///
    /// # Errors
    /// As [`Vm::expect`].
    pub fn expect_line(&mut self, pattern: &str, seconds: u64) -> Outcome<String> {
        self.expect(pattern, seconds)?;
        let rest = self.expect("\n", seconds)?;
        Ok(rest.trim().to_string())
    }

    /// Types a line, as a person would: a key at a time, and return.
    ///
    /// # Errors
    /// When the machine has ended.
    pub fn type_line(&mut self, line: &str) -> Outcome<()> {
        let Some(keyboard) = &mut self.keyboard else {
            return Err(Fault::new("the machine has no keyboard"));
        };
        for key in line.bytes().chain([b'\r']) {
            let pressed = keyboard.write_all(&[key]).and_then(|()| keyboard.flush());
            pressed.map_err(|e| Fault::new(format!("typing '{line}': {e}")))?;
            std::thread::sleep(TYPING);
        }
        Ok(())
    }

    /// Waits until the machine has ended by itself: power off, or a restart (which QEMU turns into its end).
    ///
    /// # Errors
    /// When it goes on for longer than `seconds`, or QEMU fails.
    pub fn expect_end(&mut self, seconds: u64) -> Outcome<()> {
        let deadline = Instant::now() + patience(seconds);
        loop {
            match self.console.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(part) => self.text.push_str(&String::from_utf8_lossy(&part)),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.failure(&format!("the machine did not end within {seconds} s")));
                }
            }
        }
        let status = self.child.wait().map_err(|e| Fault::new(format!("qemu: {e}")))?;
        if status.success() { Ok(()) } else { Err(self.failure(&format!("qemu: {status}"))) }
    }

    /// Whether this was printed after what was matched before, as far as it came up to now.
    pub fn has(&mut self, pattern: &str) -> bool {
        while let Ok(part) = self.console.try_recv() {
            self.text.push_str(&String::from_utf8_lossy(&part));
        }
        self.text.get(self.seen..).unwrap_or_default().contains(pattern)
    }

    /// Everything that was printed so far, matched or not.
    pub fn transcript(&self) -> &str {
        &self.text
    }

    /// Where the whole transcript is kept.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// A fault that shows the end of the console.
    pub fn failure(&self, what: &str) -> Fault {
        let lines: Vec<&str> = self.text.lines().collect();
        let end = lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default().join("\n");
        Fault::new(format!("{what}; the console ends:\n{end}\n(whole transcript: {})", self.log.display()))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where words end that follow each other in a text, with any space between them.
fn folded(text: &str, words: &str) -> Option<usize> {
    let mut words = words.split(' ');
    let first = words.next()?;
    text.match_indices(first).find_map(|(start, _)| {
        words.clone().try_fold(start + first.len(), |end, word| {
            let rest = text.get(end..)?.trim_start();
            rest.starts_with(word).then(|| text.len() - rest.len() + word.len())
        })
    })
}
