//! `ostree/repo/config`, a key file: `[core]` with the mode, a `[remote "NAME"]` for each server.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use crate::keyfile::{KeyFile, KeyFileError};

/// How objects are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// As they are: owners, modes and attributes in the filesystem. What a device has.
    Bare,
    /// Owner, mode and attributes in `user.ostreemeta`, so that no privilege is needed.
    BareUser,
    /// Compressed, for servers and sticks: read from, never written to here.
    Archive,
}

/// What we need of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// How objects are kept.
    pub mode: Mode,
    file: KeyFile,
}

/// Why a configuration is of no use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// It is no key file.
    Syntax(KeyFileError),
    /// `repo_version` is not 1.
    Version(String),
    /// A mode that we do not write: `bare-user-only`, `bare-split-xattrs`, or one that is not known.
    Mode(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Syntax(e) => write!(f, "the repository's config: {e}"),
            ConfigError::Version(version) => {
                write!(f, "the repository's config: repo_version is {version:?}, only 1 is known")
            }
            ConfigError::Mode(mode) => {
                write!(f, "the repository's mode is {mode:?}; bootward writes to bare and bare-user ones")
            }
        }
    }
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(data: &[u8]) -> Result<Self, ConfigError> {
        let file = KeyFile::parse(data).map_err(ConfigError::Syntax)?;
        match file.value("core", "repo_version") {
            Some("1") => {}
            other => return Err(ConfigError::Version(other.unwrap_or_default().to_string())),
        }
        // libostree's default, `_ostree_repo_mode_from_string` and reload_core_config.
        let mode = match file.value("core", "mode").unwrap_or("bare") {
            "bare" => Mode::Bare,
            "bare-user" => Mode::BareUser,
            "archive" | "archive-z2" => Mode::Archive,
            other => return Err(ConfigError::Mode(other.to_string())),
        };
        Ok(Config { mode, file })
    }

    /// A value of a remote, `url` for example.
    pub fn remote(&self, name: &str, key: &str) -> Option<&str> {
        self.file.value(&format!("remote \"{name}\""), key)
    }

    /// A value of `[core]`.
    pub fn core(&self, key: &str) -> Option<&str> {
        self.file.value("core", key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_remotes() {
        let text = b"[core]\nrepo_version=1\nmode=bare\n\n[remote \"os\"]\nurl=http://x/repo\n";
        let config = Config::parse(text).unwrap();
        assert_eq!((config.mode, config.remote("os", "url")), (Mode::Bare, Some("http://x/repo")));
        assert_eq!(config.remote("other", "url"), None);
        let mode = |mode: &str| Config::parse(format!("[core]\nrepo_version=1\nmode={mode}\n").as_bytes());
        assert_eq!(mode("archive-z2").unwrap().mode, Mode::Archive);
        assert_eq!(mode("bare-user-only"), Err(ConfigError::Mode("bare-user-only".into())));
        assert!(matches!(Config::parse(b"[core]\nmode=bare\n"), Err(ConfigError::Version(_))));
    }
}
