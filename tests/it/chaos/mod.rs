//! Recovery's way of fetching on bad lines, from three mirrors of which one is evil, on a device whose power goes: every
//! run has to end with the commit, and little may come twice.
//!
//! The lines are relays (`relay`). The device is an ext4 of its own on a loop device; the power goes with the kernel's own
//! way to stop a filesystem at once (`xfs_io -x -c shutdown`, EXT4_IOC_SHUTDOWN without a flush of its log): what was
//! not durable is lost, the rest comes back by the journal.

mod relay;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bootward::fetch::Url;
use bootward::ostree::object::Checksum;
use bootward::ostree::sign::Keys;
use bootward::pull::{self, Wanted};
use bootward::recovery::budget::Jitter;
use bootward::upgrade::{self, Request};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::fixture::ostree;
use crate::pair::{Pair, detached};
use crate::server::{Manner, Server};
use relay::{Line, Relay};

/// Runs at once: they mostly wait.
const AT_ONCE: usize = 12;
/// A run that did not end after so many rounds does not converge.
const ROUNDS: u32 = 60;
/// Without anything new for so long, the next source was not tried in time.
const GAP: Duration = Duration::from_secs(90);
/// Between two rounds, as after `recovery.wait_first`.
const WAIT: Duration = Duration::from_secs(2);
/// What is published, and what the evil mirror has.
struct Field {
    keep: tempfile::TempDir,
    pair: Pair,
    new: Checksum,
}

/// What the third mirror does.
const EVIL: [(&str, Manner); 10] = [
    ("server", Manner::Corrupt),
    ("server", Manner::Drip(1500)),
    ("server", Manner::Silent),
    ("server", Manner::Page),
    ("server", Manner::Empty),
    ("server", Manner::Mute),
    ("server", Manner::DripAll(1100)),
    ("server", Manner::BusyAll(600)),
    ("stale", Manner::Good),
    ("unsigned", Manner::Good),
];

impl Field {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let path = |name: &str| keep.path().join(name).to_str().unwrap().to_string();
        let (server, tree) = (path("server"), path("tree"));
        ostree(&["init", "--repo", &server, "--mode=archive"]);
        let pair = Pair::new();
        let commit = |repo: &str, time: &str| {
            let name = ostree(&["commit", "--repo", repo, "-b", "os", &format!("--timestamp={time}"), &tree]);
            Checksum::parse(name.trim()).unwrap()
        };
        let copy = |name: &str| {
            let done = Command::new("cp").arg("-a").args([&server, &path(name)]).status();
            assert!(done.unwrap().success());
        };
        fs::create_dir_all(Path::new(&tree).join("usr")).unwrap();
        write(&Path::new(&tree).join("usr"), 0);
        sign(&pair, &server, &commit(&server, "2026-01-01"));
        copy("stale");
        write(&Path::new(&tree).join("usr"), 1);
        let new = commit(&server, "2026-01-02");
        sign(&pair, &server, &new);
        copy("unsigned");
        fs::write(Path::new(&tree).join("usr/evil"), "evil").unwrap();
        commit(&path("unsigned"), "2026-02-01");
        Field { keep, pair, new }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.keep.path().join(name)
    }
}

/// Eight large files, sixty of middling size and a hundred small ones, none of which shrinks: 13 MB.
fn write(directory: &Path, seed: u64) {
    let sizes = (0..8).map(|n| 600_000 + 100_000 * n).chain((0..60).map(|n| 20_000 + 2_000 * n));
    for (n, size) in sizes.chain((0..100).map(|n| 500 + 80 * n)).enumerate() {
        let mut noise = Jitter::new(&seed.to_le_bytes(), &n.to_le_bytes());
        let data: Vec<u8> = (0..size / 4).flat_map(|_| noise.number().to_le_bytes()).collect();
        fs::write(directory.join(n.to_string()), data).unwrap();
    }
}

fn sign(pair: &Pair, repo: &str, name: &Checksum) {
    let digits = name.to_string();
    let object = Path::new(repo).join(format!("objects/{}/{}.commit", &digits[..2], &digits[2..]));
    let signature = pair.sign(&fs::read(&object).unwrap());
    fs::write(object.with_extension("commitmeta"), detached(&[signature])).unwrap();
}

/// An ext4 that is mounted where only this thread and what it starts see it.
struct Device {
    image: PathBuf,
    at: PathBuf,
}

impl Device {
    fn new(directory: &Path) -> Self {
        let device = Device { image: directory.join("image"), at: directory.join("sysroot") };
        fs::create_dir_all(&device.at).unwrap();
        let [image, at] = [&device.image, &device.at].map(|path| path.to_str().unwrap());
        tool("truncate", &["-s", "96M", image]);
        tool("mkfs.ext4", &["-q", "-m", "0", image]);
        device.mount();
        fs::create_dir(device.at.join("ostree")).unwrap();
        ostree(&["init", "--repo", &format!("{at}/ostree/repo"), "--mode=bare"]);
        tool("sync", &["-f", at]);
        device
    }

    fn mount(&self) {
        tool("mount", &["-o", "loop", self.image.to_str().unwrap(), self.at.to_str().unwrap()]);
    }

    fn cut(&self) {
        tool("xfs_io", &["-x", "-c", "shutdown", self.at.to_str().unwrap()]);
    }

    fn unmount(&self) {
        tool("umount", &[self.at.to_str().unwrap()]);
    }
}

fn tool(program: &str, arguments: &[&str]) {
    let out = Command::new(program).args(arguments).output().unwrap();
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// What came of a run.
#[derive(Default, Debug)]
struct Run {
    seconds: u64,
    rounds: u32,
    cuts: u32,
    broken: u64,
    bytes: u64,
    longest: Duration,
}

/// As recovery fetches (`recovery::fetch::pull_options`), and every limit as it is.
fn request<'a>(device: &'a Path, urls: &[String], keys: &'a Keys) -> Request<'a> {
    let urls = urls.iter().map(|url| Url::parse(url).unwrap()).collect();
    let wanted = Wanted { reference: Some("os".into()), ..Wanted::default() };
    let mut request = Request::new(device, urls, wanted, keys);
    request.options = pull::Options {
        channels: 2,
        part: 128 << 10,
        durable: Duration::from_secs(1),
        mirrored: true,
        ..pull::Options::default()
    };
    request
}

fn run(field: &Field, seed: u64, line: Line, cuts: Option<u32>) -> Result<Run, String> {
    let evil = cuts.is_some();
    let directory = tempfile::tempdir().unwrap();
    let mut chance = Jitter::new(&seed.to_le_bytes(), b"cuts");
    let good: Vec<Relay> = (0..if evil { 2 } else { 1 })
        .map(|n| Relay::start(&Server::start(field.path("server"), Manner::Good).url, line, seed * 2 + n))
        .collect();
    let mut urls: Vec<String> = good.iter().map(|relay| relay.url.clone()).collect();
    if evil {
        let seed = seed as usize;
        let (what, manner) = EVIL[seed % EVIL.len()];
        urls.insert((seed + seed / EVIL.len()) % 3, Server::start(field.path(what), manner).url);
    }
    let keys = Keys::parse(field.pair.public.as_bytes()).unwrap();
    let device = Device::new(directory.path());
    let bytes = || good.iter().map(|relay| relay.bytes.load(Ordering::Relaxed)).sum::<u64>();
    let (began, mut done) = (Instant::now(), Run::default());
    let mut next_cut = if evil { 1_000_000 + u64::from(chance.number() % 4_000_000) } else { u64::MAX };
    let (mut seen, mut moved) = (0, Instant::now());
    loop {
        done.rounds += 1;
        if done.rounds > ROUNDS {
            return Err(format!("run {seed} did not end: {done:?}, {urls:?}"));
        }
        let mut cut = false;
        let mut objects = 0;
        let mut watch = |progress: &pull::Progress| {
            let now = bytes();
            if now > seen || progress.objects > objects {
                done.longest = done.longest.max(moved.elapsed());
                (seen, objects, moved) = (now, progress.objects, Instant::now());
            }
            if now >= next_cut && !cut {
                device.cut();
                cut = true;
            }
            !cut && moved.elapsed() < GAP
        };
        let request = request(&device.at, &urls, &keys);
        let came = upgrade::find(&request, &mut watch)
            .and_then(|found| upgrade::fetch(&request, &found, &mut watch).map(|_| found.name()));
        done.longest = done.longest.max(moved.elapsed());
        if done.longest >= GAP {
            return Err(format!("run {seed}: nothing came for {GAP:?}: {came:?}, {urls:?}"));
        }
        if cut {
            done.cuts += 1;
            device.unmount();
            device.mount();
            let more = 1_000_000 + u64::from(chance.number() % 4_000_000);
            next_cut = if Some(done.cuts) < cuts { bytes() + more } else { u64::MAX };
            continue;
        }
        match came {
            Ok(name) if name == field.new => break,
            Ok(name) => return Err(format!("run {seed} ended with {name}")),
            Err(_) => std::thread::sleep(WAIT),
        }
    }
    done.seconds = began.elapsed().as_secs();
    done.bytes = bytes();
    done.broken = good.iter().map(|relay| relay.broken.load(Ordering::Relaxed)).sum();
    let repo = device.at.join("ostree/repo");
    ostree(&["fsck", "--repo", repo.to_str().unwrap()]);
    let named = ostree(&["rev-parse", "--repo", repo.to_str().unwrap(), "os"]);
    device.unmount();
    if named.trim() == field.new.to_string() {
        Ok(done)
    } else {
        Err(format!("run {seed}: the ref is {named}"))
    }
}

/// In a thread that has mounts of its own; with an evil mirror and so many power cuts, or alone with one good server.
fn apart(field: &Field, seed: u64, line: Line, cuts: Option<u32>) -> Result<Run, String> {
    std::thread::scope(|scope| {
        let alone = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
            run(field, seed, line, cuts)
        };
        scope.spawn(alone).join().unwrap_or_else(|_| Err(format!("run {seed} panicked")))
    })
}

fn all(runs: u64, cuts: u32) {
    assert!(nix::unistd::geteuid().is_root(), "this test mounts filesystems: run it as root");
    let field = Field::new();
    let whole = apart(&field, 0, Line::Calm, None).unwrap().bytes;
    let (next, told) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(runs as usize) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= runs {
                        return;
                    }
                    let run = apart(&field, seed, Line::Bad, Some(cuts));
                    told.lock().unwrap().push(run);
                }
            });
        }
    });
    let told = told.into_inner().unwrap();
    let bad: Vec<&String> = told.iter().filter_map(|run| run.as_ref().err()).collect();
    let good: Vec<&Run> = told.iter().filter_map(|run| run.as_ref().ok()).collect();
    let sum = |of: &dyn Fn(&Run) -> u64| good.iter().map(|run| of(run)).sum::<u64>();
    let twice = |run: &Run| run.bytes.saturating_sub(whole) as f64 / whole as f64 * 100.0;
    let most = good.iter().map(|run| twice(run)).fold(0.0, f64::max);
    let average = good.iter().map(|run| twice(run)).sum::<f64>() / good.len().max(1) as f64;
    println!(
        "{} of {runs} runs converged: {} power cuts, {} connections broken, {} rounds; {average:.1} % of {whole} bytes came \
         twice, {most:.1} % at most; {} s on average, the longest time without anything new was {} s",
        good.len(),
        sum(&|run| u64::from(run.cuts)),
        sum(&|run| run.broken),
        sum(&|run| u64::from(run.rounds)),
        sum(&|run| run.seconds) / good.len().max(1) as u64,
        good.iter().map(|run| run.longest.as_secs()).max().unwrap_or(0),
    );
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(sum(&|run| u64::from(run.cuts)) >= runs && sum(&|run| run.broken) >= runs, "it was too calm");
    // Of a machine that is busy, more is on its way when the power goes.
    assert!(average <= 10.0, "{average} % came twice");
}

#[test]
fn every_kind_of_evil_once() {
    all(10, 1);
}

/// About a quarter of an hour, most of it waiting.
#[test]
#[ignore = "a quarter of an hour: cargo test --test it -- --ignored --nocapture chaos"]
fn a_hundred_runs() {
    all(100, 2);
}
