//! `bootward keygen` and `sign`, judged by openssl and by the real `ostree`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use bootward::ostree::object::{self, Kind};
use bootward::ostree::sign::{base64, make::Secret};
use bootward::ostree::{Checksum, Keys, variant};

use crate::fixture::ostree;
use crate::sign::Pair;

fn bootward(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bootward")).args(args).output().unwrap()
}

fn ok(args: &[&str]) -> String {
    let out = bootward(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn refused(args: &[&str]) -> String {
    let out = bootward(args);
    assert_eq!(out.status.code(), Some(1), "{args:?}");
    String::from_utf8(out.stderr).unwrap()
}

/// Whether openssl takes a signature of `data` for one of this public key.
fn openssl_verifies(directory: &Path, public: &[u8; 32], data: &[u8], signature: &[u8]) -> bool {
    let file = |name: &str, content: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        path
    };
    // The SubjectPublicKeyInfo of RFC 8410 in front of the key.
    let info =
        [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], &public[..]].concat();
    let (key, data, signature) = (file("k", &info), file("d", data), file("s", signature));
    let mut command = Command::new("openssl");
    command.args(["pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey"]).arg(key);
    command.arg("-in").arg(data).arg("-sigfile").arg(signature).output().unwrap().status.success()
}

fn repo(directory: &Path, mode: &str) -> (String, Checksum) {
    let path = format!("{}/{mode}", directory.display());
    let repo = format!("--repo={path}");
    ostree(&["init", &repo, &format!("--mode={mode}")]);
    let tree = directory.join("tree");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("file"), "x").unwrap();
    let tree = format!("--tree=dir={}", tree.display());
    let name =
        ostree(&["commit", &repo, "-b", "os/stable", &tree, "--add-detached-metadata-string=hello=world"]);
    (path, Checksum::parse(name.trim()).unwrap())
}

fn signatures(repo: &str, commit: &Checksum) -> Vec<Vec<u8>> {
    let path = object::path(commit, Kind::CommitMeta).replace("ostree/repo", repo);
    let metadata = fs::read(path).unwrap();
    let list = variant::lookup(&metadata, "ostree.sign.ed25519", "aay").unwrap();
    variant::array(list, 1).unwrap().map(|s| s.unwrap().to_vec()).collect()
}

#[test]
fn what_is_signed_openssl_verifies_and_ostree_reads() {
    let keep = tempfile::tempdir().unwrap();
    let key = format!("{}/key", keep.path().display());
    let public = ok(&["keygen", "--output", &key]);
    assert_eq!(fs::read_to_string(format!("{key}.pub")).unwrap(), public);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    let raw = base64::decode::<32>(public.trim().as_bytes()).unwrap();
    for mode in ["archive", "bare", "bare-user"] {
        let (repo, commit) = repo(keep.path(), mode);
        let data = fs::read(object::path(&commit, Kind::Commit).replace("ostree/repo", &repo)).unwrap();
        ok(&["sign", "--repo", &repo, "--key", &key, "os/stable"]);
        let [signature] = &signatures(&repo, &commit)[..] else { panic!("{mode}") };
        assert!(openssl_verifies(keep.path(), &raw, &data, signature), "{mode}");
        assert!(!openssl_verifies(keep.path(), &raw, &data[1..], signature), "{mode}");
        // What was there before is there, in libostree's eyes too, and a second signature goes beside the first.
        let show = |name: &str| {
            let key = format!("--print-detached-metadata-key={name}");
            ostree(&["show", &format!("--repo={repo}"), &key, &commit.to_string()])
        };
        let second = format!("{key}-{mode}");
        let json = ok(&["keygen", "--output", &second, "--json"]);
        assert!(json.contains("\"public\":"), "{json}");
        let said = ok(&["sign", "--repo", &repo, "--key", &second, "--json", &commit.to_string()]);
        assert!(said.contains("\"added\":true") && said.contains("\"signatures\":2"), "{said}");
        assert_eq!(show("hello").trim(), "'world'");
        assert_eq!(signatures(&repo, &commit).len(), 2);
        assert!(!show("ostree.sign.ed25519").is_empty());
        ostree(&["fsck", &format!("--repo={repo}")]);
        // Again: nothing changes.
        let path = object::path(&commit, Kind::CommitMeta).replace("ostree/repo", &repo);
        let before = fs::read(&path).unwrap();
        let said = ok(&["sign", "--repo", &repo, "--key", &key, "--json", "os/stable"]);
        assert!(said.contains("\"added\":false"), "{said}");
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(
            fs::read_dir(format!("{repo}/tmp"))
                .unwrap()
                .flatten()
                .filter(|e| e.file_name().to_string_lossy().contains("bootward"))
                .count(),
            0
        );
        // libostree goes on from there.
        let keys = Keys::parse(public.as_bytes()).unwrap();
        let metadata = fs::read(&path).unwrap();
        assert!(keys.verify(data, Some(&metadata)).is_ok());
    }
}

#[test]
fn a_key_of_openssl_signs_the_same() {
    let pair = Pair::new();
    let secret = pair.secret();
    let keep = tempfile::tempdir().unwrap();
    let file = keep.path().join("key");
    fs::write(&file, &secret).unwrap();
    let (repo, commit) = repo(keep.path(), "archive");
    ok(&["sign", "--repo", &repo, "--key", file.to_str().unwrap(), "os/stable"]);
    let data = fs::read(object::path(&commit, Kind::Commit).replace("ostree/repo", &repo)).unwrap();
    assert_eq!(signatures(&repo, &commit), [pair.sign(&data)]);
    assert_eq!(Secret::parse(secret.as_bytes()).unwrap().public(), pair.public);
}

#[test]
fn nothing_is_overwritten_and_nothing_is_signed_by_half() {
    let keep = tempfile::tempdir().unwrap();
    let key = format!("{}/key", keep.path().display());
    ok(&["keygen", "--output", &key]);
    let before = fs::read(&key).unwrap();
    assert!(refused(&["keygen", "--output", &key]).contains("is there already"));
    // As a power cut between the two files leaves it: the public one is written, and no other key made.
    let public = fs::read(format!("{key}.pub")).unwrap();
    fs::remove_file(format!("{key}.pub")).unwrap();
    ok(&["keygen", "--output", &key]);
    assert_eq!((fs::read(&key).unwrap(), fs::read(format!("{key}.pub")).unwrap()), (before.clone(), public));
    fs::remove_file(format!("{key}.pub")).unwrap();
    fs::write(&key, "no key").unwrap();
    assert!(refused(&["keygen", "--output", &key]).contains("is there already"));
    assert_eq!(fs::read(&key).unwrap(), b"no key");
    fs::write(&key, &before).unwrap();
    let (repo, commit) = repo(keep.path(), "archive");
    let sign = |key: &str, name: &str| refused(&["sign", "--repo", &repo, "--key", key, name]);
    for name in ["os/none", "../config", "os//stable", &"0".repeat(64)] {
        sign(&key, name);
    }
    let bad = format!("{key}-bad");
    let text = String::from_utf8(before).unwrap();
    let mut halves = base64::decode::<64>(text.trim().as_bytes()).unwrap();
    halves[40] ^= 1;
    for content in ["", "x", &text[1..], &format!("{text}{text}"), &base64::encode(&halves)] {
        fs::write(&bad, content).unwrap();
        sign(&bad, "os/stable");
    }
    let path = object::path(&commit, Kind::CommitMeta).replace("ostree/repo", &repo);
    fs::write(&path, "damaged").unwrap();
    assert!(sign(&key, "os/stable").contains("normal form"));
    assert_eq!(fs::read(&path).unwrap(), b"damaged");
    let path = object::path(&commit, Kind::Commit).replace("ostree/repo", &repo);
    let mut data = fs::read(&path).unwrap();
    data[100] ^= 1;
    fs::write(&path, data).unwrap();
    assert!(sign(&key, "os/stable").contains("damaged"));
}
