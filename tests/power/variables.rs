//! The bootloader's variables on the disk: two copies, of which one counts.

use std::fs;
use std::path::{Path, PathBuf};

use bootward::uboot::store::Store;

/// The two copies.
pub const COPIES: [&str; 2] = ["env.a", "env.b"];
/// What an operation begins with, and what it may leave; it changes both or neither.
const OLD: [(&str, &str); 2] = [("rollback", "1"), ("bootcount", "4")];
const NEW: [(&str, &str); 2] = [("rollback", "0"), ("bootcount", "0")];

/// Writes the `fw_env.config` of the copies in `directory`, beside the mount point `at`, and returns its path.
pub fn config(at: &Path, directory: &Path) -> PathBuf {
    let config = at.with_extension("fw_env.config");
    let copy = |name: &str| format!("{} 0 0x1000\n", directory.join(name).display());
    fs::write(&config, COPIES.map(copy).concat()).expect("there is room beside the disk");
    config
}

/// Whether the variables are the new ones and not the old ones.
///
/// # Errors
/// When they are neither, or cannot be read.
pub fn cleared(at: &Path, directory: &Path) -> Result<bool, String> {
    let loaded = Store::open_to_read(&config(at, directory)).and_then(|mut s| s.load());
    let loaded = loaded.map_err(|e| format!("the variables: {e}"))?;
    let are =
        |all: [(&str, &str); 2]| all.iter().all(|(n, v)| loaded.get(n.as_bytes()) == Some(v.as_bytes()));
    match (are(OLD), are(NEW)) {
        (true, false) => Ok(false),
        (false, true) => Ok(true),
        _ => Err(format!("the variables are neither the old nor the new ones: {}", loaded.condition)),
    }
}

/// What is wrong with the variables on a mounted disk, if there are any.
pub fn fault(at: &Path) -> Option<String> {
    let directory =
        [at.into(), at.join("boot")].into_iter().find(|d: &PathBuf| d.join(COPIES[0]).exists())?;
    cleared(at, &directory).err()
}
