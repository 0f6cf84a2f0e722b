//! The serial console on a real pseudo terminal: the program's side runs here, the person's side is typed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bootward::recovery::operator::desk::{Desk, Settings};
use bootward::recovery::operator::lock::PasswordHash;
use bootward::recovery::operator::screen::View;
use bootward::recovery::operator::secret::Secret;
use bootward::recovery::operator::session::{Access, Manner};
use bootward::recovery::status::{Phase, Status, Wish};
use bootward::recovery::story::{Chapter, Story};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};

/// Nothing here takes so long, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// The person's end of the line, and what the program did.
struct Line {
    master: File,
    /// Kept open, or the line would hang up when the program closes it.
    slave: Option<OwnedFd>,
    seen: String,
    wishes: Receiver<Wish>,
    status: Arc<Mutex<Status>>,
    /// How often the program came round, which it must go on doing whatever happens on the line.
    rounds: Arc<Mutex<u64>>,
    end: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Line {
    fn with(access: Access) -> Line {
        let pty = openpty(None, None).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", pty.slave.as_raw_fd())).read_link().unwrap();
        fcntl(&pty.master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).unwrap();
        let settings = Settings {
            console: path,
            manner: Manner { access, shell: true, idle: 300_000 },
            shell: "/bin/sh".into(),
            kernel_log: "/no/such/log".into(),
        };
        let (sender, wishes) = channel();
        let status = Arc::new(Mutex::new(Status { phase: Phase::Wired, ..Status::default() }));
        let (rounds, end) = (Arc::new(Mutex::new(0)), Arc::new(AtomicBool::new(false)));
        let (its_status, its_rounds, its_end) = (status.clone(), rounds.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            let chapter = |name: &str| Chapter { name: name.into(), why: "usr is missing".into() };
            let story = Story {
                reason: "no deployment is bootable".into(),
                deployments: vec![chapter("os 1111111111.0"), chapter("os 2222222222.0")],
                notes: Vec::new(),
            };
            let began = Instant::now();
            let now = || u64::try_from(began.elapsed().as_millis()).unwrap();
            let first = its_status.lock().unwrap().clone();
            let mut desk = Desk::open(settings, &View { story: &story, status: &first, now: now() });
            let mut ledger =
                |line: &mut dyn FnMut(&str)| (0..40).for_each(|n| line(&format!("#{n} a record")));
            while !its_end.load(Ordering::Relaxed) {
                let status = its_status.lock().unwrap().clone();
                let view = View { story: &story, status: &status, now: now() };
                if let Some(wish) = desk.serve(&view, &mut ledger, Duration::from_millis(20)) {
                    let _ = sender.send(wish);
                }
                *its_rounds.lock().unwrap() += 1;
            }
        });
        let (master, slave) = (File::from(pty.master), Some(pty.slave));
        Line { master, slave, seen: String::new(), wishes, status, rounds, end, thread: Some(thread) }
    }

    /// Types, for as long as the line takes it.
    fn types(&mut self, bytes: &[u8]) {
        let mut left = bytes;
        let deadline = Instant::now() + PATIENCE;
        while !left.is_empty() {
            assert!(Instant::now() < deadline, "the line does not take {} bytes", left.len());
            match self.master.write(left) {
                Ok(count) => left = &left[count..],
                Err(_) => self.listen(Duration::from_millis(5)),
            }
        }
    }

    fn listen(&mut self, wait: Duration) {
        let timeout = PollTimeout::try_from(wait).unwrap();
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&self.master), PollFlags::POLLIN)];
        if poll(&mut fds, timeout).unwrap_or(0) > 0 {
            let mut buffer = [0; 4096];
            if let Ok(count) = self.master.read(&mut buffer) {
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        }
    }

    /// Waits for a text, and takes everything up to it.
    fn sees(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            assert!(Instant::now() < deadline, "'{text}' was not seen in: {}", self.seen);
            self.listen(Duration::from_millis(50));
        }
    }

    fn wish(&self) -> Wish {
        self.wishes.recv_timeout(PATIENCE).expect("no wish came")
    }

    fn rounds(&self) -> u64 {
        *self.rounds.lock().unwrap()
    }

    /// The program goes on, whatever the line does.
    fn goes_on(&self) {
        let before = self.rounds();
        let deadline = Instant::now() + PATIENCE;
        while self.rounds() < before + 5 {
            assert!(Instant::now() < deadline, "the program stands still");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn locked() -> Access {
    let mut secret = Secret::with_room(16);
    b"let me in".iter().for_each(|byte| assert!(secret.push(*byte)));
    Access::Locked(Some(PasswordHash::of(&secret, *b"0123456789abcdef").unwrap()))
}

#[test]
fn a_person_chooses() {
    let mut line = Line::with(Access::Open);
    let screen = line.sees("bootward> ");
    assert!(screen.contains("bootward: recovery: no deployment is bootable\r\n"), "{screen}");
    line.types(b"1\r");
    line.sees("boot which one, 0 to 1: ");
    line.types(b"0\x081\r");
    assert_eq!(line.wish(), Wish::Boot(1));
    line.types(b"3\r");
    line.sees("name of the network");
    line.types(b"Plant 7\r");
    line.sees("passphrase");
    line.types(b"correct horse\r");
    assert_eq!(line.wish(), Wish::Network { ssid: b"Plant 7".to_vec(), secret: "correct horse".into() });
    line.types(b"7\r");
    line.sees("#22 a record\r\n-- Enter for more");
    line.types(b"\r");
    line.sees("#39 a record\r\n");
    line.types(b"8\r");
    line.sees("/no/such/log: No such file");
    line.types(b"9\ryes\r");
    assert_eq!(line.wish(), Wish::Reboot);
    // The program sets the line raw, so that nothing of a secret is echoed by the terminal itself.
    line.sees("bootward> ");
    let flags = tcgetattr(line.slave.as_ref().unwrap()).unwrap().local_flags;
    assert!(!flags.intersects(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG));
    assert!(!line.seen.contains("correct"));
}

#[test]
fn a_line_that_does_not_move_stops_nothing() {
    let mut line = Line::with(Access::Open);
    line.sees("bootward> ");
    // XOFF, as junk types it: nothing stops.
    line.types(b"\x13\r");
    line.sees("bootward> ");
    // Nobody takes what is sent: screens pile up, until the queue and the kernel's buffer are full.
    for _ in 0..200 {
        let _ = line.master.write(b"\r");
        std::thread::sleep(Duration::from_millis(2));
    }
    line.goes_on();
    line.status.lock().unwrap().tell("something new");
    line.goes_on();
    let _ = line.master.write(b"2\r");
    assert_eq!(line.wish(), Wish::RecoverNow);
    // When it moves again, there is one whole screen at the end.
    let deadline = Instant::now() + PATIENCE;
    let mut quiet = 0;
    while quiet < 20 {
        assert!(Instant::now() < deadline, "it does not end");
        let before = line.seen.len();
        line.listen(Duration::from_millis(50));
        quiet = if line.seen.len() == before { quiet + 1 } else { 0 };
    }
    let last = line.seen.rsplit("== bootward recovery").next().unwrap();
    assert!(last.contains("11 shell") && last.trim_end().ends_with("bootward>"), "{last}");
}

#[test]
fn a_line_that_hangs_up_is_opened_again() {
    let mut line = Line::with(Access::Open);
    line.sees("bootward> ");
    // The person's end goes away; the program reads the end of the line, over and over.
    let other = openpty(None, None).unwrap();
    line.slave = None;
    line.master = File::from(other.master);
    line.goes_on();
    let before = line.rounds();
    std::thread::sleep(Duration::from_millis(500));
    let spun = line.rounds() - before;
    assert!(spun < 100, "{spun} rounds in half a second: it spins");
}

#[test]
fn the_locked_console_stays_locked_under_junk_and_long_lines() {
    let mut line = Line::with(locked());
    line.sees("locked, password: ");
    let junk: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
    line.types(&junk);
    line.types(&[b'A'; 1_000_000]);
    line.types(&[0; 1000]);
    line.types(b"\r1\r2\r9\ryes\r");
    line.goes_on();
    assert!(line.wishes.try_recv().is_err());
    // Wait out the delay that the junk earned; its length depends on how many lines were in it.
    line.listen(Duration::from_millis(100));
    assert!(!line.seen.contains("boot a deployment"));
}

#[test]
fn the_password_opens_it() {
    let mut line = Line::with(locked());
    line.sees("locked, password: ");
    line.types(b"wrong\r");
    line.sees("wrong password");
    line.sees("locked for ");
    line.sees("locked, password: ");
    line.types(b"let me in\r");
    let screen = line.sees("bootward> ");
    assert!(screen.contains("1 boot a deployment") && !screen.contains("let me in"));
    line.types(b"2\r");
    assert_eq!(line.wish(), Wish::RecoverNow);
}

#[test]
fn off_is_off() {
    let mut line = Line::with(Access::Off);
    line.types(b"\r2\r");
    line.goes_on();
    line.listen(Duration::from_millis(200));
    assert!(line.wishes.try_recv().is_err());
    // What the terminal itself echoes is all that there is.
    assert!(!line.seen.contains("bootward"), "{}", line.seen);
}

#[test]
fn a_shell_where_one_is_configured_and_back() {
    let mut line = Line::with(Access::Open);
    line.sees("bootward> ");
    line.types(b"11\r");
    line.sees("'exit' ends it");
    line.types(b"echo $((40+2))-answers; test -z \"$HOME\" && echo clean\n");
    line.sees("42-answers");
    line.sees("clean");
    line.goes_on();
    line.types(b"exit\n");
    line.sees("== bootward recovery");
    line.sees("bootward> ");
    line.types(b"2\r");
    assert_eq!(line.wish(), Wish::RecoverNow);
}
