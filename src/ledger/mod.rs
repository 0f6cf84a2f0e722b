//! The boot ledger: a ring of fixed-size, CRC-checked records on the physical root.
//!
//! One record for each attempt and its outcome. It counts attempts where the bootloader does not, remembers
//! what was asked of the bootloader, and explains the past (`bootward log`). The format is in [`record`],
//! the ring in [`mod@ring`], the file in [`mod@file`];
//! `running` writes it from the running OS.

#[cfg(not(target_os = "none"))]
pub mod diary;
#[cfg(not(target_os = "none"))]
pub mod file;
pub mod history;
pub mod record;
pub mod ring;
#[cfg(not(target_os = "none"))]
pub mod running;

pub use history::{History, Limits};
pub use record::{DeploymentId, Kind, RECORD_SIZE, Record};
pub use ring::Ring;
