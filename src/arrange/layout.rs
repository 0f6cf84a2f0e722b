//! What a sysroot's boot configuration looks like before a change.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// How the loader directory is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loader {
    /// `boot/loader` is a link to `loader.0` or `loader.1`: this one.
    Link(u8),
    /// There is no link, or it leads nowhere; entries were found in this one.
    Lost(u8),
    /// `boot/loader` is a directory, as systemd-boot on VFAT has it: not ours to write.
    Directory,
}

impl Loader {
    /// The boot version in use.
    pub fn version(self) -> u8 {
        match self {
            Loader::Link(version) | Loader::Lost(version) => version,
            Loader::Directory => 0,
        }
    }
}

/// A kernel's file: its name in the deployment's `usr/lib/modules/RELEASE`, and its name in `/boot`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootFile {
    /// The path in the deployment.
    pub source: String,
    /// The name in the directory of the boot checksum.
    pub name: String,
    /// What is in `/boot` is what the deployment has.
    pub good: bool,
}

/// One deployment, with all that its boot entry says and needs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// Its stateroot.
    pub stateroot: String,
    /// Its commit.
    pub commit: String,
    /// Its deploy serial.
    pub serial: u32,
    /// The checksum that its kernel's directory is named after.
    pub checksum: String,
    /// `PRETTY_NAME`, or `ID`, of its os-release.
    pub os: String,
    /// The version in its commit's metadata.
    pub version: Option<String>,
    /// The keys and values of its boot entry, in the file's order.
    pub keys: Vec<(String, String)>,
    /// The name of its boot entry; libostree's boot counting is kept in it.
    pub file: String,
    /// Its kernel, initramfs and device trees.
    pub boot_files: Vec<BootFile>,
    /// `usr/lib/ostree-boot/uEnv.txt`, which goes into the bootloader's when it is the first one.
    pub uenv: Option<String>,
    /// `ostree admin pin`: nobody removes it.
    pub pinned: bool,
    /// It is the one that is running.
    pub booted: bool,
}

impl Entry {
    /// `COMMIT.SERIAL`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.commit, self.serial)
    }

    /// Its directory, from the sysroot.
    pub fn path(&self) -> String {
        format!("ostree/deploy/{}/deploy/{}", self.stateroot, self.name())
    }

    /// Its kernel's directory, from the boot directory.
    pub fn boot_directory(&self) -> String {
        format!("ostree/{}-{}", self.stateroot, self.checksum)
    }

    /// A value of its boot entry.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.keys.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// The boot configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The loader directory in use.
    pub loader: Loader,
    /// The sub-version that `boot.0` and `boot.1` lead to.
    pub sub: [Option<u8>; 2],
    /// The bootloader is U-Boot: there is an `uEnv.txt`.
    pub uboot: bool,
    /// There is something called `boot` in the boot directory.
    pub self_link: bool,
    /// `sysroot.bootprefix`: entries name `/boot/ostree/…` instead of `/ostree/…`.
    pub bootprefix: bool,
    /// Entries are named `ostree-N-STATEROOT.conf`, as libostree did before 2024.5.
    pub named_by_stateroot: bool,
    /// The deployments in boot order.
    pub entries: Vec<Entry>,
    /// Deployments on disk that no entry names, as stateroot, and commit and serial as in the directory's name.
    pub unnamed: Vec<(String, String)>,
    /// Directories of kernels in `boot/ostree`.
    pub boot_directories: Vec<String>,
    /// `ostree/V/S/I` below `refs/heads` of the repository.
    pub refs: Vec<String>,
    /// What is out of step, each in a sentence; a sound configuration has none.
    pub faults: Vec<String>,
}
