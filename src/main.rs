//! bootward: PID 1 of the initramfs, or a command in the OS.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A container may make a command PID 1; the kernel starts us with no verb.
    if std::process::id() == 1 && !bootward::cli::is_called() {
        bootward::boot::run()
    } else {
        bootward::cli::run()
    }
}
