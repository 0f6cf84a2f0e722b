//! Fetching a commit.
pub mod incoming;
pub mod walk;
