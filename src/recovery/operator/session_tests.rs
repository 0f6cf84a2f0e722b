//! The dialogue as a person has it.

use alloc::string::ToString;

use super::super::lock::PasswordHash;
use super::*;
use crate::recovery::status::{Phase, Progress, Status};
use crate::recovery::story::{Chapter, Story};

/// A person at a console, and what they see.
struct Person {
    session: Session,
    story: Story,
    status: Status,
    now: u64,
    seen: Vec<u8>,
    /// What the password is, where one is checked.
    password: &'static [u8],
}

fn story() -> Story {
    let chapter = |name: &str, why: &str| Chapter { name: name.into(), why: why.into() };
    Story {
        reason: "no deployment is bootable".into(),
        deployments: alloc::vec![
            chapter("os 1111111111.0", "usr is missing"),
            chapter("os 2222222222.0", "no init")
        ],
        notes: Vec::new(),
    }
}

fn hash() -> PasswordHash {
    PasswordHash::parse(
        "$argon2id$v=19$m=8,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$/BVsPHHvD7yAR0jxm3AyVX4MyfdtoxtOhblBghSDOK4",
    )
    .unwrap()
}

impl Person {
    fn at(access: Access, shell: bool) -> Self {
        let (story, status, mut seen) = (story(), Status::default(), Vec::new());
        let manner = Manner { access, shell, idle: 300_000 };
        let session = Session::begin(manner, &View { story: &story, status: &status, now: 0 }, &mut seen);
        Person { session, story, status, now: 0, seen, password: b"let me in" }
    }

    fn view(&self) -> View<'_> {
        View { story: &self.story, status: &self.status, now: self.now }
    }

    /// Types; what was caused by it. Passwords are checked at once.
    fn types(&mut self, bytes: &[u8]) -> Vec<Effect> {
        let mut effects = Vec::new();
        for byte in bytes {
            let view = View { story: &self.story, status: &self.status, now: self.now };
            match self.session.byte(*byte, &view, &mut self.seen) {
                Some(Effect::Check(secret)) => {
                    let fits = secret.bytes() == self.password;
                    self.session.checked(Ok(fits), &view, &mut self.seen);
                }
                other => effects.extend(other),
            }
        }
        effects
    }

    fn wishes(&mut self, line: &str) -> Wish {
        match self.types(line.as_bytes()).pop() {
            Some(Effect::Wish(wish)) => wish,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn waits(&mut self, milliseconds: u64) {
        let until = self.now + milliseconds;
        while self.now < until {
            self.now += 250;
            let view = View { story: &self.story, status: &self.status, now: self.now };
            self.session.tick(&view, &mut self.seen);
        }
    }

    /// What was shown since this was asked last.
    fn sees(&mut self) -> String {
        String::from_utf8(core::mem::take(&mut self.seen)).unwrap()
    }
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn every_action() {
    let mut person = Person::at(Access::Open, true);
    let first = person.sees();
    assert!(
        first.contains("recovery: no deployment is bootable")
            && first.contains("0  os 1111111111.0: usr is missing")
    );
    assert_eq!(person.wishes("1\r1\r"), Wish::Boot(1));
    assert_eq!(person.wishes("2\r"), Wish::RecoverNow);
    let network = Wish::Network { ssid: b"Plant 7".to_vec(), secret: "correct horse".into() };
    assert_eq!(person.wishes("3\rPlant 7\rcorrect horse\r"), network);
    let commit = Checksum::parse(COMMIT).unwrap();
    assert_eq!(person.wishes(&format!("4\r{COMMIT}\r\r")), Wish::Commit { commit, older: false });
    assert_eq!(person.wishes(&format!("4\r{COMMIT}\rolder\r")), Wish::Commit { commit, older: true });
    assert_eq!(person.wishes("5\r"), Wish::FromUsb);
    assert_eq!(person.wishes("6\r"), Wish::Repair);
    assert_eq!(person.types(b"7\r"), [Effect::Ledger]);
    assert_eq!(person.types(b"8\r"), [Effect::KernelLog]);
    assert_eq!(person.wishes("9\ryes\r"), Wish::Reboot);
    assert_eq!(person.wishes("10\ryes\r"), Wish::PowerOff);
    assert_eq!(person.types(b"11\r"), [Effect::Shell]);
    assert_eq!(person.wishes("retry\r"), Wish::Retry);
    // No line feed is needed, and one does no harm.
    assert_eq!(person.wishes("9\r\nYes\r\n"), Wish::Reboot);
}

#[test]
fn nothing_is_caused_by_half_an_answer() {
    let mut person = Person::at(Access::Open, false);
    let lines = [
        "9\rno\r",
        "9\r\r",
        "9\r\x03",
        "10\ry\r",
        "1\r2\r\x03",
        "1\rx\r\r",
        "4\r0123\r\x03",
        "4\r\r",
        "3\r\r",
        "11\r",
        "x\r",
        "0\r",
        "999999999999\r",
        "boot 2\r",
        "3\rhome\rshort\r\x03",
        "3\r",
    ];
    for line in lines {
        assert_eq!(person.types(line.as_bytes()), [], "{line:?}");
    }
    let long = format!("{}\r\x03", "n".repeat(33));
    assert_eq!(person.types(long.as_bytes()), []);
    assert!(person.sees().contains("1 to 32 bytes"));
    // The mark of a name without one, and a hidden network among those seen.
    person.status.seen = alloc::vec![String::new()];
    for none in ["3\r=\r\r\x03", "3\r1\r\r\x03"] {
        assert_eq!(person.types(none.as_bytes()), [], "{none:?}");
        assert!(person.sees().contains("1 to 32 bytes"));
    }
}

#[test]
fn networks_by_number_by_name_and_in_disguise() {
    let mut person = Person::at(Access::Open, false);
    person.status.seen = alloc::vec!["Guest".into(), "Plant \u{1b}[2J".into()];
    let named = |ssid: &str, secret: &str| Wish::Network { ssid: ssid.into(), secret: secret.into() };
    assert_eq!(person.wishes("3\r1\r\r"), named("Guest", ""));
    assert_eq!(person.wishes("3\r3\rpassword\r"), named("3", "password"));
    assert_eq!(person.wishes("3\r=1\rpassword\r"), named("1", "password"));
    // What a network calls itself does nothing to the terminal, and is meant all the same.
    assert_eq!(person.wishes("3\r2\r\r"), named("Plant \u{1b}[2J", ""));
    assert!(!person.sees().contains('\u{1b}'));
}

#[test]
fn secrets_are_not_shown() {
    let mut person = Person::at(Access::Open, false);
    person.types(b"3\rhome\rcorrect horse\r");
    person.types(b"3\rhome\rhalf of i");
    let view = View { story: &person.story, status: &person.status, now: 0 };
    person.session.redraw(&view, &mut person.seen);
    let shown = person.sees();
    assert!(!shown.contains("correct") && !shown.contains("half"), "{shown}");
    assert!(!format!("{:?}", person.session).contains("half"));
}

#[test]
fn a_question_that_nobody_answers_is_taken_back() {
    let mut person = Person::at(Access::Open, false);
    person.types(b"9\rye");
    person.waits(QUESTION - 250);
    assert!(!person.sees().contains("no answer"));
    person.waits(250);
    assert!(person.sees().contains("no answer"));
    // The rest of the answer comes too late.
    assert_eq!(person.types(b"s\r"), []);
}

#[test]
fn the_prompt_is_alive_until_somebody_types() {
    let mut person = Person::at(Access::Open, false);
    person.status.phase = Phase::Fetching;
    person.sees();
    // Nobody was ever there: seldom.
    person.waits(9_750);
    assert_eq!(person.sees(), "");
    person.waits(250);
    assert!(person.sees().ends_with("\rdownloading  bootward> "));
    person.types(b"\r");
    person.sees();
    for (percent, bar) in [(10, "#........."), (20, "##........")] {
        person.status.progress = Some(Progress {
            done: percent,
            total: 100,
            whole: true,
            bytes: 5_000_000,
            rate: 1_000_000,
            left: Some(43),
        });
        person.waits(1000);
        let shown = person.sees();
        let line = format!("\r[{bar}] {percent:3} %, 5.0 MB, 1.0 MB/s, 0:43 left  bootward> ");
        assert!(shown.ends_with(&line), "{shown:?}");
        assert!(!shown.contains('\n') && shown.bytes().all(|b| b == b'\r' || (b' '..=b'~').contains(&b)));
    }
    // While a line is typed, it is left alone.
    person.types(b"bo");
    person.sees();
    person.status.phase = Phase::Deploying;
    person.status.tell("the commit is here");
    person.waits(5000);
    assert_eq!(person.sees(), "");
    person.types(b"\x08\x08");
    person.waits(250);
    assert!(person.sees().contains("the commit is here\r\n"));
}

#[test]
fn news_is_told_once_and_a_flood_is_cut() {
    let mut person = Person::at(Access::Open, false);
    person.status.tell("eth0: no carrier");
    person.waits(250);
    assert_eq!(person.sees().matches("no carrier").count(), 1);
    person.waits(30_000);
    assert_eq!(person.sees().matches("no carrier").count(), 0);
    for number in 0..10_000 {
        person.status.tell(&format!("line {number}"));
    }
    person.waits(250);
    let shown = person.sees();
    assert!(shown.matches("line ").count() == NEWS && shown.contains("line 9999"), "{shown}");
}

#[test]
fn a_long_text_is_read_by_the_page() {
    let mut person = Person::at(Access::Open, false);
    let text: Vec<String> = (0..50).map(|n| format!("record {n}")).collect();
    let view = View { story: &person.story, status: &person.status, now: 0 };
    person.session.page(&text, &view, &mut person.seen);
    assert!(person.sees().contains("record 22\r\n-- Enter for more"));
    person.types(b"\r");
    assert!(person.sees().contains("record 45\r\n-- Enter"));
    person.types(b"\r");
    let last = person.sees();
    assert!(last.contains("record 49\r\n") && last.ends_with("bootward> "), "{last}");
    let view = View { story: &person.story, status: &person.status, now: 0 };
    person.session.page(&text, &view, &mut person.seen);
    assert_eq!(person.types(b"q\r2\r"), [Effect::Wish(Wish::RecoverNow)]);
}

#[test]
fn the_password_opens_and_silence_closes() {
    let mut person = Person::at(Access::Locked(Some(hash())), true);
    let first = person.sees();
    assert!(first.contains("password: ") && !first.contains("boot a deployment"), "{first}");
    assert_eq!(person.types(b"2\r"), []);
    assert!(person.sees().contains("wrong password"));
    person.waits(1000);
    assert_eq!(person.types(b"let me in\r2\r"), [Effect::Wish(Wish::RecoverNow)]);
    assert!(!person.sees().contains("let me in"));
    person.waits(299_750);
    assert_eq!(person.types(b"7"), []);
    person.waits(300_000);
    assert!(person.sees().contains("locked again"));
    assert_eq!(person.types(b"7\r7\r"), []);
}

#[test]
fn failures_are_answered_with_longer_and_longer_silence() {
    let mut person = Person::at(Access::Locked(Some(hash())), false);
    for wait in [1, 2, 4, 8] {
        person.types(b"wrong\r");
        person.sees();
        // Even the right one does not count now, and nothing of it is kept for later.
        assert_eq!(person.types(b"let me in\r"), []);
        person.waits(wait * 1000 - 250);
        assert_eq!(person.types(b"let me in\r2\r"), []);
        person.waits(250);
    }
    assert_eq!(person.types(b"let me in\r2\r"), [Effect::Wish(Wish::RecoverNow)]);
}

#[test]
fn a_locked_console_stays_locked_under_junk() {
    let all: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let long = [[b'A'; 1 << 20].as_slice(), b"\r"].concat();
    let junk: [&[u8]; 5] =
        [&all, &long, &[0; 1 << 20], b"\r\n\r\n\x03\x1b[A\x1b]0;x\x07\x15\x17\x7f\r", b"let me in\x00x\r"];
    for access in [Access::Locked(Some(hash())), Access::Locked(None), Access::Off] {
        let mut person = Person::at(access.clone(), true);
        for bytes in junk {
            assert_eq!(person.types(bytes), []);
            person.waits(10_000);
            person.now += 400_000;
        }
        assert!(!person.sees().contains("boot a deployment"));
        let opens = matches!(access, Access::Locked(Some(_)));
        assert_eq!(person.types(b"let me in\r6\r").len(), usize::from(opens));
    }
}

#[test]
fn nobody_gets_in_where_no_password_can_be_used() {
    let mut person = Person::at(Access::Locked(None), true);
    assert!(person.sees().contains("locked for good"));
    assert_eq!(person.types(b"\r\r\r2\r"), []);
    let mut off = Person::at(Access::Off, true);
    off.waits(60_000);
    assert_eq!((off.types(b"2\r").len(), off.sees()), (0, String::new()));
}

#[test]
fn where_nothing_is_there_to_boot_it_says_so() {
    let mut person = Person::at(Access::Open, false);
    person.story.deployments.clear();
    assert_eq!(person.types(b"1\r"), []);
    assert!(person.sees().contains("no deployment to boot"));
    let _ = person.view().story.reason.to_string();
}

/// 10⁸ typed bytes: `cargo test --release --lib -- --ignored a_hundred_million_bytes`.
#[test]
#[ignore = "a minute, optimised"]
fn a_hundred_million_bytes() {
    const PIECES: [&[u8]; 16] = [
        b"\r",
        b"1",
        b"2",
        b"3",
        b"4",
        b"9",
        b"10",
        b"11",
        b"yes",
        b"older",
        b"password",
        b"\x03",
        b"\x08",
        b"\x1b[A",
        b"boot 1",
        b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ];
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let (mut typed, mut caused) = (0u64, [0u64; 12]);
    for access in [Access::Open, Access::Locked(Some(hash()))] {
        let mut person = Person::at(access.clone(), true);
        person.password = b"nobody types this";
        let end = typed + 50_000_000;
        while typed < end {
            let number = random();
            let byte = [number.to_le_bytes()[1]];
            let bytes =
                if number % 3 == 0 { &byte[..] } else { PIECES[usize::from(number.to_le_bytes()[2] % 16)] };
            typed += bytes.len() as u64;
            person.now += number >> 58;
            for effect in person.types(bytes) {
                assert!(access == Access::Open, "{effect:?}");
                caused[match effect {
                    Effect::Wish(Wish::Boot(0 | 1)) => 0,
                    Effect::Wish(Wish::RecoverNow) => 1,
                    Effect::Wish(Wish::Network { .. }) => 2,
                    Effect::Wish(Wish::Commit { .. }) => 3,
                    Effect::Wish(Wish::FromUsb) => 4,
                    Effect::Wish(Wish::Repair) => 5,
                    Effect::Wish(Wish::Retry) => 6,
                    Effect::Wish(Wish::Reboot) => 7,
                    Effect::Wish(Wish::PowerOff) => 8,
                    Effect::Ledger => 9,
                    Effect::KernelLog => 10,
                    Effect::Shell => 11,
                    other => panic!("{other:?}"),
                }] += 1;
            }
            person.seen.clear();
        }
    }
    std::println!("{typed} bytes; caused: {caused:?}");
    assert!(typed >= 100_000_000 && caused[..4].iter().all(|count| *count > 0), "{caused:?}");
}
