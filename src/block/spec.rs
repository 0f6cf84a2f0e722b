//! How the kernel command line names the root device.
//!
//! `ostree_root=` (meta-updater) goes before `root=`; `root=/dev/ram0` names no disk and counts as absent.

use core::fmt;

use heapless::String;

/// The longest name of a device, label or id that is taken, in bytes.
pub const NAME_MAX: usize = 128;

type Name = String<NAME_MAX>;

/// What identifies the root device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RootSpec {
    /// `UUID=`: of the file system.
    Uuid(Name),
    /// `LABEL=`: of the file system.
    Label(Name),
    /// `PARTUUID=`: of the partition.
    PartUuid(Name),
    /// `PARTLABEL=`: of the partition.
    PartLabel(Name),
    /// `/dev/NAME`; the name below `/dev`.
    Node(Name),
    /// Major and minor number.
    Number(u32, u32),
}

/// Why a root specification cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpecError {
    /// Nothing was given.
    Empty,
    /// Longer than [`NAME_MAX`].
    TooLong,
    /// A root on the network.
    Network,
    /// None of the known forms.
    Unknown,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpecError::Empty => "no root is named: give root= or ostree_root=, or root.device in bootward.toml",
            SpecError::TooLong => "the name of the root is too long",
            SpecError::Network => "a root on the network is not supported",
            SpecError::Unknown => {
                "the root is not named in a known way (UUID= LABEL= PARTUUID= PARTLABEL= /dev/NAME MAJOR:MINOR)"
            }
        })
    }
}

impl RootSpec {
    /// Reads a specification as it stands after `root=`.
    ///
    /// # Errors
    /// When it is empty, too long, on the network or of no known form.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let text = text.trim_matches('"');
        if text.is_empty() {
            return Err(SpecError::Empty);
        }
        if text == "/dev/nfs" || text.starts_with("nfs") || text.starts_with("cifs") || text.starts_with("//")
        {
            return Err(SpecError::Network);
        }
        type Make = fn(Name) -> RootSpec;
        let tagged: [(&str, Make); 8] = [
            ("UUID=", RootSpec::Uuid),
            ("LABEL=", RootSpec::Label),
            ("PARTUUID=", RootSpec::PartUuid),
            ("PARTLABEL=", RootSpec::PartLabel),
            ("/dev/disk/by-uuid/", RootSpec::Uuid),
            ("/dev/disk/by-label/", RootSpec::Label),
            ("/dev/disk/by-partuuid/", RootSpec::PartUuid),
            ("/dev/disk/by-partlabel/", RootSpec::PartLabel),
        ];
        for (tag, make) in tagged {
            if let Some(value) = text.strip_prefix(tag) {
                let value = value.trim_matches('"');
                if value.is_empty() {
                    return Err(SpecError::Empty);
                }
                // udev writes what may not stand in a file name as \xNN.
                return if tag.starts_with('/') { unescape(value).map(make) } else { name(value).map(make) };
            }
        }
        if let Some(node) = text.strip_prefix("/dev/") {
            let clean = !node.is_empty() && node.split('/').all(|p| !matches!(p, "" | "." | ".."));
            return if clean { name(node).map(RootSpec::Node) } else { Err(SpecError::Unknown) };
        }
        numbers(text).map(|(major, minor)| RootSpec::Number(major, minor)).ok_or(SpecError::Unknown)
    }
}

impl fmt::Display for RootSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RootSpec::Uuid(v) => write!(f, "UUID={v}"),
            RootSpec::Label(v) => write!(f, "LABEL={v}"),
            RootSpec::PartUuid(v) => write!(f, "PARTUUID={v}"),
            RootSpec::PartLabel(v) => write!(f, "PARTLABEL={v}"),
            RootSpec::Node(v) => write!(f, "/dev/{v}"),
            RootSpec::Number(major, minor) => write!(f, "{major}:{minor}"),
        }
    }
}

fn name(text: &str) -> Result<Name, SpecError> {
    Name::try_from(text).map_err(|_| SpecError::TooLong)
}

fn unescape(text: &str) -> Result<Name, SpecError> {
    let mut out = heapless::Vec::<u8, NAME_MAX>::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code =
            tail.strip_prefix(b"x").and_then(|t| t.get(..2)).and_then(|d| core::str::from_utf8(d).ok());
        let (byte, next) = match (byte, code.and_then(|d| u8::from_str_radix(d, 16).ok())) {
            (b'\\', Some(code)) => (code, tail.get(3..).unwrap_or(&[])),
            _ => (byte, tail),
        };
        out.push(byte).map_err(|_| SpecError::TooLong)?;
        rest = next;
    }
    String::from_utf8(out).map_err(|_| SpecError::Unknown)
}

/// `MAJOR:MINOR`, or the kernel's old hexadecimal form (`0801`).
fn numbers(text: &str) -> Option<(u32, u32)> {
    if let Some((major, minor)) = text.split_once(':') {
        return Some((major.parse().ok()?, minor.parse().ok()?));
    }
    // new_decode_dev: 12 bits of major in the middle, 20 of minor around them.
    let code = u32::from_str_radix(text, 16).ok()?;
    Some(((code & 0xF_FF00) >> 8, code & 0xFF | (code >> 12) & 0xF_FF00))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> String<NAME_MAX> {
        String::try_from(s).unwrap()
    }

    #[test]
    fn every_form() {
        let cases = [
            ("UUID=1111-2222", Ok(RootSpec::Uuid(text("1111-2222")))),
            ("LABEL=otaroot", Ok(RootSpec::Label(text("otaroot")))),
            ("LABEL=\"my root\"", Ok(RootSpec::Label(text("my root")))),
            ("PARTUUID=5b1ce5b1-02", Ok(RootSpec::PartUuid(text("5b1ce5b1-02")))),
            ("PARTLABEL=root", Ok(RootSpec::PartLabel(text("root")))),
            ("/dev/vda2", Ok(RootSpec::Node(text("vda2")))),
            ("/dev/mapper/x", Ok(RootSpec::Node(text("mapper/x")))),
            ("/dev/disk/by-label/a\\x20b", Ok(RootSpec::Label(text("a b")))),
            ("/dev/disk/by-partuuid/aa", Ok(RootSpec::PartUuid(text("aa")))),
            ("8:1", Ok(RootSpec::Number(8, 1))),
            ("0801", Ok(RootSpec::Number(8, 1))),
            ("b302", Ok(RootSpec::Number(179, 2))),
            ("10301", Ok(RootSpec::Number(259, 1))),
            ("/dev/nfs", Err(SpecError::Network)),
            ("/dev/../etc/passwd", Err(SpecError::Unknown)),
            ("", Err(SpecError::Empty)),
            ("LABEL=", Err(SpecError::Empty)),
            ("nonsense", Err(SpecError::Unknown)),
        ];
        for (given, expected) in cases {
            assert_eq!(RootSpec::parse(given), expected, "{given}");
        }
        assert_eq!(RootSpec::parse(&"LABEL=".repeat(50)), Err(SpecError::TooLong));
    }
}
