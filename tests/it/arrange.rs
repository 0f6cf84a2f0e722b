//! Changes of the list of deployments, against what `ostree admin` makes of the same sysroot.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bootward::arrange::survey::{Places, survey};
use bootward::arrange::{Layout, carry, plan};
use bootward::sys::files::Disk;

use crate::fixture::{Made, PLAIN, Style, make, make_tree, ostree};

pub fn layout(root: &Path) -> Layout {
    let boot = root.join("boot");
    survey(&Places { sysroot: root, boot: &boot, booted: None, options: None, deep: true }).unwrap()
}

fn rearrange(root: &Path, order: &[usize]) {
    change(root, order);
    let tidy = plan::tidy(&layout(root), false);
    let mut disk = Disk::open(root, &root.join("boot")).unwrap();
    carry::steps(&mut disk, &tidy, true).unwrap();
}

fn change(root: &Path, order: &[usize]) {
    let plan = plan::rearrange(&layout(root), order).unwrap();
    let mut disk = Disk::open(root, &root.join("boot")).unwrap();
    carry::carry_out(&mut disk, &plan).unwrap();
}

/// Everything below a directory that says which deployments there are: links, small files, names, modes.
pub fn written(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for top in [
        "boot",
        "ostree/boot.0",
        "ostree/boot.1",
        "ostree/boot.0.0",
        "ostree/boot.0.1",
        "ostree/boot.1.0",
        "ostree/boot.1.1",
        "ostree/repo/refs",
        "ostree/deploy",
    ] {
        walk(root, Path::new(top), &mut found);
    }
    found
}

pub fn walk(root: &Path, path: &Path, found: &mut BTreeMap<String, String>) {
    let full = root.join(path);
    let Ok(meta) = fs::symlink_metadata(&full) else { return };
    let name = path.to_str().unwrap().to_string();
    let mode = meta.permissions().mode() & 0o7777;
    if meta.is_symlink() {
        found.insert(name, format!("-> {}", fs::read_link(&full).unwrap().display()));
    } else if meta.is_dir() {
        found.insert(name, format!("directory {mode:o}"));
        for entry in fs::read_dir(&full).unwrap() {
            walk(root, &path.join(entry.unwrap().file_name()), found);
        }
    } else {
        found.insert(name, format!("{mode:o} {}", String::from_utf8_lossy(&fs::read(&full).unwrap())));
    }
}

pub fn copy(made: &Made) -> (tempfile::TempDir, PathBuf) {
    let keep = tempfile::tempdir().unwrap();
    let root = keep.path().join("sysroot");
    let status = Command::new("cp").arg("-a").arg(&made.root).arg(&root).status().unwrap();
    assert!(status.success());
    (keep, root)
}

pub fn differences(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<String> {
    let mut out = Vec::new();
    for (name, value) in theirs {
        if ours.get(name) != Some(value) {
            out.push(format!("{name}\n  ostree: {value:?}\n  ours:   {:?}", ours.get(name)));
        }
    }
    out.extend(ours.keys().filter(|n| !theirs.contains_key(*n)).map(|n| format!("{n}: only ours")));
    out
}

pub const STYLES: [(&str, Style); 6] = [
    ("plain", PLAIN),
    ("same kernel", Style { same_kernel: true, ..PLAIN }),
    ("bootprefix", Style { bootprefix: true, devicetree: true, ..PLAIN }),
    ("no initramfs", Style { initramfs: false, ..PLAIN }),
    ("no U-Boot", Style { uboot: false, ..PLAIN }),
    ("odd arguments", Style { arguments: &["a=\"x y\"", "ostree-x=1", "b", "b=2", "b=3"], ..PLAIN }),
];

#[test]
fn undeploying_writes_what_ostree_writes() {
    for (name, style) in STYLES {
        let made = make(&style);
        assert_eq!(layout(&made.root).faults, [""; 0], "{name}");
        for index in 0..3 {
            let (_keep, ours) = copy(&made);
            let (_other, theirs) = copy(&made);
            ostree(&["admin", "undeploy", "--sysroot", theirs.to_str().unwrap(), &index.to_string()]);
            let order: Vec<usize> = (0..3).filter(|i| *i != index).collect();
            rearrange(&ours, &order);
            let found = differences(&written(&ours), &written(&theirs));
            assert!(found.is_empty(), "{name}, undeploy {index}:\n{}", found.join("\n"));
            assert_eq!(layout(&ours).faults, [""; 0], "{name}");
        }
    }
}

#[test]
fn ostree_goes_on_from_what_we_wrote() {
    for (name, style) in STYLES {
        let made = make(&style);
        let at = made.root.to_str().unwrap();
        // The way back and forth, then one fewer.
        for order in [&[1, 0, 2][..], &[1, 0, 2], &[2, 0, 1], &[1, 2], &[1]] {
            // Several changes in one boot leave more behind.
            if order.len() == 2 {
                (0..3).for_each(|_| change(&made.root, &[1, 0, 2]));
            }
            rearrange(&made.root, order);
            let status = ostree(&["admin", "status", "--sysroot", at]);
            assert_eq!(status.matches("demo ").count(), order.len(), "{name}: {status}");
            ostree(&["fsck", &format!("--repo={at}/ostree/repo")]);
            assert_eq!(layout(&made.root).faults, [""; 0], "{name}");
            // The link in use and what it leads to; the three others are gone.
            let names = fs::read_dir(made.root.join("ostree")).unwrap();
            let links =
                names.filter(|n| n.as_ref().unwrap().file_name().to_string_lossy().starts_with("boot."));
            assert_eq!(links.count(), 2, "{name}, {order:?}");
        }
        let tree = made.beside("next");
        make_tree(&tree, &style, "9");
        let repo = format!("--repo={at}/ostree/repo");
        ostree(&["commit", &repo, "-b", "demo/stable", &format!("--tree=dir={}", tree.display())]);
        ostree(&["admin", "deploy", "--sysroot", at, "--os=demo", "demo/stable"]);
        let layout = layout(&made.root);
        assert_eq!((layout.entries.len(), layout.faults.len()), (2, 0), "{name}: {:?}", layout.faults);
        rearrange(&made.root, &[0]);
        let status = ostree(&["admin", "status", "--sysroot", at]);
        assert_eq!(status.matches("demo ").count(), 1, "{name}: {status}");
    }
}
