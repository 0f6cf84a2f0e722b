//! The device's own repository, `ostree/repo` of a sysroot: objects in and out, refs, and which commits are whole.
//!
//! ```text
//!   config    its mode, and the servers it knows (remotes)
//!   refs      names of commits: which are legal, where they are, how they are written
//!   store     objects: read with their checksums checked, written first to a place aside, then put in place
//! ```
//!
//! All of it is of the alloc ring and works over [`crate::storage::Trees`]. What libostree finds in the repository at any
//! moment is whole: an object gets its name in `objects/` after its content is durable, and a commit some of whose objects
//! are still missing is marked in `state/` before it gets its name.
//!
//! Formats: docs/repo.md and src/libostree/ostree-repo-commit.c of libostree v2026.4.

pub mod config;
pub mod refs;
pub mod store;

pub use config::{Config, Mode};
pub use store::Store;

/// The repository in a sysroot.
pub const REPO: &str = "ostree/repo";
