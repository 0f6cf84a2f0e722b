//! Several sources for one ref, one or more of them bad; and what `find` asks for before anything is fetched.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bootward::fetch::{Backoff, Limits, Url};
use bootward::ostree::object::Checksum;
use bootward::ostree::sign::Keys;
use bootward::pull::Wanted;
use bootward::upgrade::{self, Error, Request};

use crate::fixture::ostree;
use crate::pair::{Pair, detached};
use crate::server::{Manner, Server};

struct Publisher {
    keep: tempfile::TempDir,
    pair: Pair,
}

impl Publisher {
    fn new() -> Self {
        let publisher = Publisher { keep: tempfile::tempdir().unwrap(), pair: Pair::new() };
        let server = publisher.path("server");
        ostree(&["init", "--repo", server.to_str().unwrap(), "--mode=archive"]);
        publisher
    }

    fn path(&self, name: &str) -> PathBuf {
        self.keep.path().join(name)
    }

    /// Commits 40 files and signs that.
    fn publish(&self, version: u32) -> Checksum {
        let (server, tree) = (self.path("server"), self.path("tree"));
        fs::create_dir_all(tree.join("usr")).unwrap();
        for n in 0..40u32 {
            let content: Vec<u8> = (0..500u32)
                .flat_map(|m| (m * (n + 7) * version).wrapping_mul(2_654_435_761).to_le_bytes())
                .collect();
            fs::write(tree.join(format!("usr/{n}")), content).unwrap();
        }
        let time = format!("--timestamp=2026-01-0{version}");
        let arguments =
            ["commit", "--repo", server.to_str().unwrap(), "-b", "os", &time, tree.to_str().unwrap()];
        let name = Checksum::parse(ostree(&arguments).trim()).unwrap();
        let object = format!("objects/{}/{}.commit", &name.to_string()[..2], &name.to_string()[2..]);
        let signature = self.pair.sign(&fs::read(server.join(&object)).unwrap());
        fs::write(server.join(format!("{object}meta")), detached(&[signature])).unwrap();
        name
    }

    fn copy(&self, name: &str) -> PathBuf {
        let to = self.path(name);
        let done = std::process::Command::new("cp").arg("-a").args([&self.path("server"), &to]).status();
        assert!(done.unwrap().success());
        to
    }

    fn device(&self, name: &str) -> PathBuf {
        let device = self.path(name);
        let repo = device.join("ostree/repo");
        fs::create_dir_all(repo.parent().unwrap()).unwrap();
        ostree(&["init", "--repo", repo.to_str().unwrap(), "--mode=bare"]);
        device
    }

    fn keys(&self) -> Keys {
        Keys::parse(self.pair.public.as_bytes()).unwrap()
    }
}

fn request<'a>(device: &'a Path, servers: &[&str], keys: &'a Keys) -> Request<'a> {
    let urls = servers.iter().map(|url| Url::parse(url).unwrap()).collect();
    let wanted = Wanted { reference: Some("os".into()), ..Wanted::default() };
    let mut request = Request::new(device, urls, wanted, keys);
    request.transport.limits = Limits {
        head: Duration::from_secs(2),
        idle: Duration::from_secs(1),
        rate_over: Duration::from_secs(1),
        answer_worth: 0,
        ..Limits::default()
    };
    let never = Duration::from_millis(1);
    request.options.backoff = Backoff { first: never, longest: never };
    request.options.tries = 3;
    request
}

fn got(request: &Request<'_>) -> Result<Checksum, Error> {
    let found = upgrade::find(request, &mut |_| true)?;
    upgrade::fetch(request, &found, &mut |_| true)?;
    Ok(found.name())
}

#[test]
fn attack_one_evil_mirror_of_three_blocks_nothing() {
    let publisher = Publisher::new();
    let keys = publisher.keys();
    let _old = publisher.publish(1);
    let stale = publisher.copy("stale");
    let new = publisher.publish(2);
    let good = Server::start(publisher.path("server"), Manner::Good);
    let unsigned = {
        // The newest of all, and signed by nobody.
        let copy = publisher.copy("unsigned");
        let tree = publisher.path("tree");
        let arguments = [
            "commit",
            "--repo",
            copy.to_str().unwrap(),
            "-b",
            "os",
            "--timestamp=2026-02-01",
            tree.to_str().unwrap(),
        ];
        ostree(&arguments);
        copy
    };
    let evil = [
        (publisher.path("server"), Manner::Corrupt),
        // Just above the least rate of one source.
        (publisher.path("server"), Manner::Drip(1500)),
        (publisher.path("server"), Manner::Drip(1)),
        (publisher.path("server"), Manner::Silent),
        (publisher.path("server"), Manner::Page),
        (publisher.path("server"), Manner::Empty),
        (stale, Manner::Good),
        (unsigned, Manner::Good),
    ];
    for (n, (directory, manner)) in evil.into_iter().enumerate() {
        let bad = Server::start(directory, manner);
        for place in 0..3 {
            let mut urls = vec![good.url.as_str(), "http://127.0.0.1:1/"];
            urls.insert(place, &bad.url);
            let device = publisher.device(&format!("device-{n}-{place}"));
            let begun = Instant::now();
            let found =
                got(&request(&device, &urls, &keys)).unwrap_or_else(|e| panic!("{n} at {place}: {e}"));
            assert_eq!(found, new, "{n} at {place}");
            assert!(begun.elapsed() < Duration::from_secs(20), "{n} at {place}: {:?}", begun.elapsed());
            ostree(&["fsck", "--repo", device.join("ostree/repo").to_str().unwrap()]);
        }
    }
}

/// Where every mirror lacks something else, each brings what it has.
#[test]
fn mirrors_that_lack_something_each_are_enough_together() {
    let publisher = Publisher::new();
    let keys = publisher.keys();
    let new = publisher.publish(1);
    let halves = [0, 1].map(|half| {
        let copy = publisher.copy(&format!("half-{half}"));
        let mut files: Vec<_> = walk(&copy.join("objects"));
        files.retain(|path| path.extension().is_some_and(|e| e == "filez"));
        files.sort();
        files.iter().skip(half).step_by(2).for_each(|path| fs::remove_file(path).unwrap());
        Server::start(copy, Manner::Good)
    });
    let device = publisher.device("device");
    let urls = [halves[0].url.as_str(), &halves[1].url];
    assert_eq!(got(&request(&device, &urls, &keys)).unwrap(), new);
    ostree(&["fsck", "--repo", device.join("ostree/repo").to_str().unwrap()]);
    let objects = |server: &Server| server.asked().iter().filter(|path| path.ends_with(".filez")).count();
    let [one, other] = [objects(&halves[0]), objects(&halves[1])];
    assert!(one >= 20 && other >= 20, "{one} {other}");
    // One alone is not.
    let error = got(&request(&publisher.device("alone"), &urls[..1], &keys)).unwrap_err().to_string();
    assert!(error.contains("the server does not have it"), "{error}");
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_commit_that_failed_here_costs_three_requests() {
    let publisher = Publisher::new();
    let keys = publisher.keys();
    let new = publisher.publish(1);
    let server = Server::start(publisher.path("server"), Manner::Good);
    let device = publisher.device("device");
    fs::create_dir_all(device.join("ostree/bootward")).unwrap();
    fs::write(device.join("ostree/bootward/rejected"), format!("{new} 1767225600 health checks failed\n"))
        .unwrap();
    let mut request = request(&device, &[&server.url], &keys);
    let error = got(&request).unwrap_err().to_string();
    assert!(error.contains("failed on this device"), "{error}");
    // The ref, the commit, its signatures: the head, and nothing of what it names.
    assert_eq!(server.asked().len(), 3);
    request.rejected_too = true;
    assert_eq!(got(&request).unwrap(), new);
    assert!(server.asked().len() > 40);
}

#[test]
fn whoever_watches_can_end_it() {
    let publisher = Publisher::new();
    let keys = publisher.keys();
    publisher.publish(1);
    let device = publisher.device("device");
    for manner in [Manner::Silent, Manner::Drip(1)] {
        let server = Server::start(publisher.path("server"), manner);
        let mut request = request(&device, &[&server.url], &keys);
        request.transport.limits = Limits::default();
        let found = upgrade::find(&request, &mut |_| true).unwrap();
        let begun = Instant::now();
        let mut asked = 0;
        let error = upgrade::fetch(&request, &found, &mut |_| {
            asked += 1;
            begun.elapsed() < Duration::from_secs(2)
        });
        assert!(matches!(error, Err(Error::Stopped)), "{manner:?}: {error:?}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{manner:?}: {:?}", begun.elapsed());
        assert!(asked >= 3, "{manner:?}: asked {asked} times");
    }
    // It goes on where it was.
    let server = Server::start(publisher.path("server"), Manner::Good);
    got(&request(&device, &[&server.url], &keys)).unwrap();
    ostree(&["fsck", "--repo", device.join("ostree/repo").to_str().unwrap()]);
}

/// Our own waits are a millisecond here, so that what is waited for is what the server says.
#[test]
fn a_busy_server_is_asked_again_when_it_says_and_not_before() {
    let publisher = Publisher::new();
    let keys = publisher.keys();
    let new = publisher.publish(1);
    let device = publisher.device("device");
    let busy = Server::start(publisher.path("server"), Manner::Busy(1));
    assert_eq!(got(&request(&device, &[&busy.url], &keys)).unwrap(), new);
    let asked = busy.asked_when();
    let mut waited = 0;
    for (at, (path, first)) in asked.iter().enumerate() {
        if let Some((_, again)) = asked[at + 1..].iter().find(|(other, _)| other == path) {
            assert!(*again - *first >= Duration::from_secs(1), "{path}: {:?}", *again - *first);
            waited += 1;
        }
    }
    // The ref, the commit, its signatures, a directory, what is said of it, and a file.
    assert_eq!(waited, 6, "{asked:?}");
    ostree(&["fsck", "--repo", device.join("ostree/repo").to_str().unwrap()]);

    // Where somebody else has it, nobody waits for ten minutes.
    let (device, good) = (publisher.device("other"), Server::start(publisher.path("server"), Manner::Good));
    let busy = Server::start(publisher.path("server"), Manner::Busy(600));
    assert_eq!(got(&request(&device, &[&busy.url, &good.url], &keys)).unwrap(), new);
    assert_eq!(busy.asked(), ["refs/heads/os"]);
}
