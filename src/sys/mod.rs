//! The few raw system calls; the only folder with `unsafe`.

pub mod beneath;
pub mod medium;
pub mod time;
pub mod watchdog;
