//! Runs a program whose syncs and freezes do nothing, to see whether the laboratory notices.
//!
//! A seccomp filter has the kernel answer 0 to fsync, fdatasync, sync, syncfs, sync_file_range and to the ioctls
//! FIFREEZE and FITHAW without doing anything, for the program and its children, static or not.
#![allow(unsafe_code, reason = "prctl with a filter program")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::libc;

const FIFREEZE: u32 = 0xc004_5877;
const FITHAW: u32 = 0xc004_5878;
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
/// SECCOMP_RET_ERRNO with error 0: the call returns 0.
const NOTHING: u32 = 0x0005_0000;
/// Offsets in `struct seccomp_data`: the call's number, and the low half of its second argument.
const NUMBER: u32 = 0;
const SECOND: u32 = 24;

/// `PROGRAM ARGUMENT ...`
pub fn run(arguments: &[String]) -> ExitCode {
    let [program, rest @ ..] = arguments else { return ExitCode::FAILURE };
    let error = match install() {
        Ok(()) => Command::new(program).args(rest).exec(),
        Err(e) => e,
    };
    eprintln!("{program}: {error}");
    ExitCode::FAILURE
}

fn install() -> io::Result<()> {
    let syncs =
        [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync, libc::SYS_syncfs, libc::SYS_sync_file_range];
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = vec![step(LOAD_WORD, 0, 0, NUMBER)];
    for number in syncs {
        program.push(step(JUMP_IF_EQUAL, 0, 1, number as u32));
        program.push(step(RETURN, 0, 0, NOTHING));
    }
    program.push(step(JUMP_IF_EQUAL, 0, 4, libc::SYS_ioctl as u32));
    program.push(step(LOAD_WORD, 0, 0, SECOND));
    program.push(step(JUMP_IF_EQUAL, 1, 0, FIFREEZE));
    program.push(step(JUMP_IF_EQUAL, 0, 1, FITHAW));
    program.push(step(RETURN, 0, 0, NOTHING));
    program.push(step(RETURN, 0, 0, ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel reads the filter, which lives until after the call.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const filter) })?;
    Ok(())
}
