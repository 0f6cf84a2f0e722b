//! The mount plan: what is done to make a deployment the root, as a value.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::mounts::settings::Settings;

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
    /// composefs is `maybe` and the deployment has an image, which this build cannot mount.
    Composefs,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sysroot => "the sysroot must be the absolute path of a mount point other than /",
            Self::Deployment => {
                "the deployment must be ostree/deploy/STATEROOT/deploy/NAME below the sysroot"
            }
            Self::Composefs => "this build cannot do composefs yet, and the deployment has a composefs image",
        })
    }
}

impl Plan {
    /// The plan for `facts` under `settings`.
    ///
    /// # Errors
    /// When a path is not in the form that [`Facts`] asks for, or the deployment needs composefs.
    pub fn new(settings: &Settings, facts: &Facts) -> Result<Self, PlanError> {
        let sysroot = facts.sysroot.as_str();
        if !sysroot.strip_prefix('/').is_some_and(is_canonical) || sysroot == WORKSHOP {
            return Err(PlanError::Sysroot);
        }
        let stateroot = facts.deployment.rsplitn(3, '/').nth(2).filter(|_| is_canonical(&facts.deployment));
        let stateroot = stateroot.ok_or(PlanError::Deployment)?;
        if settings.composefs_maybe && facts.composefs_image {
            return Err(PlanError::Composefs);
        }
        let mut plan = Plan::default();
        plan.open(sysroot, &facts.deployment);
        if facts.bind_boot {
            plan.bind(format!("{sysroot}/boot"), inside("boot"));
        }
        if settings.sysroot_readonly {
            plan.etc(settings.etc_transient, &facts.transient_etc);
        }
        plan.usr(facts.hotfix, facts.filesystem_readonly);
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

    fn open(&mut self, sysroot: &str, deployment: &str) {
        self.directory(RUN_OSTREE, 0o755);
        self.directory(RUN_PRIVATE, 0);
        self.steps.push(Step::Private);
        self.directory(WORKSHOP, 0o755);
        let deployment = format!("{sysroot}/{deployment}");
        self.steps.push(Step::Enter { path: deployment.clone() });
        self.bind(deployment, WORKSHOP.into());
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

    fn usr(&mut self, hotfix: bool, readonly: bool) {
        if hotfix {
            let options = format!("lowerdir={WORKSHOP}/usr,upperdir=.usr-ovl-upper,workdir={HOTFIX_WORK}");
            self.steps.push(Step::Overlay { to: inside("usr"), options, readonly });
        } else {
            self.bind(inside("usr"), inside("usr"));
            self.remount(inside("usr"), true);
        }
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
    fn composefs_image_is_refused_only_when_asked_for() {
        let facts = Facts { composefs_image: true, ..facts() };
        assert!(Plan::new(&Settings::default(), &facts).is_ok());
        let settings = Settings { composefs_maybe: true, ..Settings::default() };
        assert_eq!(Plan::new(&settings, &facts), Err(PlanError::Composefs));
    }
}
