//! Kernel arguments as `ostree admin deploy` edits them (ostree-kernel-args.c).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::arrange::text::{arguments, replace_argument};

/// What is asked of the arguments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edits {
    /// Begin without the old deployment's arguments.
    pub none: bool,
    /// Each replaces all of its name.
    pub set: Vec<String>,
    /// Each is added.
    pub append: Vec<String>,
    /// Each is removed, where it is there just so.
    pub delete: Vec<String>,
}

impl Edits {
    /// The old arguments, edited. The ones for the boot link are set later, by [`crate::arrange::text::keys`].
    pub fn apply(&self, old: &str) -> String {
        let mut options = if self.none { String::new() } else { old.to_string() };
        if *self == Edits::default() {
            return options;
        }
        // libostree splits and joins them: blanks in a row go.
        for argument in &self.set {
            options = match argument.split_once('=') {
                Some((key, value)) => replace_argument(&options, key, value),
                None => replace_flag(&options, argument),
            };
        }
        let mut all: Vec<&str> = arguments(&options).filter(|a| !a.is_empty()).collect();
        for argument in &self.append {
            all.extend(arguments(argument).filter(|a| !a.is_empty()));
        }
        for argument in &self.delete {
            if let Some(at) = all.iter().position(|a| a == argument) {
                all.remove(at);
            }
        }
        all.join(" ")
    }
}

/// Gives an argument no value.
fn replace_flag(options: &str, flag: &str) -> String {
    let mut there = false;
    let mut all: Vec<&str> = Vec::new();
    for argument in arguments(options).filter(|a| !a.is_empty()) {
        if argument.split('=').next() != Some(flag) {
            all.push(argument);
        } else if !core::mem::replace(&mut there, true) {
            all.push(flag);
        }
    }
    if !there {
        all.push(flag);
    }
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_set_appended_and_deleted() {
        let of = |texts: &[&str]| texts.iter().map(|t| t.to_string()).collect::<Vec<_>>();
        let edits = Edits {
            none: false,
            set: of(&["a=2", "ro"]),
            append: of(&["a=3", "x y"]),
            delete: of(&["quiet", "b"]),
        };
        assert_eq!(edits.apply("a=1 quiet a=5 b=1"), "a=2 b=1 ro a=3 x y");
        assert_eq!(Edits { none: true, ..edits }.apply("a=1"), "a=2 ro a=3 x y");
        assert_eq!(Edits::default().apply("a  b=\"c d\" "), "a  b=\"c d\" ");
    }
}
