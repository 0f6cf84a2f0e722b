//! `bootward verify --repair` whose power is cut after every operation, again while it is repeated, and whose operations
//! fail: what was whole stays whole, and the same again puts everything right.

use std::collections::BTreeSet;
use std::fs;
use std::rc::Rc;

use bootward::arrange::plan::MAKING;
use bootward::deploy::mend::{Flaw, image, mend};
use bootward::fetch::Backoff;
use bootward::ostree::Commit;
use bootward::ostree::object::{self, Checksum, Kind};
use bootward::pull::{self, Broken, Options};
use bootward::repo::{Mode, Store};

use crate::arrange::layout;
use crate::fixture::{PLAIN, make, ostree};
use crate::shelf::Shelf;
use crate::tree::{Body, Dress, Fault, Model, Node, State, load};

struct Setting {
    shelf: Shelf,
    whole: State,
    damaged: State,
    deployment: String,
    commit: Checksum,
}

const OBJECTS: &str = "ostree/repo/objects/";
/// What stands for a signature.
const SIGNED: &[u8] = b"signed";

/// A device whose first deployment is damaged in every way, and a server that has all of it.
fn setting() -> Setting {
    let made = make(&PLAIN);
    let (root, server) = (made.root.to_str().unwrap(), made.beside("server"));
    let server = server.to_str().unwrap();
    ostree(&["init", "--repo", server, "--mode=archive"]);
    let config = made.root.join("ostree/repo/config");
    let text = fs::read_to_string(&config).unwrap() + "\n[ex-integrity]\ncomposefs=true\n";
    fs::write(config, text).unwrap();
    let mut whole = load(&made.root, &|path| path.starts_with("ostree/repo/tmp/"));
    let first = layout(&whole).entries.remove(0);
    ostree(&["pull-local", "--repo", server, &format!("{root}/ostree/repo"), &first.commit]);
    let mut shelf = Shelf::of(std::path::Path::new(server));
    shelf.window = 3;
    let deployment = first.path();
    let commit = Checksum::parse(&first.commit).unwrap();
    // With its signature and its image, as a deployment of ours has them.
    let signature = object::path(&commit, Kind::CommitMeta);
    shelf.files.insert(signature.trim_start_matches("ostree/repo/").into(), SIGNED.into());
    whole.insert(
        signature.clone(),
        Node { body: Body::File(Some(SIGNED.into())), dress: Dress::plain(0o644) },
    );
    let mut model = Model::new(whole, false);
    let data = fs::read(made.root.join(object::path(&commit, Kind::Commit))).unwrap();
    assert_eq!(image(&mut model, &Commit::parse(data).unwrap(), &deployment, true).unwrap(), 1);
    let whole = model.now;
    let its = |path: &str| {
        let name = path.trim_start_matches("ostree/repo/");
        shelf.files.contains_key(name) || shelf.files.contains_key(&format!("{name}z"))
    };
    let mut damaged = whole.clone();
    let below = |path: &str| format!("{deployment}/{path}");
    // In the repository and the deployment at once, as they are one file.
    let file = |content: &str| Body::File(Some(Rc::from(content.as_bytes())));
    let shared: Vec<String> = damaged
        .iter()
        .filter(|(path, node)| {
            path.starts_with(OBJECTS)
                && path.ends_with(".file")
                && its(path)
                && node.content().is_some_and(|c| !c.is_empty())
        })
        .map(|(path, _)| path.clone())
        .step_by(2)
        .collect();
    for object in &shared {
        let old = damaged[object].body.clone();
        let same = damaged.iter().filter(|(path, node)| {
            (path.starts_with(&deployment) && !path.contains("/etc/") || *path == object) && node.body == old
        });
        let same: Vec<String> = same.map(|(path, _)| path.clone()).collect();
        for path in same {
            damaged.get_mut(&path).unwrap().body = file("bit rot");
        }
    }
    let trees: Vec<String> =
        damaged.keys().filter(|path| path.ends_with(".dirtree") && its(path)).step_by(2).cloned().collect();
    for path in trees {
        damaged.remove(&path);
    }
    damaged.remove(&format!("{OBJECTS}{}/{}.commit", &first.commit[..2], &first.commit[2..]));
    damaged.get_mut(&signature).unwrap().body = file("");
    damaged.get_mut(&below(".ostree.cfs")).unwrap().body = file("bit rot");
    damaged.insert(below("usr/extra"), Node { body: Body::Directory, dress: Dress::plain(0o700) });
    damaged.insert(below("usr/extra/x"), Node { body: file("x"), dress: Dress::plain(0o600) });
    let gone: Vec<String> =
        damaged.keys().filter(|path| path.starts_with(&below("usr/etc"))).cloned().collect();
    gone.iter().for_each(|path| drop(damaged.remove(path)));
    damaged.insert(below("usr/etc"), Node { body: file("a file"), dress: Dress::plain(0o644) });
    damaged.get_mut(&below("usr/lib")).unwrap().dress = Dress::plain(0o777);
    Setting { shelf, whole, damaged, deployment, commit }
}

impl Setting {
    /// Whether a path of the deployment is its commit's and not the device's.
    fn counts(&self, path: &str) -> bool {
        path.strip_prefix(&self.deployment)
            .is_some_and(|rest| !rest.starts_with("/etc") && (rest.is_empty() || rest.starts_with('/')))
    }

    /// What verification finds: told here from the whole state, as it reads real filesystems only. The image it passes over.
    fn flaws(&self, state: &State) -> BTreeSet<(Flaw, String)> {
        let name = |path: &str| path[self.deployment.len()..].trim_start_matches('/').to_string();
        let mut flaws = BTreeSet::new();
        let listed = |path: &&String| self.counts(path) && !path.ends_with("/.ostree.cfs");
        for (path, node) in state.iter().filter(|(path, _)| listed(path)) {
            match self.whole.get(path) {
                None => drop(flaws.insert((Flaw::Extra, name(path)))),
                Some(whole) if whole == node => {}
                Some(Node { body: Body::Directory, .. }) if node.body == Body::Directory => {
                    flaws.insert((Flaw::Dress, name(path)));
                }
                Some(_) => drop(flaws.insert((Flaw::Wrong, name(path)))),
            }
        }
        for path in self.whole.keys().filter(|path| listed(path) && !state.contains_key(*path)) {
            flaws.insert((Flaw::Wrong, name(path)));
        }
        // Nothing is told of what is below something that is wrong.
        let all = flaws.clone();
        let covered = |path: &str| {
            path.match_indices('/').any(|(at, _)| {
                let above = path[..at].to_string();
                all.contains(&(Flaw::Wrong, above.clone())) || all.contains(&(Flaw::Extra, above))
            })
        };
        flaws.retain(|(_, path)| !covered(path));
        flaws
    }

    fn repair(&self, model: Model) -> (Model, Result<(), String>) {
        let never = std::time::Duration::ZERO;
        let options = Options {
            channels: 0,
            aside: 3,
            tries: 100,
            backoff: Backoff { first: never, longest: never },
            ..Options::default()
        };
        let mut store = Store::new(model, Mode::Bare, 0);
        let open = || -> Result<Model, Fault> { unreachable!() };
        let signed = |_: &[u8], metadata: &[u8]| match metadata == SIGNED {
            true => Ok(()),
            false => Err("not its own".into()),
        };
        let broken = Broken { name: &self.commit, needed: true, signed: &signed };
        let pulled = pull::repair(&&self.shelf, &mut store, &open, &broken, &options, &mut |_| ());
        if let Err(e) = pulled {
            return (store.into_files(), Err(e.to_string()));
        }
        let commit = match store.metadata(&self.commit, Kind::Commit) {
            Ok(data) => Commit::parse(data).unwrap(),
            Err(e) => return (store.into_files(), Err(e.to_string())),
        };
        let mut model = store.into_files();
        let flaws = self.flaws(&model.now);
        let mended = mend(&mut model, &commit, &self.deployment, &flaws, true)
            .and_then(|_| image(&mut model, &commit, &self.deployment, true));
        (model, mended.map(drop).map_err(|e| e.to_string()))
    }

    /// What got worse in a state.
    fn faults(&self, state: &State) -> Vec<String> {
        let mut faults = Vec::new();
        let judged =
            |path: &String| path.starts_with(OBJECTS) || self.counts(path) || path.starts_with("boot/");
        for (path, whole) in self.whole.iter().filter(|(path, _)| judged(path)) {
            let (now, before) = (state.get(path), self.damaged.get(path));
            let untouched = before == Some(whole);
            let wrong = match now {
                // A directory's time and mode are set last, what is wrong with it goes first.
                now if now == Some(whole) || (!untouched && now == before) => false,
                None => untouched,
                Some(now) if now.body == Body::Directory && whole.body == Body::Directory => untouched,
                // Its content may not have come to the medium only where nobody has its name yet.
                Some(_) => true,
            };
            if wrong {
                faults.push(format!("{path}: {now:?}"));
            }
        }
        let name = self.commit.to_string();
        let object = format!("{OBJECTS}{}/{}.commit", &name[..2], &name[2..]);
        let partial = state.contains_key(&format!("ostree/repo/state/{name}.commitpartial"));
        let lacks = self.whole.keys().any(|path| path.starts_with(OBJECTS) && !state.contains_key(path));
        if state.contains_key(&object) && lacks && !partial {
            faults.push("the commit looks whole and is not".into());
        }
        faults
    }

    fn again(&self, state: &State, name: &str) -> Model {
        let (model, result) = self.repair(Model::new(state.clone(), false));
        result.unwrap_or_else(|e| panic!("{name}: it cannot be done again: {e}"));
        for (path, node) in &self.whole {
            assert_eq!(model.now.get(path), Some(node), "{name}: {path}");
        }
        let left = model.now.keys().find(|path| {
            let ours = path.starts_with(MAKING) || path.starts_with("ostree/repo/tmp/bootward/");
            ours || (path.starts_with("ostree/repo/state/"))
                || (self.counts(path) && !self.whole.contains_key(*path))
        });
        assert_eq!(left, None, "{name}");
        model
    }
}

#[test]
fn a_repair_is_cut_everywhere() {
    let setting = setting();
    assert!(setting.flaws(&setting.damaged).len() >= 5, "{:?}", setting.flaws(&setting.damaged));
    let (model, result) = setting.repair(Model::new(setting.damaged.clone(), false));
    result.unwrap();
    setting.again(&model.now, "without a cut");
    let (mut cuts, mut second) = (0, 0);
    model.cuts(|cut| {
        cuts += 1;
        let faults = setting.faults(&cut.linux);
        assert!(faults.is_empty(), "{}: {faults:?}", cut.name);
        let again = setting.again(&cut.linux, &cut.name);
        if cuts % 11 == 0 {
            let mut places = 0;
            again.cuts(|nested| {
                places += 1;
                if places % 13 == 0 {
                    second += 1;
                    let name = format!("{} then {}", cut.name, nested.name);
                    let faults = setting.faults(&nested.linux);
                    assert!(faults.is_empty(), "{name}: {faults:?}");
                    setting.again(&nested.linux, &name);
                }
            });
        }
    });
    println!("repair: {cuts} cut points, {second} second cuts, {} operations", model.ops.len());
    assert!(cuts > 100 && second > 50, "{cuts} {second}");
}

#[test]
fn operations_of_a_repair_that_fail_lose_nothing() {
    let setting = setting();
    let (model, result) = setting.repair(Model::new(setting.damaged.clone(), false));
    result.unwrap();
    for at in 0..model.operations {
        let (failed, result) =
            setting.repair(Model { fail_at: Some(at), ..Model::new(setting.damaged.clone(), false) });
        let faults = setting.faults(&failed.now);
        assert!(faults.is_empty(), "operation {at}, {result:?}: {faults:?}");
        assert!(
            result.is_err() || setting.flaws(&failed.now).is_empty(),
            "operation {at} failed and nobody said so"
        );
        setting.again(&failed.now, &format!("operation {at}"));
    }
    println!("repair: {} failing operations", model.operations);
}
