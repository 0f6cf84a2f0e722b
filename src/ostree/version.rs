//! The order of version strings, Debian's (deb-version(7), for one part of a version): numbers count as numbers, and
//! `~` comes before everything, the end included, so that `2.0~rc1` is before `2.0` and `1.9` before `1.10`.

use core::cmp::Ordering;

/// The longest version that counts, in bytes.
pub const VERSION_MAX: usize = 128;

/// Which of two versions is the older one.
pub fn compare(one: &str, other: &str) -> Ordering {
    let (mut a, mut b) = (one.as_bytes(), other.as_bytes());
    loop {
        let (left, right) = (split(&mut a, |c| !c.is_ascii_digit()), split(&mut b, |c| !c.is_ascii_digit()));
        let length = left.len().max(right.len());
        let weight = |text: &[u8], at: usize| text.get(at).map_or(0, |c| weight(*c));
        let words = (0..length).map(|at| weight(left, at).cmp(&weight(right, at)));
        let (left, right) = (split(&mut a, |c| c.is_ascii_digit()), split(&mut b, |c| c.is_ascii_digit()));
        let (left, right) = (significant(left), significant(right));
        let numbers = left.len().cmp(&right.len()).then_with(|| left.cmp(right));
        let found = words.chain([numbers]).find(|order| order.is_ne());
        match found {
            Some(order) => return order,
            None if a.is_empty() && b.is_empty() => return Ordering::Equal,
            None => {}
        }
    }
}

/// Whether it can be kept and compared: not empty, not too long, one line of text.
pub fn counts(version: &str) -> bool {
    (1..=VERSION_MAX).contains(&version.len()) && !version.contains(char::is_control)
}

/// The end counts nothing, `~` less than nothing, and what is no letter more than any letter.
fn weight(c: u8) -> i32 {
    match c {
        b'~' => -1,
        c if c.is_ascii_alphabetic() => i32::from(c),
        c => i32::from(c) + 256,
    }
}

fn split<'a>(text: &mut &'a [u8], belongs: impl Fn(&u8) -> bool) -> &'a [u8] {
    let length = text.iter().position(|c| !belongs(c)).unwrap_or(text.len());
    let (first, rest) = text.split_at_checked(length).unwrap_or((text, &[]));
    *text = rest;
    first
}

fn significant(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|c| **c == b'0').count();
    digits.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_order() {
        let order = [
            "~~",
            "~",
            "0~1",
            "0",
            "1~rc1",
            "1~rc2",
            "1",
            "1.0",
            "1.0a",
            "1.0.1",
            "1.9",
            "1.10",
            "1.10.20260101",
            "2",
            "10",
            "v2",
            "v2.0",
            "v10",
        ];
        for (i, one) in order.iter().enumerate() {
            for (j, other) in order.iter().enumerate() {
                assert_eq!(compare(one, other), i.cmp(&j), "{one} {other}");
            }
        }
        assert_eq!(compare("1.02", "1.2"), Ordering::Equal);
        let long = "9".repeat(VERSION_MAX);
        assert_eq!(compare(&long[1..], &long), Ordering::Less);
        assert!(counts(&long) && !counts("") && !counts("1\n2") && !counts(&"1".repeat(VERSION_MAX + 1)));
    }
}
