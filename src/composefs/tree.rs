//! What an image shows: a commit's tree, changed as an overlay with the objects below needs it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::ostree::tree::{Attributes, DIRECTORY, Meta, TYPE_BITS};

use super::verity::Verity;

/// Longer names of attributes cannot be in an image, in bytes (`XATTR_NAME_MAX`).
const ATTRIBUTE_NAME_MAX: usize = 255;
/// All attributes of an inode have at most so many bytes (`LCFS_INODE_EXTERNAL_XATTR_MAX`).
const ATTRIBUTES_MAX: usize = 32_767;
/// Larger files are not taken, in bytes: one chunk has to be enough for a file.
const FILE_MAX: u64 = 1 << 43;
/// The longest text of a link, in bytes.
const LINK_MAX: usize = 4095;
/// What overlayfs keeps its own notes in, and what such a note of a lower layer is called.
const OVERLAY: &[u8] = b"trusted.overlay.";
const ESCAPED: &[u8] = b"trusted.overlay.overlay.";
/// The label that everything below a root without one of its own gets.
const LABEL: &[u8] = b"security.selinux";
/// A character device, with the numbers 0 and 0: overlayfs takes it for nothing.
const WHITEOUT: u32 = 0o020_644;

/// Why a tree cannot be an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TreeError {
    /// The root is not a directory, or something that is not a directory has something in it.
    NotADirectory,
    /// An extended attribute has a name or value that is too long, or there are too many.
    Attributes(String),
    /// A file is larger than 8 TiB, or a link's text longer than 4,095 bytes.
    TooLong(String),
    /// There is more of it than an image can hold.
    TooMuch,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TreeError::NotADirectory => f.write_str("composefs image: a file has something in it"),
            TreeError::Attributes(name) => {
                write!(f, "composefs image: the extended attributes of '{name}' are too long or too many")
            }
            TreeError::TooLong(name) => write!(f, "composefs image: '{name}' is too long"),
            TreeError::TooMuch => f.write_str("composefs image: there are more files than it can hold"),
        }
    }
}

/// What an inode is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// A directory.
    Directory,
    /// A symbolic link, with its text.
    Link(String),
    /// A file without content.
    Empty,
    /// A file whose content is elsewhere.
    File {
        /// Its length in bytes.
        length: u64,
        /// Where it is, from the directory of objects.
        object: String,
        /// Its fs-verity digest, where the kernel is to see to it.
        verity: Option<Verity>,
    },
    /// What hides a directory of objects from the root.
    Whiteout,
}

/// An inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inode {
    /// What it is.
    pub body: Body,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its type and permissions.
    pub mode: u32,
    /// Its extended attributes, by name.
    pub attributes: Attributes,
    /// The directory that it is in; the root is in itself.
    pub above: usize,
    /// What is in it, in the order of names.
    pub children: Vec<(String, usize)>,
}

/// A tree; the root is number 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
}

impl Tree {
    /// A root with nothing in it.
    ///
    /// # Errors
    /// When it is no directory, or its attributes cannot be in an image.
    pub fn new(root: Meta) -> Result<Self, TreeError> {
        let mut tree = Tree { inodes: Vec::new() };
        if root.mode & TYPE_BITS != DIRECTORY {
            return Err(TreeError::NotADirectory);
        }
        tree.push(0, "/", root, Body::Directory)?;
        Ok(tree)
    }

    /// Adds to a directory, whose names come in any order and each once; the number of the new inode.
    ///
    /// # Errors
    /// When it cannot be in an image.
    pub fn add(&mut self, above: usize, name: &str, meta: Meta, body: Body) -> Result<usize, TreeError> {
        let number = self.push(above, name, meta, body)?;
        let Some(directory) = self.inodes.get_mut(above).filter(|i| i.body == Body::Directory) else {
            return Err(TreeError::NotADirectory);
        };
        directory.children.push((name.into(), number));
        Ok(number)
    }

    fn push(&mut self, above: usize, name: &str, meta: Meta, body: Body) -> Result<usize, TreeError> {
        let too_long = match &body {
            Body::Link(text) => text.len() > LINK_MAX,
            Body::File { length, .. } => *length > FILE_MAX,
            _ => false,
        };
        if too_long {
            return Err(TreeError::TooLong(name.into()));
        }
        // A number has 32 bits in an image; so have the blocks.
        let number = self.inodes.len();
        if number > (u32::MAX / 2) as usize {
            return Err(TreeError::TooMuch);
        }
        let attributes = attributes(meta.attributes, &body);
        fits(&attributes).then_some(()).ok_or_else(|| TreeError::Attributes(name.into()))?;
        let Meta { uid, gid, mode, .. } = meta;
        self.inodes.push(Inode { body, uid, gid, mode, attributes, above, children: Vec::new() });
        Ok(number)
    }

    /// The directories that are there for something to be mounted on them, where the tree has none of its own.
    ///
    /// # Errors
    /// None that a new one could make.
    pub fn mount_points(&mut self, names: &[&str]) -> Result<(), TreeError> {
        for name in names {
            if self.inodes.first().is_some_and(|root| !root.children.iter().any(|(have, _)| have == name)) {
                let meta = Meta { uid: 0, gid: 0, mode: DIRECTORY | 0o755, attributes: Vec::new() };
                self.add(0, name, meta, Body::Directory)?;
            }
        }
        Ok(())
    }

    /// What the root of an overlay needs: it shows nothing of the objects' own directories, which are below it. After
    /// this the tree is whole; what it gives is in the order that an image has, which is not the one before.
    ///
    /// # Errors
    /// When the attributes of the root have no room left.
    pub fn finish(mut self) -> Result<Vec<Inode>, TreeError> {
        let Some(root) = self.inodes.first_mut() else { return Err(TreeError::NotADirectory) };
        set(&mut root.attributes, b"trusted.overlay.opaque", b"y");
        if !fits(&root.attributes) {
            return Err(TreeError::Attributes("/".into()));
        }
        let label = root.attributes.iter().find(|(name, _)| name == LABEL).cloned();
        let meta =
            Meta { uid: root.uid, gid: root.gid, mode: WHITEOUT, attributes: label.into_iter().collect() };
        let names: Vec<String> = root.children.iter().map(|(name, _)| name.clone()).collect();
        for name in (0..=u8::MAX).map(|number| format!("{number:02x}")) {
            if !names.contains(&name) {
                self.add(0, &name, meta.clone(), Body::Whiteout)?;
            }
        }
        Ok(self.in_order())
    }

    /// Directory by directory, each level after the one above it; `.` and `..` are among the names.
    fn in_order(mut self) -> Vec<Inode> {
        let mut order = vec![0];
        let mut next = 0;
        while let Some(number) = order.get(next).copied() {
            next += 1;
            let Some(inode) = self.inodes.get_mut(number) else { break };
            inode.children.sort();
            order.extend(inode.children.iter().map(|(_, child)| *child));
        }
        let mut places = vec![0; self.inodes.len()];
        for (place, number) in order.iter().enumerate() {
            places.get_mut(*number).into_iter().for_each(|p| *p = place);
        }
        let placed = |number: usize| places.get(number).copied().unwrap_or_default();
        let mut inodes = Vec::with_capacity(order.len());
        for number in order {
            let Some(inode) = self.inodes.get_mut(number) else { continue };
            let (above, mut children) = (placed(inode.above), core::mem::take(&mut inode.children));
            children.iter_mut().for_each(|(_, child)| *child = placed(*child));
            if inode.body == Body::Directory {
                children.push((".".to_string(), placed(number)));
                children.push(("..".to_string(), above));
                children.sort();
            }
            let attributes = core::mem::take(&mut inode.attributes);
            let body = core::mem::replace(&mut inode.body, Body::Empty);
            let Inode { uid, gid, mode, .. } = *inode;
            inodes.push(Inode { body, uid, gid, mode, attributes, above, children });
        }
        inodes
    }
}

/// The attributes of a file in the image: overlayfs must not take those that the file has for its own, and it needs to
/// know where the content is.
fn attributes(own: Attributes, body: &Body) -> Attributes {
    let escape = |(name, value): (Vec<u8>, Vec<u8>)| match name.strip_prefix(OVERLAY) {
        Some(rest) => ([ESCAPED, rest].concat(), value),
        None => (name, value),
    };
    let mut all: Attributes = own.into_iter().map(escape).collect();
    if let Body::File { object, verity, .. } = body {
        // Version 0, its own length, no flags, SHA-256.
        let digest = verity.map(|digest| [&[0, 36, 0, 1], &digest[..]].concat()).unwrap_or_default();
        set(&mut all, b"trusted.overlay.metacopy", &digest);
        set(&mut all, b"trusted.overlay.redirect", format!("/{object}").as_bytes());
    }
    all.sort();
    all
}

fn set(attributes: &mut Attributes, name: &[u8], value: &[u8]) {
    attributes.retain(|(have, _)| have != name);
    attributes.push((name.into(), value.into()));
    attributes.sort();
}

/// As libcomposefs counts them: the longest that they can be for alignment.
fn fits(attributes: &Attributes) -> bool {
    let size = |(name, value): &(Vec<u8>, Vec<u8>)| 7 + name.len() + value.len();
    let short =
        attributes.iter().all(|(name, _)| name.len() <= ATTRIBUTE_NAME_MAX + ESCAPED.len() - OVERLAY.len());
    short && super::attributes::HEADER + attributes.iter().map(size).sum::<usize>() <= ATTRIBUTES_MAX
}
