//! Whether a deployment's init can be run, before anything depends on it.

use std::fmt;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use crate::sys::beneath::{Beneath, kind};

use super::machine::{Machine, Program, Segment};

/// Where the init is looked for when the command line does not name one: the kernel's own places, and
/// systemd's, which some systems link from none of them.
pub const PLACES: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/usr/lib/systemd/systemd"];

/// More program headers than this are not looked at.
const HEADERS_MAX: u16 = 64;
/// The longest name of an interpreter.
const NAME_MAX: usize = 256;

/// Why an init cannot be run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InitFault {
    /// It is not there.
    Missing(String),
    /// It is no regular file.
    NotFile(String),
    /// No execute bit is set.
    NotExecutable(String),
    /// It is empty, cut short, or neither an ELF program nor a script.
    NotProgram(String),
    /// It is made for another machine (`e_machine`).
    ForeignMachine(String, u16),
    /// The interpreter that it names cannot be run.
    Interpreter(String, String),
    /// It cannot be read.
    Unreadable(String, Errno),
}

impl fmt::Display for InitFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitFault::Missing(init) => write!(f, "no init: {init} is not there"),
            InitFault::NotFile(init) => write!(f, "init {init} is not a file"),
            InitFault::NotExecutable(init) => write!(f, "init {init} is not executable"),
            InitFault::NotProgram(init) => write!(f, "init {init} is neither a whole program nor a script"),
            InitFault::ForeignMachine(init, machine) => {
                write!(f, "init {init} is made for another machine (ELF machine {machine})")
            }
            InitFault::Interpreter(init, interpreter) => {
                write!(f, "init {init} needs {interpreter}, which is not there or cannot be run")
            }
            InitFault::Unreadable(init, errno) => write!(f, "init {init} cannot be read: {}", errno.desc()),
        }
    }
}

/// Finds the init of a deployment: the one that is wanted, or the first of [`PLACES`] that can be run.
///
/// # Errors
/// Why the wanted one, or the first that exists, cannot be run.
pub fn find(root: &Beneath, wanted: Option<&str>, machine: Machine) -> Result<String, InitFault> {
    if let Some(init) = wanted {
        return check(root, init, machine).map(|()| init.to_string());
    }
    let mut first = None;
    for init in PLACES {
        match check(root, init, machine) {
            Ok(()) => return Ok(init.to_string()),
            Err(InitFault::Missing(_)) => {}
            Err(fault) => first = first.or(Some(fault)),
        }
    }
    Err(first.unwrap_or_else(|| InitFault::Missing(PLACES[0].to_string())))
}

/// Checks that an init can be run, its interpreter included.
///
/// # Errors
/// What is wrong with it.
pub fn check(root: &Beneath, init: &str, machine: Machine) -> Result<(), InitFault> {
    let Some(interpreter) = runnable(root, init, machine)? else { return Ok(()) };
    let failed = || InitFault::Interpreter(init.into(), interpreter.clone());
    // A script's interpreter may itself need a loader; a script may not name a script.
    match runnable(root, &interpreter, machine) {
        Ok(None) => Ok(()),
        Ok(Some(loader)) => match runnable(root, &loader, machine) {
            Ok(None) => Ok(()),
            _ => Err(InitFault::Interpreter(init.into(), loader)),
        },
        Err(_) => Err(failed()),
    }
}

/// Whether one file can be run; the interpreter that it names, where it names one.
fn runnable(root: &Beneath, path: &str, machine: Machine) -> Result<Option<String>, InitFault> {
    let unreadable = |errno| InitFault::Unreadable(path.into(), errno);
    let stat = root.stat(path).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENOTDIR => InitFault::Missing(path.into()),
        Errno::ELOOP => InitFault::NotFile(path.into()),
        other => InitFault::Unreadable(path.into(), other),
    })?;
    if kind(&stat) != SFlag::S_IFREG {
        return Err(InitFault::NotFile(path.into()));
    }
    if stat.st_mode & 0o111 == 0 {
        return Err(InitFault::NotExecutable(path.into()));
    }
    let file = root.file(path).map_err(unreadable)?;
    let mut start = [0; 256];
    let mut length = 0;
    while let Some(rest) = start.get_mut(length..).filter(|r| !r.is_empty()) {
        match file.read_at(rest, length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(e) => return Err(unreadable(crate::sys::errno(&e))),
        }
    }
    match Program::of(start.get(..length).unwrap_or(&[])) {
        Program::Unknown => Err(InitFault::NotProgram(path.into())),
        Program::Script(interpreter) => Ok(Some(interpreter.to_string())),
        Program::Elf { machine: elf, .. } if !machine.runs(elf) => {
            Err(InitFault::ForeignMachine(path.into(), elf))
        }
        program @ Program::Elf { .. } => {
            let length = u64::try_from(stat.st_size).unwrap_or(0);
            interpreter(&file, length, program).ok_or(InitFault::NotProgram(path.into()))
        }
    }
}

/// The interpreter that a program names, if it names one; `None` for a program that is not whole: a file that a
/// power cut left short or full of zeros can still begin like one.
fn interpreter(file: &std::fs::File, length: u64, program: Program<'_>) -> Option<Option<String>> {
    let Program::Elf { wide, headers, size, count, entry, .. } = program else { return None };
    let mut found = None;
    let mut starts = false;
    for index in 0..count.min(HEADERS_MAX) {
        let mut header = [0; 56];
        let at = headers.checked_add(u64::from(index) * u64::from(size))?;
        let wanted = usize::from(size).min(header.len());
        file.read_exact_at(header.get_mut(..wanted)?, at).ok()?;
        let segment = Segment::of(&header, wide);
        let in_file = segment.loaded || segment.interpreter;
        if in_file && segment.offset.checked_add(segment.length)? > length {
            return None;
        }
        starts |= segment.holds(entry);
        if segment.interpreter {
            let mut name = [0; NAME_MAX];
            let name = name.get_mut(..usize::try_from(segment.length).ok()?.min(NAME_MAX))?;
            file.read_exact_at(name, segment.offset).ok()?;
            let name = name.split(|&b| b == 0).next()?;
            found = Some(core::str::from_utf8(name).ok()?.to_string());
        }
    }
    starts.then_some(found)
}
