//! Keys and signatures that openssl made.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use bootward::ostree::sign::base64;
use gvariant::{Marker, SerializeTo, Variant, VariantWrap, gv};

/// A pair of keys that openssl made.
pub struct Pair {
    _keep: tempfile::TempDir,
    private: PathBuf,
    /// The public key as libostree's files of keys have it.
    pub public: String,
}

pub fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

impl Pair {
    pub fn new() -> Pair {
        let keep = tempfile::tempdir().unwrap();
        let private = keep.path().join("key.pem");
        let (at, der) = (private.to_str().unwrap(), keep.path().join("key.der"));
        run("openssl", &["genpkey", "-algorithm", "ed25519", "-out", at]);
        let whole = run("openssl", &["pkey", "-in", at, "-pubout", "-outform", "DER"]);
        // A SubjectPublicKeyInfo ends with the key itself.
        fs::write(&der, &whole[whole.len() - 32..]).unwrap();
        let public = run("openssl", &["base64", "-A", "-in", der.to_str().unwrap()]);
        Pair { _keep: keep, private, public: String::from_utf8(public).unwrap() }
    }

    #[allow(dead_code, reason = "not every test that has this file hands the key over")]
    /// The secret key as libostree's tools take it: the seed, which a PKCS #8 file ends with, and the public key.
    pub fn secret(&self) -> String {
        let whole = run("openssl", &["pkey", "-in", self.private.to_str().unwrap(), "-outform", "DER"]);
        let public = base64::decode::<32>(self.public.as_bytes()).unwrap();
        base64::encode(&[&whole[whole.len() - 32..], &public].concat())
    }

    pub fn sign(&self, data: &[u8]) -> Vec<u8> {
        let input = tempfile::NamedTempFile::new().unwrap();
        fs::write(input.path(), data).unwrap();
        let (key, input) = (self.private.to_str().unwrap(), input.path().to_str().unwrap());
        run("openssl", &["pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", input])
    }
}

struct Signatures<'a>(&'a [Vec<u8>]);

impl SerializeTo<Variant> for &Signatures<'_> {
    fn serialize(self, f: &mut impl std::io::Write) -> std::io::Result<usize> {
        let list: Vec<&[u8]> = self.0.iter().map(Vec::as_slice).collect();
        VariantWrap(gv!("aay"), list.iter().copied()).serialize(f)
    }
}

/// Detached metadata with these signatures.
pub fn detached(signatures: &[Vec<u8>]) -> Vec<u8> {
    gv!("a{sv}").serialize_to_vec([("ostree.sign.ed25519", &Signatures(signatures))].iter())
}
