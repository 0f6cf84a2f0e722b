//! A pull whose power is cut after every operation, again while it goes on, and whose operations fail.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bootward::fetch::Backoff;
use bootward::ostree::Commit;
use bootward::ostree::object::{Checksum, Kind};
use bootward::ostree::sign::{Keys, VerifiedCommit};
use bootward::ostree::tree::DirTree;
use bootward::pull::{self, Error, Options, Wanted};
use bootward::repo::{Mode, Store};

use crate::fixture::ostree;
use crate::shelf::Shelf;
use crate::tree::{Fault, Model, State, load};

/// Bytes of the large object.
const LARGE: u32 = 200_000;

struct Setting {
    shelf: Shelf,
    start: State,
    keys: Keys,
    old: Checksum,
    new: Checksum,
}

/// A device with a first version, and a server with a second one, signed.
fn setting() -> Setting {
    let keep = tempfile::tempdir().unwrap();
    let (server, device, tree) =
        (keep.path().join("server"), keep.path().join("device"), keep.path().join("tree"));
    let repo = device.join("ostree/repo");
    fs::create_dir_all(repo.parent().unwrap()).unwrap();
    fs::create_dir_all(tree.join("usr/lib")).unwrap();
    let [server, repo] = [&server, &repo].map(|path| path.to_str().unwrap());
    ostree(&["init", "--repo", server, "--mode=archive"]);
    ostree(&["init", "--repo", repo, "--mode=bare"]);
    let commit = |text: &str| {
        fs::write(tree.join("usr/lib/one"), text).unwrap();
        fs::write(tree.join("usr/same"), "same").unwrap();
        let sum = ostree(&[
            "commit",
            "--repo",
            server,
            "-b",
            "os",
            "--timestamp=2026-01-01",
            tree.to_str().unwrap(),
        ]);
        Checksum::parse(sum.trim()).unwrap()
    };
    let old = commit("first");
    ostree(&["pull-local", "--repo", repo, server, "os"]);
    fs::create_dir(tree.join("usr/bin")).unwrap();
    fs::write(tree.join("usr/bin/new"), "new").unwrap();
    fs::write(tree.join("usr/empty"), "").unwrap();
    symlink("lib/one", tree.join("usr/link")).unwrap();
    // What does not shrink: a large object, by the options below.
    let noise = (0..LARGE / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes());
    fs::write(tree.join("usr/large"), noise.collect::<Vec<u8>>()).unwrap();
    let new = commit("second");
    let mut shelf = Shelf::of(std::path::Path::new(server));
    shelf.window = 3;
    let start = load(&device, &|path| path.starts_with("ostree/repo/tmp/"));
    let object = &shelf.files[&bootward::ostree::object::place(&new, Kind::Commit)];
    let (public, metadata) = sign(object);
    shelf.files.insert(bootward::ostree::object::place(&new, Kind::CommitMeta), metadata);
    Setting { shelf, start, keys: Keys::parse(public.as_bytes()).unwrap(), old, new }
}

/// A signature by openssl, as detached metadata, and the public key.
fn sign(data: &[u8]) -> (String, Vec<u8>) {
    let pair = crate::pair::Pair::new();
    (pair.public.clone(), crate::pair::detached(&[pair.sign(data)]))
}

impl Setting {
    fn pull(&self, model: Model) -> (Model, Result<(), Error<Fault>>) {
        self.pull_with(model, Options::default().durable)
    }

    /// What came is to be durable after this.
    fn pull_with(&self, model: Model, durable: Duration) -> (Model, Result<(), Error<Fault>>) {
        let judge = |commit: Vec<u8>, metadata: Option<&[u8]>| -> Result<VerifiedCommit, String> {
            self.keys.verify(commit, metadata).map_err(|e| e.to_string())
        };
        let never = Duration::ZERO;
        let options = Options {
            durable,
            channels: 0,
            aside: 3,
            part: 4096,
            tries: 100,
            backoff: Backoff { first: never, longest: never },
            ..Options::default()
        };
        let wanted = Wanted { reference: Some("os".into()), ..Wanted::default() };
        let mut store = Store::new(model, Mode::Bare, 0);
        let result = pull::head(&&self.shelf, &wanted, &judge, &options).and_then(|(commit, metadata)| {
            let open = || -> Result<Model, Fault> { unreachable!() };
            let commit = (&commit, metadata.as_deref());
            pull::pull(&&self.shelf, &mut store, &open, commit, &wanted, &options, &mut |_| ()).map(drop)
        });
        (store.into_files(), result)
    }

    /// What is wrong with a state that libostree, or we, may find.
    fn faults(&self, state: &State) -> Vec<String> {
        let mut store = Store::new(Model::new(state.clone(), false), Mode::Bare, 0);
        let mut faults = Vec::new();
        for path in state.keys().filter_map(|path| path.strip_prefix("ostree/repo/objects/")) {
            let Some((sum, kind)) = path.split_once('.') else { continue };
            let name = Checksum::parse(&sum.replace('/', "")).unwrap();
            let whole = match Kind::of_extension(kind).unwrap() {
                Kind::File => store.check(&name).unwrap_or(false),
                kind => store.metadata(&name, kind).is_ok(),
            };
            if !whole {
                faults.push(format!("{path} is not whole"));
            }
        }
        let named = state.get("ostree/repo/refs/heads/os").and_then(|node| node.content());
        let named = named.and_then(bootward::repo::refs::parse);
        if ![Some(self.old), Some(self.new)].contains(&named) {
            faults.push(format!("the ref names {named:?}"));
        }
        for commit in [self.old, self.new] {
            let partial = state.contains_key(&format!("ostree/repo/state/{commit}.commitpartial"));
            let here = store.has(&commit, Kind::Commit).unwrap();
            if here && !partial {
                faults.extend(missing(&mut store, &commit));
            }
            if named == Some(commit) && (!here || partial) {
                faults.push(format!("the ref names {commit}, which is not whole"));
            }
        }
        faults
    }

    /// Objects that have their places, or are whole aside: they are not to be fetched again.
    fn kept(&self, state: &State) -> BTreeSet<String> {
        let (repo, staging) = ("ostree/repo/", "ostree/repo/tmp/bootward/");
        let mut kept = BTreeSet::new();
        for (path, node) in state {
            let whole = node.content().is_none_or(|data| !data.is_empty());
            if let Some(path) = path.strip_prefix(repo).filter(|path| path.starts_with("objects/")) {
                kept.insert(path.to_string());
            }
            let aside = path.strip_prefix(staging).and_then(|name| name.split_once('.'));
            // Parts and drafts are others.
            if let Some((sum, kind)) =
                aside.filter(|(sum, kind)| sum.len() == 64 && *kind == "dirtree" && whole)
            {
                let name = Checksum::parse(sum).unwrap();
                if node.content().is_some_and(|data| Checksum::of(data) == name) {
                    kept.insert(format!("objects/{}/{}.{kind}", &sum[..2], &sum[2..]));
                }
            }
        }
        kept
    }

    /// Goes on from a state, and holds the result against what must be there.
    fn again(&self, state: &State, reference: &State) -> Result<Model, String> {
        self.shelf.log.lock().unwrap().clear();
        let (model, result) = self.pull(Model::new(state.clone(), false));
        result.map_err(|e| format!("it cannot be done again: {e}"))?;
        let kept = self.kept(state);
        let head =
            [Kind::Commit, Kind::CommitMeta].map(|kind| bootward::ostree::object::place(&self.new, kind));
        for (path, _) in self.shelf.asked() {
            if kept.contains(&path.replace(".filez", ".file")) && !head.contains(&path) {
                return Err(format!("{path} was here and is fetched again"));
            }
        }
        let seen = |state: &State| -> State {
            let counts = |path: &String| !path.starts_with("ostree/bootward/");
            state.iter().filter(|(path, _)| counts(path)).map(|(p, n)| (p.clone(), n.clone())).collect()
        };
        if seen(&model.now) != seen(reference) {
            let (one, other) = (seen(&model.now), seen(reference));
            let differs = |(path, node): &(&String, &crate::tree::Node)| other.get(*path) != Some(*node);
            let found: Vec<_> = one.iter().filter(differs).map(|(path, _)| path).collect();
            return Err(format!("another result than without a cut: {found:?}"));
        }
        Ok(model)
    }
}

/// What a commit lacks.
fn missing(store: &mut Store<Model>, commit: &Checksum) -> Vec<String> {
    let mut lacks = Vec::new();
    let Ok(data) = store.metadata(commit, Kind::Commit) else { return vec![format!("{commit} is damaged")] };
    let root = Commit::parse(data).unwrap();
    let mut trees = vec![root.root_tree()];
    while let Some(tree) = trees.pop() {
        let Ok(data) = store.metadata(&tree, Kind::DirTree) else {
            lacks.push(format!("{commit} lacks dirtree {tree}"));
            continue;
        };
        let tree = DirTree::parse(&data).unwrap();
        for (name, file) in tree.files() {
            if !store.has(&file, Kind::File).unwrap() {
                lacks.push(format!("{commit} lacks {name}"));
            }
        }
        for (name, below, meta) in tree.directories() {
            trees.push(below);
            if !store.has(&meta, Kind::DirMeta).unwrap() {
                lacks.push(format!("{commit} lacks the dirmeta of {name}"));
            }
        }
    }
    lacks
}

#[test]
fn a_pull_is_cut_everywhere() {
    let setting = setting();
    assert_eq!(setting.faults(&setting.start), Vec::<String>::new());
    let (model, result) = setting.pull(Model::new(setting.start.clone(), false));
    result.unwrap();
    assert_eq!(setting.faults(&model.now), Vec::<String>::new());
    let (mut cuts, mut second) = (0, 0);
    model.cuts(|cut| {
        cuts += 1;
        let faults = setting.faults(&cut.linux);
        assert!(faults.is_empty(), "{}: {faults:?}", cut.name);
        let again = setting.again(&cut.linux, &model.now).unwrap_or_else(|e| panic!("{}: {e}", cut.name));
        // Every seventh time the power goes once more, at every fifth place.
        if cuts % 11 == 0 {
            let mut places = 0;
            again.cuts(|nested| {
                places += 1;
                if places % 13 == 0 {
                    second += 1;
                    let faults = setting.faults(&nested.linux);
                    assert!(faults.is_empty(), "{} then {}: {faults:?}", cut.name, nested.name);
                    setting
                        .again(&nested.linux, &model.now)
                        .unwrap_or_else(|e| panic!("{} then {}: {e}", cut.name, nested.name));
                }
            });
        }
    });
    println!("pull: {cuts} cut points, {second} second cuts, {} operations", model.ops.len());
    assert!(cuts > 100 && second > 100, "{cuts} {second}");
}

#[test]
fn operations_that_fail_lose_nothing() {
    let setting = setting();
    let (model, result) = setting.pull(Model::new(setting.start.clone(), false));
    result.unwrap();
    for at in 0..model.operations {
        let (failed, result) =
            setting.pull(Model { fail_at: Some(at), ..Model::new(setting.start.clone(), false) });
        let error = result.err().map(|e| e.to_string());
        let faults = setting.faults(&failed.now);
        assert!(faults.is_empty(), "operation {at}, {error:?}: {faults:?}");
        assert!(error.is_some() || failed.now == model.now, "operation {at} failed and nobody said so");
        setting.again(&failed.now, &model.now).unwrap_or_else(|e| panic!("operation {at}: {e}"));
    }
    println!("pull: {} failing operations", model.operations);
}

/// Whatever was not made durable by a sync is lost: what comes twice is bounded by what came since then, which is one piece
/// of the large object, or one small object, and the head that is asked for each time.
#[test]
fn a_power_cut_costs_no_more_than_what_was_on_its_way() {
    const PIECE: usize = 32 << 10;
    let mut setting = setting();
    // It counts what it served.
    setting.shelf.breaks_every = usize::MAX;
    let served = |setting: &Setting| setting.shelf.served.swap(0, Ordering::Relaxed);
    let (whole, result) = setting.pull_with(Model::new(setting.start.clone(), false), Duration::ZERO);
    result.unwrap();
    let all = served(&setting);
    let head: usize = [Kind::Commit, Kind::CommitMeta]
        .map(|kind| setting.shelf.files[&bootward::ostree::object::place(&setting.new, kind)].len())
        .iter()
        .sum::<usize>()
        + setting.shelf.files["refs/heads/os"].len();
    let (mut most, mut cuts) = (0, 0);
    for at in 0..whole.operations {
        let start = Model { fail_at: Some(at), ..Model::new(setting.start.clone(), false) };
        let (stopped, _) = setting.pull_with(start, Duration::ZERO);
        let before = served(&setting);
        let mut lost = None;
        // The first of the states that the last operations may leave: nothing of them is there.
        stopped.cuts_from(stopped.ops.len(), &mut |cut| {
            lost = Some(cut.linux.clone());
            false
        });
        let (_, result) = setting.pull_with(Model::new(lost.unwrap(), false), Duration::ZERO);
        result.unwrap_or_else(|e| panic!("cut at operation {at}: {e}"));
        let twice = (before + served(&setting)).saturating_sub(all);
        assert!(twice <= head + PIECE, "cut at operation {at}: {twice} bytes came twice, {before} had come");
        (most, cuts) = (most.max(twice), cuts + 1);
    }
    println!("pull: {cuts} cuts, at most {most} of {all} bytes came twice, {head} of them the head");
    assert!(all > LARGE as usize && most > head, "{all} {most}");
}
