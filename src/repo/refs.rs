//! Refs: names of commits.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::arrange::Step;
use crate::ostree::Checksum;
use crate::storage::{At, Volume};

use super::REPO;

/// The longest ref that is taken, in bytes.
pub const REF_MAX: usize = 255;
/// The longest file of a ref: a checksum, and a line end.
pub const REF_FILE_MAX: usize = 256;

/// Whether this can be the name of a ref (`OSTREE_REF_REGEXP`: parts of letters, digits, `-._`, of which the first
/// character is a letter, a digit or `_`).
pub fn is_valid(name: &str) -> bool {
    let part = |part: &str| {
        part.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
    };
    name.len() <= REF_MAX && name.split('/').all(part)
}

/// Whether this can be the name of a remote.
pub fn is_remote(name: &str) -> bool {
    is_valid(name) && !name.contains('/')
}

/// The checksum in the file of a ref.
pub fn parse(data: &[u8]) -> Option<Checksum> {
    let text = core::str::from_utf8(data).ok()?;
    Checksum::parse(text.trim_end_matches(['\n', '\r', ' ']))
}

/// Where a ref is in the repository: of a remote, or a local one.
pub fn path(remote: Option<&str>, name: &str) -> String {
    match remote {
        Some(remote) => format!("refs/remotes/{remote}/{name}"),
        None => format!("refs/heads/{name}"),
    }
}

/// The steps that let a ref name a commit, durably.
pub fn set(remote: Option<&str>, name: &str, commit: &Checksum) -> Vec<Step> {
    let path = format!("{REPO}/{}", path(remote, name));
    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
    vec![
        Step::Directory(At::root(above), 0o755),
        Step::Write(At::root(path.as_str()), format!("{commit}\n")),
        Step::Sync(Volume::Root),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_refs() {
        for good in ["main", "os/8/x86_64/standard", "a-b.c_d", "_x", "0"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in
            ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".a", "-a", "a b", "a\n", "ä", &"a".repeat(256)]
        {
            assert!(!is_valid(bad), "{bad}");
        }
        assert!(is_remote("origin") && !is_remote("a/b"));
        assert_eq!(parse(format!("{}\n", Checksum([3; 32])).as_bytes()), Some(Checksum([3; 32])));
        assert_eq!(parse(b"<html>"), None);
    }
}
