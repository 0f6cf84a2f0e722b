//! One typed line: a dumb terminal's bytes in, echo and events out.
//!
//! Nothing is asked of the terminal but that it takes a backspace. What cannot be typed is dropped: control
//! characters, the sequences of arrow and function keys, and whatever goes past [`LINE_MAX`].

use alloc::string::String;
use alloc::vec::Vec;

use super::secret::Secret;

/// Bytes of a line; the rest of a longer one is dropped and the whole is refused. A passphrase of WPA3 may be long.
pub const LINE_MAX: usize = 256;

const INTERRUPT: u8 = 0x03;
const BACKSPACE: u8 = 0x08;
const KILL: u8 = 0x15;
const WORD: u8 = 0x17;
const ESCAPE: u8 = 0x1B;
const DELETE: u8 = 0x7F;
/// Bytes of an escape sequence at most; what follows is taken as typed.
const SEQUENCE_MAX: u8 = 16;

/// What a byte completed.
#[derive(PartialEq, Eq, Debug)]
pub enum Event {
    /// Nothing yet.
    Typing,
    /// A line, ended by return.
    Line(String),
    /// A line of a hidden question.
    Secret(Secret),
    /// Ctrl-C.
    Cancelled,
    /// The line was longer than [`LINE_MAX`].
    TooLong,
    /// The line was not UTF-8.
    NotText,
}

/// Where the terminal is in an escape sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sequence {
    No,
    Begun,
    Within(u8),
}

/// The line that is being typed.
#[derive(Debug)]
pub struct Editor {
    line: Secret,
    hidden: bool,
    too_long: bool,
    sequence: Sequence,
    /// The last byte was a carriage return: a line feed behind it belongs to it.
    returned: bool,
}

impl Default for Editor {
    fn default() -> Self {
        Editor {
            line: Secret::with_room(LINE_MAX),
            hidden: false,
            too_long: false,
            sequence: Sequence::No,
            returned: false,
        }
    }
}

impl Editor {
    /// Begins a line. A hidden one is not echoed, not even as stars, which would tell its length.
    pub fn begin(&mut self, hidden: bool) {
        self.line.wipe();
        self.hidden = hidden;
        self.too_long = false;
        self.sequence = Sequence::No;
    }

    /// Nothing has been typed of the line so far.
    pub fn is_empty(&self) -> bool {
        self.line.bytes().is_empty() && !self.too_long
    }

    /// What is typed so far, to be shown again; nothing of a hidden line.
    pub fn shown(&self) -> &[u8] {
        if self.hidden { &[] } else { self.line.bytes() }
    }

    /// Takes the next byte from the terminal; `echo` is what the terminal is sent for it.
    pub fn byte(&mut self, byte: u8, echo: &mut Vec<u8>) -> Event {
        let after_return = core::mem::replace(&mut self.returned, byte == b'\r');
        if self.skips(byte) {
            return Event::Typing;
        }
        match byte {
            b'\n' if after_return => {}
            b'\r' | b'\n' => {
                echo.extend_from_slice(b"\r\n");
                return self.end();
            }
            INTERRUPT => {
                echo.extend_from_slice(b"^C\r\n");
                self.begin(self.hidden);
                return Event::Cancelled;
            }
            BACKSPACE | DELETE => self.erase(echo),
            KILL => while self.erase_one(echo) {},
            WORD => self.erase_word(echo),
            // NUL to US, as Ctrl-D, XON and what a loose cable makes.
            0x00..=0x1F => {}
            _ => self.insert(byte, echo),
        }
        Event::Typing
    }

    /// Whether the byte belongs to an escape sequence.
    fn skips(&mut self, byte: u8) -> bool {
        let begun = self.sequence != Sequence::No;
        self.sequence = match (self.sequence, byte) {
            // An end of line or Ctrl-C is never swallowed.
            (_, b'\r' | b'\n' | INTERRUPT) => {
                self.sequence = Sequence::No;
                return false;
            }
            (Sequence::No, ESCAPE) => Sequence::Begun,
            (Sequence::No, _) => return false,
            (Sequence::Begun, b'[' | b'O') => Sequence::Within(0),
            (Sequence::Within(count), 0x20..=0x3F) if count < SEQUENCE_MAX => Sequence::Within(count + 1),
            _ => Sequence::No,
        };
        begun || byte == ESCAPE
    }

    fn insert(&mut self, byte: u8, echo: &mut Vec<u8>) {
        if !self.line.push(byte) {
            self.too_long = true;
        } else if !self.hidden {
            echo.push(byte);
        }
    }

    fn erase(&mut self, echo: &mut Vec<u8>) {
        self.erase_one(echo);
    }

    /// Takes the last character away. `false` when there is none.
    fn erase_one(&mut self, echo: &mut Vec<u8>) -> bool {
        self.too_long = false;
        let mut any = false;
        while let Some(byte) = self.line.pop() {
            any = true;
            // The continuation bytes of a character go with it.
            if byte & 0xC0 != 0x80 {
                break;
            }
        }
        if any && !self.hidden {
            echo.extend_from_slice(b"\x08 \x08");
        }
        any
    }

    fn erase_word(&mut self, echo: &mut Vec<u8>) {
        while self.line.bytes().last() == Some(&b' ') && self.erase_one(echo) {}
        while self.line.bytes().last().is_some_and(|b| *b != b' ') && self.erase_one(echo) {}
    }

    fn end(&mut self) -> Event {
        let hidden = self.hidden;
        let too_long = self.too_long;
        let line = core::mem::replace(&mut self.line, Secret::with_room(LINE_MAX));
        self.begin(hidden);
        if too_long {
            return Event::TooLong;
        }
        if hidden {
            return Event::Secret(line);
        }
        match core::str::from_utf8(line.bytes()) {
            Ok(text) => Event::Line(text.into()),
            Err(_) => Event::NotText,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types it all; the lines that came of it, and the echo.
    fn typed(bytes: &[u8]) -> (Vec<Event>, Vec<u8>) {
        let (mut editor, mut echo) = (Editor::default(), Vec::new());
        let events = bytes.iter().map(|b| editor.byte(*b, &mut echo)).filter(|e| *e != Event::Typing);
        (events.collect(), echo)
    }

    fn line(bytes: &[u8]) -> String {
        match typed(bytes).0.pop() {
            Some(Event::Line(line)) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_end_with_any_of_the_three_ends() {
        let (events, echo) = typed(b"a\rb\nc\r\n\r\n");
        let expected = ["a", "b", "c", ""].map(|l| Event::Line(l.into()));
        assert_eq!(events, expected);
        assert_eq!(echo, b"a\r\nb\r\nc\r\n\r\n");
    }

    #[test]
    fn a_line_is_edited() {
        assert_eq!(line(b"abx\x08c\r"), "abc");
        assert_eq!(line(b"\x7f\x7fab\x7f\x7f\x7fz\r"), "z");
        assert_eq!(line(b"no such thing\x15yes\r"), "yes");
        assert_eq!(line(b"one two  \x17three\r"), "one three");
        assert_eq!(line(b"\x17one\x17\x17two\r"), "two");
        // A character of three bytes goes at once, on the screen as in the line.
        let (_, echo) = typed("é€\x08x\r".as_bytes());
        assert_eq!(line("é€\x08x\r".as_bytes()), "éx");
        assert_eq!(echo, "é€\x08 \x08x\r\n".as_bytes());
    }

    #[test]
    fn ctrl_c_cancels_and_forgets() {
        let (events, _) = typed(b"secret\x03rest\r");
        assert_eq!(events, [Event::Cancelled, Event::Line("rest".into())]);
    }

    #[test]
    fn keys_that_send_sequences_type_nothing() {
        // Up, F1, Delete, Home (SS3), Alt-x, and a lone escape before the return.
        assert_eq!(line(b"a\x1b[Ab\x1b[11~c\x1b[3~d\x1bOHe\x1bxf\x1b\r"), "abcdef");
        // One that does not end swallows no more than a few bytes.
        let long = [b"\x1b[".as_slice(), &[b'1'; 40], b"z\r"].concat();
        assert!(line(&long).ends_with("1z"));
        // Nor an end of line or Ctrl-C.
        assert_eq!(typed(b"a\x1b[\x03").0, [Event::Cancelled]);
    }

    #[test]
    fn control_characters_type_nothing() {
        let all: Vec<u8> = (0..0x20).filter(|b| !b"\r\n\x03\x1b".contains(b)).chain(*b"x\r").collect();
        assert_eq!(line(&all), "x");
    }

    #[test]
    fn what_does_not_fit_is_refused_whole_and_echoes_no_more() {
        let (events, echo) = typed(&[[b'a'; 1_000_000].as_slice(), b"\rok\r"].concat());
        assert_eq!(events, [Event::TooLong, Event::Line("ok".into())]);
        assert_eq!(echo.len(), LINE_MAX + 6);
        // After a backspace it fits again.
        assert_eq!(line(&[[b'a'; LINE_MAX + 1].as_slice(), b"\x08\r"].concat()).len(), LINE_MAX - 1);
    }

    #[test]
    fn bytes_that_are_no_text_are_no_line() {
        assert_eq!(typed(b"\xff\xfe\r").0, [Event::NotText]);
        assert_eq!(typed(b"\xc3\r").0, [Event::NotText]);
    }

    #[test]
    fn a_hidden_line_echoes_nothing_but_its_end() {
        let (mut editor, mut echo) = (Editor::default(), Vec::new());
        editor.begin(true);
        for byte in b"hunter2\x08\x17hunter2" {
            assert_eq!(editor.byte(*byte, &mut echo), Event::Typing);
        }
        assert!(echo.is_empty() && editor.shown().is_empty() && !editor.is_empty());
        let Event::Secret(secret) = editor.byte(b'\r', &mut echo) else { panic!("no secret") };
        assert_eq!((secret.bytes(), echo.as_slice()), (b"hunter2".as_slice(), b"\r\n".as_slice()));
        assert!(!format!("{editor:?}{secret:?}").contains("hunter"));
    }
}
