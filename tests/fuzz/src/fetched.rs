//! What comes from a server: heads and bodies of HTTP, headers of file objects, summaries, static deltas.

use std::convert::Infallible;

use bootward::fetch::http::body::{Body, Piece};
use bootward::fetch::http::head;
use bootward::fetch::{Limits, Request};
use bootward::ostree::content::{HEADER_MAX, Header, PREFIX_SIZE, header_length};
use bootward::ostree::delta::payload::Memory;
use bootward::ostree::delta::summary::{Deltas, Summary};
use bootward::ostree::delta::superblock::Part;
use bootward::ostree::delta::{ApplyError, Name, Objects, Superblock, apply_part};
use bootward::ostree::object::{CHECKSUM_SIZE, Checksum, Kind};
use bootward::ostree::tree::Meta;

/// An answer: head, then body; no piece is longer than what came, and no input is used twice.
pub fn http(data: &[u8]) {
    let limits = Limits { head_bytes: 512, fields: 8, ..Limits::default() };
    let end = match head::find_end(data, 0) {
        Ok(Some(end)) => end,
        Ok(None) => return,
        Err(error) => return drop(error.to_string()),
    };
    let (first, mut rest) = data.split_at(end);
    let head = match head::parse(first, &limits) {
        Ok(head) => head,
        Err(error) => return drop(error.to_string()),
    };
    if let Err(error) = head.answers(&Request { from: 3, ..Request::whole("x", 1000) }) {
        let _ = error.to_string();
    }
    let mut body = Body::new(head.framing);
    for _ in 0..data.len() + 2 {
        match body.next(rest, 64, &limits) {
            Ok(Piece::Data(used) | Piece::Skip(used)) => {
                assert!((1..=rest.len()).contains(&used));
                rest = &rest[used..];
            }
            Ok(Piece::More | Piece::End) => return,
            Err(error) => return drop(error.to_string()),
        }
    }
}

/// The header of a file object: what is taken has the sizes that it says.
pub fn filez(data: &[u8]) {
    let Some((prefix, header)) = data.split_first_chunk::<PREFIX_SIZE>() else { return };
    let header = match header_length(prefix) {
        Ok(length) => {
            assert!((1..=HEADER_MAX).contains(&length));
            // The content comes after it.
            &header[..length.min(header.len())]
        }
        Err(error) => return drop(error.to_string()),
    };
    match Header::parse(header) {
        Ok(header) => {
            let target = header.target.unwrap_or_default();
            assert!(target.is_empty() || header.size == 0);
            let again = header.meta.file_header(target.as_bytes());
            assert!(again.len() >= PREFIX_SIZE);
            assert_eq!(Meta::parse_any(&header.meta.serialize()).as_ref(), Ok(&header.meta));
        }
        Err(error) => drop(error.to_string()),
    }
}

/// A summary, or an index of deltas.
pub fn summary(data: &[u8]) {
    match Summary::parse(data) {
        Ok(summary) => {
            for reference in summary.refs() {
                let _ = summary.resolve(summary.collection(), reference.0);
            }
            let _ = (summary.deltas().map(|d| d.iter().count()), summary.last_modified(), summary.expires());
        }
        Err(error) => drop(error.to_string()),
    }
    if let Ok(deltas) = Deltas::index(data) {
        let _ = deltas.iter().count();
    }
}

/// A superblock, after the checksum of the commit that it leads to.
pub fn delta(data: &[u8]) {
    let Some((to, superblock)) = data.split_first_chunk::<CHECKSUM_SIZE>() else { return };
    match Superblock::parse(superblock, Name { from: None, to: Checksum(*to) }) {
        Ok(superblock) => {
            assert_eq!(Checksum::of(superblock.commit()).0, *to);
            let _ = superblock.commitmeta();
            let delta = superblock.unverified();
            for part in delta.parts() {
                assert_eq!(part.objects().count(), part.count());
                let mut scratch = Vec::new();
                let _: Result<_, ApplyError<_, Infallible>> = apply_part(
                    &mut Sink,
                    &part,
                    &mut Memory::new(part.inline.unwrap_or_default()),
                    &mut scratch,
                );
            }
            let _ = delta.fallbacks().count();
        }
        Err(error) => drop(error.to_string()),
    }
}

/// A part that makes up to three files and a dirtree, after which it must be at its end.
pub fn delta_part(data: &[u8]) {
    let list: Vec<u8> =
        [1u8, 1, 1, 2].iter().flat_map(|kind| [&[*kind][..], &[7; CHECKSUM_SIZE]].concat()).collect();
    let (checksum, size) = (Checksum::of(data), data.len() as u64);
    let part = Part { number: 0, checksum, size, usize: 1 << 16, list: &list, inline: None };
    let mut scratch = Vec::new();
    let done: Result<_, ApplyError<(), Infallible>> =
        apply_part(&mut Sink, &part, &mut Memory::new(data), &mut scratch);
    if let Ok(report) = done {
        assert!(report.bytes <= 1 << 16);
    }
    // Whatever was told: that much and not much more was unpacked.
    assert!(scratch.len() < 2 << 20, "{} bytes of scratch", scratch.len());
}

/// A repository that takes everything and has a file of zeros under every name.
struct Sink;

impl Objects for Sink {
    type Error = ();
    type Draft = u64;
    type Source = ();

    fn has(&mut self, _: &Checksum, _: Kind) -> Result<bool, ()> {
        Ok(false)
    }

    fn put(&mut self, _: &Checksum, _: Kind, _: &[u8]) -> Result<(), ()> {
        Ok(())
    }

    fn symlink(&mut self, _: &Checksum, _: &Meta, _: &str) -> Result<(), ()> {
        Ok(())
    }

    fn draft(&mut self, _: &Checksum, _: &Meta, size: u64) -> Result<u64, ()> {
        Ok(size)
    }

    fn append(&mut self, left: &mut u64, data: &[u8]) -> Result<(), ()> {
        *left = left.checked_sub(data.len() as u64).ok_or(())?;
        Ok(())
    }

    fn discard(&mut self, _: u64) -> Result<(), ()> {
        Ok(())
    }

    fn seal(&mut self, left: u64, _: &Checksum) -> Result<(), ()> {
        if left == 0 { Ok(()) } else { Err(()) }
    }

    fn open(&mut self, _: &Checksum) -> Result<((), u64), ()> {
        Ok(((), 4096))
    }

    fn read_at(&mut self, (): &mut (), offset: u64, buffer: &mut [u8]) -> Result<usize, ()> {
        let left = usize::try_from(4096u64.saturating_sub(offset)).unwrap_or(0).min(buffer.len());
        buffer[..left].fill(0);
        Ok(left)
    }
}
