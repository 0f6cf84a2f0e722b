//! The end of what a script prints, in bounded memory. Ring: alloc.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// Keeps the last bytes of a stream and counts all of them.
#[derive(Clone, Debug)]
pub struct Tail {
    bytes: VecDeque<u8>,
    limit: usize,
    total: u64,
}

impl Tail {
    /// Keeps at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Tail { bytes: VecDeque::with_capacity(limit.min(4096)), limit, total: 0 }
    }

    /// Goes on with the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        let kept = bytes.get(bytes.len().saturating_sub(self.limit)..).unwrap_or(bytes);
        let over = (self.bytes.len() + kept.len()).saturating_sub(self.limit);
        self.bytes.drain(..over);
        self.bytes.extend(kept);
    }

    /// How many bytes there were in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What is left, as text that is safe on a terminal: bytes that are not UTF-8 become U+FFFD, control
    /// characters but for line ends and tabs are taken out, and where the beginning was lost so is the rest of
    /// its line.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let whole = self.total <= bytes.len() as u64;
        let text = match text.split_once('\n') {
            Some((_, rest)) if !whole && !rest.is_empty() => rest,
            _ => &text,
        };
        text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_all_is_counted() {
        for piece in [1, 3, 7, 100] {
            let mut tail = Tail::new(10);
            let stream: Vec<u8> = (b'a'..=b'z').collect();
            stream.chunks(piece).for_each(|c| tail.add(c));
            assert_eq!((tail.text().as_str(), tail.total()), ("qrstuvwxyz", 26));
        }
        let mut tail = Tail::new(10);
        tail.add(b"short");
        assert_eq!(tail.text(), "short");
    }

    #[test]
    fn a_line_that_lost_its_beginning_is_left_out() {
        let mut tail = Tail::new(10);
        tail.add(b"first line\nsecond\n");
        assert_eq!(tail.text(), "second\n");
    }

    #[test]
    fn nothing_in_it_can_drive_a_terminal() {
        let mut tail = Tail::new(100);
        tail.add(b"\x1b[31mred\r\x07\tok\xff\n\xc2\x9b");
        assert_eq!(tail.text(), "[31mred\tok\u{fffd}\n");
    }
}
