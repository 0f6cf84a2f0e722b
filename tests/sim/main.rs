//! Power-cut simulations: the real code on a disk that loses power everywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod arrange;
mod budget;
mod deploy;
mod disk;
mod env;
#[path = "../common/sysroot.rs"]
mod fixture;
mod flash;
mod ledger;
mod mutants;
#[path = "../common/pair.rs"]
mod pair;
mod policy_device;
mod policy_table;
mod publish;
mod pull;
mod recover;
mod repair;
#[path = "../common/shelf.rs"]
mod shelf;
mod tree;
mod trial;
mod wifi;
