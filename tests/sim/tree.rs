//! A filesystem that loses power: it records operations on files, and makes every state that a cut could leave.
//!
//! Two readers see such a state. Linux replays the journal: the operations of one filesystem are kept in their order, up
//! to any point since the last sync, and each filesystem has its own point. The bootloader replays nothing: of what was
//! changed since the last freeze it may see the old or the new version of each directory by itself, and files whose
//! content is not there yet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use bootward::storage::{At, Files, Node as Kind, Volume};

/// One thing on a filesystem.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Node {
    Directory,
    /// Its content; `None` when it was never written out.
    File(Option<Vec<u8>>),
    Link(String),
}

/// Paths from the physical root; the boot directory is `boot` in it, on one filesystem or on its own.
pub type State = BTreeMap<String, Node>;

/// One operation, as the log of a filesystem has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Add(String, Node),
    /// The content of a new file became durable.
    Content(String, Vec<u8>),
    Rename(String, String),
    /// Links only.
    Exchange(String, String),
    Remove(String),
    Sync,
    Freeze,
}

/// The filesystem that a path is on: 1 is the boot filesystem, where there is one.
fn device(path: &str, separate: bool) -> usize {
    usize::from(separate && (path == "boot" || path.starts_with("boot/")))
}

/// The recorder: what the code under test writes to.
#[derive(Clone)]
pub struct Model {
    pub start: State,
    pub now: State,
    pub ops: Vec<(usize, Op)>,
    pub separate: bool,
    /// Fails the operation with this index.
    pub fail_at: Option<usize>,
    /// The content of the file created with this number is damaged on its way to the medium.
    pub damage: Option<usize>,
    pub operations: usize,
    pub created: usize,
}

/// An operation that the model refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault(pub String);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Model {
    pub fn new(start: State, separate: bool) -> Self {
        Model {
            now: start.clone(),
            start,
            ops: Vec::new(),
            separate,
            fail_at: None,
            damage: None,
            operations: 0,
            created: 0,
        }
    }

    fn path(at: &At) -> String {
        match at.volume {
            Volume::Root => at.path.clone(),
            Volume::Boot => format!("boot/{}", at.path),
        }
    }

    /// Every operation on files passes here, so that any of them can fail.
    fn operation(&mut self, what: &str) -> Result<(), Fault> {
        let index = self.operations;
        self.operations += 1;
        if self.fail_at == Some(index) { Err(Fault(format!("injected failure of {what}"))) } else { Ok(()) }
    }

    fn record(&mut self, path: &str, op: Op) -> Result<(), Fault> {
        let fs = device(path, self.separate);
        apply(&mut self.now, &op).map_err(Fault)?;
        self.ops.push((fs, op));
        Ok(())
    }
}

/// Does one operation; refused where a real filesystem would refuse it.
fn apply(state: &mut State, op: &Op) -> Result<(), String> {
    let parent = |state: &State, path: &str| {
        path.rsplit_once('/').is_none_or(|(above, _)| state.get(above) == Some(&Node::Directory))
    };
    match op {
        Op::Add(path, node) => {
            if state.contains_key(path) || !parent(state, path) {
                return Err(format!("cannot add {path}"));
            }
            state.insert(path.clone(), node.clone());
        }
        Op::Content(path, content) => match state.get_mut(path) {
            Some(node @ Node::File(_)) => *node = Node::File(Some(content.clone())),
            _ => return Err(format!("no file {path}")),
        },
        Op::Rename(from, to) => {
            let Some(node) = state.get(from).cloned() else { return Err(format!("no {from} to rename")) };
            if !parent(state, to) || state.get(to) == Some(&Node::Directory) {
                return Err(format!("cannot rename to {to}"));
            }
            let below: Vec<String> =
                state.keys().filter(|k| k.starts_with(&format!("{from}/"))).cloned().collect();
            for path in below {
                let node = state.remove(&path).unwrap();
                state.insert(format!("{to}{}", &path[from.len()..]), node);
            }
            state.remove(from);
            state.insert(to.clone(), node);
        }
        Op::Exchange(one, other) => match (state.get(one).cloned(), state.get(other).cloned()) {
            (Some(a @ Node::Link(_)), Some(b @ Node::Link(_))) => {
                state.insert(one.clone(), b);
                state.insert(other.clone(), a);
            }
            found => return Err(format!("cannot exchange {one} and {other}: {found:?}")),
        },
        Op::Remove(path) => {
            if state.keys().any(|k| k.starts_with(&format!("{path}/"))) || state.remove(path).is_none() {
                return Err(format!("cannot remove {path}"));
            }
        }
        Op::Sync | Op::Freeze => {}
    }
    Ok(())
}

impl Files for Model {
    type Error = Fault;

    fn node(&mut self, at: &At) -> Result<Option<Kind>, Fault> {
        self.operation("look")?;
        Ok(self.now.get(&Self::path(at)).map(|n| match n {
            Node::Directory => Kind::Directory,
            Node::File(_) => Kind::File,
            Node::Link(_) => Kind::Link,
        }))
    }

    fn names(&mut self, at: &At) -> Result<Vec<String>, Fault> {
        self.operation("list")?;
        let above = format!("{}/", Self::path(at));
        let names = self.now.keys().filter_map(|k| k.strip_prefix(&above)).filter(|n| !n.contains('/'));
        Ok(names.map(String::from).collect())
    }

    fn read(&mut self, at: &At, _: usize) -> Result<Vec<u8>, Fault> {
        self.operation("read")?;
        match self.now.get(&Self::path(at)) {
            Some(Node::File(Some(content))) => Ok(content.clone()),
            other => Err(Fault(format!("read {at}: {other:?}"))),
        }
    }

    fn link_text(&mut self, at: &At) -> Result<String, Fault> {
        self.operation("readlink")?;
        match self.now.get(&Self::path(at)) {
            Some(Node::Link(text)) => Ok(text.clone()),
            other => Err(Fault(format!("readlink {at}: {other:?}"))),
        }
    }

    fn same(&mut self, one: &At, other: &At) -> Result<bool, Fault> {
        self.operation("compare")?;
        Ok(self.now.get(&Self::path(one)) == self.now.get(&Self::path(other)))
    }

    fn make_directory(&mut self, at: &At, _: u32) -> Result<(), Fault> {
        self.operation("mkdir")?;
        let path = Self::path(at);
        self.record(&path, Op::Add(path.clone(), Node::Directory))
    }

    fn create(&mut self, at: &At, content: &[u8], _: u32) -> Result<(), Fault> {
        self.operation("create")?;
        let path = Self::path(at);
        let mut content = content.to_vec();
        if self.damage == Some(self.created) && !content.is_empty() {
            content[0] ^= 1;
        }
        self.created += 1;
        self.record(&path, Op::Add(path.clone(), Node::File(None)))?;
        self.operation("write")?;
        self.record(&path, Op::Content(path.clone(), content))
    }

    fn copy(&mut self, from: &At, to: &At) -> Result<(), Fault> {
        let content = self.read(from, usize::MAX)?;
        self.create(to, &content, 0o644)
    }

    fn symlink(&mut self, at: &At, text: &str) -> Result<(), Fault> {
        self.operation("symlink")?;
        let path = Self::path(at);
        self.record(&path, Op::Add(path.clone(), Node::Link(text.into())))
    }

    fn rename(&mut self, from: &At, to: &At) -> Result<(), Fault> {
        self.operation("rename")?;
        let (from, to) = (Self::path(from), Self::path(to));
        self.record(&from.clone(), Op::Rename(from, to))
    }

    fn exchange(&mut self, from: &At, to: &At) -> Result<(), Fault> {
        if !self.now.contains_key(&Self::path(to)) {
            return self.rename(from, to);
        }
        self.operation("exchange")?;
        let (from, to) = (Self::path(from), Self::path(to));
        self.record(&from.clone(), Op::Exchange(from, to))
    }

    fn unlink(&mut self, at: &At) -> Result<(), Fault> {
        self.operation("unlink")?;
        let path = Self::path(at);
        self.record(&path, Op::Remove(path.clone()))
    }

    fn remove_directory(&mut self, at: &At) -> Result<(), Fault> {
        self.operation("rmdir")?;
        let path = Self::path(at);
        self.record(&path, Op::Remove(path.clone()))
    }

    fn unlock(&mut self, _: &At) -> Result<(), Fault> {
        self.operation("unlock")
    }

    fn touch(&mut self, _: &At) -> Result<(), Fault> {
        self.operation("touch")
    }

    fn sync(&mut self, volume: Volume) -> Result<(), Fault> {
        self.operation("sync")?;
        let fs = usize::from(self.separate && volume == Volume::Boot);
        self.ops.push((fs, Op::Sync));
        Ok(())
    }

    fn freeze(&mut self, volume: Volume) -> Result<bool, Fault> {
        self.operation("freeze")?;
        let fs = usize::from(self.separate && volume == Volume::Boot);
        self.ops.push((fs, Op::Freeze));
        Ok(true)
    }
}

/// One cut: how many operations each filesystem kept, what Linux sees and what the bootloader may see.
pub struct Cut {
    pub name: String,
    pub linux: State,
    /// Distinct views, the one that Linux has among them.
    pub loader: Vec<State>,
}

impl Model {
    /// The operations that a reader of the journals may find: for each filesystem any number since its last barrier.
    ///
    /// A filesystem may lag behind the other one as long as nothing waited for it in between.
    fn points(&self) -> Vec<Vec<usize>> {
        let count = self.ops.len();
        let last = |fs: usize, upto: usize| {
            let barrier = |(i, (f, op)): (usize, &(usize, Op))| {
                (*f == fs && matches!(op, Op::Sync | Op::Freeze)).then_some(i + 1)
            };
            self.ops.iter().enumerate().take(upto).filter_map(barrier).next_back().unwrap_or(0)
        };
        // A point is named by the operations of that filesystem before it, so that equal ones are found.
        let own = |fs: usize, upto: usize| self.ops.iter().take(upto).filter(|(f, _)| *f == fs).count();
        let mut seen = BTreeSet::new();
        let mut points = Vec::new();
        for now in 0..=count {
            if !self.separate {
                points.push(vec![now]);
                continue;
            }
            for root in last(0, now)..=now {
                for boot in last(1, now)..=now {
                    if seen.insert((own(0, root), own(1, boot))) {
                        points.push(vec![root, boot]);
                    }
                }
            }
        }
        points
    }

    fn upto(&self, point: &[usize]) -> State {
        let mut state = self.start.clone();
        for (index, (fs, op)) in self.ops.iter().enumerate() {
            if index < point[*fs] {
                apply(&mut state, op).unwrap_or_else(|e| panic!("operation {index}: {e}"));
            }
        }
        state
    }

    /// Shows every state that a cut could leave.
    pub fn cuts(&self, mut visit: impl FnMut(&Cut)) {
        for point in self.points() {
            let linux = self.upto(&point);
            let loader = self.loader_views(&point);
            visit(&Cut { name: format!("{point:?}"), linux, loader });
        }
    }

    /// What is on the boot filesystem's final place: everything up to the last freeze, and of what follows each
    /// directory by itself in any of its versions: all old, all new, one old, one new.
    fn loader_views(&self, point: &[usize]) -> Vec<State> {
        let fs = usize::from(self.separate);
        let now = point[fs];
        let freeze = |(i, (f, op)): (usize, &(usize, Op))| (*f == fs && *op == Op::Freeze).then_some(i + 1);
        let frozen = self.ops.iter().enumerate().take(now).filter_map(freeze).next_back().unwrap_or(0);
        let at = |upto: usize| {
            let mut points = vec![0; point.len()];
            points[fs] = upto;
            let mut state = self.upto(&points);
            state.retain(|path, _| path == "boot" || path.starts_with("boot/"));
            state
        };
        let (old, new) = (at(frozen), at(now));
        let mut views = vec![new.clone()];
        if old != new {
            let above = |path: &String| path.rsplit_once('/').map_or("", |(above, _)| above).to_string();
            let changed: BTreeSet<String> = old
                .keys()
                .chain(new.keys())
                .filter(|path| old.get(*path) != new.get(*path))
                .map(above)
                .collect();
            for directory in &changed {
                views.push(mixed(&old, &new, directory));
                views.push(mixed(&new, &old, directory));
            }
            views.push(old);
        }
        views.sort();
        views.dedup();
        views
    }
}

/// `base`, but the names in one directory as `other` has them. What they lead to is there if `base` has it; else its
/// blocks hold nothing of use.
fn mixed(base: &State, other: &State, directory: &str) -> State {
    let inside = |path: &str| path.rsplit_once('/').map_or("", |(above, _)| above) == directory;
    let mut state: State =
        base.iter().filter(|(path, _)| !inside(path)).map(|(p, n)| (p.clone(), n.clone())).collect();
    for (path, node) in other.iter().filter(|(path, _)| inside(path)) {
        let there = base.get(path) == Some(node) || matches!(node, Node::Link(_) | Node::Directory);
        state.insert(path.clone(), if there { node.clone() } else { Node::File(None) });
    }
    state
}

/// Reads a directory into a state; what `skip` says stays out.
pub fn load(root: &Path, skip: &dyn Fn(&str) -> bool) -> State {
    let mut state = State::new();
    walk(root, "", skip, &mut state);
    state
}

fn walk(root: &Path, path: &str, skip: &dyn Fn(&str) -> bool, state: &mut State) {
    for entry in fs::read_dir(root.join(path)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if path.is_empty() { name } else { format!("{path}/{name}") };
        if skip(&path) {
            continue;
        }
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            let text = fs::read_link(entry.path()).unwrap().into_os_string().into_string().unwrap();
            state.insert(path, Node::Link(text));
        } else if kind.is_dir() {
            state.insert(path.clone(), Node::Directory);
            walk(root, &path, skip, state);
        } else {
            state.insert(path, Node::File(Some(fs::read(entry.path()).unwrap())));
        }
    }
}

/// Writes a state into an empty directory. Files that were never written out are full of NUL.
pub fn store(state: &State, root: &Path) {
    for (path, node) in state {
        let at = root.join(path);
        match node {
            Node::Directory => fs::create_dir(&at).unwrap(),
            Node::Link(text) => symlink(text, &at).unwrap(),
            Node::File(content) => {
                fs::write(&at, content.clone().unwrap_or(vec![0; 64])).unwrap();
                if path.ends_with("/init") {
                    fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
                }
            }
        }
    }
}
