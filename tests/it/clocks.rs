//! Clocks that are wrong in every way, in the clear and over TLS: the commit is found and fetched all the same.
//!
//! The machine's own clock is left alone: what recovery makes of a clock ([`clock::raised`]) is what it then goes by, for
//! certificates and for the age of commits.

use std::fs;
use std::path::Path;

use bootward::net::clock::{self, BUILT, Clock, Source};
use bootward::ostree::admit::Age;
use bootward::ostree::object::Checksum;
use bootward::ostree::sign::Keys;
use bootward::pull::Wanted;
use bootward::upgrade::{self, Request};

use crate::fixture::ostree;
use crate::nginx::Nginx;
use crate::pair::{Pair, detached};

/// A dead battery, a build that is newer, a clock that is right, the ends of 32 bits, with and without sign, and the end
/// of the years that are printed.
const CLOCKS: [(&str, i64); 6] = [
    ("1970", 0),
    ("before the build", BUILT as i64 - 400 * 86_400),
    ("right", BUILT as i64 + 3600),
    ("2038-01-19", 2_147_483_647),
    ("2106-02-07", 4_294_967_295),
    ("9999-12-31", 253_402_300_799),
];

/// As recovery has it without a time server: what the clock rests on, and what it then says.
fn reading(now: i64) -> (Clock, i64) {
    match clock::raised(now, BUILT, 0) {
        None => (Clock { source: Source::Kept, sure: BUILT }, now),
        Some(past) => (Clock { source: Source::Floor, sure: BUILT }, past as i64),
    }
}

#[test]
fn every_clock_finds_and_fetches_the_commit_in_the_clear_and_over_tls() {
    let nginx = Nginx::start();
    let pair = Pair::new();
    let repo = nginx.path("www/os");
    let (repo, tree) = (repo.to_str().unwrap(), nginx.path("www/repo"));
    ostree(&["init", "--repo", repo, "--mode=archive"]);
    let arguments = ["commit", "--repo", repo, "-b", "os", "--timestamp=2026-01-01", tree.to_str().unwrap()];
    let name = Checksum::parse(ostree(&arguments).trim()).unwrap();
    let digits = name.to_string();
    let object = Path::new(repo).join(format!("objects/{}/{}.commit", &digits[..2], &digits[2..]));
    let signature = pair.sign(&fs::read(&object).unwrap());
    fs::write(object.with_extension("commitmeta"), detached(&[signature])).unwrap();
    let keys = Keys::parse(pair.public.as_bytes()).unwrap();
    let fetch = |server: usize, clock: &Clock, now: i64| {
        let device = tempfile::tempdir().unwrap();
        let own = device.path().join("ostree/repo");
        fs::create_dir_all(own.parent().unwrap()).unwrap();
        ostree(&["init", "--repo", own.to_str().unwrap(), "--mode=bare"]);
        let wanted = Wanted { reference: Some("os".into()), ..Wanted::default() };
        let mut request = Request::new(device.path(), vec![nginx.url(server, "os/")], wanted, &keys);
        request.transport = nginx.options("ca.pem", clock.certificates_at(now));
        request.age = Age { now: u64::try_from(now).ok(), ..Age::default() };
        let found = upgrade::find(&request, &mut |_| true).map_err(|e| e.to_string())?;
        upgrade::fetch(&request, &found, &mut |_| true).map_err(|e| e.to_string())?;
        assert_eq!(found.name(), name);
        ostree(&["fsck", "--quiet", "--repo", own.to_str().unwrap()]);
        Ok::<(), String>(())
    };
    for (what, now) in CLOCKS {
        let (clock, now) = reading(now);
        for server in [0, 1] {
            fetch(server, &clock, now).unwrap_or_else(|e| panic!("{what}, server {server}: {e}"));
        }
    }
    // Certificates are checked against it: 1970, taken for right, is too early for any.
    let believed = Clock { source: Source::Kept, sure: 0 };
    assert!(fetch(1, &believed, 0).unwrap_err().contains("not valid yet"));
    fetch(0, &believed, 0).unwrap();
}
