//! Gathers everything the decision needs into plain data.
