//! Which programs bootward ever starts, and from where: no more than these.

use std::fs;
use std::path::Path;

/// What starts a program.
const WAYS: [&str; 7] =
    ["Command::new", "execv", "execl", ".exec()", "posix_spawn", "libc::system", "libc::popen"];

/// Each file that does, which program that is, and where its name comes from. In the initramfs: the init of a deployment, the
/// checker and maker of the root's filesystem, wpa_supplicant and the shell, the last three from the configuration in the
/// initramfs alone. In the OS: the health checks, and reboot.
const KNOWN: [(&str, &str); 7] = [
    ("cli/recover.rs", "/usr/sbin/reboot or /sbin/reboot, for 'recover --reboot'"),
    ("health/run.rs", "the health checks, in the OS"),
    ("mounts/switch_root.rs", "the real init"),
    ("net/wifi/daemon.rs", "wpa_supplicant, wifi.supplicant of the configuration"),
    ("recovery/mend.rs", "fsck and mkfs, recovery.fsck and recovery.mkfs of the configuration"),
    ("sys/rehearse.rs", "the real init, rehearsed before anything is given up"),
    ("sys/terminal.rs", "the shell, recovery.shell of the configuration"),
];

fn collect(directory: &Path, found: &mut Vec<String>, root: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found, root);
            continue;
        }
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let tests = name.ends_with("tests.rs") || name.contains("/tests/");
        if tests || path.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        // Tests stand at the end of a file.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
        if lines.into_iter().any(|line| WAYS.iter().any(|way| line.contains(way))) {
            found.push(name);
        }
    }
}

#[test]
fn no_other_program_is_ever_started() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &mut found, &root);
    found.sort();
    assert_eq!(found, KNOWN.map(|(file, _)| file), "{KNOWN:?}");
}
