//! The file tree that the tar's entries build up: inodes, names, and what may replace what.
//!
//! Inodes are numbered as they come; data goes to the image at once and is never taken back. So an entry may change
//! what came before only where that has no data, or has other names left.

mod inode;

use std::collections::{BTreeMap, btree_map};

pub(crate) use self::inode::{Content, Directory, Inode, Span};
use crate::{
    Limits,
    error::{EntryError, LayerError, PathText},
    image::Image,
    time::FsTime,
    xattr::{self, Xattr, Xattrs},
};

/// The file types of a mode (`stat(2)`), each in its place in the 16 bits.
pub(crate) mod file_type {
    pub(crate) const FIFO: u16 = 0x1000;
    pub(crate) const CHARACTER: u16 = 0x2000;
    pub(crate) const DIRECTORY: u16 = 0x4000;
    pub(crate) const BLOCK: u16 = 0x6000;
    pub(crate) const REGULAR: u16 = 0x8000;
    pub(crate) const SYMLINK: u16 = 0xa000;
    pub(crate) const MASK: u16 = 0xf000;
}

/// Inode numbers below this are ext4's own; of them only the root is used.
pub(crate) const FIRST_INODE: u32 = 11;

/// Inode number of the root directory.
pub(crate) const ROOT: u32 = 2;

/// Most links of an inode, and subdirectories of a directory.
const MAX_LINKS: u32 = 65_000;

/// Longest name in bytes.
const MAX_NAME: usize = 255;

/// Longest symbolic link that is kept within the inode. ext4 would have room for one byte more.
const MAX_SHORT_LINK: usize = 59;

/// Largest file: the reference's limit.
const MAX_FILE: u64 = 128 << 30;

/// What an entry asks for.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Type and permissions.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) accessed: FsTime,
    pub(crate) changed: FsTime,
    pub(crate) modified: FsTime,
    /// Bytes of a regular file, which the caller then writes.
    pub(crate) size: u64,
    /// A symbolic link's target.
    pub(crate) target: Vec<u8>,
    /// A device's number as ext4 stores it.
    pub(crate) device: u32,
    pub(crate) xattrs: Xattrs,
}

impl File {
    /// A file of some type and mode, everything else zero.
    pub(crate) fn new(mode: u16) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            accessed: FsTime::default(),
            changed: FsTime::default(),
            modified: FsTime::default(),
            size: 0,
            target: Vec::new(),
            device: 0,
            xattrs: Xattrs::new(),
        }
    }

    fn file_type(&self) -> u16 {
        self.mode & file_type::MASK
    }
}

/// All inodes by number, and the limits on them.
pub(crate) struct Tree {
    /// Inode `n` is at place `n - 1`; ext4's own that are not used are empty.
    inodes: Vec<Option<Inode>>,
    names: u64,
    max_names: u64,
    /// Bytes of memory for attributes that may be written again.
    attribute_bytes: u64,
    max_attribute_bytes: u64,
}

impl Tree {
    /// A tree with root and `lost+found`, which `e2fsck` wants to be there.
    pub(crate) fn new(limits: &Limits, image: &mut Image<'_, '_>) -> Result<Self, LayerError> {
        let mut tree = Self {
            inodes: vec![None],
            names: 0,
            max_names: limits.entries,
            attribute_bytes: 0,
            max_attribute_bytes: limits.attribute_bytes,
        };
        let in_context = |error: Failure| error.at(b"/");
        let root = tree.make(File::new(file_type::DIRECTORY | 0o755), None, image).map_err(in_context)?;
        tree.link_up(root);
        tree.inodes.resize_with(FIRST_INODE.saturating_sub(1) as usize, || None);
        tree.create(&[b"lost+found"], File::new(file_type::DIRECTORY | 0o700), image).map_err(in_context)?;
        Ok(tree)
    }

    /// All inodes, in order from number 1.
    pub(crate) fn inodes(&self) -> &[Option<Inode>] {
        &self.inodes
    }

    /// An inode by number.
    pub(crate) fn inode(&self, number: u32) -> Option<&Inode> {
        self.inodes.get(number.checked_sub(1)? as usize)?.as_ref()
    }

    /// An inode by number, to be changed.
    pub(crate) fn inode_mut(&mut self, number: u32) -> Option<&mut Inode> {
        self.inodes.get_mut(number.checked_sub(1)? as usize)?.as_mut()
    }

    /// A directory's entries.
    fn directory(&self, number: u32) -> Option<&Directory> {
        self.inode(number).and_then(Inode::directory)
    }

    /// Finds what a path names: where it leads through or to something missing, nothing.
    fn find(&self, path: &[&[u8]]) -> Option<u32> {
        path.iter().try_fold(ROOT, |number, name| self.directory(number)?.entries.get(*name).copied())
    }

    /// Splits a path that is not the root's into the directory that it is in and its name there.
    fn parent<'p>(&self, path: &[&'p [u8]]) -> Result<Option<(u32, &'p [u8])>, EntryError> {
        let Some((name, parents)) = path.split_last() else { return Ok(None) };
        if name.len() > MAX_NAME {
            return Err(EntryError::NameTooLong { length: name.len() });
        }
        let parent = self.find(parents).filter(|parent| self.directory(*parent).is_some());
        Ok(Some((parent.ok_or(EntryError::ParentNotDirectory)?, name)))
    }

    /// Makes the directories that a path leads through where they are missing. They are like the directory that they
    /// are in, until an entry of their own says otherwise.
    pub(crate) fn make_parents(&mut self, path: &[&[u8]], image: &mut Image<'_, '_>) -> Result<(), Failure> {
        let mut number = ROOT;
        for depth in 1..path.len() {
            let Some((name, _)) = path.get(..depth).and_then(<[_]>::split_last) else { continue };
            let existing = self.directory(number).and_then(|parent| parent.entries.get(*name).copied());
            number = match (existing, self.inode(number)) {
                (Some(existing), _) => existing,
                (None, Some(parent)) => {
                    let file = parent.as_template();
                    self.create_in(number, name, file, image)?
                }
                (None, None) => return Err(EntryError::ParentNotDirectory.into()),
            };
        }
        Ok(())
    }

    /// Makes an entry, or changes the one that is there, and returns its inode's number. A regular file's data, if any,
    /// is the next thing to be written to the image.
    pub(crate) fn create(&mut self, path: &[&[u8]], file: File, image: &mut Image<'_, '_>) -> Result<u32, Failure> {
        match self.parent(path)? {
            Some((parent, name)) => self.create_in(parent, name, file, image),
            None if file.file_type() == file_type::DIRECTORY => self.make(file, Some(ROOT), image),
            None => Err(EntryError::DirectoryInTheWay.into()),
        }
    }

    /// The same, where the directory is known.
    fn create_in(&mut self, parent: u32, name: &[u8], file: File, image: &mut Image<'_, '_>) -> Result<u32, Failure> {
        if name.len() > MAX_NAME {
            return Err(EntryError::NameTooLong { length: name.len() }.into());
        }
        let directory = self.directory(parent).ok_or(EntryError::ParentNotDirectory)?;
        let is_directory = file.file_type() == file_type::DIRECTORY;
        let existing = directory.entries.get(name).copied();
        let reused = match existing.and_then(|number| self.inode(number)) {
            Some(inode) if inode.directory().is_some() => {
                if !is_directory {
                    return Err(EntryError::DirectoryInTheWay.into());
                }
                existing
            }
            Some(_) if is_directory => return Err(EntryError::FileInTheWay.into()),
            Some(inode) => existing.filter(|_| inode.links < 2),
            None => {
                let links = self.inode(parent).map_or(0, |parent| parent.links);
                if is_directory && links >= MAX_LINKS {
                    return Err(EntryError::TooManyLinks.into());
                }
                None
            }
        };
        let number = self.make(file, reused, image)?;
        if existing != Some(number) {
            self.name(parent, name, number)?;
            if is_directory {
                self.link_up(parent);
            }
        }
        Ok(number)
    }

    /// Adds a hard link. It may replace a name only of something that has another. What it links to may itself be a
    /// symbolic link.
    pub(crate) fn link(&mut self, path: &[&[u8]], target: &[&[u8]], target_text: &[u8]) -> Result<(), Failure> {
        let Some((parent, name)) = self.parent(path)? else { return Err(EntryError::Orphan.into()) };
        let existing = self.directory(parent).and_then(|parent| parent.entries.get(name).copied());
        if let Some(inode) = existing.and_then(|number| self.inode(number))
            && (inode.directory().is_some() || inode.links < 2)
        {
            return Err(EntryError::Orphan.into());
        }
        let number = match self.parent(target)? {
            None => Some(ROOT),
            Some((parent, name)) => self.directory(parent).and_then(|parent| parent.entries.get(name).copied()),
        };
        let number = number.ok_or_else(|| EntryError::LinkTargetMissing(PathText::new(target_text)))?;
        let inode = self.inode(number).ok_or_else(|| EntryError::LinkTargetMissing(PathText::new(target_text)))?;
        if inode.directory().is_some() {
            return Err(EntryError::LinkToDirectory(PathText::new(target_text)).into());
        }
        if existing != Some(number) && inode.links >= MAX_LINKS {
            return Err(EntryError::TooManyLinks.into());
        }
        self.name(parent, name, number)
    }

    /// Marks a directory as hiding everything that layers below have in it. The reference reads its metadata back and
    /// makes it anew, which does not keep every time (see [`FsTime::read_back`]).
    pub(crate) fn mark_opaque(&mut self, path: &[&[u8]], image: &mut Image<'_, '_>) -> Result<(), Failure> {
        let number = match self.parent(path)? {
            None => Some(ROOT),
            Some((parent, name)) => self.directory(parent).and_then(|parent| parent.entries.get(name).copied()),
        };
        let inode = number.and_then(|number| self.inode(number)).ok_or(EntryError::ParentNotDirectory)?;
        let mut file = inode.as_template();
        file.size = inode.size;
        file.device = inode.device();
        file.xattrs = xattr::read_block(&inode.xattrs_in_block)?;
        if inode.inline.is_some() {
            file.xattrs.extend(inode.xattrs_in_inode()?);
            // A name that the reference has for file data within inodes, which layers do not use.
            file.xattrs.remove(&b"system.data"[..]);
        }
        if inode.file_type() == file_type::SYMLINK {
            let Content::ShortLink(target) = &inode.content else { return Err(EntryError::TargetMissing.into()) };
            file.target = target.to_vec();
        }
        file.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
        let has_data = file.file_type() == file_type::REGULAR && file.size > 0;
        self.create(path, file, image)?;
        if has_data { Err(EntryError::DataMissing.into()) } else { Ok(()) }
    }

    /// Gives an inode a name, in place of what had that name before.
    fn name(&mut self, parent: u32, name: &[u8], number: u32) -> Result<(), Failure> {
        let (names, limit) = (self.names, self.max_names);
        let directory = self.inode_mut(parent).and_then(Inode::directory_mut);
        let directory = directory.ok_or(EntryError::ParentNotDirectory)?;
        let replaced = match directory.entries.entry(name.into()) {
            btree_map::Entry::Occupied(mut entry) => Some(entry.insert(number)),
            btree_map::Entry::Vacant(_) if names >= limit => {
                return Err(Failure::Whole(LayerError::TooManyEntries { limit }));
            }
            btree_map::Entry::Vacant(entry) => {
                entry.insert(number);
                None
            }
        };
        match replaced.and_then(|replaced| self.inode_mut(replaced)) {
            Some(replaced) => replaced.links = replaced.links.saturating_sub(1),
            None => self.names = names.saturating_add(1),
        }
        self.link_up(number);
        Ok(())
    }

    /// Counts one more link.
    fn link_up(&mut self, number: u32) {
        if let Some(inode) = self.inode_mut(number) {
            inode.links = inode.links.saturating_add(1);
        }
    }

    /// Makes an inode, or an existing one anew, and writes its extended attributes and a long link's target.
    ///
    /// An inode made anew keeps number, links and attribute block. Attributes in the inode are kept where the new ones
    /// do not have the same names; those in the block are not: so the reference.
    fn make(&mut self, file: File, reused: Option<u32>, image: &mut Image<'_, '_>) -> Result<u32, Failure> {
        let number = reused.unwrap_or_else(|| (self.inodes.len() as u32).saturating_add(1));
        let existing = reused.and_then(|number| self.inode_mut(number));
        if existing.as_ref().is_some_and(|inode| matches!(inode.content, Content::Data(_))) {
            return Err(EntryError::AlreadyWritten.into());
        }
        let file_type = file.file_type();
        if file_type == file_type::REGULAR && file.size > MAX_FILE {
            return Err(EntryError::FileTooBig { size: file.size, limit: MAX_FILE }.into());
        }
        let mut xattrs = existing.as_ref().map_or_else(|| Ok(Xattrs::new()), |inode| inode.xattrs_in_inode())?;
        xattrs.extend(file.xattrs);
        let placed = xattr::place(&xattrs)?;
        // What has data is never made anew, so its attributes are not needed once they are written.
        let is_last = match file_type {
            file_type::REGULAR => file.size > 0,
            file_type::SYMLINK => file.target.len() > MAX_SHORT_LINK,
            _ => false,
        };
        let mut fresh = Inode::default();
        let mut kept_bytes = 0_u64;
        let inode = existing.unwrap_or(&mut fresh);
        inode.inline = (!placed.inode.is_empty()).then(|| xattr::render_inode(&placed.inode));
        if inode.xattr_block != 0 {
            inode.xattrs_rewritten = true;
        } else if !placed.block.is_empty() {
            inode.xattr_block = image.block();
            inode.blocks = inode.blocks.saturating_add(1);
            if !is_last {
                kept_bytes = image.pin();
            }
            image.write(&xattr::render_block(&placed.block))?;
        }
        inode.xattrs_in_block =
            if is_last && !inode.xattrs_rewritten { Box::default() } else { placed.block.into_boxed_slice() };
        kept_bytes = inode.xattrs_in_block.iter().map(Xattr::kept_bytes).fold(kept_bytes, u64::saturating_add);
        let old = std::mem::take(&mut inode.content);
        inode.size = 0;
        inode.mode = file.mode;
        (inode.uid, inode.gid) = (file.uid, file.gid);
        (inode.accessed, inode.changed, inode.modified) = (file.accessed, file.changed, file.modified);
        inode.content = match file_type {
            file_type::REGULAR => {
                inode.size = file.size;
                Content::Empty
            }
            file_type::SYMLINK => {
                inode.mode |= 0o777;
                inode.size = file.target.len() as u64;
                if file.target.len() <= MAX_SHORT_LINK {
                    Content::ShortLink(file.target.into())
                } else {
                    let start = image.block();
                    image.write(&file.target)?;
                    inode.take_data(start, image)?
                }
            }
            file_type::DIRECTORY => match old {
                Content::Directory(directory) => Content::Directory(directory),
                _ => Content::Directory(Box::new(Directory { entries: BTreeMap::new(), span: Span::default() })),
            },
            file_type::BLOCK | file_type::CHARACTER => Content::Device(file.device),
            _ => Content::Empty,
        };
        if reused.is_none() {
            // A directory is one of its own links.
            fresh.links = u32::from(file_type == file_type::DIRECTORY);
            self.inodes.push(Some(fresh));
        }
        // Of those made anew, the attributes before count, too: a bound need not be exact.
        self.attribute_bytes = self.attribute_bytes.saturating_add(kept_bytes);
        if self.attribute_bytes > self.max_attribute_bytes {
            return Err(LayerError::TooManyAttributes { limit: self.max_attribute_bytes }.into());
        }
        Ok(number)
    }

    /// Says that a regular file's data has been written, from a block on to the image's end.
    pub(crate) fn finish_data(&mut self, number: u32, start: u32, image: &mut Image<'_, '_>) -> Result<(), LayerError> {
        if let Some(inode) = self.inode_mut(number) {
            inode.content = inode.take_data(start, image)?;
        }
        Ok(())
    }
}

/// What stops an entry: something about itself, or about the whole image.
pub(crate) enum Failure {
    Entry(EntryError),
    Whole(LayerError),
}

impl Failure {
    /// The error for the entry with this path.
    pub(crate) fn at(self, path: &[u8]) -> LayerError {
        match self {
            Self::Entry(reason) => LayerError::entry(path, reason),
            Self::Whole(error) => error,
        }
    }
}

impl From<EntryError> for Failure {
    fn from(error: EntryError) -> Self {
        Self::Entry(error)
    }
}

impl From<LayerError> for Failure {
    fn from(error: LayerError) -> Self {
        Self::Whole(error)
    }
}
