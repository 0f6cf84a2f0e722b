//! The few raw system calls; the only folder with `unsafe`.

pub mod beneath;
pub mod medium;
pub mod mount;
pub mod time;
pub mod tree;
pub mod watchdog;
