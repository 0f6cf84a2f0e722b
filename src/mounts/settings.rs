//! What `prepare-root.conf`, the repository's config and the kernel command line ask for.
//!
//! Keys: ostree-prepare-root(1) at v2026.4. Files: `usr/lib/ostree/prepare-root.conf`, then
//! `etc/ostree/prepare-root.conf` of the initramfs; the second replaces the first as a whole, because GLib
//! empties the key file before it loads another.

use alloc::string::String;
use core::fmt;

use crate::keyfile::{KeyFile, KeyFileError};

/// The two places of the configuration, below the root of the initramfs; the later one wins.
pub const CONFIG_PATHS: [&str; 2] = ["usr/lib/ostree/prepare-root.conf", "etc/ostree/prepare-root.conf"];
/// The repository's configuration, below the sysroot.
pub const REPO_CONFIG: &str = "ostree/repo/config";
/// The kernel argument that overrides `[composefs] enabled`.
pub const COMPOSEFS_ARGUMENT: &str = "ostree.prepare-root.composefs";
/// `[composefs] keypath` if it is not given.
pub const KEYPATH: &str = "/etc/ostree/initramfs-root-binding.key";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `[sysroot] readonly`: `/sysroot` read-only, `/etc` and `/var` writable. Default: true where composefs is
    /// required, else false.
    pub sysroot_readonly: bool,
    /// `[etc] transient`: changes to `/etc` are lost at reboot. Takes effect with `sysroot_readonly` or
    /// composefs only, as upstream. Default: false.
    pub etc_transient: bool,
    /// `[root] transient` and `transient-ro`: changes to `/` are lost at reboot. Needs composefs.
    pub root_transient: RootTransient,
    /// `[composefs] enabled` and [`COMPOSEFS_ARGUMENT`] together.
    pub composefs: Composefs,
    /// `[composefs] keypath`: the file of the initramfs with the keys for [`Composefs::Signed`].
    pub keypath: String,
}

/// Whether the deployment's composefs image is the root, and what is checked of it. Each demands more than the
/// one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Composefs {
    /// `no`: the deployment's directory is the root.
    #[default]
    No,
    /// `maybe`: the image if the deployment has one.
    Maybe,
    /// `yes`: the image.
    Yes,
    /// `verity`: the image, and no object is read that has not the fs-verity digest that the image names.
    Verity,
    /// `signed`: that, and the image has the digest that a signed commit names.
    Signed,
}

/// Whether `/` takes changes, which live in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootTransient {
    /// It does not.
    #[default]
    No,
    /// `transient`: it does.
    Writable,
    /// `transient-ro`: it does where a privileged component mounts it writable.
    ReadOnly,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            sysroot_readonly: false,
            etc_transient: false,
            root_transient: RootTransient::No,
            composefs: Composefs::No,
            keypath: KEYPATH.into(),
        }
    }
}

/// Why the settings cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// A value of `prepare-root.conf` is not one of those that the key takes.
    Value(KeyFileError),
    /// The kernel argument has a value that it does not take.
    Argument,
    /// The command line switches off a verification that the configuration requires.
    Weakened,
    /// `[root] transient` and `transient-ro` exclude each other.
    RootTransientTwice,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value(error) => return write!(f, "prepare-root.conf: {error}"),
            Self::Argument => "ostree.prepare-root.composefs=: must be no, maybe, yes or signed",
            Self::Weakened => {
                "ostree.prepare-root.composefs= would switch off the verification that prepare-root.conf requires"
            }
            Self::RootTransientTwice => "[root]: transient and transient-ro exclude each other",
        })
    }
}

impl From<KeyFileError> for SettingsError {
    fn from(error: KeyFileError) -> Self {
        SettingsError::Value(error)
    }
}

impl Settings {
    /// Reads the settings. `config` is `prepare-root.conf` of the initramfs, empty if there is none. `repo` gives
    /// the repository's config, if it can be read: its `[sysroot] readonly` counts when `config` does not say
    /// true, and a value there that is no boolean counts as false, both as upstream. It is not asked where
    /// composefs is required: nothing of the disk is believed before it is verified.
    ///
    /// # Errors
    /// When a value is wrong, or the command line weakens what `config` requires.
    pub fn read(
        config: &KeyFile,
        repo: impl FnOnce() -> Option<KeyFile>,
        cmdline: &str,
    ) -> Result<Self, SettingsError> {
        let root = (config.boolean("root", "transient")?, config.boolean("root", "transient-ro")?);
        let root_transient = match root {
            (Some(true), Some(true)) => return Err(SettingsError::RootTransientTwice),
            (Some(true), _) => RootTransient::Writable,
            (_, Some(true)) => RootTransient::ReadOnly,
            _ => RootTransient::No,
        };
        let configured = config.value("composefs", "enabled").map_or(Ok(Composefs::No), |value| {
            let expected = "no, maybe, yes, verity or signed";
            configured(value).ok_or(KeyFileError::Value { group: "composefs", key: "enabled", expected })
        })?;
        let composefs = match argument(cmdline, COMPOSEFS_ARGUMENT) {
            None => configured,
            Some(value) => overridden(configured, value)?,
        };
        let required = composefs >= Composefs::Yes;
        let legacy = || {
            let readonly = repo().and_then(|r| r.boolean("sysroot", "readonly").ok().flatten());
            readonly.unwrap_or(false)
        };
        let readonly = config.boolean("sysroot", "readonly")?.unwrap_or(required);
        Ok(Settings {
            sysroot_readonly: readonly || (!required && legacy()),
            etc_transient: config.boolean("etc", "transient")?.unwrap_or(false),
            root_transient,
            composefs,
            keypath: config.value("composefs", "keypath").unwrap_or(KEYPATH).into(),
        })
    }

    /// Whether the composefs image becomes the root, of a deployment that has one (`image`) or has not.
    pub fn uses_composefs(&self, image: bool) -> bool {
        self.composefs >= Composefs::Yes || (self.composefs == Composefs::Maybe && image)
    }

    /// Whether `/etc` gets a mount of its own, on a root that is a composefs image or is not.
    pub fn mounts_etc(&self, composefs: bool) -> bool {
        self.sysroot_readonly || composefs
    }
}

/// The two words that GLib compares as they stand; blanks at the end are taken off the other ones only.
fn configured(value: &str) -> Option<Composefs> {
    match value {
        "verity" => Some(Composefs::Verity),
        "signed" => Some(Composefs::Signed),
        value => tristate(value.trim_end()),
    }
}

/// What holds when the argument says `value`. Upstream lets it switch verification off; here it cannot: whoever
/// writes the command line is not who made the initramfs. Without verification the disk decides anyway, so there
/// the argument may do as it likes.
fn overridden(configured: Composefs, value: &str) -> Result<Composefs, SettingsError> {
    let asked = if value == "signed" { Some(Composefs::Signed) } else { tristate(value) };
    match (configured, asked.ok_or(SettingsError::Argument)?) {
        (_, Composefs::Signed) => Ok(Composefs::Signed),
        // As upstream: it asks for composefs, and the configuration says what of it is verified.
        (Composefs::Verity, Composefs::Yes) => Ok(Composefs::Verity),
        (Composefs::Verity | Composefs::Signed, _) => Err(SettingsError::Weakened),
        (_, asked) => Ok(asked),
    }
}

fn tristate(value: &str) -> Option<Composefs> {
    Some(match value {
        "no" | "false" | "0" => Composefs::No,
        "maybe" => Composefs::Maybe,
        "yes" | "true" | "1" => Composefs::Yes,
        _ => return None,
    })
}

/// The value of the first `key=value` among the kernel's arguments: split at blanks outside double quotes, the
/// quotes around a value taken off, as the kernel does (lib/cmdline.c, `next_arg`).
pub fn argument<'a>(cmdline: &'a str, key: &str) -> Option<&'a str> {
    let mut quoted = false;
    let outside = |c: char| {
        quoted ^= c == '"';
        !quoted && c.is_ascii_whitespace()
    };
    cmdline.split(outside).find_map(|token| {
        let token = token.strip_prefix('"').map_or(token, |t| t.strip_suffix('"').unwrap_or(t));
        let value = token.strip_prefix(key)?.strip_prefix('=')?;
        Some(value.strip_prefix('"').map_or(value, |v| v.strip_suffix('"').unwrap_or(v)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str, repo: &str, cmdline: &str) -> Result<Settings, SettingsError> {
        let key_file = |text: &str| KeyFile::parse(text.as_bytes()).unwrap();
        Settings::read(&key_file(config), || Some(key_file(repo)), cmdline)
    }

    #[test]
    fn defaults_are_upstreams() {
        assert_eq!(read("", "", "quiet ostree=/ostree/boot.1/os/x/0"), Ok(Settings::default()));
    }

    #[test]
    fn readonly_comes_from_either_place() {
        let on = Ok(Settings { sysroot_readonly: true, ..Settings::default() });
        assert_eq!(read("[sysroot]\nreadonly=true", "", ""), on);
        assert_eq!(read("", "[sysroot]\nreadonly=1", ""), on);
        assert_eq!(read("[sysroot]\nreadonly=false", "[sysroot]\nreadonly=true", ""), on);
        assert_eq!(read("", "[sysroot]\nreadonly=perhaps", ""), Ok(Settings::default()));
        assert!(matches!(read("[sysroot]\nreadonly=perhaps", "", ""), Err(SettingsError::Value(_))));
    }

    #[test]
    fn composefs_brings_readonly_and_asks_no_repository() {
        for (value, level) in [
            ("yes", Composefs::Yes),
            ("true ", Composefs::Yes),
            ("verity", Composefs::Verity),
            ("signed", Composefs::Signed),
        ] {
            let text = alloc::format!("[composefs]\nenabled={value}\n");
            let expected = Settings { sysroot_readonly: true, composefs: level, ..Settings::default() };
            assert_eq!(read(&text, "", ""), Ok(expected.clone()), "{value}");
            let text = alloc::format!("{text}[sysroot]\nreadonly=false");
            let off = Settings { sysroot_readonly: false, ..expected };
            let unasked = || panic!("the repository was asked");
            let config = KeyFile::parse(text.as_bytes()).unwrap();
            assert_eq!(Settings::read(&config, unasked, ""), Ok(off), "{value}");
        }
        let maybe = read("[composefs]\nenabled=maybe\nkeypath=/k", "[sysroot]\nreadonly=true", "").unwrap();
        assert_eq!((maybe.composefs, maybe.sysroot_readonly), (Composefs::Maybe, true));
        assert_eq!((maybe.uses_composefs(true), maybe.uses_composefs(false)), (true, false));
        assert_eq!(maybe.keypath, "/k");
        for wrong in ["", "signed ", "Yes", "2"] {
            let text = alloc::format!("[composefs]\nenabled={wrong}\n");
            assert!(matches!(read(&text, "", ""), Err(SettingsError::Value(_))), "{wrong}");
        }
    }

    #[test]
    fn root_transient_is_one_of_two() {
        let root = |text: &str| read(text, "", "").map(|s| s.root_transient);
        assert_eq!(root("[root]\ntransient=true"), Ok(RootTransient::Writable));
        assert_eq!(root("[root]\ntransient-ro=true\ntransient=false"), Ok(RootTransient::ReadOnly));
        let both = "[root]\ntransient=true\ntransient-ro=true";
        assert_eq!(root(both), Err(SettingsError::RootTransientTwice));
    }

    /// Each value of the configuration with each of the argument.
    #[test]
    fn the_command_line_overrides_but_does_not_weaken() {
        use Composefs::{Maybe, No, Signed, Verity, Yes};
        let weakened = || Err(SettingsError::Weakened);
        for (value, no, maybe, yes) in [
            ("no", Ok(No), Ok(Maybe), Ok(Yes)),
            ("maybe", Ok(No), Ok(Maybe), Ok(Yes)),
            ("yes", Ok(No), Ok(Maybe), Ok(Yes)),
            ("verity", weakened(), weakened(), Ok(Verity)),
            ("signed", weakened(), weakened(), weakened()),
        ] {
            let level = |argument: &str| {
                let text = alloc::format!("[composefs]\nenabled={value}\n");
                read(&text, "", &alloc::format!("x {COMPOSEFS_ARGUMENT}={argument}")).map(|s| s.composefs)
            };
            for (arguments, expected) in
                [(["no", "false", "0"], no), (["maybe"; 3], maybe), (["yes", "true", "1"], yes)]
            {
                arguments.iter().for_each(|a| assert_eq!(level(a), expected, "{value} and {a}"));
            }
            assert_eq!(level("signed"), Ok(Signed), "{value}");
            ["verity", "sure", ""]
                .iter()
                .for_each(|a| assert_eq!(level(a), Err(SettingsError::Argument), "{value}, {a}"));
        }
    }

    #[test]
    fn arguments_are_split_as_the_kernel_does() {
        assert_eq!(argument("a=1 ostree=/x ostree=/y", "ostree"), Some("/x"));
        assert_eq!(argument("a=\"1 ostree=/x\" ostree=\"/y z\"", "ostree"), Some("/y z"));
        assert_eq!(argument("\"ostree=/y z\"\n", "ostree"), Some("/y z"));
        assert_eq!(argument("ostree.x=1 ostree", "ostree"), None);
    }
}
