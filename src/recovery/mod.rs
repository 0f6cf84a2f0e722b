//! What happens when no deployment boots: say so, stay in control, try again in time.
//!
//! The words of the menu are pure ([`menu`]), the guardian's own terminal is in `console`, the story that is told in
//! [`story`].
//!
//! With the feature `recovery` a worker brings a deployment meanwhile, as [`settings`] say; [`shared`] is all that it
//! has in common with the console: the [`status`] one way, a wish the other. The console is in [`operator`] then.

#[cfg(feature = "recovery")]
pub mod budget;
#[cfg(feature = "recovery")]
pub mod flow;
pub mod menu;
#[cfg(feature = "recovery")]
pub mod operator;
#[cfg(feature = "recovery")]
pub mod request;
#[cfg(feature = "recovery")]
pub mod settings;
#[cfg(feature = "recovery")]
pub mod status;

#[cfg(all(feature = "recovery", not(target_os = "none")))]
pub mod ask;
#[cfg(all(not(feature = "recovery"), not(target_os = "none")))]
pub mod console;
#[cfg(all(feature = "recovery", not(target_os = "none")))]
pub mod drill;
#[cfg(all(feature = "recovery", not(target_os = "none")))]
mod fetch;
#[cfg(all(feature = "recovery", not(target_os = "none")))]
mod identity;
#[cfg(all(feature = "recovery", not(target_os = "none")))]
mod medium;
#[cfg(all(feature = "recovery", not(target_os = "none")))]
pub mod mend;
#[cfg(not(target_os = "none"))]
mod prompt;
#[cfg(all(feature = "recovery", not(target_os = "none")))]
mod repair;
#[cfg(all(feature = "recovery", not(target_os = "none")))]
mod run;
#[cfg(all(feature = "recovery", not(target_os = "none")))]
pub mod shared;
pub mod story;
#[cfg(all(feature = "recovery", not(target_os = "none")))]
mod wireless;
#[cfg(all(feature = "recovery", not(target_os = "none")))]
mod worker;

#[cfg(all(not(feature = "recovery"), not(target_os = "none")))]
pub use prompt::run;
#[cfg(not(target_os = "none"))]
pub use prompt::{Outcome, Settings};
#[cfg(all(feature = "recovery", not(target_os = "none")))]
pub use {run::drill as run_drill, run::run, worker::Task};
