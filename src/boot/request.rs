//! What was asked for once is taken away before anything is done about it.

use std::path::Path;

use crate::ledger::diary::while_writable;
use crate::recovery::ask::take_back;
use crate::recovery::request::PATH;
use crate::uboot::env::Edit;
use crate::uboot::store::{RECOVERY, Store};

use super::{Boot, SYSROOT, act};

/// Takes the request away, wherever it is.
///
/// # Errors
/// When it stays, with the reason. It would come again at every boot.
pub fn consume(boot: &Boot) -> Result<(), String> {
    let config = Path::new(boot.config.env.as_str());
    let loaded = config.exists().then(|| Store::open_to_read(config).and_then(|mut store| store.load()));
    let set = matches!(&loaded, Some(Ok(loaded)) if loaded.get(RECOVERY).is_some());
    if set {
        act::change_environment(boot, &Edit { name: RECOVERY, value: None })
            .map_err(|e| format!("bootward_recovery stays set in the environment: {e}"))?;
    }
    let root = Path::new(SYSROOT);
    if root.join(PATH).symlink_metadata().is_ok() {
        // A root that is mounted read-only is made writable for it.
        take_back(root)
            .or_else(|_| while_writable(root, || take_back(root)))
            .map_err(|e| format!("the request stays on the root: {e}"))?;
    }
    Ok(())
}
