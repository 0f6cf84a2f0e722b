//! The recovery console: whatever is typed, only what the menu lists can come of it.

use bootward::recovery::operator::lock::PasswordHash;
use bootward::recovery::operator::screen::View;
use bootward::recovery::operator::session::{Access, Effect, Manner, Session};
use bootward::recovery::status::{Phase, Status, Wish};
use bootward::recovery::story::{Chapter, Story};

/// A password's hash; it is not computed here, the password is [`PASSWORD`].
const HASH: &str =
    "$argon2id$v=19$m=8,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$/BVsPHHvD7yAR0jxm3AyVX4MyfdtoxtOhblBghSDOK4";
const PASSWORD: &[u8] = b"open sesame";
/// Bytes that one typed byte may cause at most: a screen and a page.
const SENT_MAX: usize = 8192;

/// The first byte says how the console is set, the second how fast is typed, the rest is typed.
pub fn console(data: &[u8]) {
    let [setting, pace, typed @ ..] = data else { return };
    let shell = setting & 4 != 0;
    let access = match setting & 3 {
        0 => Access::Open,
        1 => Access::Locked(PasswordHash::parse(HASH).ok()),
        2 => Access::Locked(None),
        _ => Access::Off,
    };
    let mut opened = access == Access::Open;
    let count = usize::from(setting >> 3 & 3);
    let chapter = |index| Chapter { name: format!("os {index}"), why: "usr is missing".into() };
    let story =
        Story { reason: "a test".into(), deployments: (0..count).map(chapter).collect(), notes: Vec::new() };
    let seen = vec!["Guest".into(), "\u{1b}[2J\u{9b}é".into()];
    let mut status = Status { phase: Phase::Waiting, next: Some(90_000), seen, ..Status::default() };
    let (mut now, mut out) = (0, Vec::new());
    let manner = Manner { access: access.clone(), shell, idle: 20_000 };
    let mut session = Session::begin(manner, &View { story: &story, status: &status, now }, &mut out);
    sent(&mut out, &access);
    for (place, byte) in typed.iter().enumerate() {
        now += u64::from(*pace) * 10;
        if place % 7 == 0 {
            status.tell("news \u{1b}[31m\r\n\0");
        }
        let view = View { story: &story, status: &status, now };
        session.tick(&view, &mut out);
        // Silence locked it again.
        opened &= access == Access::Open || !String::from_utf8_lossy(&out).contains("locked again");
        sent(&mut out, &access);
        match session.byte(*byte, &view, &mut out) {
            None => {}
            Some(Effect::Check(secret)) => {
                assert!(!opened && matches!(access, Access::Locked(Some(_))));
                opened = secret.bytes() == PASSWORD;
                session.checked(Ok(opened), &view, &mut out);
            }
            Some(effect) => {
                assert!(opened, "{effect:?} from a locked console");
                caused(&effect, shell, count);
                if matches!(effect, Effect::Ledger | Effect::KernelLog) {
                    session.page(&vec!["\u{1b}c a record".into(); usize::from(*pace)], &view, &mut out);
                }
            }
        }
        sent(&mut out, &access);
    }
}

/// What may be caused, and with what.
fn caused(effect: &Effect, shell: bool, count: usize) {
    match effect {
        Effect::Wish(Wish::Boot(index)) => assert!(*index < count),
        Effect::Wish(Wish::Network { ssid, secret }) => {
            assert!((1..=32).contains(&ssid.len()) && (secret.is_empty() || secret.len() >= 8));
        }
        Effect::Wish(Wish::RecoverNow | Wish::Commit { .. } | Wish::FromUsb | Wish::Repair) => {}
        Effect::Wish(Wish::Retry | Wish::Reboot | Wish::PowerOff) => {}
        Effect::Shell => assert!(shell),
        Effect::Ledger | Effect::KernelLog => {}
        Effect::Check(_) => unreachable!("checked before"),
    }
}

/// Nothing that a terminal could take for a command but the end of a line and a step back.
fn sent(out: &mut Vec<u8>, access: &Access) {
    assert!(out.len() <= SENT_MAX, "{} bytes", out.len());
    assert!(*access != Access::Off || out.is_empty());
    let harmless = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0x08 | b' '..=b'~' | 0x80..);
    assert!(out.iter().all(harmless), "{}", out.escape_ascii());
    out.clear();
}
