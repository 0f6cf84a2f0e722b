//! `bootward verify --repair`, with a server that counts; `ostree fsck` judges.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::fixture::{PLAIN, make_tree, ostree};
use crate::pair::Pair;
use crate::server::{Manner, Server};

/// A device with two deployments, and the server that they came from.
struct Device {
    keep: tempfile::TempDir,
    server: Server,
    commits: Vec<String>,
}

impl Device {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let path = |name: &str| keep.path().join(name).to_str().unwrap().to_string();
        let pair = Pair::new();
        fs::write(path("keys"), &pair.public).unwrap();
        fs::write(path("secret"), pair.secret()).unwrap();
        ostree(&["init", "--repo", &path("server"), "--mode=archive"]);
        fs::create_dir(path("sysroot")).unwrap();
        let server = Server::start(keep.path().join("server"), Manner::Good);
        let mut device = Device { server, commits: Vec::new(), keep };
        device.ok(&["init-fs", "--stateroot", "os", "--bootloader", "uboot"]);
        for version in ["1", "2"] {
            let tree = device.path(&format!("tree-{version}"));
            make_tree(&tree, &PLAIN, version);
            for n in 0..60 {
                let directory = tree.join(format!("usr/share/d{}", n % 7));
                fs::create_dir_all(&directory).unwrap();
                let own = if n % 3 == 0 { version } else { "" };
                fs::write(directory.join(format!("f{n}")), format!("content {n} {own}\n").repeat(n * 9 + 1))
                    .unwrap();
            }
            let (repo, tree) = (device.path("server"), tree);
            let [repo, tree] = [&repo, &tree].map(|path| path.to_str().unwrap());
            let commit = ostree(&["commit", "--repo", repo, "-b", "os/main", tree]).trim().to_string();
            let secret = device.path("secret");
            let out = bootward(&["sign", "--repo", repo, "--key", secret.to_str().unwrap(), &commit]);
            assert!(out.status.success());
            let (url, keys) = (device.server.url.clone(), device.path("keys"));
            let keys = keys.to_str().unwrap();
            device.ok(&["upgrade", "--url", &url, "--ref", "os/main", "--keys", keys, "--stateroot", "os"]);
            // What a filesystem that cannot be frozen leaves would wait for a reboot.
            fs::remove_file(device.path("sysroot/ostree/bootward/ledger")).unwrap();
            device.commits.insert(0, commit);
        }
        device.server.asked();
        device
    }

    fn path(&self, name: &str) -> PathBuf {
        self.keep.path().join(name)
    }

    fn deployment(&self, index: usize) -> PathBuf {
        self.path("sysroot/ostree/deploy/os/deploy").join(format!("{}.0", self.commits[index]))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let sysroot = self.path("sysroot");
        bootward(&[arguments, &["--sysroot", sysroot.to_str().unwrap()]].concat())
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let out = self.run(arguments);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{arguments:?}: {said} {}", String::from_utf8_lossy(&out.stdout));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Repairs, and gives what was said of each deployment, as JSON.
    fn repair(&self, more: &[&str]) -> Vec<Value> {
        let url = self.server.url.clone();
        let said = self.ok(&[&["verify", "--repair", "--json", "--url", &url], more].concat());
        let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == "repaired").collect()
    }

    /// Whatever `ostree` and we find wrong is nothing.
    fn clean(&self, what: &str) {
        let repo = self.path("sysroot/ostree/repo");
        let out = Command::new("ostree").args(["fsck", "--repo"]).arg(&repo).output().unwrap();
        assert!(out.status.success(), "{what}: {}", String::from_utf8_lossy(&out.stderr));
        self.ok(&["verify", "--all"]);
        let leftover = self.path("sysroot/ostree/bootward/deployment");
        assert!(!leftover.exists(), "{what}");
    }

    /// Objects of the repository by their paths: of files with content, and the rest.
    fn objects(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for fan in fs::read_dir(self.path("sysroot/ostree/repo/objects")).unwrap() {
            all.extend(fs::read_dir(fan.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.retain(|path| path.extension().is_some_and(|e| e != "commitmeta"));
        all.sort();
        all
    }
}

fn bootward(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bootward"))
        .env("OSTREE_SYSROOT_DEBUG", "mutable-deployments")
        .args(arguments)
        .output()
        .unwrap()
}

/// In place, so that whoever shares the file has it too.
fn flip(path: &Path) {
    let content = fs::read(path).unwrap();
    let at = content.len() / 2;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[content[at] ^ 4], at as u64).unwrap();
}

/// What an archive server calls an object of this path.
fn asked_for(object: &Path) -> String {
    let name = object.to_str().unwrap().rsplit_once("/objects/").unwrap().1;
    let kind = if name.ends_with(".file") { "z" } else { "" };
    format!("objects/{name}{kind}")
}

#[test]
fn as_many_objects_come_as_are_damaged() {
    let device = Device::new();
    assert_eq!(device.repair(&["--all"]).len(), 2);
    assert_eq!(device.server.asked(), Vec::<String>::new(), "nothing is damaged, nothing is asked for");
    let mut seed = 7u32;
    for count in [1, 2, 5, 17, 40] {
        let mut all = device.objects();
        let mut damaged = BTreeSet::new();
        while damaged.len() < count {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let path = all.swap_remove(seed as usize % all.len());
            let stat = fs::symlink_metadata(&path).unwrap();
            if stat.is_symlink() || stat.len() == 0 || damaged.len() % 4 == 3 {
                fs::remove_file(&path).unwrap();
            } else {
                flip(&path);
            }
            damaged.insert(asked_for(&path));
        }
        let repaired = device.repair(&["--all"]);
        let fetched: u64 = repaired.iter().map(|line| line["fetched"].as_u64().unwrap()).sum();
        let asked = device.server.asked();
        assert_eq!(asked.iter().cloned().collect::<BTreeSet<_>>(), damaged, "{count}");
        assert_eq!((fetched as usize, asked.len()), (count, count));
        device.clean(&format!("{count} objects"));
    }
}

#[test]
fn every_kind_of_damage_is_put_right() {
    let device = Device::new();
    let etc = device.deployment(0).join("etc/own");
    fs::write(&etc, "the device's own").unwrap();
    type Damage = Box<dyn Fn(&Path)>;
    let write = |path: &'static str, text: &'static str| -> Damage {
        Box::new(move |root| fs::write(root.join(path), text).unwrap())
    };
    let cases: Vec<(&str, usize, Damage)> = vec![
        (
            "a file with a second name is gone",
            0,
            Box::new(|root| fs::remove_file(root.join("usr/share/d1/f1")).unwrap()),
        ),
        ("a directory is gone", 0, Box::new(|root| fs::remove_dir_all(root.join("usr/share/d2")).unwrap())),
        ("a file is there that nobody made", 0, write("usr/share/d1/extra", "x")),
        ("one in the root", 0, write("extra", "x")),
        (
            "a directory that nobody made",
            0,
            Box::new(|root| fs::create_dir_all(root.join("usr/x/y/z")).unwrap()),
        ),
        (
            "a directory in the place of a file",
            0,
            Box::new(|root| {
                fs::remove_file(root.join("usr/share/d1/f1")).unwrap();
                fs::create_dir_all(root.join("usr/share/d1/f1/below")).unwrap();
            }),
        ),
        (
            "a file in the place of a directory",
            0,
            Box::new(|root| {
                fs::remove_dir_all(root.join("usr/share/d3")).unwrap();
                fs::write(root.join("usr/share/d3"), "x").unwrap();
            }),
        ),
        (
            "a link in the place of a directory",
            0,
            Box::new(|root| {
                fs::remove_dir_all(root.join("usr/share/d3")).unwrap();
                symlink("/etc", root.join("usr/share/d3")).unwrap();
            }),
        ),
        (
            "a copy that was changed",
            0,
            Box::new(|root| {
                fs::remove_file(root.join("usr/share/d4/f4")).unwrap();
                fs::write(root.join("usr/share/d4/f4"), "changed").unwrap();
            }),
        ),
        (
            "the mode of a directory",
            0,
            Box::new(|root| {
                fs::set_permissions(root.join("usr/share"), fs::Permissions::from_mode(0o777)).unwrap();
            }),
        ),
        (
            "the mode of the root",
            0,
            Box::new(|root| {
                fs::set_permissions(root, fs::Permissions::from_mode(0o711)).unwrap();
            }),
        ),
        (
            "the mode of a file, and so of its object",
            1,
            Box::new(|root| {
                fs::set_permissions(root.join("usr/share/d5/f5"), fs::Permissions::from_mode(0o4755))
                    .unwrap();
            }),
        ),
        (
            "the owner of a directory",
            0,
            Box::new(|root| {
                std::os::unix::fs::chown(root.join("usr/share/d1"), Some(7), Some(7)).unwrap();
            }),
        ),
        ("content, and so the object", 1, Box::new(|root| flip(&root.join("usr/share/d6/f6")))),
    ];
    for (what, objects, damage) in &cases {
        damage(&device.deployment(0));
        assert!(!device.run(&["verify", "0"]).status.success(), "{what}: not seen");
        // The other deployment may have the same file; both are put right.
        let repaired = device.repair(&["--all"]);
        assert_eq!(device.server.asked().len(), *objects, "{what}");
        assert!(repaired[0]["mended"].as_u64().unwrap() > 0, "{what}");
        device.clean(what);
    }
    let everything = |root: &Path| {
        cases
            .iter()
            .filter(|(what, ..)| !what.contains("in the place"))
            .for_each(|(_, _, damage)| damage(root))
    };
    everything(&device.deployment(0));
    device.repair(&["0"]);
    assert!(device.run(&["verify", "0"]).status.success());
    device.repair(&["--all"]);
    device.clean("all at once");
    assert_eq!(fs::read_to_string(&etc).unwrap(), "the device's own");
    // What is right has one inode with its object again.
    let object = fs::metadata(device.deployment(0).join("usr/share/d5/f5")).unwrap();
    assert!(object.nlink() > 1);
}

#[test]
fn commits_kernels_and_marks_are_put_right() {
    let device = Device::new();
    // The kernel in /boot, the one that the deployment has, and both.
    let boot = device.path("sysroot/boot/ostree");
    let kernel = || {
        let directories = fs::read_dir(&boot).unwrap().map(|entry| entry.unwrap().path());
        let mut files = directories.flat_map(|at| fs::read_dir(at).unwrap().map(|file| file.unwrap().path()));
        let is_kernel = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("vmlinuz");
        files.find(is_kernel).unwrap()
    };
    // In a boot directory on the same filesystem it is the object itself.
    let shared = fs::metadata(kernel()).unwrap().nlink() > 1;
    flip(&kernel());
    device.repair(&["--all"]);
    assert_eq!(device.server.asked().len(), usize::from(shared));
    device.clean("a kernel");
    let (at, copy) = (kernel(), fs::read(kernel()).unwrap());
    fs::remove_file(&at).unwrap();
    fs::write(&at, &copy[1..]).unwrap();
    device.repair(&["--all"]);
    assert_eq!(device.server.asked().len(), 0);
    device.clean("the copy of a kernel");
    fs::remove_file(kernel()).unwrap();
    device.repair(&["--all"]);
    device.clean("no kernel");

    // The commit itself, and what `ostree fsck --delete` leaves of damage.
    let commit = &device.commits[0];
    let object =
        device.path(&format!("sysroot/ostree/repo/objects/{}/{}.commit", &commit[..2], &commit[2..]));
    flip(&object);
    device.repair(&["0"]);
    assert_eq!(device.server.asked(), [format!("objects/{}/{}.commit", &commit[..2], &commit[2..])]);
    device.clean("a commit");
    fs::remove_file(&object).unwrap();
    device.repair(&["0"]);
    device.clean("no commit");
    device.server.asked();
    flip(&device.deployment(0).join("usr/share/d6/f6"));
    let repo = device.path("sysroot/ostree/repo");
    let _ = Command::new("ostree").args(["fsck", "--delete", "--repo"]).arg(&repo).output().unwrap();
    let state = || fs::read_dir(repo.join("state")).unwrap().count();
    assert!(state() > 0);
    device.repair(&["--all"]);
    assert_eq!((device.server.asked().len(), state()), (1, 0));
    device.clean("after fsck --delete");
}

#[test]
fn what_cannot_be_put_right_is_told() {
    let device = Device::new();
    let victim = device.deployment(0).join("usr/share/d6/f6");
    flip(&victim);
    let refused = |more: &[&str], expected: &str| {
        let out = device.run(&[&["verify", "--repair", "0"], more].concat());
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{more:?}: {said}");
        assert!(said.contains(expected), "{more:?}: {said}");
        assert!(String::from_utf8_lossy(&out.stdout).contains("/usr/share/d6/f6"), "{more:?}");
    };
    refused(&[], "give --url");
    refused(&["--url", "file:///nonexistent"], "/nonexistent");
    let bad = Server::start(device.path("server"), Manner::Corrupt);
    refused(&["--url", &bad.url], "what the server has is not this object");
    let empty = Server::start(device.path("server"), Manner::Empty);
    refused(&["--url", &empty.url], "the server does not have it");
    // From a stick, a mirror beside a bad one, and by the remote that the origin names.
    let directory = format!("file://{}", device.path("server").display());
    device.ok(&["verify", "--repair", "--all", "--url", &directory]);
    device.clean("from a directory");
    flip(&victim);
    device.ok(&["verify", "--repair", "--all", "--url", &bad.url, "--url", &device.server.url]);
    device.clean("a mirror");
    flip(&victim);
    let config = device.path("sysroot/ostree/repo/config");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[remote \"origin\"]\nurl={}\n", device.server.url)).unwrap();
    device.ok(&["verify", "--repair", "--all", "--remote", "origin"]);
    device.clean("the remote's");
    // A signature is asked for where keys are given, and a hotfix is left alone.
    fs::write(device.path("other"), &Pair::new().public).unwrap();
    let other = device.path("other");
    assert_eq!(
        device.run(&["verify", "--repair", "0", "--keys", other.to_str().unwrap()]).status.code(),
        Some(1)
    );
    let hotfix = device.deployment(0).join(".usr-ovl-1");
    fs::create_dir(&hotfix).unwrap();
    assert_eq!(device.run(&["verify", "--repair", "0"]).status.code(), Some(1));
    assert!(hotfix.exists());
    for wrong in [&["verify", "--url", "http://x/"][..], &["verify", "--repair", "--level", "metadata"]] {
        assert_eq!(device.run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// What no object's checksum covers: the signatures of a commit, and the composefs image of a deployment.
#[test]
fn signatures_and_images_are_put_right() {
    let device = Device::new();
    let config = device.path("sysroot/ostree/repo/config");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[ex-integrity]\ncomposefs=true\n")).unwrap();
    // Those that are deployed have none yet.
    assert!(device.repair(&["--all"]).iter().all(|line| line["mended"] == 1));
    let image = device.deployment(0).join(".ostree.cfs");
    let whole = fs::read(&image).unwrap();
    let damages: [&dyn Fn(); 4] =
        [&|| flip(&image), &|| fs::write(&image, "").unwrap(), &|| fs::remove_file(&image).unwrap(), &|| {
            fs::remove_file(&image).unwrap();
            fs::create_dir_all(image.join("x")).unwrap();
        }];
    for damage in damages {
        damage();
        // A directory does not belong there, and that is told besides.
        let wrong = if image.is_dir() { 2 } else { 1 };
        assert_eq!(device.repair(&["0"])[0]["mended"], wrong);
        assert_eq!(fs::read(&image).unwrap(), whole);
        device.clean("an image");
    }
    assert_eq!(device.repair(&["--all"]).iter().filter(|line| line["mended"] != 0).count(), 0);
    assert_eq!(device.server.asked(), Vec::<String>::new());

    let commit = &device.commits[0];
    let name = format!("objects/{}/{}.commitmeta", &commit[..2], &commit[2..]);
    let repo = device.path("sysroot/ostree/repo");
    let (meta, keys) = (repo.join(&name), device.path("keys"));
    let good = fs::read(&meta).unwrap();
    let signatures = || {
        let key = "--print-detached-metadata-key=ostree.sign.ed25519";
        ostree(&["show", key, "--repo", repo.to_str().unwrap(), commit])
    };
    let (signed, keys) = (signatures(), ["0", "--keys", keys.to_str().unwrap()]);
    let stranger = crate::pair::detached(&[Pair::new().sign(b"something else")]);
    for (damage, words) in
        [(None, &keys[..1]), (Some(&b""[..]), &keys[..1]), (Some(b"x"), &keys), (Some(&stranger), &keys)]
    {
        match damage {
            Some(data) => fs::write(&meta, data).unwrap(),
            None => fs::remove_file(&meta).unwrap(),
        }
        assert_eq!(device.repair(words)[0]["fetched"], 1, "{damage:?}");
        assert_eq!(device.server.asked(), std::slice::from_ref(&name));
        assert_eq!((fs::read(&meta).unwrap(), signatures()), (good.clone(), signed.clone()));
        device.clean("a signature");
    }
    // A server that has none is told only where there has to be one.
    fs::remove_file(device.path("server").join(&name)).unwrap();
    fs::remove_file(&meta).unwrap();
    device.repair(&["0"]);
    let url = device.server.url.clone();
    let out = device.run(&[&["verify", "--repair", "--url", &url], &keys[..]].concat());
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains(&name), "{out:?}");
}
