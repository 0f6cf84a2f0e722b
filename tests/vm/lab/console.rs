//! The recovery console and the fire drill, on a serial line: what a person types, and what comes of it.

use super::recovery::{DESTROYED, Device, ethernet, looks_around, published};
use super::scenes::{ANSWER, BOOT};
use super::tools::prepared;
use super::vm::Vm;
use super::web::{Manner, Web};
use super::{Fault, Outcome};

/// `hunter2!` by the argon2 of Debian, with little memory: this machine is slow.
const PASSWORD: &str =
    "$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$WwwKh46VN5ELVNcQZDyIZlDF5oj7nSkyyNALlI80uj0";
/// After so long the right password is typed again.
const BETWEEN_TRIES: std::time::Duration = std::time::Duration::from_secs(10);
/// Recovery has so many seconds.
const RECOVERS: u64 = 120;

/// The server is busy, so that recovery waits; somebody goes through the menu, and in the end it recovers.
///
/// # Errors
/// When anything else happens.
pub fn every_action() -> Outcome<String> {
    let published = published("console-actions-published")?;
    let web = Web::start(&published.repo)?;
    let device = Device {
        name: "console-actions",
        published: &published,
        damage: DESTROYED,
        modules: &["virtio_net"],
        config: format!("urls = [\"{}\"]\nshell = \"/bin/sh\"\n", web.url()),
        extra: ethernet(),
    };
    web.set(Manner::Busy(3600));
    let shell = format!("{}:/bin/sh:755", prepared("busybox-arm64")?.display());
    let mut vm = device.setup_with(&[shell])?.start()?;
    vm.expect("== bootward recovery =", BOOT)?;
    vm.expect("bootward: recovery: no deployment is bootable", ANSWER)?;
    vm.expect("11 shell", ANSWER)?;
    vm.expect("eth0: ", RECOVERS)?;
    vm.expect("the next round begins in ", RECOVERS)?;
    // What was tried and why it failed is on the screen, and when the next try is.
    vm.type_line("")?;
    vm.expect("Failed       ", ANSWER)?;
    vm.expect("eth0: ", ANSWER)?;
    vm.expect("another try in ", ANSWER)?;
    vm.expect("bootward> ", ANSWER)?;
    let steps: [(&str, &str); 13] = [
        ("1", "boot which one, 0 to 1: "),
        ("", "bootward> "),
        ("7", "UTC recovery: no deployment is bootable"),
        ("8", "-- Enter for more, q to stop -- "),
        ("q", "bootward> "),
        ("5", "the next round begins in "),
        ("6", "the next round begins in "),
        ("3", "no network was seen so far"),
        ("Plant 7", "passphrase, not shown"),
        ("correct horse", "the next round begins in "),
        ("4", "commit: "),
        ("12", "a commit is 64 digits"),
        ("", "bootward> "),
    ];
    for (typed, answer) in steps {
        vm.type_line(typed)?;
        vm.expect(answer, RECOVERS)?;
    }
    if vm.transcript().contains("correct horse") {
        return Err(vm.failure("the passphrase is on the screen"));
    }
    vm.type_line("11")?;
    vm.expect("'exit' ends it", ANSWER)?;
    vm.type_line("echo shell-$((1+1)); exit")?;
    vm.expect("shell-2", ANSWER)?;
    vm.expect("== bootward recovery =", ANSWER)?;
    web.set(Manner::Good);
    vm.type_line("2")?;
    vm.expect("[os] up: 3", RECOVERS)?;
    looks_around(&mut vm, &["eth0: fetched "])?;
    Ok("somebody went through the menu, and 'recover now' recovered".into())
}

/// Junk, long lines and wrong passwords leave it locked; the right one opens it.
///
/// # Errors
/// When anything else happens.
pub fn locked() -> Outcome<String> {
    let published = published("console-locked-published")?;
    let device = Device {
        name: "console-locked",
        published: &published,
        damage: DESTROYED,
        modules: &[],
        config: format!("password = \"{PASSWORD}\"\nshell = \"/bin/sh\"\n"),
        extra: Vec::new(),
    };
    let mut vm = device.setup()?.start()?;
    vm.expect("locked, password: ", BOOT)?;
    for junk in ["11", "reboot", "\u{1b}[A\u{1b}OP\u{3}\u{4}\u{1a}\u{1c}", &"A".repeat(4_000), "hunter2"] {
        vm.type_line(junk)?;
    }
    vm.expect("wrong password", RECOVERS)?;
    vm.expect("locked for ", ANSWER)?;
    if vm.transcript().contains("11 shell") || vm.transcript().contains("hunter2!") {
        return Err(vm.failure("the menu or the password is on the screen"));
    }
    // The delay is over some time; whatever was typed meanwhile is forgotten, the right password too.
    let mut opened = Err(Fault::new("nothing was typed".to_string()));
    for _ in 0..6 {
        std::thread::sleep(BETWEEN_TRIES);
        vm.type_line("hunter2!")?;
        opened = vm.expect("10 power off", ANSWER);
        if opened.is_ok() {
            break;
        }
    }
    opened?;
    vm.type_line("9")?;
    vm.expect("type yes to restart", ANSWER)?;
    vm.type_line("no")?;
    vm.expect("bootward> ", ANSWER)?;
    vm.type_line("9")?;
    vm.expect("type yes to restart", ANSWER)?;
    vm.type_line("yes")?;
    vm.expect_end(ANSWER)?;
    Ok("locked under junk and 4,000 letters; the password opened it, and it restarted when asked".into())
}

/// A drill from the healthy OS, one that passes and one that fails, and the OS afterwards as before.
///
/// # Errors
/// When anything else happens.
pub fn drill() -> Outcome<String> {
    let published = published("console-drill-published")?;
    let web = Web::start(&published.repo)?;
    let device = Device {
        name: "console-drill",
        published: &published,
        damage: "",
        modules: &["virtio_net"],
        config: format!("urls = [\"{}\"]\ndrill = 120\n", web.url()),
        extra: ethernet(),
    };
    let setup = device.setup()?;
    let mut vm = setup.start()?;
    up(&mut vm)?;
    ask(&mut vm)?;
    // A machine that has ended makes room for the next one.
    drop(vm);
    let mut vm = setup.start()?;
    vm.expect("a fire drill of recovery was asked for", BOOT)?;
    vm.expect("fire drill passed: eth0", RECOVERS)?;
    up(&mut vm)?;
    let first = status(&mut vm, 0, "passed: eth0")?;
    if !first.contains(published.commit.get(..10).unwrap_or("?")) {
        return Err(vm.failure("the drill does not say which commit it found"));
    }
    let fetched = web.take();
    if fetched.bytes > 100_000 {
        return Err(vm.failure(&format!("a drill fetched {} bytes", fetched.bytes)));
    }
    web.set(Manner::Portal);
    ask(&mut vm)?;
    // A machine that has ended makes room for the next one.
    drop(vm);
    let mut vm = setup.start()?;
    vm.expect("fire drill failed: eth0", RECOVERS)?;
    up(&mut vm)?;
    status(&mut vm, 3, "failed: eth0")?;
    // The boot after it is an ordinary one, and no deployment was blamed.
    vm.type_line("reboot -f")?;
    vm.expect_end(ANSWER)?;
    drop(vm);
    let mut vm = setup.start()?;
    up(&mut vm)?;
    if vm.transcript().contains("fire drill of recovery was asked for") {
        return Err(vm.failure("the drill came again"));
    }
    vm.type_line("poweroff -f")?;
    vm.expect_end(ANSWER)?;
    Ok(format!("a drill passed with {} bytes, one failed, and the OS booted after both", fetched.bytes))
}

fn up(vm: &mut Vm) -> Outcome<()> {
    vm.expect("[os] up: 2", RECOVERS)?;
    vm.expect("lab# ", ANSWER).map(|_| ())
}

fn ask(vm: &mut Vm) -> Outcome<()> {
    vm.type_line("bootward recover --drill")?;
    vm.expect("the next boot begins with a fire drill", ANSWER)?;
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("sync; reboot -f")?;
    vm.expect_end(ANSWER)
}

fn status(vm: &mut Vm, code: u32, result: &str) -> Outcome<String> {
    vm.type_line("bootward recover --status; echo code-$?-$((1+1))")?;
    let said = vm.expect(&format!("code-{code}-2"), ANSWER)?;
    let whole = said.contains(result) && said.contains("nothing is asked for");
    vm.expect("lab# ", ANSWER)?;
    if whole { Ok(said) } else { Err(Fault::new(format!("recover --status says: {said}"))) }
}
