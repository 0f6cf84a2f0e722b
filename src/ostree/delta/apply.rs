//! Runs the operations of a part.
//!
//! They are libostree's seven (`ostree-repo-static-delta-processing.c`). Where libostree would run into an assertion or
//! take no notice, this refuses: an object opened inside another, one closed that was not open, one that is listed and not
//! made. An object that is there already is passed over, as libostree does.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};

use super::super::content::TARGET_MAX;
use super::super::object::{Checksum, Kind, OBJECT_MAX};
use super::super::tree::{DirTree, Meta, SYMLINK, TYPE_BITS};
use super::bspatch::{self, Patch, PatchError};
use super::lzma::LzmaError;
use super::payload::{After, Bytes, Payload, PayloadError, Scratch, exact};
use super::{Objects, Part, xz};

/// The most that a part may unpack to, in bytes.
pub const PAYLOAD_MAX: u64 = 1 << 32;
/// What a part may unpack to besides its objects, for each object: operations, attributes, the target of a link, which
/// some versions of libostree do not count.
const PER_OBJECT: u64 = 8 * 1024;
/// The same for the whole part.
const PER_PART: u64 = 1024 * 1024;
/// Bytes of content that are handled at once.
const PIECE: usize = 64 * 1024;
/// Bytes of operations that are read at once.
const OPERATIONS: usize = 4096;
/// A varint of 64 bits.
const VARINT_MAX: u32 = 10;

/// Why a part is not applied. What it made before is in the repository, each object by its own right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ApplyError<O, I> {
    /// The repository refused an object, or cannot be read.
    Objects(O),
    /// The part cannot be read, or the scratch file not be written or read.
    Unreadable(I),
    /// It has this many bytes, not as many as the superblock says.
    Size(u64),
    /// It has this checksum, not the one that the superblock names.
    Checksum(Checksum),
    /// It is packed in a way that is not known.
    Packing(u8),
    /// It is packed with LZMA and damaged.
    Damaged,
    /// It unpacks to more than the superblock allows for.
    Bomb,
    /// What was unpacked is not in form, or an operation wants something of it that there is not.
    Payload,
    /// Extended attributes are not as they must be.
    Attributes,
    /// A file is neither regular nor a symbolic link.
    Mode(u32),
    /// An operation that there is not.
    Operation(u8),
    /// An operation that has no sense here: this one.
    Order(u8),
    /// It makes more, or larger, objects than the superblock says.
    TooMuch,
    /// The target of a symbolic link is none.
    Target,
    /// What a difference is applied to is shorter than it should be.
    Source(Checksum),
    /// A difference whose numbers lead nowhere.
    Difference,
    /// It ends before all its objects are made.
    Incomplete,
}

impl<O: fmt::Display, I: fmt::Display> fmt::Display for ApplyError<O, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplyError::Objects(e) => e.fmt(f),
            ApplyError::Unreadable(e) => e.fmt(f),
            ApplyError::Size(size) => {
                write!(f, "the part has {size} bytes, the superblock says another size")
            }
            ApplyError::Checksum(found) => {
                write!(f, "the part has the checksum {found}, not the superblock's")
            }
            ApplyError::Packing(byte) => write!(f, "the part is packed in an unknown way, {byte:#04x}"),
            ApplyError::Damaged => f.write_str("the part is damaged: its LZMA cannot be unpacked"),
            ApplyError::Bomb => f.write_str("the part unpacks to more than its objects can need"),
            ApplyError::Payload => f.write_str("the part is damaged: what is in it is not in form"),
            ApplyError::Attributes => f.write_str("the part has extended attributes out of form"),
            ApplyError::Mode(mode) => {
                write!(f, "the part has a file of mode {mode:o}, neither regular nor a symbolic link")
            }
            ApplyError::Operation(byte) => write!(f, "the part has an unknown operation {byte:#04x}"),
            ApplyError::Order(byte) => {
                write!(f, "the part has operation '{}' where it cannot be", byte.escape_ascii())
            }
            ApplyError::TooMuch => f.write_str("the part makes more than the superblock says"),
            ApplyError::Target => f.write_str("the part has a symbolic link whose target cannot be one"),
            ApplyError::Source(name) => write!(f, "the part takes more of object {name} than there is"),
            ApplyError::Difference => f.write_str("the part has a difference whose numbers lead nowhere"),
            ApplyError::Incomplete => f.write_str("the part ends before all its objects are made"),
        }
    }
}

impl<O, I> From<PayloadError<I>> for ApplyError<O, I> {
    fn from(error: PayloadError<I>) -> Self {
        match error {
            PayloadError::Unreadable(error) => ApplyError::Unreadable(error),
            PayloadError::Form => ApplyError::Payload,
            PayloadError::Attributes(_) => ApplyError::Attributes,
            PayloadError::Mode(mode) => ApplyError::Mode(mode),
        }
    }
}

impl<O, I> From<LzmaError<I>> for ApplyError<O, I> {
    fn from(error: LzmaError<I>) -> Self {
        match error {
            LzmaError::Unreadable(error) => ApplyError::Unreadable(error),
            LzmaError::Damaged => ApplyError::Damaged,
            LzmaError::TooLarge => ApplyError::Bomb,
        }
    }
}

/// What a part came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// Objects that it made.
    pub made: usize,
    /// Objects that were there already.
    pub present: usize,
    /// Bytes of content of those that it made.
    pub bytes: u64,
    /// Bytes that it unpacked to.
    pub unpacked: u64,
}

/// The most that a part may unpack to. A difference is at most as long as what it makes, and its numbers, 24 bytes for
/// every few: seldom more than twice that in all.
fn payload_limit(part: &Part<'_>) -> u64 {
    let objects = (part.count() as u64).saturating_mul(PER_OBJECT);
    part.usize.saturating_mul(2).saturating_add(objects).saturating_add(PER_PART).min(PAYLOAD_MAX)
}

/// Makes the objects of a part, whose bytes these are, with an empty scratch file.
///
/// # Errors
/// See [`ApplyError`].
pub fn apply_part<O: Objects, I>(
    objects: &mut O,
    part: &Part<'_>,
    bytes: &mut dyn Bytes<Error = I>,
    scratch: &mut dyn Scratch<Error = I>,
) -> Result<Report, ApplyError<O::Error, I>> {
    if bytes.size() != part.size {
        return Err(ApplyError::Size(bytes.size()));
    }
    check(part, bytes)?;
    let mut packing = [0; 1];
    exact(bytes, 0, &mut packing)?;
    let mut rest = After::new(bytes, 1);
    match packing {
        [0] => run(objects, part, &mut rest),
        [b'x'] => {
            xz::unpack(&mut rest, scratch, payload_limit(part))?;
            run(objects, part, &mut Unpacked(scratch))
        }
        [other] => Err(ApplyError::Packing(other)),
    }
}

/// A scratch file that is only read any more.
struct Unpacked<'a, I>(&'a mut dyn Scratch<Error = I>);

impl<I> Bytes for Unpacked<'_, I> {
    type Error = I;

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, I> {
        self.0.read_at(offset, buffer)
    }
}

/// Nothing of a part is looked at before this.
fn check<O, I>(part: &Part<'_>, bytes: &mut dyn Bytes<Error = I>) -> Result<(), ApplyError<O, I>> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < part.size {
        let count = usize::try_from(part.size - at).unwrap_or(PIECE).min(PIECE);
        let piece = piece.get_mut(..count).unwrap_or_default();
        exact(bytes, at, piece)?;
        hash.update(piece);
        at += count as u64;
    }
    let found = Checksum(hash.finalize().into());
    if found == part.checksum { Ok(()) } else { Err(ApplyError::Checksum(found)) }
}

fn run<O: Objects, I>(
    objects: &mut O,
    part: &Part<'_>,
    bytes: &mut dyn Bytes<Error = I>,
) -> Result<Report, ApplyError<O::Error, I>> {
    let report = Report { unpacked: bytes.size(), ..Report::default() };
    let room = part.usize.saturating_add((part.count() as u64).saturating_mul(PER_OBJECT));
    // libostree does not look into a part that makes nothing.
    if part.count() == 0 {
        return Ok(report);
    }
    let mut machine = Machine {
        objects,
        payload: Payload::open(bytes)?,
        operations: Vec::new(),
        at: 0,
        place: 0,
        output: None,
        source: None,
        room,
        report,
        piece: vec![0; PIECE],
    };
    let done = machine.run(part);
    if let Some(Output { draft: Some(draft), .. }) = machine.output {
        // What is left of a part that was refused.
        machine.objects.discard(draft).map_err(ApplyError::Objects)?;
    }
    done.map(|()| machine.report)
}

/// The file that is being made.
struct Output<D> {
    name: Checksum,
    /// `None` where the object is there already.
    draft: Option<D>,
    size: u64,
    left: u64,
}

/// Where bytes are read from instead of the data.
struct Origin<S> {
    name: Checksum,
    /// Opened when it is needed.
    open: Option<S>,
}

struct Machine<'a, 'p, O: Objects, I> {
    objects: &'a mut O,
    payload: Payload<'p, I>,
    /// Those that were read, the next one at `at`; `place` is where the next ones are.
    operations: Vec<u8>,
    at: usize,
    place: u64,
    output: Option<Output<O::Draft>>,
    source: Option<Origin<O::Source>>,
    room: u64,
    report: Report,
    piece: Vec<u8>,
}

impl<O: Objects, I> Machine<'_, '_, O, I> {
    fn run(&mut self, part: &Part<'_>) -> Result<(), ApplyError<O::Error, I>> {
        let mut listed = part.objects();
        while let Some(operation) = self.byte()? {
            match operation {
                b'S' | b'o' if self.output.is_some() => return Err(ApplyError::Order(operation)),
                b'S' => {
                    let (kind, name) = listed.next().ok_or(ApplyError::TooMuch)?;
                    self.splice(kind, name)?;
                    self.source = None;
                }
                b'o' => match listed.next() {
                    Some((Kind::File, name)) => {
                        let (mode, attributes, size) = (self.number()?, self.number()?, self.number()?);
                        self.open(name, mode, attributes, size)?;
                    }
                    Some(_) => return Err(ApplyError::Order(operation)),
                    None => return Err(ApplyError::TooMuch),
                },
                b'w' => {
                    let (size, offset) = (self.number()?, self.number()?);
                    self.write(size, offset)?;
                }
                b'r' => {
                    let offset = self.number()?;
                    let mut name = [0; 32];
                    self.payload.data(offset, &mut name)?;
                    self.source = Some(Origin { name: Checksum(name), open: None });
                }
                b'R' => self.source = None,
                b'c' => {
                    self.close()?;
                    self.source = None;
                }
                b'B' => {
                    let (offset, size) = (self.number()?, self.number()?);
                    self.patch(offset, size)?;
                }
                other => return Err(ApplyError::Operation(other)),
            }
        }
        let whole = self.output.is_none() && listed.next().is_none();
        if whole { Ok(()) } else { Err(ApplyError::Incomplete) }
    }

    fn byte(&mut self) -> Result<Option<u8>, ApplyError<O::Error, I>> {
        if self.at == self.operations.len() {
            let left = self.payload.operations_size() - self.place;
            self.operations.resize(usize::try_from(left).unwrap_or(OPERATIONS).min(OPERATIONS), 0);
            self.payload.operations(self.place, &mut self.operations)?;
            self.place += self.operations.len() as u64;
            self.at = 0;
        }
        let byte = self.operations.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    /// Seven bits in each byte, the lowest first. As libostree, it takes any form of a number of up to ten bytes;
    /// one that has more than 64 bits is refused.
    fn number(&mut self) -> Result<u64, ApplyError<O::Error, I>> {
        let mut value = 0u64;
        for place in 0..VARINT_MAX {
            let byte = self.byte()?.ok_or(ApplyError::Payload)?;
            let bits = u64::from(byte & 0x7f);
            if place == VARINT_MAX - 1 && bits > 1 {
                break;
            }
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ApplyError::Payload)
    }

    /// What is made counts against what the superblock says.
    fn take(&mut self, size: u64) -> Result<(), ApplyError<O::Error, I>> {
        self.room = self.room.checked_sub(size).ok_or(ApplyError::TooMuch)?;
        Ok(())
    }

    fn made(&mut self, size: u64) {
        self.report.made += 1;
        self.report.bytes += size;
    }

    /// A whole object that is in the data.
    fn splice(&mut self, kind: Kind, name: Checksum) -> Result<(), ApplyError<O::Error, I>> {
        if kind == Kind::File {
            let (mode, attributes) = (self.number()?, self.number()?);
            let (size, offset) = (self.number()?, self.number()?);
            let meta = self.payload.meta(mode, attributes)?;
            if meta.mode & TYPE_BITS == SYMLINK {
                return self.link(name, &meta, size, offset);
            }
            self.open_as(name, &meta, size)?;
            self.write_data(size, offset)?;
            return self.close();
        }
        let (size, offset) = (self.number()?, self.number()?);
        if !self.payload.has(offset, size) || size > OBJECT_MAX as u64 {
            return Err(ApplyError::Payload);
        }
        if self.objects.has(&name, kind).map_err(ApplyError::Objects)? {
            self.report.present += 1;
            return Ok(());
        }
        self.take(size)?;
        let mut data = vec![0; size as usize];
        self.payload.data(offset, &mut data)?;
        // A checksum says nothing of what kind of object it is.
        let whole = match kind {
            Kind::DirTree => DirTree::parse(&data).is_ok(),
            _ => Meta::parse(&data).is_ok(),
        };
        if !whole {
            return Err(ApplyError::Payload);
        }
        self.objects.put(&name, kind, &data).map_err(ApplyError::Objects)?;
        self.made(size);
        Ok(())
    }

    fn link(
        &mut self,
        name: Checksum,
        meta: &Meta,
        size: u64,
        offset: u64,
    ) -> Result<(), ApplyError<O::Error, I>> {
        if size == 0 || size > TARGET_MAX as u64 {
            return Err(ApplyError::Target);
        }
        let mut target = vec![0; size as usize];
        self.payload.data(offset, &mut target)?;
        let target = core::str::from_utf8(&target).ok().filter(|text| !text.contains('\0'));
        let target = target.ok_or(ApplyError::Target)?;
        if self.objects.has(&name, Kind::File).map_err(ApplyError::Objects)? {
            self.report.present += 1;
            return Ok(());
        }
        self.take(size)?;
        self.objects.symlink(&name, meta, target).map_err(ApplyError::Objects)?;
        self.made(size);
        Ok(())
    }

    fn open(
        &mut self,
        name: Checksum,
        mode: u64,
        attributes: u64,
        size: u64,
    ) -> Result<(), ApplyError<O::Error, I>> {
        let meta = self.payload.meta(mode, attributes)?;
        if meta.mode & TYPE_BITS == SYMLINK {
            return Err(ApplyError::Mode(meta.mode));
        }
        self.open_as(name, &meta, size)
    }

    fn open_as(&mut self, name: Checksum, meta: &Meta, size: u64) -> Result<(), ApplyError<O::Error, I>> {
        let draft = if self.objects.has(&name, Kind::File).map_err(ApplyError::Objects)? {
            None
        } else {
            self.take(size)?;
            Some(self.objects.draft(&name, meta, size).map_err(ApplyError::Objects)?)
        };
        self.output = Some(Output { name, draft, size, left: size });
        Ok(())
    }

    fn close(&mut self) -> Result<(), ApplyError<O::Error, I>> {
        let Some(Output { name, draft, size, left }) = self.output.take() else {
            return Err(ApplyError::Order(b'c'));
        };
        let Some(draft) = draft else {
            self.report.present += 1;
            return Ok(());
        };
        if left > 0 {
            self.objects.discard(draft).map_err(ApplyError::Objects)?;
            return Err(ApplyError::Incomplete);
        }
        self.objects.seal(draft, &name).map_err(ApplyError::Objects)?;
        self.made(size);
        Ok(())
    }

    /// Counts what goes to the file; `false` where it is there already.
    fn goes_on(&mut self, operation: u8, size: u64) -> Result<bool, ApplyError<O::Error, I>> {
        let output = self.output.as_mut().ok_or(ApplyError::Order(operation))?;
        output.left = output.left.checked_sub(size).ok_or(ApplyError::TooMuch)?;
        Ok(output.draft.is_some())
    }

    fn write(&mut self, size: u64, offset: u64) -> Result<(), ApplyError<O::Error, I>> {
        if self.source.is_none() {
            return self.write_data(size, offset);
        }
        if !self.goes_on(b'w', size)? {
            return Ok(());
        }
        let (name, source) = origin(self.objects, &mut self.source)?;
        let draft = self.output.as_mut().and_then(|output| output.draft.as_mut());
        let draft = draft.ok_or(ApplyError::Order(b'w'))?;
        let (mut offset, mut left) = (offset, size);
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let piece = self.piece.get_mut(..count).unwrap_or_default();
            let read = self.objects.read_at(source, offset, piece).map_err(ApplyError::Objects)?;
            if read == 0 {
                return Err(ApplyError::Source(name));
            }
            let piece = piece.get(..read).unwrap_or_default();
            self.objects.append(draft, piece).map_err(ApplyError::Objects)?;
            left -= read as u64;
            offset = offset.checked_add(read as u64).ok_or(ApplyError::Source(name))?;
        }
        Ok(())
    }

    fn write_data(&mut self, size: u64, offset: u64) -> Result<(), ApplyError<O::Error, I>> {
        if !self.payload.has(offset, size) {
            return Err(ApplyError::Payload);
        }
        if !self.goes_on(b'w', size)? {
            return Ok(());
        }
        let draft = self.output.as_mut().and_then(|output| output.draft.as_mut());
        let draft = draft.ok_or(ApplyError::Order(b'w'))?;
        let mut done = 0;
        while done < size {
            let count = usize::try_from(size - done).unwrap_or(PIECE).min(PIECE);
            let piece = self.piece.get_mut(..count).unwrap_or_default();
            self.payload.data(offset + done, piece)?;
            self.objects.append(draft, piece).map_err(ApplyError::Objects)?;
            done += count as u64;
        }
        Ok(())
    }

    /// The whole file, from the source and a difference.
    fn patch(&mut self, offset: u64, size: u64) -> Result<(), ApplyError<O::Error, I>> {
        if !self.payload.has(offset, size) {
            return Err(ApplyError::Payload);
        }
        let whole = self.output.as_ref().map_or(0, |output| output.size);
        if !self.goes_on(b'B', whole)? {
            return Ok(());
        }
        if self.source.is_none() {
            return Err(ApplyError::Order(b'B'));
        }
        let (_, source) = origin(self.objects, &mut self.source)?;
        let draft = self.output.as_mut().and_then(|output| output.draft.as_mut());
        let draft = draft.ok_or(ApplyError::Order(b'B'))?;
        let mut between = Between {
            objects: self.objects,
            payload: &mut self.payload,
            source,
            draft,
            at: offset,
            end: offset + size,
            buffer: &mut self.piece,
            range: (0, 0),
        };
        bspatch::apply(&mut between, whole).map_err(|error| match error {
            PatchError::Other(error) => error,
            PatchError::Control | PatchError::Idle => ApplyError::Difference,
        })
    }
}

/// A source and its name.
type Opened<'s, O> = (Checksum, &'s mut <O as Objects>::Source);

/// The open source of what is written.
fn origin<'s, O: Objects, I>(
    objects: &mut O,
    source: &'s mut Option<Origin<O::Source>>,
) -> Result<Opened<'s, O>, ApplyError<O::Error, I>> {
    let origin = source.as_mut().ok_or(ApplyError::Order(b'r'))?;
    let source = match &mut origin.open {
        Some(source) => source,
        none => none.insert(objects.open(&origin.name).map_err(ApplyError::Objects)?.0),
    };
    Ok((origin.name, source))
}

/// A difference on its way from the data to a file.
struct Between<'a, 'p, O: Objects, I> {
    objects: &'a mut O,
    payload: &'a mut Payload<'p, I>,
    source: &'a mut O::Source,
    draft: &'a mut O::Draft,
    at: u64,
    end: u64,
    /// What was read of the difference ahead, and which part of that is still to come: its numbers are read by few bytes.
    buffer: &'a mut [u8],
    range: (usize, usize),
}

impl<O: Objects, I> Patch for Between<'_, '_, O, I> {
    type Error = ApplyError<O::Error, I>;

    fn difference(&mut self, buffer: &mut [u8]) -> Result<(), Self::Error> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let (from, to) = self.range;
            if from == to {
                let left = usize::try_from(self.end - self.at).unwrap_or(PIECE).min(PIECE);
                if left == 0 {
                    return Err(ApplyError::Difference);
                }
                self.payload.data(self.at, self.buffer.get_mut(..left).unwrap_or_default())?;
                self.at += left as u64;
                self.range = (0, left);
                continue;
            }
            let ready = self.buffer.get(from..to).unwrap_or_default();
            let count = rest.iter_mut().zip(ready).map(|(to, from)| *to = *from).count();
            self.range = (from + count, to);
            done += count;
        }
        Ok(())
    }

    fn old(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        self.objects.read_at(self.source, offset, buffer).map_err(ApplyError::Objects)
    }

    fn made(&mut self, data: &[u8]) -> Result<(), Self::Error> {
        self.objects.append(self.draft, data).map_err(ApplyError::Objects)
    }
}
