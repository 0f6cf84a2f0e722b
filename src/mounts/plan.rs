//! The mount plan: what is done to make a deployment the root, as a value.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::mounts::settings::{Composefs, RootTransient, Settings};

/// Where the new root is put together before it takes the sysroot's place.
pub const WORKSHOP: &str = "/sysroot.tmp";
/// libostree's directory of state that lasts until the next boot.
pub const RUN_OSTREE: &str = "/run/ostree";
/// Its part that nobody else is to see; mode 0.
pub const RUN_PRIVATE: &str = "/run/ostree/.private";
/// By this file libostree knows that the system runs from a deployment, and from which.
pub const RUN_BOOTED: &str = "/run/ostree-booted";
/// In a deployment: the work directory of a `/usr` overlay that `ostree admin unlock --hotfix` made.
pub const HOTFIX_WORK: &str = ".usr-ovl-work";
/// In a deployment: its composefs image.
pub const COMPOSEFS_IMAGE: &str = ".ostree.cfs";
/// Where a composefs image is mounted until the overlay on it is.
pub const RUN_IMAGE: &str = "/run/ostree/.private/cfsroot-lower";
/// What changes of a transient root are kept in.
pub const RUN_ROOT: &str = "/run/ostree/.private/root";
/// By this link systemd finds the device below a root that is an overlay.
pub const VOLATILE_ROOT: &str = "/run/systemd/volatile-root";
/// The repository's objects, below the sysroot.
pub const OBJECTS: &str = "ostree/repo/objects";
/// The longest path in a plan, in bytes: `PATH_MAX` of Linux.
pub const MAX_PATH: usize = 4095;

/// What was found out before planning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The physical root's mount point: absolute, canonical.
    pub sysroot: String,
    /// The deployment below it, canonical: `ostree/deploy/STATEROOT/deploy/CHECKSUM.SERIAL`.
    pub deployment: String,
    /// The physical root's filesystem is mounted read-only.
    pub filesystem_readonly: bool,
    /// The deployment has [`HOTFIX_WORK`].
    pub hotfix: bool,
    /// The deployment has [`COMPOSEFS_IMAGE`].
    pub composefs_image: bool,
    /// The fs-verity digest of the image, as a commit with a good signature names it; asked for with
    /// [`Composefs::Signed`] only.
    pub image_digest: Option<[u8; 32]>,
    /// The block device of the sysroot, as `/dev/block/MAJOR:MINOR`, if it has one.
    pub device: Option<String>,
    /// Bind `/boot`: what ostree-prepare-root did until v2025.7, if `boot/loader` of the sysroot was a link and
    /// the deployment had a directory `boot`. Later versions leave it to ostree-system-generator.
    pub bind_boot: bool,
    /// Bind `/var` of the stateroot; otherwise ostree-system-generator does, in the OS.
    pub bind_var: bool,
    /// The directory for `[etc] transient`, new and of an unguessable name: `/run/ostree/transient-etc.XXXXXX`.
    pub transient_etc: String,
    /// The content of [`RUN_BOOTED`].
    pub booted: Vec<u8>,
}

/// One step. Paths are absolute, unless a step says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A directory; it may exist already.
    Directory {
        /// Where.
        path: String,
        /// Its permissions, whatever the umask.
        mode: u32,
    },
    /// All mounts of this namespace become private: shared ones cannot be moved.
    Private,
    /// Work in this directory from now on.
    Enter {
        /// Where.
        path: String,
    },
    /// A bind mount, not recursive.
    Bind {
        /// What; may be relative to the entered directory.
        from: String,
        /// Where.
        to: String,
    },
    /// The flags of a bind mount: read-only or writable, and no others.
    Remount {
        /// Where.
        path: String,
        /// Read-only, or writable.
        readonly: bool,
    },
    /// An overlay.
    Overlay {
        /// Where.
        to: String,
        /// The kernel's options; paths may be relative to the entered directory.
        options: String,
        /// Mounted read-only.
        readonly: bool,
    },
    /// A composefs image, read-only.
    Image {
        /// The image.
        image: String,
        /// Where.
        to: String,
        /// The fs-verity digest that it must have.
        digest: Option<[u8; 32]>,
    },
    /// The root that a mounted composefs image stands for.
    Composefs(Overlay),
    /// A symbolic link and the directory above it, which exist already or could be missing: what fails is told
    /// and does not stop the plan.
    Link {
        /// Where.
        path: String,
        /// What it names.
        target: String,
    },
    /// A mount and those on it leave the namespace.
    Detach {
        /// Where.
        path: String,
    },
    /// Receives mounts from its source and passes on its own: slave, then shared.
    SlaveShared {
        /// Where.
        path: String,
    },
    /// A file of mode 0644, replaced as a whole.
    Write {
        /// Where.
        path: String,
        /// Its content.
        data: Vec<u8>,
    },
    /// A mount, with those on it, moves.
    Move {
        /// From where.
        from: String,
        /// To where.
        to: String,
    },
    /// An empty directory goes.
    RemoveDirectory {
        /// Where.
        path: String,
    },
}

/// The overlay of a mounted composefs image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Where the image is mounted.
    pub image: String,
    /// The directory with the objects.
    pub objects: String,
    /// Where the overlay goes.
    pub to: String,
    /// The directories that take changes: what is changed, and the overlay's own.
    pub upper: Option<(String, String)>,
    /// No object is read without the fs-verity digest that the image names.
    pub verity: bool,
    /// Mounted read-only.
    pub readonly: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = |readonly: &bool| if *readonly { "ro" } else { "rw" };
        match self {
            Step::Directory { path, mode } => write!(f, "mkdir {mode:04o} {path}"),
            Step::Private => f.write_str("private recursively /"),
            Step::Enter { path } => write!(f, "cd {path}"),
            Step::Bind { from, to } => write!(f, "bind {from} on {to}"),
            Step::Remount { path, readonly } => write!(f, "remount {} {path}", access(readonly)),
            Step::Overlay { to, options, readonly } => {
                write!(f, "overlay {} {options} on {to}", access(readonly))
            }
            Step::Image { image, to, digest } => {
                write!(f, "image {image} on {to}")?;
                let Some(digest) = digest else { return Ok(()) };
                f.write_str(" if its fs-verity digest is ")?;
                digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Step::Composefs(overlay) => {
                let Overlay { image, objects, to, upper, verity, readonly } = overlay;
                write!(f, "composefs {} image={image},objects={objects}", access(readonly))?;
                if let Some((upper, work)) = upper {
                    write!(f, ",upperdir={upper},workdir={work}")?;
                }
                write!(f, "{} on {to}", if *verity { ",verity=require" } else { "" })
            }
            Step::Link { path, target } => write!(f, "link {path} to {target}"),
            Step::Detach { path } => write!(f, "detach {path}"),
            Step::SlaveShared { path } => write!(f, "slave+shared {path}"),
            Step::Write { path, data } => write!(f, "write {} bytes to {path}", data.len()),
            Step::Move { from, to } => write!(f, "move {from} to {to}"),
            Step::RemoveDirectory { path } => write!(f, "rmdir {path}"),
        }
    }
}

/// The steps in their order. Prints as one line a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// The sysroot is not an absolute path in canonical form, or is `/` itself.
    Sysroot,
    /// The deployment is not a path in canonical form with a stateroot above it.
    Deployment,
    /// composefs is required and the deployment has no image.
    NoImage,
    /// The image must be a signed one, and no commit with a good signature names its digest.
    Unsigned,
    /// A transient root needs composefs, which is off, or the deployment has no image.
    RootTransient,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sysroot => "the sysroot must be the absolute path of a mount point other than /",
            Self::Deployment => {
                "the deployment must be ostree/deploy/STATEROOT/deploy/NAME below the sysroot"
            }
            Self::NoImage => "composefs is required, and the deployment has no composefs image (.ostree.cfs)",
            Self::Unsigned => "no signed commit names the deployment's composefs image",
            Self::RootTransient => "[root] transient needs a composefs root",
        })
    }
}

/// Room for the steps of most plans, so that the list is not moved while it grows.
const USUAL: usize = 30;

impl Plan {
    /// The root comes from a composefs image whose digest nobody vouches for.
    pub fn mounts_unsigned_image(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Image { digest: None, .. }))
    }

    /// The plan for `facts` under `settings`.
    ///
    /// # Errors
    /// When a path is not in the form that [`Facts`] asks for, or composefs is asked for and cannot be had.
    pub fn new(settings: &Settings, facts: &Facts) -> Result<Self, PlanError> {
        let sysroot = facts.sysroot.as_str();
        if !sysroot.strip_prefix('/').is_some_and(is_canonical) || sysroot == WORKSHOP {
            return Err(PlanError::Sysroot);
        }
        let stateroot = facts.deployment.rsplitn(3, '/').nth(2).filter(|_| is_canonical(&facts.deployment));
        let stateroot = stateroot.ok_or(PlanError::Deployment)?;
        let composefs = settings.uses_composefs(facts.composefs_image);
        if settings.composefs == Composefs::Signed && facts.image_digest.is_none() {
            return Err(PlanError::Unsigned);
        }
        if composefs && !facts.composefs_image {
            return Err(PlanError::NoImage);
        }
        if settings.root_transient != RootTransient::No && !composefs {
            return Err(PlanError::RootTransient);
        }
        let mut plan = Plan { steps: Vec::with_capacity(USUAL) };
        let deployment = format!("{sysroot}/{}", facts.deployment);
        plan.open(&deployment);
        if settings.composefs != Composefs::No {
            plan.directory(RUN_IMAGE, 0o700);
        }
        if composefs {
            plan.composefs(settings, facts);
        } else {
            plan.bind(deployment, WORKSHOP.into());
        }
        if facts.bind_boot {
            plan.bind(format!("{sysroot}/boot"), inside("boot"));
        }
        if settings.mounts_etc(composefs) {
            plan.etc(settings.etc_transient, &facts.transient_etc);
        }
        if facts.hotfix && settings.composefs != Composefs::Signed {
            plan.hotfix(facts.filesystem_readonly);
        } else if !composefs {
            plan.bind(inside("usr"), inside("usr"));
            plan.remount(inside("usr"), true);
        }
        plan.bind(sysroot.into(), inside("sysroot"));
        plan.steps.push(Step::Detach { path: sysroot.into() });
        let var = format!("{WORKSHOP}/sysroot/{stateroot}/var");
        if settings.sysroot_readonly {
            plan.bind(var.clone(), var.clone());
            plan.remount(var.clone(), false);
        }
        if facts.bind_var {
            plan.bind(var, inside("var"));
            plan.steps.push(Step::SlaveShared { path: inside("var") });
        }
        plan.steps.push(Step::Write { path: RUN_BOOTED.into(), data: facts.booted.clone() });
        plan.steps.push(Step::Move { from: WORKSHOP.into(), to: sysroot.into() });
        plan.steps.push(Step::Enter { path: sysroot.into() });
        plan.steps.push(Step::RemoveDirectory { path: WORKSHOP.into() });
        if settings.sysroot_readonly {
            plan.remount(format!("{sysroot}/sysroot"), true);
        }
        Ok(plan)
    }

    fn open(&mut self, deployment: &str) {
        self.directory(RUN_OSTREE, 0o755);
        self.directory(RUN_PRIVATE, 0);
        self.steps.push(Step::Private);
        self.directory(WORKSHOP, 0o755);
        self.steps.push(Step::Enter { path: deployment.into() });
    }

    fn composefs(&mut self, settings: &Settings, facts: &Facts) {
        let upper = (settings.root_transient != RootTransient::No).then(|| {
            let (upper, work) = (format!("{RUN_ROOT}/upper"), format!("{RUN_ROOT}/work"));
            self.directory(RUN_ROOT, 0o755);
            self.directory(&upper, 0o755);
            self.directory(&work, 0o700);
            (upper, work)
        });
        let sysroot = &facts.sysroot;
        self.steps.push(Step::Image {
            image: format!("{sysroot}/{}/{COMPOSEFS_IMAGE}", facts.deployment),
            to: RUN_IMAGE.into(),
            digest: facts.image_digest,
        });
        self.steps.push(Step::Composefs(Overlay {
            image: RUN_IMAGE.into(),
            objects: format!("{sysroot}/{OBJECTS}"),
            to: WORKSHOP.into(),
            upper,
            verity: settings.composefs >= Composefs::Verity,
            readonly: settings.root_transient != RootTransient::Writable,
        }));
        self.steps.push(Step::Detach { path: RUN_IMAGE.into() });
        if let Some(device) = &facts.device {
            self.steps.push(Step::Link { path: VOLATILE_ROOT.into(), target: device.clone() });
        }
    }

    fn etc(&mut self, transient: bool, directory: &str) {
        if !transient {
            self.bind("etc".into(), inside("etc"));
            self.remount(inside("etc"), false);
            return;
        }
        self.directory(directory, 0o700);
        self.directory(&format!("{directory}/upper"), 0o755);
        self.directory(&format!("{directory}/work"), 0o755);
        let options =
            format!("lowerdir={WORKSHOP}/usr/etc,upperdir={directory}/upper,workdir={directory}/work");
        self.steps.push(Step::Overlay { to: inside("etc"), options, readonly: false });
    }

    fn hotfix(&mut self, readonly: bool) {
        let options = format!("lowerdir={WORKSHOP}/usr,upperdir=.usr-ovl-upper,workdir={HOTFIX_WORK}");
        self.steps.push(Step::Overlay { to: inside("usr"), options, readonly });
    }

    fn directory(&mut self, path: &str, mode: u32) {
        self.steps.push(Step::Directory { path: path.into(), mode });
    }

    fn bind(&mut self, from: String, to: String) {
        self.steps.push(Step::Bind { from, to });
    }

    fn remount(&mut self, path: String, readonly: bool) {
        self.steps.push(Step::Remount { path, readonly });
    }
}

fn inside(name: &str) -> String {
    format!("{WORKSHOP}/{name}")
}

/// Relative, without empty, `.` and `..` components, and not too long.
fn is_canonical(path: &str) -> bool {
    path.len() <= MAX_PATH
        && !path.contains('\0')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn facts() -> Facts {
        Facts {
            sysroot: "/sysroot".into(),
            deployment: "ostree/deploy/os/deploy/abc.0".into(),
            transient_etc: "/run/ostree/transient-etc.A1b2C3".into(),
            booted: alloc::vec![0; 7],
            ..Facts::default()
        }
    }

    #[test]
    fn default_plan_reads_as_documented() {
        let plan = Plan::new(&Settings::default(), &facts()).unwrap();
        let expected = "mkdir 0755 /run/ostree\nmkdir 0000 /run/ostree/.private\nprivate recursively /\n\
            mkdir 0755 /sysroot.tmp\ncd /sysroot/ostree/deploy/os/deploy/abc.0\n\
            bind /sysroot/ostree/deploy/os/deploy/abc.0 on /sysroot.tmp\n\
            bind /sysroot.tmp/usr on /sysroot.tmp/usr\nremount ro /sysroot.tmp/usr\n\
            bind /sysroot on /sysroot.tmp/sysroot\ndetach /sysroot\nwrite 7 bytes to /run/ostree-booted\n\
            move /sysroot.tmp to /sysroot\ncd /sysroot\nrmdir /sysroot.tmp\n";
        assert_eq!(plan.to_string(), expected);
    }

    #[test]
    fn readonly_adds_etc_var_and_the_last_remount() {
        let settings = Settings { sysroot_readonly: true, ..Settings::default() };
        let text = Plan::new(&settings, &Facts { bind_var: true, ..facts() }).unwrap().to_string();
        let var = "/sysroot.tmp/sysroot/ostree/deploy/os/var";
        assert!(text.contains("bind etc on /sysroot.tmp/etc\nremount rw /sysroot.tmp/etc\n"));
        assert!(
            text.contains(&format!(
                "bind {var} on {var}\nremount rw {var}\nbind {var} on /sysroot.tmp/var\n"
            ))
        );
        assert!(text.contains("slave+shared /sysroot.tmp/var\n"));
        assert!(text.ends_with("rmdir /sysroot.tmp\nremount ro /sysroot/sysroot\n"));
    }

    #[test]
    fn transient_etc_needs_readonly_as_upstream() {
        let settings = Settings { etc_transient: true, ..Settings::default() };
        assert!(!Plan::new(&settings, &facts()).unwrap().to_string().contains("overlay"));
        let settings = Settings { sysroot_readonly: true, ..settings };
        assert!(Plan::new(&settings, &facts()).unwrap().to_string().contains("overlay rw lowerdir="));
    }

    #[test]
    fn an_image_without_a_digest_is_told_apart() {
        let facts = Facts { composefs_image: true, ..facts() };
        let plan = |composefs, image_digest| {
            let settings = Settings { composefs, ..Settings::default() };
            Plan::new(&settings, &Facts { image_digest, ..facts.clone() }).unwrap().mounts_unsigned_image()
        };
        assert!(plan(Composefs::Yes, None) && plan(Composefs::Verity, None) && plan(Composefs::Maybe, None));
        assert!(!plan(Composefs::Signed, Some([1; 32])) && !plan(Composefs::No, None));
    }

    #[test]
    fn crooked_paths_are_refused() {
        for sysroot in ["", "/", "sysroot", "/a/../b", "/sysroot/", "//a", WORKSHOP] {
            let facts = Facts { sysroot: sysroot.into(), ..facts() };
            assert_eq!(Plan::new(&Settings::default(), &facts), Err(PlanError::Sysroot), "{sysroot}");
        }
        for deployment in ["", "a", "a/b", "/a/b/c", "a/b/../c", "a//b/c", "a/b/c/"] {
            let facts = Facts { deployment: deployment.into(), ..facts() };
            assert_eq!(Plan::new(&Settings::default(), &facts), Err(PlanError::Deployment), "{deployment}");
        }
    }

    #[test]
    fn composefs_plan_reads_as_documented() {
        let settings = Settings {
            sysroot_readonly: true,
            composefs: Composefs::Signed,
            root_transient: RootTransient::ReadOnly,
            ..Settings::default()
        };
        let facts = Facts {
            composefs_image: true,
            hotfix: true,
            image_digest: Some([0xab; 32]),
            device: Some("/dev/block/8:1".into()),
            ..facts()
        };
        let text = Plan::new(&settings, &facts).unwrap().to_string();
        let digest = "ab".repeat(32);
        let expected = format!(
            "mkdir 0755 /run/ostree\nmkdir 0000 /run/ostree/.private\nprivate recursively /\n\
            mkdir 0755 /sysroot.tmp\ncd /sysroot/ostree/deploy/os/deploy/abc.0\n\
            mkdir 0700 /run/ostree/.private/cfsroot-lower\nmkdir 0755 /run/ostree/.private/root\n\
            mkdir 0755 /run/ostree/.private/root/upper\nmkdir 0700 /run/ostree/.private/root/work\n\
            image /sysroot/ostree/deploy/os/deploy/abc.0/.ostree.cfs on /run/ostree/.private/cfsroot-lower \
            if its fs-verity digest is {digest}\n\
            composefs ro image=/run/ostree/.private/cfsroot-lower,objects=/sysroot/ostree/repo/objects,\
            upperdir=/run/ostree/.private/root/upper,workdir=/run/ostree/.private/root/work,verity=require \
            on /sysroot.tmp\ndetach /run/ostree/.private/cfsroot-lower\n\
            link /run/systemd/volatile-root to /dev/block/8:1\n\
            bind etc on /sysroot.tmp/etc\nremount rw /sysroot.tmp/etc\nbind /sysroot on /sysroot.tmp/sysroot\n"
        );
        assert!(text.starts_with(&expected), "{text}");
    }

    #[test]
    fn composefs_is_never_skipped() {
        let plan = |composefs, root_transient, composefs_image, image_digest| {
            let settings = Settings { composefs, root_transient, ..Settings::default() };
            Plan::new(&settings, &Facts { composefs_image, image_digest, ..facts() })
        };
        for level in [Composefs::Yes, Composefs::Verity] {
            assert_eq!(plan(level, RootTransient::No, false, None), Err(PlanError::NoImage), "{level:?}");
            assert!(plan(level, RootTransient::Writable, true, None).is_ok(), "{level:?}");
        }
        assert_eq!(plan(Composefs::Signed, RootTransient::No, true, None), Err(PlanError::Unsigned));
        let digest = Some([1; 32]);
        assert_eq!(plan(Composefs::Signed, RootTransient::No, false, digest), Err(PlanError::NoImage));
        for root in [RootTransient::Writable, RootTransient::ReadOnly] {
            assert_eq!(plan(Composefs::No, root, true, None), Err(PlanError::RootTransient));
            assert_eq!(plan(Composefs::Maybe, root, false, None), Err(PlanError::RootTransient));
            assert!(plan(Composefs::Maybe, root, true, None).is_ok());
        }
    }
}
