//! The U-Boot environment: image, redundant pair, `fw_env.config`, and the store on a device.
//!
//! Everything here follows what U-Boot's `env/common.c` and libubootenv do, because both read what we write.
//!
//! Rings: `config`, `env` and `pair` are core; `seat` and `flash` alloc; `device` and `store` std.

pub mod config;
#[cfg(not(target_os = "none"))]
pub mod device;
pub mod env;
pub mod flash;
pub mod pair;
pub mod seat;
#[cfg(not(target_os = "none"))]
pub mod store;
