//! Which deployments there are and in what order they boot: writing it down, in libostree's files and in its order.
//!
//! ```text
//!   layout    what is there: boot entries, links, kernels (facts, no opinion)
//!   text      boot entries and uEnv.txt, byte for byte as libostree writes them
//!   plan      the steps to another list of deployments, as a value that can be printed
//!   carry     carrying a plan out, over any storage::Files
//!   survey    reading the layout from a disk, of the std ring
//!   kernels   its part that looks at kernels
//! ```
//!
//! The new configuration is made beside the old one, synced, read back, and then swapped in by one rename; the
//! bootloader, which replays no journal, is given both sides of the swap in their final place by a freeze of its
//! filesystem. Whatever the bootloader may still see of the old configuration stays where it is, links and kernels
//! included, until a later boot has been confirmed: then [`plan::tidy`] removes it.
//!
//! libostree v2026.4 does the same in ostree-sysroot-deploy.c (`write_deployments_bootswap`) and
//! ostree-sysroot-cleanup.c, but removes the old links at once; version 2022.7 lacks the freeze after the swap, and
//! dies of the two together (tests/power). The first four are of the alloc ring.

pub mod carry;
#[cfg(not(target_os = "none"))]
mod kernels;
pub mod layout;
pub mod plan;
#[cfg(not(target_os = "none"))]
pub mod survey;
pub mod text;

pub use layout::Layout;
pub use plan::{Plan, Step};
