//! Builds a reproducible initramfs around bootward.

fn main() {}
