//! What a signature covers is all of it: every byte of every object of a repository is flipped on its way, each object is cut
//! short and made longer, and trees are made up at random to lead out of where they belong.
//!
//! `BOOTWARD_TREES=10000` makes so many trees; 400 without it.

use std::fs;
use std::path::{Path, PathBuf};

use bootward::deploy::checkout::checkout;
use bootward::deploy::objects::Objects;
use bootward::ostree::object::{self, Checksum, Kind};
use bootward::ostree::tree::Meta;
use bootward::ostree::variant::{BYTES, U32, U64};
use bootward::ostree::{Commit, emit};
use bootward::storage::At;
use bootward::sys::files::Disk;

use crate::fixture::ostree;
use crate::hostile::{commit, meta, publish, pulled, put, tree};
use crate::pair::Pair;
use crate::shelf::Shelf;

/// A new, empty sysroot, in memory: thousands are made and synced.
fn sysroot() -> tempfile::TempDir {
    let keep = tempfile::tempdir_in("/dev/shm").unwrap();
    let repo = keep.path().join("sysroot/ostree/repo");
    for directory in ["objects", "refs/heads", "refs/remotes", "state", "tmp/cache", "extensions"] {
        fs::create_dir_all(repo.join(directory)).unwrap();
    }
    fs::write(repo.join("config"), "[core]\nrepo_version=1\nmode=bare\n").unwrap();
    keep
}

/// Everything that is somewhere: names, kinds, lengths, link texts.
fn listing(root: &Path) -> Vec<(PathBuf, u64, Option<PathBuf>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            all.push((path.clone(), 0, None));
            all.extend(listing(&path));
        } else {
            all.push((path.clone(), stat.len(), fs::read_link(&path).ok()));
        }
    }
    all.sort();
    all
}

#[test]
fn attack_every_byte_of_every_object() {
    let site = tempfile::tempdir().unwrap();
    let (server, files) = (site.path().join("server"), site.path().join("tree"));
    fs::create_dir_all(files.join("usr/lib")).unwrap();
    for n in 0..4usize {
        fs::write(files.join(format!("usr/{n}")), format!("file {n} ").repeat(n * n)).unwrap();
    }
    std::os::unix::fs::symlink("../elsewhere", files.join("usr/lib/link")).unwrap();
    let server = server.to_str().unwrap();
    ostree(&["init", "--repo", server, "--mode=archive"]);
    let name = ostree(&["commit", "--repo", server, "-b", "os", files.to_str().unwrap()]);
    let pair = Pair::new();
    let signed = || {
        let mut shelf = Shelf::of(Path::new(server));
        let place = object::place(&Checksum::parse(name.trim()).unwrap(), Kind::Commit);
        let data = shelf.files[&place].clone();
        publish(&mut shelf, &pair, data);
        shelf
    };
    let good = signed();
    pulled(&good, &pair, &sysroot().path().join("sysroot")).unwrap();
    let (mut refused, mut same) = (0, 0);
    let mut judge = |what: &str, place: &str, data: Vec<u8>| {
        let mut shelf = signed();
        let meaningless = unpacked(place, &data) == unpacked(place, &good.files[place]);
        shelf.files.insert(place.into(), data);
        let keep = sysroot();
        let result = pulled(&shelf, &pair, &keep.path().join("sysroot"));
        let heads = fs::read_dir(keep.path().join("sysroot/ostree/repo/refs/heads")).unwrap().count();
        assert_eq!(heads, usize::from(result.is_ok()), "{place}, {what}");
        match result {
            Err(_) => refused += 1,
            // Bits that a deflate stream does not use: what comes out is the object all the same.
            Ok(()) => {
                assert!(meaningless, "{place}, {what}: taken");
                same += 1;
            }
        }
    };
    let mut bytes = 0;
    for (place, data) in good.files.iter().filter(|(place, _)| place.starts_with("objects/")) {
        for at in 0..data.len() {
            let mut flipped = data.clone();
            flipped[at] ^= 1 << (at % 8);
            judge(&format!("byte {at}"), place, flipped);
            bytes += 1;
        }
        judge("one byte less", place, data[..data.len() - 1].to_vec());
        judge("one byte more", place, [&data[..], &[0]].concat());
        judge("nothing", place, Vec::new());
    }
    println!("closure: {bytes} bytes, {refused} changes refused, {same} without a meaning");
    assert!(bytes > 700 && same * 20 < bytes, "{bytes} {same}");
}

/// What a file object of an archive repository comes to; anything else is itself.
fn unpacked(place: &str, data: &[u8]) -> Option<Vec<u8>> {
    if !place.ends_with(".filez") {
        return Some(data.to_vec());
    }
    let length = u32::from_be_bytes(data.get(..4)?.try_into().unwrap()) as usize;
    let (head, packed) = data.split_at_checked(8 + length)?;
    if packed.is_empty() {
        // The size of a link is in no checksum, and nobody goes by it.
        return Some([head.get(..8)?, head.get(16..)?].concat());
    }
    let mut out = vec![0; 1 << 16];
    let mut inflate = zlib_rs::Inflate::new(false, 15);
    let status = inflate.decompress(packed, &mut out, zlib_rs::InflateFlush::Finish).ok()?;
    let whole = status == zlib_rs::Status::StreamEnd && inflate.total_in() as usize == packed.len();
    whole.then(|| [head, &out[..inflate.total_out() as usize]].concat())
}

struct Random(u64);

impl Random {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below
    }

    fn pick<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.roll(all.len())]
    }
}

const NAMES: [&[u8]; 20] = [
    b"a",
    b"b",
    b"c",
    b"usr",
    b"etc",
    b"A",
    b"..",
    b".",
    b"",
    b"a/b",
    b"/",
    b"../outside",
    b"/etc/passwd",
    b"a\0b",
    b"\xff",
    b".ostree-wh.a",
    b".ostree-wh...",
    b".ostree-wh.",
    b"outside",
    b"...",
];
const TARGETS: [&str; 8] = ["/", "..", "../..", "a", "/outside", "../../outside", ".", "usr/../../.."];

/// A tree of names that no tree should have, of links that lead out of it, in order or not.
fn hostile_tree(random: &mut Random, shelf: &mut Shelf, directory: Checksum, depth: usize) -> Checksum {
    let (mut files, mut below) = (Vec::new(), Vec::new());
    // Most trees have legal names only, or none would get any further.
    let names = if random.roll(4) == 0 { &NAMES[..] } else { &NAMES[..6] };
    for _ in 0..random.roll(4) {
        let sum = match random.roll(3) {
            0 => link(shelf, TARGETS[random.roll(TARGETS.len())]),
            1 => empty(shelf),
            _ => Checksum([random.roll(256) as u8; 32]),
        };
        files.push((*random.pick(names), sum));
    }
    if depth < 3 {
        for _ in 0..random.roll(3) {
            below.push((*random.pick(names), hostile_tree(random, shelf, directory, depth + 1), directory));
        }
    }
    if random.roll(5) > 0 {
        files.sort();
        files.dedup_by_key(|(name, _)| *name);
        below.sort();
        below.dedup_by_key(|(name, ..)| *name);
    }
    put(shelf, Kind::DirTree, tree(&files, &below))
}

fn link(shelf: &mut Shelf, target: &str) -> Checksum {
    let meta = Meta { uid: 0, gid: 0, mode: 0o120_777, attributes: Vec::new() };
    object_of(shelf, &meta, target, 0)
}

fn empty(shelf: &mut Shelf) -> Checksum {
    object_of(shelf, &Meta { uid: 0, gid: 0, mode: 0o100_644, attributes: Vec::new() }, "", 0)
}

/// What a file object of an archive repository begins with: `(tuuuusa(ayay))` after its length.
fn header(meta: &Meta, target: &str, size: u64) -> Vec<u8> {
    let text = emit::text(target);
    let header = emit::tuple(&[
        (U64, &size.to_be_bytes()),
        (U32, &meta.uid.to_be_bytes()),
        (U32, &meta.gid.to_be_bytes()),
        (U32, &meta.mode.to_be_bytes()),
        (U32, &[0; 4]),
        (BYTES, &text),
        (BYTES, &[]),
    ]);
    [&(header.len() as u32).to_be_bytes()[..], &[0; 4], &header].concat()
}

/// An archive object without content.
fn object_of(shelf: &mut Shelf, meta: &Meta, target: &str, size: u64) -> Checksum {
    let name = Checksum::of(&meta.file_header(target.as_bytes()));
    let packed = if target.is_empty() { &[3, 0][..] } else { &[] };
    let data = [&header(meta, target, size)[..], packed].concat();
    shelf.files.insert(object::place(&name, Kind::Archived), data);
    name
}

#[test]
fn attack_trees_at_random_write_nothing_outside() {
    let count: usize = std::env::var("BOOTWARD_TREES").map_or(400, |count| count.parse().unwrap());
    let pair = Pair::new();
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..count {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (seed as u64 + 1));
        random.roll(2);
        let mut shelf = Shelf { window: 4, ..Shelf::default() };
        let directory = put(&mut shelf, Kind::DirMeta, meta(0o040_755));
        let root = hostile_tree(&mut random, &mut shelf, directory, 0);
        let data = commit(root, directory);
        publish(&mut shelf, &pair, data.clone());
        let keep = sysroot();
        let outside = keep.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("a"), "canary").unwrap();
        fs::create_dir(keep.path().join("sysroot/outside")).unwrap();
        let device = keep.path().join("sysroot");
        let ours = |path: &Path| {
            let below = path.strip_prefix(&device).unwrap_or(Path::new("")).to_str().unwrap_or_default();
            below.starts_with("ostree/repo/")
                || below.starts_with("ostree/bootward")
                || below.starts_with("ostree/target")
        };
        let others = || listing(keep.path()).into_iter().filter(|(path, ..)| !ours(path)).collect::<Vec<_>>();
        let before = others();
        if pulled(&shelf, &pair, &device).is_err() {
            refused += 1;
        } else {
            taken += 1;
            let mut disk = Disk::open(&device, &device).unwrap();
            let mut objects = Objects::open(&mut disk).unwrap();
            let target = At::root("ostree/target");
            // Refused or not, it writes where it is told to and nowhere else.
            let _ = checkout(&mut disk, &mut objects, &Commit::parse(data).unwrap(), &target, &mut |_| {});
        }
        assert_eq!(others(), before, "seed {seed}");
    }
    println!("closure: {count} trees, {refused} refused, {taken} checked out");
    assert!(taken * 20 > count && refused * 4 > count, "{taken} {refused}");
}
