//! Boot state: the environment's image, its places, boot entries and boot links.

use core::cmp::Ordering;
use core::ffi::{c_char, c_int};
use std::ffi::CString;

use bootward::sysroot::entry::{BootLink, Entry, deployment_name, is_entry_name, version_order};
use bootward::uboot::config::{Config, Place};
use bootward::uboot::env::{Edit, EditError, Image, Kind, rewrite};

/// An edit changes what it names and nothing else, and the result is an image.
///
/// Input: flags, the length of the edits, the edits (`name=value` sets and `name` deletes, each ended by a
/// line feed), the variables as in an image.
pub fn env(data: &[u8]) {
    for kind in [Kind::Single, Kind::Redundant] {
        if let Err(error) = Image::parse(data, kind) {
            let _ = error.to_string();
        }
    }
    let [flags, length, rest @ ..] = data else { return };
    let Some((edits, variables)) = rest.split_at_checked(usize::from(*length)) else { return };
    let kind = if flags & 1 == 0 { Kind::Single } else { Kind::Redundant };
    let mut bytes = crc32fast::hash(variables).to_le_bytes().to_vec();
    if kind == Kind::Redundant {
        bytes.push(*flags);
    }
    bytes.extend_from_slice(variables);
    let Ok(old) = Image::parse(&bytes, kind) else { return };
    assert_eq!(old.flag, if kind == Kind::Redundant { *flags } else { 0 });

    let edits: Vec<Edit> = edits
        .split(|&b| b == b'\n')
        .map(|edit| match edit.iter().position(|&b| b == b'=') {
            Some(at) => Edit { name: &edit[..at], value: Some(&edit[at + 1..]) },
            None => Edit { name: edit, value: None },
        })
        .filter(|edit| flags & 2 != 0 || !edit.name.is_empty())
        .collect();
    // Room for more, the same, or less.
    let size = (bytes.len() + 256).saturating_sub(usize::from(flags >> 3) * 16);
    let mut into = vec![0xAA; size];
    match rewrite(&old, &edits, kind, 7, &mut into) {
        Ok(()) => changed(&old, &edits, kind, &into),
        Err(error) => {
            let _ = error.to_string();
            match error {
                EditError::Truncated => assert!(old.is_truncated()),
                EditError::Overflow { needed, size: room } => assert!(needed > room),
                EditError::Name(index) => {
                    assert!(edits[index].name.is_empty() || edits[index].name.contains(&0))
                }
                EditError::Value(index) => assert!(edits[index].value.unwrap().contains(&0)),
                EditError::TooMany(count) => assert!(count == edits.len()),
            }
        }
    }
}

fn changed(old: &Image<'_>, edits: &[Edit<'_>], kind: Kind, into: &[u8]) {
    let new = Image::parse(into, kind).expect("the result is an image");
    assert_eq!(new.flag, if kind == Kind::Redundant { 7 } else { 0 });
    assert!(!new.is_truncated());
    for edit in edits {
        let last = edits.iter().rfind(|other| other.name == edit.name).unwrap();
        assert_eq!(new.get(edit.name), last.value, "{:?}", edit.name);
        assert!(new.variables().filter(|v| v.0 == edit.name).count() <= 1);
    }
    let untouched = |v: &(&[u8], &[u8])| edits.iter().all(|edit| edit.name != v.0);
    assert!(old.variables().filter(untouched).eq(new.variables().filter(untouched)));
    let mut again = vec![0x55; into.len()];
    rewrite(&new, edits, kind, 7, &mut again).expect("what was done can be done again");
    assert_eq!(again, into, "the same edits again change nothing");
}

/// What is read can be written and read again, and keeps the limits.
pub fn fw_env_config(data: &[u8]) {
    let config = match Config::parse(data) {
        Ok(config) => config,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    let mut written = String::new();
    for place in [Some(config.first), config.second].into_iter().flatten() {
        let Place { device, offset, size, sector, sectors, disable_lock } = place;
        assert!(!device.is_empty() && !device.contains([' ', '\t', '\n']) && !device.starts_with('#'));
        assert!((16..=bootward::uboot::env::MAX_SIZE).contains(&size) && size == config.first.size);
        let lock = u8::from(disable_lock);
        written.push_str(&format!("{device} {offset} {size:#x} {sector:#x} {sectors:x} {lock}\n"));
    }
    assert_eq!(Config::parse(written.as_bytes()), Ok(config));
}

#[link(name = "c")]
unsafe extern "C" {
    fn strverscmp(a: *const c_char, b: *const c_char) -> c_int;
}

/// Entries read back; versions compare as the C library's do; links keep below `/ostree`.
pub fn bls(data: &[u8]) {
    let entry = Entry::parse(data);
    let fields = [
        ("title", entry.title),
        ("version", entry.version),
        ("options", entry.options),
        ("linux", entry.linux),
        ("initrd", entry.initrd),
    ];
    let mut written = String::new();
    for (key, value) in fields {
        if let Some(value) = value {
            written.push_str(&format!("{key} {value}\n"));
        }
    }
    // A carriage return at a value's end would be taken for the line's, and is: it is no text of ours.
    if !fields.iter().any(|(_, value)| value.is_some_and(|value| value.ends_with('\r'))) {
        assert_eq!(Entry::parse(written.as_bytes()), entry);
    }
    if let Some(target) = entry.target() {
        assert!(entry.options.unwrap().contains(target));
        link(target);
    }

    let lines: Vec<&[u8]> = data.split(|&b| b == b'\n').take(4).collect();
    for a in &lines {
        for b in &lines {
            let order = version_order(a, b);
            assert_eq!(order, version_order(b, a).reverse(), "{a:?} {b:?}");
            if let (Ok(a), Ok(b)) = (CString::new(*a), CString::new(*b)) {
                // SAFETY: both end with NUL.
                let theirs = unsafe { strverscmp(a.as_ptr(), b.as_ptr()) }.cmp(&0);
                assert_eq!(order, theirs, "{a:?} {b:?}");
            }
        }
    }
    for line in lines {
        let Ok(line) = core::str::from_utf8(line) else { continue };
        link(line);
        assert!(!is_entry_name(line) || line.ends_with(".conf"));
        if let Some((commit, serial)) = deployment_name(line) {
            assert_eq!(deployment_name(&format!("{commit}.{serial}")), Some((commit, serial)));
            assert_eq!(commit.len(), 64);
        }
    }
    assert_eq!(entry.boot_order(&entry), Ordering::Equal);
}

fn link(path: &str) {
    let Some(link) = BootLink::parse(path) else { return };
    let BootLink { version, stateroot, checksum, serial } = link;
    for part in [version, stateroot, checksum] {
        assert!(!part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\0']));
    }
    let written = format!("/ostree/{version}/{stateroot}/{checksum}/{serial}");
    assert_eq!(BootLink::parse(&written), Some(link));
}
