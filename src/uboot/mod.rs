//! The U-Boot environment: image, redundant pair, `fw_env.config`, and the store on a device.
//!
//! Everything here follows what U-Boot's `env/common.c` and libubootenv do, because both read what we write.

pub mod config;
pub mod env;
pub mod pair;
#[cfg(not(target_os = "none"))]
pub mod store;
