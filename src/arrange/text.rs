//! Boot entries and `uEnv.txt`, byte for byte as libostree writes them.
//!
//! Sources: ostree-bootconfig-parser.c, ostree-kernel-args.c, ostree-sysroot-deploy.c (`install_deployment_kernel`) and
//! ostree-bootloader-uboot.c of libostree v2026.4. `tests/it/arrange.rs` compares with what `ostree` itself writes.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::layout::Entry;

/// The keys that libostree writes first, in this order.
const FIRST: [&str; 6] = ["title", "version", "options", "devicetree", "linux", "initrd"];

/// The arguments of a kernel command line as libostree splits them: by spaces outside double quotes.
pub fn arguments(options: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    options.trim_start_matches(' ').split(move |c| {
        quoted ^= c == '"';
        c == ' ' && !quoted
    })
}

/// Gives an argument one value: in the place of its first one, the others are dropped; at the end where there is none.
pub fn replace_argument(options: &str, key: &str, value: &str) -> String {
    let mut all: Vec<String> = Vec::new();
    let mut there = false;
    let new = format!("{key}={value}");
    for argument in arguments(options) {
        if argument.split('=').next() != Some(key) {
            all.push(argument.into());
        } else if !there {
            there = true;
            all.push(new.clone());
        }
    }
    if !there {
        all.retain(|a| !a.is_empty());
        all.push(new);
    }
    all.join(" ")
}

/// The value of the last argument of this name.
fn last_value<'a>(options: &'a str, key: &str) -> Option<&'a str> {
    arguments(options).filter_map(|a| a.split_once('=')).filter(|(k, _)| *k == key).map(|(_, v)| v).last()
}

/// Where an entry stands among the others of a new configuration.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its index in boot order.
    pub index: usize,
    /// How many there are.
    pub count: usize,
    /// The boot version that is being written.
    pub version: u8,
    /// Its number among the deployments with the same kernel.
    pub boot_serial: usize,
    /// There is more than one stateroot, so that titles name it.
    pub show_stateroot: bool,
}

/// The entry's keys and values in its new place.
pub fn keys(entry: &Entry, place: &Place) -> Vec<(String, String)> {
    let mut title = entry.os.clone();
    if let Some(version) = entry.version.as_deref().filter(|v| !v.is_empty() && !title.contains(*v)) {
        title = format!("{title} {version}");
    }
    let stateroot = if place.show_stateroot { format!(":{}", entry.stateroot) } else { String::new() };
    title = format!("{title} (ostree{stateroot}:{})", place.index);
    let link = format!(
        "/ostree/boot.{}/{}/{}/{}",
        place.version, entry.stateroot, entry.checksum, place.boot_serial
    );
    let mut options = entry.value("options").unwrap_or_default().to_string();
    if entry.value("initrd").is_none() {
        let init = format!("{link}/usr/lib/ostree/ostree-prepare-root");
        options = replace_argument(&options, "init", &init);
    }
    options = replace_argument(&options, "ostree", &link);
    let mut keys = entry.keys.clone();
    for (key, value) in [
        ("title", title),
        ("version", (place.count - place.index.min(place.count)).to_string()),
        ("options", options),
    ] {
        keys.retain(|(k, _)| k != key);
        keys.push((key.into(), value));
    }
    keys
}

/// The file of an entry.
pub fn entry(keys: &[(String, String)]) -> String {
    let known = FIRST.iter().flat_map(|first| keys.iter().filter(move |(k, _)| k == first));
    // libostree's hash table gives the others in no order.
    let others = keys.iter().filter(|(k, _)| !FIRST.contains(&k.as_str()));
    known.chain(others).map(|(key, value)| format!("{key} {value}\n")).collect()
}

/// The name of an entry's file; `+LEFT-DONE` of libostree's boot counting stays.
pub fn entry_name(entry: &Entry, place: &Place, named_by_stateroot: bool) -> String {
    let number = place.count - place.index.min(place.count);
    let stateroot = if named_by_stateroot { format!("-{}", entry.stateroot) } else { String::new() };
    let old = entry.file.strip_suffix(".conf").unwrap_or(&entry.file);
    let counter = old.rsplit_once('+').map(|(_, counter)| format!("+{counter}")).unwrap_or_default();
    format!("ostree-{number}{stateroot}{counter}.conf")
}

/// `uEnv.txt` for the entries in boot order; `first` is the first one's own addition.
pub fn uenv(entries: &[Vec<(String, String)>], first: Option<&str>) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (index, keys) in entries.iter().enumerate() {
        let suffix = if index == 0 { String::new() } else { (index + 1).to_string() };
        let value = |key: &str| keys.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        for (name, key) in [
            ("kernel_image", "linux"),
            ("ramdisk_image", "initrd"),
            ("fdt_file", "devicetree"),
            ("fdtdir", "fdtdir"),
        ] {
            lines.extend(value(key).map(|v| format!("{name}{suffix}=/boot{v}")));
        }
        if let Some(options) = value("options") {
            lines.push(format!("bootargs{suffix}={options}"));
            lines.extend(first.filter(|_| index == 0).map(String::from));
        }
    }
    let mut text = String::new();
    let mut was_empty = false;
    for line in lines {
        // As _ostree_sysroot_join_lines: one empty line is kept, the first of them.
        if line.is_empty() && (was_empty || text.is_empty()) {
            continue;
        }
        was_empty |= line.is_empty();
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The boot link that an entry's options name.
pub fn target(options: &str) -> Option<&str> {
    last_value(options, "ostree")
}

/// `PRETTY_NAME` of an os-release, else `ID`.
pub fn os_name(os_release: &str) -> Option<String> {
    let value = |wanted: &str| {
        let lines = os_release.split('\n').filter(|l| !l.starts_with('#'));
        let found = lines.filter_map(|l| l.split_once('=')).rfind(|(k, _)| *k == wanted)?.1;
        unquote(found)
    };
    value("PRETTY_NAME").or_else(|| value("ID"))
}

/// The shell's quoting, as `g_shell_unquote` undoes it.
fn unquote(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), c) => out.push(c),
            (Some(_), '\\') => match chars.next()? {
                c @ ('"' | '\\' | '`' | '$') => out.push(c),
                '\n' => {}
                c => out.extend(['\\', c]),
            },
            (None, '\\') => out.extend(chars.next().filter(|c| *c != '\n')),
            (None, '\'' | '"') => quote = Some(c),
            (_, c) => out.push(c),
        }
    }
    quote.is_none().then_some(out)
}
