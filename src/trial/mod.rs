//! After the hand-over, in the OS: a deployment on trial is confirmed or rejected, and others are put away.
//!
//! ```text
//!   settle    what a verb does, from plain facts (pure)
//!   rejected  commits that failed here and are not to be installed again (format)
//!   floor     the newest that was ever confirmed, below which nothing is installed (format; its reading is of the std ring)
//!   intent    what rollback and undeploy are about to do, so that they can be run again (format)
//!   facts     gathers what there is (this and what follows is of the std ring)
//!   prepare   what is going to be done, as a value
//!   act       does it, in an order that a power cut cannot spoil
//! ```
//!
//! The order is: the verdicts (rejected commits, floor, ledger), then the deployments, then the bootloader's variables in one
//! write. Before the last one a cut leaves `rollback=1` with a configuration whose first entry is already the good one:
//! a bootloader without a second entry takes the first; one with a second entry boots that one, an older good
//! deployment, for which the ledger says that nobody before it failed, and whose confirmation clears the variable.
//! `tests/sim/trial.rs` cuts it everywhere and boots on.
//!
//! Objects that only a removed deployment needed go last, as `ostree admin undeploy` has it. What tells that this is still
//! to be done is the directory that deployments are discarded to: it goes after them. That is the work of the feature
//! `recovery`; a build without it leaves the objects to the next `ostree admin cleanup` or deployment.

#[cfg(not(target_os = "none"))]
pub mod act;
#[cfg(not(target_os = "none"))]
pub(crate) mod facts;
pub mod floor;
pub mod intent;
#[cfg(not(target_os = "none"))]
mod prepare;
pub mod rejected;
pub mod settle;
