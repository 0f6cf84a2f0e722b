//! Gathers what a plan needs: files of the initramfs and facts of the deployment.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{SFlag, major, minor};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::keyfile::{self, KeyFile, KeyFileError};
use crate::mounts::booted::Booted;
use crate::mounts::plan::{self, Facts, Plan, PlanError};
use crate::mounts::settings::{
    CONFIG_PATHS, Composefs, REPO_CONFIG, RootTransient, Settings, SettingsError, argument,
};
use crate::mounts::signed::{self, SignedError};
use crate::sys::btrfs;

/// Exists if the initramfs is to mount `/var` although the OS has ostree-system-generator.
pub const MOUNT_VAR_MARKER: &str = "/run/ostree/initramfs-mount-var";
/// In a deployment: what mounts `/var` and `/boot` in the OS.
pub const GENERATOR: &str = "usr/lib/systemd/system-generators/ostree-system-generator";

/// Who asks, which decides on `/var` and `/boot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// `bootward prepare-root`: as ostree-prepare-root with systemd: `/var` only if [`MOUNT_VAR_MARKER`]
    /// exists, `/boot` only if asked.
    DropIn {
        /// Bind `/boot`, as ostree-prepare-root did until v2025.7.
        bind_boot: bool,
    },
    /// PID 1: `/var` and `/boot` too, unless the deployment has [`GENERATOR`], which does both in the OS. With
    /// [`MOUNT_VAR_MARKER`] `/var` in any case.
    Init,
}

/// Why there is no plan.
#[derive(Debug)]
pub enum SurveyError {
    /// The command line names no deployment.
    NoTarget,
    /// `androidboot.slot_suffix` is neither `_a` nor `_b`.
    Slot,
    /// What `ostree=` names is not a link.
    NotALink(PathBuf),
    /// What `ostree=` names is not below the sysroot.
    Outside(PathBuf),
    /// A path is not UTF-8.
    NotUtf8(PathBuf),
    /// A file or directory could not be read.
    Read(PathBuf, io::Error),
    /// A configuration file is wrong.
    Config(PathBuf, KeyFileError),
    /// What is asked for cannot be done.
    Settings(SettingsError),
    /// The composefs image must be a signed one, and is not.
    Signed(SignedError),
    /// There is no plan for it.
    Plan(PlanError),
}

impl fmt::Display for SurveyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTarget => f.write_str("the kernel command line has no ostree="),
            Self::Slot => f.write_str("androidboot.slot_suffix= must be _a or _b"),
            Self::NotALink(path) => write!(f, "{}: ostree= must name a symbolic link", path.display()),
            Self::Outside(path) => write!(f, "{}: not below the sysroot", path.display()),
            Self::NotUtf8(path) => write!(f, "{}: not UTF-8", path.display()),
            Self::Read(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Config(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Settings(error) => error.fmt(f),
            Self::Signed(error) => error.fmt(f),
            Self::Plan(error) => error.fmt(f),
        }
    }
}

/// The plan that makes `deployment` (canonical, relative to `sysroot`) the root, with `/` of the initramfs at
/// `initramfs`.
///
/// # Errors
/// See [`SurveyError`].
pub fn survey(
    initramfs: &Path,
    sysroot: &Path,
    deployment: &str,
    cmdline: &str,
    caller: Caller,
) -> Result<Plan, SurveyError> {
    let sysroot = fs::canonicalize(sysroot).map_err(|e| SurveyError::Read(sysroot.into(), e))?;
    let config = configuration(initramfs)?;
    let repo_config = sysroot.join(REPO_CONFIG);
    let repo = || read_key_file(&repo_config).inspect_err(|e| log::warn!("{e}")).ok().flatten();
    let settings = Settings::read(&config, repo, cmdline).map_err(SurveyError::Settings)?;
    let facts = facts(initramfs, &sysroot, deployment, &settings, caller)?;
    Plan::new(&settings, &facts).map_err(SurveyError::Plan)
}

/// The deployment that `cmdline` names, relative to `sysroot`, as ostree-prepare-root resolves it: a link, its
/// target canonical; and other than there, it must be below the sysroot.
///
/// # Errors
/// When there is none, or it is not that.
pub fn resolve(sysroot: &Path, cmdline: &str) -> Result<String, SurveyError> {
    let sysroot = fs::canonicalize(sysroot).map_err(|e| SurveyError::Read(sysroot.into(), e))?;
    let target = match argument(cmdline, "androidboot.slot_suffix") {
        Some("_a") => "/ostree/root.a",
        Some("_b") => "/ostree/root.b",
        Some(_) => return Err(SurveyError::Slot),
        None if cmdline.split_ascii_whitespace().any(|a| a.starts_with("androidboot.")) => "/ostree/root.a",
        None => argument(cmdline, "ostree").filter(|t| !t.is_empty()).ok_or(SurveyError::NoTarget)?,
    };
    let link = sysroot.join(target.trim_start_matches('/'));
    let read = |error| SurveyError::Read(link.clone(), error);
    if !fs::symlink_metadata(&link).map_err(read)?.is_symlink() {
        return Err(SurveyError::NotALink(link));
    }
    let deployment = fs::canonicalize(&link).map_err(read)?;
    match deployment.strip_prefix(&sysroot) {
        Ok(inside) => inside.to_str().map(String::from).ok_or(SurveyError::NotUtf8(deployment.clone())),
        Err(_) => Err(SurveyError::Outside(deployment)),
    }
}

fn facts(
    initramfs: &Path,
    sysroot: &Path,
    deployment: &str,
    settings: &Settings,
    who: Caller,
) -> Result<Facts, SurveyError> {
    let directory = sysroot.join(deployment);
    let stat = fs::symlink_metadata(&directory).map_err(|e| SurveyError::Read(directory.clone(), e))?;
    let flags = statvfs(sysroot).map_err(|e| SurveyError::Read(sysroot.into(), e.into()))?.flags();
    let has = |name: &str| fs::symlink_metadata(directory.join(name)).is_ok();
    let boot = || {
        fs::symlink_metadata(sysroot.join("boot/loader")).is_ok_and(|m| m.is_symlink())
            && fs::symlink_metadata(directory.join("boot")).is_ok_and(|m| m.is_dir())
    };
    let marked = fs::symlink_metadata(MOUNT_VAR_MARKER).is_ok();
    let (bind_boot, bind_var) = match who {
        Caller::DropIn { bind_boot } => (bind_boot, marked),
        Caller::Init => (!has(GENERATOR), marked || !has(GENERATOR)),
    };
    // As upstream, `maybe` takes an image that leads nowhere for none, and fails with one that is wrong.
    let image = fs::metadata(directory.join(plan::COMPOSEFS_IMAGE));
    let composefs_image = !image.is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    let composefs = settings.uses_composefs(composefs_image);
    let signed = settings.composefs == Composefs::Signed;
    let image_digest =
        || signed::digest(initramfs, sysroot, deployment, &settings.keypath).map_err(SurveyError::Signed);
    let image_digest = if signed { Some(image_digest()?) } else { None };
    let transient = settings.mounts_etc(composefs) && settings.etc_transient;
    let transient_etc = if transient { unguessable("/run/ostree/transient-etc.")? } else { String::new() };
    let booted = Booted {
        device_inode: Some((stat.dev(), stat.ino())),
        root_transient: settings.root_transient != RootTransient::No,
        root_transient_ro: settings.root_transient == RootTransient::ReadOnly,
        composefs,
        composefs_verity: settings.composefs >= Composefs::Verity,
        composefs_signed: signed.then(|| settings.keypath.clone()),
        sysroot_readonly: settings.sysroot_readonly,
        transient_etc: transient.then(|| transient_etc.clone()),
    };
    Ok(Facts {
        sysroot: sysroot.to_str().map(String::from).ok_or_else(|| SurveyError::NotUtf8(sysroot.into()))?,
        deployment: deployment.into(),
        filesystem_readonly: flags.contains(FsFlags::ST_RDONLY),
        hotfix: has(plan::HOTFIX_WORK),
        composefs_image,
        image_digest,
        device: if composefs { block_device(initramfs, sysroot) } else { None },
        bind_boot: bind_boot && boot(),
        bind_var,
        transient_etc,
        booted: booted.to_bytes(),
    })
}

/// The block device below the sysroot: the one that udev found to be the root, else the one of the mount. The form
/// is the only one that systemd understands.
fn block_device(initramfs: &Path, sysroot: &Path) -> Option<String> {
    let block = |path: &Path| {
        let found =
            fs::metadata(path).ok().filter(|m| m.mode() & SFlag::S_IFMT.bits() == SFlag::S_IFBLK.bits());
        found.map(|m| m.rdev())
    };
    let device = block(&initramfs.join("dev/gpt-auto-root")).or_else(|| {
        let own = fs::metadata(sysroot).ok()?.dev();
        if major(own) > 0 { Some(own) } else { block(&btrfs::device(sysroot)?) }
    })?;
    (device != 0).then(|| format!("/dev/block/{}:{}", major(device), minor(device)))
}

/// `prepare-root.conf`: of the two places the later one that exists. Both must be sound.
fn configuration(initramfs: &Path) -> Result<KeyFile, SurveyError> {
    let mut config = KeyFile::default();
    for path in CONFIG_PATHS {
        if let Some(found) = read_key_file(&initramfs.join(path))? {
            config = found;
        }
    }
    Ok(config)
}

fn read_key_file(path: &Path) -> Result<Option<KeyFile>, SurveyError> {
    let mut data = Vec::new();
    let read = File::open(path).and_then(|f| f.take(keyfile::MAX_SIZE as u64 + 1).read_to_end(&mut data));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SurveyError::Read(path.into(), error)),
        Ok(_) => KeyFile::parse(&data).map(Some).map_err(|error| SurveyError::Config(path.into(), error)),
    }
}

/// `prefix` and six letters or digits of the kernel's randomness, as mkdtemp makes them.
fn unguessable(prefix: &str) -> Result<String, SurveyError> {
    let source = Path::new("/dev/urandom");
    let mut random = [0; 6];
    let read = File::open(source).and_then(|mut f| f.read_exact(&mut random));
    read.map_err(|error| SurveyError::Read(source.into(), error))?;
    let mut name = String::from(prefix);
    name.extend(random.iter().map(|byte| match byte % 62 {
        n @ 0..26 => char::from(b'a' + n),
        n @ 26..52 => char::from(b'A' + (n - 26)),
        n => char::from(b'0' + (n - 52)),
    }));
    Ok(name)
}
