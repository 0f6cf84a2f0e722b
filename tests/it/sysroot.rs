//! Sysroots made by the real `ostree`, read by ours and by libostree, then broken in every way we know.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use bootward::policy::Kernel;
use bootward::sysroot::{Look, Machine, Named, Sysroot};

use crate::fixture::{ostree, program};

pub struct Fixture {
    _keep: Option<tempfile::TempDir>,
    pub root: PathBuf,
}

impl Fixture {
    /// Two deployments; the second one, index 0, has another kernel release than the first one.
    pub fn new() -> Fixture {
        let keep = tempfile::tempdir().unwrap();
        let root = keep.path().join("sysroot");
        let at = root.to_str().unwrap();
        fs::create_dir(&root).unwrap();
        ostree(&["admin", "init-fs", at]);
        ostree(&["admin", "os-init", "--sysroot", at, "demo"]);
        fs::create_dir(root.join("boot/loader.0")).unwrap();
        symlink("loader.0", root.join("boot/loader")).unwrap();
        fs::write(root.join("boot/loader/uEnv.txt"), "").unwrap();
        for version in ["1", "2"] {
            let tree = keep.path().join(version);
            let release = format!("6.{version}.0");
            let modules = tree.join("usr/lib/modules").join(&release);
            for dir in
                [&modules, &tree.join("usr/etc"), &tree.join("usr/sbin"), &tree.join("usr/lib/systemd")]
            {
                fs::create_dir_all(dir).unwrap();
            }
            fs::write(modules.join("vmlinuz"), format!("kernel {version}")).unwrap();
            fs::write(modules.join("initramfs.img"), "initramfs").unwrap();
            let os_release = format!("NAME=demo\nVERSION_ID={version}\nPRETTY_NAME=\"demo {version}\"\n");
            fs::write(tree.join("usr/etc/os-release"), os_release).unwrap();
            fs::write(tree.join("usr/lib/systemd/systemd"), program(62)).unwrap();
            let executable = fs::Permissions::from_mode(0o755);
            fs::set_permissions(tree.join("usr/lib/systemd/systemd"), executable).unwrap();
            symlink("/usr/lib/systemd/systemd", tree.join("usr/sbin/init")).unwrap();
            symlink("usr/sbin", tree.join("sbin")).unwrap();
            let repo = format!("--repo={at}/ostree/repo");
            let tree = format!("--tree=dir={}", tree.display());
            ostree(&["commit", &repo, "-b", "demo/stable", "-s", version, &tree]);
            ostree(&["admin", "deploy", "--sysroot", at, "--os=demo", "--karg=quiet", "demo/stable"]);
        }
        Fixture { _keep: Some(keep), root }
    }

    /// A sysroot that somebody else keeps.
    pub fn at_path(root: &Path) -> Fixture {
        Fixture { _keep: None, root: root.into() }
    }

    pub fn read(&self) -> Sysroot {
        Sysroot::read(&Look {
            sysroot: &self.root,
            boot: &self.root.join("boot"),
            release: "6.2.0",
            machine: Machine::X86_64,
            init: None,
        })
        .unwrap()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The directory of the current boot version, and its name.
    fn boot_link(&self) -> String {
        let name = fs::read_link(self.at("boot/loader")).unwrap();
        format!("ostree/boot.{}", name.to_str().unwrap().strip_prefix("loader.").unwrap())
    }

    fn entry(&self, file: &str) -> PathBuf {
        let path = self.at("boot/loader/entries").join(file);
        assert!(path.exists(), "{}", path.display());
        path
    }
}

fn remove(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn agrees_with_libostree() {
    let fixture = Fixture::new();
    let ours = fixture.read();
    assert_eq!(ours.notes, []);
    let theirs = ostree::Sysroot::new(Some(&ostree::gio::File::for_path(&fixture.root)));
    theirs.load(ostree::gio::Cancellable::NONE).unwrap();
    let deployments = theirs.deployments();
    assert_eq!(ours.deployments.len(), deployments.len());
    for (our, their) in ours.deployments.iter().zip(&deployments) {
        assert_eq!(our.stateroot, their.osname().as_str());
        assert_eq!(our.commit, their.csum().as_str());
        assert_eq!(our.deploy_serial as i32, their.deployserial());
        let config = their.bootconfig().unwrap();
        assert_eq!(config.get("title").as_deref(), our.title.as_deref());
        let (link, options) = (our.boot_link.as_ref().unwrap(), config.get("options").unwrap());
        assert!(options.ends_with(&format!("ostree={link}")), "{options}");
        assert!(link.ends_with(&format!("/{}/{}", their.bootcsum(), their.bootserial())), "{link}");
        let origin = their.origin().unwrap().string("origin", "refspec").unwrap();
        assert_eq!(our.refspec.as_deref(), Some(origin.as_str()));
        assert_eq!((&our.verdict, &our.findings[..]), (&Ok(()), &[][..]));
    }
    let status = ostree(&["admin", "status", "--sysroot", fixture.root.to_str().unwrap()]);
    let listed: Vec<String> = status.lines().filter(|l| l.contains("demo ")).map(str::to_owned).collect();
    assert_eq!(listed.len(), 2, "{status}");
    for (line, our) in listed.iter().zip(&ours.deployments) {
        assert!(line.contains(&format!("demo {}.{}", our.commit, our.deploy_serial)), "{line}");
    }
    assert_eq!(ours.deployments[0].kernel, Kernel::Running);
    assert_eq!(ours.deployments[1].kernel, Kernel::OtherWithoutModules);
    assert_eq!(ours.deployments[1].releases, ["6.1.0"]);
    for (index, deployment) in ours.deployments.iter().enumerate() {
        let link = deployment.boot_link.as_ref().unwrap();
        assert_eq!(ours.named(&fixture.root, link), Named::Index(index));
    }
}

/// Each way to break the first deployment: what to do, and a part of the reason.
#[test]
fn broken_first_deployments() {
    type Break = fn(&Fixture, &Path);
    let ways: &[(&str, Break, &str)] = &[
        ("missing directory", |_, d| remove(d), "directory is missing"),
        ("no usr", |_, d| remove(&d.join("usr")), "no usr"),
        ("no init", |_, d| remove(&d.join("usr/lib/systemd/systemd")), "no init"),
        (
            "not executable",
            |_, d| {
                // A copy: the file itself is one hard link with the other deployment's.
                init(d, &program(62));
                let mode = fs::Permissions::from_mode(0o644);
                fs::set_permissions(d.join("usr/lib/systemd/systemd"), mode).unwrap();
            },
            "not executable",
        ),
        (
            "init a directory",
            |_, d| {
                let init = d.join("usr/lib/systemd/systemd");
                remove(&init);
                fs::create_dir(init).unwrap();
            },
            "not a file",
        ),
        ("other architecture", |_, d| init(d, &program(183)), "another machine"),
        ("empty init", |_, d| init(d, b""), "neither a whole program"),
        (
            "zeroed init",
            |_, d| init(d, &[&program(62)[..64], &[0; 4096]].concat()),
            "neither a whole program",
        ),
        ("garbage init", |_, d| init(d, b"hello"), "neither a whole program"),
        ("cut-off init", |_, d| init(d, &program(62)[..80]), "neither a whole program"),
        ("no interpreter", |_, d| init(d, b"#!/no/such/shell -e\n"), "needs /no/such/shell"),
        ("interpreter loop", |_, d| init(d, b"#!/sbin/init\n"), "needs /sbin/init"),
        (
            "no loader",
            |_, d| {
                let mut elf = program(62);
                elf[120] = 3;
                elf[128] = 176;
                elf[152] = 9;
                elf.extend(b"/lib/x.so\0".iter().take(8).chain(b"\0"));
                init(d, &elf);
            },
            "needs /lib/x.s",
        ),
        (
            "partial commit",
            |f, d| {
                let name = d.file_name().unwrap().to_str().unwrap();
                let commit = name.split('.').next().unwrap();
                fs::create_dir_all(f.at("ostree/repo/state")).unwrap();
                fs::write(f.at(&format!("ostree/repo/state/{commit}.commitpartial")), "").unwrap();
            },
            "not wholly fetched",
        ),
        (
            "no etc",
            |_, d| {
                remove(&d.join("etc"));
                remove(&d.join("usr/etc"));
            },
            "neither etc",
        ),
    ];
    for (way, break_it, reason) in ways {
        let fixture = Fixture::new();
        let before = fixture.read();
        break_it(&fixture, &fixture.at(&before.deployments[0].path()));
        let after = fixture.read();
        assert_eq!(after.deployments.len(), 2, "{way}");
        let fault = after.deployments[0].verdict.as_ref().unwrap_err().to_string();
        assert!(fault.contains(reason), "{way}: {fault}");
        assert_eq!(after.deployments[0].commit, before.deployments[0].commit, "{way}");
        assert_eq!(after.deployments[1].commit, before.deployments[1].commit, "{way}");
        assert_eq!(after.deployments[1].verdict, Ok(()), "{way}");
    }
}

/// Replaces the init without touching the repository's object behind the hard link.
fn init(deployment: &Path, content: &[u8]) {
    let init = deployment.join("usr/lib/systemd/systemd");
    remove(&init);
    fs::write(&init, content).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Each way to break what leads to the deployments; both stay bootable, and the reason is told.
#[test]
fn broken_links_and_entries() {
    type Break = fn(&Fixture);
    let ways: &[(&str, Break, &str)] = &[
        ("boot.N missing", |f| remove(&f.at(&f.boot_link())), "leads nowhere"),
        ("boot.N to /", |f| relink(f, "/"), "leads nowhere"),
        ("boot.N to ../../..", |f| relink(f, "../../.."), "leads nowhere"),
        ("boot.N a loop", |f| relink(f, "boot.1"), "leads nowhere"),
        ("boot.N dangling", |f| relink(f, "boot.9"), "leads nowhere"),
        (
            "all links gone",
            |f| {
                for name in ["boot.0", "boot.1", "boot.0.0", "boot.0.1", "boot.1.0", "boot.1.1"] {
                    if f.at("ostree").join(name).symlink_metadata().is_ok() {
                        remove(&f.at("ostree").join(name));
                    }
                }
            },
            "no boot entry names it",
        ),
        (
            "loader dangling",
            |f| {
                remove(&f.at("boot/loader"));
                symlink("loader.7", f.at("boot/loader")).unwrap();
            },
            "read instead",
        ),
        ("loader missing", |f| remove(&f.at("boot/loader")), "read instead"),
        ("boot missing", |f| remove(&f.at("boot")), "there are no boot entries"),
        ("empty entry", |f| fs::write(f.entry("ostree-2-demo.conf"), "").unwrap(), "has no ostree="),
        ("zeroed entry", |f| fs::write(f.entry("ostree-2-demo.conf"), [0; 400]).unwrap(), "has no ostree="),
        (
            "huge entry",
            |f| {
                fs::write(f.entry("ostree-2-demo.conf"), vec![b'a'; 10 << 20]).unwrap();
            },
            "File too large",
        ),
        (
            "FIFO entry",
            |f| {
                let path = f.entry("ostree-2-demo.conf");
                remove(&path);
                assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
            },
            "cannot be read",
        ),
        (
            "device entry",
            |f| {
                let path = f.entry("ostree-2-demo.conf");
                remove(&path);
                symlink("/dev/zero", path).unwrap();
            },
            "ostree-2-demo.conf cannot be read",
        ),
        (
            "dangling entry",
            |f| {
                let path = f.entry("ostree-2-demo.conf");
                remove(&path);
                symlink("nothing", path).unwrap();
            },
            "No such file",
        ),
        (
            "no ostree=",
            |f| {
                fs::write(f.entry("ostree-2-demo.conf"), "version 2\noptions quiet\n").unwrap();
            },
            "has no ostree=",
        ),
        (
            "traversal",
            |f| {
                let text = "version 2\noptions ostree=/ostree/../../etc\n";
                fs::write(f.entry("ostree-2-demo.conf"), text).unwrap();
            },
            "leads nowhere: /ostree/../../etc",
        ),
        (
            "10000 entries",
            |f| {
                let entries = f.at("boot/loader/entries");
                for n in 10..10_010 {
                    fs::write(entries.join(format!("ostree-{n}.conf")), "version 1\n").unwrap();
                }
            },
            "too many boot entries",
        ),
    ];
    for (way, break_it, reason) in ways {
        let fixture = Fixture::new();
        let before = fixture.read();
        break_it(&fixture);
        let after = fixture.read();
        let mut said: Vec<String> = after.notes.iter().map(ToString::to_string).collect();
        for deployment in &after.deployments {
            assert_eq!(deployment.verdict, Ok(()), "{way}");
            said.extend(deployment.findings.iter().map(ToString::to_string));
        }
        assert!(said.iter().any(|s| s.contains(reason)), "{way}: {said:?}");
        let mut commits: Vec<_> = after.deployments.iter().map(|d| &d.commit).collect();
        let mut expected: Vec<_> = before.deployments.iter().map(|d| &d.commit).collect();
        commits.sort();
        expected.sort();
        assert_eq!(commits, expected, "{way}");
    }
}

fn relink(fixture: &Fixture, target: &str) {
    let link = fixture.at(&fixture.boot_link());
    remove(&link);
    symlink(target, link).unwrap();
}

/// The states of libostree's swap: the loader and the links may be of different ages after a power cut.
#[test]
fn every_state_of_the_swap() {
    for loader in ["loader.0", "loader.1"] {
        for keep in [&["boot.0"][..], &["boot.1"], &["boot.0", "boot.1"], &[]] {
            let fixture = Fixture::new();
            let before = fixture.read();
            let current = fixture.boot_link();
            let trees = fs::read_link(fixture.at(&current)).unwrap();
            let now = fs::read_link(fixture.at("boot/loader")).unwrap();
            let other = if now == Path::new("loader.0") { "loader.1" } else { "loader.0" };
            let _ = fs::remove_dir_all(fixture.at("boot").join(other));
            let copy = Command::new("cp")
                .arg("-a")
                .args([fixture.at("boot").join(&now), fixture.at("boot").join(other)])
                .status();
            assert!(copy.unwrap().success());
            remove(&fixture.at("boot/loader"));
            symlink(loader, fixture.at("boot/loader")).unwrap();
            for name in ["boot.0", "boot.1"] {
                let _ = fs::remove_file(fixture.at("ostree").join(name));
                if keep.contains(&name) {
                    symlink(&trees, fixture.at("ostree").join(name)).unwrap();
                }
            }
            let after = fixture.read();
            let state = format!("{loader} {keep:?}");
            assert_eq!(after.deployments.len(), 2, "{state}");
            for (index, (old, new)) in before.deployments.iter().zip(&after.deployments).enumerate() {
                assert_eq!((&old.commit, &new.verdict), (&new.commit, &Ok(())), "{state}");
                let argument = old.boot_link.as_ref().unwrap();
                let leads = fixture.at(argument.trim_start_matches('/')).exists();
                let expected = if leads { Named::Index(index) } else { Named::Meant(index) };
                assert_eq!(after.named(&fixture.root, argument), expected, "{state}");
            }
        }
    }
}
