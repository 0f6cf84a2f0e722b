//! Which way a pull takes to a commit: objects, a static delta from one commit or another, or from nothing; and whether
//! there is room for it. What was asked for is counted; `ostree fsck` judges the result.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bootward::ostree::delta::{Name, names};
use bootward::ostree::object::Checksum;
use bootward::ostree::sign::{Keys, VerifiedCommit};
use bootward::ostree::{Commit, emit, sizes};
use bootward::pull::{self, Options, Wanted};
use bootward::repo::store::STAGING;
use bootward::repo::{Mode, Store};
use bootward::sys::files::{Disk, FilesError};

use crate::fixture::ostree;
use crate::shelf::Shelf;

/// A server with releases of 200 files each, of which every one has some changes.
struct Server {
    keep: tempfile::TempDir,
    releases: Vec<Checksum>,
}

impl Server {
    fn new(releases: u32, options: &[&str]) -> Self {
        let mut server = Server { keep: tempfile::tempdir().unwrap(), releases: Vec::new() };
        ostree(&["init", "--repo", &server.repo(), "--mode=archive"]);
        for release in 1..=releases {
            server.publish(release, options);
        }
        server
    }

    fn publish(&mut self, release: u32, options: &[&str]) {
        let tree = self.keep.path().join("tree");
        fs::create_dir_all(tree.join("usr")).unwrap();
        for n in 0..200u32 {
            let version = if n % 4 == 0 { release } else { 0 };
            let noise = (0..600u32)
                .flat_map(|m| ((m + 1) * (n + 7) + version).wrapping_mul(2_654_435_761).to_le_bytes());
            fs::write(tree.join(format!("usr/{n}")), noise.collect::<Vec<u8>>()).unwrap();
        }
        let (repo, time) = (self.repo(), format!("--timestamp=2026-01-{release:02}"));
        let head = ["commit", "--repo", &repo, "-b", "os", &time];
        let commit = ostree(&[&head[..], options, &[tree.to_str().unwrap()]].concat());
        self.releases.push(Checksum::parse(commit.trim()).unwrap());
    }

    fn repo(&self) -> String {
        self.keep.path().join("server").to_str().unwrap().into()
    }

    /// Makes a delta to the last release.
    fn delta(&self, from: Option<usize>) -> Name {
        let to = *self.releases.last().unwrap();
        let from = from.map(|index| self.releases[index]);
        let (repo, to_text) = (self.repo(), to.to_string());
        let mut arguments = vec!["static-delta", "generate", "--repo", &repo, "--to", &to_text];
        let from_text = from.map(|from| from.to_string());
        match &from_text {
            Some(from) => arguments.extend(["--from", from]),
            None => arguments.push("--empty"),
        }
        ostree(&arguments);
        Name { from, to }
    }

    /// A device with some releases, of which only the last one has a ref, or none.
    fn device(&self, name: &str, releases: &[usize], reference: bool) -> PathBuf {
        let device = self.keep.path().join(name);
        let repo = device.join("ostree/repo");
        fs::create_dir_all(repo.parent().unwrap()).unwrap();
        let repo = repo.to_str().unwrap();
        ostree(&["init", "--repo", repo, "--mode=bare"]);
        for index in releases {
            ostree(&["pull-local", "--repo", repo, &self.repo(), &self.releases[*index].to_string()]);
        }
        if let Some(last) = releases.last().filter(|_| reference) {
            ostree(&["refs", "--repo", repo, "--create=os", &self.releases[*last].to_string()]);
        }
        device
    }

    fn shelf(&self) -> Shelf {
        Shelf::of(Path::new(&self.repo()))
    }
}

fn trusted(commit: Vec<u8>, _: Option<&[u8]>) -> Result<VerifiedCommit, String> {
    let pair = crate::sign::Pair::new();
    let metadata = crate::sign::detached(&[pair.sign(&commit)]);
    Keys::parse(pair.public.as_bytes()).unwrap().verify(commit, Some(&metadata)).map_err(|e| e.to_string())
}

fn pull(shelf: &Shelf, device: &Path) -> Result<(), pull::Error<FilesError>> {
    let wanted = Wanted { reference: Some("os".into()), ..Wanted::default() };
    let never = std::time::Duration::from_millis(1);
    let options = Options {
        channels: 2,
        tries: 2,
        backoff: bootward::fetch::Backoff { first: never, longest: never },
        scratch: Some(device.join(STAGING)),
        ..Options::default()
    };
    let (commit, metadata) = pull::head(&shelf, &wanted, &trusted, &options)?;
    let open = || Disk::open(device, device);
    let mut store = Store::new(open().unwrap(), Mode::Bare, 0);
    let found = (&commit, metadata.as_deref());
    pull::pull(&shelf, &mut store, &open, found, &wanted, &options, &mut |_| ())?;
    ostree(&["fsck", "--repo", device.join("ostree/repo").to_str().unwrap()]);
    Ok(())
}

/// Pulls; what was asked for besides the head: the delta that was taken, lists and superblocks, and objects.
fn way(shelf: &Shelf, device: &Path) -> (Option<String>, Vec<String>, usize) {
    pull(shelf, device).unwrap();
    let asked: Vec<String> = shelf.asked().into_iter().map(|(path, _)| path).collect();
    let part = asked.iter().find(|path| path.starts_with("deltas/") && path.ends_with("/0"));
    let taken = part.map(|path| path.trim_end_matches("/0").to_string());
    let looks = asked.iter().filter(|path| {
        path.ends_with("superblock") || *path == "summary" || path.starts_with("delta-indexes")
    });
    let looks = looks.cloned().collect();
    // The commit and its metadata are asked for in any case.
    let objects = asked.iter().filter(|path| path.starts_with("objects/")).count() - 2;
    (taken, looks, objects)
}

fn folder(name: &Name) -> String {
    name.superblock().trim_end_matches("/superblock").into()
}

#[test]
fn releases_are_skipped_and_a_commit_without_a_ref_is_as_good() {
    let server = Server::new(4, &[]);
    let (skip, last) = (server.delta(Some(0)), server.delta(Some(2)));
    server.delta(None);
    let summary =
        |more: &[&str]| ostree(&[&["summary", "--repo", &server.repo(), "--update"], more].concat());
    summary(&[]);
    // From the release before, by its ref: one look, and no object.
    let (taken, looks, objects) = way(&server.shelf(), &server.device("a", &[2], true));
    assert_eq!((taken, looks.len(), objects), (Some(folder(&last)), 1, 0), "{looks:?}");
    // Three releases were skipped; a commit without a ref, beside one that no delta leads from.
    for (name, releases, reference) in
        [("b", &[0][..], true), ("c", &[0], false), ("d", &[0, 1], true), ("e", &[1, 0], true)]
    {
        let (taken, looks, objects) = way(&server.shelf(), &server.device(name, releases, reference));
        assert_eq!((taken, objects), (Some(folder(&skip)), 0), "{name}: {looks:?}");
        assert!(looks.len() <= 4, "{name}: {looks:?}");
    }
    // Nothing leads from there, and one from nothing is more than what changed: objects.
    let (taken, looks, objects) = way(&server.shelf(), &server.device("f", &[1], true));
    assert!(taken.is_none() && looks.len() <= 3, "{looks:?}");
    assert!((50..80).contains(&objects), "{objects}");
    // Nothing is here: the one from nothing.
    let (taken, looks, objects) = way(&server.shelf(), &server.device("g", &[], true));
    assert!(taken.is_some() && looks.len() == 1 && objects == 0, "{taken:?} {looks:?} {objects}");
    // The summary alone, as older servers have it.
    let mut older = server.shelf();
    older.files.retain(|path, _| !path.starts_with("delta-indexes"));
    let (taken, looks, objects) = way(&older, &server.device("h", &[0, 1], true));
    assert_eq!((taken, looks.len(), objects), (Some(folder(&skip)), 4, 0), "{looks:?}");
    // Neither summary nor index: a few guesses.
    let mut bare = server.shelf();
    bare.files.retain(|path, _| path != "summary" && !path.starts_with("delta-indexes"));
    let (taken, looks, _) = way(&bare, &server.device("i", &[0, 1], true));
    assert_eq!((taken, looks.len()), (Some(folder(&skip)), 4), "{looks:?}");
    bare.log.lock().unwrap().clear();
    let (taken, looks, objects) = way(&bare, &server.device("j", &[1], true));
    assert!(taken.is_none() && objects >= 50 && looks.len() == 3, "{looks:?}");
}

#[test]
fn an_index_in_place_of_a_list_in_the_summary() {
    let server = Server::new(3, &[]);
    let skip = server.delta(Some(0));
    // As `ostree summary --update` writes it.
    let mut shelf = server.shelf();
    let text = skip.to_string();
    let value = emit::variant("ay", &Checksum::of(b"x").0);
    let deltas = emit::dictionary([(&text[..], &value[..])]);
    let value = emit::variant("a{sv}", &deltas);
    let index = emit::dictionary([("ostree.static-deltas", &value[..])]);
    shelf.files.insert(names::index(&skip.to), index);
    let (taken, looks, objects) = way(&shelf, &server.device("a", &[0, 1], true));
    assert_eq!((taken, looks.len(), objects), (Some(folder(&skip)), 3, 0), "{looks:?}");
    // An index that lists nothing of use saves the summary and the guesses.
    shelf.log.lock().unwrap().clear();
    let (taken, looks, objects) = way(&shelf, &server.device("b", &[1], true));
    assert!(taken.is_none() && looks.len() == 2 && objects >= 50, "{looks:?}");
}

#[test]
fn odd_lists_cost_the_delta_and_nothing_else() {
    let server = Server::new(3, &[]);
    server.delta(Some(0));
    let name = names::index(server.releases.last().unwrap());
    let huge = vec![0u8; 9 << 20];
    let many = {
        // 20,000 deltas that are not there.
        let to = server.releases.last().unwrap().to_string();
        let value = emit::variant("ay", &[7; 32]);
        let names: Vec<String> = (0..20_000u32).map(|n| format!("{:064x}-{to}", n + 1)).collect();
        let deltas = emit::dictionary(names.iter().map(|name| (&name[..], &value[..])));
        let value = emit::variant("a{sv}", &deltas);
        emit::dictionary([("ostree.static-deltas", &value[..])])
    };
    let odd = [&b""[..], b"<html>", &[0xff; 4000], &huge, &many, b"a\0\0\0"];
    for (number, data) in odd.into_iter().enumerate() {
        for path in [&name[..], "summary"] {
            let mut shelf = server.shelf();
            shelf.files.remove("summary");
            shelf.files.insert(path.into(), data.to_vec());
            let device = server.device(&format!("{number}-{}", path.len()), &[1], true);
            let (taken, looks, objects) = way(&shelf, &device);
            assert!(taken.is_none() && looks.len() <= 6 && objects >= 50, "{number} {path}: {looks:?}");
        }
    }
}

#[test]
fn what_objects_take_is_told_and_the_cheaper_way_is_taken() {
    let mut server = Server::new(2, &["--generate-sizes"]);
    let commit = |name: &Checksum| {
        let path =
            format!("{}/objects/{}/{}.commit", server.repo(), &name.to_string()[..2], &name.to_string()[2..]);
        Commit::parse(fs::read(path).unwrap()).unwrap()
    };
    // They are what the files on the server have.
    let newest = commit(&server.releases[1]);
    let all: Vec<_> = sizes::of(&newest).unwrap().collect();
    assert!(all.len() > 200, "{}", all.len());
    for size in &all {
        let name = size.name.to_string();
        let kind = size
            .kind
            .map_or("filez", |kind| if kind.extension() == "file" { "filez" } else { kind.extension() });
        let path = format!("{}/objects/{}/{}.{kind}", server.repo(), &name[..2], &name[2..]);
        if let Ok(meta) = fs::metadata(&path) {
            assert_eq!(meta.len(), size.packed, "{path}");
        }
    }
    // One from nothing has to be more than the fifty objects that changed, and less than all.
    server.delta(None);
    let (taken, looks, objects) = way(&server.shelf(), &server.device("a", &[0], true));
    assert!(taken.is_none() && objects >= 50 && looks.len() <= 4, "{looks:?} {objects}");
    let (taken, ..) = way(&server.shelf(), &server.device("b", &[], true));
    assert!(taken.is_some());
    // So few are missing that nobody looks for a delta.
    let device = server.device("c", &[1], true);
    let repo = device.join("ostree/repo");
    ostree(&["refs", "--repo", repo.to_str().unwrap(), "--delete", "os"]);
    let victim = all.iter().find(|size| size.unpacked > 100).unwrap().name.to_string();
    fs::remove_file(repo.join(format!("objects/{}/{}.file", &victim[..2], &victim[2..]))).unwrap();
    fs::create_dir_all(repo.join("state")).unwrap();
    fs::write(repo.join(format!("state/{}.commitpartial", server.releases[1])), "").unwrap();
    let (taken, looks, objects) = way(&server.shelf(), &device);
    assert_eq!((taken, looks.len(), objects), (None, 0, 1), "{looks:?}");
    server.publish(3, &["--generate-sizes"]);
}

/// Parts and drafts of a commit that nobody wants any more.
#[test]
fn what_an_abandoned_pull_left_goes_with_the_next_one() {
    let server = Server::new(2, &[]);
    let device = server.device("device", &[0], true);
    let staging = device.join(STAGING);
    fs::create_dir_all(&staging).unwrap();
    let some = Checksum([7; 32]);
    let left = [format!("{some}.part"), format!("{some}.file"), format!("{some}.dirtree"), "3-17.new".into()];
    left.iter().for_each(|name| fs::write(staging.join(name), "half of it").unwrap());
    let mut shelf = server.shelf();
    let gone = shelf.files.keys().filter(|name| name.ends_with(".filez")).nth(100).unwrap().clone();
    let kept = shelf.files.remove(&gone).unwrap();
    pull(&shelf, &device).unwrap_err();
    // The part may still be of use to whoever comes next.
    assert!(staging.join(&left[0]).exists());
    assert!(!left[1..].iter().any(|name| staging.join(name).exists()));
    shelf.files.insert(gone, kept);
    pull(&shelf, &device).unwrap();
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let out = Command::new(program).args(arguments).output().unwrap();
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A filesystem of so many megabytes.
fn small(at: &Path, megabytes: u64) -> Mounted {
    let image = at.with_extension("img");
    fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
    fs::create_dir_all(at).unwrap();
    let (image, mount) = (image.to_str().unwrap(), at.to_str().unwrap());
    run("mkfs.ext4", &["-q", "-F", "-m", "0", "-N", "2048", image]);
    run("mount", &["-o", "loop", image, mount]);
    Mounted(at.into())
}

/// What is on a filesystem: names and lengths.
fn listing(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            all.extend(listing(&path));
        } else {
            all.push((path, stat.len()));
        }
    }
    all.sort();
    all
}

#[test]
fn a_full_filesystem_is_told_before_or_in_the_middle_and_loses_nothing() {
    for told in [true, false] {
        let options = if told { &["--generate-sizes"][..] } else { &[] };
        let server = Server::new(2, options);
        // As made on the small filesystem: the repository has the first release, and ballast is all but too much.
        let site = tempfile::tempdir().unwrap();
        let _mounted = small(&site.path().join("disk"), 24);
        let device = site.path().join("disk");
        let repo = device.join("ostree/repo");
        fs::create_dir_all(repo.parent().unwrap()).unwrap();
        let repo = repo.to_str().unwrap();
        ostree(&["init", "--repo", repo, "--mode=bare"]);
        ostree(&["pull-local", "--repo", repo, &server.repo(), &server.releases[0].to_string()]);
        ostree(&["refs", "--repo", repo, "--create=os", &server.releases[0].to_string()]);
        let ballast = device.join("ballast");
        // The reserve of 8 MiB stays free of it, and less than the new objects.
        let free = nix::sys::statvfs::statvfs(&device).unwrap();
        let free = free.blocks_available() as u64 * free.fragment_size() as u64;
        fs::write(&ballast, vec![1; (free - (8 << 20) - 70_000) as usize]).unwrap();
        run("sync", &[]);
        let shelf = server.shelf();
        let before = listing(&device);
        let error = pull(&shelf, &device).unwrap_err();
        assert!(matches!(error, pull::Error::Room { .. }), "{told}: {error}");
        let said = error.to_string();
        assert!(said.contains("bytes are needed") && said.contains("more must be"), "{said}");
        let objects = shelf.asked().iter().filter(|(path, _)| path.contains(".filez")).count();
        if told {
            // Nothing was written, and nothing asked for but the head.
            assert_eq!(listing(&device), before);
            assert_eq!(objects, 0);
        } else {
            assert!(objects > 0);
        }
        // What is here is as whole as before, and so is the ref.
        ostree(&["fsck", "--repo", repo]);
        assert_eq!(ostree(&["rev-parse", "--repo", repo, "os"]).trim(), server.releases[0].to_string());
        // With room again it goes on, and what came is not fetched again.
        fs::remove_file(&ballast).unwrap();
        let shelf = server.shelf();
        pull(&shelf, &device).unwrap();
        assert_eq!(ostree(&["rev-parse", "--repo", repo, "os"]).trim(), server.releases[1].to_string());
        let left = fs::read_dir(device.join(STAGING)).unwrap().count();
        assert_eq!(left, 0);
    }
}

/// The reserve is taken by somebody else while the pull goes on: the filesystem itself is full then.
#[test]
fn a_filesystem_that_fills_up_meanwhile_is_an_error_and_loses_nothing() {
    let server = Server::new(2, &[]);
    let site = tempfile::tempdir().unwrap();
    let device = site.path().join("disk");
    let _mounted = small(&device, 24);
    let repo = device.join("ostree/repo");
    fs::create_dir_all(repo.parent().unwrap()).unwrap();
    let repo = repo.to_str().unwrap();
    ostree(&["init", "--repo", repo, "--mode=bare"]);
    let mut shelf = server.shelf();
    // Whoever asks for the fiftieth object finds the filesystem full.
    let ballast = device.join("ballast");
    let fill = ballast.clone();
    shelf.on_request = Some(Box::new(move |number| {
        if number == 50 {
            let mut file = fs::File::create(&fill).unwrap();
            while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        }
    }));
    let error = pull(&shelf, &device).unwrap_err().to_string();
    assert!(error.contains("No space left on device") || error.contains("are free"), "{error}");
    let fsck = Command::new("ostree").args(["fsck", "--repo", repo]).output().unwrap();
    assert!(
        !String::from_utf8_lossy(&fsck.stderr).contains("orrupt"),
        "{}",
        String::from_utf8_lossy(&fsck.stderr)
    );
    fs::remove_file(&ballast).unwrap();
    let shelf = server.shelf();
    pull(&shelf, &device).unwrap();
    let objects = shelf.files.keys().filter(|path| path.ends_with(".filez")).count();
    let again = shelf.asked().iter().filter(|(path, _)| path.ends_with(".filez")).count();
    assert!(again < objects, "{again} of {objects}");
    assert_eq!(fs::read_dir(device.join(STAGING)).unwrap().count(), 0);
}
