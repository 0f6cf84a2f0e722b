//! What `prepare-root.conf`, the repository's config and the kernel command line ask for.
//!
//! Keys: ostree-prepare-root(1) at v2026.4. Files: `usr/lib/ostree/prepare-root.conf`, then
//! `etc/ostree/prepare-root.conf` of the initramfs; the second replaces the first as a whole, because GLib
//! empties the key file before it loads another.

use core::fmt;

use crate::keyfile::{KeyFile, KeyFileError};

/// The two places of the configuration, below the root of the initramfs; the later one wins.
pub const CONFIG_PATHS: [&str; 2] = ["usr/lib/ostree/prepare-root.conf", "etc/ostree/prepare-root.conf"];
/// The repository's configuration, below the sysroot.
pub const REPO_CONFIG: &str = "ostree/repo/config";
/// The kernel argument that overrides `[composefs] enabled`.
pub const COMPOSEFS_ARGUMENT: &str = "ostree.prepare-root.composefs";

/// What was asked for, as far as this build can do it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `[sysroot] readonly`: `/sysroot` read-only, `/etc` and `/var` writable. Default: false.
    pub sysroot_readonly: bool,
    /// `[etc] transient`: changes to `/etc` are lost at reboot. Takes effect with `sysroot_readonly` only, as
    /// upstream. Default: false.
    pub etc_transient: bool,
    /// composefs is `maybe`: the deployment must not have a composefs image, or it is refused.
    pub composefs_maybe: bool,
}

/// Why the settings cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// A value of `prepare-root.conf` is not one of those that the key takes.
    Value(KeyFileError),
    /// The kernel argument has a value that it does not take.
    Argument,
    /// composefs is required: this build has none.
    Composefs,
    /// The command line switches off a verification that the configuration requires.
    Weakened,
    /// `[root] transient` or `transient-ro`: these need composefs.
    RootTransient,
    /// Both of them: they exclude each other.
    RootTransientTwice,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value(error) => return write!(f, "prepare-root.conf: {error}"),
            Self::Argument => "ostree.prepare-root.composefs=: must be no, maybe, yes or signed",
            Self::Composefs => {
                "this build cannot do composefs yet; set [composefs] enabled=no in prepare-root.conf of the initramfs"
            }
            Self::Weakened => {
                "ostree.prepare-root.composefs= would switch off the verification that prepare-root.conf requires"
            }
            Self::RootTransient => "[root] transient: this build cannot do composefs yet, which it needs",
            Self::RootTransientTwice => "[root]: transient and transient-ro exclude each other",
        })
    }
}

impl From<KeyFileError> for SettingsError {
    fn from(error: KeyFileError) -> Self {
        SettingsError::Value(error)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Composefs {
    No,
    Maybe,
    Yes,
    Verified,
}

impl Settings {
    /// Reads the settings. `config` is `prepare-root.conf` of the initramfs, empty if there is none; `repo` the
    /// repository's config, if it could be read: its `[sysroot] readonly` counts when `config` does not say
    /// true, and a value there that is no boolean counts as false, both as upstream.
    ///
    /// # Errors
    /// When a value is wrong, or something is asked for that this build cannot do.
    pub fn read(config: &KeyFile, repo: Option<&KeyFile>, cmdline: &str) -> Result<Self, SettingsError> {
        match (config.boolean("root", "transient")?, config.boolean("root", "transient-ro")?) {
            (Some(true), Some(true)) => return Err(SettingsError::RootTransientTwice),
            (Some(true), _) | (_, Some(true)) => return Err(SettingsError::RootTransient),
            _ => {}
        }
        let configured = config.value("composefs", "enabled").map_or(Ok(Composefs::No), |v| {
            let expected = "no, maybe, yes, verity or signed";
            composefs(v).ok_or(KeyFileError::Value { group: "composefs", key: "enabled", expected })
        })?;
        let composefs = match argument(cmdline, COMPOSEFS_ARGUMENT) {
            None => configured,
            Some("verity") => return Err(SettingsError::Argument),
            Some(value) => composefs(value).ok_or(SettingsError::Argument)?,
        };
        match (configured, composefs) {
            (_, Composefs::Yes | Composefs::Verified) => return Err(SettingsError::Composefs),
            (Composefs::Verified, _) => return Err(SettingsError::Weakened),
            _ => {}
        }
        let legacy = || repo.and_then(|r| r.boolean("sysroot", "readonly").ok().flatten());
        let readonly = config.boolean("sysroot", "readonly")?.filter(|&on| on).or_else(legacy);
        Ok(Settings {
            sysroot_readonly: readonly.unwrap_or(false),
            etc_transient: config.boolean("etc", "transient")?.unwrap_or(false),
            composefs_maybe: composefs == Composefs::Maybe,
        })
    }
}

fn composefs(value: &str) -> Option<Composefs> {
    Some(match value.trim_end() {
        "no" | "false" | "0" => Composefs::No,
        "maybe" => Composefs::Maybe,
        "yes" | "true" | "1" => Composefs::Yes,
        "verity" | "signed" => Composefs::Verified,
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
        Settings::read(&key_file(config), Some(&key_file(repo)), cmdline)
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
    fn composefs_is_refused_and_never_skipped() {
        for value in ["yes", "true", "1", "signed", "verity"] {
            let text = alloc::format!("[composefs]\nenabled={value}\n");
            assert_eq!(read(&text, "", ""), Err(SettingsError::Composefs), "{value}");
        }
        assert_eq!(read("[composefs]\nenabled=maybe", "", "").map(|s| s.composefs_maybe), Ok(true));
        assert_eq!(read("", "", "ostree.prepare-root.composefs=signed"), Err(SettingsError::Composefs));
        assert_eq!(read("[root]\ntransient=true", "", ""), Err(SettingsError::RootTransient));
        assert_eq!(read("[root]\ntransient-ro=true", "", ""), Err(SettingsError::RootTransient));
        let both = "[root]\ntransient=true\ntransient-ro=true";
        assert_eq!(read(both, "", ""), Err(SettingsError::RootTransientTwice));
    }

    #[test]
    fn the_command_line_overrides_but_does_not_weaken() {
        let off = "ostree.prepare-root.composefs=0";
        assert_eq!(read("[composefs]\nenabled=yes", "", off), Ok(Settings::default()));
        assert_eq!(read("[composefs]\nenabled=signed", "", off), Err(SettingsError::Weakened));
        assert_eq!(read("", "", "ostree.prepare-root.composefs=verity"), Err(SettingsError::Argument));
        assert_eq!(read("", "", "ostree.prepare-root.composefs=sure"), Err(SettingsError::Argument));
    }

    #[test]
    fn arguments_are_split_as_the_kernel_does() {
        assert_eq!(argument("a=1 ostree=/x ostree=/y", "ostree"), Some("/x"));
        assert_eq!(argument("a=\"1 ostree=/x\" ostree=\"/y z\"", "ostree"), Some("/y z"));
        assert_eq!(argument("\"ostree=/y z\"\n", "ostree"), Some("/y z"));
        assert_eq!(argument("ostree.x=1 ostree", "ostree"), None);
    }
}
