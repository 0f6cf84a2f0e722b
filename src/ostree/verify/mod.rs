//! Is a deployment what its commit says? Asked by a trusted early stage of a disk that is not trusted.
//!
//! ```text
//!   level     how much is checked
//!   walk      the tree against its dirtree and dirmeta objects
//!   content   checksums of files, on as many threads as there are CPUs
//!   boot      kernel, initramfs and device trees in /boot against the deployment
//!   fault     what can be wrong
//!   measure   how much there is to read
//! ```
//!
//! The chain: the deployment's name is a commit's checksum; the commit, signed where keys are given, names the root
//! dirtree and dirmeta; these name everything else. Each object must hash to the name by which it was asked for, so
//! that nothing on the disk is believed but what the name, or the signature, covers.
//!
//! What it cannot cover is the device's own: `/etc` and `/var` of the deployment, and the order of the boot entries,
//! in which an older signed deployment may come first. Nor does it watch the disk once it has looked.

#[cfg(not(target_os = "none"))]
mod boot;
#[cfg(not(target_os = "none"))]
mod content;
#[cfg(not(target_os = "none"))]
mod fault;
mod level;
#[cfg(not(target_os = "none"))]
mod measure;
#[cfg(not(target_os = "none"))]
mod run;
#[cfg(not(target_os = "none"))]
mod walk;

pub use level::Level;

#[cfg(not(target_os = "none"))]
pub use boot::BootFiles;
#[cfg(not(target_os = "none"))]
pub use fault::{BootFault, EntryFault, Fault, KeysFault};
#[cfg(not(target_os = "none"))]
pub use measure::measure;
#[cfg(not(target_os = "none"))]
pub use run::{Check, Faults, MAX_FAULTS, Progress, Report, keys, verify};
