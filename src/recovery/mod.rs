//! What happens when no deployment boots: say so, stay in control, try again in time.
//!
//! The menu is pure ([`menu`]), the terminal is in [`console`], the story that is told in [`story`].

pub mod menu;

#[cfg(not(target_os = "none"))]
pub mod console;
#[cfg(not(target_os = "none"))]
mod prompt;
#[cfg(not(target_os = "none"))]
pub mod story;

#[cfg(not(target_os = "none"))]
pub use prompt::{Outcome, Settings, run};
