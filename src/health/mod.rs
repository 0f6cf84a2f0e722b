//! Health checks: is this boot good enough to stay?
//!
//! The layout and the meaning of exit codes are greenboot's, so that its checks work unchanged: every script of
//! `check/required.d` must exit with 0 or the boot is bad, one of `check/wanted.d` may fail, `green.d` runs after
//! a good boot and `red.d` after a bad one. What counts as a script and in which order is in [`plan`], what an
//! ending means in [`verdict`]; both are pure and in the inner rings. `run` starts one script and sees to it that
//! it ends, `check` goes through all of them, `conclude` hands the result on.
//!
//! Facts about greenboot: usr/libexec/greenboot/greenboot of fedora-iot/greenboot (the shell version, 2025-09) and
//! src/lib/greenboot.rs of fedora-iot/greenboot-rs (2026-08).

pub mod plan;
pub mod tail;
pub mod verdict;

#[cfg(not(target_os = "none"))]
pub mod check;
#[cfg(not(target_os = "none"))]
pub mod conclude;
#[cfg(not(target_os = "none"))]
pub mod run;

pub use plan::{Plan, Script, Stage};
pub use verdict::{Ending, Outcome, Verdict};
