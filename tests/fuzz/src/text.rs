//! Text files: the command line, the configuration, key files.

use bootward::cmdline::CommandLine;
use bootward::config::Config;
use bootward::keyfile::KeyFile;
use bootward::recovery::settings::Settings;

/// Arguments are pieces of the line, and a line written from them reads as the same arguments.
pub fn cmdline(data: &[u8]) {
    let line = CommandLine::parse(data);
    let range = data.as_ptr_range();
    let inside = |piece: &[u8]| piece.is_empty() || range.contains(&piece.as_ptr());
    let arguments: Vec<_> = line.arguments().collect();
    let mut written = Vec::new();
    for argument in &arguments {
        assert!(inside(argument.name) && argument.value.is_none_or(inside));
        // A name with a quote or a space in it, or with `=` in front, cannot be written again so simply.
        let plain = |b: &u8| !matches!(b, 0 | b'"' | b'=' | 9..=13 | b' ' | 0xa0);
        let value = argument.value.unwrap_or_default();
        if argument.name.is_empty() || !argument.name.iter().all(plain) || value.contains(&b'"') {
            return;
        }
        written.extend_from_slice(argument.name);
        if argument.value.is_some() {
            written.extend_from_slice(b"=\"");
            written.extend_from_slice(value);
            written.push(b'"');
        }
        written.push(b' ');
    }
    assert_eq!(CommandLine::parse(&written).arguments().collect::<Vec<_>>(), arguments);

    for argument in &arguments {
        let Ok(name) = core::str::from_utf8(argument.name) else { continue };
        assert!(line.has(name) && argument.is(name));
        let last = arguments.iter().rfind(|other| other.is(name) && other.value.is_some());
        assert_eq!(line.raw(name), last.and_then(|last| last.value));
        assert!(line.value(name).is_none_or(|text| Some(text.as_bytes()) == line.raw(name)));
        let _ = line.switch(name);
    }
    assert!(line.options().count() <= arguments.len());
    for argument in line.for_init() {
        assert!(inside(argument.name) && argument.value.is_none_or(inside));
    }
}

/// What is taken without a complaint is TOML, with the same values and no others.
pub fn config(data: &[u8]) {
    let (_, complaints) = Settings::parse(data);
    assert!(complaints.first.len() as u32 <= complaints.count);
    let (config, complaints) = Config::parse(data);
    assert!(complaints.first.len() as u32 <= complaints.count);
    for complaint in &complaints.first {
        let _ = complaint.to_string();
    }
    if complaints.count > 0 {
        return;
    }
    let text = core::str::from_utf8(data).expect("what is not UTF-8 is complained of");
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("taken, but not TOML: {error}"));
    let default = Config::default();
    let value = |section: &str, key: &str| match section {
        "" => table.get(key).cloned(),
        _ => table.get(section).and_then(|section| section.get(key)).cloned(),
    };
    let text = |section, key, ours: &str, default: &str| {
        let theirs = value(section, key);
        assert_eq!(
            theirs.map_or(Some(default.into()), |v| v.as_str().map(String::from)),
            Some(ours.to_string())
        );
    };
    let number = |section, key, ours: u32, default: u32| {
        let theirs = value(section, key);
        assert_eq!(theirs.map_or(Some(default.into()), |v| v.as_integer()), Some(i64::from(ours)));
    };
    text("", "init", &config.init, &default.init);
    text("", "env", &config.env, &default.env);
    text("root", "device", &config.root_device, &default.root_device);
    text("root", "fstype", &config.root_fstype, &default.root_fstype);
    text("root", "flags", &config.root_flags, &default.root_flags);
    text("boot", "device", &config.boot_device, &default.boot_device);
    text("boot", "fstype", &config.boot_fstype, &default.boot_fstype);
    text("watchdog", "device", &config.watchdog_device, &default.watchdog_device);
    text("recovery", "console", &config.recovery_console, &default.recovery_console);
    text("log", "level", &config.log_level, &default.log_level);
    text("verify", "level", &config.verify_level, &default.verify_level);
    text("verify", "keys", &config.verify_keys, &default.verify_keys);
    number("verify", "timeout", config.verify_timeout, default.verify_timeout);
    assert!(!config.verify_unclear, "nothing was complained of");
    number("root", "timeout", config.root_timeout, default.root_timeout);
    number("ledger", "limit", config.ledger_limit, default.ledger_limit);
    number("watchdog", "timeout", config.watchdog_timeout, default.watchdog_timeout);
    number("recovery", "reboot_after", config.recovery_reboot_after, default.recovery_reboot_after);
    let modules = value("", "modules").map_or(Vec::new(), |v| v.as_array().expect("a list").clone());
    assert!(
        modules.iter().map(|v| v.as_str().expect("a text")).eq(config.modules.iter().map(|m| m.as_str()))
    );
    // Nothing was passed over in silence, but what recovery reads by itself.
    for (name, entry) in &table {
        let known = match name.as_str() {
            "modules" | "init" | "env" => true,
            "recovery" | "network" | "time" | "wifi" => entry.is_table(),
            _ => entry.as_table().is_some_and(|section| {
                let known: &[&str] = match name.as_str() {
                    "root" => &["device", "fstype", "flags", "timeout"],
                    "boot" => &["device", "fstype"],
                    "firmware" => &["device", "fstype"],
                    "check" => &["timeout", "total"],
                    "ledger" => &["limit", "failures", "window"],
                    "watchdog" => &["device", "timeout"],
                    "log" => &["level"],
                    "verify" => &["level", "timeout", "keys"],
                    _ => &[],
                };
                section.keys().all(|key| known.contains(&key.as_str()))
            }),
        };
        assert!(known, "{name} is not known and was not complained of");
    }
}

/// What a key file says of a key, a file that says only this says too.
pub fn keyfile(data: &[u8]) {
    let file = match KeyFile::parse(data) {
        Ok(file) => file,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    let text = core::str::from_utf8(data).expect("what is not UTF-8 is refused");
    let mut groups = vec![];
    for line in text.lines() {
        if let Some((group, _)) = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            groups.push(group);
        }
        let Some((key, _)) = line.split_once('=') else { continue };
        let key = key.trim();
        for &group in &groups {
            let Some(value) = file.value(group, key) else { continue };
            assert!(!value.contains('\n') && data.len() >= key.len() + value.len());
            let again = format!("[{group}]\r\n{key}={value}\r\n");
            let again = KeyFile::parse(again.as_bytes()).unwrap_or_else(|error| panic!("{again:?}: {error}"));
            assert_eq!(again.value(group, key), Some(value));
        }
        if groups.len() > 16 {
            return;
        }
    }
    let _ = file.boolean("sysroot", "readonly");
}
