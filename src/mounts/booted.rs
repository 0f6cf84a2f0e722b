//! `/run/ostree-booted`: what libostree knows of the running deployment, as a GVariant `a{sv}`.
//!
//! Keys and their order: src/libotcore/otcore.h and otcore-prepare-root.c of libostree v2026.4.

use alloc::string::String;
use alloc::vec::Vec;

use crate::ostree::variant::{BYTES, VARIANT, array, close, text, tuple};

/// The largest file that is read, in bytes.
pub const MAX_SIZE: usize = 64 * 1024;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Booted {
    /// `backing-root-device-inode`: `st_dev` and `st_ino` of the deployment's directory.
    pub device_inode: Option<(u64, u64)>,
    /// `root.transient`.
    pub root_transient: bool,
    /// `root.transient-ro`.
    pub root_transient_ro: bool,
    /// `composefs`: the root is a composefs image. Without one the entry is missing.
    pub composefs: bool,
    /// `composefs.verity`: the objects' digests are checked. Written together with `composefs`.
    pub composefs_verity: bool,
    /// `composefs.signed`: the file with the keys, one of which signed the commit that names the image.
    pub composefs_signed: Option<String>,
    /// `sysroot-ro`: `/sysroot` is read-only.
    pub sysroot_readonly: bool,
    /// `transient-etc`: the directory that holds this boot's changes to `/etc`.
    pub transient_etc: Option<String>,
}

impl Booted {
    /// What the initramfs left of the running deployment below this root; `None` where nothing that can be read is there.
    #[cfg(not(target_os = "none"))]
    pub fn read(root: &std::path::Path) -> Option<Self> {
        use std::io::Read;
        let file = std::fs::File::open(root.join("run/ostree-booted")).ok()?;
        let mut content = Vec::new();
        file.take(MAX_SIZE as u64 + 1).read_to_end(&mut content).ok()?;
        Some(Booted::from_bytes(&content))
    }

    /// The file's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut dictionary = Dictionary::default();
        if let Some((device, inode)) = self.device_inode {
            let pair = [device.to_ne_bytes(), inode.to_ne_bytes()];
            dictionary.entry("backing-root-device-inode", pair.as_flattened(), PAIR);
        }
        dictionary.flag("root.transient", self.root_transient);
        dictionary.flag("root.transient-ro", self.root_transient_ro);
        if let Some(keys) = &self.composefs_signed {
            dictionary.text("composefs.signed", keys);
        }
        if self.composefs {
            dictionary.flag("composefs", true);
            dictionary.flag("composefs.verity", self.composefs_verity);
        }
        dictionary.flag("sysroot-ro", self.sysroot_readonly);
        if let Some(directory) = &self.transient_etc {
            dictionary.text("transient-etc", directory);
        }
        close(&mut dictionary.body, &dictionary.ends);
        dictionary.body
    }

    /// Reads the file's content. Unknown keys are skipped and an entry of another type counts as absent, as in
    /// libostree; nothing is an error, because the empty file of versions before v2022.8 is fine too. More than
    /// [`MAX_SIZE`] bytes are none.
    pub fn from_bytes(data: &[u8]) -> Self {
        let mut booted = Booted::default();
        let entries = if data.len() > MAX_SIZE { None } else { array(data, 8) };
        let parts = entries.into_iter().flatten().map_while(|entry| tuple(entry?, &[BYTES, VARIANT]));
        for [key, variant] in parts {
            let value = |kind: &str| variant.strip_suffix(kind.as_bytes())?.strip_suffix(&[0]);
            let string = || value("s").and_then(text).map(String::from);
            let flag = || value("b") == Some(&[1]);
            match text(key).unwrap_or_default() {
                "backing-root-device-inode" => booted.device_inode = value(PAIR).and_then(pair),
                "root.transient" => booted.root_transient = flag(),
                "root.transient-ro" => booted.root_transient_ro = flag(),
                "composefs" => booted.composefs = flag(),
                "composefs.verity" => booted.composefs_verity = flag(),
                "composefs.signed" => booted.composefs_signed = string(),
                "sysroot-ro" => booted.sysroot_readonly = flag(),
                "transient-etc" => booted.transient_etc = string(),
                _ => {}
            }
        }
        booted
    }
}

/// The type of two 64-bit numbers.
const PAIR: &str = "(tt)";

fn pair(data: &[u8]) -> Option<(u64, u64)> {
    let (first, second) = data.split_at_checked(8)?;
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_ne_bytes);
    Some((number(first)?, number(second)?))
}

/// An `a{sv}` that is being written.
#[derive(Default)]
struct Dictionary {
    body: Vec<u8>,
    ends: Vec<usize>,
}

impl Dictionary {
    fn flag(&mut self, key: &str, value: bool) {
        self.entry(key, &[u8::from(value)], "b");
    }

    fn text(&mut self, key: &str, value: &str) {
        let value: Vec<u8> = value.bytes().chain([0]).collect();
        self.entry(key, &value, "s");
    }

    fn entry(&mut self, key: &str, value: &[u8], kind: &str) {
        let mut entry: Vec<u8> = key.bytes().chain([0]).collect();
        let end = entry.len();
        pad(&mut entry);
        entry.extend(value.iter().chain(&[0]).chain(kind.as_bytes()));
        close(&mut entry, &[end]);
        pad(&mut self.body);
        self.body.append(&mut entry);
        self.ends.push(self.body.len());
    }
}

/// To the alignment of a variant.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use gvariant::{Marker, Structure, gv};

    use super::*;

    #[test]
    fn reads_back_what_it_writes() {
        let booted = Booted {
            device_inode: Some((2049, u64::MAX - 5)),
            sysroot_readonly: true,
            transient_etc: Some("/run/ostree/transient-etc.A1b2C3".into()),
            ..Booted::default()
        };
        assert_eq!(Booted::from_bytes(&booted.to_bytes()), booted);
        let booted = Booted {
            composefs: true,
            composefs_verity: true,
            composefs_signed: Some("/etc/ostree/initramfs-root-binding.key".into()),
            root_transient: true,
            root_transient_ro: true,
            ..booted
        };
        assert_eq!(Booted::from_bytes(&booted.to_bytes()), booted);
    }

    /// What another reader of the format finds in it.
    #[test]
    fn the_gvariant_crate_reads_it() {
        use gvariant::aligned_bytes::{A8, AsAligned, copy_to_align};
        for length in [1, 100, 200, 300, 70_000] {
            let keys = "k".repeat(length);
            let booted = Booted {
                device_inode: Some((2049, 77)),
                composefs_signed: Some(keys.clone()),
                sysroot_readonly: true,
                ..Booted::default()
            };
            let written = booted.to_bytes();
            let bytes = copy_to_align::<A8>(&written);
            let mut seen = Vec::new();
            for entry in gv!("a{sv}").cast(bytes.as_aligned()) {
                let (key, value) = entry.to_tuple();
                seen.push(key.to_str().to_owned());
                match key.to_str() {
                    "backing-root-device-inode" => {
                        let pair = value.get(gv!("(tt)")).unwrap();
                        assert_eq!(pair.to_tuple(), (&2049, &77));
                    }
                    "composefs.signed" => assert_eq!(value.get(gv!("s")).unwrap().to_str(), keys),
                    key => {
                        assert_eq!(value.get(gv!("b")).unwrap().to_bool(), key == "sysroot-ro");
                    }
                }
            }
            let order = ["root.transient", "root.transient-ro", "composefs.signed", "sysroot-ro"];
            assert_eq!(seen[1..], order);
        }
    }

    #[test]
    fn any_bytes_are_read() {
        let whole = Booted { device_inode: Some((1, 2)), ..Booted::default() }.to_bytes();
        for cut in 0..whole.len() {
            let _ = Booted::from_bytes(&whole[..cut]);
            let mut flipped = whole.clone();
            flipped[cut] ^= 0xff;
            let _ = Booted::from_bytes(&flipped);
        }
        assert_eq!(Booted::from_bytes(b""), Booted::default());
        assert_eq!(Booted::from_bytes(&vec![0xff; MAX_SIZE + 1]), Booted::default());
    }
}
