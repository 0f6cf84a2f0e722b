//! How much of a deployment is checked before it boots.

use core::fmt;

/// Each level includes the one before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// The objects that describe the tree, and the tree's shape: every name and its kind, directories and links
    /// wholly, empty files. What is in the other files, who owns them and what they may do is not looked at.
    Metadata,
    /// Every byte and attribute of every file too, and the kernel, initramfs and device trees in `/boot`.
    Full,
}

impl Level {
    /// By its word in the configuration and on the command line.
    pub fn parse(word: &str) -> Option<Self> {
        [Level::None, Level::Metadata, Level::Full].into_iter().find(|level| level.word() == word)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Level::None => "none",
            Level::Metadata => "metadata",
            Level::Full => "full",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
