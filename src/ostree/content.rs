//! A file or symbolic link as an archive repository serves it, `.filez`: a header of known length, then, of a file, its
//! content as a raw deflate stream.
//!
//! Format: `_ostree_zlib_file_header_new` of libostree v2026.4: the length of the header as a big-endian `u`, four zero
//! bytes, and `(tuuuusa(ayay))`: size, owner, group, mode, device, target, extended attributes.

use alloc::string::String;
use core::fmt;

use super::tree::{Meta, PERMISSION_BITS, REGULAR, SYMLINK, TYPE_BITS, attributes};
use super::variant::{self, BYTES, U32, U64};

/// Bytes in front of the header: its length, and padding.
pub const PREFIX_SIZE: usize = 8;
/// The longest header that is read, in bytes: all attributes that Linux allows, and the longest target.
pub const HEADER_MAX: usize = 128 * 1024;
/// The longest target of a symbolic link, in bytes (`PATH_MAX` and its NUL).
pub const TARGET_MAX: usize = 4095;
/// The largest file that is taken, in bytes.
pub const FILE_MAX: u64 = 1 << 40;

/// What a file or symbolic link is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Owner, mode and attributes.
    pub meta: Meta,
    /// Where a symbolic link points; `None` of a file.
    pub target: Option<String>,
    /// Bytes of a file's content; 0 of a link.
    pub size: u64,
}

/// Why bytes are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// It would have this many bytes, more than [`HEADER_MAX`] or none.
    Length(u32),
    /// It is not its GVariant in normal form.
    Form,
    /// Neither a regular file nor a symbolic link.
    Mode(u32),
    /// It names a device, which only device nodes have.
    Device,
    /// A file with a target, or a link without one, or with one that is too long.
    Target,
    /// The file would be larger than [`FILE_MAX`].
    Size(u64),
    /// An extended attribute is out of form.
    Attribute,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Length(length) => {
                write!(f, "its header has {length} bytes, 1 to {HEADER_MAX} are read")
            }
            HeaderError::Form => f.write_str("its header is not a GVariant in normal form"),
            HeaderError::Mode(mode) => {
                write!(f, "its mode {mode:o} is neither that of a file nor of a symbolic link")
            }
            HeaderError::Device => f.write_str("its header names a device"),
            HeaderError::Target => f.write_str("the target in its header is none that it can have"),
            HeaderError::Size(size) => {
                write!(f, "it says that it has {size} bytes, at most {FILE_MAX} are taken")
            }
            HeaderError::Attribute => f.write_str("it has an extended attribute out of form"),
        }
    }
}

/// The length of the header that follows these bytes.
///
/// # Errors
/// When it is none, too long, or the padding is not zero.
pub fn header_length(prefix: &[u8; PREFIX_SIZE]) -> Result<usize, HeaderError> {
    let [a, b, c, d, padding @ ..] = *prefix;
    let length = u32::from_be_bytes([a, b, c, d]);
    let usable = usize::try_from(length).ok().filter(|length| (1..=HEADER_MAX).contains(length));
    match usable {
        Some(length) if padding == [0; 4] => Ok(length),
        Some(_) => Err(HeaderError::Form),
        None => Err(HeaderError::Length(length)),
    }
}

impl Header {
    /// Reads the header itself.
    ///
    /// # Errors
    /// When anything about it is not as it must be.
    pub fn parse(data: &[u8]) -> Result<Self, HeaderError> {
        let members = [U64, U32, U32, U32, U32, BYTES, BYTES];
        let [size, uid, gid, mode, device, target, list] =
            variant::tuple(data, &members).ok_or(HeaderError::Form)?;
        let number = |bytes| variant::u32_be(bytes).ok_or(HeaderError::Form);
        let size = size.try_into().map(u64::from_be_bytes).map_err(|_| HeaderError::Form)?;
        let target = variant::text(target).ok_or(HeaderError::Form)?;
        if number(device)? != 0 {
            return Err(HeaderError::Device);
        }
        let attributes = attributes(list).map_err(|_| HeaderError::Attribute)?;
        Header::new(
            Meta { uid: number(uid)?, gid: number(gid)?, mode: number(mode)?, attributes },
            target,
            size,
        )
    }

    /// Puts one together, where it makes sense.
    ///
    /// # Errors
    /// When it does not.
    pub fn new(meta: Meta, target: &str, size: u64) -> Result<Self, HeaderError> {
        let link = match meta.mode & !PERMISSION_BITS {
            REGULAR => false,
            SYMLINK => true,
            _ => return Err(HeaderError::Mode(meta.mode)),
        };
        if link == target.is_empty() || target.len() > TARGET_MAX {
            return Err(HeaderError::Target);
        }
        if size > FILE_MAX {
            return Err(HeaderError::Size(size));
        }
        // Some writers put the length of the target there.
        let size = if link { 0 } else { size };
        Ok(Header { meta, target: link.then(|| target.into()), size })
    }
}

/// Whether a mode is that of a symbolic link.
pub fn is_link(mode: u32) -> bool {
    mode & TYPE_BITS == SYMLINK
}

#[cfg(test)]
mod tests {
    use gvariant::{Marker, gv};

    use super::*;

    fn header(size: u64, mode: u32, device: u32, target: &str) -> Result<Header, HeaderError> {
        let list: [(&[u8], &[u8]); 1] = [(b"user.a\0", b"1")];
        Header::parse(&gv!("(tuuuusa(ayay))").serialize_to_vec(&(
            size.to_be(),
            1u32.to_be(),
            2u32.to_be(),
            mode.to_be(),
            device.to_be(),
            target,
            &list[..],
        )))
    }

    #[test]
    fn headers_are_read_or_refused() {
        let file = header(5, 0o104_755, 0, "").unwrap();
        assert_eq!((file.size, file.target, file.meta.mode, file.meta.gid), (5, None, 0o104_755, 2));
        assert_eq!(file.meta.attributes, [(b"user.a".to_vec(), b"1".to_vec())]);
        assert_eq!(header(0, 0o120_777, 0, "../x").unwrap().target.as_deref(), Some("../x"));
        for mode in [0o020_644, 0o060_644, 0o010_644, 0o140_644, 0o040_755, 0o644, 0o1_100_644] {
            assert_eq!(header(0, mode, 0, ""), Err(HeaderError::Mode(mode)));
        }
        assert_eq!(header(0, 0o100_644, 7, ""), Err(HeaderError::Device));
        assert_eq!(header(0, 0o100_644, 0, "t"), Err(HeaderError::Target));
        assert_eq!(header(0, 0o120_777, 0, ""), Err(HeaderError::Target));
        assert_eq!(header(0, 0o120_777, 0, &"t".repeat(4096)), Err(HeaderError::Target));
        assert_eq!(header(u64::MAX, 0o100_644, 0, ""), Err(HeaderError::Size(u64::MAX)));
        assert_eq!(header_length(&[0, 0, 1, 0, 0, 0, 0, 0]), Ok(256));
        assert_eq!(header_length(&[0, 0, 1, 0, 0, 0, 0, 1]), Err(HeaderError::Form));
        assert_eq!(header_length(&[0; 8]), Err(HeaderError::Length(0)));
        assert_eq!(header_length(&[0x7f, 0, 0, 0, 0, 0, 0, 0]), Err(HeaderError::Length(0x7f00_0000)));
    }
}
