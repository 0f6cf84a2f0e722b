//! G20: keys and signatures that look whole and must not be taken, each a row of `degenerate.txt`, which `degenerate.py`
//! beside it makes and explains. Most of them satisfy the equation of Ed25519, or would be taken by openssl.

use std::fs;
use std::process::Command;

use bootward::ostree::Keys;
use bootward::ostree::sign::{KeysError, SignError, base64};

use crate::sign::detached;

struct Row {
    kind: &'static str,
    name: &'static str,
    key: Vec<u8>,
    signature: Vec<u8>,
    /// Who would take it that looks at nothing but the equation.
    taken: &'static str,
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

/// The commit, and what is said of it.
fn table() -> (Vec<u8>, Vec<Row>) {
    let mut lines = include_str!("degenerate.txt").lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let commit = hex(lines.next().unwrap()[2]);
    let rows = lines.map(|line| match line.as_slice() {
        [kind, name, key, signature, taken] => {
            Row { kind, name, key: hex(key), signature: hex(signature), taken }
        }
        _ => panic!("{line:?}"),
    });
    (commit, rows.collect())
}

/// Whether openssl takes it.
fn openssl(commit: &[u8], row: &Row) -> bool {
    let keep = tempfile::tempdir().unwrap();
    let write = |name: &str, data: &[u8]| {
        let path = keep.path().join(name);
        fs::write(&path, data).unwrap();
        path.to_str().unwrap().to_string()
    };
    // A SubjectPublicKeyInfo of Ed25519 (RFC 8410).
    let key = write("key", &[&hex("302a300506032b6570032100"), &row.key[..]].concat());
    let (signature, commit) = (write("signature", &row.signature), write("commit", commit));
    let words = ["pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", &key];
    let mut command = Command::new("openssl");
    command.args(words).args(["-sigfile", &signature, "-in", &commit]);
    command.output().unwrap().status.success()
}

#[test]
fn degenerate_keys_and_signatures_of_each_class() {
    let (commit, rows) = table();
    let (good, rows) = rows.split_first().unwrap();
    let trusted = |key: &[u8]| Keys::parse(base64::encode(key).as_bytes());
    let keys = trusted(&good.key).unwrap();
    let verify = |signature: &[u8]| keys.verify(commit.clone(), Some(&detached(&[signature.to_vec()])));
    assert_eq!(verify(&good.signature).map(|verified| verified.key()), Ok(0));
    assert!(openssl(&commit, good));
    let (mut satisfied, mut lax) = (0, 0);
    for row in rows {
        match row.kind {
            "key" => {
                assert_eq!(trusted(&row.key), Err(KeysError::Weak(1)), "key, {}", row.name);
                let both = format!("{}\n{}", base64::encode(&good.key), base64::encode(&row.key));
                assert_eq!(Keys::parse(both.as_bytes()), Err(KeysError::Weak(2)), "{}", row.name);
            }
            _ => {
                let none = SignError::NoneValid { signatures: 1, malformed: 0, keys: 1 };
                assert_eq!(verify(&row.signature), Err(none), "signature, {}", row.name);
            }
        }
        satisfied += usize::from(row.taken != "nobody");
        lax += usize::from(openssl(&commit, row));
    }
    println!(
        "{} degenerate keys and signatures, accepted: 0; {satisfied} satisfy the equation, openssl takes {lax}",
        rows.len()
    );
    assert!(rows.len() >= 64 && satisfied >= 40);
}
