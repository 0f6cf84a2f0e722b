//! The configurations that ours and libostree's tools are given, and where the results differ on purpose. Each reason
//! is in initramfs/prepare-root.md too.

use super::Suite::{self, Bookworm, Forky, Trixie};

/// One configuration.
pub struct Case {
    pub name: &'static str,
    /// Shell text; works in the initramfs, `$deployment` is the deployment.
    pub setup: &'static str,
    /// Added to the command line.
    pub cmdline: &'static str,
    /// The oracles that it is compared with: those that know what it is about.
    pub suites: &'static [Suite],
    /// Where the results differ from an oracle's, and why.
    pub differs: &'static [(Suite, Difference)],
}

/// A difference that is meant. Each must show, and nothing else may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Difference {
    /// Ours succeeds where the oracle fails.
    OracleRefuses(&'static str),
    /// Ours refuses where the oracle goes on.
    WeRefuse(&'static str),
    /// Where ours has the first text, the oracle has the second one.
    Text(&'static str, &'static str, &'static str),
}
use Difference::{OracleRefuses, Text, WeRefuse};

const ALL: &[Suite] = &[Bookworm, Trixie, Forky];
/// `prepare-root.conf` is unknown to 2022.7.
const CONFIGURED: &[Suite] = &[Trixie, Forky];
/// Debian's 2025.2 is built without composefs.
const COMPOSEFS: &[Suite] = &[Forky];

const fn case(name: &'static str, suites: &'static [Suite], setup: &'static str) -> Case {
    Case { name, setup, cmdline: "", suites, differs: &[] }
}

const fn with(cmdline: &'static str, case: Case) -> Case {
    Case { cmdline, ..case }
}

const fn but(differs: &'static [(Suite, Difference)], case: Case) -> Case {
    Case { differs, ..case }
}

/// v2025.3 and later, which ours follows, so that a soft reboot gets a directory of its own.
const TRANSIENT_ETC: &[(Suite, Difference)] = &[
    (Trixie, Text("transient-etc.XXXXXX", "transient-etc", "named at random since v2025.3")),
    (Trixie, Text("lowerdir=/sysroot.tmp/usr/etc", "lowerdir=usr/etc", "an absolute path since v2025.3")),
];
const HOTFIX: &[(Suite, Difference)] =
    &[(Bookworm, Text("lowerdir=/sysroot.tmp/usr", "lowerdir=usr", "an absolute path since v2023.4"))];
const WEAKENED: &[(Suite, Difference)] = &[
    (Trixie, WeRefuse("an argument must not weaken a verification")),
    (Forky, WeRefuse("an argument must not weaken a verification")),
];

macro_rules! config {
    ($lines:literal) => {
        config!($lines, "")
    };
    ($lines:literal, $more:expr) => {
        concat!("printf '", $lines, "\\n' >usr/lib/ostree/prepare-root.conf\n", $more)
    };
}

const UNLOCK: &str = "mkdir $deployment/.usr-ovl-upper $deployment/.usr-ovl-work";

pub const CASES: &[Case] = &[
    case("default", ALL, ""),
    case("readonly-usr-lib", CONFIGURED, config!("[sysroot]\\nreadonly=true")),
    case("readonly-etc", CONFIGURED, "printf '[sysroot]\\nreadonly=1\\n' >etc/ostree/prepare-root.conf"),
    case(
        "etc-replaces-usr-lib",
        CONFIGURED,
        config!(
            "[sysroot]\\nreadonly=true",
            "printf '[etc]\\ntransient=false\\n' >etc/ostree/prepare-root.conf"
        ),
    ),
    case("readonly-legacy", ALL, "printf '[sysroot]\\nreadonly=true\\n' >>sysroot/ostree/repo/config"),
    case(
        "readonly-false-legacy-true",
        CONFIGURED,
        config!(
            "[sysroot]\\nreadonly=false",
            "printf '[sysroot]\\nreadonly=true\\n' >>sysroot/ostree/repo/config"
        ),
    ),
    case("etc-transient-writable", CONFIGURED, config!("[etc]\\ntransient=true")),
    but(
        TRANSIENT_ETC,
        case(
            "etc-transient-readonly",
            CONFIGURED,
            config!("[etc]\\ntransient=true\\n[sysroot]\\nreadonly=true"),
        ),
    ),
    but(HOTFIX, case("hotfix", ALL, UNLOCK)),
    case(
        "hotfix-readonly",
        CONFIGURED,
        config!("[sysroot]\\nreadonly=true", "mkdir $deployment/.usr-ovl-upper $deployment/.usr-ovl-work"),
    ),
    case("read-only-medium", ALL, "mount -o remount,ro sysroot"),
    case(
        "read-only-medium-hotfix",
        CONFIGURED,
        "mkdir $deployment/.usr-ovl-upper $deployment/.usr-ovl-work; mount -o remount,ro sysroot",
    ),
    case(
        "read-only-mount-readonly",
        CONFIGURED,
        config!("[sysroot]\\nreadonly=true", "mount -o remount,bind,ro sysroot"),
    ),
    case("shared-propagation", ALL, "mount --make-rshared sysroot; mount --make-rshared run"),
    with(
        " androidboot.slot_suffix=_b",
        case(
            "android-slot",
            CONFIGURED,
            "ln -s \"../$(echo $deployment | cut -d/ -f2-)\" sysroot/ostree/root.b",
        ),
    ),
    with(
        " androidboot.mode=normal",
        case(
            "android-one-slot",
            CONFIGURED,
            "ln -s \"../$(echo $deployment | cut -d/ -f2-)\" sysroot/ostree/root.a",
        ),
    ),
    with(" androidboot.slot_suffix=_c", case("android-wrong-slot", CONFIGURED, "")),
    case("wrong-boolean", CONFIGURED, config!("[sysroot]\\nreadonly=maybe")),
    case("wrong-line", CONFIGURED, "echo readonly >etc/ostree/prepare-root.conf"),
    but(
        &[
            (Trixie, OracleRefuses("a second attempt must be possible")),
            (Forky, OracleRefuses("a second attempt must be possible")),
        ],
        case("run-ostree-exists", CONFIGURED, "mkdir run/ostree"),
    ),
    // composefs, as far as a tool without it goes.
    with(
        " ostree.prepare-root.composefs=0",
        case("composefs-off-by-argument", CONFIGURED, config!("[composefs]\\nenabled=yes")),
    ),
    with(
        " ostree.prepare-root.composefs=maybe",
        case(
            "composefs-maybe-by-argument",
            COMPOSEFS,
            config!("[composefs]\\nenabled=yes", "rm $deployment/.ostree.cfs"),
        ),
    ),
    but(
        &[(
            Trixie,
            Text("ostree/.private/cfsroot-lower d 700 0:0 \n", "", "made where composefs is built in"),
        )],
        case(
            "composefs-maybe-no-image",
            CONFIGURED,
            config!("[composefs]\\nenabled=maybe", "rm -f $deployment/.ostree.cfs"),
        ),
    ),
    case(
        "composefs-no-image",
        CONFIGURED,
        config!("[composefs]\\nenabled=yes", "rm -f $deployment/.ostree.cfs"),
    ),
    with(
        " ostree.prepare-root.composefs=0",
        but(
            WEAKENED,
            case(
                "signed-off-by-argument",
                CONFIGURED,
                config!(
                    "[composefs]\\nenabled=signed\\nkeypath=/key",
                    "echo AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= >key"
                ),
            ),
        ),
    ),
    with(
        " ostree.prepare-root.composefs=yes",
        but(
            &[(Forky, WeRefuse("an argument must not weaken a verification"))],
            case(
                "signed-weakened-by-argument",
                COMPOSEFS,
                config!(
                    "[composefs]\\nenabled=signed\\nkeypath=/key",
                    "echo AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= >key"
                ),
            ),
        ),
    ),
    with(
        " ostree.prepare-root.composefs=no",
        but(
            &[(Forky, WeRefuse("an argument must not weaken a verification"))],
            case("verity-off-by-argument", COMPOSEFS, config!("[composefs]\\nenabled=verity")),
        ),
    ),
    // composefs.
    case("composefs", COMPOSEFS, config!("[composefs]\\nenabled=yes")),
    case("composefs-true", COMPOSEFS, config!("[composefs]\\nenabled=true \\t")),
    case("composefs-maybe", COMPOSEFS, config!("[composefs]\\nenabled=maybe")),
    with(" ostree.prepare-root.composefs=1", case("composefs-by-argument", COMPOSEFS, "")),
    with(" ostree.prepare-root.composefs=verity", case("verity-by-argument", COMPOSEFS, "")),
    with(" ostree.prepare-root.composefs=", case("nothing-by-argument", COMPOSEFS, "")),
    case(
        "composefs-writable",
        COMPOSEFS,
        config!(
            "[composefs]\\nenabled=yes\\n[sysroot]\\nreadonly=false",
            "printf '[sysroot]\\nreadonly=true\\n' >>sysroot/ostree/repo/config"
        ),
    ),
    case(
        "composefs-maybe-legacy",
        COMPOSEFS,
        config!(
            "[composefs]\\nenabled=maybe",
            "printf '[sysroot]\\nreadonly=true\\n' >>sysroot/ostree/repo/config"
        ),
    ),
    case("composefs-etc-transient", COMPOSEFS, config!("[composefs]\\nenabled=yes\\n[etc]\\ntransient=true")),
    case(
        "composefs-etc-transient-writable",
        COMPOSEFS,
        config!("[composefs]\\nenabled=yes\\n[etc]\\ntransient=true\\n[sysroot]\\nreadonly=false"),
    ),
    case(
        "composefs-hotfix",
        COMPOSEFS,
        config!("[composefs]\\nenabled=yes", "mkdir $deployment/.usr-ovl-upper $deployment/.usr-ovl-work"),
    ),
    case(
        "composefs-read-only-medium",
        COMPOSEFS,
        config!("[composefs]\\nenabled=yes", "mount -o remount,ro sysroot"),
    ),
    case(
        "composefs-shared-propagation",
        COMPOSEFS,
        config!("[composefs]\\nenabled=yes", "mount --make-rshared sysroot; mount --make-rshared run"),
    ),
    case(
        "composefs-no-objects",
        COMPOSEFS,
        config!("[composefs]\\nenabled=yes", "mv sysroot/ostree/repo/objects sysroot/gone"),
    ),
    case(
        "composefs-empty-image",
        COMPOSEFS,
        config!("[composefs]\\nenabled=yes", ": >$deployment/.ostree.cfs"),
    ),
    case(
        "composefs-zeroed-image",
        COMPOSEFS,
        config!("[composefs]\\nenabled=yes", "head -c 16384 /dev/zero >$deployment/.ostree.cfs"),
    ),
    case(
        "composefs-image-without-superblock",
        COMPOSEFS,
        config!(
            "[composefs]\\nenabled=yes",
            "dd if=/dev/zero of=$deployment/.ostree.cfs bs=1k seek=1 count=1 conv=notrunc status=none"
        ),
    ),
    case(
        "composefs-image-is-a-directory",
        COMPOSEFS,
        config!("[composefs]\\nenabled=maybe", "rm $deployment/.ostree.cfs; mkdir $deployment/.ostree.cfs"),
    ),
    case(
        "composefs-image-is-a-broken-link",
        COMPOSEFS,
        config!(
            "[composefs]\\nenabled=maybe",
            "rm $deployment/.ostree.cfs; ln -s gone $deployment/.ostree.cfs"
        ),
    ),
    case("verity", COMPOSEFS, config!("[composefs]\\nenabled=verity")),
    with(
        " ostree.prepare-root.composefs=yes",
        case("verity-yes-by-argument", COMPOSEFS, config!("[composefs]\\nenabled=verity")),
    ),
    case("signed-no-keys", COMPOSEFS, config!("[composefs]\\nenabled=signed")),
    case("signed-empty-keys", COMPOSEFS, config!("[composefs]\\nenabled=signed\\nkeypath=/key", ": >key")),
    case(
        "signed-no-signature",
        COMPOSEFS,
        config!(
            "[composefs]\\nenabled=signed\\nkeypath=/key",
            "echo AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= >key"
        ),
    ),
    with(" ostree.prepare-root.composefs=signed", case("signed-by-argument-no-keys", COMPOSEFS, "")),
    case("signed-and-a-blank", COMPOSEFS, config!("[composefs]\\nenabled=signed ")),
    case("composefs-wrong-value", COMPOSEFS, config!("[composefs]\\nenabled=always")),
    // A root that takes changes.
    case("root-transient", COMPOSEFS, config!("[composefs]\\nenabled=yes\\n[root]\\ntransient=true")),
    case("root-transient-ro", COMPOSEFS, config!("[composefs]\\nenabled=yes\\n[root]\\ntransient-ro=true")),
    case("root-transient-both", CONFIGURED, config!("[root]\\ntransient=true\\ntransient-ro=true")),
    case(
        "root-transient-writable",
        COMPOSEFS,
        config!("[composefs]\\nenabled=yes\\n[root]\\ntransient=true\\n[sysroot]\\nreadonly=false"),
    ),
    case(
        "root-and-etc-transient",
        COMPOSEFS,
        config!("[composefs]\\nenabled=yes\\n[root]\\ntransient=true\\n[etc]\\ntransient=true"),
    ),
    case(
        "root-transient-hotfix",
        COMPOSEFS,
        config!(
            "[composefs]\\nenabled=yes\\n[root]\\ntransient=true",
            "mkdir $deployment/.usr-ovl-upper $deployment/.usr-ovl-work"
        ),
    ),
    case("root-transient-maybe", COMPOSEFS, config!("[composefs]\\nenabled=maybe\\n[root]\\ntransient=true")),
    case("root-transient-no-composefs", CONFIGURED, config!("[root]\\ntransient=true")),
    case(
        "root-transient-no-image",
        COMPOSEFS,
        config!("[composefs]\\nenabled=maybe\\n[root]\\ntransient=true", "rm $deployment/.ostree.cfs"),
    ),
    // /run/systemd/volatile-root.
    case(
        "volatile-root-by-udev",
        COMPOSEFS,
        config!("[composefs]\\nenabled=yes", "mknod dev/gpt-auto-root b 8 3"),
    ),
    case(
        "volatile-root-not-a-device",
        COMPOSEFS,
        config!("[composefs]\\nenabled=yes", "mknod dev/gpt-auto-root c 8 3"),
    ),
    case(
        "volatile-root-exists",
        COMPOSEFS,
        config!("[composefs]\\nenabled=yes", "mkdir run/systemd; ln -s /dev/other run/systemd/volatile-root"),
    ),
    case("volatile-root-in-the-way", COMPOSEFS, config!("[composefs]\\nenabled=yes", "touch run/systemd")),
];
