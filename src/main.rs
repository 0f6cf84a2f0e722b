//! bootward: PID 1 of the initramfs, or a command in the OS.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 { bootward::boot::run() } else { bootward::cli::run() }
}
