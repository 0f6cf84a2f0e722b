//! Pulls into a device's repository, judged by `ostree fsck` and by what `ostree` itself makes of the same commit.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bootward::fetch::Backoff;
use bootward::ostree::object::Checksum;
use bootward::ostree::sign::{Keys, VerifiedCommit};
use bootward::pull::{self, Error, Options, Progress, Wanted};
use bootward::repo::store::STAGING;
use bootward::repo::{Mode, Store};
use bootward::sys::files::{Disk, FilesError};

use crate::fixture::ostree;
use crate::shelf::Shelf;

/// Where commits are made and pulled to.
struct Site {
    keep: tempfile::TempDir,
}

impl Site {
    fn new(mode: &str) -> Self {
        let site = Site { keep: tempfile::tempdir().unwrap() };
        ostree(&["init", "--repo", site.path("server").to_str().unwrap(), "--mode=archive"]);
        for name in ["ours", "theirs"] {
            let repo = site.repo(name);
            fs::create_dir_all(repo.parent().unwrap()).unwrap();
            ostree(&["init", "--repo", repo.to_str().unwrap(), &format!("--mode={mode}")]);
        }
        fs::create_dir(site.path("tree")).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.keep.path().join(name)
    }

    fn repo(&self, name: &str) -> PathBuf {
        self.path(name).join("ostree/repo")
    }

    fn commit(&self) -> Checksum {
        let (repo, tree) = (self.path("server"), self.path("tree"));
        let out =
            ostree(&["commit", "--repo", repo.to_str().unwrap(), "-b", "os/main", tree.to_str().unwrap()]);
        Checksum::parse(out.trim()).unwrap()
    }

    fn pull(&self, shelf: &Shelf, options: &Options) -> Result<Progress, Error<FilesError>> {
        pull_to(&self.path("ours"), shelf, Mode::Bare, options)
    }
}

fn pull_to(
    sysroot: &Path,
    shelf: &Shelf,
    mode: Mode,
    options: &Options,
) -> Result<Progress, Error<FilesError>> {
    let wanted = Wanted { reference: Some("os/main".into()), ..Wanted::default() };
    let (commit, metadata) = pull::head(&shelf, &wanted, &trusted, options)?;
    let open = || Disk::open(sysroot, sysroot);
    let mut store = Store::new(open().unwrap(), mode, 0);
    pull::pull(&shelf, &mut store, &open, (&commit, metadata.as_deref()), &wanted, options, &mut |_| ())
}

/// Signs what comes and verifies that: who signed is not the question here.
pub fn trusted(commit: Vec<u8>, _: Option<&[u8]>) -> Result<VerifiedCommit, String> {
    let pair = crate::sign::Pair::new();
    let metadata = crate::sign::detached(&[pair.sign(&commit)]);
    Keys::parse(pair.public.as_bytes()).unwrap().verify(commit, Some(&metadata)).map_err(|e| e.to_string())
}

fn quick() -> Options {
    let never = std::time::Duration::from_millis(1);
    Options { channels: 2, backoff: Backoff { first: never, longest: never }, ..Options::default() }
}

/// Everything that a file object can be.
fn rich(tree: &Path) {
    let write = |name: &str, content: &[u8], mode| {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("usr/bin/su", b"#!", 0o4755);
    write("usr/bin/game", b"x", 0o2755);
    write("usr/empty", b"", 0o600);
    write("usr/ä name with spaces", "ü".as_bytes(), 0o644);
    write(&format!("usr/{}", "n".repeat(255)), b"long", 0o644);
    write(
        "usr/share/large",
        &(0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<_>>(),
        0o644,
    );
    write("usr/share/zeros", &vec![0; 5_000_000], 0o640);
    for n in 0..300 {
        write(&format!("usr/lib/d{}/f{n}", n % 20), format!("file {n}").repeat(n).as_bytes(), 0o644);
    }
    fs::hard_link(tree.join("usr/bin/su"), tree.join("usr/bin/su-again")).unwrap();
    symlink("../lib/nowhere", tree.join("usr/bin/link")).unwrap();
    symlink("t".repeat(1000), tree.join("usr/bin/far")).unwrap();
    std::os::unix::fs::chown(tree.join("usr/bin/game"), Some(5), Some(60)).unwrap();
    fs::set_permissions(tree.join("usr/bin/game"), fs::Permissions::from_mode(0o2755)).unwrap();
    std::os::unix::fs::lchown(tree.join("usr/bin/link"), Some(7), Some(8)).unwrap();
    fs::create_dir(tree.join("tmp")).unwrap();
    fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    for (file, name, value) in
        [("usr/bin/su", "user.one", "1"), ("usr/bin", "user.two", ""), ("usr/bin/far", "trusted.three", "3")]
    {
        let done = std::process::Command::new("setfattr")
            .args(["-h", "-n", name, "-v", value])
            .arg(tree.join(file))
            .status()
            .expect("setfattr (Debian: attr) is needed for this test");
        assert!(done.success());
    }
}

/// Every object with all that can be told of it.
fn objects(repo: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for fan in fs::read_dir(repo.join("objects")).unwrap() {
        for entry in fs::read_dir(fan.unwrap().path()).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let attributes = std::process::Command::new("getfattr")
                .args(["-h", "-d", "-m", "-", "--absolute-names"])
                .arg(&path)
                .output()
                .unwrap();
            let content = if stat.is_symlink() {
                format!("{:?}", fs::read_link(&path).unwrap())
            } else {
                Checksum::of(&fs::read(&path).unwrap()).to_string()
            };
            let attributes = String::from_utf8_lossy(&attributes.stdout)
                .lines()
                .filter(|l| !l.starts_with("# file"))
                .collect::<Vec<_>>()
                .join(" ");
            let time = if path.extension().is_some_and(|e| e == "file") && !stat.is_symlink() {
                stat.mtime()
            } else {
                0
            };
            all.push(format!(
                "{} {:o} {} {} {} {time} {content} {attributes}",
                path.strip_prefix(repo).unwrap().display(),
                stat.mode(),
                stat.uid(),
                stat.gid(),
                stat.size(),
            ));
        }
    }
    all.sort();
    all
}

#[test]
fn a_pulled_repository_is_as_ostree_makes_it() {
    for (name, mode) in [("bare", Mode::Bare), ("bare-user", Mode::BareUser)] {
        let site = Site::new(name);
        rich(&site.path("tree"));
        let commit = site.commit();
        let shelf = Shelf::of(&site.path("server"));
        let progress = pull_to(&site.path("ours"), &shelf, mode, &quick()).unwrap();
        assert!(
            progress.whole && progress.objects == progress.known && progress.fetched > 300,
            "{progress:?}"
        );
        let (ours, theirs) = (site.repo("ours"), site.repo("theirs"));
        let fsck = ostree(&["fsck", "--repo", ours.to_str().unwrap()]);
        assert!(fsck.contains("fsck"), "{fsck}");
        let server = site.path("server");
        ostree(&["pull-local", "--repo", theirs.to_str().unwrap(), server.to_str().unwrap(), "os/main"]);
        assert_eq!(objects(&ours), objects(&theirs));
        assert_eq!(
            ostree(&["rev-parse", "--repo", ours.to_str().unwrap(), "os/main"]).trim(),
            commit.to_string()
        );
        assert_eq!(fs::read_dir(ours.join("state")).unwrap().count(), 0);
        // Once more: nothing but the head is asked for.
        let shelf = Shelf::of(&server);
        pull_to(&site.path("ours"), &shelf, mode, &quick()).unwrap();
        assert_eq!(shelf.asked().len(), 3, "{:?}", shelf.asked());
        // And libostree goes on from there.
        fs::write(site.path("tree/usr/new"), "new").unwrap();
        site.commit();
        ostree(&["pull-local", "--repo", ours.to_str().unwrap(), server.to_str().unwrap(), "os/main"]);
        ostree(&["fsck", "--repo", ours.to_str().unwrap()]);
    }
}

#[test]
fn a_connection_that_breaks_costs_no_more_than_what_was_under_way() {
    let site = Site::new("bare");
    rich(&site.path("tree"));
    site.commit();
    let mut shelf = Shelf::of(&site.path("server"));
    let whole: usize =
        shelf.files.iter().filter(|(n, _)| n.starts_with("objects")).map(|(_, f)| f.len()).sum();
    shelf.breaks_every = 700_000;
    let progress = site.pull(&shelf, &quick()).unwrap();
    ostree(&["fsck", "--repo", site.repo("ours").to_str().unwrap()]);
    let large = shelf.files.iter().max_by_key(|(_, f)| f.len()).unwrap().0;
    let resumed = shelf.asked().iter().filter(|(path, from)| path == large && *from > 0).count();
    assert!(resumed >= 10, "{resumed}");
    // 32 KiB at most are read and lost at each of the breaks.
    let lost = progress.bytes as usize - whole.min(progress.bytes as usize);
    assert!(lost < (whole / 700_000 + 1) * 2 * 32 * 1024, "{} bytes came for {whole}", progress.bytes);
}

#[test]
fn a_pull_that_gave_up_goes_on_where_it_was() {
    let site = Site::new("bare");
    rich(&site.path("tree"));
    site.commit();
    let mut shelf = Shelf::of(&site.path("server"));
    // Something is missing on the server.
    let gone = shelf.files.keys().filter(|n| n.ends_with(".filez")).nth(200).unwrap().clone();
    let kept = shelf.files.remove(&gone).unwrap();
    let options = Options { channels: 1, ..quick() };
    let error = site.pull(&shelf, &options).unwrap_err().to_string();
    assert!(error.contains(&gone) && error.contains("does not have it"), "{error}");
    let repo = site.repo("ours");
    assert_eq!(fs::read_dir(repo.join("state")).unwrap().count(), 1, "the commit is marked as partial");
    let before: Vec<_> = shelf.asked().into_iter().filter(|(n, _)| *n != gone).collect();
    shelf.files.insert(gone.clone(), kept);
    shelf.log.lock().unwrap().clear();
    site.pull(&shelf, &options).unwrap();
    ostree(&["fsck", "--repo", repo.to_str().unwrap()]);
    let again =
        shelf.asked().iter().filter(|asked| asked.0.starts_with("objects") && before.contains(asked)).count();
    // The commit and its metadata, and what was under way in the window.
    assert!(again <= 2 + shelf.window, "{again} fetched twice");
    assert_eq!(fs::read_dir(repo.join("tmp/bootward")).unwrap().count(), 0);
}

#[test]
fn what_is_damaged_here_is_fetched_again_and_what_is_damaged_there_is_refused() {
    let site = Site::new("bare");
    rich(&site.path("tree"));
    site.commit();
    let shelf = Shelf::of(&site.path("server"));
    site.pull(&shelf, &quick()).unwrap();
    let repo = site.repo("ours");
    let mut damaged = 0;
    for fan in fs::read_dir(repo.join("objects")).unwrap().take(6) {
        for entry in fs::read_dir(fan.unwrap().path()).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_file()
                && path.extension().is_some_and(|e| e != "commit")
            {
                fs::write(&path, "damage").unwrap();
                damaged += 1;
            }
        }
    }
    shelf.log.lock().unwrap().clear();
    let progress = site.pull(&shelf, &Options { check: true, ..quick() }).unwrap();
    assert_eq!(progress.fetched, damaged);
    ostree(&["fsck", "--repo", repo.to_str().unwrap()]);

    let small = Site::new("bare");
    fs::create_dir(small.path("tree/usr")).unwrap();
    for n in 0..12 {
        fs::write(small.path("tree/usr").join(n.to_string()), format!("file {n} ").repeat(n * n)).unwrap();
    }
    symlink("nowhere", small.path("tree/usr/link")).unwrap();
    small.commit();
    let shelf = Shelf::of(&small.path("server"));
    let mut tried = 0;
    for name in shelf.files.keys().filter(|n| n.starts_with("objects") && !n.ends_with("commitmeta")) {
        for at in (0..shelf.files[name].len()).step_by(7) {
            let mut bad = Shelf::of(&small.path("server"));
            bad.files.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            let fresh = tempfile::tempdir().unwrap();
            let repo = fresh.path().join("ostree/repo");
            fs::create_dir_all(repo.parent().unwrap()).unwrap();
            ostree(&["init", "--repo", repo.to_str().unwrap(), "--mode=bare"]);
            // Some bits of a deflate stream mean nothing; then the object is right all the same.
            match pull_to(fresh.path(), &bad, Mode::Bare, &quick()).err() {
                Some(error) => assert!(error.to_string().starts_with(name.as_str()), "{name}: {error}"),
                None => drop(ostree(&["fsck", "--repo", repo.to_str().unwrap()])),
            }
            tried += 1;
        }
    }
    assert!(tried > 150, "{tried}");
}

#[test]
fn a_static_delta_takes_the_place_of_objects() {
    let site = Site::new("bare");
    let (server, tree) = (site.path("server"), site.path("tree"));
    let server = server.to_str().unwrap();
    rich(&tree);
    let first = site.commit().to_string();
    ostree(&["static-delta", "generate", "--repo", server, "--empty", &first]);
    let delta = Options { scratch: Some(site.path("ours").join(STAGING)), ..quick() };
    let shelf = Shelf::of(&site.path("server"));
    let progress = site.pull(&shelf, &delta).unwrap();
    let objects_asked =
        |shelf: &Shelf| shelf.asked().iter().filter(|(n, _)| n.starts_with("objects")).count();
    // The commit, its metadata, and what the delta leaves to be fetched by itself.
    assert!(objects_asked(&shelf) < 10, "{:?}", shelf.asked());
    assert!(progress.fetched > 300, "{progress:?}");
    let (ours, theirs) = (site.repo("ours"), site.repo("theirs"));
    ostree(&["pull-local", "--repo", theirs.to_str().unwrap(), server, "os/main"]);
    ostree(&["fsck", "--repo", ours.to_str().unwrap()]);
    assert_eq!(objects(&ours), objects(&theirs));

    // From there to the next, over a connection that breaks, and with a part that is damaged.
    let mut large = fs::read(tree.join("usr/share/large")).unwrap();
    large[1_000_000..1_000_400].fill(7);
    fs::write(tree.join("usr/share/large"), large).unwrap();
    for n in 0..150 {
        fs::write(tree.join(format!("usr/lib/d{}/f{n}", n % 20)), format!("changed {n}").repeat(n * 20))
            .unwrap();
    }
    let second = site.commit().to_string();
    let generate = ["static-delta", "generate", "--repo", server, "--from", &first, "--to", &second];
    ostree(&[&generate[..], &["--max-chunk-size=1"]].concat());
    let mut shelf = Shelf::of(&site.path("server"));
    shelf.breaks_every = 20_000;
    let kept = site.path("kept");
    let copied =
        std::process::Command::new("cp").arg("-a").arg(site.path("ours")).arg(&kept).status().unwrap();
    assert!(copied.success());
    site.pull(&shelf, &delta).unwrap();
    ostree(&["fsck", "--repo", ours.to_str().unwrap()]);
    ostree(&["pull-local", "--repo", theirs.to_str().unwrap(), server, "os/main"]);
    assert_eq!(objects(&ours), objects(&theirs));
    assert!(objects_asked(&shelf) < 10, "{:?}", shelf.asked());
    assert!(
        shelf.asked().iter().any(|(n, from)| n.starts_with("deltas") && *from > 0),
        "{:?}",
        shelf.asked()
    );
    assert_eq!(fs::read_dir(ours.join("tmp/bootward")).unwrap().count(), 0);

    let mut bad = Shelf::of(&site.path("server"));
    for (_, part) in bad.files.iter_mut().filter(|(n, _)| n.starts_with("deltas") && n.ends_with("/0")) {
        let at = part.len() / 2;
        part[at] ^= 1;
    }
    let delta = Options { scratch: Some(kept.join(STAGING)), ..quick() };
    pull_to(&kept, &bad, Mode::Bare, &delta).unwrap();
    ostree(&["fsck", "--repo", kept.join("ostree/repo").to_str().unwrap()]);
    assert_eq!(objects(&kept.join("ostree/repo")), objects(&theirs));
    assert!(objects_asked(&bad) > 10, "{:?}", bad.asked());
}
