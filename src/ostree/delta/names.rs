//! Where deltas are in a repository: `deltas/XX/REST-TO/`, where the names are checksums in base64 with `_` for `/`, and
//! their indexes: `delta-indexes/XX/REST.index` (`_ostree_get_relative_static_delta_path`, `ostree_checksum_b64_from_bytes`).

use alloc::format;
use alloc::string::String;
use core::fmt;

use super::super::object::Checksum;

/// What a delta leads from, `None` for nothing, and to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    /// The commit that must be here.
    pub from: Option<Checksum>,
    /// The commit that comes of it.
    pub to: Checksum,
}

impl Name {
    /// Reads the form in summaries and indexes: one checksum, or two with `-` between them.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('-') {
            None => Some(Name { from: None, to: Checksum::parse(text)? }),
            Some((from, to)) => Some(Name { from: Some(Checksum::parse(from)?), to: Checksum::parse(to)? }),
        }
    }

    /// The path of something in the delta's directory.
    fn inside(&self, what: fmt::Arguments<'_>) -> String {
        let to = base64(&self.to);
        match &self.from {
            None => split("deltas", &to, format_args!("/{what}")),
            Some(from) => split("deltas", &base64(from), format_args!("-{to}/{what}")),
        }
    }

    /// The path of the superblock in the repository.
    pub fn superblock(&self) -> String {
        self.inside(format_args!("superblock"))
    }

    /// The path of a part, and the key of one that is inside the superblock.
    pub fn part(&self, number: u32) -> String {
        self.inside(format_args!("{number}"))
    }

    /// The key of the commit's detached metadata inside the superblock.
    pub fn commitmeta(&self) -> String {
        self.inside(format_args!("commitmeta"))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            None => write!(f, "{}", self.to),
            Some(from) => write!(f, "{from}-{}", self.to),
        }
    }
}

/// The path of the index of the deltas that lead to this commit.
pub fn index(to: &Checksum) -> String {
    split("delta-indexes", &base64(to), format_args!(".index"))
}

fn split(folder: &str, name: &str, rest: fmt::Arguments<'_>) -> String {
    let (first, second) = name.split_at_checked(2).unwrap_or_default();
    format!("{folder}/{first}/{second}{rest}")
}

/// 43 characters, no padding.
fn base64(checksum: &Checksum) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+_";
    let mut text = String::with_capacity(43);
    for group in checksum.0.chunks(3) {
        let bits = (0..3).fold(0u32, |n, i| n << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for place in 0..=group.len() {
            let digit = (bits >> (18 - 6 * place)) & 63;
            text.extend(DIGITS.get(digit as usize).map(|&b| char::from(b)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_libostrees() {
        // What `ostree static-delta generate` made of these two commits.
        let from = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let name = Name::parse(from).unwrap();
        // base64 of that checksum is 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=
        assert_eq!(name.superblock(), "deltas/47/DEQpj8HBSa+_TImW+5JCeuQeRkm5NMpJWZG3hSuFU/superblock");
        assert_eq!(index(&name.to), "delta-indexes/47/DEQpj8HBSa+_TImW+5JCeuQeRkm5NMpJWZG3hSuFU.index");
        let both = Name::parse(&format!("{from}-{}", "00".repeat(32))).unwrap();
        let zeros = "A".repeat(43);
        assert_eq!(both.part(7), format!("deltas/47/DEQpj8HBSa+_TImW+5JCeuQeRkm5NMpJWZG3hSuFU-{zeros}/7"));
        assert_eq!(format!("{both}"), format!("{from}-{}", "00".repeat(32)));
        for bad in
            ["", "-", &from[1..], &format!("{from}-"), &format!("-{from}"), &format!("{from}-{from}-{from}")]
        {
            assert_eq!(Name::parse(bad), None, "{bad}");
        }
    }
}
