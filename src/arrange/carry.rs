//! Carries a plan out. The operations on files, and their order, are here once, for the device and for the tests.

use alloc::string::{String, ToString};
use core::fmt;

use crate::storage::{At, Files, Node, Volume};

use super::plan::{NEW, Plan, Step, TRASH};

/// Directories deeper than this are not removed: no tree of ours is.
const MAX_DEPTH: usize = 256;
/// The longest file that is written and read back, in bytes.
const TEXT_MAX: usize = 1 << 20;

/// A step failed; those before it were done, those after it were not.
#[derive(Debug)]
pub struct Error<E> {
    /// The step, as it prints itself.
    pub step: String,
    /// Why.
    pub cause: Cause<E>,
    /// Whether the new configuration counts already.
    pub swapped: bool,
}

/// Why a step failed.
#[derive(Debug)]
pub enum Cause<E> {
    /// The medium or the filesystem refused.
    Files(E),
    /// What was read back is not what was written.
    Differs,
    /// Directories nested deeper than any deployment has them.
    TooDeep,
    /// What is there cannot be taken for what the step expects.
    Unexpected(Node),
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.step)?;
        match &self.cause {
            Cause::Files(e) => e.fmt(f)?,
            Cause::Differs => {
                f.write_str("what was read back is not what was written; the medium may be worn out")?
            }
            Cause::TooDeep => write!(f, "more than {MAX_DEPTH} directories deep")?,
            Cause::Unexpected(node) => write!(f, "there is a {node:?} in the way")?,
        }
        f.write_str(if self.swapped {
            "; the new configuration counts, run the command again to finish"
        } else {
            "; the old configuration counts, nothing is lost"
        })
    }
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// Every freeze was one, so that a bootloader without journal replay sees the new configuration.
    pub frozen: bool,
}

/// Carries out a whole plan.
///
/// # Errors
/// At the first step that fails. The old configuration counts up to the swap, the new one from there on; the same
/// command, run again, finishes.
pub fn carry_out<F: Files>(files: &mut F, plan: &Plan) -> Result<Done, Error<F::Error>> {
    let first = steps(files, &plan.prepare, false)?;
    let swap = steps(files, &plan.swap, false)?;
    let last = steps(files, &plan.clear, true)?;
    Ok(Done { frozen: first.frozen && swap.frozen && last.frozen })
}

/// Carries out steps; `swapped` is what their error says.
///
/// # Errors
/// At the first step that fails.
pub fn steps<F: Files>(files: &mut F, all: &[Step], swapped: bool) -> Result<Done, Error<F::Error>> {
    let mut frozen = true;
    let mut swapped = swapped;
    for step in all {
        let done = one(files, step).map_err(|cause| Error { step: step.to_string(), cause, swapped })?;
        frozen &= done;
        swapped |= matches!(step, Step::Swap(..));
    }
    Ok(Done { frozen })
}

/// Carries out one step; false when it was a freeze that could not be one.
fn one<F: Files>(files: &mut F, step: &Step) -> Result<bool, Cause<F::Error>> {
    match step {
        Step::Remove(at) => remove(files, at, 0)?,
        Step::Discard(at) => discard(files, at)?,
        Step::Directory(at, mode) => directories(files, at, *mode)?,
        Step::Write(at, content) => write(files, at, content)?,
        Step::Restore { from, to } => restore(files, from, to)?,
        Step::Link(at, text) => link(files, at, text)?,
        Step::Check(at, content) => {
            if files.read(at, TEXT_MAX).map_err(Cause::Files)? != content.as_bytes() {
                return Err(Cause::Differs);
            }
        }
        Step::CheckSame(one, other) => {
            if !files.same(one, other).map_err(Cause::Files)? {
                return Err(Cause::Differs);
            }
        }
        Step::Sync(volume) => files.sync(*volume).map_err(Cause::Files)?,
        Step::Freeze(volume) => return files.freeze(*volume).map_err(Cause::Files),
        Step::Swap(from, to) => files.exchange(from, to).map_err(Cause::Files)?,
        Step::Touch(at) => files.touch(at).map_err(Cause::Files)?,
    }
    Ok(true)
}

fn remove<F: Files>(files: &mut F, at: &At, depth: usize) -> Result<(), Cause<F::Error>> {
    match files.node(at).map_err(Cause::Files)? {
        None => Ok(()),
        Some(Node::Directory) if depth == MAX_DEPTH => Err(Cause::TooDeep),
        Some(Node::Directory) => {
            for name in files.names(at).map_err(Cause::Files)? {
                remove(files, &at.join(&name), depth + 1)?;
            }
            files.remove_directory(at).map_err(Cause::Files)
        }
        Some(_) => files.unlink(at).map_err(Cause::Files),
    }
}

/// A deployment goes by one rename, so that nobody finds half of it among the others.
fn discard<F: Files>(files: &mut F, at: &At) -> Result<(), Cause<F::Error>> {
    let trash = At::root(TRASH);
    let away = trash.join(at.path.rsplit('/').next().unwrap_or_default());
    if files.node(at).map_err(Cause::Files)?.is_some() {
        directories(files, &trash, 0o700)?;
        remove(files, &away, 0)?;
        files.unlock(at).map_err(Cause::Files)?;
        files.rename(at, &away).map_err(Cause::Files)?;
    }
    remove(files, &away, 0)
}

fn directories<F: Files>(files: &mut F, at: &At, mode: u32) -> Result<(), Cause<F::Error>> {
    match files.node(at).map_err(Cause::Files)? {
        Some(Node::Directory) => return Ok(()),
        Some(node) => return Err(Cause::Unexpected(node)),
        None => {}
    }
    if let Some((above, _)) = at.path.rsplit_once('/') {
        directories(files, &At { volume: at.volume, path: above.into() }, mode)?;
    }
    files.make_directory(at, mode).map_err(Cause::Files)
}

/// Where things are made before they are renamed into place; what a power cut left there goes first. On the physical
/// root that is no directory that libostree reads: half a ref would be one ref too many for it.
fn aside<F: Files>(files: &mut F, at: &At) -> Result<At, Cause<F::Error>> {
    let aside = match at.volume {
        Volume::Root => {
            if let Some((above, _)) = NEW.rsplit_once('/') {
                directories(files, &At::root(above), 0o700)?;
            }
            At::root(NEW)
        }
        Volume::Boot => at.beside(".new"),
    };
    remove(files, &aside, 0)?;
    Ok(aside)
}

fn write<F: Files>(files: &mut F, at: &At, content: &str) -> Result<(), Cause<F::Error>> {
    let new = aside(files, at)?;
    files.create(&new, content.as_bytes(), 0o644).map_err(Cause::Files)?;
    files.rename(&new, at).map_err(Cause::Files)
}

fn restore<F: Files>(files: &mut F, from: &At, to: &At) -> Result<(), Cause<F::Error>> {
    let new = aside(files, to)?;
    files.copy(from, &new).map_err(Cause::Files)?;
    files.rename(&new, to).map_err(Cause::Files)
}

fn link<F: Files>(files: &mut F, at: &At, text: &str) -> Result<(), Cause<F::Error>> {
    match files.node(at).map_err(Cause::Files)? {
        Some(Node::Link) if files.link_text(at).map_err(Cause::Files)? == text => return Ok(()),
        Some(Node::Directory) => return Err(Cause::Unexpected(Node::Directory)),
        _ => {}
    }
    let new = aside(files, at)?;
    files.symlink(&new, text).map_err(Cause::Files)?;
    files.rename(&new, at).map_err(Cause::Files)
}
