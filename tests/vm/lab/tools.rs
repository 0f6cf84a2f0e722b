//! Other people's programs, run to their end, with their output in the failure.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Fault, Outcome};

/// `target/lab`, where everything of the laboratory lives.
pub fn lab() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lab")
}

/// A file that `tests/vm/setup` should have made.
///
/// # Errors
/// When it is not there: a test that cannot run fails.
pub fn prepared(name: &str) -> Outcome<PathBuf> {
    let path = lab().join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(Fault::new(format!("{} is not there: run tests/vm/setup first", path.display())))
}

/// A directory below `target/lab/run`, made empty.
///
/// # Errors
/// When it cannot be emptied or made.
pub fn empty_dir(name: &str) -> Outcome<PathBuf> {
    let dir = lab().join("run").join(name);
    run(as_root("rm").arg("-rf").arg(&dir))?;
    std::fs::create_dir_all(&dir).map_err(|e| Fault::file("make", &dir, &e))?;
    Ok(dir)
}

/// A command that runs as root: sysroots hold files of root, so that the ones in the image do too.
pub fn as_root(program: impl AsRef<OsStr>) -> Command {
    if nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("-n").arg("--preserve-env=OSTREE_SYSROOT_DEBUG,SYSROOT").arg(program);
    command
}

/// Runs a command and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails, with its own words.
pub fn run(command: &mut Command) -> Outcome<String> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Fault::new(format!("{shown} does not start: {e}; run tests/vm/setup")))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Fault::new(format!("{shown}: {}\n{printed}{complaint}", output.status)))
}

/// Writes a file, with the directories above it.
///
/// # Errors
/// When that fails.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Outcome<()> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above).map_err(|e| Fault::file("make", above, &e))?;
    }
    std::fs::write(path, content).map_err(|e| Fault::file("write", path, &e))
}

/// Reads a text file.
///
/// # Errors
/// When that fails.
pub fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|e| Fault::file("read", path, &e))
}
