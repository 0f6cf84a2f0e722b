//! What is in a part once it is unpacked, `(a(uuu)aa(ayay)ayay)`: tables of modes and of extended attributes, data,
//! operations. It stays where it was unpacked to and is read from there, a piece at a time.

use alloc::vec;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::marker::PhantomData;

use super::super::tree::{self, Meta, TreeError};

/// The largest set of extended attributes that is read, in bytes: what Linux gives a file is less.
pub const ATTRIBUTES_SIZE_MAX: u64 = 256 * 1024;
/// Bytes of a `(uuu)`.
const MODE_SIZE: u64 = 12;

/// Bytes that can be read from any place: the file of a part.
pub trait Bytes {
    /// What can go wrong.
    type Error;

    /// How many there are.
    fn size(&self) -> u64;

    /// Reads into the buffer from an offset, and says how much: less than there is room for at the end only.
    ///
    /// # Errors
    /// As pread(2).
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Self::Error>;
}

/// Where a part is unpacked to. Nothing of it needs to outlive the work.
pub trait Scratch: Bytes {
    /// Writes at the end.
    ///
    /// # Errors
    /// As write(2).
    fn append(&mut self, data: &[u8]) -> Result<(), Self::Error>;
}

/// Bytes in memory, with the errors of bytes elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a, E = Infallible>(&'a [u8], PhantomData<E>);

impl<'a, E> Memory<'a, E> {
    /// These.
    pub fn new(data: &'a [u8]) -> Self {
        Memory(data, PhantomData)
    }
}

fn copy(data: &[u8], offset: u64, buffer: &mut [u8]) -> usize {
    let rest = usize::try_from(offset).ok().and_then(|offset| data.get(offset..)).unwrap_or_default();
    buffer.iter_mut().zip(rest).map(|(to, from)| *to = *from).count()
}

impl<E> Bytes for Memory<'_, E> {
    type Error = E;

    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, E> {
        Ok(copy(self.0, offset, buffer))
    }
}

impl Bytes for Vec<u8> {
    type Error = Infallible;

    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Infallible> {
        Ok(copy(self, offset, buffer))
    }
}

impl Scratch for Vec<u8> {
    fn append(&mut self, data: &[u8]) -> Result<(), Infallible> {
        self.extend_from_slice(data);
        Ok(())
    }
}

/// All but the first bytes of something.
pub struct After<'a, E> {
    bytes: &'a mut dyn Bytes<Error = E>,
    first: u64,
}

impl<'a, E> After<'a, E> {
    /// What comes after `first` bytes.
    pub fn new(bytes: &'a mut dyn Bytes<Error = E>, first: u64) -> Self {
        After { bytes, first }
    }
}

impl<E> Bytes for After<'_, E> {
    type Error = E;

    fn size(&self) -> u64 {
        self.bytes.size().saturating_sub(self.first)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, E> {
        self.bytes.read_at(offset.saturating_add(self.first), buffer)
    }
}

/// Why something of a payload cannot be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PayloadError<E> {
    /// It cannot be read.
    Unreadable(E),
    /// It is not its GVariant in normal form, or there is no such place in it.
    Form,
    /// A set of extended attributes is not as it must be.
    Attributes(TreeError),
    /// The mode is neither that of a regular file nor of a symbolic link.
    Mode(u32),
}

/// Fills the buffer, or there is not that much.
pub(super) fn exact<E>(
    bytes: &mut dyn Bytes<Error = E>,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), PayloadError<E>> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.checked_add(done as u64).ok_or(PayloadError::Form)?;
        match bytes.read_at(at, rest).map_err(PayloadError::Unreadable)? {
            0 => return Err(PayloadError::Form),
            count => done += count,
        }
    }
    Ok(())
}

/// Where the four things are in a payload.
pub struct Payload<'a, E> {
    bytes: &'a mut dyn Bytes<Error = E>,
    modes: u64,
    attributes: u64,
    data: u64,
    operations: u64,
}

impl<'a, E> Payload<'a, E> {
    /// Finds them by the framing offsets at the end.
    ///
    /// # Errors
    /// See [`PayloadError`].
    pub fn open(bytes: &'a mut dyn Bytes<Error = E>) -> Result<Self, PayloadError<E>> {
        let size = bytes.size();
        let width = offset_width(size);
        let end = size.checked_sub(3 * width).ok_or(PayloadError::Form)?;
        let mut ends = [0; 3];
        // They stand in reverse order.
        for (place, value) in ends.iter_mut().rev().enumerate() {
            *value = number(bytes, end + place as u64 * width, width)?;
        }
        let [modes, attributes, data] = ends;
        if !modes.is_multiple_of(MODE_SIZE) || modes > attributes || attributes > data || data > end {
            return Err(PayloadError::Form);
        }
        Ok(Payload { bytes, modes, attributes, data, operations: end })
    }

    /// Bytes of data.
    pub fn data_size(&self) -> u64 {
        self.data - self.attributes
    }

    /// Whether this many bytes of data are there.
    pub fn has(&self, offset: u64, size: u64) -> bool {
        offset.checked_add(size).is_some_and(|end| end <= self.data_size())
    }

    /// Bytes of operations.
    pub fn operations_size(&self) -> u64 {
        self.operations - self.data
    }

    /// Fills the buffer from the data.
    ///
    /// # Errors
    /// When there is not that much.
    pub fn data(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), PayloadError<E>> {
        if !self.has(offset, buffer.len() as u64) {
            return Err(PayloadError::Form);
        }
        exact(self.bytes, self.attributes + offset, buffer)
    }

    /// Fills the buffer from the operations.
    ///
    /// # Errors
    /// When there is not that much.
    pub fn operations(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), PayloadError<E>> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.operations_size());
        end.ok_or(PayloadError::Form)?;
        exact(self.bytes, self.data + offset, buffer)
    }

    /// The entries of the two tables at these places, which make the owner, mode and attributes of a file.
    ///
    /// # Errors
    /// When there are none, or they are not those of a regular file or symbolic link.
    pub fn meta(&mut self, mode: u64, attributes: u64) -> Result<Meta, PayloadError<E>> {
        let at = mode.checked_mul(MODE_SIZE).filter(|at| *at < self.modes).ok_or(PayloadError::Form)?;
        let mut numbers = [[0; 4]; 3];
        exact(self.bytes, at, numbers.as_flattened_mut())?;
        let [uid, gid, mode] = numbers.map(u32::from_be_bytes);
        if mode & !0o7777 != tree::REGULAR && mode & !0o7777 != tree::SYMLINK {
            return Err(PayloadError::Mode(mode));
        }
        let list = self.attribute_list(attributes)?;
        let attributes = tree::attributes(&list).map_err(PayloadError::Attributes)?;
        Ok(Meta { uid, gid, mode, attributes })
    }

    /// An element of the `aa(ayay)`.
    fn attribute_list(&mut self, index: u64) -> Result<Vec<u8>, PayloadError<E>> {
        let size = self.attributes - self.modes;
        let width = offset_width(size);
        let last = size.checked_sub(width).ok_or(PayloadError::Form)?;
        let body = number(self.bytes, self.modes + last, width)?;
        let framing =
            size.checked_sub(body).filter(|bytes| bytes.is_multiple_of(width)).ok_or(PayloadError::Form)?;
        if index >= framing / width {
            return Err(PayloadError::Form);
        }
        let place = self.modes + body + index * width;
        let start = if index == 0 { 0 } else { number(self.bytes, place - width, width)? };
        let end = number(self.bytes, place, width)?;
        let length = end.checked_sub(start).filter(|n| end <= body && *n <= ATTRIBUTES_SIZE_MAX);
        let mut list = vec![0; length.and_then(|n| usize::try_from(n).ok()).ok_or(PayloadError::Form)?];
        exact(self.bytes, self.modes + start, &mut list)?;
        Ok(list)
    }
}

/// Bytes of one framing offset in a container of this size.
fn offset_width(size: u64) -> u64 {
    match size {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

fn number<E>(bytes: &mut dyn Bytes<Error = E>, at: u64, width: u64) -> Result<u64, PayloadError<E>> {
    let mut raw = [0; 8];
    let piece =
        usize::try_from(width).ok().and_then(|width| raw.get_mut(..width)).ok_or(PayloadError::Form)?;
    exact(bytes, at, piece)?;
    Ok(u64::from_le_bytes(raw))
}
