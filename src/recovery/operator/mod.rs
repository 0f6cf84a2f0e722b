//! The person at the serial console: what they see, what they type, what they may ask for.
//!
//! ```text
//!   editor    a typed line: bytes in, echo and events out        secret    what must not be left in memory
//!   menu      the numbered actions                               lock      the password's hash and the delays
//!   screen    what is shown, from story and status               session   the dialogue, a state machine
//!   terminal  the line itself (this and what follows is of the std ring)
//!   desk      the dialogue on the line: whoever serves the console calls it
//! ```

#[cfg(not(target_os = "none"))]
pub mod desk;
pub mod editor;
pub mod lock;
pub mod menu;
pub mod screen;
pub mod secret;
pub mod session;
#[cfg(not(target_os = "none"))]
pub mod terminal;
