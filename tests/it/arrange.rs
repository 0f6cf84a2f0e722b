//! Changes of the list of deployments, against what `ostree admin` makes of the same sysroot.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use bootward::arrange::survey::{Places, survey};
use bootward::arrange::{Layout, carry, plan};
use bootward::sys::files::Disk;

pub fn ostree(args: &[&str]) -> String {
    let mut command = Command::new("ostree");
    command.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments,no-xattrs").env("OSTREE_BOOTID", "test");
    let out = command.args(args).output().expect("the ostree command is needed for this test");
    assert!(out.status.success(), "ostree {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// What a sysroot of the tests is made of.
#[derive(Clone, Copy)]
pub struct Style {
    /// One kernel for all deployments.
    pub same_kernel: bool,
    /// Kernel arguments of every deployment.
    pub arguments: &'static [&'static str],
    /// `sysroot.bootprefix`.
    pub bootprefix: bool,
    pub initramfs: bool,
    pub devicetree: bool,
    pub uboot: bool,
    /// The versions, oldest first.
    pub versions: &'static [&'static str],
}

pub const PLAIN: Style = Style {
    same_kernel: false,
    arguments: &["quiet", "root=LABEL=otaroot"],
    bootprefix: false,
    initramfs: true,
    devicetree: false,
    uboot: true,
    versions: &["1", "2", "3"],
};

pub struct Made {
    pub keep: tempfile::TempDir,
    pub root: PathBuf,
}

/// A sysroot made by `ostree`, with a deployment of each version, the last one first.
pub fn make(style: &Style) -> Made {
    let keep = tempfile::tempdir().unwrap();
    let root = keep.path().join("sysroot");
    let at = root.to_str().unwrap();
    fs::create_dir(&root).unwrap();
    ostree(&["admin", "init-fs", at]);
    ostree(&["admin", "os-init", "--sysroot", at, "demo"]);
    let repo = format!("--repo={at}/ostree/repo");
    if style.bootprefix {
        ostree(&["config", &repo, "set", "sysroot.bootprefix", "true"]);
    }
    if style.uboot {
        fs::create_dir(root.join("boot/loader.0")).unwrap();
        symlink("loader.0", root.join("boot/loader")).unwrap();
        fs::write(root.join("boot/loader/uEnv.txt"), "").unwrap();
    }
    for version in style.versions {
        let tree = keep.path().join(version);
        make_tree(&tree, style, version);
        let tree = format!("--tree=dir={}", tree.display());
        let number = format!("--add-metadata-string=version=v{version}");
        ostree(&["commit", &repo, "-b", "demo/stable", "-s", version, &number, &tree]);
        let mut deploy = vec!["admin", "deploy", "--sysroot", at, "--os=demo", "--retain"];
        let arguments: Vec<String> = style.arguments.iter().map(|a| format!("--karg-append={a}")).collect();
        if *version == style.versions[0] {
            deploy.extend(arguments.iter().map(String::as_str));
        }
        deploy.push("demo/stable");
        ostree(&deploy);
    }
    Made { keep, root }
}

pub fn make_tree(tree: &Path, style: &Style, version: &str) {
    let release = if style.same_kernel { "6.0.0".into() } else { format!("6.{version}.0") };
    let modules = tree.join("usr/lib/modules").join(&release);
    for dir in [&modules, &tree.join("usr/etc"), &tree.join("usr/sbin"), &tree.join("usr/lib/ostree-boot")] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(modules.join("vmlinuz"), format!("kernel {release}")).unwrap();
    if style.initramfs {
        fs::write(modules.join("initramfs.img"), format!("initramfs {release}")).unwrap();
    }
    if style.devicetree {
        fs::write(modules.join("devicetree"), "a device tree").unwrap();
    }
    let os_release = format!("NAME=demo\nVERSION_ID={version}\nPRETTY_NAME=\"demo's \\\"{version}\\\"\"\n");
    fs::write(tree.join("usr/lib/os-release"), os_release).unwrap();
    fs::write(tree.join("usr/lib/ostree-boot/uEnv.txt"), format!("fdtaddr=0x{version}\n\n\nmore=1\n"))
        .unwrap();
    fs::write(tree.join("usr/etc/config"), version).unwrap();
    fs::write(tree.join("usr/sbin/init"), crate::sysroot::program(62)).unwrap();
    fs::set_permissions(tree.join("usr/sbin/init"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("usr/sbin", tree.join("sbin")).unwrap();
}

pub fn layout(root: &Path) -> Layout {
    let boot = root.join("boot");
    survey(&Places { sysroot: root, boot: &boot, booted: None, options: None, deep: true }).unwrap()
}

fn rearrange(root: &Path, order: &[usize]) {
    let plan = plan::rearrange(&layout(root), order).unwrap();
    let mut disk = Disk::open(root, &root.join("boot")).unwrap();
    carry::carry_out(&mut disk, &plan).unwrap();
    let tidy = plan::tidy(&layout(root), false);
    carry::steps(&mut disk, &tidy, true).unwrap();
}

/// Everything below a directory that says which deployments there are: links, small files, names, modes.
fn written(root: &Path) -> BTreeMap<String, String> {
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

fn walk(root: &Path, path: &Path, found: &mut BTreeMap<String, String>) {
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

fn copy(made: &Made) -> (tempfile::TempDir, PathBuf) {
    let keep = tempfile::tempdir().unwrap();
    let root = keep.path().join("sysroot");
    let status = Command::new("cp").arg("-a").arg(&made.root).arg(&root).status().unwrap();
    assert!(status.success());
    (keep, root)
}

fn differences(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<String> {
    let mut out = Vec::new();
    for (name, value) in theirs {
        if ours.get(name) != Some(value) {
            out.push(format!("{name}\n  ostree: {value:?}\n  ours:   {:?}", ours.get(name)));
        }
    }
    out.extend(ours.keys().filter(|n| !theirs.contains_key(*n)).map(|n| format!("{n}: only ours")));
    out
}

const STYLES: [(&str, Style); 6] = [
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
            rearrange(&made.root, order);
            let status = ostree(&["admin", "status", "--sysroot", at]);
            assert_eq!(status.matches("demo ").count(), order.len(), "{name}: {status}");
            ostree(&["fsck", &format!("--repo={at}/ostree/repo")]);
            assert_eq!(layout(&made.root).faults, [""; 0], "{name}");
        }
        let tree = made.keep.path().join("next");
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
