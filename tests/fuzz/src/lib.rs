//! What is true of every parser for any bytes. Each target is a function that panics where it is not;
//! libFuzzer calls it with bytes of its own, `tests/replay.rs` with the committed corpus.

mod boot;
mod console;
mod device;
mod fetched;
#[cfg(feature = "gpg")]
mod gpg;
mod net;
mod ostree;
mod text;
mod wifi;

/// A target: takes any bytes, panics on a bug.
pub type Target = fn(&[u8]);

/// All targets by name; `corpus/NAME` holds each one's inputs.
pub const TARGETS: &[(&str, Target)] = &[
    ("admit", ostree::admit),
    ("bls", boot::bls),
    ("cmdline", text::cmdline),
    ("config", text::config),
    ("console", console::console),
    ("delta", fetched::delta),
    ("delta_part", fetched::delta_part),
    ("dhcp", net::dhcp),
    ("env", boot::env),
    ("filez", fetched::filez),
    ("fw_env_config", boot::fw_env_config),
    #[cfg(feature = "gpg")]
    ("gpg", gpg::gpg),
    ("gvariant", device::gvariant),
    ("http", fetched::http),
    ("keyfile", text::keyfile),
    ("ledger_record", device::ledger_record),
    ("networks", wifi::networks),
    ("ostree", ostree::ostree),
    ("partition", device::partition),
    ("ra", net::ra),
    ("sntp", net::sntp),
    ("summary", fetched::summary),
    ("superblock", device::superblock),
    ("wpa", wifi::wpa),
];
