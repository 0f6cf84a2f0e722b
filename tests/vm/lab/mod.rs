//! The VM laboratory: real kernels in QEMU, sysroots made by the real `ostree`, and a serial console that is
//! driven as a person would drive it. The tests and the demo share it.
//!
//! ```text
//!   scenes ──> fixture   a sysroot, broken as the scene asks, as disk images
//!          ──> guardian  our binary in its initramfs
//!          ──> vm        QEMU, expect and type
//! ```
//!
//! Everything is made below `target/lab`, without mounts and loop devices. `tests/vm/setup` brings the kernels.

pub mod board;
pub mod breakages;
pub mod console;
pub mod cuts;
pub mod debian;
pub mod fault;
pub mod fixture;
pub mod flash;
pub mod guardian;
pub mod hardware;
pub mod kexec;
pub mod keys;
pub mod nginx;
pub mod recovery;
pub mod recovery_cuts;
pub mod scenes;
pub mod state_cuts;
pub mod tap;
pub mod tools;
pub mod trials;
pub mod troubles;
pub mod trust;
pub mod verity;
pub mod vm;
pub mod web;
pub mod wifi;
pub mod wireless;

pub use fault::{Fault, Outcome};
