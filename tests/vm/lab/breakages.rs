//! Ways to break a device, each of which must end in a booted deployment and a ledger that says why.

use super::fixture::Env;
use super::scenes::{Expected, GOOD, Scene};

/// Replaces the init: the file itself is one hard link with the repository and the other deployment.
macro_rules! new_init {
    ($content:literal) => {
        concat!("i=$new/usr/sbin/init; rm $i; ", $content, " > $i; chmod 755 $i")
    };
}

/// Whichever boots: with every link gone only the age of the directories orders the deployments, and an image
/// made at once has none.
const ANY: u32 = 0;

const fn broken(
    name: &'static str,
    damage: &'static str,
    boots: u32,
    reason: &'static [&'static str],
) -> Scene {
    Scene { name, title: name, env: GOOD, damage, config: "", expected: Expected::Boots(boots, reason) }
}

/// Ways to break the newest deployment, or what leads to it. Version 1 boots where version 2 is broken;
/// version 2 where only the way to it is, since it is whole.
pub const DEPLOYMENTS: [Scene; 17] = [
    broken("missing-directory", "rm -rf $new", 1, &["directory is missing"]),
    broken("no-usr", "rm -rf $new/usr", 1, &["no usr"]),
    broken("no-etc", "rm -rf $new/etc $new/usr/etc", 1, &["neither etc nor usr/etc"]),
    broken("no-init", "rm $new/usr/sbin/init", 1, &["no init: /sbin/init"]),
    broken("init-not-executable", concat!(new_init!("echo '#!/bin/sh'"), "; chmod 644 $i"), 1, &["not executable"]),
    broken("init-foreign", new_init!("cat /bin/true"), 1, &["made for another machine"]),
    broken("init-cut-short", new_init!("head -c 5000 $new/usr/bin/busybox"), 1, &["neither a whole program"]),
    broken(
        "init-zeroed",
        new_init!("head -c 64 $new/usr/bin/busybox | dd conv=sync bs=4k status=none"),
        1,
        &["neither a whole program"],
    ),
    // An object file: whole, and the kernel refuses it.
    broken(
        "init-refused-by-kernel",
        concat!(new_init!("cat $new/usr/bin/busybox"), "; printf '\\001' | dd of=$i bs=1 seek=16 conv=notrunc status=none"),
        1,
        &["the kernel refuses to execute init"],
    ),
    broken("no-interpreter", new_init!("echo '#!/no/such/shell'"), 1, &["needs /no/such/shell"]),
    broken(
        "partial-commit",
        "c=${new##*/}; mkdir -p ostree/repo/state; touch ostree/repo/state/${c%.*}.commitpartial",
        1,
        &["not wholly fetched"],
    ),
    broken(
        "dangling-boot-link",
        "for l in ostree/boot.?.?/lab/*/0; do [ $l/. -ef $new/. ] && ln -sfn ../nowhere $l; done; true",
        1,
        &["leads nowhere"],
    ),
    broken("boot-links-missing", "rm ostree/boot.?", 2, &["are missing or lead nowhere"]),
    broken("all-boot-links-gone", "rm -r ostree/boot.*", ANY, &["leads nowhere"]),
    broken(
        "unreadable-entry",
        "e=$(grep -l '^version 2' boot/loader/entries/*); rm $e; mkdir $e",
        2,
        &["cannot be read"],
    ),
    broken("loader-gone", "rm boot/loader", 2, &["was read instead"]),
    broken(
        "out-of-step",
        "l=$(readlink ostree/boot.0 || readlink ostree/boot.1); mv ostree/boot.? ostree/boot.9; rm ostree/boot.9;
         case $l in boot.0.*) to=1;; *) to=0;; esac; mv ostree/$l ostree/boot.$to.1; ln -s boot.$to.1 ostree/boot.$to",
        2,
        &["leads nowhere"],
    ),
];

const fn environment(name: &'static str, env: Env, boots: u32, reason: &'static [&'static str]) -> Scene {
    Scene { name, title: name, env, damage: "", config: "", expected: Expected::Boots(boots, reason) }
}

/// States of the U-Boot environment.
pub const ENVIRONMENTS: [Scene; 6] = [
    environment("env-absent", Env::None, 2, &["cannot be read"]),
    environment(
        "env-one-copy-corrupt",
        Env::FirstCorrupt("rollback=1"),
        1,
        &["first copy of the environment is corrupt", "rollback=1"],
    ),
    environment(
        "env-both-corrupt",
        Env::BothCorrupt("rollback=1"),
        2,
        &["both copies of the environment are corrupt"],
    ),
    environment("env-wrong-size", Env::Short, 2, &["check fw_env.config"]),
    environment("env-garbage", Env::Garbage, 2, &["both copies of the environment are corrupt"]),
    environment("env-nonsense-values", Env::Pair("rollback=maybe bootcount=-1 bootlimit=lots"), 2, &[]),
];
