//! Nothing that makes a change durable is there for nothing: each step of a plan, and each operation that a step is made
//! of, is left out or weakened, one at a time, and the power cuts must find that out.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bootward::arrange::carry::{self, Cause};
use bootward::arrange::plan::{self, Plan, Step};
use bootward::storage::{At, Files, Node as Kind, Volume};
use bootward::trial::rejected;

use crate::arrange::{Judge, below, layout, loader, order, start};
use crate::fixture::{PLAIN, Style};
use crate::tree::{Body, Dress, Fault, Model, Node, State};

/// What becomes of one operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum How {
    /// It is not done.
    Dropped,
    /// A freeze is a sync only.
    OnlySynced,
    /// What is in the way of a rename goes first; an exchange is a rename, which lets go of what it replaces.
    NotAtomic,
    /// A new file is not synced before it is renamed.
    NotDurable,
}

/// One mutant: something that the code does for the sake of power cuts, and does no more.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Mutation {
    None,
    /// The step of this number is left out.
    Step(usize, String),
    /// The operation of this number; what it is, and what it is about.
    Operation(usize, How, &'static str, String),
    /// What was written is read back after the swap.
    LateChecks,
    /// What follows from the swap is done before it.
    EarlyClear,
}

/// Mutants that do no harm: what is left out, where, and why that is so.
const HARMLESS: [(How, &str, &str, &str); 5] = [
    (
        How::NotDurable,
        "create",
        "boot/",
        "the freeze before the swap makes it durable before anything names it",
    ),
    (How::NotDurable, "create", rejected::PATH, "the sync right behind it makes it durable"),
    (How::NotAtomic, "rename", "boot/", "before the swap nothing names it, or what it replaces is broken"),
    (How::NotAtomic, "rename", "ostree/boot.", "before the swap nothing names it"),
    (How::NotAtomic, "rename", "ostree/repo/refs/", "the old refs, which keep the same commits, go after it"),
];
/// The same for steps, which do not make anything durable; with the case in which it is so.
const LITTER: [(&str, &str, &str); 4] = [
    (
        "rollback and undeploy",
        "remove ostree/repo/refs/",
        "what the first change leaves, the second one removes",
    ),
    ("undeploy", "remove ostree/boot.", "links that no entry names stay until the next confirmation"),
    ("repair", "remove ostree/boot.", "the same"),
    ("repair", "remove boot/loader.", "all its files are written anew; an undeployment misses it"),
];

fn harmless(case: &str, mutation: &Mutation) -> bool {
    if let Mutation::Step(_, step) = mutation {
        return LITTER.iter().any(|(name, start, _)| *name == case && step.starts_with(start));
    }
    let Mutation::Operation(_, how, call, at) = mutation else { return false };
    HARMLESS.iter().any(|(h, c, path, _)| h == how && c == call && at.starts_with(path))
}

/// A filesystem on which one operation is not what it should be.
struct Mutant {
    model: Model,
    mutated: Option<(usize, How)>,
    /// Every operation that could be mutated, and what it is about.
    log: Vec<(&'static str, String)>,
}

impl Mutant {
    fn is(&mut self, call: &'static str, about: String) -> Option<How> {
        self.log.push((call, about));
        let number = self.log.len() - 1;
        self.mutated.filter(|(n, _)| *n == number).map(|(_, how)| how)
    }

    fn unsynced(&mut self, at: &At) {
        if self.is("create", at.to_string()) == Some(How::NotDurable) {
            self.model.lazy = Some(self.model.created);
        }
    }

    fn renamed(&mut self, from: &At, to: &At) {
        // A file is known by its last name.
        let made = self.log.iter_mut().rev().find(|(call, _)| *call == "create");
        if let Some((_, about)) = made.filter(|(_, about)| *about == from.to_string()) {
            *about = to.to_string();
        }
    }
}

impl Files for Mutant {
    type Error = Fault;

    fn node(&mut self, at: &At) -> Result<Option<Kind>, Fault> {
        self.model.node(at)
    }
    fn names(&mut self, at: &At) -> Result<Vec<String>, Fault> {
        self.model.names(at)
    }
    fn read(&mut self, at: &At, limit: usize) -> Result<Vec<u8>, Fault> {
        self.model.read(at, limit)
    }
    fn link_text(&mut self, at: &At) -> Result<String, Fault> {
        self.model.link_text(at)
    }
    fn same(&mut self, one: &At, other: &At) -> Result<bool, Fault> {
        self.model.same(one, other)
    }
    fn make_directory(&mut self, at: &At, mode: u32) -> Result<(), Fault> {
        self.model.make_directory(at, mode)
    }
    fn create(&mut self, at: &At, content: &[u8], mode: u32) -> Result<(), Fault> {
        self.unsynced(at);
        self.model.create(at, content, mode)
    }
    fn copy(&mut self, from: &At, to: &At) -> Result<(), Fault> {
        self.unsynced(to);
        self.model.copy(from, to)
    }
    fn symlink(&mut self, at: &At, text: &str) -> Result<(), Fault> {
        self.model.symlink(at, text)
    }
    fn rename(&mut self, from: &At, to: &At) -> Result<(), Fault> {
        self.renamed(from, to);
        match self.is("rename", to.to_string()) {
            Some(How::Dropped) => Ok(()),
            Some(How::NotAtomic) => {
                if self.model.node(to)?.is_some() {
                    self.model.unlink(to)?;
                }
                self.model.rename(from, to)
            }
            _ => self.model.rename(from, to),
        }
    }
    fn exchange(&mut self, from: &At, to: &At) -> Result<(), Fault> {
        match self.is("exchange", to.to_string()) {
            Some(How::Dropped) => Ok(()),
            Some(How::NotAtomic) => self.model.rename(from, to),
            _ => self.model.exchange(from, to),
        }
    }
    fn unlink(&mut self, at: &At) -> Result<(), Fault> {
        self.model.unlink(at)
    }
    fn remove_directory(&mut self, at: &At) -> Result<(), Fault> {
        self.model.remove_directory(at)
    }
    fn unlock(&mut self, at: &At) -> Result<(), Fault> {
        self.model.unlock(at)
    }
    fn touch(&mut self, at: &At) -> Result<(), Fault> {
        self.model.touch(at)
    }
    fn sync(&mut self, volume: Volume) -> Result<(), Fault> {
        match self.is("sync", format!("{volume:?}")) {
            Some(_) => Ok(()),
            None => self.model.sync(volume),
        }
    }
    fn freeze(&mut self, volume: Volume) -> Result<bool, Fault> {
        match self.is("freeze", format!("{volume:?}")) {
            Some(How::Dropped) => Ok(true),
            Some(_) => self.model.sync(volume).map(|()| true),
            None => self.model.freeze(volume),
        }
    }
}

/// A sysroot and what happens to it, in one boot.
struct Case {
    name: &'static str,
    start: State,
    orders: &'static [&'static [usize]],
    /// The commit of the first deployment is remembered as bad before anything else, as a confirmation has it.
    marks: bool,
    /// The sysroot is out of step in the beginning.
    broken: bool,
    judge: Judge,
    known: BTreeMap<u64, Option<String>>,
}

const OLDER: &str = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";

fn cases() -> Vec<Case> {
    let fresh = start(&Style { slots: true, ..PLAIN });
    let case = |name, start: &State, orders| Case {
        name,
        start: start.clone(),
        orders,
        marks: false,
        broken: false,
        judge: Judge::of(&fresh),
        known: BTreeMap::new(),
    };
    // What changes without a clean-up between them leave behind: both versions of everything.
    let worn = |fresh: &State| {
        let mut model = Model::new(fresh.clone(), false);
        for _ in 0..3 {
            let plan = plan::rearrange(&layout(&model.now), &[1, 0, 2]).unwrap();
            carry::carry_out(&mut model, &plan).unwrap();
        }
        model.now
    };
    // With one kernel, old links lead to other deployments than new ones of the same name.
    let one_kernel = start(&Style { slots: true, same_kernel: true, ..PLAIN });
    let shared = worn(&one_kernel);
    let worn = worn(&fresh);
    let mut marked = fresh.clone();
    let node = |body, mode| Node { body, dress: Dress::plain(mode) };
    marked.insert("ostree/bootward".into(), node(Body::Directory, 0o755));
    let list = rejected::with(Vec::new(), OLDER, 1, "it hung");
    marked.insert(rejected::PATH.into(), node(Body::File(Some(list.into_bytes().into())), 0o644));
    let mut broken = worn.clone();
    broken.retain(|path, node| {
        let link = path.starts_with("ostree/boot.") && !path["ostree/boot.".len()..].contains(['.', '/']);
        let second = &layout(&worn).entries[1];
        let kernel = path.starts_with(&format!("boot/{}/", second.boot_directory()));
        !(link && node.link().is_some() || kernel)
    });
    vec![
        Case { marks: true, ..case("confirm", &marked, &[&[1, 2]]) },
        case("rollback", &fresh, &[&[1, 0, 2]]),
        Case { judge: Judge::of(&shared), ..case("undeploy", &shared, &[&[0, 2]]) },
        Case {
            judge: Judge::of(&one_kernel),
            ..case("rollback and undeploy", &one_kernel, &[&[1, 0, 2], &[0, 2]])
        },
        Case { broken: true, ..case("repair", &broken, &[&[0, 1, 2]]) },
    ]
}

fn listed(state: &State) -> Vec<String> {
    match state.get(rejected::PATH).and_then(Node::content) {
        Some(list) => rejected::parse(list).into_iter().map(|r| r.commit).collect(),
        _ => Vec::new(),
    }
}

impl Case {
    /// The steps before the deployments change, and the first deployment's commit, where it is remembered.
    fn marking(&self) -> Option<(Vec<Step>, String)> {
        let bad = self.marks.then(|| layout(&self.start).entries[0].commit.clone())?;
        let list = self.start.get(rejected::PATH).and_then(Node::content)?;
        let text = rejected::with(rejected::parse(list), &bad, 2, "it was rolled back");
        let write = Step::Write(At::root(rejected::PATH), text);
        Some((vec![write, Step::Sync(Volume::Root)], bad))
    }

    /// Does it all on a filesystem of this kind; what failed, if anything did.
    fn carry(&self, files: &mut Mutant, mutation: &Mutation, steps: &mut Vec<Step>) -> Result<usize, String> {
        let mut left = |all: &mut Vec<Step>| {
            all.retain(|step| {
                steps.push(step.clone());
                !matches!(mutation, Mutation::Step(n, _) if *n == steps.len() - 1)
            });
        };
        let mut marked = 0;
        if let Some((mut marks, _)) = self.marking() {
            left(&mut marks);
            carry::steps(files, &marks, false).map_err(|e| e.to_string())?;
            marked = files.model.ops.len();
        }
        for order in self.orders {
            let mut plan = plan::rearrange(&layout(&files.model.now), order).map_err(|e| e.to_string())?;
            for part in [&mut plan.prepare, &mut plan.swap, &mut plan.clear] {
                left(part);
            }
            match mutation {
                Mutation::LateChecks => late(&mut plan),
                Mutation::EarlyClear => plan.prepare.append(&mut plan.clear),
                _ => {}
            }
            carry::carry_out(files, &plan).map_err(|e| match e.cause {
                Cause::Differs => format!("differs, swapped {}", e.swapped),
                _ => e.to_string(),
            })?;
        }
        Ok(marked)
    }

    fn mutant(&self, separate: bool, mutation: &Mutation) -> Mutant {
        let mutated = match mutation {
            Mutation::Operation(n, how, ..) => Some((*n, *how)),
            _ => None,
        };
        Mutant { model: Model::new(self.start.clone(), separate), mutated, log: Vec::new() }
    }

    /// The first thing that anybody notices.
    fn fault(&mut self, separate: bool, mutation: &Mutation) -> Option<String> {
        let mut files = self.mutant(separate, mutation);
        let marked = match self.carry(&mut files, mutation, &mut Vec::new()) {
            Ok(marked) => marked,
            Err(why) => return Some(why),
        };
        let model = files.model;
        if let Some(why) = self.unfinished(&model.now) {
            return Some(format!("in the end {why}"));
        }
        let mut fault = None;
        // Whoever was told that it is done may rely on it: every bootloader takes the new first one, and libostree
        // finds nothing out of step.
        let line = loader(&model.now);
        model.cuts_from(model.ops.len(), &mut |cut| {
            let stale = cut.loader.iter().map(loader).find(|found| *found != line);
            fault = stale.map(|line| format!("done, and the bootloader takes {line:?}"));
            let faults = layout(&cut.linux).faults;
            if !faults.is_empty() {
                fault = Some(format!("done, and {}", faults.join("; ")));
            }
            fault.is_none()
        });
        if let (None, Some((_, bad))) = (&fault, self.marking()) {
            model.cuts_from(marked, &mut |cut| {
                fault =
                    (!listed(&cut.linux).contains(&bad)).then(|| format!("{}: {bad} is forgotten", cut.name));
                fault.is_none()
            });
        }
        if fault.is_none() {
            model.cuts_from(0, &mut |cut| {
                fault = self.look(&cut.linux, &cut.loader).map(|why| format!("cut {}: {why}", cut.name));
                fault.is_none()
            });
        }
        fault
    }

    fn unfinished(&self, end: &State) -> Option<String> {
        let mut expected = order(&self.start);
        for order in self.orders {
            expected = order.iter().map(|i| expected[*i].clone()).collect();
        }
        let done = layout(end);
        let found: Vec<String> = done.entries.iter().map(|e| e.path()).collect();
        if found != expected || !done.faults.is_empty() || !done.unnamed.is_empty() {
            return Some(format!("{found:?}, {:?}, unnamed {:?}", done.faults, done.unnamed));
        }
        let origin = |path: &&String| path.starts_with("ostree/deploy/") && path.ends_with(".origin");
        let orphan = |path: &&String| !expected.iter().any(|d| **path == format!("{d}.origin"));
        if let Some(path) = end.keys().filter(origin).find(orphan) {
            return Some(format!("{path} is left over"));
        }
        // As many as deployments, each of another one.
        (done.refs.len() != expected.len()).then(|| format!("refs {:?}", done.refs))
    }

    /// What is wrong with a state, remembered: most mutants leave mostly the same ones.
    fn look(&mut self, linux: &State, views: &[State]) -> Option<String> {
        let mut lines: Vec<_> = views.iter().map(loader).collect();
        lines.sort();
        lines.dedup();
        let mut hasher = DefaultHasher::new();
        (linux, &lines).hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(known) = self.known.get(&hash) {
            return known.clone();
        }
        let found = self.wrong(linux, views);
        self.known.insert(hash, found.clone());
        found
    }

    fn wrong(&self, linux: &State, views: &[State]) -> Option<String> {
        let faults = self.judge.faults(linux, views);
        if let Some(fault) = faults.into_iter().find(|f| !self.broken || !f.starts_with("for libostree")) {
            return Some(fault);
        }
        for (path, whole) in &self.judge.whole {
            if linux.contains_key(path) && below(linux, path) != *whole {
                return Some(format!("half of {path} is among the deployments"));
            }
        }
        if self.marks && !listed(linux).contains(&OLDER.to_string()) {
            return Some("the list of bad commits is lost".into());
        }
        let refs = linux.iter().filter(|(path, _)| path.starts_with("ostree/repo/refs/heads/ostree/"));
        let mut kept = Vec::new();
        for (path, node) in refs {
            match &node.body {
                Body::File(Some(commit)) => kept.push(commit.to_vec()),
                Body::File(None) => return Some(format!("{path} is empty")),
                _ => {}
            }
        }
        let lost = |commit: &String| !kept.contains(&format!("{commit}\n").into_bytes());
        let gone = layout(linux).entries.into_iter().map(|e| e.commit).find(lost);
        gone.map(|commit| format!("no ref keeps {commit}"))
    }

    /// All mutants of it on a filesystem of this kind.
    fn mutants(&self, separate: bool) -> Vec<Mutation> {
        let mut files = self.mutant(separate, &Mutation::None);
        let mut steps = Vec::new();
        self.carry(&mut files, &Mutation::None, &mut steps).unwrap();
        let names = steps.iter().enumerate().map(|(n, step)| Mutation::Step(n, step.to_string()));
        let mut all: Vec<Mutation> = names.collect();
        for (number, (call, about)) in files.log.into_iter().enumerate() {
            let hows: &[How] = match call {
                "create" => &[How::NotDurable],
                "freeze" => &[How::Dropped, How::OnlySynced],
                "sync" => &[How::Dropped],
                _ => &[How::Dropped, How::NotAtomic],
            };
            all.extend(hows.iter().map(|how| Mutation::Operation(number, *how, call, about.clone())));
        }
        // Where nothing goes, the refs keep the same commits before and after.
        if steps.iter().any(|step| matches!(step, Step::Discard(_))) {
            all.push(Mutation::EarlyClear);
        }
        all
    }

    /// Whether the very same happens on the disk: nothing was there to be removed or replaced, or it was made already.
    fn idle(&self, separate: bool, mutation: &Mutation) -> bool {
        let [mut as_is, mut mutant] = [&Mutation::None, mutation].map(|m| self.mutant(separate, m));
        self.carry(&mut as_is, &Mutation::None, &mut Vec::new()).unwrap();
        let carried = self.carry(&mut mutant, mutation, &mut Vec::new());
        carried.is_ok() && as_is.model.ops == mutant.model.ops
    }

    /// Which new files of the boot directory can be damaged on their way to the medium without anybody's notice before
    /// the swap.
    fn unnoticed(&self, mutation: &Mutation) -> Vec<usize> {
        let mut count = self.mutant(false, mutation);
        self.carry(&mut count, mutation, &mut Vec::new()).unwrap();
        let created: Vec<&String> =
            count.log.iter().filter(|(c, _)| *c == "create").map(|(_, at)| at).collect();
        let in_boot = (0..created.len()).filter(|n| created[*n].starts_with("boot/"));
        let passes = |n: &usize| {
            let mut files = self.mutant(false, mutation);
            files.model.damage = Some(*n);
            self.carry(&mut files, mutation, &mut Vec::new()) != Err("differs, swapped false".into())
        };
        in_boot.filter(passes).collect()
    }
}

fn late(plan: &mut Plan) {
    let check = |step: &Step| matches!(step, Step::Check(..) | Step::CheckSame(..));
    let checks: Vec<Step> = plan.prepare.iter().filter(|s| check(s)).cloned().collect();
    plan.prepare.retain(|s| !check(s));
    plan.swap.extend(checks);
}

#[test]
fn each_read_back_is_missed() {
    let (mut mutants, mut killed) = (0, 0);
    for case in cases() {
        assert_eq!(case.unnoticed(&Mutation::None), [0; 0], "{}", case.name);
        let checks = |m: &Mutation| matches!(m, Mutation::Step(_, step) if step.starts_with("read back"));
        let left_out = case.mutants(false).into_iter().filter(checks);
        for mutation in left_out.chain([Mutation::LateChecks]) {
            mutants += 1;
            killed += usize::from(!case.unnoticed(&mutation).is_empty());
            assert!(!case.unnoticed(&mutation).is_empty(), "{}: nobody missed {mutation:?}", case.name);
        }
    }
    println!("read-backs left out or late: {mutants}, found: {killed}");
    assert!(mutants > 20, "only {mutants}");
}

/// How often a mutant was tried, and how often it was found; by what it is.
type Score = BTreeMap<String, (usize, usize)>;

fn tally(case: &mut Case, list: &mut BTreeMap<String, bool>, score: &mut Score) {
    for separate in [true, false] {
        assert_eq!(case.fault(separate, &Mutation::None), None, "{}, separate {separate}", case.name);
        for mutation in case.mutants(separate) {
            let (key, class) = match &mutation {
                // A read-back changes nothing on the disk: see the damaged writes.
                Mutation::Step(_, step) if step.starts_with("read back") => continue,
                Mutation::Step(n, step) => (format!("step {n}, {step}"), "step left out".into()),
                Mutation::Operation(n, how, call, at) => {
                    (format!("operation {n}, {call} {at}, {how:?}"), format!("{call} {how:?}"))
                }
                other => (format!("{other:?}"), format!("{other:?}")),
            };
            let key = format!("{}: {key}", case.name);
            // What the two kinds of filesystems have in common is one mutant; one of them has to find it.
            if list.get(&key) == Some(&true)
                || harmless(case.name, &mutation)
                || case.idle(separate, &mutation)
            {
                continue;
            }
            let found = case.fault(separate, &mutation).is_some();
            if list.insert(key, found).is_none() {
                score.entry(class.clone()).or_default().0 += 1;
            }
            score.entry(class).or_default().1 += usize::from(found);
        }
    }
}

fn all_are_found(name: &str, least: usize) {
    let mut case = cases().into_iter().find(|c| c.name == name).unwrap();
    let (mut list, mut score) = (BTreeMap::new(), Score::new());
    tally(&mut case, &mut list, &mut score);
    let lived: Vec<&String> = list.iter().filter(|(_, found)| !**found).map(|(key, _)| key).collect();
    let found = list.len() - lived.len();
    let classes: Vec<String> =
        score.iter().map(|(class, (tried, n))| format!("{class} {n}/{tried}")).collect();
    println!("{name}: {found} of {} mutants found: {}", list.len(), classes.join(", "));
    for key in &lived {
        println!("  lived: {key}");
    }
    assert!(lived.is_empty(), "{} mutants lived: {lived:#?}", lived.len());
    assert!(list.len() > least, "only {}", list.len());
}

#[test]
fn nothing_of_a_confirmation_can_be_left_out() {
    all_are_found("confirm", 30);
}

#[test]
fn nothing_of_a_rollback_can_be_left_out() {
    all_are_found("rollback", 30);
}

#[test]
fn nothing_of_an_undeployment_can_be_left_out() {
    all_are_found("undeploy", 30);
}

#[test]
fn nothing_of_two_changes_in_one_boot_can_be_left_out() {
    all_are_found("rollback and undeploy", 60);
}

#[test]
fn nothing_of_a_repair_can_be_left_out() {
    all_are_found("repair", 30);
}
