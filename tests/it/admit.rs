//! What may be installed: commits of the real `ostree`, signed by openssl's keys, and the attacks of TUF and Uptane on them.

use std::fs;

use bootward::ostree::admit::{Admitted, Age, Policy, Refusal, Trust, Warning};
use bootward::ostree::keyring::{self, KeyringError, Source};
use bootward::ostree::mark::{Disorder, Mark};
use bootward::ostree::object::{self, Kind};
use bootward::ostree::sign::{Gathering, KeysError, SignError, base64};
use bootward::ostree::{Checksum, Keys};

use crate::fixture::ostree;
use crate::sign::{Pair, detached};

struct Publisher {
    keep: tempfile::TempDir,
    key: Pair,
    second: Pair,
}

#[derive(Clone)]
struct Release {
    name: Checksum,
    commit: Vec<u8>,
}

impl Publisher {
    fn new() -> Publisher {
        let keep = tempfile::tempdir().unwrap();
        fs::create_dir(keep.path().join("tree")).unwrap();
        ostree(&["init", &format!("--repo={}/repo", keep.path().display()), "--mode=archive"]);
        Publisher { keep, key: Pair::new(), second: Pair::new() }
    }

    fn commit(&self, options: &[&str]) -> Release {
        let at = self.keep.path().display();
        let (repo, tree) = (format!("--repo={at}/repo"), format!("--tree=dir={at}/tree"));
        let mut all = vec!["commit", &repo, &tree];
        if !options.contains(&"--orphan") {
            all.extend(["-b", "os/stable"]);
        }
        all.extend(options);
        let name = Checksum::parse(ostree(&all).trim()).unwrap();
        let path = object::path(&name, Kind::Commit).replace("ostree/repo", "repo");
        Release { name, commit: fs::read(self.keep.path().join(path)).unwrap() }
    }

    fn numbered(&self, serial: u64) -> Release {
        self.commit(&["--timestamp=@0", &format!("--add-metadata=bootward.serial=uint64 {serial}")])
    }

    fn signed(&self, release: &Release) -> Vec<u8> {
        detached(&[self.key.sign(&release.commit)])
    }

    fn keys(&self) -> Keys {
        Keys::parse(self.key.public.as_bytes()).unwrap()
    }

    fn admit(&self, policy: &Policy<'_>, release: &Release) -> Result<Admitted, Refusal> {
        policy.admit(&release.name, release.commit.clone(), Some(&self.signed(release)))
    }
}

const NONE: Mark = Mark { serial: None, time: 0, version: None };

fn numbered(serial: u64) -> Mark {
    Mark { serial: Some(serial), ..NONE }
}

#[test]
fn attack_arbitrary_install() {
    let publisher = Publisher::new();
    let (release, keys) = (publisher.numbered(1), publisher.keys());
    let policy = Policy::new(Trust::Ed25519(&keys), &NONE);
    assert_eq!(publisher.admit(&policy, &release).map(|a| a.mark), Ok(numbered(1)));
    let stranger = detached(&[publisher.second.sign(&release.commit)]);
    let refused = policy.admit(&release.name, release.commit.clone(), Some(&stranger));
    assert!(matches!(refused, Err(Refusal::Signature(SignError::NoneValid { .. }))), "{refused:?}");
    let refused = policy.admit(&release.name, release.commit.clone(), None);
    assert_eq!(refused, Err(Refusal::Signature(SignError::NoMetadata)));
}

#[test]
fn attack_another_commit_under_the_name_that_was_asked_for() {
    let publisher = Publisher::new();
    let (one, other, keys) = (publisher.numbered(1), publisher.numbered(2), publisher.keys());
    let policy = Policy::new(Trust::Ed25519(&keys), &NONE);
    let refused = policy.admit(&one.name, other.commit.clone(), Some(&publisher.signed(&other)));
    assert_eq!(refused, Err(Refusal::Other { asked: one.name, got: other.name }));
    // One commit with another's signature.
    let refused = policy.admit(&one.name, one.commit.clone(), Some(&publisher.signed(&other)));
    assert!(matches!(refused, Err(Refusal::Signature(_))));
}

#[test]
fn attack_rollback() {
    let publisher = Publisher::new();
    let keys = publisher.keys();
    let (old, new) = (publisher.numbered(6), publisher.numbered(8));
    let floor = numbered(7);
    let policy = Policy::new(Trust::Ed25519(&keys), &floor);
    assert!(publisher.admit(&policy, &new).is_ok());
    let older = Disorder::Serial(6, 7);
    assert_eq!(publisher.admit(&policy, &old), Err(Refusal::Disorder(older.clone())));
    // Without numbers: the time, then the version.
    let dated = |time: &str, version: &str| {
        publisher
            .commit(&[&format!("--timestamp=@{time}"), &format!("--add-metadata-string=version={version}")])
    };
    assert_eq!(publisher.admit(&policy, &dated("99", "9")), Err(Refusal::Disorder(Disorder::NoSerial(7))));
    let floor = Mark { serial: None, time: 50, version: Some("1.10".into()) };
    let by_time = Policy { floor: &floor, ..policy.clone() };
    assert_eq!(publisher.admit(&by_time, &dated("49", "9")), Err(Refusal::Disorder(Disorder::Time(49, 50))));
    assert!(matches!(
        publisher.admit(&by_time, &dated("50", "1.9")),
        Err(Refusal::Disorder(Disorder::Version(..)))
    ));
    assert!(publisher.admit(&by_time, &dated("50", "1.11")).is_ok());
    // An operator may want this one, and no other.
    let wanted = Policy { exception: Some(old.name), ..policy.clone() };
    assert_eq!(publisher.admit(&wanted, &old).unwrap().warnings, [Warning::Exception(older)]);
    assert!(publisher.admit(&wanted, &publisher.numbered(5)).is_err());
    // A number of another type is no number.
    let text = publisher.commit(&["--add-metadata-string=bootward.serial=9"]);
    assert!(matches!(publisher.admit(&policy, &text), Err(Refusal::Mistyped(_))));
}

#[test]
fn attack_fast_forward() {
    let publisher = Publisher::new();
    let keys = publisher.keys();
    let floor = numbered(7);
    let policy = Policy::new(Trust::Ed25519(&keys), &floor);
    let last = publisher.numbered(u64::MAX);
    let ahead = Err(Refusal::Disorder(Disorder::SerialAhead(u64::MAX, 7)));
    assert_eq!(publisher.admit(&policy, &last), ahead);
    let late = publisher.commit(&["--timestamp=@4000000000", "--add-metadata=bootward.serial=uint64 8"]);
    assert!(matches!(
        publisher.admit(&policy, &late),
        Err(Refusal::Disorder(Disorder::TimeAhead(4_000_000_000, 0)))
    ));
    // Even where an operator insisted, what follows is still taken.
    let insisted = Policy { exception: Some(last.name), ..policy.clone() };
    let floor = floor.raised(&publisher.admit(&insisted, &last).unwrap().mark);
    let policy = Policy { floor: &floor, ..policy };
    assert!(publisher.admit(&policy, &publisher.numbered(8)).is_ok());
}

#[test]
fn attack_freeze() {
    let publisher = Publisher::new();
    let keys = publisher.keys();
    let release = publisher.commit(&["--timestamp=@1700000000"]);
    let age = Age { now: Some(1_700_000_000 + 90 * 86_400), limit: Some(60 * 86_400), strict: false };
    let policy = Policy { age, ..Policy::new(Trust::Ed25519(&keys), &NONE) };
    assert_eq!(publisher.admit(&policy, &release).unwrap().warnings, [Warning::Stale(90 * 86_400)]);
    let strict = Policy { age: Age { strict: true, ..age }, ..policy.clone() };
    assert_eq!(publisher.admit(&strict, &release), Err(Refusal::Stale(90 * 86_400)));
    // Without a clock, or a date, there is nothing to tell.
    let unknown = Policy { age: Age { now: None, ..age }, ..strict.clone() };
    assert_eq!(publisher.admit(&unknown, &release).unwrap().warnings, []);
    assert_eq!(publisher.admit(&strict, &publisher.numbered(1)).unwrap().warnings, []);
}

#[test]
fn attack_mix_and_match_of_refs_and_collections() {
    let publisher = Publisher::new();
    let keys = publisher.keys();
    let base = Policy::new(Trust::Ed25519(&keys), &NONE);
    let asked = |reference| Policy { reference: Some(reference), ..base.clone() };
    let several = publisher.commit(&["--bind-ref=os/stable-2", "--bind-ref=os/testing"]);
    for good in ["os/stable", "os/stable-2", "os/testing"] {
        assert!(publisher.admit(&asked(good), &several).is_ok(), "{good}");
    }
    for bad in ["os", "os/stable/", "os/stabl", "os/stable-3", ""] {
        assert_eq!(publisher.admit(&asked(bad), &several), Err(Refusal::Ref(bad.into())));
    }
    let empty = publisher.commit(&["--orphan"]);
    assert_eq!(
        publisher.admit(&asked("os/stable"), &empty),
        Err(Refusal::Ref("os/stable".into())),
        "libostree binds an orphan to no ref"
    );
    let unbound = publisher.commit(&["--no-bindings"]);
    let refused = Err(Refusal::Unbound("os/stable".into()));
    assert_eq!(publisher.admit(&asked("os/stable"), &unbound), refused);
    let lenient = Policy { unbound: true, ..asked("os/stable") };
    assert_eq!(publisher.admit(&lenient, &unbound).unwrap().warnings, [Warning::Unbound]);
    assert!(publisher.admit(&Policy { reference: Some("x"), ..lenient.clone() }, &several).is_err());
    let typed = publisher.commit(&["--no-bindings", "--add-metadata-string=ostree.ref-binding=os/stable"]);
    assert!(matches!(publisher.admit(&lenient, &typed), Err(Refusal::Mistyped(_))));

    let collection = Policy { collection: Some("org.example.Os"), ..base.clone() };
    assert!(matches!(publisher.admit(&collection, &several), Err(Refusal::Collection { bound: None, .. })));
    let bind = |name| publisher.commit(&[&format!("--add-metadata-string=ostree.collection-binding={name}")]);
    assert!(publisher.admit(&collection, &bind("org.example.Os")).is_ok());
    assert!(matches!(
        publisher.admit(&collection, &bind("org.example.Other")),
        Err(Refusal::Collection { bound: Some(_), .. })
    ));
}

#[test]
fn attack_wrong_hardware() {
    let publisher = Publisher::new();
    let keys = publisher.keys();
    let base = Policy::new(Trust::Ed25519(&keys), &NONE);
    let here = Policy { compatible: Some("acme,gate-2"), ..base.clone() };
    let made = |names: &str| publisher.commit(&[&format!("--add-metadata=bootward.compatible={names}")]);
    let both = made("['acme,gate-1', 'acme,gate-2']");
    assert!(publisher.admit(&here, &both).is_ok());
    for names in ["['acme,gate-1']", "['acme,gate-22']", "@as []"] {
        assert!(matches!(publisher.admit(&here, &made(names)), Err(Refusal::Hardware { .. })), "{names}");
    }
    assert!(matches!(publisher.admit(&here, &made("'acme,gate-2'")), Err(Refusal::Mistyped(_))));
    let silent = publisher.numbered(1);
    assert!(matches!(publisher.admit(&here, &silent), Err(Refusal::Hardware { made_for: None, .. })));
    assert_eq!(publisher.admit(&base, &both).unwrap().warnings, [Warning::Hardware("acme,gate-1".into())]);
}

#[test]
fn attack_key_compromise_below_the_threshold() {
    let publisher = Publisher::new();
    let release = publisher.numbered(1);
    let mut all = Gathering::default();
    // The first key is there twice: it is one key all the same.
    let text = format!("{0}\n{0}\n{1}\n", publisher.key.public, publisher.second.public);
    all.trust(text.as_bytes()).unwrap();
    let keys = all.clone().keys(2).unwrap();
    let policy = Policy::new(Trust::Ed25519(&keys), &NONE);
    let (one, two) = (publisher.key.sign(&release.commit), publisher.second.sign(&release.commit));
    let admit = |signatures: &[Vec<u8>]| {
        policy
            .admit(&release.name, release.commit.clone(), Some(&detached(signatures)))
            .map(|a| a.commit.signers().to_vec())
    };
    let few = Err(Refusal::Signature(SignError::Threshold { valid: 1, wanted: 2 }));
    assert_eq!(admit(std::slice::from_ref(&one)), few);
    assert_eq!(admit(&[one.clone(), one.clone(), one.clone()]), few, "a signature twice");
    assert_eq!(admit(&[one, two]), Ok(vec![0, 2]));
    assert_eq!(all.keys(3), Err(KeysError::Threshold { wanted: 3, keys: 2 }));
}

#[test]
fn attack_revoked_key() {
    let publisher = Publisher::new();
    let release = publisher.numbered(1);
    let mut all = Gathering::default();
    all.trust(format!("{}\n{}\n", publisher.key.public, publisher.second.public).as_bytes()).unwrap();
    all.revoke(publisher.key.public.as_bytes()).unwrap();
    let keys = all.keys(1).unwrap();
    let policy = Policy::new(Trust::Ed25519(&keys), &NONE);
    assert_eq!(publisher.admit(&policy, &release), Err(Refusal::Signature(SignError::Revoked(0))));
    let both = detached(&[publisher.key.sign(&release.commit), publisher.second.sign(&release.commit)]);
    let admitted = policy.admit(&release.name, release.commit.clone(), Some(&both)).unwrap();
    assert_eq!(admitted.commit.key(), 1);
}

/// Encodings of the points of small order, canonical and not.
fn small_order() -> Vec<[u8; 32]> {
    let hex = |text: &str| Checksum::parse(text).unwrap().0;
    let filled = |first: u8, rest: u8, last: u8| {
        let mut point = [rest; 32];
        (point[0], point[31]) = (first, last);
        point
    };
    let eight = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
    let other = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    let mut all = vec![hex(eight), hex(other)];
    all.extend([(0, 0, 0), (1, 0, 0)].map(|(a, b, c)| filled(a, b, c)));
    all.extend([0xec, 0xed, 0xee].map(|first| filled(first, 0xff, 0x7f)));
    let signed: Vec<[u8; 32]> = all.iter().map(|p| filled_sign(*p)).collect();
    all.extend(signed);
    all
}

fn filled_sign(mut point: [u8; 32]) -> [u8; 32] {
    point[31] |= 0x80;
    point
}

/// G20: nothing that is less than a whole key and a whole signature is taken for one.
#[test]
fn degenerate_keys_and_signatures() {
    let publisher = Publisher::new();
    let release = publisher.numbered(1);
    let key = publisher.key.public.as_str();
    let good = publisher.key.sign(&release.commit);
    let mut cases = 0;
    // Files of keys.
    let mut files: Vec<Vec<u8>> =
        ["", "\n", " \n\t\r\n", "\0", "=", "AAAA", "#", "# none", "{}", "null", "\u{feff}"]
            .map(|text| text.as_bytes().to_vec())
            .to_vec();
    for text in
        [&key[1..], &key[..43], &key[..1], &format!("{key}="), &format!("A{key}"), &format!("{key} {key}")]
    {
        files.push(text.as_bytes().to_vec());
        files.push(format!("{key}\n{text}\n").into_bytes());
    }
    files.extend([key.replace('=', "").into_bytes(), key.repeat(2).into_bytes(), vec![0xff; 44]]);
    files.push(base64::encode(&[1; 64]).into_bytes());
    for point in small_order() {
        files.push(base64::encode(&point).into_bytes());
        files.push(format!("{key}\n{}\n", base64::encode(&point)).into_bytes());
    }
    for file in &files {
        assert!(Keys::parse(file).is_err(), "{:?}", String::from_utf8_lossy(file));
        cases += 1;
    }
    // Signatures, and what they are in.
    let keys = publisher.keys();
    let policy = Policy::new(Trust::Ed25519(&keys), &NONE);
    let mut metadata: Vec<Option<Vec<u8>>> =
        vec![None, Some(vec![]), Some(vec![0]), Some(b"garbage".to_vec())];
    metadata.push(Some(detached(&[])));
    for length in [0, 1, 31, 32, 33, 63] {
        metadata.push(Some(detached(&[good[..length].to_vec()])));
        metadata.push(Some(detached(&[good[..length].to_vec(), vec![], good[..length].to_vec()])));
    }
    for extra in [1, 32, 64] {
        metadata.push(Some(detached(&[[&good[..], &vec![0; extra]].concat()])));
        metadata.push(Some(detached(&[[&vec![0; extra], &good[..]].concat()])));
    }
    for r in small_order() {
        for s in [[0; 32], [0xff; 32], good[32..].try_into().unwrap()] {
            metadata.push(Some(detached(&[[r, s].concat()])));
        }
    }
    let whole = detached(std::slice::from_ref(&good));
    metadata.extend((0..whole.len()).map(|length| Some(whole[..length].to_vec())));
    for metadata in &metadata {
        assert!(
            policy.admit(&release.name, release.commit.clone(), metadata.as_deref()).is_err(),
            "{metadata:?}"
        );
        cases += 1;
    }
    assert!(policy.admit(&release.name, release.commit.clone(), Some(&whole)).is_ok());
    println!("degenerate keys and signatures: {cases}, accepted: 0");
    assert!(cases > 64);
}

/// Files as libostree lays them out, and what is wrong with one of them is never passed over.
#[test]
fn keys_in_libostrees_layout() {
    let keep = tempfile::tempdir().unwrap();
    let (etc, usr) = (keep.path().join("etc/ostree"), keep.path().join("usr/share/ostree"));
    let layout = [Source::Layout(etc.clone()), Source::Layout(usr.clone())];
    assert_eq!(keyring::keys(&layout, 1), Err(KeyringError::Together(KeysError::Empty)));
    fs::create_dir_all(etc.join("revoked.ed25519.d")).unwrap();
    fs::create_dir_all(usr.join("trusted.ed25519.d")).unwrap();
    assert_eq!(keyring::keys(&layout, 1), Err(KeyringError::Together(KeysError::Empty)));
    let (one, other, third) = (Pair::new(), Pair::new(), Pair::new());
    fs::write(etc.join("trusted.ed25519"), &one.public).unwrap();
    fs::write(usr.join("trusted.ed25519.d/other"), format!("{}\n{}\n", other.public, one.public)).unwrap();
    fs::write(usr.join("trusted.ed25519.d/third"), &third.public).unwrap();
    assert_eq!(keyring::keys(&layout, 3).unwrap().count(), 4);
    assert!(keyring::keys(&layout, 4).is_err());
    let revoked = etc.join("revoked.ed25519.d/one");
    fs::write(&revoked, &one.public).unwrap();
    let publisher = Publisher::new();
    let release = publisher.numbered(1);
    let keys = keyring::keys(&layout, 1).unwrap();
    let verify =
        |pair: &Pair| keys.verify(release.commit.clone(), Some(&detached(&[pair.sign(&release.commit)])));
    assert_eq!(verify(&one).map(|v| v.key()), Err(SignError::Revoked(0)));
    assert_eq!(verify(&other).map(|v| v.key()), Ok(1));
    assert_eq!(verify(&third).map(|v| v.key()), Ok(3));
    let usable = keyring::keys(&[Source::Directory(usr.join("trusted.ed25519.d"))], 3);
    assert_eq!(usable.map(|keys| keys.count()), Ok(3));
    assert!(keyring::keys(&[Source::File(etc.join("nothing"))], 1).is_err());
    for damage in ["", "not a key", &one.public[1..]] {
        fs::write(&revoked, damage).unwrap();
        assert!(matches!(keyring::keys(&layout, 1), Err(KeyringError::Content(..))), "{damage}");
    }
    fs::remove_file(&revoked).unwrap();
    std::os::unix::fs::symlink("/nowhere", &revoked).unwrap();
    assert!(matches!(keyring::keys(&layout, 1), Err(KeyringError::Unreadable(..))));
    fs::remove_file(&revoked).unwrap();
    fs::create_dir(&revoked).unwrap();
    assert!(matches!(keyring::keys(&layout, 1), Err(KeyringError::Unreadable(..))));
}

#[test]
fn versions_are_in_dpkgs_order() {
    let mut all: Vec<String> = vec![];
    let mut random = 12_345u32;
    let mut next = |n: u32| {
        random = random.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        (random >> 16) % n
    };
    for _ in 0..150 {
        let length = next(6);
        let tail: String = (0..length).map(|_| char::from(b"0019aZ.+~~"[next(10) as usize])).collect();
        all.push(format!("1{tail}"));
    }
    for pair in all.windows(2) {
        let older = std::process::Command::new("dpkg")
            .args(["--compare-versions", &pair[0], "lt", &pair[1]])
            .status()
            .unwrap()
            .success();
        let ours = bootward::ostree::version::compare(&pair[0], &pair[1]);
        assert_eq!(ours.is_lt(), older, "{pair:?}");
    }
}
