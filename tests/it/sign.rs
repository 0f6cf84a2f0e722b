//! Commits made by the real `ostree` and signed by openssl, read and judged by ours.

use std::fs;
use std::path::Path;

use bootward::ostree::object::{self, COMMITMETA_MAX, Kind};
use bootward::ostree::sign::{MAX_SIGNATURES, SignError};
use bootward::ostree::{Checksum, Commit, Keys};

use crate::pair::run;
pub use crate::pair::{Pair, detached};
use crate::sysroot::Fixture;

/// A commit object of a sysroot, by its checksum.
pub fn commit_of(root: &Path, checksum: &str) -> Vec<u8> {
    fs::read(root.join(object::path(&Checksum::parse(checksum).unwrap(), Kind::Commit))).unwrap()
}

fn both(fixture: &Fixture) -> [Vec<u8>; 2] {
    let deployments = fixture.read().deployments;
    [0, 1].map(|index: usize| commit_of(&fixture.root, &deployments[index].commit))
}

#[test]
fn commits_are_read_as_libostree_reads_them() {
    let fixture = Fixture::new();
    let repo = ostree::Repo::new(&ostree::gio::File::for_path(fixture.root.join("ostree/repo")));
    repo.open(ostree::gio::Cancellable::NONE).unwrap();
    for deployment in fixture.read().deployments {
        let ours = Commit::parse(commit_of(&fixture.root, &deployment.commit)).unwrap();
        assert_eq!(ours.checksum().to_string(), deployment.commit);
        let theirs = repo.load_variant(ostree::ObjectType::Commit, &deployment.commit).unwrap();
        let parent = ostree::commit_get_parent(&theirs).map(|p| p.to_string());
        assert_eq!(ours.parent().map(|p| p.to_string()), parent);
        let child = |index| theirs.child_value(index).data().to_vec();
        assert_eq!((ours.root_tree().0.to_vec(), ours.root_meta().0.to_vec()), (child(6), child(7)));
        assert_eq!(ours.metadata_bytes("ostree.composefs.digest.v0"), None);
    }
}

#[test]
fn metadata_of_a_commit() {
    let keep = tempfile::tempdir().unwrap();
    let repo = format!("--repo={}/repo", keep.path().display());
    fs::create_dir(keep.path().join("tree")).unwrap();
    let tree = format!("--tree=dir={}/tree", keep.path().display());
    run("ostree", &["init", &repo, "--mode=bare-user"]);
    let long = "a".repeat(70_000);
    let out = run(
        "ostree",
        &[
            "commit",
            &repo,
            "-b",
            "x",
            "--add-metadata-string=version=7",
            &format!("--add-metadata-string=ostree.container.image-config={long}"),
            "--add-metadata=ostree.composefs.digest.v0=[byte 0x01, 0x02, 0xff]",
            "--add-metadata=number=uint32 5",
            &tree,
        ],
    );
    let name = String::from_utf8(out).unwrap();
    let name = Checksum::parse(name.trim()).unwrap();
    let path = object::path(&name, Kind::Commit).replace("ostree/repo", "repo");
    let data = fs::read(keep.path().join(path)).unwrap();
    let commit = Commit::parse(data.clone()).unwrap();
    assert_eq!(commit.checksum(), name);
    assert_eq!(commit.metadata_text("version"), Some("7"));
    assert_eq!(commit.metadata_text("ostree.container.image-config"), Some(long.as_str()));
    assert_eq!(commit.metadata_bytes("ostree.composefs.digest.v0"), Some(&[1, 2, 0xff][..]));
    assert_eq!(commit.metadata_bytes("version"), None);
    assert_eq!(commit.metadata_text("number"), None);
    assert_eq!(commit.metadata_text("nothing"), None);
    // A cut is noticed wherever it is.
    for length in (0..data.len()).step_by(37) {
        assert!(Commit::parse(data[..length].to_vec()).is_err(), "{length}");
    }
}

#[test]
fn only_a_signature_of_a_trusted_key_counts() {
    let fixture = Fixture::new();
    let [commit, other] = both(&fixture);
    let (ours, second, stranger) = (Pair::new(), Pair::new(), Pair::new());
    let keys = Keys::parse(format!("{}\n\n{}\n", ours.public, second.public).as_bytes()).unwrap();
    let good = ours.sign(&commit);
    let wrong = stranger.sign(&commit);
    let none = |signatures, malformed| Err(SignError::NoneValid { signatures, malformed, keys: 2 });
    let cut = good[..63].to_vec();
    let longer = [&good[..], &[0]].concat();
    let mut malleable = good.clone();
    // S + L is the same scalar; RFC 8032 wants it refused.
    let order = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    let order = Checksum::parse(order).unwrap().0;
    let mut carry = 0;
    for (byte, add) in malleable[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = ((sum & 0xff) as u8, sum >> 8);
    }
    type Case = (&'static str, Vec<Vec<u8>>, Result<usize, SignError>);
    let table: Vec<Case> = vec![
        ("good", vec![good.clone()], Ok(0)),
        ("second key", vec![second.sign(&commit)], Ok(1)),
        ("good after wrong", vec![wrong.clone(), good.clone()], Ok(0)),
        ("good after malformed", vec![vec![], cut.clone(), good.clone()], Ok(0)),
        ("wrong key", vec![wrong.clone()], none(1, 0)),
        ("63 bytes", vec![cut], none(1, 1)),
        ("65 bytes", vec![longer], none(1, 1)),
        ("no bytes", vec![vec![]], none(1, 1)),
        ("zeros", vec![vec![0; 64]], none(1, 0)),
        ("of another commit", vec![ours.sign(&other)], none(1, 0)),
        ("of the checksum", vec![ours.sign(&Checksum::of(&commit).0)], none(1, 0)),
        ("malleable", vec![malleable], none(1, 0)),
        ("empty list", vec![], Err(SignError::Empty)),
        ("too many", vec![good.clone(); MAX_SIGNATURES + 1], Err(SignError::TooMany(MAX_SIGNATURES + 1))),
    ];
    for (case, signatures, expected) in &table {
        let verified = keys.verify(commit.clone(), Some(&detached(signatures)));
        assert_eq!(verified.map(|v| v.key()), *expected, "{case}");
    }
    assert_eq!(keys.verify(commit.clone(), None), Err(SignError::NoMetadata));
    assert_eq!(keys.verify(commit.clone(), Some(b"")), Err(SignError::NoSignatures));
    assert_eq!(keys.verify(commit.clone(), Some(b"garbage")), Err(SignError::MetadataForm));
    let long = vec![0; COMMITMETA_MAX + 1];
    assert_eq!(keys.verify(commit.clone(), Some(&long)), Err(SignError::MetadataTooLong(long.len())));

    // Every bit of the commit and of the signature counts.
    let metadata = detached(std::slice::from_ref(&good));
    assert!(keys.verify(commit.clone(), Some(&metadata)).is_ok());
    let mut cases = 0;
    for bit in 0..commit.len() * 8 {
        let mut changed = commit.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(keys.verify(changed, Some(&metadata)).is_err(), "commit, bit {bit}");
        cases += 1;
    }
    for bit in 0..512 {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(keys.verify(commit.clone(), Some(&detached(&[changed]))).is_err(), "signature, bit {bit}");
        cases += 1;
    }
    println!("signatures: {} in the table, {cases} flipped bits", table.len());
}
