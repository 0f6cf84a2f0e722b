//! The configuration against the `toml` crate, and its own rules.

use super::*;

const SAMPLE: &str = include_str!("../../initramfs/bootward.toml");
/// As many keys as the sample names.
const KEYS: usize = 24;

fn text(s: &str) -> Text {
    Text::try_from(s).unwrap()
}

/// The sample with its commented keys in force.
fn sample_in_force() -> std::string::String {
    let lines = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
        _ => line,
    });
    lines.collect::<std::vec::Vec<_>>().join("\n")
}

/// The same document, read by the `toml` crate.
fn oracle(document: &str) -> Result<Config, toml::de::Error> {
    let table: toml::Table = toml::from_str(document)?;
    let mut config = Config::default();
    let mut used = 0;
    for (section, value) in &table {
        let alone: toml::Table = [(section.clone(), value.clone())].into_iter().collect();
        let (section, keys) = value.as_table().map_or(("", &alone), |keys| (section.as_str(), keys));
        for (key, value) in keys {
            if config.slot(section, key).is_none() && SECTIONS[..OF_RECOVERY].contains(&section) {
                continue;
            }
            used += 1;
            match config.slot(section, key).expect("a key that is not ours was accepted").2 {
                Slot::Text(to) => *to = text(value.as_str().expect("not a string")),
                Slot::Number(to) => *to = value.as_integer().unwrap().try_into().unwrap(),
                Slot::List(to) => {
                    *to = value.as_array().unwrap().iter().map(|v| text(v.as_str().unwrap())).collect();
                }
            }
        }
    }
    assert!(used <= KEYS);
    Ok(config)
}

/// Whether the document was taken without a complaint; then TOML must say the same.
fn agrees(document: &[u8]) -> bool {
    let (config, mut complaints) = Config::parse(document);
    // Each key is for one of the two.
    #[cfg(feature = "recovery")]
    {
        complaints.count += crate::recovery::settings::Settings::parse(document).1.count;
    }
    if complaints.count == 0 {
        let shown = std::string::String::from_utf8_lossy(document);
        let document = core::str::from_utf8(document).unwrap_or_else(|e| panic!("{e}: {shown}"));
        let expected = oracle(document).unwrap_or_else(|e| panic!("toml refuses: {e}\n{shown}"));
        assert_eq!(config, expected, "{shown}");
    }
    complaints.count == 0
}

#[test]
fn the_sample_is_the_default_and_names_every_key() {
    assert!(agrees(SAMPLE.as_bytes()));
    assert_eq!(Config::parse(SAMPLE.as_bytes()).0, Config::default());
    let document = sample_in_force();
    assert!(agrees(document.as_bytes()));
    let table: toml::Table = toml::from_str(&document).unwrap();
    let mut read = Config::default();
    let keys = table.iter().map(|(section, value)| match value.as_table() {
        Some(keys) => keys.keys().filter(|key| read.slot(section, key).is_some()).count(),
        None => 1,
    });
    assert_eq!(keys.sum::<usize>(), KEYS, "each key of Config once");
    let (config, _) = Config::parse(document.as_bytes());
    assert_eq!(config.modules.last().unwrap(), "i6300esb heartbeat=30");
    assert_eq!((config.root_timeout, config.root_device.as_str()), (90, "LABEL=otaroot"));
}

/// Documents of likely pieces in random order: what is taken without a complaint means the same in TOML.
#[test]
fn what_is_taken_is_toml_with_the_same_meaning() {
    const PIECES: &[&str] = &[
        "modules",
        "init",
        "env",
        "device",
        "timeout",
        "limit",
        "level",
        "nonsense",
        "init = ",
        "env=",
        "modules = [",
        "[root]",
        "[boot]",
        "[log]\n",
        "[ watchdog ]",
        "[recovery",
        "]",
        "[",
        "=",
        " = ",
        ",",
        "\n",
        "\n",
        "\r\n",
        "\r",
        " ",
        "\t",
        "# c\u{e9}\n",
        "#\u{7f}",
        "\"\"",
        "\"a\\tb\"",
        "'lit\\eral'",
        "\"\\u00e9\"",
        "\"\\ud800\"",
        "\"\\x41\"",
        "\"\"\"",
        "'''",
        "\"",
        "'",
        "\\",
        "0",
        "60",
        "1_000",
        "1__0",
        "_1",
        "01",
        "+5",
        "-5",
        "-0",
        "0x10",
        "1.5",
        "1e3",
        "4294967296",
        "99999999999999999999",
        "true",
        "false",
        "\u{feff}",
        "\0",
        "{}",
        "limit = 3\n",
        "timeout = 7\n",
        "device = \"x\" # y\n",
        "modules = [\n'a', # b\n\"c d\",\n]\n",
        "a.b = 1",
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let (mut taken, base) = (0, sample_in_force());
    for round in 0..30_000 {
        let mut document = std::vec::Vec::new();
        if round % 4 == 0 {
            // The sample with a few bytes exchanged, doubled or lost.
            document.extend_from_slice(base.as_bytes());
            for _ in 0..=random(3) {
                let at = random(document.len() - 1);
                match random(4) {
                    0 => drop(document.remove(at)),
                    1 => document.insert(at, document[at]),
                    2 => document[at] = b"\"'[]=,#\n\\ 0a\r\xff"[random(14)],
                    _ => document.swap(at, at + 1),
                }
            }
        } else {
            for _ in 0..=random(9) {
                document.extend_from_slice(PIECES[random(PIECES.len())].as_bytes());
            }
        }
        taken += usize::from(agrees(&document));
    }
    assert!(taken > 1_500, "only {taken} documents were taken: the corpus shows little");
}

#[test]
fn a_wrong_line_is_reported_and_the_others_stand() {
    let document = "init = /bad\nenv = \"/e\"\nenv = \"/again\"\n[root]\ntimeout = -1\ndevice = 'LABEL=x'\n\
        [rot]\nflags = \"x\"\n[root]\nfstype = \"ext4\"\n[log]\nlevel = 3\n";
    let (config, complaints) = Config::parse(document.as_bytes());
    let problems: std::vec::Vec<_> = complaints.first.iter().map(|c| (c.line, c.problem)).collect();
    let expected = [
        (1, Problem::Value),
        (3, Problem::Duplicate),
        (5, Problem::WrongKind),
        (7, Problem::UnknownSection),
        (8, Problem::UnknownKey),
        (9, Problem::Duplicate),
        (10, Problem::UnknownKey),
        (12, Problem::WrongKind),
    ];
    assert_eq!(problems, expected);
    assert_eq!((config.env.as_str(), config.root_device.as_str()), ("/e", "LABEL=x"));
    assert_eq!((config.root_timeout, config.log_level.as_str()), (90, "info"));
}

/// A bracket that was forgotten must not take the section behind it away.
#[test]
fn an_open_list_costs_only_itself() {
    for list in ["modules = [\n", "modules = [\"a\",\n", "modules = [\"a\"\n", "modules = [ # x\n\n"] {
        let document = std::format!("{list}[root]\ndevice = \"LABEL=x\"\n");
        let (config, complaints) = Config::parse(document.as_bytes());
        assert_eq!(config.root_device, "LABEL=x", "{list:?}");
        assert_eq!(complaints.first.first().map(|c| (c.line, c.problem)), Some((1, Problem::Value)));
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let long = std::format!("init = \"{}\"\n", "x".repeat(129));
    let many = std::format!("modules = [{}]\n", "\"m\",".repeat(MAX_MODULES + 1));
    for (document, problem) in [(long, Problem::TooLong), (many, Problem::TooLong)] {
        assert_eq!(Config::parse(document.as_bytes()).1.first[0].problem, problem);
    }
    let huge = "#\n".repeat(MAX_SIZE);
    assert_eq!(Config::parse(huge.as_bytes()).1.first[0].problem, Problem::FileTooLong);
    assert_eq!(Config::parse("x\n".repeat(20).as_bytes()).1.count, 20);
}

#[test]
fn a_wrong_word_never_weakens_verification() {
    use crate::ostree::verify::Level;
    let level = |document: &str, word| Config::parse(document.as_bytes()).0.level(word);
    let table = [
        ("", Level::None),
        ("[verify]\nlevel = \"none\"\n", Level::None),
        ("[verify]\nlevel = \"metadata\"\n", Level::Metadata),
        ("[verify]\nlevel = \"full\"\n", Level::Full),
        ("[verify]\nlevel = \"ful\"\n", Level::Full),
        ("[verify]\nlevel = \"None\"\n", Level::Full),
        ("[verify]\nlevel = full\n", Level::Full),
        ("[verify]\nlevel = true\n", Level::Full),
        ("[verify]\nlevle = \"full\"\n", Level::Full),
        ("[verify]\nkeys = \"/etc/keys\"\n", Level::Full),
        ("[verify]\nkeys = \"/etc/keys\"\nlevel = \"none\"\n", Level::None),
        ("[verify]\nlevel = \"none\"\nkeys = /etc/keys\n", Level::Full),
    ];
    for (document, expected) in table {
        assert_eq!(level(document, None), expected, "{document}");
        assert_eq!(level(document, Some("none")), expected, "{document}");
        assert_eq!(level(document, Some("metadata")), expected.max(Level::Metadata), "{document}");
        assert_eq!(level(document, Some("nonsense")), Level::Full, "{document}");
    }
    // What was to be checked is unclear, then nothing boots.
    let unclear = |document: &str| Config::parse(document.as_bytes()).0.verify_unclear;
    for document in ["[verify]\nkeys = /etc/keys\n", "[verify]\nkesy = \"x\"\n", "[verify]\nlevel = 1\n"] {
        assert!(unclear(document), "{document}");
    }
    assert!(!unclear("[verify]\nlevel = \"ful\"\n[log]\nlevel = 1\n"));
}
