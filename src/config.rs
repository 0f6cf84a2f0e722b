//! `bootward.toml`, the configuration in the initramfs: a documented subset of TOML.
