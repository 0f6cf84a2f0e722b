//! Signed composefs where bootc made the deployment's commit on the device: which commit has to be signed, and whose
//! image is mounted. As in `load_commit_for_deploy` of libostree's src/libotcore/otcore-prepare-root.c; Debian's
//! ostree-prepare-root is built without ed25519, so that it cannot be asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bootward::mounts::signed::{SignedError, digest};
use bootward::ostree::Checksum;
use bootward::ostree::object::{self, Kind};
use bootward::ostree::sign::SignError;

use crate::sign::{Pair, commit_of, detached};

/// A repository where libostree looks for it, and an initramfs with a key.
struct Lab {
    keep: tempfile::TempDir,
    key: Pair,
    stranger: Pair,
}

/// What a commit says besides.
const BOOTC: &str = "--add-metadata-string=ostree.container.image-config={}";

impl Lab {
    fn new() -> Lab {
        let lab = Lab { keep: tempfile::tempdir().unwrap(), key: Pair::new(), stranger: Pair::new() };
        fs::create_dir_all(lab.at("sysroot/ostree")).unwrap();
        fs::create_dir_all(lab.at("tree/usr")).unwrap();
        fs::write(lab.at("key"), &lab.key.public).unwrap();
        lab.ostree(&["init", "--mode=bare"]);
        lab
    }

    fn at(&self, path: &str) -> PathBuf {
        self.keep.path().join(path)
    }

    fn ostree(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("ostree");
        command.arg(format!("--repo={}", self.at("sysroot/ostree/repo").display())).args(arguments);
        let out = command.output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_string()
    }

    /// A commit on top of another one, whose image has the digest that this byte makes.
    fn commit(&self, parent: Option<&str>, image: Option<u8>, more: &[&str]) -> String {
        let parent = format!("--parent={}", parent.unwrap_or("none"));
        let tree = format!("--tree=dir={}", self.at("tree").display());
        let bytes = image.map(|byte| vec![format!("byte {byte}"); 32].join(", "));
        let bytes = bytes.map(|bytes| format!("--add-metadata=ostree.composefs.digest.v0=[{bytes}]"));
        let mut arguments = vec!["commit", "--orphan", &parent, &tree];
        arguments.extend(bytes.as_deref());
        arguments.extend(more);
        self.ostree(&arguments)
    }

    fn place(&self, commit: &str, kind: Kind) -> PathBuf {
        self.at("sysroot").join(object::path(&Checksum::parse(commit).unwrap(), kind))
    }

    fn sign(&self, commit: &str, pair: &Pair) {
        let signature = pair.sign(&commit_of(&self.at("sysroot"), commit));
        fs::write(self.place(commit, Kind::CommitMeta), detached(&[signature])).unwrap();
    }

    fn unsign(&self, commit: &str) {
        fs::remove_file(self.place(commit, Kind::CommitMeta)).unwrap();
    }

    fn digest(&self, commit: &str) -> Result<[u8; 32], SignedError> {
        let deployment = format!("/ostree/deploy/os/deploy/{commit}.0");
        digest(self.keep.path(), &self.at("sysroot"), &deployment, "/key")
    }

    fn unsigned(&self, commit: &str) {
        let name = Checksum::parse(commit).unwrap();
        assert_eq!(self.digest(commit), Err(SignedError::Signature(name, SignError::NoMetadata)));
    }

    fn nobodys(&self, commit: &str, signer: &str) {
        let name = Checksum::parse(signer).unwrap();
        let error = SignError::NoneValid { signatures: 1, malformed: 0, keys: 1 };
        assert_eq!(self.digest(commit), Err(SignedError::Signature(name, error)));
    }
}

#[test]
fn the_commit_below_bootcs_own_is_the_signed_one() {
    let lab = Lab::new();
    let base = lab.commit(None, Some(1), &[]);
    let own = lab.commit(Some(&base), Some(2), &[BOOTC]);
    lab.unsigned(&own);
    lab.sign(&base, &lab.key);
    assert_eq!(lab.digest(&base), Ok([1; 32]));
    assert_eq!(lab.digest(&own), Ok([1; 32]));
    // Whoever says something of bootc's own commit is believed in that, and the base does not count any more.
    lab.sign(&own, &lab.key);
    assert_eq!(lab.digest(&own), Ok([2; 32]));
    lab.sign(&own, &lab.stranger);
    lab.nobodys(&own, &own);
    fs::write(lab.place(&own, Kind::CommitMeta), detached(&[])).unwrap();
    assert!(matches!(lab.digest(&own), Err(SignedError::Signature(_, SignError::Empty))));
    lab.unsign(&own);
    assert_eq!(lab.digest(&own), Ok([1; 32]));
    lab.sign(&base, &lab.stranger);
    lab.nobodys(&own, &base);
}

#[test]
fn no_other_commit_has_such_a_base() {
    let lab = Lab::new();
    let base = lab.commit(None, Some(1), &[]);
    lab.sign(&base, &lab.key);
    lab.unsigned(&lab.commit(Some(&base), Some(2), &[]));
    lab.unsigned(&lab.commit(None, Some(2), &[BOOTC]));
    let bytes = "--add-metadata=ostree.container.image-config=[byte 1]";
    lab.unsigned(&lab.commit(Some(&base), Some(2), &[bytes]));
    // One step down, and no further.
    let middle = lab.commit(Some(&base), Some(2), &[BOOTC]);
    lab.unsigned(&lab.commit(Some(&middle), Some(3), &[BOOTC]));
    // The base vouches for an image, or for none.
    let plain = lab.commit(None, None, &[]);
    lab.sign(&plain, &lab.key);
    let above = lab.commit(Some(&plain), Some(4), &[BOOTC]);
    assert_eq!(lab.digest(&above), Err(SignedError::NoDigest(Checksum::parse(&plain).unwrap())));
    assert_eq!(lab.digest(&middle), Ok([1; 32]));
}

#[test]
fn the_base_must_be_what_its_name_says() {
    let lab = Lab::new();
    let base = lab.commit(None, Some(1), &[]);
    let own = lab.commit(Some(&base), Some(2), &[BOOTC]);
    lab.sign(&base, &lab.key);
    let place = lab.place(&base, Kind::Commit);
    let aside = Path::new(&place).with_extension("aside");
    fs::rename(&place, &aside).unwrap();
    lab.unsigned(&own);
    // Another commit, signed all the same, in the base's place.
    let other = lab.commit(None, Some(3), &[]);
    lab.sign(&other, &lab.key);
    fs::copy(lab.place(&other, Kind::Commit), &place).unwrap();
    fs::copy(lab.place(&other, Kind::CommitMeta), lab.place(&base, Kind::CommitMeta)).unwrap();
    assert_eq!(lab.digest(&own), Err(SignedError::Other(Checksum::parse(&base).unwrap())));
    fs::rename(&aside, &place).unwrap();
    lab.nobodys(&own, &base);
    // So must bootc's own, which says what its base is.
    lab.sign(&base, &lab.key);
    assert_eq!(lab.digest(&own), Ok([1; 32]));
    fs::copy(lab.place(&other, Kind::Commit), lab.place(&own, Kind::Commit)).unwrap();
    assert_eq!(lab.digest(&own), Err(SignedError::Other(Checksum::parse(&own).unwrap())));
}
