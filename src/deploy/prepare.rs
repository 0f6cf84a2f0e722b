//! What a deployment is going to be, as a value. Everything that can be wrong is found here, before anything is written.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::arrange::layout::{BootFile, Entry, Layout};
use crate::arrange::{plan, text};
use crate::ostree::Commit;
use crate::ostree::object::{Kind, path};
use crate::ostree::tree::DirTree;
use crate::storage::{At, Node, Trees, Volume};

use super::Fault;
use super::copy::{DEPTH_MAX, ENTRIES_MAX};
use super::fault::Need;
use super::image::{self, Wanted};
use super::kargs::Edits;
use super::keep::{Known, kept};
use super::kernel::{self, Kernel};
use super::objects::Objects;

/// What a directory, and a file's last part, take at most on the filesystems that devices have.
const BLOCK: u64 = 4096;
/// What else is written: entries, links, refs, and the filesystem's own needs.
const SPARE: Need = Need { bytes: 512 * 1024, files: 64 };
/// The longest name of a stateroot, refspec or argument, in bytes.
const TEXT_MAX: usize = 4096;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// The stateroot.
    pub stateroot: String,
    /// What is written down as the origin: `REMOTE:REF`, `REF`, or a commit.
    pub refspec: String,
    /// Changes of the kernel arguments.
    pub arguments: Edits,
    /// Take no deployment's configuration and arguments over.
    pub no_merge: bool,
    /// Take over the arguments, and nothing of `/etc`.
    pub pristine_etc: bool,
    /// Every deployment stays.
    pub retain: bool,
    /// Leave objects that nothing needs.
    pub no_prune: bool,
    /// The next boot is a trial: the bootloader counts it.
    pub trial: bool,
    /// The boot directory is on the physical root's filesystem, so that kernels are links.
    pub one_filesystem: bool,
    /// A staged deployment waits for its reboot: what no entry names may be it.
    pub staged: bool,
}

/// All that is going to be done.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The new deployment.
    pub entry: Entry,
    /// Its commit.
    pub commit: Commit,
    /// The one whose configuration it gets.
    pub merge: Option<usize>,
    /// Those that stay, by their index, behind it.
    pub kept: Vec<usize>,
    /// What is in the way of the new one, or left over from an earlier run.
    pub stale: Vec<plan::Step>,
    /// Its origin file.
    pub origin: String,
    /// The room that it needs on the physical root and in the boot directory.
    pub need: [Need; 2],
    /// The commit has an SELinux policy, by which nothing is labelled here.
    pub policy: bool,
    /// It gets a composefs image.
    pub image: Option<Wanted>,
    /// `/etc` stays as the commit has it.
    pub pristine_etc: bool,
}

/// Reads what there is and decides. `confirmed` tells of an entry whether its last boot was a good one.
///
/// # Errors
/// When the deployment cannot or must not be made; nothing was written.
pub fn prepare<F: Trees>(
    files: &mut F,
    layout: &Layout,
    commit: &Commit,
    options: &Options,
    confirmed: &dyn Fn(&Entry) -> bool,
) -> Result<Prepared, Fault<F::Error>> {
    fits("stateroot", &options.stateroot, |c| c != '/')?;
    fits("refspec", &options.refspec, |c| c != '\\')?;
    let Edits { set, append, .. } = &options.arguments;
    for argument in set.iter().chain(append) {
        fits("kernel argument", argument, |_| true)?;
    }
    let stateroot = At::root(format!("ostree/deploy/{}", options.stateroot));
    let named = !options.stateroot.is_empty() && !matches!(options.stateroot.as_str(), "." | "..");
    if !named || files.node(&stateroot).map_err(Fault::Files)? != Some(Node::Directory) {
        return Err(Fault::NoStateroot(options.stateroot.clone()));
    }
    let mut objects = Objects::open(files)?;
    let image = image::wanted(files, &objects, commit)?;
    let merge = merged(layout, options);
    let known = |(index, entry): (usize, &Entry)| Known {
        ours: entry.stateroot == options.stateroot,
        booted: entry.booted,
        merge: merge == Some(index),
        pinned: entry.pinned,
        confirmed: confirmed(entry),
    };
    let known: Vec<Known> = layout.entries.iter().enumerate().map(known).collect();
    let kept = kept(&known, options.retain);
    let kernel = kernel::find(files, &objects, commit)?;
    let (stale, serial) = stale(layout, commit, options);
    let old = merge.and_then(|index| layout.entries.get(index));
    let entry = entry(files, &objects, layout, commit, options, (serial, old, kernel.clone()))?;
    let merged = old.filter(|_| !options.pristine_etc);
    let need = need(files, &mut objects, commit, &entry, &kernel, merged, image.is_some())?;
    let prepared = Prepared {
        entry,
        commit: commit.clone(),
        merge,
        kept,
        stale,
        origin: format!("[origin]\nrefspec={}\n", options.refspec),
        need,
        policy: policy(files, &objects, commit)?,
        image,
        pristine_etc: options.pristine_etc,
    };
    room(files, &prepared, options)?;
    // That there is a plan is found now.
    plan::with_new(layout, &prepared.entry, &prepared.kept)?;
    Ok(prepared)
}

fn fits<E>(what: &'static str, text: &str, legal: impl Fn(char) -> bool) -> Result<(), Fault<E>> {
    let good = text.len() <= TEXT_MAX && text.chars().all(|c| !c.is_control() && legal(c));
    if good { Ok(()) } else { Err(Fault::Text(what, text.into())) }
}

/// As `ostree_sysroot_get_merge_deployment`: the running one where it is of this stateroot, else the first of it.
fn merged(layout: &Layout, options: &Options) -> Option<usize> {
    let ours = |e: &Entry| e.stateroot == options.stateroot;
    let booted = layout.entries.iter().position(|e| ours(e) && e.booted);
    booted.or_else(|| layout.entries.iter().position(ours)).filter(|_| !options.no_merge)
}

/// What an earlier run left is removed, and its serial used again; where links are out of step, it may be what they mean.
fn stale(layout: &Layout, commit: &Commit, options: &Options) -> (Vec<plan::Step>, u32) {
    let mut steps = vec![plan::Step::Remove(At::root(plan::MAKING))];
    let commit = commit.checksum().to_string();
    let mut serial = 0;
    let mut used = |name: &str| {
        if let Some(number) = name.strip_prefix(commit.as_str()).and_then(|n| n.strip_prefix('.'))
            && let Ok(number) = number.parse::<u32>()
        {
            serial = serial.max(number.saturating_add(1));
        }
    };
    let entries = layout.entries.iter().filter(|e| e.stateroot == options.stateroot);
    entries.for_each(|e| used(&e.name()));
    for (stateroot, name) in &layout.unnamed {
        if layout.faults.is_empty() && !options.staged {
            steps.extend(plan::discarded(stateroot, name));
        } else if *stateroot == options.stateroot {
            used(name);
        }
    }
    (steps, serial)
}

/// Whether libostree would label `/etc` anew (ostree-sepolicy.c). Here it keeps the labels of the commit's `/usr/etc`, which
/// policies label as `/etc`, and of what was taken over.
fn policy<F: Trees>(files: &mut F, objects: &Objects, commit: &Commit) -> Result<bool, Fault<F::Error>> {
    for path in ["usr/etc/selinux/config", "etc/selinux/config"] {
        if let Some(text) = objects.text(files, commit, path)? {
            let value = |key| text.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
            return Ok(value("SELINUX=") != Some("disabled") && value("SELINUXTYPE=").is_some());
        }
    }
    Ok(false)
}

fn entry<F: Trees>(
    files: &mut F,
    objects: &Objects,
    layout: &Layout,
    commit: &Commit,
    options: &Options,
    (serial, old, kernel): (u32, Option<&Entry>, Kernel),
) -> Result<Entry, Fault<F::Error>> {
    let mut release = None;
    for path in ["usr/lib/os-release", "usr/etc/os-release", "etc/os-release"] {
        if release.is_none() {
            release = objects.text(files, commit, path)?;
        }
    }
    let mut entry = Entry {
        stateroot: options.stateroot.clone(),
        commit: commit.checksum().to_string(),
        serial,
        checksum: kernel.checksum,
        os: release.and_then(|text| text::os_name(&text)).unwrap_or_else(|| "Linux".into()),
        version: commit.metadata_text("version").map(String::from),
        uenv: objects.text(files, commit, "usr/lib/ostree-boot/uEnv.txt")?,
        ..Entry::default()
    };
    let arguments = options.arguments.apply(old.and_then(|o| o.value("options")).unwrap_or_default());
    entry.keys.push(("options".into(), arguments));
    let prefix = if layout.bootprefix { "/boot" } else { "" };
    for (key, name) in kernel.keys {
        entry.keys.push((key.into(), format!("{prefix}/{}/{name}", entry.boot_directory())));
    }
    for file in kernel.files {
        let there = At::boot(entry.boot_directory()).join(&file.name);
        let ours = At::root(path(&file.object, Kind::File));
        let there_is = files.node(&there).map_err(Fault::Files)? == Some(Node::File);
        let good = there_is && files.same(&there, &ours).map_err(Fault::Files)?;
        entry.boot_files.push(BootFile { source: file.source, name: file.name, good });
    }
    Ok(entry)
}

impl Need {
    fn file(&mut self, length: u64) {
        self.files += 1;
        self.bytes += length.div_ceil(BLOCK) * BLOCK;
    }
}

/// Looks at every object once: whether it is there, and how much the deployment takes besides.
fn need<F: Trees>(
    files: &mut F,
    objects: &mut Objects,
    commit: &Commit,
    entry: &Entry,
    kernel: &Kernel,
    old: Option<&Entry>,
    image: bool,
) -> Result<[Need; 2], Fault<F::Error>> {
    let (mut root, mut boot) = (SPARE, SPARE);
    let mut stack = vec![(commit.root_tree(), commit.root_meta(), 0, String::new())];
    let mut count = 0;
    while let Some((tree, meta, depth, path)) = stack.pop() {
        if depth > DEPTH_MAX {
            return Err(Fault::TooDeep(DEPTH_MAX));
        }
        objects.meta(files, &meta)?;
        let data = objects.tree(files, &tree)?;
        let tree = DirTree::parse(&data).map_err(|why| Fault::Form(tree, Kind::DirTree, why))?;
        let copied = path == "etc" || path.starts_with("usr/etc");
        for _ in 0..if copied { 2 } else { 1 } {
            // A directory of many names is longer than one block.
            root.file(BLOCK.max(data.len() as u64));
        }
        for (_, checksum) in tree.files() {
            let content = objects.content(files, &checksum)?;
            let again = usize::from(content.look.length == 0 || objects.user);
            for _ in 0..again + usize::from(copied) {
                root.file(content.look.length);
            }
            count += 1;
        }
        for (name, tree, meta) in tree.directories() {
            let path = match path.as_str() {
                "" if matches!(name, "usr" | "etc") => name.to_string(),
                "usr" if name == "etc" => "usr/etc".into(),
                "etc" | "usr/etc" => path.clone(),
                _ => "-".into(),
            };
            stack.push((tree, meta, depth + 1, path));
            count += 1;
        }
        if count > ENTRIES_MAX {
            return Err(Fault::TooMany(ENTRIES_MAX));
        }
    }
    if image {
        // A name, an inode and what is said of it: more than it is in any tree that was seen.
        root.bytes += (count + 512) * 512;
    }
    if let Some(old) = old {
        measure(files, &At::root(old.path()).join("etc"), &mut root)?;
    }
    for (file, there) in kernel.files.iter().zip(&entry.boot_files).filter(|(_, there)| !there.good) {
        debug_assert_eq!(file.name, there.name);
        boot.file(file.length);
    }
    Ok([root, boot])
}

/// What a tree takes when it is copied.
fn measure<F: Trees>(files: &mut F, at: &At, need: &mut Need) -> Result<(), Fault<F::Error>> {
    let mut stack = vec![(at.clone(), 0)];
    while let Some((at, depth)) = stack.pop() {
        if depth > DEPTH_MAX {
            return Err(Fault::TooDeep(DEPTH_MAX));
        }
        match files.look(&at).map_err(Fault::Files)? {
            Some(look) if look.node == Node::Directory => {
                need.file(look.length);
                let names = files.names(&at).map_err(Fault::Files)?;
                stack.extend(names.iter().map(|name| (at.join(name), depth + 1)));
            }
            Some(look) => need.file(look.length),
            None => {}
        }
    }
    Ok(())
}

fn room<F: Trees>(files: &mut F, prepared: &Prepared, options: &Options) -> Result<(), Fault<F::Error>> {
    let [root, boot] = prepared.need;
    let mut all = vec![(Volume::Root, "the physical root", root)];
    if !options.one_filesystem {
        all.push((Volume::Boot, "the boot directory", boot));
    }
    for (volume, place, need) in all {
        let room = files.room(volume).map_err(Fault::Files)?;
        let have = Need { bytes: room.bytes, files: room.files.unwrap_or(u64::MAX) };
        if have.bytes < need.bytes || have.files < need.files {
            return Err(Fault::Room(place, need, have));
        }
    }
    Ok(())
}
