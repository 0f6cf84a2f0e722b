//! Where everything is in an image, and its bytes: a header, the superblock, the inodes each with its attributes and the
//! end of its content, the attributes that are shared, and whole blocks of names.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::attributes::Shared;
use super::tree::{Body, Inode};

/// Bytes of a block.
const BLOCK: u64 = 4096;
/// Inodes begin at multiples of this, and are numbered by it.
const SLOT: u64 = 32;
/// Where the superblock is, and where the inodes begin.
const SUPERBLOCK: usize = 1024;
const INODES: u64 = 1024 + 128;
/// `LCFS_EROFS_MAGIC`, of the header; the first word that libcomposefs looks at.
const MAGIC: u32 = 0xd078_629a;
/// `EROFS_SUPER_MAGIC_V1`.
const EROFS: u32 = 0xE0F5_E1E2;
/// Compact inodes share a time, and attributes have a filter.
const FEATURES: u32 = 2 | 4;
/// What an entry of a directory takes besides its name, in bytes.
const ENTRY: usize = 12;
/// So much is handed on at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// Where an inode is, and how it is written.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    compact: bool,
    /// Blocks of its own, at the end of the image.
    blocks: u64,
    /// Bytes of content right behind it.
    tail: usize,
}

/// Writes the image of a tree that is whole, part by part.
pub fn write(inodes: &[Inode], put: &mut dyn FnMut(&[u8])) {
    let shared = Shared::of(inodes.iter().map(|inode| &inode.attributes));
    let (places, end) = places(inodes, &shared);
    let data = (end + shared.size as u64).next_multiple_of(BLOCK);
    let blocks = data / BLOCK + places.iter().map(|place| place.blocks).sum::<u64>();
    let mut out = Out { buffer: Vec::with_capacity(2 * BUFFER), written: 0, put };
    header(&mut out.buffer, inodes);
    superblock(&mut out.buffer, &places, end, blocks);
    let mut next = data;
    for (number, (inode, place)) in inodes.iter().zip(&places).enumerate() {
        out.pad(place.at);
        let address = if place.blocks > 0 { next / BLOCK } else { 0 };
        next += place.blocks * BLOCK;
        let attributes = shared.size_of(&inode.attributes);
        let numbers = [short(number as u64), links(inode, inodes), short(address)];
        head(&mut out.buffer, inode, *place, numbers, attributes);
        shared.write_of(&inode.attributes, index(end % BLOCK), &mut out.buffer);
        match &inode.body {
            Body::Directory if place.tail > 0 => {
                let last = chunks(&inode.children).pop().unwrap_or_default();
                entries(&mut out.buffer, part(inode, last), inodes, &places);
            }
            Body::Link(text) if place.blocks == 0 => out.buffer.extend(text.as_bytes()),
            // No block of the image has its content.
            Body::File { .. } => out.buffer.extend(u32::MAX.to_le_bytes()),
            _ => {}
        }
        out.flush(BUFFER);
    }
    out.pad(end);
    shared.write(&mut out.buffer);
    out.pad(data);
    for (inode, place) in inodes.iter().zip(&places).filter(|(_, place)| place.blocks > 0) {
        match &inode.body {
            Body::Directory => {
                for chunk in chunks(&inode.children).into_iter().take(index(place.blocks)) {
                    entries(&mut out.buffer, part(inode, chunk), inodes, &places);
                    out.pad_block();
                }
            }
            Body::Link(text) => {
                out.buffer.extend(text.as_bytes());
                out.pad_block();
            }
            _ => {}
        }
    }
    out.flush(0);
}

/// What is written, and how much.
struct Out<'a> {
    buffer: Vec<u8>,
    written: u64,
    put: &'a mut dyn FnMut(&[u8]),
}

impl Out<'_> {
    /// Zeros up to a place.
    fn pad(&mut self, to: u64) {
        let length = to.saturating_sub(self.written);
        self.buffer.resize(index(length).max(self.buffer.len()), 0);
    }

    fn pad_block(&mut self) {
        let at = self.written + self.buffer.len() as u64;
        self.pad(at.next_multiple_of(BLOCK));
        self.flush(BUFFER);
    }

    fn flush(&mut self, above: usize) {
        if self.buffer.len() > above {
            (self.put)(&self.buffer);
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
    }
}

/// A number that is known to be small; a tree has a limit.
fn short(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Places the inodes one after the other, so that the end of no content goes over the end of a block.
fn places(inodes: &[Inode], shared: &Shared<'_>) -> (Vec<Place>, u64) {
    let mut places = Vec::with_capacity(inodes.len());
    let mut at = INODES;
    for inode in inodes {
        let (mut blocks, mut tail) = content(inode);
        let size = match &inode.body {
            Body::File { length, .. } => *length,
            _ => blocks * BLOCK + tail as u64,
        };
        let fits = |number: u32| u16::try_from(number).is_ok();
        let compact =
            fits(inode.uid) && fits(inode.gid) && fits(links(inode, inodes)) && u32::try_from(size).is_ok();
        let head = if compact { 32 } else { 64 } + shared.size_of(&inode.attributes) as u64;
        at = at.next_multiple_of(SLOT);
        let end = head + tail as u64;
        match &inode.body {
            // All of a link in one block, if it can be.
            Body::Link(_) => {
                if end >= BLOCK {
                    blocks += 1;
                    tail = 0;
                }
                if at / BLOCK != (at + end - 1) / BLOCK {
                    at = at.next_multiple_of(BLOCK);
                }
            }
            // Of the others the content alone.
            _ => {
                let room = |at: u64| BLOCK - (at + head) % BLOCK;
                if room(at) < tail as u64 {
                    let later = at + room(at).next_multiple_of(SLOT);
                    if tail as u64 <= room(later) {
                        at = later;
                    } else {
                        blocks += 1;
                        tail = 0;
                        at = at.next_multiple_of(BLOCK);
                    }
                }
            }
        }
        places.push(Place { at, compact, blocks, tail });
        at += head + tail as u64;
    }
    (places, at.next_multiple_of(SLOT))
}

/// Blocks and bytes of an inode's content in the image, as far as it has any there.
fn content(inode: &Inode) -> (u64, usize) {
    match &inode.body {
        Body::Directory => {
            let chunks = chunks(&inode.children);
            let length = |chunk: &Range<usize>| {
                let names = inode.children.get(chunk.clone()).unwrap_or_default();
                names.iter().map(|(name, _)| ENTRY + name.len()).sum::<usize>()
            };
            match chunks.last().map(length) {
                // More than half a block is a block.
                Some(last) if last <= (BLOCK / 2) as usize => (chunks.len() as u64 - 1, last),
                _ => (chunks.len() as u64, 0),
            }
        }
        Body::Link(text) => (0, text.len()),
        Body::File { .. } => (0, 4),
        Body::Empty | Body::Whiteout => (0, 0),
    }
}

/// Which entries of a directory are in one block.
fn chunks(children: &[(String, usize)]) -> Vec<Range<usize>> {
    let (mut all, mut first, mut length) = (Vec::new(), 0, 0);
    for (number, (name, _)) in children.iter().enumerate() {
        let entry = ENTRY + name.len();
        if length + entry > BLOCK as usize {
            all.push(first..number);
            (first, length) = (number, 0);
        }
        length += entry;
    }
    all.push(first..children.len());
    all
}

fn part(inode: &Inode, chunk: Range<usize>) -> &[(String, usize)] {
    inode.children.get(chunk).unwrap_or_default()
}

/// How many names an inode has.
fn links(inode: &Inode, inodes: &[Inode]) -> u32 {
    if inode.body != Body::Directory {
        return 1;
    }
    let directory = |(name, child): &&(String, usize)| {
        !matches!(name.as_str(), "." | "..")
            && inodes.get(*child).is_some_and(|child| child.body == Body::Directory)
    };
    short(2 + inode.children.iter().filter(directory).count() as u64)
}

fn header(to: &mut Vec<u8>, inodes: &[Inode]) {
    let list = |(name, _): &(Vec<u8>, Vec<u8>)| {
        matches!(name.as_slice(), b"system.posix_acl_access" | b"system.posix_acl_default")
    };
    let lists = inodes.iter().any(|inode| inode.attributes.iter().any(list));
    // Version 1 of erofs's side, flags, version 0 of composefs's.
    for word in [MAGIC, 1, u32::from(lists), 0] {
        to.extend(word.to_le_bytes());
    }
    to.resize(SUPERBLOCK, 0);
}

/// `struct erofs_super_block`; times, names and everything that is about compression are 0.
fn superblock(to: &mut Vec<u8>, places: &[Place], end: u64, blocks: u64) {
    let root = places.first().map_or(0, |place| place.at / SLOT);
    for word in [EROFS, 0, FEATURES] {
        to.extend(word.to_le_bytes());
    }
    to.extend([12, 0]);
    to.extend(u16::try_from(root).unwrap_or(u16::MAX).to_le_bytes());
    to.extend((places.len() as u64).to_le_bytes());
    to.extend([0; 12]);
    for word in [short(blocks), 0, short(end / BLOCK)] {
        to.extend(word.to_le_bytes());
    }
    to.resize(index(INODES), 0);
}

/// `struct erofs_inode_compact` or `erofs_inode_extended`.
fn head(
    to: &mut Vec<u8>,
    inode: &Inode,
    place: Place,
    [number, links, address]: [u32; 3],
    attributes: usize,
) {
    let (layout, size, word) = match &inode.body {
        // In chunks: what follows is 12 less than the bits of a chunk's length, of which the file has one.
        Body::File { length, .. } => {
            let bits = if *length < 2 { 1 } else { (length - 1).ilog2() + 1 };
            (4, *length, bits.saturating_sub(12))
        }
        Body::Link(text) => (if place.tail > 0 { 2 } else { 0 }, text.len() as u64, address),
        _ => (if place.tail > 0 { 2u16 } else { 0 }, place.blocks * BLOCK + place.tail as u64, address),
    };
    let icount = if attributes == 0 { 0 } else { (attributes - super::attributes::HEADER) / 4 + 1 };
    let half = |number: u32| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
    to.extend((layout << 1 | u16::from(!place.compact)).to_le_bytes());
    to.extend(half(icount as u32));
    to.extend(half(inode.mode));
    if place.compact {
        to.extend(half(links));
        to.extend(short(size).to_le_bytes());
        to.extend([0; 4]);
    } else {
        to.extend([0; 2]);
        to.extend(size.to_le_bytes());
    }
    to.extend(word.to_le_bytes());
    to.extend(number.to_le_bytes());
    if place.compact {
        to.extend(half(inode.uid));
        to.extend(half(inode.gid));
        to.extend([0; 4]);
    } else {
        to.extend(inode.uid.to_le_bytes());
        to.extend(inode.gid.to_le_bytes());
        to.extend([0; 12]);
        to.extend(links.to_le_bytes());
        to.extend([0; 16]);
    }
}

/// `struct erofs_dirent`s, then their names.
fn entries(to: &mut Vec<u8>, children: &[(String, usize)], inodes: &[Inode], places: &[Place]) {
    let mut name_at = children.len() * ENTRY;
    for (name, child) in children {
        let number = places.get(*child).map_or(0, |place| place.at / SLOT);
        let kind = match inodes.get(*child).map(|inode| &inode.body) {
            Some(Body::File { .. } | Body::Empty) => 1,
            Some(Body::Directory) => 2,
            Some(Body::Whiteout) => 3,
            Some(Body::Link(_)) => 7,
            None => 0,
        };
        to.extend(number.to_le_bytes());
        to.extend(u16::try_from(name_at).unwrap_or(u16::MAX).to_le_bytes());
        to.extend([kind, 0]);
        name_at += name.len();
    }
    children.iter().for_each(|(name, _)| to.extend(name.as_bytes()));
}
