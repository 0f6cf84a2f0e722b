//! Boot loader entries (`ostree-N.conf`) and what their `ostree=` names.
//!
//! The format is that of the Boot Loader Specification as libostree writes and reads it: one `key value` a
//! line. The order is libostree's: by `version`, descending, compared as glibc's strverscmp does; entries
//! without a version come last.

use core::cmp::Ordering;

use crate::cmdline::CommandLine;

/// The largest entry that is read, in bytes.
pub const SIZE_MAX: usize = 64 * 1024;
/// The longest name of a stateroot, in bytes.
pub const STATEROOT_MAX: usize = 128;

/// One entry, borrowed from its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entry<'a> {
    /// `title`.
    pub title: Option<&'a str>,
    /// `version`: libostree writes the place in the boot order, counted from the end.
    pub version: Option<&'a str>,
    /// `options`: the kernel command line.
    pub options: Option<&'a str>,
    /// `linux`: the kernel.
    pub linux: Option<&'a str>,
    /// `initrd`: the first one.
    pub initrd: Option<&'a str>,
    /// `devicetree`.
    pub devicetree: Option<&'a str>,
    /// `fdtdir`.
    pub fdtdir: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// Reads an entry. Lines that mean nothing here are passed over, so any bytes are an entry, perhaps an
    /// empty one.
    pub fn parse(file: &'a [u8]) -> Self {
        let mut entry = Entry::default();
        for (key, value) in pairs(file) {
            let slot = match key {
                "title" => &mut entry.title,
                "version" => &mut entry.version,
                "options" => &mut entry.options,
                "linux" => &mut entry.linux,
                "initrd" if entry.initrd.is_none() => &mut entry.initrd,
                "devicetree" => &mut entry.devicetree,
                "fdtdir" => &mut entry.fdtdir,
                _ => continue,
            };
            *slot = Some(value);
        }
        entry
    }

    /// What `ostree=` among the options says.
    pub fn target(&self) -> Option<&'a str> {
        CommandLine::parse(self.options?).value("ostree")
    }

    /// The order in which libostree lists entries: the greater version first.
    pub fn boot_order(&self, other: &Entry<'_>) -> Ordering {
        match (self.version, other.version) {
            (Some(a), Some(b)) => version_order(a.as_bytes(), b.as_bytes()).reverse(),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }
}

/// The keys and values of an entry, in the file's order.
pub fn pairs(file: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    file.split(|&b| b == b'\n').filter_map(|line| {
        let line = core::str::from_utf8(line).ok()?.trim_end_matches('\r').trim_start();
        let (key, value) = line.split_once([' ', '\t'])?;
        Some((key, value.trim_matches([' ', '\t'])))
    })
}

/// Every `initrd` of an entry, in order: libostree names the overlays after the first one.
pub fn initrds(file: &[u8]) -> impl Iterator<Item = &str> {
    pairs(file).filter(|(key, _)| *key == "initrd").map(|(_, value)| value)
}

/// Whether a file in the `entries` directory is one of OSTree's: `ostree-N.conf`, `ostree-N-OS.conf`, and
/// with boot counting `ostree-N+L.conf` or `ostree-N+L-D.conf`.
pub fn is_entry_name(name: &str) -> bool {
    name.starts_with("ostree-") && name.ends_with(".conf") && name.len() <= 255
}

/// strverscmp of glibc: runs of digits count as numbers, and runs that begin with zeros as fractions.
pub fn version_order(a: &[u8], b: &[u8]) -> Ordering {
    let differ = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    // The run of digits that the first difference stands in, if any, begins here.
    let start = a.get(..differ).unwrap_or(a).iter().rposition(|c| !c.is_ascii_digit()).map_or(0, |p| p + 1);
    let (rest_a, rest_b) = (a.get(start..).unwrap_or(&[]), b.get(start..).unwrap_or(&[]));
    let (x, y) = (a.get(differ).copied().unwrap_or(0), b.get(differ).copied().unwrap_or(0));
    let common = a.get(start..differ).unwrap_or(&[]);
    let fraction = rest_a.first() == Some(&b'0') && (!common.is_empty() || rest_b.first() == Some(&b'0'))
        || common.first() == Some(&b'0');
    if fraction {
        return fraction_order(common, x, y);
    }
    match (x.is_ascii_digit(), y.is_ascii_digit()) {
        (false, false) => x.cmp(&y),
        // A digit goes on a number that has begun, which makes it the longer one.
        (true, false) if !common.is_empty() => Ordering::Greater,
        (false, true) if !common.is_empty() => Ordering::Less,
        (true, false) | (false, true) => x.cmp(&y),
        (true, true) if common.is_empty() && (x == b'0' || y == b'0') => x.cmp(&y),
        (true, true) => digits(rest_a).cmp(&digits(rest_b)).then(x.cmp(&y)),
    }
}

/// Two runs that begin with a zero: the one with more leading zeros is the smaller fraction.
fn fraction_order(common: &[u8], x: u8, y: u8) -> Ordering {
    let only_zeros = common.iter().all(|&c| c == b'0');
    match (x.is_ascii_digit(), y.is_ascii_digit()) {
        // "00" comes before "0", but "01" before "010".
        (true, false) if only_zeros => Ordering::Less,
        (false, true) if only_zeros => Ordering::Greater,
        _ => x.cmp(&y),
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|c| c.is_ascii_digit()).count()
}

/// A boot link, `/ostree/boot.N/STATEROOT/BOOTCSUM/SERIAL`, in its parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootLink<'a> {
    /// `boot.0`, `boot.1`, or a sub-version such as `boot.1.0`.
    pub version: &'a str,
    /// The stateroot.
    pub stateroot: &'a str,
    /// The boot checksum.
    pub checksum: &'a str,
    /// The boot serial.
    pub serial: u32,
}

impl<'a> BootLink<'a> {
    /// Takes a path apart. Other links below `/ostree` are legal and have no parts.
    pub fn parse(path: &'a str) -> Option<Self> {
        let mut parts = path.trim_start_matches('/').split('/');
        if parts.next() != Some("ostree") {
            return None;
        }
        let (version, stateroot, checksum, serial) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let digits = version.strip_prefix("boot.")?;
        let legal = matches!(digits, "0" | "1" | "0.0" | "0.1" | "1.0" | "1.1")
            && is_stateroot(stateroot)
            && is_checksum(checksum)
            && parts.next().is_none();
        let serial = serial.parse().ok().filter(|_| serial.bytes().all(|b| b.is_ascii_digit()))?;
        legal.then_some(BootLink { version, stateroot, checksum, serial })
    }
}

/// 64 lower-case hexadecimal digits.
pub fn is_checksum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A name that may be a directory of its own.
pub fn is_stateroot(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && text.len() <= STATEROOT_MAX && !text.contains(['/', '\0'])
}

/// A deployment's directory name, `COMMIT.SERIAL`.
pub fn deployment_name(name: &str) -> Option<(&str, u32)> {
    let (commit, serial) = name.split_once('.')?;
    let serial = serial.parse().ok().filter(|_| serial.bytes().all(|b| b.is_ascii_digit()))?;
    is_checksum(commit).then_some((commit, serial))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(unsafe_code, reason = "the C library is the oracle")]
    unsafe extern "C" {
        fn strverscmp(a: *const core::ffi::c_char, b: *const core::ffi::c_char) -> core::ffi::c_int;
    }

    #[test]
    #[expect(unsafe_code, reason = "the C library is the oracle")]
    fn versions_are_compared_as_the_c_library_does() {
        let letters = [
            "", "0", "00", "1", "01", "001", "010", "09", "9", "10", "100", "a", "a0", "a00", "a1", "a01",
            "a10", "b", ".", "1.2", "1.10", "1.02", "1.002", "000", "0.1", "20", "2", "1a", "01a", "00a",
        ];
        for a in letters {
            for b in letters {
                for prefix in ["", "x", "5"] {
                    let (a, b) = (format!("{prefix}{a}\0"), format!("{prefix}{b}\0"));
                    // SAFETY: both strings end with a NUL.
                    let expected = unsafe { strverscmp(a.as_ptr().cast(), b.as_ptr().cast()) }.cmp(&0);
                    let ours = version_order(
                        a.trim_end_matches('\0').as_bytes(),
                        b.trim_end_matches('\0').as_bytes(),
                    );
                    assert_eq!(ours, expected, "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn an_entry_of_libostree() {
        let file = "title SpikeOS 2 (ostree:0)\nversion 2\noptions console=ttyAMA0 root=/dev/vda2 ostree=/ostree/boot.0/os/ab/0\nlinux /ostree/os-ab/vmlinuz-6\ninitrd /ostree/os-ab/initramfs-6.img\n";
        let entry = Entry::parse(file.as_bytes());
        assert_eq!(entry.title, Some("SpikeOS 2 (ostree:0)"));
        assert_eq!(entry.version, Some("2"));
        assert_eq!(entry.target(), Some("/ostree/boot.0/os/ab/0"));
        assert_eq!(entry.linux, Some("/ostree/os-ab/vmlinuz-6"));
    }

    #[test]
    fn entry_names() {
        for good in ["ostree-2.conf", "ostree-1-os.conf", "ostree-2+3.conf", "ostree-1+2-1.conf"] {
            assert!(is_entry_name(good), "{good}");
        }
        for other in ["debian.conf", "ostree-2.conf.tmp", "uEnv.txt", ""] {
            assert!(!is_entry_name(other), "{other}");
        }
    }

    #[test]
    fn boot_links() {
        let sum = "a".repeat(64);
        let good = format!("/ostree/boot.1/my-os/{sum}/12");
        let link = BootLink::parse(&good).unwrap();
        assert_eq!((link.version, link.stateroot, link.serial), ("boot.1", "my-os", 12));
        for bad in [
            format!("/ostree/boot.2/os/{sum}/0"),
            format!("/ostree/boot.1/../{sum}/0"),
            format!("/ostree/boot.1/os/{sum}/0/x"),
            format!("/ostree/boot.1/os/{sum}/+0"),
            "/ostree/boot.1/os/ab/0".to_string(),
            "/etc/passwd".to_string(),
        ] {
            assert_eq!(BootLink::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn any_bytes_are_an_entry() {
        for bytes in [&b"\xff\xfe\n\0\n options"[..], b"options", b"options \"ostree", b"version\t\t9\r\n"] {
            let _ = Entry::parse(bytes).target();
        }
        assert_eq!(Entry::parse(b"version\t\t9\r\n").version, Some("9"));
    }
}
