//! Power-cut simulations: the real code on a disk that loses power everywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod arrange;
mod disk;
mod env;
#[path = "../common/sysroot.rs"]
mod fixture;
mod ledger;
mod policy_device;
mod policy_table;
mod tree;
mod trial;
