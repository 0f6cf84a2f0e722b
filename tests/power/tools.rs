//! Other people's programs, run to their end.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `target/lab/power`, where the recordings are.
pub fn lab() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lab/power")
}

/// Runs a command and returns what it printed.
///
/// # Errors
/// When it does not start or fails, with its own words.
pub fn run(command: &mut Command) -> io::Result<String> {
    let shown = format!("{command:?}");
    let failed = |why: String| io::Error::other(format!("{shown}: {why}"));
    let output = command.stdin(Stdio::null()).output().map_err(|e| failed(e.to_string()))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    Err(failed(format!("{}\n{printed}{}", output.status, String::from_utf8_lossy(&output.stderr))))
}
