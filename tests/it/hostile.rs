//! Servers that send what is signed or named rightly and made to do harm: each is refused with its own error, in bounded
//! memory, and leaves the repository as it was.

use std::fs;
use std::path::Path;

use bootward::fetch::Backoff;
use bootward::ostree::emit;
use bootward::ostree::object::{self, Checksum, Kind};
use bootward::ostree::sign::{Keys, VerifiedCommit};
use bootward::ostree::tree::Meta;
use bootward::ostree::variant::{BYTES, U64, VARIANT};
use bootward::pull::{self, Options, Wanted};
use bootward::repo::{Mode, Store};
use bootward::sys::files::Disk;

use crate::fixture::ostree;
use crate::pair::{Pair, detached};
use crate::shelf::Shelf;

const DIRECTORY: u32 = 0o040_755;

pub fn meta(mode: u32) -> Vec<u8> {
    Meta { uid: 0, gid: 0, mode, attributes: Vec::new() }.serialize()
}

pub type File<'a> = (&'a [u8], Checksum);
pub type Below<'a> = (&'a [u8], Checksum, Checksum);

pub fn tree(files: &[File<'_>], below: &[Below<'_>]) -> Vec<u8> {
    let name = |name: &[u8]| [name, &[0]].concat();
    let files = files.iter().map(|(n, sum)| emit::tuple(&[(BYTES, &name(n)), (BYTES, &sum.0)]));
    let below = below
        .iter()
        .map(|(n, tree, meta)| emit::tuple(&[(BYTES, &name(n)), (BYTES, &tree.0), (BYTES, &meta.0)]));
    emit::tuple(&[(BYTES, &emit::array(1, files)), (BYTES, &emit::array(1, below))])
}

pub fn commit(root: Checksum, meta: Checksum) -> Vec<u8> {
    emit::tuple(&[
        (VARIANT, &emit::dictionary([])),
        (BYTES, &[]),
        (BYTES, &[]),
        (BYTES, &emit::text("")),
        (BYTES, &emit::text("")),
        (U64, &1_800_000_000u64.to_be_bytes()),
        (BYTES, &root.0),
        (BYTES, &meta.0),
    ])
}

pub fn put(shelf: &mut Shelf, kind: Kind, data: Vec<u8>) -> Checksum {
    let name = Checksum::of(&data);
    shelf.files.insert(object::place(&name, kind), data);
    name
}

/// A server with a signed commit of this root directory.
fn server(pair: &Pair, make: impl FnOnce(&mut Shelf, Checksum) -> Vec<u8>) -> Shelf {
    let mut shelf = Shelf { window: 4, ..Shelf::default() };
    let directory = put(&mut shelf, Kind::DirMeta, meta(DIRECTORY));
    let root = make(&mut shelf, directory);
    let root = put(&mut shelf, Kind::DirTree, root);
    publish(&mut shelf, pair, commit(root, directory));
    shelf
}

pub fn publish(shelf: &mut Shelf, pair: &Pair, commit: Vec<u8>) {
    let signature = pair.sign(&commit);
    let name = put(shelf, Kind::Commit, commit);
    shelf.files.insert(object::place(&name, Kind::CommitMeta), detached(&[signature]));
    shelf.files.insert("refs/heads/os".into(), format!("{name}\n").into_bytes());
}

/// Pulls into a new repository; the error, after a look at what is left.
fn refused(shelf: &Shelf, pair: &Pair) -> String {
    let keep = tempfile::tempdir().unwrap();
    let repo = keep.path().join("ostree/repo");
    fs::create_dir_all(repo.parent().unwrap()).unwrap();
    ostree(&["init", "--repo", repo.to_str().unwrap(), "--mode=bare"]);
    let error = pulled(shelf, pair, keep.path()).expect_err("it was taken");
    assert!(fs::read_dir(repo.join("refs/heads")).unwrap().next().is_none(), "{error}: a ref was set");
    let outside: Vec<_> = fs::read_dir(keep.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside, ["ostree"], "{error}");
    // What counts for libostree is sound: nothing there, or marked as partial.
    let fsck = std::process::Command::new("ostree").args(["fsck", "--repo"]).arg(&repo).output().unwrap();
    let said = String::from_utf8_lossy(&fsck.stderr);
    assert!(!said.contains("corrupted"), "{error}: {said}");
    error
}

pub fn pulled(shelf: &Shelf, pair: &Pair, sysroot: &Path) -> Result<(), String> {
    let keys = Keys::parse(pair.public.as_bytes()).unwrap();
    let judge = |commit: Vec<u8>, metadata: Option<&[u8]>| -> Result<VerifiedCommit, String> {
        keys.verify(commit, metadata).map_err(|e| e.to_string())
    };
    let never = std::time::Duration::from_millis(1);
    let options = Options {
        channels: 2,
        tries: 3,
        backoff: Backoff { first: never, longest: never },
        scratch: Some(sysroot.join(bootward::repo::store::STAGING)),
        ..Options::default()
    };
    let wanted = Wanted { reference: Some("os".into()), ..Wanted::default() };
    let open = || Disk::open(sysroot, sysroot);
    let mut store = Store::new(open().unwrap(), Mode::Bare, 0);
    let (commit, metadata) =
        pull::head::<_, bootward::sys::files::FilesError>(&shelf, &wanted, &judge, &options)
            .map_err(|e| e.to_string())?;
    let found = (&commit, metadata.as_deref());
    pull::pull(&shelf, &mut store, &open, found, &wanted, &options, &mut |_| ())
        .map(drop)
        .map_err(|e| e.to_string())
}

/// Names that lead out of a directory, two things of one name, and the like, all of them signed.
#[test]
fn attack_trees_that_lead_out_of_the_tree() {
    let pair = Pair::new();
    let sum = Checksum([7; 32]);
    let long = [b'n'; 256];
    let names: [&[u8]; 9] =
        [b"", b".", b"..", b"/", b"a/b", b"../../etc/passwd", b"\xff\xfe", b"a\0b", &long];
    for name in names {
        for directory in [false, true] {
            let error = refused(
                &server(&pair, |_, meta| match directory {
                    true => tree(&[], &[(name, sum, meta)]),
                    false => tree(&[(name, sum)], &[]),
                }),
                &pair,
            );
            assert!(error.contains("wrongly made"), "{name:?}: {error}");
        }
    }
    let twice = |shelf: Shelf, what: &str| {
        let error = refused(&shelf, &pair);
        assert!(error.contains(what), "{error}");
    };
    twice(server(&pair, |_, _| tree(&[(b"a", sum), (b"a", sum)], &[])), "out of order");
    twice(server(&pair, |_, _| tree(&[(b"b", sum), (b"a", sum)], &[])), "out of order");
    twice(
        server(&pair, |_, meta| tree(&[(b"x", sum)], &[(b"x", sum, meta)])),
        "one name for a file and a directory",
    );
    let deep = |shelf: &mut Shelf, meta: Checksum| {
        let mut below = put(shelf, Kind::DirTree, tree(&[], &[]));
        for _ in 0..200 {
            below = put(shelf, Kind::DirTree, tree(&[], &[(b"d", below, meta)]));
        }
        tree(&[], &[(b"d", below, meta)])
    };
    twice(server(&pair, deep), "directories in each other");
}

/// Directories whose mode is none, metadata that is not in form, objects of two commits.
#[test]
fn attack_metadata_out_of_form_and_mix_and_match_of_objects() {
    let pair = Pair::new();
    for mode in [0o100_644, 0o120_777, 0o060_644, 0o1_040_755] {
        let mut shelf = Shelf { window: 4, ..Shelf::default() };
        let bad = put(&mut shelf, Kind::DirMeta, meta(mode));
        let root = put(&mut shelf, Kind::DirTree, tree(&[], &[]));
        publish(&mut shelf, &pair, commit(root, bad));
        let error = refused(&shelf, &pair);
        assert!(error.contains("not that of a directory"), "{error}");
    }
    let mut shelf = Shelf { window: 4, ..Shelf::default() };
    let directory = put(&mut shelf, Kind::DirMeta, meta(DIRECTORY));
    let junk = put(&mut shelf, Kind::DirTree, vec![0x55; 100]);
    publish(&mut shelf, &pair, commit(junk, directory));
    assert!(refused(&shelf, &pair).contains("normal form"));
    // The objects of one commit under the names of another.
    let mut shelf = server(&pair, |_, _| tree(&[], &[]));
    let other = tree(&[(b"evil", Checksum([1; 32]))], &[]);
    let name = shelf.files.keys().find(|n| n.ends_with(".dirtree")).unwrap().clone();
    shelf.files.insert(name.clone(), other);
    let error = refused(&shelf, &pair);
    assert!(error.starts_with(&name) && error.contains("its checksum is"), "{error}");
}

const SIZE: u64 = 16 << 20;

/// Content that says one size and has another, bombs among it.
#[test]
fn attack_bombs_and_lies_about_sizes() {
    let pair = Pair::new();
    let keep = tempfile::tempdir().unwrap();
    let (repo, files) = (keep.path().join("server"), keep.path().join("tree"));
    let server = repo.to_str().unwrap();
    ostree(&["init", "--repo", server, "--mode=archive"]);
    fs::create_dir(&files).unwrap();
    fs::File::create(files.join("zeros")).unwrap().set_len(SIZE).unwrap();
    ostree(&["commit", "--repo", server, "-b", "os", files.to_str().unwrap()]);
    let whole = Shelf::of(&repo);
    let name = whole.files.keys().find(|n| n.ends_with(".filez")).unwrap().clone();
    let data = whole.files[name.as_str()].clone();
    let commit = whole.files.iter().find(|(n, _)| n.ends_with(".commit")).unwrap().1.clone();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut shelf = Shelf::of(&repo);
        let mut changed = data.clone();
        change(&mut changed);
        shelf.files.insert(name.clone(), changed);
        publish(&mut shelf, &pair, commit.clone());
        shelf
    };
    let says = |size: u64| move |data: &mut Vec<u8>| data[8..16].copy_from_slice(&size.to_be_bytes());
    for (size, expected) in [
        (10, "its header says 10 bytes"),
        (0, "its header says 0 bytes"),
        (SIZE - 1, "its header says 16777215 bytes"),
        (SIZE + 1, "16777217 bytes, 16777216 or more came"),
        (1 << 39, "are free"),
        (u64::MAX, "at most"),
    ] {
        let error = refused(&with(&says(size)), &pair);
        assert!(error.contains(expected), "{size}: {error}");
    }
    for (change, expected) in [
        (&(|data: &mut Vec<u8>| data.push(0)) as &dyn Fn(&mut Vec<u8>), "more comes after its end"),
        (&|data: &mut Vec<u8>| data.truncate(data.len() - 1), "it ends too early"),
        (&|data: &mut Vec<u8>| data.truncate(12), "it ends too early"),
        (&|data: &mut Vec<u8>| data.clear(), "it ends too early"),
        (&|data: &mut Vec<u8>| data[4] = 1, "normal form"),
        (&|data: &mut Vec<u8>| data[0] = 0x7f, "are read"),
        (
            &|data: &mut Vec<u8>| data[24..28].copy_from_slice(&0o020_644u32.to_be_bytes()),
            "neither that of a file",
        ),
        (&|data: &mut Vec<u8>| data[24..28].copy_from_slice(&0o104_755u32.to_be_bytes()), "has the checksum"),
        (&|data: &mut Vec<u8>| data[16..20].copy_from_slice(&7u32.to_be_bytes()), "has the checksum"),
    ] {
        let error = refused(&with(change), &pair);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// A quarter of a gigabyte in a quarter of a megabyte, with 96 MiB of address space for all of the program: a bomb is
/// refused, and what is honestly that large is written as it comes.
#[test]
fn attack_a_bomb_meets_bounded_memory() {
    let pair = Pair::new();
    let keep = tempfile::tempdir().unwrap();
    let path = |name: &str| keep.path().join(name).to_str().unwrap().to_string();
    let (server, files, sysroot, keys) = (path("server"), path("tree"), path("sysroot"), path("keys"));
    ostree(&["init", "--repo", &server, "--mode=archive"]);
    fs::create_dir(&files).unwrap();
    fs::File::create(Path::new(&files).join("zeros")).unwrap().set_len(256 << 20).unwrap();
    let commit = ostree(&["commit", "--repo", &server, "-b", "os", &files]);
    let place = |kind| Path::new(&server).join(object::place(&Checksum::parse(commit.trim()).unwrap(), kind));
    let signature = pair.sign(&fs::read(place(Kind::Commit)).unwrap());
    fs::write(place(Kind::CommitMeta), detached(&[signature])).unwrap();
    fs::write(&keys, &pair.public).unwrap();
    fs::create_dir_all(Path::new(&sysroot).join("ostree")).unwrap();
    ostree(&["init", "--repo", &format!("{sysroot}/ostree/repo"), "--mode=bare"]);
    let pull = || {
        let url = format!("file://{server}");
        let arguments = ["pull", "--sysroot", &sysroot, "--url", &url, "--ref", "os", "--keys", &keys];
        let limited = "ulimit -v 98304; exec \"$0\" \"$@\"";
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", limited, env!("CARGO_BIN_EXE_bootward")]).args(arguments).output().unwrap()
    };
    let shelf = Shelf::of(Path::new(&server));
    let (name, honest) = shelf.files.iter().find(|(n, _)| n.ends_with(".filez")).unwrap();
    let mut bomb = honest.clone();
    bomb[8..16].copy_from_slice(&10u64.to_be_bytes());
    fs::write(Path::new(&server).join(name), bomb).unwrap();
    let refused = pull();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("its header says 10 bytes"), "{said}");
    fs::write(Path::new(&server).join(name), honest).unwrap();
    let taken = pull();
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
}

/// What is no repository at all.
#[test]
fn attack_web_pages_and_nonsense_in_place_of_a_repository() {
    let pair = Pair::new();
    let page = b"<html><body>Welcome to our hotel, please log in</body></html>".to_vec();
    for bad in [page.clone(), Vec::new(), vec![b'a'; 64], vec![0; 64], b"../../../etc/passwd\n".to_vec()] {
        let mut shelf = server(&pair, |_, _| tree(&[], &[]));
        shelf.files.insert("refs/heads/os".into(), bad.clone());
        let error = refused(&shelf, &pair);
        assert!(error.contains("no checksum of a commit") || error.contains("does not have it"), "{error}");
    }
    // Everything but the ref is a page: the commit has another checksum.
    let mut shelf = server(&pair, |_, _| tree(&[], &[]));
    for (name, file) in shelf.files.iter_mut().filter(|(n, _)| n.starts_with("objects")) {
        let _ = name;
        file.clone_from(&page);
    }
    assert!(refused(&shelf, &pair).contains("its checksum is"));
    // Longer than any ref or commit may be.
    let mut shelf = server(&pair, |_, _| tree(&[], &[]));
    shelf.files.insert("refs/heads/os".into(), vec![b'a'; 100_000]);
    assert!(refused(&shelf, &pair).contains("100000 bytes, 256 are allowed"));
}
