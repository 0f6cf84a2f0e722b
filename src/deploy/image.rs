//! The composefs image of a deployment, `.ostree.cfs`: where the repository or the commit asks for one.
//!
//! As `ostree_repo_checkout_composefs`, which libostree's deployments always go through where composefs is built in. What
//! asks: `[ex-integrity] composefs` of the repository's `config`, `[composefs] enabled` of the commit's own
//! `prepare-root.conf`. The digests of the files are in the image where the filesystem has them, and computed where the
//! commit's configuration wants them checked (`verity`, `signed`); then the image is the one that the commit names
//! (`ostree.composefs.digest.v0`), or there is no deployment.

use alloc::vec;

use crate::composefs::verity::{Measure, Verity};
use crate::composefs::{Body, Tree, image};
use crate::keyfile::KeyFile;
use crate::mounts::settings::{Composefs, Settings};
use crate::ostree::Commit;
use crate::ostree::commit::COMPOSEFS_DIGEST;
use crate::ostree::object::{Checksum, Kind, path};
use crate::ostree::tree::{DirTree, Meta, REGULAR, SYMLINK, TYPE_BITS};
use crate::storage::{At, Node, Sealed, Trees};

use super::Fault;
use super::copy::DEPTH_MAX;
use super::objects::{Objects, config};

/// What its name is in a deployment.
pub const NAME: &str = ".ostree.cfs";
/// What has to be there for something to be mounted on it; as libostree has it.
const MOUNT_POINTS: [&str; 5] = ["usr", "etc", "boot", "var", "sysroot"];
/// So much of a file is read at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// Whether something is done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Want {
    /// It is not.
    No,
    /// Where it can be.
    Maybe,
    /// It has to be.
    Yes,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// fs-verity is switched on for the files that the image leads to, and for the image.
    pub seal: Want,
    /// The image has the digests of all files.
    pub digests: bool,
}

/// What the repository and the commit ask for; `None` where it is no image.
///
/// # Errors
/// When one of the configurations cannot be read.
pub fn wanted<F: Trees>(
    files: &mut F,
    objects: &Objects,
    commit: &Commit,
) -> Result<Option<Wanted>, Fault<F::Error>> {
    let repo = config(files)?;
    let text = objects.text(files, commit, "usr/lib/ostree/prepare-root.conf")?.unwrap_or_default();
    let file = KeyFile::parse(text.as_bytes()).map_err(|e| Fault::Config("prepare-root.conf", e))?;
    let settings = Settings::read(&file, || None, "").map_err(Fault::Settings)?;
    let own = tristate(&repo, "composefs", Want::No)?;
    if own == Want::No && settings.composefs == Composefs::No {
        return Ok(None);
    }
    let old = |key| repo.value("ex-fsverity", key).is_some_and(|value| value.trim() == "true");
    let fallback = if own == Want::No { Want::No } else { Want::Maybe };
    let seal = match tristate(&repo, "fsverity", fallback)? {
        Want::No if old("required") => Want::Yes,
        Want::No if old("opportunistic") => Want::Maybe,
        seal => seal,
    };
    Ok(Some(Wanted { seal, digests: settings.composefs >= Composefs::Verity }))
}

fn tristate<E>(config: &KeyFile, key: &'static str, fallback: Want) -> Result<Want, Fault<E>> {
    match config.value("ex-integrity", key).map(str::trim_end) {
        None => Ok(fallback),
        Some("no" | "false" | "0") => Ok(Want::No),
        Some("maybe") => Ok(Want::Maybe),
        Some("yes" | "true" | "1") => Ok(Want::Yes),
        Some(other) => Err(Fault::Text("value of [ex-integrity]", other.into())),
    }
}

/// Makes the image of a commit at a place where nothing is. Durable after the next sync.
///
/// # Errors
/// When an object cannot be read, the medium refuses, or the image is not the one that the commit names.
pub fn make<F: Trees>(
    files: &mut F,
    objects: &mut Objects,
    commit: &Commit,
    wanted: Wanted,
    to: &At,
) -> Result<Verity, Fault<F::Error>> {
    let mut seal = wanted.seal;
    let tree = tree(files, objects, commit, wanted.digests, &mut seal)?;
    let digest = write(files, tree, to)?;
    if let Some(named) = commit.metadata_bytes(COMPOSEFS_DIGEST).filter(|_| wanted.digests)
        && named != digest
    {
        return Err(Fault::OtherImage(Checksum(digest)));
    }
    seal_file(files, to, &mut seal)?;
    Ok(digest)
}

/// Whether a place has the image of a commit, as [`make`] would write it there.
///
/// # Errors
/// As [`make`], but for an image that cannot be read: that one is none.
pub fn is_made<F: Trees>(
    files: &mut F,
    objects: &mut Objects,
    commit: &Commit,
    wanted: Wanted,
    at: &At,
) -> Result<bool, Fault<F::Error>> {
    if files.node(at).map_err(Fault::Files)? != Some(Node::File) {
        return Ok(false);
    }
    let mut seal = wanted.seal;
    let inodes = tree(files, objects, commit, wanted.digests, &mut seal)?.finish().map_err(Fault::Image)?;
    let mut expected = Measure::default();
    image::write(&inodes, &mut |part| expected.update(part));
    let same = measure(files, at).is_ok_and(|found| found == expected.digest());
    if same {
        seal_file(files, at, &mut seal)?;
    }
    Ok(same)
}

/// The tree of a commit as its image shows it.
///
/// # Errors
/// As [`make`].
pub fn tree<F: Trees>(
    files: &mut F,
    objects: &mut Objects,
    commit: &Commit,
    digests: bool,
    seal: &mut Want,
) -> Result<Tree, Fault<F::Error>> {
    let root = objects.meta(files, &commit.root_meta())?;
    let mut tree = Tree::new(root).map_err(Fault::Image)?;
    let mut never = false;
    let mut stack = vec![(0, commit.root_tree(), 0)];
    while let Some((above, name, depth)) = stack.pop() {
        if depth > DEPTH_MAX {
            return Err(Fault::TooDeep(DEPTH_MAX));
        }
        let data = objects.tree(files, &name)?;
        let listed = DirTree::parse(&data).map_err(|why| Fault::Form(name, Kind::DirTree, why))?;
        for (name, checksum) in listed.files() {
            let (meta, mut body) = file(files, objects, &checksum)?;
            if let Body::File { verity, .. } = &mut body {
                let at = At::root(path(&checksum, Kind::File));
                seal_file(files, &at, seal)?;
                *verity = digest(files, &at, digests, &mut never)?;
            }
            tree.add(above, name, meta, body).map_err(Fault::Image)?;
        }
        for (name, below, meta) in listed.directories() {
            let meta = objects.meta(files, &meta)?;
            let number = tree.add(above, name, meta, Body::Directory).map_err(Fault::Image)?;
            stack.push((number, below, depth + 1));
        }
    }
    tree.mount_points(&MOUNT_POINTS).map_err(Fault::Image)?;
    Ok(tree)
}

/// A file or link of the commit, without its digest.
fn file<F: Trees>(
    files: &mut F,
    objects: &Objects,
    checksum: &Checksum,
) -> Result<(Meta, Body), Fault<F::Error>> {
    let content = objects.content(files, checksum)?;
    let meta = objects.file_meta(files, checksum, &content)?;
    let body = match meta.mode & TYPE_BITS {
        REGULAR if content.look.length == 0 => Body::Empty,
        REGULAR => {
            let place = path(checksum, Kind::File);
            let object = place.strip_prefix("ostree/repo/objects/").unwrap_or_default().into();
            Body::File { length: content.look.length, object, verity: None }
        }
        SYMLINK => Body::Link(objects.target(files, checksum, &content)?),
        _ => return Err(Fault::Damaged(*checksum, Kind::File)),
    };
    Ok((meta, body))
}

/// The digest of a file: from the kernel where it has one, else computed where it has to be there.
fn digest<F: Trees>(
    files: &mut F,
    at: &At,
    needed: bool,
    never: &mut bool,
) -> Result<Option<Verity>, Fault<F::Error>> {
    if !*never {
        match files.sealed(at).map_err(Fault::Files)? {
            Sealed::Digest(digest) => return Ok(Some(digest)),
            Sealed::Not => {}
            Sealed::Never => *never = true,
        }
    }
    if !needed {
        return Ok(None);
    }
    measure(files, at).map(Some)
}

/// Reads a file and computes its digest.
///
/// # Errors
/// When it cannot be read.
pub fn measure<F: Trees>(files: &mut F, at: &At) -> Result<Verity, Fault<F::Error>> {
    let (mut source, _) = files.open(at).map_err(Fault::Files)?;
    let (mut buffer, mut offset, mut measure) = (vec![0; BUFFER], 0, Measure::default());
    loop {
        let length = files.read_at(&mut source, offset, &mut buffer).map_err(Fault::Files)?;
        let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else { break };
        measure.update(part);
        offset += length as u64;
    }
    Ok(measure.digest())
}

/// Switches fs-verity on for a file; where it only may be and cannot, it is not tried again.
fn seal_file<F: Trees>(files: &mut F, at: &At, seal: &mut Want) -> Result<(), Fault<F::Error>> {
    if *seal == Want::No || files.seal_content(at).map_err(Fault::Files)? {
        return Ok(());
    }
    if *seal == Want::Yes {
        return Err(Fault::NoVerity);
    }
    *seal = Want::No;
    Ok(())
}

fn write<F: Trees>(files: &mut F, tree: Tree, to: &At) -> Result<Verity, Fault<F::Error>> {
    let inodes = tree.finish().map_err(Fault::Image)?;
    let mut draft = files.draft(to).map_err(Fault::Files)?;
    let (mut measure, mut done) = (Measure::default(), Ok(()));
    image::write(&inodes, &mut |part| {
        measure.update(part);
        if done.is_ok() {
            done = files.append(&mut draft, part);
        }
    });
    done.map_err(Fault::Files)?;
    let (uid, gid) = files.owner();
    let meta = Meta { uid, gid, mode: REGULAR | 0o644, attributes: vec![] };
    files.seal(draft, &meta).map_err(Fault::Files)?;
    Ok(measure.digest())
}
