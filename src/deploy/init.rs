//! An empty filesystem as a sysroot: what `ostree admin init-fs --modern` and `os-init` make, and for U-Boot what
//! meta-updater seeds, so that libostree takes it for one (`boot/loader/uEnv.txt`).

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use crate::arrange::plan::Step;
use crate::storage::{At, Files, Node, Volume};

/// What libostree writes into a new repository of mode `bare`.
const CONFIG: &str = "[core]\nrepo_version=1\nmode=bare\n";

/// The steps to it. What is there already stays as it is.
///
/// # Errors
/// When that cannot be told.
pub fn plan<F: Files>(files: &mut F, stateroot: &str, uboot: bool) -> Result<Vec<Step>, F::Error> {
    let directory = |path: &str| Step::Directory(At::root(path), 0o755);
    let mut steps: Vec<Step> = ["ostree/deploy", "ostree/repo"].map(directory).into();
    for inner in ["extensions", "objects", "refs/heads", "refs/mirrors", "refs/remotes", "state", "tmp/cache"]
    {
        steps.push(directory(&format!("ostree/repo/{inner}")));
    }
    let above = format!("ostree/deploy/{stateroot}");
    steps.push(directory(&format!("{above}/var")));
    if uboot && files.node(&At::boot("loader"))?.is_none() {
        steps.push(Step::Directory(At::boot("loader.0"), 0o755));
        steps.push(Step::Write(At::boot("loader.0/uEnv.txt"), "".into()));
        steps.push(Step::Sync(Volume::Boot));
        steps.push(Step::Link(At::boot("loader"), "loader.0".into()));
    }
    // Last: a repository without its configuration is none, and what goes before it may still be missing.
    let config = At::root("ostree/repo/config");
    steps.push(Step::Sync(Volume::Root));
    if files.node(&config)? != Some(Node::File) {
        steps.push(Step::Write(config, CONFIG.into()));
    }
    steps.extend(vec![Step::Sync(Volume::Root), Step::Freeze(Volume::Boot)]);
    Ok(steps)
}
