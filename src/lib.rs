//! bootward guards the boot of OSTree devices.
//!
//! As PID 1 of the initramfs it observes the boot state, decides which deployment to boot, records the
//! attempt, prepares the root as libostree would, and hands over to the real init. The boot reads top to
//! bottom in [`boot`]. In the OS, [`health`] checks it, [`trial`] confirms it or takes it back, and [`arrange`] writes
//! down which deployments boot from then on. Everything they need is in one of three rings:
//!
//! ```text
//!   std     boot ──> observe ──> sysroot  mounts::apply  block::find  uboot::store  ledger::file
//!            │          cli ──> upgrade  trial::act  deploy::act  pull  fetch  health::run  recovery     sys: the kernel
//!            │                    │
//!   alloc    │   mounts::plan  mounts::settings  arrange::plan  arrange::carry  trial::settle  health::plan
//!            │   deploy  composefs  repo  publish  keyfile  modules  storage  ostree::commit  ostree::sign  ostree::delta
//!            │
//!   core   policy  ledger  uboot  cmdline  config  block  sysroot::entry  recovery::menu
//! ```
//!
//! A module that needs the kernel for part of its work has its pure half in an inner ring and the other half
//! in a file of its own beside it (`ledger::ring` and `ledger::file`, `mounts::plan` and `mounts::apply`): what
//! belongs together is found together, and the ring that a file belongs to is written in its folder's `mod.rs`.
//!
//! Dependencies point down only. `policy` knows nothing of U-Boot, OSTree or Linux: it is given facts and
//! returns a decision with its reason. Time, randomness and ids come in as arguments.
//!
//! The inner rings build for a bare-metal target (`make check-rings`), which is how the split is enforced:
//! there the modules of the outer ring do not exist.

#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod arrange;
pub mod block;
pub mod cmdline;
#[cfg(feature = "recovery")]
pub mod composefs;
pub mod config;
#[cfg(feature = "recovery")]
pub mod deploy;
#[cfg(feature = "recovery")]
pub mod fetch;
pub mod health;
pub mod keyfile;
pub mod ledger;
pub mod modules;
pub mod mounts;
#[cfg(feature = "recovery")]
pub mod net;
pub mod ostree;
pub mod policy;
#[cfg(feature = "publish")]
pub mod publish;
#[cfg(all(feature = "recovery", not(target_os = "none")))]
pub mod pull;
pub mod recovery;
#[cfg(feature = "recovery")]
pub mod repo;
pub mod storage;
pub mod sysroot;
pub mod trial;
pub mod uboot;
#[cfg(all(feature = "recovery", not(target_os = "none")))]
pub mod upgrade;

#[cfg(not(target_os = "none"))]
pub mod boot;
#[cfg(not(target_os = "none"))]
pub mod cli;
#[cfg(not(target_os = "none"))]
pub mod logging;
#[cfg(not(target_os = "none"))]
pub mod observe;
#[cfg(not(target_os = "none"))]
pub mod sys;
