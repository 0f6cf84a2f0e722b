//! The mounts that make a deployment the root: planned as a value, then carried out.
//!
//! ```text
//!   settings  prepare-root.conf, repository config, command line: what was asked for
//!   plan      settings and facts in, an ordered list of steps out; printed by --dry-run
//!   signed    a signed commit tells which composefs image is the right one
//!   composefs  mounts an image and the overlay on it
//!   apply     carries the steps out; takes them back when one fails, or when asked to
//!   booted    /run/ostree-booted, by which libostree knows which deployment runs
//!   switch_root  the new root becomes `/` and its init runs
//! ```
//!
//! The order and the result are those of ostree-prepare-root at v2026.4 (src/switchroot/ostree-prepare-root.c,
//! src/libotcore/otcore-prepare-root.c). What differs on purpose is listed in initramfs/prepare-root.md: among
//! it, that an existing `/run/ostree` is fine, that a failure is undone, so that another deployment can be tried,
//! and that no kernel argument weakens a verification.

pub mod booted;
pub mod plan;
pub mod settings;

#[cfg(not(target_os = "none"))]
pub mod apply;
#[cfg(not(target_os = "none"))]
pub mod composefs;
#[cfg(not(target_os = "none"))]
pub mod signed;
#[cfg(not(target_os = "none"))]
pub mod survey;
#[cfg(not(target_os = "none"))]
pub mod switch_root;
