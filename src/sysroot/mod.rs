//! What is on the physical root: deployments in boot order, each with a verdict.
//!
//! Where libostree refuses a sysroot as a whole (a missing boot link, a loader directory out of step), this
//! reads what is there: the directories below `ostree/deploy` are the truth, entries and links only say in
//! which order they are wanted.

pub mod entry;
pub mod machine;

#[cfg(not(target_os = "none"))]
mod deployment;
#[cfg(not(target_os = "none"))]
pub mod init;
#[cfg(not(target_os = "none"))]
pub(crate) mod read;
#[cfg(not(target_os = "none"))]
pub(crate) mod target;

pub use machine::Machine;

#[cfg(not(target_os = "none"))]
pub use deployment::{Deployment, Fault, Finding, Note};
#[cfg(not(target_os = "none"))]
pub use read::{Error, Look, Sysroot};
#[cfg(not(target_os = "none"))]
pub use target::Named;
