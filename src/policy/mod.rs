//! The decision: facts in, a decision with its reason out. Pure, total, no heap.

mod decide;
mod facts;

pub use decide::{Action, Decision, Rule, TABLE, Trouble, Via, decide};
pub use facts::{Attempts, BootState, Candidate, Facts, Kernel, MAX_DEPLOYMENTS, Reading, Request};
