//! OpenPGP signatures: what the real `ostree` and `gpg` sign is believed where libostree believes it, and nothing else is.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::type_complexity,
    reason = "how a test fails; clippy knows this of #[test] functions only"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bootward::ostree::keyring::{self, KeyringError, Source, Trusted};
use bootward::ostree::object::{self, Kind};
use bootward::ostree::sign::gpg::{Fault, GpgError, Ring, RingError, is_ring};
use bootward::ostree::sign::{MAX_SIGNATURES, SignError, VerifiedCommit};
use bootward::ostree::{Checksum, emit};

/// A publisher with keys of gpg in a home of its own, and a repository with one commit.
struct Lab {
    keep: tempfile::TempDir,
    name: Checksum,
    commit: Vec<u8>,
}

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn run(command: &mut Command) -> Vec<u8> {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", text(&out));
    out.stdout
}

fn ostree(arguments: &[&str]) -> String {
    String::from_utf8(run(Command::new("ostree").args(arguments))).unwrap()
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").env("GNUPGHOME", self.home()).args(["--kill", "gpg-agent"]).output();
    }
}

impl Lab {
    fn new() -> Lab {
        // A short path: the agent's socket is in it.
        let keep = tempfile::Builder::new().prefix("bw").tempdir_in("/tmp").unwrap();
        let mut lab = Lab { keep, name: Checksum([0; 32]), commit: Vec::new() };
        fs::create_dir(lab.home()).unwrap();
        run(Command::new("chmod").arg("700").arg(lab.home()));
        fs::create_dir(lab.path("tree")).unwrap();
        fs::write(lab.path("tree/file"), "1").unwrap();
        ostree(&["init", &lab.repo(), "--mode=archive"]);
        let tree = format!("--tree=dir={}", lab.path("tree").display());
        let made = ostree(&["commit", &lab.repo(), "-b", "os/stable", &tree]);
        lab.name = Checksum::parse(made.trim()).unwrap();
        lab.commit = fs::read(lab.object(Kind::Commit)).unwrap();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.keep.path().join(name)
    }

    fn home(&self) -> PathBuf {
        self.path("home")
    }

    fn repo(&self) -> String {
        format!("--repo={}", self.path("repo").display())
    }

    fn object(&self, kind: Kind) -> PathBuf {
        self.path(&object::path(&self.name, kind).replace("ostree/repo", "repo"))
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let mut gpg = Command::new("gpg");
        gpg.env("GNUPGHOME", self.home());
        gpg.args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""]);
        run(gpg.args(["--no-auto-check-trustdb", "--allow-weak-digest-algos"]).args(arguments))
    }

    /// A new key; its fingerprint, and those of its subkeys.
    fn key(&self, name: &str, arguments: &[&str], options: &[&str]) -> String {
        self.gpg(&[options, &["--quick-gen-key", name], arguments].concat());
        self.prints(name)[0].clone()
    }

    fn prints(&self, name: &str) -> Vec<String> {
        let list = self.gpg(&["--with-colons", "--list-keys", name]);
        let list = String::from_utf8(list).unwrap();
        let prints = list.lines().filter_map(|line| line.strip_prefix("fpr:::::::::"));
        prints.map(|print| print.trim_end_matches(':').to_string()).collect()
    }

    fn subkey(&self, key: &str, arguments: &[&str], options: &[&str]) -> String {
        self.gpg(&[options, &["--quick-add-key", key], arguments].concat());
        self.prints(key).pop().unwrap()
    }

    fn export(&self, key: &str) -> Vec<u8> {
        self.gpg(&["--export", key])
    }

    /// A signature of the commit by exactly this key.
    fn sign(&self, key: &str, options: &[&str]) -> Vec<u8> {
        let data = self.object(Kind::Commit);
        let user = format!("{key}!");
        let order = ["--local-user", &user, "--output", "-", "--detach-sign", data.to_str().unwrap()];
        self.gpg(&[options, &order].concat())
    }

    /// The answer of `ostree pull` from the repository with these signatures, and a remote that trusts the keyring.
    fn libostree(&self, signatures: &[Vec<u8>], ring: &[u8]) -> Result<(), String> {
        let metadata = self.object(Kind::CommitMeta);
        fs::write(&metadata, detached(signatures)).unwrap();
        let device = tempfile::tempdir_in(self.keep.path()).unwrap();
        let (repo, keys) =
            (format!("--repo={}", device.path().join("r").display()), device.path().join("keys"));
        fs::write(&keys, ring).unwrap();
        ostree(&["init", &repo, "--mode=archive"]);
        let import = format!("--gpg-import={}", keys.display());
        let url = format!("file://{}", self.path("repo").display());
        ostree(&["remote", "add", &repo, &import, "--set=gpg-verify-summary=false", "o", &url]);
        let out = Command::new("ostree").args(["pull", &repo, "o", "os/stable"]).output().unwrap();
        fs::remove_file(metadata).unwrap();
        if out.status.success() { Ok(()) } else { Err(text(&out)) }
    }

    fn ours(
        &self,
        signatures: &[Vec<u8>],
        ring: &[u8],
        now: Option<u64>,
    ) -> Result<VerifiedCommit, SignError> {
        let ring = Ring::read(&[ring], 1).unwrap();
        ring.verify(self.commit.clone(), Some(&detached(signatures)), now)
    }
}

fn detached(signatures: &[Vec<u8>]) -> Vec<u8> {
    let list: Vec<&[u8]> = signatures.iter().map(Vec::as_slice).collect();
    let list = emit::variant("aay", &emit::array(1, &list));
    emit::dictionary(vec![("ostree.gpgsigs", &list[..])])
}

fn clock() -> Option<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Some(now.as_secs())
}

/// Long before any key here, in gpg's words and in seconds.
const THEN: &str = "--faked-system-time=20200101T000000!";
const A_DAY_AFTER_THEN: u64 = 1_577_836_800 + 86_400;

#[test]
fn what_ostree_signs_is_believed() {
    let lab = Lab::new();
    let home = format!("--gpg-homedir={}", lab.home().display());
    for algorithm in ["ed25519", "rsa2048", "rsa4096", "nistp256", "nistp384", "nistp521"] {
        let key = lab.key(&format!("{algorithm} <k@example.com>"), &[algorithm, "sign", "never"], &[]);
        ostree(&["gpg-sign", &lab.repo(), &home, lab.name.to_string().as_str(), &key]);
        let metadata = fs::read(lab.object(Kind::CommitMeta)).unwrap();
        let ring = Ring::read(&[&lab.export(&key)], 1).unwrap();
        for now in [None, clock()] {
            let verified = ring.verify(lab.commit.clone(), Some(&metadata), now);
            assert_eq!(verified.map(|v| v.commit().checksum()), Ok(lab.name), "{algorithm}");
        }
        // The list has one more each time.
        let mut changed = lab.commit.clone();
        changed.pop();
        assert!(ring.verify(changed, Some(&metadata), None).is_err());
    }
}

#[test]
fn keyrings_are_read_as_libostree_lays_them_out() {
    let lab = Lab::new();
    let one = lab.key("one", &["ed25519", "sign", "never"], &[]);
    let two = lab.key("two", &["rsa2048", "sign", "never"], &[]);
    // What libostree imports: with gpg's own packets between the others.
    let sysroot = lab.path("device");
    let repo = format!("--repo={}", sysroot.display());
    ostree(&["init", &repo, "--mode=bare"]);
    fs::write(lab.path("one.gpg"), lab.export(&one)).unwrap();
    let armor = lab.gpg(&["--armor", "--export", &two]);
    fs::write(lab.path("two.asc"), &armor).unwrap();
    let import = format!("--gpg-import={}", lab.path("one.gpg").display());
    ostree(&["remote", "add", &repo, &import, "o", "http://example.com"]);
    let import = format!("--keyring={}", lab.path("two.asc").display());
    ostree(&["remote", "gpg-import", &repo, &import, "o"]);
    let global = lab.path("trusted.gpg.d");
    let places = keyring::gpg_places(&sysroot, Some("o"), &global).unwrap();
    assert_eq!(places, [Source::File(sysroot.join("o.trustedkeys.gpg"))]);
    let Ok(Trusted::Gpg(ring)) = keyring::trusted(&places, 2) else { panic!("no keyring") };
    assert_eq!(ring.count(), 2);
    let both = [lab.sign(&one, &[]), lab.sign(&two, &[])];
    let verify = |signatures: &[Vec<u8>]| ring.verify(lab.commit.clone(), Some(&detached(signatures)), None);
    assert_eq!(verify(&both).map(|v| v.signers().len()), Ok(2));
    assert_eq!(verify(&[both.concat()]).map(|v| v.signers().len()), Ok(2), "two in one entry");
    let twice = [both[0].clone(), both[0].clone()];
    assert_eq!(verify(&twice), Err(SignError::Threshold { valid: 1, wanted: 2 }));
    // The places of all remotes.
    assert_eq!(keyring::gpg_places(&sysroot, Some("other"), &global), Ok(vec![]));
    fs::create_dir(&global).unwrap();
    fs::copy(lab.path("one.gpg"), global.join("a.gpg")).unwrap();
    fs::write(global.join("README"), "no key").unwrap();
    let places = keyring::gpg_places(&sysroot, None, &global).unwrap();
    assert_eq!(places, [Source::File(global.join("a.gpg"))]);
    assert!(matches!(keyring::trusted(&places, 1), Ok(Trusted::Gpg(_))));
    assert_eq!(
        keyring::trusted(&places, 2),
        Err(KeyringError::Rings(RingError::Threshold { wanted: 2, keys: 1 }))
    );
    // Keys of both kinds would let the weaker one decide.
    fs::write(lab.path("ed"), "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n").unwrap();
    let mixed = [Source::File(lab.path("ed")), Source::File(lab.path("one.gpg"))];
    assert_eq!(keyring::trusted(&mixed, 1), Err(KeyringError::Mixed));
    let layout = [Source::Layout(lab.path("etc")), Source::File(lab.path("one.gpg"))];
    assert_eq!(keyring::trusted(&layout, 1), Err(KeyringError::Mixed));
    assert!(matches!(keyring::trusted(&mixed[..1], 1), Ok(Trusted::Ed25519(_))));
    degenerate_keyrings(&lab, &one, &armor);
}

fn degenerate_keyrings(lab: &Lab, key: &str, armor: &[u8]) {
    let good = lab.export(key);
    let secret = lab.gpg(&["--export-secret-keys", key]);
    let keybox = fs::read(lab.home().join("pubring.kbx")).unwrap();
    let signature = lab.sign(key, &[]);
    let table: [(&str, &[u8], RingError); 10] = [
        ("empty", b"", RingError::Empty),
        ("blank", b" \n\n", RingError::Empty),
        ("text", b"no key\n", RingError::Form),
        ("zeros", &[0; 64], RingError::Form),
        ("cut", &good[..good.len() - 1], RingError::Form),
        ("cut armor", &armor[..armor.len() / 2], RingError::Form),
        ("secret key", &secret, RingError::Form),
        ("signature", &signature, RingError::Form),
        ("keybox", &keybox, RingError::Keybox),
        ("too long", &[0x99; 1024 * 1024 + 1], RingError::TooLong),
    ];
    for (case, data, fault) in table {
        assert_eq!(Ring::read(&[data], 1).map(drop), Err(fault), "{case}");
        assert_eq!(Ring::read(&[&good, data], 1).map(drop), Err(fault), "{case} beside a good one");
    }
    assert_eq!(Ring::read(&[], 1).map(drop), Err(RingError::Empty));
    assert_eq!(Ring::read(&[&good, &good], 1).map(|ring| ring.count()), Ok(1));
    assert_eq!(Ring::read(&[&good], 0).map(drop), Err(RingError::Threshold { wanted: 0, keys: 1 }));
    assert!(
        is_ring(&good)
            && is_ring(armor)
            && is_ring(&keybox)
            && !is_ring(b"11qYAYKxCrfVS/7T\n")
            && !is_ring(b"")
    );
    // All but the low byte of a number's count of bits, which is in the number itself besides.
    for at in (0..good.len()).filter(|at| *at != 19) {
        let mut changed = good.clone();
        changed[at] ^= 1;
        // Whatever it is then, it is not a key that made the signature, or says the same.
        if let Ok(ring) = Ring::read(&[&changed], 1) {
            let verified =
                ring.verify(lab.commit.clone(), Some(&detached(std::slice::from_ref(&signature))), None);
            assert!(verified.is_err() || same_key(&changed, &good), "byte {at}");
        }
    }
}

/// Whether the key packet itself is unchanged: the rest of a certificate may have parts that nobody asks for.
fn same_key(one: &[u8], other: &[u8]) -> bool {
    let length = 2 + usize::from(other[1]);
    one[..length] == other[..length]
}

#[test]
fn what_is_wrong_with_keys_and_signatures() {
    let lab = Lab::new();
    let good = lab.key("good", &["ed25519", "sign", "never"], &[]);
    let stranger = lab.key("stranger", &["ed25519", "sign", "never"], &[]);
    let expired = lab.key("expired", &["ed25519", "sign", "2d"], &[THEN]);
    let certifying = lab.key("certifying", &["ed25519", "cert", "never"], &[]);
    let with_subkey = lab.subkey(&certifying, &["ed25519", "sign", "never"], &[]);
    let old = lab.key("old subkey", &["ed25519", "cert", "never"], &[THEN]);
    let expired_subkey = lab.subkey(&old, &["ed25519", "sign", "2d"], &[THEN]);
    let small = lab.key("small", &["rsa1024", "sign", "never"], &[]);
    let dsa = lab.key("dsa", &["dsa2048", "sign", "never"], &[]);
    let revoked = lab.key("revoked", &["ed25519", "sign", "never"], &[]);
    let before = lab.sign(&revoked, &[]);
    revoke(&lab, &revoked);
    let all = [&good, &expired, &certifying, &old, &small, &dsa, &revoked];
    let ring: Vec<u8> = all.iter().flat_map(|key| lab.export(key)).collect();

    let fine = lab.sign(&good, &[]);
    let past = [THEN];
    let none = |signatures, fault| Err(SignError::Gpg(GpgError::NoneValid { signatures, fault }));
    let other = {
        let data = lab.path("other");
        fs::write(&data, "another text").unwrap();
        lab.gpg(&["--local-user", &good, "--output", "-", "--detach-sign", data.to_str().unwrap()])
    };
    let flipped = |at: usize| {
        let mut changed = fine.clone();
        changed[at] ^= 1;
        changed
    };
    type Answer = Result<(), SignError>;
    // Whether libostree believes it is the last column, where it can be asked and is not stricter or laxer by intent.
    let table: Vec<(&str, Vec<Vec<u8>>, Answer, Option<bool>)> = vec![
        ("good", vec![fine.clone()], Ok(()), Some(true)),
        ("subkey", vec![lab.sign(&with_subkey, &[])], Ok(()), Some(true)),
        ("good after garbage", vec![vec![1, 2, 3], fine.clone()], Ok(()), None),
        ("good after a stranger's", vec![lab.sign(&stranger, &[]), fine.clone()], Ok(()), Some(true)),
        ("stranger", vec![lab.sign(&stranger, &[])], none(1, Fault::Stranger), Some(false)),
        ("another text", vec![other], none(1, Fault::Stranger), Some(false)),
        ("expired key", vec![lab.sign(&expired, &past)], none(1, Fault::KeyExpired), Some(false)),
        ("expired subkey", vec![lab.sign(&expired_subkey, &past)], none(1, Fault::KeyExpired), Some(false)),
        ("revoked key", vec![before], none(1, Fault::Revoked), Some(false)),
        (
            "expired signature",
            vec![lab.sign(&good, &["--faked-system-time=20990101T000000!", "--default-sig-expire=1d"])],
            none(1, Fault::SignatureExpired),
            None,
        ),
        ("SHA-1", vec![lab.sign(&good, &["--digest-algo", "SHA1"])], none(1, Fault::Weak), None),
        ("small key", vec![lab.sign(&small, &[])], none(1, Fault::Weak), None),
        ("DSA", vec![lab.sign(&dsa, &[])], none(1, Fault::Weak), None),
        ("of text", vec![lab.sign(&good, &["--textmode"])], none(1, Fault::Malformed), None),
        (
            "critical notation",
            vec![lab.sign(&good, &["--sig-notation", "!x@example.com=1"])],
            none(1, Fault::Critical),
            Some(false),
        ),
        ("plain notation", vec![lab.sign(&good, &["--sig-notation", "x@example.com=1"])], Ok(()), Some(true)),
        ("armored", vec![lab.sign(&good, &["--armor"])], none(1, Fault::Malformed), None),
        ("no bytes", vec![vec![]], none(1, Fault::Malformed), None),
        ("cut", vec![fine[..fine.len() - 1].to_vec()], none(1, Fault::Malformed), Some(false)),
        ("zeros", vec![vec![0; 64]], none(1, Fault::Malformed), Some(false)),
        ("too long", vec![vec![0x88; 20_000]], none(1, Fault::Malformed), Some(false)),
        ("a certificate", vec![lab.export(&good)], none(1, Fault::Malformed), Some(false)),
        ("none", vec![], Err(SignError::Gpg(GpgError::Empty)), Some(false)),
        (
            "too many",
            vec![fine.clone(); MAX_SIGNATURES + 1],
            Err(SignError::TooMany(MAX_SIGNATURES + 1)),
            None,
        ),
        (
            "too many in one",
            vec![fine.repeat(MAX_SIGNATURES + 1)],
            Err(SignError::TooMany(MAX_SIGNATURES + 1)),
            None,
        ),
        ("changed value", vec![flipped(fine.len() - 1)], none(1, Fault::Stranger), Some(false)),
        // gpg does not look at it.
        ("changed hash", vec![flipped(fine.len() - 70)], none(1, Fault::Stranger), None),
    ];
    let late = |case: &str| if case == "expired signature" { Some(4_100_000_000) } else { clock() };
    for (case, signatures, expected, libostree) in &table {
        let found = lab.ours(signatures, &ring, late(case)).map(drop);
        assert_eq!(found, *expected, "{case}");
        if let Some(believed) = libostree {
            let told = lab.libostree(signatures, &ring);
            assert_eq!(told.is_ok(), *believed, "libostree, {case}: {told:?}");
        }
    }
    println!("signatures of OpenPGP: {} cases", table.len());
    // A device without a clock: the signature's own time is the least that it can be.
    let then = lab.sign(&expired, &past);
    assert_eq!(lab.ours(std::slice::from_ref(&then), &ring, None).map(drop), Ok(()));
    assert_eq!(lab.ours(&[then], &ring, Some(A_DAY_AFTER_THEN)).map(drop), Ok(()));
    let ring = Ring::read(&[&ring], 1).unwrap();
    assert_eq!(ring.verify(lab.commit.clone(), None, None), Err(SignError::NoMetadata));
    assert_eq!(ring.verify(lab.commit.clone(), Some(b"garbage"), None), Err(SignError::MetadataForm));
    let nothing = Err(SignError::Gpg(GpgError::NoSignatures));
    assert_eq!(ring.verify(lab.commit.clone(), Some(b""), None), nothing);
    let metadata = detached(&[fine]);
    for bit in 0..lab.commit.len() * 8 {
        let mut changed = lab.commit.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(ring.verify(changed, Some(&metadata), None).is_err(), "commit, bit {bit}");
    }
}

/// Takes a key back with the certificate that gpg made along with it.
fn revoke(lab: &Lab, key: &str) {
    let made = lab.home().join(format!("openpgp-revocs.d/{key}.rev"));
    let certificate = fs::read_to_string(made).unwrap().replace(":-----BEGIN", "-----BEGIN");
    let file = lab.path("revocation");
    fs::write(&file, certificate).unwrap();
    lab.gpg(&["--import", file.to_str().unwrap()]);
}

#[test]
fn the_verbs_take_a_keyring() {
    let lab = Lab::new();
    let key = lab.key("publisher", &["ed25519", "sign", "never"], &[]);
    let stranger = lab.key("stranger", &["ed25519", "sign", "never"], &[]);
    let sysroot = lab.path("sysroot");
    fs::create_dir(&sysroot).unwrap();
    let bootward = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bootward"));
        command.args(arguments).args(["--sysroot", sysroot.to_str().unwrap()]).output().unwrap()
    };
    let out = bootward(&["init-fs", "--stateroot", "os"]);
    assert!(out.status.success(), "{}", text(&out));
    let url = format!("file://{}", lab.path("repo").display());
    let pull = |ring: &Path| {
        bootward(&["pull", "--url", &url, "--ref", "os/stable", "--keys", ring.to_str().unwrap()])
    };
    let (ours, theirs) = (lab.path("ours.gpg"), lab.path("theirs.gpg"));
    fs::write(&ours, lab.export(&key)).unwrap();
    fs::write(&theirs, lab.export(&stranger)).unwrap();
    fs::write(lab.object(Kind::CommitMeta), detached(&[lab.sign(&key, &[])])).unwrap();
    let refused = pull(&theirs);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("not of a trusted key"), "{}", text(&refused));
    let done = pull(&ours);
    assert!(done.status.success(), "{}", text(&done));
    ostree(&["fsck", "--repo", sysroot.join("ostree/repo").to_str().unwrap()]);
    // Deploying asks again; the commit has no kernel, which is found out after who signed it.
    let deploy = |ring: &Path| {
        text(&bootward(&["deploy", "--stateroot", "os", "--keys", ring.to_str().unwrap(), "os/stable"]))
    };
    assert!(deploy(&theirs).contains("not of a trusted key"), "{}", deploy(&theirs));
    assert!(deploy(&ours).contains("no kernel"), "{}", deploy(&ours));
}
