//! `bootward hash-password`: what locks the recovery console.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::recovery::operator::editor::LINE_MAX;
use crate::recovery::operator::lock::{PasswordHash, SALT};
use crate::recovery::operator::secret::Secret;
use crate::sys::random;

use super::options::{Options, usage};

const HELP: &str = "\
Usage: bootward hash-password

Reads a password, twice from a terminal and without showing it, else the first
line of standard input, and prints its hash for recovery.password in
bootward.toml (Argon2id, 8 MiB, 4 passes). The console of recovery is locked
with it then.

Exit codes: 0 done, 1 failed (reason on standard error), 2 wrong command line.
";

/// A password that is shorter is refused: whoever has the initramfs may try as many as they like.
const SHORTEST: usize = 8;

/// Runs the verb.
pub fn hash_password(arguments: &[String]) -> ExitCode {
    let options = match Options::read(arguments, &[], HELP) {
        Ok(options) => options,
        Err(code) => return code,
    };
    if !options.rest.is_empty() {
        return usage("hash-password takes nothing: the password would be in the shell's history");
    }
    match make() {
        Ok(hash) => {
            println!("{hash}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("bootward: {why}");
            ExitCode::from(super::FAILED)
        }
    }
}

fn make() -> Result<String, String> {
    let password = if std::io::stdin().is_terminal() { twice()? } else { line()? };
    if password.bytes().len() < SHORTEST {
        return Err(format!("a password has at least {SHORTEST} bytes"));
    }
    // What cannot be typed at the console would lock it for good.
    let typed = std::str::from_utf8(password.bytes()).is_ok_and(|text| !text.chars().any(char::is_control));
    if !typed {
        return Err("a password is UTF-8 text without control characters".into());
    }
    let random = random::bytes().map_err(|e| format!("no randomness: {}", e.desc()))?;
    let salt: [u8; SALT] = std::array::from_fn(|place| random.get(place).copied().unwrap_or(0));
    PasswordHash::of(&password, salt).map(|hash| hash.text()).map_err(|e| e.to_string())
}

/// One line of standard input, without its end.
fn line() -> Result<Secret, String> {
    let mut secret = Secret::with_room(LINE_MAX);
    let mut input = std::io::stdin().lock();
    loop {
        let available = input.fill_buf().map_err(|e| format!("standard input: {e}"))?;
        let Some(&byte) = available.first() else { return Ok(secret) };
        input.consume(1);
        match byte {
            b'\n' => return Ok(secret),
            b'\r' => {}
            byte if secret.push(byte) => {}
            _ => return Err(format!("a password has at most {LINE_MAX} bytes")),
        }
    }
}

fn twice() -> Result<Secret, String> {
    let first = asked("password: ")?;
    let again = asked("once more: ")?;
    if first == again { Ok(first) } else { Err("these are two different passwords".into()) }
}

fn asked(question: &str) -> Result<Secret, String> {
    let mut errors = std::io::stderr();
    let _ = errors.write_all(question.as_bytes());
    let terminal = std::io::stdin();
    let before = tcgetattr(&terminal).map_err(|e| format!("the terminal: {}", e.desc()))?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent).map_err(|e| format!("the terminal: {}", e.desc()))?;
    let secret = line();
    let _ = tcsetattr(&terminal, SetArg::TCSANOW, &before);
    let _ = errors.write_all(b"\n");
    secret
}
