//! Recovery that the running OS asks for: once, and durably.
//!
//! Where there is a bootloader's environment, the request is its variable `bootward_recovery`, `1` or `drill`; else a file on
//! the physical root. Either is taken away before anything is done about it, so that a device never gets caught in what
//! was asked for once. A file that is not wholly one of the two is no request: half a write must not keep a device from
//! booting.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::arrange::plan::Step;
use crate::storage::{At, Volume};

/// Where the file is, below the physical root.
pub const PATH: &str = "ostree/bootward/request";
/// The file is no longer than this, in bytes.
pub const SIZE_MAX: usize = 64;
/// The first line.
const HEAD: &str = "bootward request 1\n";

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Recovery, with the console.
    Recovery,
    /// A fire drill: everything of a recovery but the recovery.
    Drill,
}

impl Asked {
    /// What the variable `bootward_recovery` says of it.
    pub fn variable(self) -> &'static str {
        match self {
            Asked::Recovery => "1",
            Asked::Drill => "drill",
        }
    }

    /// From the variable. Any other value than none, `0` and `drill` asks for recovery, as it always did.
    pub fn of_variable(value: &[u8]) -> Option<Self> {
        match value {
            b"" | b"0" => None,
            b"drill" => Some(Asked::Drill),
            _ => Some(Asked::Recovery),
        }
    }

    /// From the file.
    pub fn of_file(content: &[u8]) -> Option<Self> {
        [Asked::Recovery, Asked::Drill].into_iter().find(|asked| asked.file().as_bytes() == content)
    }

    fn file(self) -> String {
        format!("{HEAD}{}\n", self.variable())
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Asked::Recovery => "recovery",
            Asked::Drill => "a fire drill",
        })
    }
}

/// The steps after which the file asks for this, or for nothing.
pub fn steps(asked: Option<Asked>) -> Vec<Step> {
    let at = At::root(PATH);
    let sync = Step::Sync(Volume::Root);
    match asked {
        Some(asked) => alloc::vec![
            Step::Directory(At::root("ostree/bootward"), 0o700),
            Step::Write(at.clone(), asked.file()),
            sync,
            Step::Check(at, asked.file()),
        ],
        None => alloc::vec![Step::Remove(at), sync],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_asks() {
        for asked in [Asked::Recovery, Asked::Drill] {
            let file = asked.file();
            assert_eq!(Asked::of_file(file.as_bytes()), Some(asked));
            assert!(file.len() <= SIZE_MAX);
            for length in 0..file.len() {
                assert_eq!(Asked::of_file(&file.as_bytes()[..length]), None);
            }
            assert_eq!(Asked::of_file(format!("{file}\n").as_bytes()), None);
            assert_eq!(Asked::of_variable(asked.variable().as_bytes()), Some(asked));
        }
        assert_eq!([&b""[..], b"0"].map(Asked::of_variable), [None, None]);
        assert_eq!(Asked::of_variable(b"yes"), Some(Asked::Recovery));
    }
}
