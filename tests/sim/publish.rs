//! Keys and signatures on filesystems that lose power, and whose operations fail.

use bootward::ostree::object::{Checksum, Kind};
use bootward::ostree::sign::make::Secret;
use bootward::publish::{in_repo, keep_key, put_metadata};
use bootward::storage::At;

use crate::tree::{Body, Dress, Model, Node, State};

fn directory() -> Node {
    Node { body: Body::Directory, dress: Dress::plain(0o755) }
}

fn content<'a>(state: &'a State, path: &str) -> Option<&'a [u8]> {
    state.get(path).map(|node| node.content().expect("its content is on the medium"))
}

fn key(n: u8) -> Secret {
    Secret::new([n; 32]).unwrap()
}

/// What a cut leaves of a key: nothing, or the secret whole, then the public one of the same.
fn whole(state: &State, name: &str) -> bool {
    let Some(secret) = content(state, "key") else {
        assert_eq!(content(state, "key.pub"), None, "{name}: a public key without its secret");
        return false;
    };
    let secret = Secret::parse(secret).unwrap_or_else(|why| panic!("{name}: {why}"));
    assert_eq!(state["key"].dress.mode & 0o777, 0o600, "{name}");
    match content(state, "key.pub") {
        Some(public) => {
            assert_eq!(public, format!("{}\n", secret.public()).as_bytes(), "{name}");
            true
        }
        None => false,
    }
}

#[test]
fn every_cut_of_keygen_leaves_a_whole_key_or_none() {
    let mut model = Model::new(State::new(), false);
    keep_key(&mut model, &At::root("key"), &key(1)).unwrap();
    let mut cuts = 0;
    model.cuts(|cut| {
        cuts += 1;
        let done = whole(&cut.linux, &cut.name);
        let had = content(&cut.linux, "key").map(<[u8]>::to_vec);
        // The same command, which has other random bytes; whoever has both files does not give it again.
        let mut again = Model::new(cut.linux.clone(), false);
        assert_eq!(keep_key(&mut again, &At::root("key"), &key(2)).is_err(), done, "{}", cut.name);
        assert!(whole(&again.now, &cut.name), "{}", cut.name);
        assert!(had.is_none_or(|had| content(&again.now, "key") == Some(&had[..])), "{}", cut.name);
        assert_eq!(again.now.len(), 2, "{}: something is left over", cut.name);
    });
    println!("cuts of keygen: {cuts}");
    assert!(cuts > 7, "only {cuts}");
    for operation in 0.. {
        let mut model = Model { fail_at: Some(operation), ..Model::new(State::new(), false) };
        let done = keep_key(&mut model, &At::root("key"), &key(1));
        if model.operations <= operation {
            break;
        }
        assert!(done.is_err());
        whole(&model.now, &format!("operation {operation}"));
    }
}

#[test]
fn every_cut_of_sign_leaves_the_old_metadata_or_the_new() {
    let commit = Checksum([7; 32]);
    let place = in_repo(&commit, Kind::CommitMeta);
    let above = place.rsplit_once('/').unwrap().0;
    let aside = At::root("tmp/bootward-sign-1");
    let mut start: State = ["objects", above, "tmp"].map(|path| (path.to_string(), directory())).into();
    for old in [None, Some(&b"old"[..])] {
        if let Some(old) = old {
            let mut model = Model::new(start.clone(), false);
            put_metadata(&mut model, &aside, &commit, old).unwrap();
            start = model.now;
        }
        let new = b"new, and longer";
        let good = |state: &State, name: &str| {
            let found = content(state, &place);
            assert!(found == old || found == Some(new), "{name}: {found:?}");
        };
        let mut model = Model::new(start.clone(), false);
        put_metadata(&mut model, &aside, &commit, new).unwrap();
        let end = model.now.clone();
        let mut cuts = 0;
        model.cuts(|cut| {
            cuts += 1;
            good(&cut.linux, &cut.name);
            let mut again = Model::new(cut.linux.clone(), false);
            put_metadata(&mut again, &aside, &commit, new).unwrap();
            assert_eq!(again.now, end, "{}", cut.name);
        });
        println!("cuts of sign: {cuts}");
        assert!(cuts > 4, "only {cuts}");
        for operation in 0.. {
            let mut model = Model { fail_at: Some(operation), ..Model::new(start.clone(), false) };
            let done = put_metadata(&mut model, &aside, &commit, new);
            if model.operations <= operation {
                break;
            }
            assert!(done.is_err());
            good(&model.now, &format!("operation {operation}"));
        }
    }
}
