//! PID 1: observe, decide, record, act.
mod diary;
mod early;
mod watchdog;
/// Runs the boot. Never returns in the initramfs.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
