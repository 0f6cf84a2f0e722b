//! The mounts that make a deployment the root: planned as a value, then carried out.
