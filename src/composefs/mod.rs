//! The image of a composefs root: what a tree is made of, names and owners and attributes, in an erofs filesystem whose
//! files have no content but say where it is.
//!
//! ```text
//!   verity      the fs-verity digest of a file, computed
//!   tree        what the image shows
//!   attributes  extended attributes as erofs has them
//!   image       where everything is in the image, and its bytes
//! ```
//!
//! The bytes are those of libcomposefs (version 0 of its format, which is what libostree asks for): a commit may name the
//! digest of its image, and whoever makes the image has to come to the same one. Everything that the format leaves open
//! is therefore as there: the order of inodes, which attributes are shared, what is padded.
//!
//! Sources: libcomposefs/lcfs-writer-erofs.c, lcfs-writer.c and lcfs-fsverity.c of composefs; fs/erofs/erofs_fs.h of Linux.

pub mod attributes;
pub mod image;
pub mod tree;
pub mod verity;

pub use tree::{Body, Tree, TreeError};
