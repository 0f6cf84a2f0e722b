//! OSTree's objects, their signatures, and the check of a deployment against them.
//!
//! ```text
//!   variant   the four shapes of GVariant that objects are made of, in normal form only
//!   emit      the same shapes, written
//!   object    checksums, and where an object is in a repository
//!   commit    a commit: its metadata, its parent, the root of its tree
//!   tree      dirtree and dirmeta objects, and the header that a file's checksum begins with
//!   content   what a file object of an archive repository begins with
//!   delta     static deltas, and what a repository says it has
//!   sign      trusted keys; only they make a VerifiedCommit
//!   sizes     what the objects of a commit take, where it says so
//!   keyring   keys in files, as libostree lays them out; of the std ring
//!   mark      which of two commits is the older one, and the floor that a device does not go below
//!   version   the order of version strings
//!   admit     may a commit be installed here?
//!   read      objects and keys as files, of the std ring
//!   verify    is a deployment what its commit says?
//! ```
//!
//! The two crates for cryptography are all that it needs: it is of the alloc ring. (The gvariant crate does not build
//! without std, and reads what is not in normal form as something else; it is an oracle of the tests.)
//!
//! Formats: src/libostree/ostree-core.h and ostree-core.c of libostree v2026.4, docs/repo.md.

pub mod admit;
pub mod commit;
#[cfg(feature = "recovery")]
pub mod content;
#[cfg(feature = "recovery")]
pub mod delta;
pub mod emit;
#[cfg(not(target_os = "none"))]
pub mod keyring;
pub mod mark;
pub mod object;
#[cfg(not(target_os = "none"))]
pub mod read;
pub mod sign;
#[cfg(feature = "recovery")]
pub mod sizes;
pub mod tree;
pub mod variant;
pub mod verify;
pub mod version;

pub use commit::Commit;
pub use object::Checksum;
pub use sign::{Keys, VerifiedCommit};
