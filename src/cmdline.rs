//! The kernel command line, split by the kernel's own quoting rules.
//!
//! The rules are those of `next_arg` and `parse_args` in the kernel's `lib/cmdline.c` and `kernel/params.c`:
//! arguments are separated by white space outside double quotes; a quote may stand before the whole
//! argument or right after its `=` and is then left out; `-` and `_` are the same in a name; `--` ends what
//! the kernel reads, the rest belongs to init. Everything is borrowed, nothing is copied, any bytes will do.

/// A command line as `/proc/cmdline` gives it.
#[derive(Clone, Copy, Debug)]
pub struct CommandLine<'a> {
    bytes: &'a [u8],
}

/// One argument, its quotes left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument<'a> {
    /// What stands before the first `=`, or the whole argument.
    pub name: &'a [u8],
    /// What follows the `=`; `None` where there is no `=`.
    pub value: Option<&'a [u8]>,
}

impl<'a> CommandLine<'a> {
    /// Takes the text of `/proc/cmdline`; it ends at the first NUL, as it does in the kernel.
    pub fn parse<B: AsRef<[u8]> + ?Sized>(text: &'a B) -> Self {
        let bytes = text.as_ref();
        CommandLine { bytes: bytes.split(|&b| b == 0).next().unwrap_or(bytes) }
    }

    /// The arguments meant for the kernel and the initramfs: those before `--`.
    pub fn arguments(&self) -> Arguments<'a> {
        Arguments { rest: skip_spaces(self.bytes), stop_at_dashes: true, after_dashes: &[] }
    }

    /// The arguments after `--`, which belong to init.
    pub fn for_init(&self) -> Arguments<'a> {
        let mut arguments = self.arguments();
        while arguments.next().is_some() {}
        Arguments { rest: arguments.after_dashes, stop_at_dashes: false, after_dashes: &[] }
    }

    /// The value of the last argument of this name that has one. An empty value is a value.
    pub fn raw(&self, name: &str) -> Option<&'a [u8]> {
        self.arguments().filter(|a| a.is(name)).filter_map(|a| a.value).last()
    }

    /// As [`CommandLine::raw`], as text; a value that is not UTF-8 counts as absent.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        core::str::from_utf8(self.raw(name)?).ok()
    }

    /// Whether an argument of this name is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.arguments().any(|a| a.is(name))
    }

    /// The last argument of this name as a switch: without a value it is on, else the kernel's `kstrtobool`
    /// decides (`1 y t on` and `0 n f off`, by their first letters). `None` when absent or neither.
    pub fn switch(&self, name: &str) -> Option<bool> {
        let last = self.arguments().filter(|a| a.is(name)).last()?;
        match last.value {
            None => Some(true),
            Some([b'1' | b'y' | b'Y' | b't' | b'T', ..] | [b'o' | b'O', b'n' | b'N', ..]) => Some(true),
            Some([b'0' | b'n' | b'N' | b'f' | b'F', ..] | [b'o' | b'O', b'f' | b'F', ..]) => Some(false),
            Some(_) => None,
        }
    }

    /// The arguments named `bootward.…`, in order, with that prefix taken off.
    pub fn options(&self) -> impl Iterator<Item = Argument<'a>> {
        self.arguments().filter_map(|a| {
            let name = a.name.strip_prefix(b"bootward.")?;
            Some(Argument { name, value: a.value })
        })
    }
}

impl Argument<'_> {
    /// Whether this is the argument `name`; `-` and `_` are the same.
    pub fn is(&self, name: &str) -> bool {
        same_name(self.name, name.as_bytes())
    }
}

/// Whether two names are the same to the kernel: `-` and `_` are (`parameq`).
pub fn same_name(one: &[u8], other: &[u8]) -> bool {
    let folded = |b: &u8| if *b == b'-' { b'_' } else { *b };
    one.iter().map(folded).eq(other.iter().map(folded))
}

/// Iterator over the arguments of a command line.
#[derive(Clone, Debug)]
pub struct Arguments<'a> {
    rest: &'a [u8],
    stop_at_dashes: bool,
    after_dashes: &'a [u8],
}

impl<'a> Iterator for Arguments<'a> {
    type Item = Argument<'a>;

    fn next(&mut self) -> Option<Argument<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (argument, rest) = next_argument(self.rest);
        self.rest = rest;
        if self.stop_at_dashes && argument.value.is_none() && argument.name == b"--" {
            self.after_dashes = core::mem::take(&mut self.rest);
            return None;
        }
        Some(argument)
    }
}

/// `next_arg` of `lib/cmdline.c`, on a slice that does not begin with a space.
fn next_argument(text: &[u8]) -> (Argument<'_>, &[u8]) {
    let quoted = text.first() == Some(&b'"');
    let text = if quoted { text.get(1..).unwrap_or_default() } else { text };
    let mut in_quote = quoted;
    // The kernel keeps 0 for "none yet", so an `=` in front is part of the name.
    let mut equals = 0;
    let mut end = text.len();
    for (i, &b) in text.iter().enumerate() {
        if is_space(b) && !in_quote {
            end = i;
            break;
        }
        if b == b'=' && equals == 0 {
            equals = i;
        }
        if b == b'"' {
            in_quote = !in_quote;
        }
    }
    let (whole, rest) = text.split_at_checked(end).unwrap_or((text, &[]));
    let argument = if equals == 0 {
        let name = if quoted { whole.strip_suffix(b"\"").unwrap_or(whole) } else { whole };
        Argument { name, value: None }
    } else {
        let (name, value) = whole.split_at_checked(equals).unwrap_or((whole, &[]));
        let value = value.strip_prefix(b"=").unwrap_or(value);
        let inner = value.strip_prefix(b"\"");
        let open = inner.unwrap_or(value);
        let closes = quoted || inner.is_some();
        let value = if closes { open.strip_suffix(b"\"").unwrap_or(open) } else { open };
        Argument { name, value: Some(value) }
    };
    (argument, skip_spaces(rest))
}

fn skip_spaces(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text {
        if !is_space(*first) {
            break;
        }
        text = rest;
    }
    text
}

/// The kernel's `isspace`: ASCII white space and Latin-1's no-break space.
fn is_space(b: u8) -> bool {
    matches!(b, 9..=13 | b' ' | 0xa0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, Option<String>)> {
        let text_of = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        CommandLine::parse(text).arguments().map(|a| (text_of(a.name), a.value.map(text_of))).collect()
    }

    /// What `next_arg` makes of each line, worked out from the kernel's source by hand.
    #[test]
    fn splits_as_the_kernel_does() {
        type Case<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)]);
        let table: &[Case] = &[
            ("", &[]),
            (" \t\n", &[]),
            ("ro quiet\n", &[("ro", None), ("quiet", None)]),
            ("  root=/dev/sda1  rw", &[("root", Some("/dev/sda1")), ("rw", None)]),
            ("root=UUID=1-2", &[("root", Some("UUID=1-2"))]),
            ("a=", &[("a", Some(""))]),
            ("a=\"\" b", &[("a", Some("")), ("b", None)]),
            ("a=\"b c\" d", &[("a", Some("b c")), ("d", None)]),
            ("\"a=b c\" d", &[("a", Some("b c")), ("d", None)]),
            ("\"a b\" d", &[("a b", None), ("d", None)]),
            ("\"a=\"b c\"\" d", &[("a", Some("b")), ("c\"\"", None), ("d", None)]),
            ("a=b\" c\"d e", &[("a", Some("b\" c\"d")), ("e", None)]),
            ("a\" \"b=c", &[("a\" \"b", Some("c"))]),
            ("a=\"b c", &[("a", Some("b c"))]),
            ("a=\"", &[("a", Some(""))]),
            ("\"", &[("", None)]),
            ("\"\"", &[("", None)]),
            ("=a", &[("=a", None)]),
            ("=a=b", &[("=a", Some("b"))]),
            ("a=\"b\"c d", &[("a", Some("b\"c")), ("d", None)]),
            ("dyndbg=\"file drivers/usb/* +p\" x", &[("dyndbg", Some("file drivers/usb/* +p")), ("x", None)]),
            ("a -- b", &[("a", None)]),
            ("a --=1 b", &[("a", None), ("--", Some("1")), ("b", None)]),
            ("a\u{b}b", &[("a", None), ("b", None)]),
        ];
        for (line, expected) in table {
            let expected: Vec<_> =
                expected.iter().map(|(n, v)| (n.to_string(), v.map(str::to_string))).collect();
            assert_eq!(pairs(line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_last_value_wins_and_dashes_are_underscores() {
        let line =
            CommandLine::parse("root=/dev/sda1 bootward.log-level=debug root=LABEL=x root ostree_root=");
        assert_eq!(line.value("root"), Some("LABEL=x"));
        assert_eq!(line.value("bootward.log_level"), Some("debug"));
        assert_eq!(line.value("ostree-root"), Some(""));
        assert_eq!(line.value("roo"), None);
        assert!(line.has("root") && !line.has("oot"));
    }

    #[test]
    fn what_follows_two_dashes_goes_to_init() {
        let line = CommandLine::parse("ro -- single root=x -- y");
        assert_eq!(line.value("root"), None);
        let init: Vec<_> = line.for_init().map(|a| String::from_utf8_lossy(a.name).into_owned()).collect();
        assert_eq!(init, ["single", "root", "--", "y"]);
        assert_eq!(CommandLine::parse("ro").for_init().count(), 0);
        // The iterator stays finished.
        let mut arguments = line.arguments();
        assert!(arguments.next().is_some() && arguments.next().is_none() && arguments.next().is_none());
    }

    #[test]
    fn switches_read_as_kstrtobool() {
        let line = CommandLine::parse("a b=1 c=off d=On e=maybe f=0 g=");
        let got = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|n| line.switch(n));
        assert_eq!(got, [Some(true), Some(true), Some(false), Some(true), None, Some(false), None, None]);
    }

    #[test]
    fn options_lose_their_prefix() {
        let line = CommandLine::parse("bootward.recovery quiet bootward.shell=1 xbootward.y");
        let names: Vec<_> = line.options().map(|a| a.name.to_vec()).collect();
        assert_eq!(names, [b"recovery".to_vec(), b"shell".to_vec()]);
    }

    /// Every string of up to six of the bytes that matter: it ends, and nothing is invented.
    #[test]
    fn takes_any_bytes() {
        const BYTES: [u8; 7] = [b'"', b'=', b' ', b'-', b'a', 0, 0xa0];
        for n in 0..BYTES.len().pow(6) {
            let mut text = [0; 6];
            let mut rest = n;
            for b in &mut text {
                *b = BYTES[rest % BYTES.len()];
                rest /= BYTES.len();
            }
            let line = CommandLine::parse(&text);
            let total: usize = line.arguments().map(|a| a.name.len() + a.value.map_or(0, <[u8]>::len)).sum();
            assert!(total <= text.len());
            assert!(line.for_init().count() <= text.len());
        }
    }
}
