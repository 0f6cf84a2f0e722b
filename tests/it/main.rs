//! Integration tests: the real binary and library against the real tools.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod admit;
mod arrange;
mod block;
mod bootc;
mod chaos;
mod cli;
mod clocks;
mod closure;
mod composefs;
mod console;
mod degenerate;
mod delta;
mod deploy;
mod docs;
mod env;
mod exec;
mod fetch;
#[path = "../common/sysroot.rs"]
mod fixture;
mod full;
mod health;
mod hostile;
mod initramfs;
mod mirrors;
mod net;
mod nginx;
#[path = "../common/pair.rs"]
mod pair;
mod prepare;
mod publish;
mod pull;
mod recover;
mod repair;
mod server;
mod service;
#[path = "../common/shelf.rs"]
mod shelf;
mod sign;
mod sysroot;
mod transports;
mod trial;
mod upgrade;
mod verify;
mod verify_cli;
mod verify_trees;
mod ways;
mod wifi;
mod yocto;
