//! A filesystem that loses power: it records operations on files, and makes every state that a cut could leave.
//!
//! Two readers see such a state. Linux replays the journal: the operations of one filesystem are kept in their order, up
//! to any point since the last sync, and each filesystem has its own point. The bootloader replays nothing: of what was
//! changed since the last freeze it may see the old or the new version of each directory by itself, and files whose
//! content is not there yet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;
use std::rc::Rc;

use bootward::ostree::tree::Meta;
use bootward::storage::{At, Files, Look, Node as Kind, Room, Sealed, Trees, Volume};
use bootward::sys::files::Disk;

/// Owner, permissions and extended attributes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Dress {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Dress {
    pub fn of(meta: &Meta) -> Rc<Self> {
        Rc::new(Dress {
            uid: meta.uid,
            gid: meta.gid,
            mode: meta.mode & 0o7777,
            attributes: meta.attributes.clone(),
        })
    }

    /// What belongs to root and has no attributes.
    pub fn plain(mode: u32) -> Rc<Self> {
        Rc::new(Dress { uid: 0, gid: 0, mode, attributes: Vec::new() })
    }
}

/// What something on a filesystem is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Body {
    Directory,
    /// Its content; `None` when it was never written out. Second names share it.
    File(Option<Rc<[u8]>>),
    Link(String),
}

/// One thing on a filesystem.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Node {
    pub body: Body,
    pub dress: Rc<Dress>,
}

impl Node {
    fn is_directory(&self) -> bool {
        self.body == Body::Directory
    }

    /// The content of a file that was written out.
    pub fn content(&self) -> Option<&[u8]> {
        match &self.body {
            Body::File(content) => content.as_deref(),
            _ => None,
        }
    }

    pub fn link(&self) -> Option<&str> {
        match &self.body {
            Body::Link(text) => Some(text),
            _ => None,
        }
    }
}

/// Paths from the physical root; the boot directory is `boot` in it, on one filesystem or on its own.
pub type State = BTreeMap<String, Node>;

/// One operation, as the log of a filesystem has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Add(String, Node),
    /// The content of a new file became durable.
    Content(String, Rc<[u8]>),
    /// More content, which is durable only after the next barrier.
    Append(String, Rc<[u8]>),
    Dress(String, Rc<Dress>),
    /// A second name.
    Second(String, String),
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
    /// What is said to be left of each volume.
    pub room: Room,
    /// The file created with this number is not synced: its content is on the medium after the next barrier only.
    pub lazy: Option<usize>,
    pub pending: Vec<(String, Rc<[u8]>)>,
}

/// What became of content that no barrier had made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Volatile {
    Kept,
    Dropped,
    /// The length is right, the bytes are not.
    Zeroed,
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
            room: Room { bytes: 1 << 40, files: None },
            lazy: None,
            pending: Vec::new(),
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

    fn add(&mut self, at: &At, body: Body, dress: Rc<Dress>) -> Result<(), Fault> {
        let path = Self::path(at);
        self.record(&path, Op::Add(path.clone(), Node { body, dress }))
    }

    /// What was not synced by itself reaches the medium with a barrier.
    fn write_back(&mut self, fs: usize) {
        for (path, content) in std::mem::take(&mut self.pending) {
            if device(&path, self.separate) == fs {
                self.ops.push((fs, Op::Content(path, content)));
            } else {
                self.pending.push((path, content));
            }
        }
    }

    fn record(&mut self, path: &str, op: Op) -> Result<(), Fault> {
        let fs = device(path, self.separate);
        apply(&mut self.now, &op).map_err(Fault)?;
        match &op {
            Op::Rename(from, to) => {
                self.pending.retain(|(path, _)| path != to);
                self.pending.iter_mut().filter(|(p, _)| p == from).for_each(|(p, _)| p.clone_from(to));
            }
            Op::Remove(gone) => self.pending.retain(|(path, _)| path != gone),
            _ => {}
        }
        self.ops.push((fs, op));
        Ok(())
    }
}

/// Whether something is below a directory.
fn occupied(state: &State, path: &str) -> bool {
    let below = format!("{path}/");
    state.range(below.clone()..).next().is_some_and(|(k, _)| k.starts_with(&below))
}

/// Does one operation; refused where a real filesystem would refuse it.
fn apply(state: &mut State, op: &Op) -> Result<(), String> {
    let parent = |state: &State, path: &str| {
        path.rsplit_once('/').is_none_or(|(above, _)| state.get(above).is_some_and(Node::is_directory))
    };
    match op {
        Op::Add(path, node) => {
            if state.contains_key(path) || !parent(state, path) {
                return Err(format!("cannot add {path}"));
            }
            state.insert(path.clone(), node.clone());
        }
        Op::Content(path, content) => match state.get_mut(path).map(|n| &mut n.body) {
            Some(Body::File(old)) => *old = Some(content.clone()),
            _ => return Err(format!("no file {path}")),
        },
        Op::Append(path, more) => match state.get_mut(path).map(|n| &mut n.body) {
            Some(Body::File(old)) => {
                let whole = [old.as_deref().unwrap_or_default(), &**more].concat();
                *old = Some(whole.into());
            }
            _ => return Err(format!("no file {path}")),
        },
        Op::Dress(path, dress) => match state.get_mut(path) {
            Some(node) => node.dress = dress.clone(),
            None => return Err(format!("no {path} to dress")),
        },
        Op::Second(from, to) => match state.get(from).cloned() {
            Some(node) if !node.is_directory() && !state.contains_key(to) && parent(state, to) => {
                state.insert(to.clone(), node);
            }
            found => return Err(format!("cannot link {from} to {to}: {found:?}")),
        },
        Op::Rename(from, to) => {
            let Some(node) = state.get(from).cloned() else { return Err(format!("no {from} to rename")) };
            // Over an empty directory goes another directory, and nothing else.
            let over = state
                .get(to)
                .is_none_or(|old| old.is_directory() == node.is_directory() && !occupied(state, to));
            if !parent(state, to) || !over {
                return Err(format!("cannot rename to {to}"));
            }
            let above = format!("{from}/");
            let below: Vec<String> = state
                .range(above.clone()..)
                .map(|(k, _)| k.clone())
                .take_while(|k| k.starts_with(&above))
                .collect();
            for path in below {
                let node = state.remove(&path).unwrap();
                state.insert(format!("{to}{}", &path[from.len()..]), node);
            }
            state.remove(from);
            state.insert(to.clone(), node);
        }
        Op::Exchange(one, other) => match (state.get(one).cloned(), state.get(other).cloned()) {
            (Some(a), Some(b)) if a.link().is_some() && b.link().is_some() => {
                state.insert(one.clone(), b);
                state.insert(other.clone(), a);
            }
            found => return Err(format!("cannot exchange {one} and {other}: {found:?}")),
        },
        Op::Remove(path) => {
            if occupied(state, path) || state.remove(path).is_none() {
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
        Ok(self.now.get(&Self::path(at)).map(|n| match n.body {
            Body::Directory => Kind::Directory,
            Body::File(_) => Kind::File,
            Body::Link(_) => Kind::Link,
        }))
    }

    fn names(&mut self, at: &At) -> Result<Vec<String>, Fault> {
        self.operation("list")?;
        let path = Self::path(at);
        if !self.now.get(&path).is_some_and(Node::is_directory) {
            return Err(Fault(format!("{at} is no directory")));
        }
        let above = format!("{path}/");
        let below = self.now.range(above.clone()..).map_while(|(k, _)| k.strip_prefix(&above));
        Ok(below.filter(|n| !n.contains('/')).map(String::from).collect())
    }

    fn read(&mut self, at: &At, limit: usize) -> Result<Vec<u8>, Fault> {
        self.operation("read")?;
        match self.now.get(&Self::path(at)).and_then(Node::content) {
            Some(content) if content.len() <= limit => Ok(content.to_vec()),
            other => Err(Fault(format!("read {at}: {other:?}"))),
        }
    }

    fn link_text(&mut self, at: &At) -> Result<String, Fault> {
        self.operation("readlink")?;
        let node = self.now.get(&Self::path(at));
        node.and_then(Node::link).map(String::from).ok_or_else(|| Fault(format!("readlink {at}: {node:?}")))
    }

    fn same(&mut self, one: &At, other: &At) -> Result<bool, Fault> {
        self.operation("compare")?;
        let content = |at: &At| self.now.get(&Self::path(at)).map(|n| n.body.clone());
        Ok(content(one) == content(other))
    }

    fn make_directory(&mut self, at: &At, mode: u32) -> Result<(), Fault> {
        self.operation("mkdir")?;
        let path = Self::path(at);
        if self.now.contains_key(&path) {
            return Ok(());
        }
        self.add(at, Body::Directory, Dress::plain(mode))
    }

    fn create(&mut self, at: &At, content: &[u8], mode: u32) -> Result<(), Fault> {
        self.operation("create")?;
        let path = Self::path(at);
        let mut content = content.to_vec();
        if self.damage == Some(self.created) && !content.is_empty() {
            content[0] ^= 1;
        }
        let lazy = self.lazy == Some(self.created);
        self.created += 1;
        self.add(at, Body::File(None), Dress::plain(mode))?;
        self.operation("write")?;
        let content: Rc<[u8]> = content.into();
        if lazy {
            apply(&mut self.now, &Op::Content(path.clone(), content.clone())).map_err(Fault)?;
            self.pending.push((path, content));
            return Ok(());
        }
        self.record(&path, Op::Content(path.clone(), content))
    }

    fn copy(&mut self, from: &At, to: &At) -> Result<(), Fault> {
        let content = self.read(from, usize::MAX)?;
        self.create(to, &content, 0o644)
    }

    fn symlink(&mut self, at: &At, text: &str) -> Result<(), Fault> {
        self.operation("symlink")?;
        self.add(at, Body::Link(text.into()), Dress::plain(0o777))
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
        self.write_back(fs);
        self.ops.push((fs, Op::Sync));
        Ok(())
    }

    fn freeze(&mut self, volume: Volume) -> Result<bool, Fault> {
        self.operation("freeze")?;
        let fs = usize::from(self.separate && volume == Volume::Boot);
        self.write_back(fs);
        self.ops.push((fs, Op::Freeze));
        Ok(true)
    }
}

/// A file that is being written.
pub struct Draft(String);

impl Trees for Model {
    type Draft = Draft;
    type Source = Rc<[u8]>;

    fn draft(&mut self, at: &At) -> Result<Draft, Fault> {
        self.operation("draft")?;
        self.add(at, Body::File(None), Dress::plain(0o600))?;
        Ok(Draft(Self::path(at)))
    }

    fn resume(&mut self, at: &At) -> Result<(Draft, u64), Fault> {
        self.operation("resume")?;
        match self.now.get(&Self::path(at)).map(|n| &n.body) {
            Some(Body::File(content)) => {
                let length = content.as_ref().map_or(0, |c| c.len() as u64);
                Ok((Draft(Self::path(at)), length))
            }
            other => Err(Fault(format!("resume {at}: {other:?}"))),
        }
    }

    fn append(&mut self, draft: &mut Draft, data: &[u8]) -> Result<(), Fault> {
        self.operation("append")?;
        let mut data = data.to_vec();
        if self.damage == Some(self.created) && !data.is_empty() {
            data[0] ^= 1;
        }
        self.created += 1;
        self.record(&draft.0, Op::Append(draft.0.clone(), data.into()))
    }

    fn seal(&mut self, draft: Draft, meta: &Meta) -> Result<(), Fault> {
        self.operation("seal")?;
        // A file that nothing was written to is empty, and whole.
        if self.now.get(&draft.0).is_some_and(|n| n.body == Body::File(None)) {
            self.record(&draft.0, Op::Append(draft.0.clone(), Rc::new([])))?;
        }
        self.record(&draft.0, Op::Dress(draft.0.clone(), Dress::of(meta)))
    }

    fn symlink_with(&mut self, at: &At, text: &str, meta: &Meta) -> Result<(), Fault> {
        self.operation("symlink")?;
        self.add(at, Body::Link(text.into()), Dress::plain(0o777))?;
        self.operation("dress link")?;
        let path = Self::path(at);
        self.record(&path, Op::Dress(path.clone(), Dress::of(meta)))
    }

    fn dress(&mut self, at: &At, meta: &Meta) -> Result<(), Fault> {
        self.operation("dress")?;
        let path = Self::path(at);
        self.record(&path, Op::Dress(path.clone(), Dress::of(meta)))
    }

    fn meta(&mut self, at: &At) -> Result<Meta, Fault> {
        self.operation("meta")?;
        let Some(node) = self.now.get(&Self::path(at)) else { return Err(Fault(format!("no {at}"))) };
        let kind = match node.body {
            Body::Directory => 0o040_000,
            Body::File(_) => 0o100_000,
            Body::Link(_) => 0o120_000,
        };
        let Dress { uid, gid, mode, attributes } = (*node.dress).clone();
        Ok(Meta { uid, gid, mode: kind | mode, attributes })
    }

    fn hard_link(&mut self, from: &At, to: &At) -> Result<(), Fault> {
        self.operation("link")?;
        let (from, to) = (Self::path(from), Self::path(to));
        if device(&from, self.separate) != device(&to, self.separate) {
            return Err(Fault(format!("{from} and {to} are not on one filesystem")));
        }
        self.record(&from.clone(), Op::Second(from, to))
    }

    fn open(&mut self, at: &At) -> Result<(Rc<[u8]>, u64), Fault> {
        self.operation("open")?;
        match self.now.get(&Self::path(at)).map(|n| &n.body) {
            // What was never written out reads as NUL.
            Some(Body::File(content)) => {
                let content = content.clone().unwrap_or_else(|| vec![0; 64].into());
                let length = content.len() as u64;
                Ok((content, length))
            }
            other => Err(Fault(format!("open {at}: {other:?}"))),
        }
    }

    fn read_at(&mut self, source: &mut Rc<[u8]>, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.operation("read")?;
        let rest = source.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn lock(&mut self, _: &At) -> Result<(), Fault> {
        self.operation("lock")
    }

    fn owner(&self) -> (u32, u32) {
        (0, 0)
    }

    fn look(&mut self, at: &At) -> Result<Option<Look>, Fault> {
        self.operation("look")?;
        Ok(self.now.get(&Self::path(at)).map(|n| match &n.body {
            Body::Directory => Look { node: Kind::Directory, length: 4096, changed: (0, 0) },
            Body::File(content) => {
                let length = content.as_ref().map_or(64, |c| c.len() as u64);
                Look { node: Kind::File, length, changed: (0, 0) }
            }
            Body::Link(text) => Look { node: Kind::Link, length: text.len() as u64, changed: (0, 0) },
        }))
    }

    fn stamp(&mut self, _: &At, _: (i64, i64)) -> Result<(), Fault> {
        self.operation("stamp")
    }

    fn whiteout(&mut self, at: &At, _: &Meta) -> Result<(), Fault> {
        Err(Fault(format!("no device {at} in this model")))
    }

    fn sealed(&mut self, at: &At) -> Result<Sealed, Fault> {
        self.operation(&format!("ask for the digest of {at}"))?;
        Ok(Sealed::Never)
    }

    fn seal_content(&mut self, at: &At) -> Result<bool, Fault> {
        self.operation(&format!("switch fs-verity on for {at}"))?;
        Ok(false)
    }

    fn room(&mut self, _: Volume) -> Result<Room, Fault> {
        self.operation("room")?;
        Ok(self.room)
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
    fn points(&self, from: usize) -> Vec<Vec<usize>> {
        let count = self.ops.len();
        let last = |fs: usize, upto: usize| self.barrier(fs, upto);
        // A point is named by the operations of that filesystem before it, so that equal ones are found.
        let own = |fs: usize, upto: usize| self.ops.iter().take(upto).filter(|(f, _)| *f == fs).count();
        let mut seen = BTreeSet::new();
        let mut points = Vec::new();
        for now in from..=count {
            if !self.separate {
                // What came before the first of these operations may be lost all the same.
                let first = if now == from { last(0, now) } else { now };
                points.extend((first..=now).map(|root| vec![root]));
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

    /// The last barrier of a filesystem among the first operations.
    fn barrier(&self, fs: usize, upto: usize) -> usize {
        let barrier = |(f, op): &(usize, Op)| *f == fs && matches!(op, Op::Sync | Op::Freeze);
        self.ops.iter().take(upto).rposition(barrier).map_or(0, |index| index + 1)
    }

    fn upto(&self, point: &[usize], volatile: Volatile) -> State {
        let mut state = self.start.clone();
        let durable: Vec<usize> =
            point.iter().enumerate().map(|(fs, &upto)| self.barrier(fs, upto)).collect();
        for (index, (fs, op)) in self.ops.iter().enumerate().filter(|(index, (fs, _))| *index < point[*fs]) {
            let done = match (op, volatile) {
                (Op::Append(..), Volatile::Dropped) if index >= durable[*fs] => Ok(()),
                (Op::Append(path, more), Volatile::Zeroed) if index >= durable[*fs] => {
                    apply(&mut state, &Op::Append(path.clone(), vec![0; more.len()].into()))
                }
                _ => apply(&mut state, op),
            };
            done.unwrap_or_else(|e| panic!("operation {index}: {e}"));
        }
        state
    }

    /// Shows every state that a cut could leave.
    pub fn cuts(&self, mut visit: impl FnMut(&Cut)) {
        self.cuts_from(0, &mut |cut| {
            visit(cut);
            true
        });
    }

    /// Shows every state that a cut could leave after so many operations, until `visit` has seen enough.
    pub fn cuts_from(&self, from: usize, visit: &mut dyn FnMut(&Cut) -> bool) {
        for point in self.points(from) {
            let loader = self.loader_views(&point);
            let mut seen: Vec<State> = Vec::new();
            for volatile in [Volatile::Kept, Volatile::Dropped, Volatile::Zeroed] {
                let linux = self.upto(&point, volatile);
                if seen.contains(&linux) {
                    continue;
                }
                seen.push(linux.clone());
                if !visit(&Cut { name: format!("{point:?} {volatile:?}"), linux, loader: loader.clone() }) {
                    return;
                }
            }
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
            let mut state = self.upto(&points, Volatile::Kept);
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
/// blocks hold nothing of use. A link that was moved within the directory is there under either name.
fn mixed(base: &State, other: &State, directory: &str) -> State {
    let inside = |path: &str| path.rsplit_once('/').map_or("", |(above, _)| above) == directory;
    let mut state: State =
        base.iter().filter(|(path, _)| !inside(path)).map(|(p, n)| (p.clone(), n.clone())).collect();
    for (path, node) in other.iter().filter(|(path, _)| inside(path)) {
        let there = match &node.body {
            Body::Directory => true,
            Body::File(_) => base.get(path) == Some(node),
            Body::Link(_) => base.iter().any(|(other, found)| inside(other) && found == node),
        };
        let lost = || Node { body: Body::File(None), dress: node.dress.clone() };
        state.insert(path.clone(), if there { node.clone() } else { lost() });
    }
    state
}

/// Reads a directory into a state; what `skip` says stays out.
pub fn load(root: &Path, skip: &dyn Fn(&str) -> bool) -> State {
    let mut state = State::new();
    let mut disk = Disk::open(root, root).unwrap();
    walk(root, "", &mut disk, skip, &mut state);
    state
}

fn walk(root: &Path, path: &str, disk: &mut Disk, skip: &dyn Fn(&str) -> bool, state: &mut State) {
    for entry in fs::read_dir(root.join(path)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if path.is_empty() { name } else { format!("{path}/{name}") };
        if skip(&path) {
            continue;
        }
        let kind = entry.file_type().unwrap();
        let dress = Dress::of(&disk.meta(&At::root(path.clone())).unwrap());
        let body = if kind.is_symlink() {
            Body::Link(fs::read_link(entry.path()).unwrap().into_os_string().into_string().unwrap())
        } else if kind.is_dir() {
            Body::Directory
        } else {
            Body::File(Some(fs::read(entry.path()).unwrap().into()))
        };
        state.insert(path.clone(), Node { body, dress });
        if kind.is_dir() {
            walk(root, &path, disk, skip, state);
        }
    }
}

/// Writes a state into an empty directory. Files that were never written out are full of NUL.
pub fn store(state: &State, root: &Path) {
    let mut disk = None;
    for (path, Node { body, dress }) in state {
        let at = root.join(path);
        match body {
            Body::Directory => fs::create_dir(&at).unwrap(),
            Body::Link(text) => symlink(text, &at).unwrap(),
            Body::File(content) => fs::write(&at, content.as_deref().unwrap_or(&[0; 64])).unwrap(),
        }
        if (dress.uid, dress.gid) != (0, 0) {
            lchown(&at, Some(dress.uid), Some(dress.gid)).unwrap();
        }
        if !matches!(body, Body::Link(_)) {
            fs::set_permissions(&at, fs::Permissions::from_mode(dress.mode)).unwrap();
        }
        if !dress.attributes.is_empty() {
            let Dress { uid, gid, mode, attributes } = (**dress).clone();
            let meta = Meta { uid, gid, mode, attributes };
            let disk = disk.get_or_insert_with(|| Disk::open(root, root).unwrap());
            let place = At::root(path.clone());
            match body {
                Body::Directory => disk.dress(&place, &meta).unwrap(),
                Body::Link(text) => {
                    fs::remove_file(&at).unwrap();
                    disk.symlink_with(&place, text, &meta).unwrap();
                }
                Body::File(_) => {
                    let draft = disk.resume(&place).unwrap().0;
                    disk.seal(draft, &meta).unwrap();
                }
            }
        }
    }
}
