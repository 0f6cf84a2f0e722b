//! A composefs root: an erofs image with names, owners and small files, and an overlay that finds the content of
//! the large ones among the repository's objects.
//!
//! What is mounted how is libcomposefs's choice (lcfs-mount.c), for the mount table to be the same: the image from
//! the file where the kernel can (Linux 6.12), else through a loop device; the overlay with data-only layers where
//! the kernel has them (Linux 6.7, with the older option since 6.5), else with the objects as a plain layer.

use std::ffi::CStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::mount::{MsFlags, mount};

use crate::mounts::plan::Overlay;
use crate::sys::mount::NewFs;
use crate::sys::verity::{self, VerityError};
use crate::sys::{c_string, errno, loop_device};

/// The first bytes of an image: `LCFS_EROFS_MAGIC` of lcfs-erofs.h.
const MAGIC: u32 = 0xd078_629a;
/// In the image's flags, the third word: some of its files have access control lists.
const HAS_ACL: u32 = 1;
/// The name of the mount's source, by which people recognise it.
const SOURCE: &CStr = c"composefs";

/// Why a composefs root was not mounted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ComposefsError {
    /// The image cannot be opened or read.
    Read(Errno),
    /// The file is not a composefs image.
    NotAnImage,
    /// The image has no fs-verity digest that could be compared.
    Verity(VerityError),
    /// The image is not the one that was signed.
    Digest {
        /// Its own fs-verity digest.
        found: [u8; 32],
    },
    /// A loop device cannot be had.
    Loop(Errno),
    /// The image cannot be mounted; and the kernel's words.
    Erofs(Errno, String),
    /// The overlay cannot be mounted; and the kernel's words.
    Overlay(Errno, String),
}

impl fmt::Display for ComposefsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = |f: &mut fmt::Formatter<'_>, kind: &str, errno: &Errno, words: &str| {
            if *errno == Errno::ENODEV {
                return write!(f, "the kernel has no {kind}, or its module is not loaded");
            }
            write!(f, "{kind}: {}", errno.desc())?;
            if words.is_empty() { Ok(()) } else { write!(f, " ({words})") }
        };
        match self {
            Self::Read(errno) => write!(f, "the image cannot be read: {}", errno.desc()),
            Self::NotAnImage => f.write_str("the file is not a composefs image"),
            Self::Verity(VerityError::NotEnabled) => f.write_str("fs-verity is not enabled on the image"),
            Self::Verity(VerityError::NotSupported) => {
                f.write_str("the image's file system, or the kernel, has no fs-verity")
            }
            Self::Verity(VerityError::Algorithm) => {
                f.write_str("the image's fs-verity digest is not SHA-256")
            }
            Self::Verity(VerityError::Kernel(errno)) => {
                write!(f, "the image's fs-verity digest: {}", errno.desc())
            }
            Self::Digest { found } => {
                f.write_str("the image is not the one that was signed: its fs-verity digest is ")?;
                found.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Loop(Errno::ENOENT) => {
                f.write_str("the image needs a loop device; the kernel has none, or its module is not loaded")
            }
            Self::Loop(errno) => write!(f, "loop device for the image: {}", errno.desc()),
            Self::Erofs(errno, words) => kernel(f, "erofs", errno, words),
            Self::Overlay(errno, words) => kernel(f, "overlay", errno, words),
        }
    }
}

/// Mounts the image at `to`, read-only. With a `digest`, only an image that has it: by fs-verity, so that the kernel
/// goes on checking what is read of it later.
///
/// # Errors
/// See [`ComposefsError`].
pub fn mount_image(image: &Path, to: &str, digest: Option<&[u8; 32]>) -> Result<(), ComposefsError> {
    // Without O_NONBLOCK, a pipe in the image's place would never be open.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(image);
    let file = file.map_err(|e| ComposefsError::Read(errno(&e)))?;
    if let Some(expected) = digest {
        let found = verity::digest(&file).map_err(ComposefsError::Verity)?;
        if found != *expected {
            return Err(ComposefsError::Digest { found });
        }
    }
    let mut header = [0; 12];
    file.read_exact_at(&mut header, 0).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => ComposefsError::NotAnImage,
        _ => ComposefsError::Read(errno(&e)),
    })?;
    let word =
        |at: usize| header.get(at..at + 4).and_then(|w| w.try_into().ok()).map_or(0, u32::from_le_bytes);
    if word(0) != MAGIC {
        return Err(ComposefsError::NotAnImage);
    }
    let acl = word(8) & HAS_ACL != 0;
    // By its descriptor: the file that was measured, whatever has its name now.
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    match erofs(&source, to, acl) {
        Err(ComposefsError::Erofs(Errno::ENOTBLK, _)) => through_loop(&file, to, acl),
        done => done,
    }
}

fn through_loop(file: &File, to: &str, acl: bool) -> Result<(), ComposefsError> {
    let (path, _device) = loop_device::attach(file).map_err(ComposefsError::Loop)?;
    erofs(&path.to_string_lossy(), to, acl)
}

fn erofs(source: &str, to: &str, acl: bool) -> Result<(), ComposefsError> {
    let failed = |errno| ComposefsError::Erofs(errno, String::new());
    let (source, to) = (c_string(source).map_err(failed)?, c_string(to).map_err(failed)?);
    let fs = match NewFs::open(c"erofs") {
        Err(Errno::ENOSYS) => {
            let options = if acl { None } else { Some(c"noacl") };
            let done =
                mount(Some(source.as_c_str()), to.as_c_str(), Some(c"erofs"), MsFlags::MS_RDONLY, options);
            return done.map_err(failed);
        }
        opened => opened.map_err(failed)?,
    };
    let made = fs.set(c"source", Some(&source)).and_then(|()| {
        fs.set(c"ro", None)?;
        // Looking for lists where there are none costs a read for each file.
        if !acl {
            fs.set(c"noacl", None)?;
        }
        fs.mount(&to, true)
    });
    made.map_err(|errno| ComposefsError::Erofs(errno, fs.words()))
}

/// Mounts the overlay of a mounted image on the objects.
///
/// # Errors
/// See [`ComposefsError`].
pub fn mount_root(overlay: &Overlay) -> Result<(), ComposefsError> {
    let words = match with_new_api(overlay) {
        Ok(()) => return Ok(()),
        // What it is that an older kernel does not know, it cannot tell.
        Err((Errno::EINVAL | Errno::ENOSYS, words)) => words,
        Err((errno, words)) => return Err(ComposefsError::Overlay(errno, words)),
    };
    let data_only = with_options(overlay, "::");
    let done = if data_only == Err(Errno::EINVAL) { with_options(overlay, ":") } else { data_only };
    done.map_err(|errno| ComposefsError::Overlay(errno, words))
}

fn with_new_api(overlay: &Overlay) -> Result<(), (Errno, String)> {
    let fs = NewFs::open(c"overlay").map_err(|errno| (errno, String::new()))?;
    let set = |key: &CStr, value: &str| fs.set(key, Some(&c_string(value)?));
    let build = || {
        fs.set(c"source", Some(SOURCE))?;
        fs.set(c"metacopy", Some(c"on"))?;
        fs.set(c"redirect_dir", Some(c"on"))?;
        if overlay.verity {
            fs.set(c"verity", Some(c"require"))?;
        }
        set(c"lowerdir+", &overlay.image)?;
        set(c"datadir+", &overlay.objects)?;
        if let Some((upper, work)) = &overlay.upper {
            set(c"upperdir", upper)?;
            set(c"workdir", work)?;
        }
        fs.mount(&c_string(&overlay.to)?, overlay.readonly)
    };
    build().map_err(|errno| (errno, fs.words()))
}

fn with_options(overlay: &Overlay, separator: &str) -> nix::Result<()> {
    let (image, objects) = (escaped(&overlay.image), escaped(&overlay.objects));
    let mut options = format!("metacopy=on,redirect_dir=on,lowerdir={image}{separator}{objects}");
    if let Some((upper, work)) = &overlay.upper {
        options.push_str(&format!(",upperdir={},workdir={}", escaped(upper), escaped(work)));
    }
    if overlay.verity {
        options.push_str(",verity=require");
    }
    let flags = if overlay.readonly { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    let (to, options) = (c_string(&overlay.to)?, c_string(&options)?);
    mount(Some(SOURCE), to.as_c_str(), Some(c"overlay"), flags, Some(options.as_c_str()))
}

/// A path among the options of an overlay.
fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, ',' | ':' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}
