//! What can go wrong on the way to a deployment.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::arrange::{carry, plan};
use crate::composefs::TreeError as TreeFault;
use crate::keyfile::KeyFileError;
use crate::mounts::settings::SettingsError;
use crate::ostree::object::{Checksum, Kind};
use crate::ostree::tree::TreeError;

/// Why there is no new deployment. Unless it says otherwise, the old ones boot as before.
#[derive(Debug)]
pub enum Fault<E> {
    /// The medium or the filesystem refused.
    Files(E),
    /// An object of the commit is not in the repository.
    Missing(Checksum, Kind),
    /// An object has another checksum than its name says.
    Damaged(Checksum, Kind),
    /// An object is not what it should be.
    Form(Checksum, Kind, TreeError),
    /// A name is a file and a directory in one dirtree.
    TwoThings(Checksum, String),
    /// A path of the commit that has to be a regular file is not.
    NotAFile(String),
    /// Directories nested deeper than this.
    TooDeep(usize),
    /// More files than this.
    TooMany(u64),
    /// The repository's mode is none that a device has.
    RepositoryMode(String),
    /// A configuration file cannot be read.
    Config(&'static str, KeyFileError),
    /// The commit's `prepare-root.conf` has something that cannot be.
    Settings(SettingsError),
    /// The commit's tree cannot be a composefs image.
    Image(TreeFault),
    /// The composefs image of the commit has this digest, and the commit names another.
    OtherImage(Checksum),
    /// The repository asks for fs-verity, and the filesystem has none.
    NoVerity,
    /// The commit has `/etc` and `/usr/etc`.
    BothEtc,
    /// A file of `/etc` was changed, and is a directory or a link in the new defaults.
    Merge(String),
    /// There is no kernel where libostree looks for one.
    NoKernel,
    /// Two files of one kernel say different checksums.
    KernelMismatch(String),
    /// There is no such stateroot.
    NoStateroot(String),
    /// A stateroot, refspec or kernel argument with characters that its file cannot hold.
    Text(&'static str, String),
    /// There is no deployment with this index to take the configuration from.
    NoMerge(usize),
    /// A kernel argument to be deleted is there more than once.
    Argument(String),
    /// There is not enough room: where, what is needed, what there is.
    Room(&'static str, Need, Need),
    /// What was made is not what the commit says.
    Differs(Vec<String>),
    /// What is in the way at this place cannot be.
    InTheWay(String),
    /// There is no plan to the new boot configuration.
    Plan(plan::Refusal),
    /// A step of the plan failed.
    Carry(carry::Error<E>),
    /// The bootloader's variables were not written, so that nobody would count the new one's boots.
    Variables(String),
    /// Which objects are needed cannot be told, so that none is removed.
    Unknown(String),
}

/// Bytes and files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Need {
    /// Bytes, in whole blocks.
    pub bytes: u64,
    /// Inodes.
    pub files: u64,
}

impl<E> Fault<E> {
    /// Whether the new boot configuration counts already.
    pub fn swapped(&self) -> bool {
        matches!(self, Fault::Carry(e) if e.swapped)
    }
}

impl<E: fmt::Display> fmt::Display for Fault<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Files(e) => write!(f, "{e}"),
            Fault::Missing(name, kind) => {
                write!(f, "object {name}.{} is missing; pull the commit first", kind.extension())
            }
            Fault::Damaged(name, kind) => {
                write!(f, "object {name}.{} is damaged: its checksum is another", kind.extension())
            }
            Fault::Form(name, kind, why) => write!(f, "object {name}.{}: {why}", kind.extension()),
            Fault::TwoThings(tree, name) => {
                write!(f, "object {tree}.dirtree: '{name}' is a file and a directory")
            }
            Fault::NotAFile(path) => write!(f, "{path} of the commit is not a regular file"),
            Fault::TooDeep(limit) => write!(f, "more than {limit} directories deep"),
            Fault::TooMany(limit) => write!(f, "more than {limit} files"),
            Fault::RepositoryMode(mode) => {
                write!(f, "the repository's mode is '{mode}'; a device's is 'bare'")
            }
            Fault::Config(file, why) => write!(f, "{file}: {why}"),
            Fault::Settings(why) => why.fmt(f),
            Fault::Image(why) => why.fmt(f),
            Fault::OtherImage(found) => write!(
                f,
                "the commit's composefs image has the digest {found}, and the commit names another one: a publisher's libostree made it otherwise"
            ),
            Fault::NoVerity => f.write_str(
                "the repository's config wants fs-verity ([ex-integrity] fsverity), and the filesystem has none; 'tune2fs -O verity' gives it to ext4",
            ),
            Fault::BothEtc => f.write_str("the commit has both /etc and /usr/etc"),
            Fault::Merge(path) => write!(
                f,
                "/etc/{path} was changed here, and is a directory or a link among the new defaults: cannot merge; remove or rename it"
            ),
            Fault::NoKernel => {
                f.write_str("the commit has no kernel in usr/lib/modules, usr/lib/ostree-boot or boot")
            }
            Fault::KernelMismatch(name) => {
                write!(f, "{name} has another checksum in its name than the kernel")
            }
            Fault::NoStateroot(name) => {
                write!(f, "there is no stateroot '{name}'; 'bootward init-fs --stateroot {name}' makes one")
            }
            Fault::Text(what, text) => write!(f, "'{text}' cannot be a {what}"),
            Fault::NoMerge(index) => write!(f, "there is no deployment {index}; see 'bootward status'"),
            Fault::Argument(argument) => {
                write!(f, "kernel argument '{argument}' is there more than once; name it with its value")
            }
            Fault::Room(place, need, have) => write!(
                f,
                "not enough room on {place}: {} kB and {} files are needed, {} kB and {} are left; remove a deployment first",
                need.bytes.div_ceil(1000),
                need.files,
                have.bytes / 1000,
                have.files
            ),
            Fault::Differs(faults) => {
                write!(f, "what was made is not what the commit says: {}", faults.join("; "))
            }
            Fault::InTheWay(path) => write!(f, "something is in the way at {path}"),
            Fault::Plan(e) => e.fmt(f),
            Fault::Carry(e) => e.fmt(f),
            Fault::Variables(why) => write!(
                f,
                "the bootloader's variables: {why}; the old configuration counts, nothing is lost"
            ),
            Fault::Unknown(why) => write!(
                f,
                "no object was removed, because it cannot be told which ones are needed: {why}"
            ),
        }
    }
}

impl<E> From<plan::Refusal> for Fault<E> {
    fn from(refusal: plan::Refusal) -> Self {
        Fault::Plan(refusal)
    }
}

impl<E> From<carry::Error<E>> for Fault<E> {
    fn from(error: carry::Error<E>) -> Self {
        Fault::Carry(error)
    }
}
