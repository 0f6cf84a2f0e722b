//! All targets in one binary; `BOOTWARD_FUZZ_TARGET` names the one to run.
#![no_main]

use std::sync::LazyLock;

use bootward_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("BOOTWARD_FUZZ_TARGET").expect("BOOTWARD_FUZZ_TARGET names a target");
    TARGETS.iter().find(|target| target.0 == name).unwrap_or_else(|| panic!("no target {name}")).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
