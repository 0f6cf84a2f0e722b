//! The interfaces that there are.

use super::Settings;

/// The interfaces to try for a wire, in order: those of the settings, else every Ethernet interface that stands for
/// hardware, by name.
pub fn wired(settings: &Settings) -> Vec<String> {
    settings.interfaces.clone()
}

/// The interfaces with a radio, by name.
pub fn wireless() -> Vec<String> {
    Vec::new()
}
