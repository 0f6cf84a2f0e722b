//! OpenPGP: no signature that was not made is believed, whatever bytes a server or a keyring has.

use std::sync::LazyLock;

use bootward::ostree::commit::Commit;
use bootward::ostree::emit;
use bootward::ostree::sign::gpg::{Ring, is_ring};

/// A commit, a signature of it by a key of gpg, and that key.
const COMMIT: &[u8] = include_bytes!("../corpus/ostree/seed-commit");
const SIGNATURE: &[u8] = include_bytes!("../corpus/gpg/seed-signature");
const KEY: &[u8] = include_bytes!("../corpus/gpg/seed-key");

static RING: LazyLock<Ring> = LazyLock::new(|| {
    let ring = Ring::read(&[KEY], 1).unwrap();
    assert!(ring.verify(COMMIT.to_vec(), Some(&detached(SIGNATURE)), None).is_ok());
    assert!(Commit::parse(COMMIT.to_vec()).is_ok());
    ring
});

fn detached(signature: &[u8]) -> Vec<u8> {
    let list = emit::variant("aay", &emit::array(1, &[signature]));
    emit::dictionary(vec![("ostree.gpgsigs", &list[..])])
}

/// A signature, a keyring, and detached metadata.
pub fn gpg(data: &[u8]) {
    let told = |why: &dyn std::fmt::Display| assert!(!why.to_string().is_empty());
    match RING.verify(COMMIT.to_vec(), Some(&detached(data)), None) {
        // The number itself, at the end, is what nobody can make up; what is around it may be said otherwise.
        Ok(_) => assert!(data.windows(32).any(|part| SIGNATURE.ends_with(part)), "forged"),
        Err(error) => told(&error),
    }
    if let Err(error) = RING.verify(COMMIT.to_vec(), Some(data), None) {
        told(&error);
    }
    let _ = is_ring(data);
    match Ring::read(&[data], 1) {
        Ok(ring) => {
            assert!(ring.count() > 0);
            // A certificate that was changed may still have the key itself.
            if ring.verify(COMMIT.to_vec(), Some(&detached(SIGNATURE)), None).is_ok() {
                assert!(
                    data.windows(32)
                        .any(|part| KEY.get(..60).is_some_and(|key| key.windows(32).any(|k| k == part)))
                );
            }
        }
        Err(error) => told(&error),
    }
}
