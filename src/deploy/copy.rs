//! Files and trees with their owners, modes and attributes.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::ostree::tree::Meta;
use crate::storage::{At, Node, Trees};

use super::Fault;

/// Directories in each other.
pub const DEPTH_MAX: usize = 128;
/// Files, links and directories of one tree.
pub const ENTRIES_MAX: u64 = 10_000_000;
const BUFFER: usize = 64 * 1024;

/// The time of change of what is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    /// Files keep theirs; links and directories have that of the copy, as glnx_file_copy_at has it.
    Kept,
    /// That of the copy.
    Now,
    /// 0, as everything that is made of an object.
    Zero,
}

/// Copies a regular file or a symbolic link to a place where nothing is. `false` for anything else, which is not copied.
///
/// # Errors
/// When it cannot be read or written.
pub fn file<F: Trees>(
    files: &mut F,
    from: &At,
    to: &At,
    meta: &Meta,
    times: Times,
) -> Result<bool, Fault<F::Error>> {
    let Some(look) = files.look(from).map_err(Fault::Files)? else { return Ok(false) };
    match look.node {
        Node::File => contents(files, from, to, meta)?,
        Node::Link => {
            let text = files.link_text(from).map_err(Fault::Files)?;
            files.symlink_with(to, &text, meta).map_err(Fault::Files)?;
        }
        Node::Directory | Node::Other => return Ok(false),
    }
    match (times, look.node) {
        (Times::Zero, _) => {}
        (Times::Kept, Node::File) => files.stamp(to, look.changed).map_err(Fault::Files)?,
        _ => files.touch(to).map_err(Fault::Files)?,
    }
    Ok(true)
}

/// Copies the content of a file into a new one.
///
/// # Errors
/// When it cannot be read or written.
pub fn contents<F: Trees>(files: &mut F, from: &At, to: &At, meta: &Meta) -> Result<(), Fault<F::Error>> {
    let (mut source, _) = files.open(from).map_err(Fault::Files)?;
    let mut draft = files.draft(to).map_err(Fault::Files)?;
    let (mut buffer, mut offset) = (vec![0; BUFFER], 0);
    loop {
        let length = files.read_at(&mut source, offset, &mut buffer).map_err(Fault::Files)?;
        let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else { break };
        files.append(&mut draft, part).map_err(Fault::Files)?;
        offset += length as u64;
    }
    files.seal(draft, meta).map_err(Fault::Files)
}

enum Work {
    Enter(At, At, usize),
    Leave(At, Meta),
}

/// Copies a directory and all that is in it; the names of what is neither file, link nor directory come back, they are
/// not copied. The directory itself may be there already and then gets what the other one has.
///
/// # Errors
/// When something cannot be read or written, or there is too much of it.
pub fn tree<F: Trees>(
    files: &mut F,
    from: &At,
    to: &At,
    times: Times,
) -> Result<Vec<String>, Fault<F::Error>> {
    let mut passed_over = Vec::new();
    let mut count = 0;
    let mut stack = vec![Work::Enter(from.clone(), to.clone(), 0)];
    while let Some(work) = stack.pop() {
        let (from, to, depth) = match work {
            Work::Enter(from, to, depth) => (from, to, depth),
            Work::Leave(at, meta) => {
                files.dress(&at, &meta).map_err(Fault::Files)?;
                if times != Times::Zero {
                    files.touch(&at).map_err(Fault::Files)?;
                }
                continue;
            }
        };
        if depth > DEPTH_MAX {
            return Err(Fault::TooDeep(DEPTH_MAX));
        }
        let meta = files.meta(&from).map_err(Fault::Files)?;
        files.make_directory(&to, 0o700).map_err(Fault::Files)?;
        stack.push(Work::Leave(to.clone(), meta));
        for name in files.names(&from).map_err(Fault::Files)? {
            count += 1;
            if count > ENTRIES_MAX {
                return Err(Fault::TooMany(ENTRIES_MAX));
            }
            let (from, to) = (from.join(&name), to.join(&name));
            if files.node(&from).map_err(Fault::Files)? == Some(Node::Directory) {
                stack.push(Work::Enter(from, to, depth + 1));
                continue;
            }
            let meta = files.meta(&from).map_err(Fault::Files)?;
            if !file(files, &from, &to, &meta, times)? {
                passed_over.push(from.path);
            }
        }
    }
    Ok(passed_over)
}
