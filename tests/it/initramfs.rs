//! The initramfs builder on a real Debian kernel; cpio and kmod are the oracles.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The builder has its own feature, so it is built here.
fn builder() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(ROOT).join("target");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--features", "builder", "--bin", "bootward-initramfs"]);
        ok(cargo.current_dir(ROOT).env("CARGO_TARGET_DIR", &target));
        target.join("debug/bootward-initramfs")
    })
}

/// Debian's cloud kernel, unpacked; downloaded once.
fn kernel() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let all = ok(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]));
        let package = all.lines().find_map(|l| l.trim().strip_prefix("Depends: ")).expect("a kernel package");
        let kernels = Path::new(ROOT).join("target/lab/kernels");
        let tree = kernels.join(package);
        if !tree.join("lib/modules").is_dir() {
            fs::create_dir_all(&kernels).unwrap();
            let scratch = tempfile::tempdir_in(&kernels).unwrap();
            ok(Command::new("apt-get").args(["download", package]).current_dir(scratch.path()));
            let file = fs::read_dir(scratch.path()).unwrap().next().expect("a package").unwrap().path();
            let fresh = scratch.path().join("tree");
            ok(Command::new("dpkg-deb").arg("-x").args([&file, &fresh]));
            fs::rename(&fresh, &tree).unwrap();
        }
        tree
    })
}

fn release(tree: &Path) -> String {
    fs::read_dir(tree.join("lib/modules"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name()
        .into_string()
        .unwrap()
}

/// A static executable without a libc: the header and one loadable segment are all that is looked at.
fn static_elf(machine: u8) -> Vec<u8> {
    let mut elf = vec![0u8; 120];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (elf[16], elf[18], elf[20]) = (2, machine, 1);
    (elf[32], elf[52], elf[54], elf[56], elf[64]) = (64, 64, 56, 1, 1);
    elf
}

fn inputs(dir: &Path) {
    fs::create_dir_all(dir.join("keys")).unwrap();
    fs::write(dir.join("init"), static_elf(62)).unwrap();
    fs::write(
        dir.join("toml"),
        "modules = [\"virtio_blk\", \"virtio-pci\", \"ext4\", \"vfat\", \"btrfs\"]\n",
    )
    .unwrap();
}

fn build(dir: &Path, extra: &[&str]) -> Output {
    let mut command = Command::new(builder());
    command.current_dir(dir).args(["--arch", "x86_64", "--binary", "init", "--output", "out"]);
    command.args(extra).env_remove("SOURCE_DATE_EPOCH").output().unwrap()
}

fn built(dir: &Path, extra: &[&str]) -> Vec<u8> {
    let output = build(dir, extra);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(dir.join("out")).unwrap()
}

fn refused(dir: &Path, extra: &[&str]) -> String {
    let output = build(dir, extra);
    assert_eq!(output.status.code(), Some(1), "{extra:?}");
    assert!(!dir.join("out").exists(), "a refusal leaves no archive");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let tree = kernel().to_str().unwrap();
    for how in ["none", "gzip", "xz", "zstd"] {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, keys) in [(one.path(), ["a", "b", "c"]), (two.path(), ["c", "b", "a"])] {
            inputs(dir);
            keys.iter().for_each(|k| fs::write(dir.join("keys").join(k), k).unwrap());
        }
        ok(Command::new("touch")
            .args(["-d", "2001-02-03"])
            .args([two.path().join("init"), two.path().join("toml")]));
        let arguments = ["--kernel-tree", tree, "--config", "toml", "--keys", "keys", "--compress", how];
        let first = built(one.path(), &arguments);
        // Another umask, locale, working directory, and a tree copied with other dates and folder order.
        let copy = two.path().join("tree");
        ok(Command::new("cp").arg("-r").args([tree, copy.to_str().unwrap()]));
        let script = format!(
            "umask 077; cd /; exec {} --arch x86_64 --binary $D/init --output $D/out --kernel-tree $D/tree --config $D/toml --keys $D/keys --compress {how}",
            builder().display()
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).env("D", two.path()).env("LC_ALL", "tr_TR.UTF-8").env("XZ_OPT", "-0");
        ok(shell.env("GZIP", "-1").env("TZ", "Asia/Tokyo").env_remove("SOURCE_DATE_EPOCH"));
        assert!(first == fs::read(two.path().join("out")).unwrap(), "{how}: the bytes differ");
    }
}

#[test]
fn cpio_unpacks_what_was_put_in() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    fs::write(dir.path().join("keys/k"), "key").unwrap();
    let arguments = [
        "--config",
        "toml",
        "--keys",
        "keys",
        "--kernel-tree",
        kernel().to_str().unwrap(),
        "--compress",
        "none",
    ];
    built(dir.path(), &[&arguments[..], &["--add", "toml:/etc/extra:600"]].concat());
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let input = fs::File::open(dir.path().join("out")).unwrap();
    ok(Command::new("cpio").args(["-idm", "--quiet"]).current_dir(&root).stdin(input));
    assert_eq!(fs::read(root.join("init")).unwrap(), static_elf(62));
    assert_eq!(fs::read(root.join("etc/bootward/keys/k")).unwrap(), b"key");
    assert_eq!(fs::read_link(root.join("bin/bootward")).unwrap(), Path::new("../init"));
    for (name, mode) in
        [("init", 0o100755), ("etc/extra", 0o100600), ("tmp", 0o041777), ("dev/null", 0o020666)]
    {
        let meta = fs::metadata(root.join(name)).unwrap();
        assert_eq!((meta.permissions().mode(), meta.uid(), meta.mtime()), (mode, 0, 0), "{name}");
    }
    assert_eq!(fs::metadata(root.join("dev/console")).unwrap().rdev(), 5 << 8 | 1);
    let file = format!("lib/modules/{}/kernel/fs/btrfs/btrfs.ko", release(kernel()));
    assert!(fs::read(root.join(&file)).unwrap() == fs::read(kernel().join(&file)).unwrap());

    // depmod, run on what was unpacked, finds the same dependencies; ours load in an order that modprobe's rules allow.
    let release = release(kernel());
    let dep = root.join("lib/modules").join(&release).join("modules.dep");
    let ours = fs::read_to_string(&dep).unwrap();
    ok(Command::new("depmod").arg("-b").arg(&root).arg(&release));
    let sets = |text: &str| {
        let mut lines: Vec<Vec<String>> = text
            .lines()
            .map(|l| {
                let (name, needs) = l.split_once(':').unwrap();
                let mut needs: Vec<String> = needs.split_whitespace().map(str::to_owned).collect();
                needs.sort();
                needs.insert(0, name.to_owned());
                needs
            })
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(sets(&ours), sets(&fs::read_to_string(&dep).unwrap()));
    for line in ours.lines() {
        let mut loaded: Vec<&str> = Vec::new();
        for name in line.split([':', ' ']).filter(|n| !n.is_empty()).rev() {
            let of = ours.lines().find(|l| l.split(':').next() == Some(name)).unwrap();
            assert!(of.split([':', ' ']).skip(1).all(|n| n.is_empty() || loaded.contains(&n)), "{line}");
            loaded.push(name);
        }
    }
}

#[test]
fn the_modules_are_those_that_modprobe_would_load() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("tree");
    ok(Command::new("cp").arg("-r").arg(kernel()).arg(&copy));
    let release = release(&copy);
    ok(Command::new("depmod").arg("-b").arg(&copy).arg(&release));
    // btrfs has four soft dependencies, each in a line of its own, of which this modprobe follows the first
    // only; in one line it follows them all, which is what the module asks for.
    let softdep = copy.join("lib/modules").join(&release).join("modules.softdep");
    let text = fs::read_to_string(&softdep).unwrap();
    let of_btrfs: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("softdep btrfs pre: ")).collect();
    assert!(of_btrfs.len() > 1, "{text}");
    let others: Vec<&str> = text.lines().filter(|l| !l.starts_with("softdep btrfs ")).collect();
    fs::write(&softdep, format!("softdep btrfs pre: {}\n{}\n", of_btrfs.join(" "), others.join("\n")))
        .unwrap();
    inputs(dir.path());
    for module in ["virtio_blk", "virtio_pci", "vfat", "btrfs", "xfs"] {
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("-d").arg(&copy).args(["-S", &release, "-C", "/nonexistent", "--show-depends", module]);
        let shown = ok(&mut modprobe);
        let base = |l: &str| l.split(".ko").next().unwrap().rsplit('/').next().unwrap().replace('-', "_");
        let mut expected: Vec<String> = shown.lines().filter(|l| l.starts_with("insmod")).map(base).collect();
        let tree = kernel().to_str().unwrap();
        built(dir.path(), &["--kernel-tree", tree, "--module", module, "--manifest", "list"]);
        let list = fs::read_to_string(dir.path().join("list")).unwrap();
        let mut ours: Vec<String> = list.lines().filter(|l| l.ends_with(".ko")).map(base).collect();
        expected.sort();
        expected.dedup();
        ours.sort();
        assert_eq!(ours, expected, "{module}: {shown}");
    }
}

#[test]
fn each_mistake_has_its_message() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let tree = kernel().to_str().unwrap();
    let said = refused(dir.path(), &["--kernel-tree", tree, "--module", "vfta"]);
    assert!(said.contains("no kernel module 'vfta'") && said.contains("vfat"), "{said}");
    let said = refused(dir.path(), &["--kernel-tree", tree, "--release", "1.2.3"]);
    assert!(said.contains("no release '1.2.3'"), "{said}");
    assert!(refused(dir.path(), &["--module", "vfat"]).contains("--kernel-tree"));
    let two = dir.path().join("two");
    for name in ["6.1.0-a", "6.1.0-b"] {
        fs::create_dir_all(two.join("usr/lib/modules").join(name).join("kernel")).unwrap();
    }
    let said = refused(dir.path(), &["--kernel-tree", two.to_str().unwrap()]);
    assert!(said.contains("6.1.0-a, 6.1.0-b") && said.contains("--release"), "{said}");
    let other = format!("lib/modules/{}/kernel/fs/fat/fat.ko", release(kernel()));
    let renamed = two.join("usr/lib/modules/6.1.0-a/kernel/fat.ko");
    fs::copy(kernel().join(other), renamed).unwrap();
    let said = refused(
        dir.path(),
        &["--kernel-tree", two.to_str().unwrap(), "--release", "6.1.0-a", "--module", "fat"],
    );
    assert!(said.contains("built for kernel"), "{said}");
    fs::write(dir.path().join("init"), static_elf(183)).unwrap();
    assert!(refused(dir.path(), &[]).contains("built for aarch64, but --arch is x86_64"));
    fs::copy("/bin/sh", dir.path().join("init")).unwrap();
    assert!(refused(dir.path(), &[]).contains("dynamically linked (needs /lib64/ld-linux-x86-64.so.2"));
    fs::write(dir.path().join("init"), "#!/bin/sh\n").unwrap();
    assert!(refused(dir.path(), &[]).contains("not an ELF file"));
}

/// The host's own programs, with the host's loader as the oracle for what they need.
#[test]
fn a_program_comes_with_what_its_loader_would_load() {
    let room = tempfile::tempdir().unwrap();
    inputs(room.path());
    let firmware = room.path().join("fw");
    fs::create_dir_all(firmware.join("brcm")).unwrap();
    for name in ["regulatory.db", "regulatory.db.p7s", "brcm/a.bin", "brcm/a.txt", "brcm/b.bin"] {
        fs::write(firmware.join(name), name).unwrap();
    }
    let program = "/usr/bin/openssl";
    let arguments =
        ["--wifi", program, "--firmware-dir", "fw", "--firmware", "brcm/a*", "--manifest", "list"];
    built(room.path(), &[&arguments[..], &["--compress", "none"]].concat());
    let list = fs::read_to_string(room.path().join("list")).unwrap();
    let names: Vec<&str> = list.lines().filter_map(|l| l.split_whitespace().nth(2)).collect();
    let loaded = ok(Command::new("ldd").arg(program));
    let mut libraries = 0;
    for line in loaded.lines().filter(|l| !l.contains("vdso")) {
        let path = line.split_whitespace().find(|word| word.starts_with('/')).unwrap();
        let base = path.rsplit('/').next().unwrap();
        assert!(names.iter().any(|n| n.rsplit('/').next() == Some(base)), "{base} is missing: {list}");
        libraries += 1;
    }
    assert!(libraries >= 4, "{loaded}");
    for name in ["usr/sbin/wpa_supplicant", "lib/firmware/regulatory.db", "lib/firmware/regulatory.db.p7s"] {
        assert!(names.contains(&format!("/{name}").as_str()), "{name} is missing: {list}");
    }
    assert!(names.contains(&"/lib/firmware/brcm/a.txt") && !names.contains(&"/lib/firmware/brcm/b.bin"));
    // Without its libraries, or without the signature, it would not run.
    fs::remove_file(room.path().join("out")).unwrap();
    let empty = room.path().join("fw/brcm");
    let said = refused(
        room.path(),
        &["--wifi", program, "--firmware-dir", "fw", "--wifi-root", empty.to_str().unwrap()],
    );
    assert!(said.contains("cannot be read") || said.contains("--wifi-root"), "{said}");
    fs::remove_file(firmware.join("regulatory.db.p7s")).unwrap();
    let said = refused(room.path(), &["--wifi", program, "--firmware-dir", "fw", "--wifi-root", "/"]);
    assert!(said.contains("wireless-regdb"), "{said}");
}
