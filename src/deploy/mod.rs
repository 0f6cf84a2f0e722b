//! Turns a commit whose objects are in the sysroot's repository into a deployment that boots, as `ostree admin deploy`
//! does, and clears away what nothing needs any more.
//!
//! ```text
//!   fault     what can go wrong
//!   objects   the objects of the repository, read over storage::Trees
//!   copy      files and trees with their owners and attributes
//!   checkout  a commit's tree as hard links
//!   merge     /etc: the new defaults, and what was changed since the old ones
//!   kernel    which files of a commit go to /boot, and the checksum of their directory
//!   image     the composefs image, where one is asked for
//!   kargs     kernel arguments as ostree edits them
//!   keep      which deployments stay (pure)
//!   prepare   what is going to be done, as a value; nothing is written
//!   lay       the new deployment, made aside and renamed into place
//!   carry     all of it in order, over any storage::Trees
//!   collect   removal of objects that nothing reaches
//!   mend      what is damaged or missing in a deployment is made anew
//!   init      an empty filesystem as a sysroot
//!   act       a device, of the std ring
//! ```
//!
//! A deployment is made in `ostree/bootward/deployment` and renamed to its place when all of it is durable and was
//! compared with its commit. libostree makes it in place; but whoever looks for deployments on a disk whose boot entries
//! are lost, the guardian among them, must not find half of one. What a power cut leaves there is no deployment to
//! anybody; the next run, or [`crate::arrange::plan::tidy`], removes it.
//!
//! The loader directory is always written anew and swapped, also where kernel and arguments stay the same and libostree
//! would re-point `ostree/boot.N` only: that link is on the physical root and the entries are in the boot directory, so
//! that a bootloader or kernel that still sees the old state of one of the two finds links that lead to another
//! deployment than the entry's title says. After a swap of the loader the old entries and the old links both stay whole.
//! libostree goes on from either.
//!
//! Sources: ostree-sysroot-deploy.c, ostree-sysroot.c, ostree-diff.c, ostree-repo-checkout.c, ostree-kernel-args.c,
//! ostree-sysroot-cleanup.c and ostree-repo-prune.c of libostree v2026.4. Not done, and said where it matters: SELinux
//! labels by the commit's policy, Android boot images, initramfs overlays, staged deployments.

#[cfg(not(target_os = "none"))]
pub mod act;
pub mod carry;
pub mod checkout;
pub mod collect;
pub mod copy;
pub mod fault;
pub mod image;
pub mod init;
pub mod kargs;
pub mod keep;
pub mod kernel;
pub mod lay;
pub mod mend;
pub mod merge;
pub mod objects;
pub mod prepare;

pub use fault::Fault;
