//! `/run/ostree-booted`: what libostree knows of the running deployment, as a GVariant `a{sv}`.
//!
//! Keys and their order: src/libotcore/otcore.h and otcore-prepare-root.c of libostree v2026.4.

use std::io;

use gvariant::aligned_bytes::{A8, AsAligned, copy_to_align};
use gvariant::{Marker, SerializeTo, Structure, Variant, VariantWrap, gv};

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

#[derive(Clone, Copy)]
enum Value<'a> {
    Flag(bool),
    Pair(u64, u64),
    Text(&'a str),
}

impl SerializeTo<Variant> for Value<'_> {
    fn serialize(self, f: &mut impl io::Write) -> io::Result<usize> {
        match self {
            Value::Flag(flag) => VariantWrap(gv!("b"), &flag).serialize(f),
            Value::Pair(a, b) => VariantWrap(gv!("(tt)"), &(a, b)).serialize(f),
            Value::Text(text) => VariantWrap(gv!("s"), text).serialize(f),
        }
    }
}

impl Booted {
    /// The file's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut entries: Vec<(&str, Value)> = Vec::with_capacity(8);
        if let Some((device, inode)) = self.device_inode {
            entries.push(("backing-root-device-inode", Value::Pair(device, inode)));
        }
        entries.push(("root.transient", Value::Flag(self.root_transient)));
        entries.push(("root.transient-ro", Value::Flag(self.root_transient_ro)));
        if let Some(keys) = &self.composefs_signed {
            entries.push(("composefs.signed", Value::Text(keys)));
        }
        if self.composefs {
            entries.push(("composefs", Value::Flag(true)));
            entries.push(("composefs.verity", Value::Flag(self.composefs_verity)));
        }
        entries.push(("sysroot-ro", Value::Flag(self.sysroot_readonly)));
        if let Some(directory) = &self.transient_etc {
            entries.push(("transient-etc", Value::Text(directory)));
        }
        gv!("a{sv}").serialize_to_vec(entries.iter())
    }

    /// Reads the file's content. Unknown keys are skipped and an entry of another type counts as absent, as in
    /// libostree; nothing is an error, because the empty file of versions before v2022.8 is fine too. More than
    /// [`MAX_SIZE`] bytes are none.
    pub fn from_bytes(data: &[u8]) -> Self {
        let mut booted = Booted::default();
        let data = copy_to_align::<A8>(if data.len() > MAX_SIZE { &[] } else { data });
        for entry in gv!("a{sv}").cast(data.as_aligned()) {
            let (key, value) = entry.to_tuple();
            let text = || value.get(gv!("s")).map(|s| s.to_str().into());
            let flag = || value.get(gv!("b")).is_some_and(|b| b.to_bool());
            match key.to_str() {
                "backing-root-device-inode" => {
                    booted.device_inode = value.get(gv!("(tt)")).map(|pair| {
                        let (device, inode) = pair.to_tuple();
                        (*device, *inode)
                    });
                }
                "root.transient" => booted.root_transient = flag(),
                "root.transient-ro" => booted.root_transient_ro = flag(),
                "composefs" => booted.composefs = flag(),
                "composefs.verity" => booted.composefs_verity = flag(),
                "composefs.signed" => booted.composefs_signed = text(),
                "sysroot-ro" => booted.sysroot_readonly = flag(),
                "transient-etc" => booted.transient_etc = text(),
                _ => {}
            }
        }
        booted
    }
}

#[cfg(test)]
mod tests {
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
