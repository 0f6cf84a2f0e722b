//! Reads the file, a byte at a time.

use heapless::{String, Vec};

use super::{Complaints, MAX_MODULES, MAX_SIZE, Problem, SECTIONS, Text, Value};

/// Who takes the values of a file.
pub(crate) trait Take {
    /// Takes one.
    ///
    /// # Errors
    /// What is wrong with it: the line is skipped then.
    fn take(&mut self, section: &str, key: &str, value: Value) -> Result<(), Problem>;

    /// A line of this section was skipped.
    fn skipped(&mut self, _section: &str) {}

    /// The file is longer than is read.
    fn cut(&mut self) {}
}

/// Reads a file, a line or a list at a time; what cannot be used is in the complaints.
pub(crate) fn read<T: Take>(file: &[u8], to: &mut T) -> Complaints {
    let mut reader = Reader { bytes: file.get(..MAX_SIZE).unwrap_or(file), at: 0, line: 1 };
    let mut complaints = Complaints::default();
    let mut section: String<32> = String::new();
    let mut sections: Vec<String<32>, 12> = Vec::new();
    while !reader.at_end() {
        let (at, line) = (reader.at, reader.line);
        if let Err(problem) = reader.entry(to, &mut section, &mut sections) {
            complaints.add(line, problem);
            to.skipped(&section);
            // Only the line itself is given up: a list that is not closed has run into the next section.
            (reader.at, reader.line) = (at, line);
            reader.skip_line();
        }
    }
    if file.len() > MAX_SIZE {
        complaints.add(reader.line, Problem::FileTooLong);
        to.cut();
    }
    complaints
}

/// A place in the file.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Line number, from 1.
    line: u32,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        self.line += u32::from(byte == b'\n');
        Some(byte)
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        while self.peek().is_some() && self.take() != Some(b'\n') {}
    }

    /// A comment or nothing, then the end of the line.
    fn end_of_line(&mut self) -> Result<(), Problem> {
        self.skip_blanks();
        if self.peek() == Some(b'#') {
            self.comment()?;
        }
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(b"\r\n")) {
            self.at += 1;
        }
        match self.peek() {
            None => Ok(()),
            Some(b'\n') => {
                self.take();
                Ok(())
            }
            Some(_) => Err(Problem::Syntax),
        }
    }

    fn comment(&mut self) -> Result<(), Problem> {
        let start = self.at;
        while !matches!(self.peek(), None | Some(b'\n')) {
            self.at += 1;
        }
        let text = self.bytes.get(start..self.at).unwrap_or(&[]);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        // TOML wants text here too.
        let clean =
            core::str::from_utf8(text).is_ok() && text.iter().all(|&b| b == b'\t' || b >= b' ' && b != 0x7F);
        if !clean {
            return Err(Problem::Syntax);
        }
        self.at = start + text.len();
        Ok(())
    }

    fn entry<T: Take>(
        &mut self,
        to: &mut T,
        section: &mut String<32>,
        sections: &mut Vec<String<32>, 12>,
    ) -> Result<(), Problem> {
        self.skip_blanks();
        match self.peek() {
            None | Some(b'#' | b'\n' | b'\r') => self.end_of_line(),
            Some(b'[') => {
                // Whatever follows does not belong to the section before, even where this line is wrong.
                *section = String::try_from("?").unwrap_or_default();
                self.at += 1;
                self.skip_blanks();
                let name: String<32> = self.bare_key()?;
                self.skip_blanks();
                if self.peek() != Some(b']') {
                    return Err(Problem::Syntax);
                }
                self.at += 1;
                self.end_of_line()?;
                if !SECTIONS.contains(&name.as_str()) {
                    return Err(Problem::UnknownSection);
                }
                if sections.contains(&name) || sections.push(name.clone()).is_err() {
                    return Err(Problem::Duplicate);
                }
                *section = name;
                Ok(())
            }
            Some(_) => self.assignment(to, section),
        }
    }

    fn assignment<T: Take>(&mut self, to: &mut T, section: &str) -> Result<(), Problem> {
        let key: String<32> = self.bare_key()?;
        self.skip_blanks();
        if self.peek() != Some(b'=') {
            return Err(Problem::Syntax);
        }
        self.at += 1;
        self.skip_blanks();
        let value = self.value()?;
        self.end_of_line()?;
        to.take(section, &key, value)
    }

    fn bare_key<const N: usize>(&mut self) -> Result<String<N>, Problem> {
        let mut key = String::new();
        while let Some(b) = self.peek().filter(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            key.push(char::from(b)).map_err(|_| Problem::UnknownKey)?;
            self.at += 1;
        }
        if key.is_empty() { Err(Problem::Syntax) } else { Ok(key) }
    }

    fn value(&mut self) -> Result<Value, Problem> {
        match self.peek() {
            Some(b'"' | b'\'') => self.string().map(Value::Text),
            Some(b'[') => self.list().map(Value::List),
            Some(b't' | b'f') => {
                let rest = self.bytes.get(self.at..).unwrap_or(&[]);
                let word: &[u8] = if rest.starts_with(b"true") { b"true" } else { b"false" };
                if !rest.starts_with(word) {
                    return Err(Problem::Value);
                }
                self.at += word.len();
                Ok(Value::Flag(word == b"true"))
            }
            Some(_) => self.number(),
            None => Err(Problem::Value),
        }
    }

    /// Decimal, `_` between digits, no leading zeros, as TOML has it.
    fn number(&mut self) -> Result<Value, Problem> {
        let sign = match self.peek() {
            Some(b'-') => -1,
            _ => 1,
        };
        if matches!(self.peek(), Some(b'+' | b'-')) {
            self.at += 1;
        }
        let start = self.at;
        let mut number: i64 = 0;
        let mut after_digit = false;
        while let Some(b) = self.peek().filter(|b| b.is_ascii_digit() || *b == b'_') {
            if b == b'_' {
                if !after_digit {
                    return Err(Problem::Value);
                }
                after_digit = false;
            } else {
                number = number
                    .checked_mul(10)
                    .and_then(|n| n.checked_add(i64::from(b - b'0')))
                    .ok_or(Problem::TooLong)?;
                after_digit = true;
            }
            self.at += 1;
        }
        let leading_zero = self.bytes.get(start) == Some(&b'0') && self.at - start > 1;
        if !after_digit || leading_zero { Err(Problem::Value) } else { Ok(Value::Number(sign * number)) }
    }

    fn list(&mut self) -> Result<Vec<Text, MAX_MODULES>, Problem> {
        let mut list = Vec::new();
        self.at += 1;
        loop {
            self.skip_lines()?;
            if self.peek() == Some(b']') {
                self.at += 1;
                return Ok(list);
            }
            let text = match self.peek() {
                Some(b'"' | b'\'') => self.string()?,
                _ => return Err(Problem::Value),
            };
            list.push(text).map_err(|_| Problem::TooLong)?;
            self.skip_lines()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {}
                _ => return Err(Problem::Value),
            }
        }
    }

    /// White space, ends of lines and comments, as between the items of a list.
    fn skip_lines(&mut self) -> Result<(), Problem> {
        loop {
            self.skip_blanks();
            match self.peek() {
                Some(b'#' | b'\n' | b'\r') => self.end_of_line()?,
                _ => return Ok(()),
            }
        }
    }

    fn string(&mut self) -> Result<Text, Problem> {
        let quote = self.peek();
        self.at += 1;
        // Three quotes begin a kind of string that is not taken.
        if self.bytes.get(self.at) == quote.as_ref() && self.bytes.get(self.at + 1) == quote.as_ref() {
            return Err(Problem::Value);
        }
        let mut text = Text::new();
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or(&[]);
            let c = first_char(rest).ok_or(Problem::Value)?;
            if c == '\n' || c == '\r' {
                return Err(Problem::Value);
            }
            self.at += c.len_utf8();
            let c = match c {
                _ if quote == Some(c as u8) && c.is_ascii() => return Ok(text),
                '\\' if quote == Some(b'"') => self.escape()?,
                '\t' => c,
                _ if (c as u32) < 0x20 || c == '\u{7F}' => return Err(Problem::Value),
                _ => c,
            };
            text.push(c).map_err(|_| Problem::TooLong)?;
        }
    }

    fn escape(&mut self) -> Result<char, Problem> {
        let kind = self.peek().ok_or(Problem::Value)?;
        if kind == b'\n' {
            return Err(Problem::Value);
        }
        self.at += 1;
        let digits = match kind {
            b'b' => return Ok('\u{8}'),
            b't' => return Ok('\t'),
            b'n' => return Ok('\n'),
            b'f' => return Ok('\u{c}'),
            b'r' => return Ok('\r'),
            b'"' => return Ok('"'),
            b'\\' => return Ok('\\'),
            b'u' => 4,
            b'U' => 8,
            _ => return Err(Problem::Value),
        };
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16)).ok_or(Problem::Value)?;
            code = code << 4 | digit;
            self.at += 1;
        }
        char::from_u32(code).ok_or(Problem::Value)
    }
}

fn first_char(bytes: &[u8]) -> Option<char> {
    let head = bytes.get(..bytes.len().min(4)).unwrap_or(&[]);
    match core::str::from_utf8(head) {
        Ok(text) => text.chars().next(),
        Err(e) => core::str::from_utf8(head.get(..e.valid_up_to())?).ok()?.chars().next(),
    }
}
