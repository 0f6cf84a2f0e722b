//! The head of an answer, strictly: what two readers could understand in two ways is refused.
//!
//! RFC 9112 (HTTP/1.1 messages), RFC 9110 (fields, ranges, redirects). httparse splits the lines; what they mean
//! together is decided here. Pure.

use alloc::string::String;
use core::time::Duration;

use super::super::{Answer, Error, Found, Limits, Request};

/// A validator that is longer is not kept, in bytes.
const MAX_VALIDATOR: usize = 256;
/// A redirect's target in an error is shortened to this, in bytes.
const MAX_SHOWN: usize = 120;

/// How the end of a body is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// A range of a file: first byte, last byte, length of the file.
type Range = (u64, u64, Option<u64>);

/// What matters of a head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// 100 to 599.
    pub status: u16,
    /// The end of the body.
    pub framing: Framing,
    /// The server ends the connection after this answer.
    pub closes: bool,
    /// A web page.
    web_page: bool,
    /// Of a 206.
    range: Option<Range>,
    /// Of a 416: the length of the file.
    total: Option<u64>,
    validator: Option<String>,
    location: Option<String>,
    /// Retry-After.
    after: Option<Duration>,
}

/// What an answer is to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Its answer.
    Answer(Answer),
    /// It is elsewhere.
    Redirect {
        /// The Location, not looked at yet.
        to: String,
        /// Everything below the same place is elsewhere too (301, 308).
        for_good: bool,
    },
}

/// Where a head ends, or `None` while it has not come as a whole. `seen` bytes were looked at before.
///
/// # Errors
/// When it is no head of an HTTP/1 answer, whatever may follow.
pub fn find_end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Error> {
    const START: &[u8] = b"HTTP/1.";
    let common = bytes.len().min(START.len());
    if bytes.get(..common) != START.get(..common) {
        return Err(Error::NotHttp);
    }
    let mut before = bytes.get(..seen).and_then(|seen| seen.last()).copied();
    for (at, byte) in bytes.iter().enumerate().skip(seen) {
        // A line feed alone ends a line for some readers and none for others.
        if *byte == b'\n' && before != Some(b'\r') || *byte == 0 {
            return Err(Error::NotHttp);
        }
        before = Some(*byte);
        if *byte == b'\n' && bytes.get(..=at).is_some_and(|head| head.ends_with(b"\r\n\r\n")) {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// Reads a whole head, as [`find_end`] found it.
///
/// # Errors
/// When it is wrong in itself.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Head, Error> {
    let mut fields = alloc::vec![httparse::EMPTY_HEADER; limits.fields];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Error::LongHead),
        _ => return Err(Error::NotHttp),
    }
    let (Some(version), Some(status)) = (response.version, response.code) else { return Err(Error::NotHttp) };
    interpret(version, status, response.headers.iter().map(|field| (field.name, field.value)), limits)
}

/// Puts the fields together. `version` is the minor one of HTTP/1.
///
/// # Errors
/// When they contradict each other.
pub fn interpret<'a>(
    version: u8,
    status: u16,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    limits: &Limits,
) -> Result<Head, Error> {
    if !(100..600).contains(&status) {
        return Err(Error::NotHttp);
    }
    let mut length = None;
    let mut chunked = None;
    let mut range = None;
    let mut location = None;
    let mut encoding = None;
    let mut etag = None;
    let (mut modified, mut after, mut date) = (None, None, None);
    let (mut close, mut keep, mut web_page) = (false, false, false);
    for (name, value) in fields {
        let value = value.trim_ascii();
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("content-length") {
            once(&mut length, "Content-Length", decimal(value))?;
        } else if is("transfer-encoding") {
            once(&mut chunked, "Transfer-Encoding", value.eq_ignore_ascii_case(b"chunked").then_some(()))?;
        } else if is("content-range") {
            once(&mut range, "Content-Range", Some(value))?;
        } else if is("content-encoding") {
            let plain = value.is_empty() || value.eq_ignore_ascii_case(b"identity");
            once(&mut encoding, "Content-Encoding", plain.then_some(()))?;
        } else if is("location") {
            once(&mut location, "Location", Some(value))?;
        } else if is("etag") {
            once(&mut etag, "ETag", Some(value))?;
        } else if is("connection") {
            for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                close |= token.eq_ignore_ascii_case(b"close");
                keep |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is("content-type") {
            let kind = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            web_page |= kind.eq_ignore_ascii_case(b"text/html");
            web_page |= kind.eq_ignore_ascii_case(b"application/xhtml+xml");
        } else if is("last-modified") {
            modified = modified.or(Some(value));
        } else if is("retry-after") {
            after = after.or(Some(value));
        } else if is("date") {
            date = date.or(Some(value));
        }
    }
    // Two ends of one body: the way in which answers are smuggled (RFC 9112 6.3).
    if chunked.is_some() && (length.is_some() || version == 0) {
        return Err(Error::Field("Transfer-Encoding"));
    }
    let bodiless = status < 200 || status == 204 || status == 304;
    let framing = match (length, chunked) {
        _ if bodiless => Framing::Length(0),
        (Some(length), _) => Framing::Length(length),
        (None, Some(())) => Framing::Chunked,
        (None, None) => Framing::Close,
    };
    let (mut part, mut total) = (None, None);
    match (status, range) {
        (206, Some(text)) => part = Some(content_range(text).ok_or(Error::Field("Content-Range"))?),
        (416, Some(text)) => total = text.strip_prefix(b"bytes */").and_then(decimal),
        _ => {}
    }
    Ok(Head {
        status,
        framing,
        closes: close || (version == 0 && !keep) || framing == Framing::Close,
        web_page,
        range: part,
        total,
        validator: validator(etag, modified),
        location: location.map(|text| String::from_utf8_lossy(text).into_owned()),
        after: after.and_then(|text| wait(text, date)).map(|wait| wait.min(limits.retry_after)),
    })
}

impl Head {
    /// What this head is as the answer to a request.
    ///
    /// # Errors
    /// When it is no answer to it, or none that is wanted.
    pub fn answers(&self, request: &Request) -> Result<Verdict, Error> {
        let answer = |found, length, limit| {
            if self.web_page {
                return Err(Error::WebPage);
            }
            match length {
                Some(_) if length > Some(limit) => Err(Error::TooLarge { length, limit }),
                _ => Ok(Verdict::Answer(Answer { found, length, validator: self.validator.clone() })),
            }
        };
        let told = match self.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::Close => None,
        };
        match self.status {
            200 => answer(Found::Whole, told, request.whole_limit()),
            206 => {
                // What was not asked for is not taken, and a part that ends before the file's end neither.
                let (from, last, total) = self.range.ok_or(Error::Field("Content-Range"))?;
                let length = last - from + 1;
                let fits = request.from > 0
                    && from == request.from
                    && total.is_none_or(|total| total == last + 1)
                    && told.is_none_or(|told| told == length);
                if !fits {
                    return Err(Error::Field("Content-Range"));
                }
                answer(Found::Part { from, total }, Some(length), request.limit)
            }
            403 | 404 | 410 => {
                Ok(Verdict::Answer(Answer { found: Found::Missing, length: Some(0), validator: None }))
            }
            416 if request.from > 0 => Err(Error::PastEnd { total: self.total }),
            301 | 302 | 303 | 307 | 308 => match &self.location {
                Some(to) => {
                    Ok(Verdict::Redirect { to: to.clone(), for_good: matches!(self.status, 301 | 308) })
                }
                None => Err(Error::Field("Location")),
            },
            code => Err(Error::Status { code, after: self.after }),
        }
    }
}

impl Request {
    /// The limit of an answer with the whole file, where a part may have been asked for.
    pub(super) fn whole_limit(&self) -> u64 {
        self.limit.saturating_add(self.from)
    }
}

/// Takes a field that must be there once at most and make sense.
fn once<T>(slot: &mut Option<T>, name: &'static str, value: Option<T>) -> Result<(), Error> {
    if slot.is_some() || value.is_none() {
        return Err(Error::Field(name));
    }
    *slot = value;
    Ok(())
}

/// Digits alone: no sign, no list, no number that does not fit.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// `bytes 5-9/10` or `bytes 5-9/*`.
fn content_range(text: &[u8]) -> Option<Range> {
    let text = core::str::from_utf8(text).ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let (from, last) = range.split_once('-')?;
    let (from, last) = (decimal(from.as_bytes())?, decimal(last.as_bytes())?);
    let total = if total == "*" { None } else { Some(decimal(total.as_bytes())?) };
    (from <= last && total.is_none_or(|total| last < total)).then_some((from, last, total))
}

/// What If-Range takes: a strong ETag, else the date of the last change.
fn validator(etag: Option<&[u8]>, modified: Option<&[u8]>) -> Option<String> {
    let strong = etag.filter(|text| text.len() > 2 && text.starts_with(b"\"") && text.ends_with(b"\""));
    let text = core::str::from_utf8(strong.or(modified)?).ok()?;
    is_validator(text).then(|| text.into())
}

/// Whether a text can be sent as a validator.
pub fn is_validator(text: &str) -> bool {
    text.len() <= MAX_VALIDATOR && !text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// The target of a redirect as an error shows it.
pub fn shown(target: &str) -> String {
    target.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

/// Retry-After: seconds, or a date, which is held against the server's own clock and not ours.
fn wait(after: &[u8], date: Option<&[u8]>) -> Option<Duration> {
    if after.iter().all(u8::is_ascii_digit) && !after.is_empty() {
        return Some(Duration::from_secs(decimal(after).unwrap_or(u64::MAX)));
    }
    let (then, now) = (http_date(after)?, http_date(date?)?);
    Some(Duration::from_secs(then.saturating_sub(now)))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 5.6.7; the obsolete forms are not read).
fn http_date(text: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(text).ok()?;
    let mut parts = text.split_once(", ")?.1.split(' ');
    let mut next = || parts.next();
    let (day, month, year, time) = (next()?, next()?, next()?, next()?);
    if next()? != "GMT" {
        return None;
    }
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? as u64;
    let number = |text: &str| decimal(text.as_bytes()).filter(|n| *n < 10_000);
    let (day, year) = (number(day)?, number(year)?);
    let mut time = time.split(':').map(number);
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    // Days from 1970 of a year that begins in March, so that the leap day is the last one.
    let shifted = if month >= 2 { year } else { year.checked_sub(1)? };
    let day_of_year = (153 * ((month + 10) % 12) + 2) / 5 + day.checked_sub(1)?;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year;
    Some(days.checked_sub(719_468)? * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    fn read(text: &str) -> Result<Head, Error> {
        let end = find_end(text.as_bytes(), 0)?.expect("a whole head");
        parse(&text.as_bytes()[..end], &Limits::default())
    }

    fn part(from: u64) -> Request {
        Request { from, ..Request::whole("x", 100) }
    }

    fn answer(text: &str, request: &Request) -> Result<Verdict, Error> {
        read(text)?.answers(request)
    }

    #[test]
    fn the_end_of_a_head() {
        let text = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody";
        for length in 0..text.len() {
            let whole = find_end(&text[..length], 0).unwrap();
            assert_eq!(whole, (length >= 25).then_some(25));
            for seen in 0..length.min(25) {
                assert_eq!(find_end(&text[..length], seen).unwrap(), whole);
            }
        }
        for text in [
            "HTTP/1.1 200\nA: b\n\n",
            "HTTP/2",
            "\r\nHTTP/1.1",
            "<html>",
            "ICY 200",
            "HTTP/1.1\0",
            "http/1.1",
        ] {
            assert_eq!(find_end(text.as_bytes(), 0), Err(Error::NotHttp), "{text:?}");
        }
    }

    #[test]
    fn framing() {
        let of = |fields: &str| {
            read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).map(|head| (head.framing, head.closes))
        };
        assert_eq!(of("Content-Length: 5\r\n"), Ok((Framing::Length(5), false)));
        assert_eq!(of("content-length:5\r\nConnection: x, Close\r\n"), Ok((Framing::Length(5), true)));
        assert_eq!(of("Transfer-Encoding: Chunked\r\n"), Ok((Framing::Chunked, false)));
        assert_eq!(of(""), Ok((Framing::Close, true)));
        for value in ["-1", "+5", "5, 5", "0x5", "5 5", "", "99999999999999999999", "5.0"] {
            assert_eq!(
                of(&format!("Content-Length: {value}\r\n")),
                Err(Error::Field("Content-Length")),
                "{value}"
            );
        }
        for twice in ["5\r\nContent-Length: 5", "5\r\nContent-Length: 6"] {
            assert_eq!(of(&format!("Content-Length: {twice}\r\n")), Err(Error::Field("Content-Length")));
        }
        let encoding = Err(Error::Field("Transfer-Encoding"));
        assert_eq!(of("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), encoding);
        assert_eq!(of("Transfer-Encoding: gzip, chunked\r\n"), encoding);
        assert_eq!(of("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), encoding);
        assert_eq!(of("Transfer-Encoding: xchunked\r\n"), encoding);
        assert_eq!(of("Content-Encoding: gzip\r\n"), Err(Error::Field("Content-Encoding")));
        for odd in ["Content-Length : 5\r\n", " folded\r\n", "A: b\r\n c\r\n", "no colon\r\n", "A\x01: b\r\n"]
        {
            assert_eq!(of(odd), Err(Error::NotHttp), "{odd:?}");
        }
        let old = |fields: &str| read(&format!("HTTP/1.0 200 OK\r\n{fields}\r\n")).map(|head| head.closes);
        assert_eq!(old("Content-Length: 1\r\n"), Ok(true));
        assert_eq!(old("Content-Length: 1\r\nConnection: keep-alive\r\n"), Ok(false));
        assert_eq!(old("Transfer-Encoding: chunked\r\n"), Err(Error::Field("Transfer-Encoding")));
        assert_eq!(read("HTTP/1.1 999 X\r\n\r\n"), Err(Error::NotHttp));
        let many = "A: b\r\n".repeat(65);
        assert_eq!(of(&many), Err(Error::LongHead));
    }

    #[test]
    fn ranges_are_those_asked_for() {
        let of = |range: &str, from| {
            answer(
                &format!("HTTP/1.1 206 P\r\nContent-Range: {range}\r\nContent-Length: 5\r\n\r\n"),
                &part(from),
            )
        };
        let good = |total| {
            let found = Found::Part { from: 5, total };
            Ok(Verdict::Answer(Answer { found, length: Some(5), validator: None }))
        };
        assert_eq!(of("bytes 5-9/10", 5), good(Some(10)));
        assert_eq!(of("bytes 5-9/*", 5), good(None));
        for (range, from) in [
            ("bytes 5-9/10", 4),
            ("bytes 5-9/10", 0),
            ("bytes 5-9/20", 5),
            ("bytes 5-8/9", 5),
            ("bytes 9-5/10", 5),
            ("bytes 5-9/5", 5),
            ("bytes 5-/10", 5),
            ("bytes */10", 5),
            ("items 5-9/10", 5),
            ("bytes 5-18446744073709551615/*", 5),
        ] {
            assert_eq!(of(range, from), Err(Error::Field("Content-Range")), "{range} {from}");
        }
        assert_eq!(
            answer("HTTP/1.1 206 P\r\nContent-Length: 5\r\n\r\n", &part(5)),
            Err(Error::Field("Content-Range"))
        );
        assert_eq!(
            answer("HTTP/1.1 416 R\r\nContent-Range: bytes */4\r\nContent-Length: 0\r\n\r\n", &part(5)),
            Err(Error::PastEnd { total: Some(4) })
        );
        // The whole file instead: the limit is then that of the whole file.
        let whole = answer("HTTP/1.1 200 OK\r\nContent-Length: 105\r\n\r\n", &part(5));
        assert!(matches!(whole, Ok(Verdict::Answer(Answer { found: Found::Whole, length: Some(105), .. }))));
        assert_eq!(
            answer("HTTP/1.1 200 OK\r\nContent-Length: 106\r\n\r\n", &part(5)),
            Err(Error::TooLarge { length: Some(106), limit: 105 })
        );
    }

    #[test]
    fn validators_that_can_be_sent_again() {
        let of = |fields: &str| read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).unwrap().validator;
        assert_eq!(of("ETag: \"a\"\r\nLast-Modified: d\r\n").as_deref(), Some("\"a\""));
        assert_eq!(of("ETag: W/\"a\"\r\nLast-Modified: d\r\n").as_deref(), Some("d"));
        assert_eq!(of("ETag: W/\"a\"\r\n"), None);
        assert_eq!(of("ETag: \"a\u{fc}\"\r\n"), None);
        assert_eq!(of(&format!("ETag: \"{}\"\r\n", "a".repeat(300))), None);
    }

    #[test]
    fn when_to_come_again() {
        let of = |after: &str| {
            let text = format!(
                "HTTP/1.1 503 X\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: {after}\r\n\r\n"
            );
            match answer(&text, &part(0)) {
                Err(Error::Status { code: 503, after }) => after.map(|after| after.as_secs()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of("7"), Some(7));
        assert_eq!(of("Sun, 06 Nov 1994 08:51:37 GMT"), Some(120));
        assert_eq!(of("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(of("Sun, 06 Nov 2994 08:51:37 GMT"), Some(600));
        assert_eq!(of("99999999999999999999999"), Some(600));
        for odd in ["-5", "soon", "", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 00 Nov 1994 08:00:00 GMT"] {
            assert_eq!(of(odd), None, "{odd}");
        }
        assert_eq!(http_date(b"Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date(b"Tue, 29 Feb 2000 00:00:00 GMT"), Some(951_782_400));
        assert_eq!(http_date(b"Sat, 01 Mar 2025 12:00:01 GMT"), Some(1_740_830_401));
    }

    #[test]
    fn other_answers() {
        assert_eq!(
            answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/HTML; x\r\n\r\n", &part(0)),
            Err(Error::WebPage)
        );
        let missing =
            answer("HTTP/1.1 404 N\r\nContent-Length: 5000\r\nContent-Type: text/html\r\n\r\n", &part(0));
        assert!(matches!(missing, Ok(Verdict::Answer(Answer { found: Found::Missing, .. }))));
        assert_eq!(
            answer("HTTP/1.1 301 M\r\nContent-Length: 0\r\n\r\n", &part(0)),
            Err(Error::Field("Location"))
        );
        for code in ["204", "304", "401", "500", "206", "416", "299"] {
            let text = format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n");
            assert!(answer(&text, &part(0)).is_err(), "{code}");
        }
        assert_eq!(shown("http://a\u{1b}[31m").to_string(), "http://a[31m");
    }
}
