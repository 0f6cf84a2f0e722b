//! Sysroots made by the real `ostree`, small enough to be cut ten thousand times.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

pub fn ostree(args: &[&str]) -> String {
    let mut command = Command::new("ostree");
    command.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments").env("OSTREE_BOOTID", "test");
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
    /// Each deployment has the argument `slot=VERSION`, which tells entries apart.
    pub slots: bool,
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
    slots: false,
    versions: &["1", "2", "3"],
};

pub struct Made {
    keep: tempfile::TempDir,
    pub root: PathBuf,
}

impl Made {
    #[allow(dead_code, reason = "not every test that has this file makes something there")]
    /// A place beside the sysroot that goes with it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.keep.path().join(name)
    }
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
        let slot = format!("--karg=slot={version}");
        if style.slots {
            deploy.push(&slot);
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
    fs::write(tree.join("usr/sbin/init"), program(62)).unwrap();
    fs::set_permissions(tree.join("usr/sbin/init"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("usr/sbin", tree.join("sbin")).unwrap();
}

/// The smallest static programs: an ELF header, a program header that maps it, and one to change.
pub fn program(machine: u16) -> Vec<u8> {
    let mut elf = vec![0u8; 176];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    elf[16] = 2;
    elf[18..20].copy_from_slice(&machine.to_le_bytes());
    elf[24] = 0x40;
    elf[32] = 64;
    elf[54] = 56;
    elf[56] = 2;
    // PT_LOAD of the whole file at address 0, in which the entry is.
    elf[64] = 1;
    elf[96] = 176;
    elf[104] = 176;
    elf
}
