//! One inode as it is kept until the table is written: as small as can be, since there may be millions.

use std::collections::BTreeMap;

use super::{File, file_type};
use crate::{
    error::{EntryError, LayerError},
    ext4::extents,
    image::Image,
    time::FsTime,
    xattr::{self, IN_INODE, Xattr, Xattrs},
};

/// Consecutive blocks of the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) blocks: u32,
}

/// A directory's names and, once it is written, its blocks.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) entries: BTreeMap<Box<[u8]>, u32>,
    pub(crate) span: Span,
}

/// What an inode holds.
#[derive(Debug, Default)]
pub(crate) enum Content {
    /// Blocks of a file or of a long symbolic link.
    Data(Span),
    /// The number of a device.
    Device(u32),
    Directory(Box<Directory>),
    /// Nothing: an empty file, a FIFO.
    #[default]
    Empty,
    /// A symbolic link short enough for the inode.
    ShortLink(Box<[u8]>),
}

/// An inode.
#[derive(Debug, Default)]
pub(crate) struct Inode {
    pub(crate) content: Content,
    pub(crate) size: u64,
    pub(crate) accessed: FsTime,
    pub(crate) changed: FsTime,
    pub(crate) modified: FsTime,
    /// Extended attributes within the inode, as they are stored.
    pub(crate) inline: Option<Box<[u8; IN_INODE]>>,
    pub(crate) xattrs_in_block: Box<[Xattr]>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    /// Blocks that it takes up: data, extent tree and attributes.
    pub(crate) blocks: u32,
    /// The attribute block's number, or zero.
    pub(crate) xattr_block: u32,
    pub(crate) mode: u16,
    /// The attribute block has to be written again, with what is in `xattrs_in_block` now.
    pub(crate) xattrs_rewritten: bool,
}

impl Inode {
    pub(crate) fn file_type(&self) -> u16 {
        self.mode & file_type::MASK
    }

    pub(crate) fn directory(&self) -> Option<&Directory> {
        match &self.content {
            Content::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(crate) fn directory_mut(&mut self) -> Option<&mut Directory> {
        match &mut self.content {
            Content::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(crate) fn device(&self) -> u32 {
        match self.content {
            Content::Device(device) => device,
            _ => 0,
        }
    }

    /// Its mode, owner and times for another inode to have, times as they come out of being read back.
    pub(crate) fn as_template(&self) -> File {
        File {
            uid: self.uid,
            gid: self.gid,
            accessed: self.accessed.read_back(),
            changed: self.changed.read_back(),
            modified: self.modified.read_back(),
            ..File::new(self.mode)
        }
    }

    /// The extended attributes stored within it.
    pub(crate) fn xattrs_in_inode(&self) -> Result<Xattrs, EntryError> {
        self.inline.as_ref().map_or_else(|| Ok(Xattrs::new()), |area| xattr::read_inode(area))
    }

    /// Takes what was written from block `start` to the image's end for its data, and writes the extent tree that it
    /// needs.
    pub(crate) fn take_data(&mut self, start: u32, image: &mut Image<'_, '_>) -> Result<Content, LayerError> {
        let (span, used) = extents::close(start, image)?;
        self.blocks = self.blocks.saturating_add(used);
        Ok(Content::Data(span))
    }
}
