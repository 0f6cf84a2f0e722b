//! Objects of a repository: what is taken is taken as the gvariant crate takes it, and is written back byte for byte.

use bootward::ostree::Keys;
use std::sync::LazyLock;

use bootward::ostree::admit::{Policy, Refusal, Trust};
use bootward::ostree::commit::{COMPOSEFS_DIGEST, Commit, IMAGE_CONFIG};
use bootward::ostree::emit;
use bootward::ostree::mark::Mark;
use bootward::ostree::object::Checksum;
use bootward::ostree::sign::{MAX_KEYS, SignError};
use bootward::ostree::tree::{DIRECTORY, DirTree, Meta, NAME_MAX};
use bootward::ostree::variant;
use gvariant::aligned_bytes::{A8, AsAligned, copy_to_align};
use gvariant::{Marker, Structure, gv};

/// A commit that the key has signed.
const COMMIT: &[u8] = include_bytes!("../corpus/ostree/seed-commit");
/// Its detached metadata, in which the second signature is the good one.
const METADATA: &[u8] = include_bytes!("../corpus/ostree/seed-commitmeta");
/// The public key and a second one.
const KEYS: &[u8] = include_bytes!("../corpus/ostree/seed-keys");
/// Where METADATA has the good signature.
const SIGNATURE: core::ops::Range<usize> = 88..152;

/// The keys of KEYS, which take the commit as it is.
static TRUSTED: LazyLock<Keys> = LazyLock::new(|| {
    let keys = Keys::parse(KEYS).unwrap();
    assert_eq!(keys.verify(COMMIT.to_vec(), Some(METADATA)).map(|commit| commit.key()), Ok(0));
    keys
});

/// An object of any kind, or a file of keys.
pub fn ostree(data: &[u8]) {
    commit(data);
    tree(data);
    meta(data);
    commitmeta(data);
    keys(data);
}

fn commit(data: &[u8]) {
    let commit = match Commit::parse(data.to_vec()) {
        Ok(commit) => commit,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    assert_eq!((commit.bytes(), commit.checksum()), (data, Checksum::of(data)));
    let aligned = copy_to_align::<A8>(data);
    let (metadata, parent, _, _, _, _, root_tree, root_meta) =
        gv!("(a{sv}aya(say)sstayay)").cast(aligned.as_aligned()).to_tuple();
    assert_eq!(commit.parent(), Checksum::from_bytes(parent));
    assert_eq!(Some(commit.root_tree()), Checksum::from_bytes(root_tree));
    assert_eq!(Some(commit.root_meta()), Checksum::from_bytes(root_meta));
    let find =
        |key: &str| metadata.into_iter().map(|entry| entry.to_tuple()).find(|(k, _)| k.to_str() == key);
    if let Some(digest) = commit.metadata_bytes(COMPOSEFS_DIGEST) {
        let (_, value) = find(COMPOSEFS_DIGEST).unwrap();
        assert_eq!(value.get(gv!("ay")), Some(digest));
    }
    if let Some(text) = commit.metadata_text(IMAGE_CONFIG) {
        let (_, value) = find(IMAGE_CONFIG).unwrap();
        assert_eq!(value.get(gv!("s")).map(|s| s.to_str()), Some(text));
    }
}

fn tree(data: &[u8]) {
    let tree = match DirTree::parse(data) {
        Ok(tree) => tree,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    let legal = |name: &str| {
        !matches!(name, "" | "." | "..") && name.len() <= NAME_MAX && !name.contains(['/', '\0'])
    };
    let files: Vec<_> = tree.files().collect();
    let directories: Vec<_> = tree.directories().collect();
    assert!(files.iter().all(|f| legal(f.0)) && files.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(
        directories.iter().all(|d| legal(d.0)) && directories.windows(2).all(|pair| pair[0].0 < pair[1].0)
    );
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, sum)| (*name, &sum.0[..])).collect();
    let directories: Vec<(&str, &[u8], &[u8])> =
        directories.iter().map(|(name, tree, meta)| (*name, &tree.0[..], &meta.0[..])).collect();
    assert_eq!(gv!("(a(say)a(sayay))").serialize_to_vec(&(&files[..], &directories[..])), data);
}

fn meta(data: &[u8]) {
    let meta = match Meta::parse(data) {
        Ok(meta) => meta,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    assert_eq!(meta.mode & 0o170_000, DIRECTORY);
    let names: Vec<Vec<u8>> = meta.attributes.iter().map(|(name, _)| [name, &b"\0"[..]].concat()).collect();
    let list: Vec<(&[u8], &[u8])> =
        names.iter().zip(&meta.attributes).map(|(name, (_, value))| (&name[..], &value[..])).collect();
    let (uid, gid, mode) = (meta.uid.to_be(), meta.gid.to_be(), meta.mode.to_be());
    assert_eq!(gv!("(uuua(ayay))").serialize_to_vec(&(uid, gid, mode, &list[..])), data);
    let header = gv!("(uuuusa(ayay))").serialize_to_vec(&(uid, gid, mode, 0u32, "../target", &list[..]));
    let written = meta.file_header(b"../target");
    assert_eq!(written[..8], ((header.len() as u64) << 32).to_be_bytes());
    assert_eq!(written[8..], header);
}

/// Nothing but the commit's own signature makes it trusted, and it makes nothing else trusted.
fn commitmeta(data: &[u8]) {
    let keys = &*TRUSTED;
    let good = &METADATA[SIGNATURE];
    match keys.verify(COMMIT.to_vec(), Some(data)) {
        Ok(verified) => {
            assert_eq!(verified.key(), 0);
            let aligned = copy_to_align::<A8>(data);
            let entries = gv!("a{sv}").cast(aligned.as_aligned()).into_iter().map(|entry| entry.to_tuple());
            let (_, value) =
                entries.into_iter().find(|(key, _)| key.to_str() == "ostree.sign.ed25519").unwrap();
            assert!(value.get(gv!("aay")).unwrap().into_iter().any(|signature| signature == good));
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
    assert!(keys.verify(data.to_vec(), Some(METADATA)).is_err() || data == COMMIT);
    assert_eq!(keys.verify(COMMIT.to_vec(), None), Err(SignError::NoMetadata));
    if variant::is_dictionary(data) {
        for kind in ["s", "ay", "aay"] {
            let value = variant::lookup(data, "ostree.sign.ed25519", kind);
            assert!(value.is_none_or(|value| value.len() < data.len()));
        }
    }
}

fn keys(data: &[u8]) {
    match Keys::parse(data) {
        Ok(keys) => assert!((1..=MAX_KEYS).contains(&keys.count())),
        Err(error) => {
            let _ = error.to_string();
        }
    }
}

/// Admission: what is admitted is the signed commit under its own name; a floor is read as it is written; what is
/// written is what was read.
pub fn admit(data: &[u8]) {
    let keys = &*TRUSTED;
    let floor = Mark::parse(data).unwrap_or_default();
    if Mark::parse(data).is_some() {
        assert_eq!(Mark::parse(floor.text().as_bytes()).as_ref(), Some(&floor));
        assert_eq!(floor.follows(&floor.raised(&floor)).is_ok(), floor.follows(&floor).is_ok());
    }
    let policy = Policy::new(Trust::Ed25519(keys), &floor);
    let name = Checksum::of(COMMIT);
    match policy.admit(&name, COMMIT.to_vec(), Some(data)) {
        Ok(admitted) => assert_eq!(admitted.commit.commit().bytes(), COMMIT),
        Err(refusal) => {
            let _ = refusal.to_string();
        }
    }
    match policy.admit(&name, data.to_vec(), Some(METADATA)) {
        Ok(_) | Err(Refusal::Disorder(_)) => assert_eq!(data, COMMIT),
        Err(refusal) => {
            let _ = refusal.to_string();
        }
    }
    if let Ok(commit) = Commit::parse(data.to_vec()) {
        let _ = Mark::of(&commit).map(|mark| mark.follows(&floor).map_err(|e| e.to_string()));
    }
    if let Some(entries) = variant::entries(data) {
        let written = emit::dictionary(entries.iter().copied());
        assert_eq!(variant::entries(&written), Some(entries));
    }
}
