//! The body of an answer: where it ends. Pure.

use super::super::{Error, Limits, Step};
use super::head::Framing;

/// The longest line before a chunk, in bytes: 16 digits and what extensions there may be.
const MAX_LINE: usize = 256;

/// How far a body has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// So many bytes to come.
    Length(u64),
    /// Inside a chunked body.
    Chunked(Chunked),
    /// Until the connection ends.
    Close,
    /// Nothing more.
    End,
}

/// The place in a chunked body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chunked {
    /// Before the line with a chunk's size.
    Size,
    /// So many bytes of a chunk to come.
    Data(u64),
    /// Before the line end after a chunk.
    DataEnd,
    /// In the trailer, of which so many bytes and fields were seen.
    Trailer {
        /// Bytes seen.
        bytes: usize,
        /// Fields seen.
        fields: usize,
    },
}

/// What the next bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// So many bytes of body, at the start of what is there.
    Data(usize),
    /// So many bytes that are not body.
    Skip(usize),
    /// Not enough is there to tell.
    More,
    /// The body is at its end.
    End,
}

impl Body {
    /// The body that a head announces.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Body::End,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunked::Size),
            Framing::Close => Body::Close,
        }
    }

    /// Says what the next bytes are and goes past them: [`Piece::Data`] at most `most` of them.
    ///
    /// # Errors
    /// When a chunked body is not formed as one.
    pub fn next(&mut self, input: &[u8], most: usize, limits: &Limits) -> Result<Piece, Error> {
        let available = input.len().min(most);
        match self {
            Body::End => Ok(Piece::End),
            _ if input.is_empty() => Ok(Piece::More),
            Body::Close => Ok(Piece::Data(available)),
            Body::Length(left) => {
                let count = take(left, available);
                if *left == 0 {
                    *self = Body::End;
                }
                Ok(Piece::Data(count))
            }
            Body::Chunked(Chunked::Data(left)) => {
                let count = take(left, available);
                if *left == 0 {
                    *self = Body::Chunked(Chunked::DataEnd);
                }
                Ok(Piece::Data(count))
            }
            Body::Chunked(Chunked::DataEnd) => match input {
                [b'\r', b'\n', ..] => {
                    *self = Body::Chunked(Chunked::Size);
                    Ok(Piece::Skip(2))
                }
                [b'\r'] => Ok(Piece::More),
                _ => Err(Error::Chunk),
            },
            Body::Chunked(Chunked::Size) => {
                let Some(line) = line(input, MAX_LINE, Error::Chunk)? else { return Ok(Piece::More) };
                *self = Body::Chunked(match chunk_size(line).ok_or(Error::Chunk)? {
                    0 => Chunked::Trailer { bytes: 0, fields: 0 },
                    size => Chunked::Data(size),
                });
                Ok(Piece::Skip(line.len() + 2))
            }
            Body::Chunked(Chunked::Trailer { bytes, fields }) => {
                let room = limits.head_bytes.saturating_sub(*bytes + 2);
                let Some(line) = line(input, room, Error::LongHead)? else { return Ok(Piece::More) };
                *bytes += line.len() + 2;
                *fields += 1;
                if line.is_empty() {
                    *self = Body::End;
                } else if *fields > limits.fields {
                    return Err(Error::LongHead);
                }
                Ok(Piece::Skip(line.len() + 2))
            }
        }
    }

    /// Bytes that can be read past the parser, straight to where they are wanted.
    pub fn straight(&self) -> u64 {
        match self {
            Body::Length(left) => *left,
            Body::Close => u64::MAX,
            Body::Chunked(_) | Body::End => 0,
        }
    }

    /// So many bytes were read past the parser.
    pub fn passed(&mut self, count: usize) {
        if let Body::Length(left) = self {
            take(left, count);
            if *left == 0 {
                *self = Body::End;
            }
        }
    }

    /// The connection ended.
    ///
    /// # Errors
    /// When the body has not.
    pub fn closed(&mut self) -> Result<(), Error> {
        match self {
            Body::Close | Body::End => {
                *self = Body::End;
                Ok(())
            }
            Body::Length(_) | Body::Chunked(_) => Err(Error::Closed(Step::Body)),
        }
    }
}

/// Takes at most so many from what is left.
fn take(left: &mut u64, most: usize) -> usize {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(most);
    *left -= count as u64;
    count
}

/// The line at the start, without its end; `None` while it is not whole. At most `limit` bytes of it.
fn line(input: &[u8], limit: usize, long: Error) -> Result<Option<&[u8]>, Error> {
    let end = input.iter().take(limit.saturating_add(2)).position(|b| *b == b'\n');
    let Some(end) = end else {
        return if input.len() >= limit.saturating_add(2) { Err(long) } else { Ok(None) };
    };
    input.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Error::Chunk).map(Some)
}

/// Hexadecimal digits, then perhaps extensions, which are passed over (RFC 9112 7.1.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let mut parts = line.splitn(2, |b| *b == b';');
    // White space before an extension is bad and seen (RFC 9112 7.1.1); anywhere else it is not taken.
    let (digits, extension) = (parts.next()?, parts.next());
    let digits = if extension.is_some() { digits.trim_ascii_end() } else { digits };
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    if extension.is_some_and(|text| text.iter().any(|b| b.is_ascii_control() && *b != b'\t')) {
        return None;
    }
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Decodes what comes in pieces of `step` bytes; `Ok(None)` when it has no end.
    fn decode(text: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize)>, Error> {
        let (mut body, limits) =
            (Body::Chunked(Chunked::Size), Limits { head_bytes: 64, fields: 3, ..Limits::default() });
        let (mut decoded, mut start, mut end) = (Vec::new(), 0, 0);
        loop {
            match body.next(&text[start..end], 3, &limits)? {
                Piece::Data(count) => {
                    decoded.extend_from_slice(&text[start..start + count]);
                    start += count;
                }
                Piece::Skip(count) => start += count,
                Piece::End => return Ok(Some((decoded, start))),
                Piece::More if end == text.len() => return Ok(None),
                Piece::More => end = (end + step).min(text.len()),
            }
        }
    }

    #[test]
    fn chunks_in_any_pieces() {
        let text = b"4\r\nWiki\r\n5;a=\"b\"\r\npedia\r\n00A \t;x\r\n0123456789\r\n0\r\nA: b\r\n\r\nHTTP/1.1";
        for step in 1..text.len() {
            let (decoded, used) = decode(text, step).unwrap().unwrap();
            assert_eq!(decoded, b"Wikipedia0123456789");
            assert_eq!(&text[used..], b"HTTP/1.1", "what follows is not touched");
        }
        for length in 0..text.len() - 8 {
            assert_eq!(decode(&text[..length], 7), Ok(None), "{length}");
        }
    }

    #[test]
    fn what_is_no_chunk() {
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\na",
            "1 \r\na",
            "1\na",
            "11111111111111111\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na0\r\n",
            ";\r\n",
            "0\r\nA: b\n\n",
            "1;\x01\r\n",
            "1\r \n",
        ] {
            for step in [1, 100] {
                assert_eq!(decode(text.as_bytes(), step), Err(Error::Chunk), "{text:?}");
            }
        }
        let long = alloc::format!("1;{}\r\n", "x".repeat(300));
        assert_eq!(decode(long.as_bytes(), 50), Err(Error::Chunk));
        assert_eq!(
            decode(alloc::format!("0\r\nA: {}\r\n\r\n", "x".repeat(100)).as_bytes(), 9),
            Err(Error::LongHead)
        );
        assert_eq!(decode(b"0\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n\r\n", 9), Err(Error::LongHead));
        assert_eq!(
            decode(&b"0\r\n".iter().chain(&[b'x'; 100]).copied().collect::<Vec<_>>(), 9),
            Err(Error::LongHead)
        );
    }

    #[test]
    fn bodies_that_end_too_early() {
        let mut body = Body::Length(5);
        body.passed(4);
        assert_eq!(body.closed(), Err(Error::Closed(Step::Body)));
        body.passed(1);
        assert_eq!((body.closed(), &body), (Ok(()), &Body::End));
        assert_eq!(Body::Close.closed(), Ok(()));
        assert!(Body::Chunked(Chunked::Size).closed().is_err());
        assert_eq!(Body::new(Framing::Length(0)), Body::End);
    }
}
