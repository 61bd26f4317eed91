//! The inode table (kernel documentation, `filesystems/ext4/inodes`).
//!
//! | offset | bytes | field |  | offset | bytes | field |
//! |---|---|---|---|---|---|---|
//! | 0 | 2 | mode |  | 104 | 4 | attribute block |
//! | 2 | 2 | uid, low |  | 108 | 4 | size, high |
//! | 4 | 4 | size, low |  | 120 | 2 | uid, high |
//! | 8 | 4 | atime |  | 122 | 2 | gid, high |
//! | 12 | 4 | ctime |  | 128 | 2 | bytes used beyond 128 |
//! | 16 | 4 | mtime |  | 132 | 4 | ctime, high |
//! | 24 | 2 | gid, low |  | 136 | 4 | mtime, high |
//! | 26 | 2 | links |  | 140 | 4 | atime, high |
//! | 28 | 4 | blocks |  | 144 | 4 | crtime |
//! | 32 | 4 | flags |  | 148 | 4 | crtime, high |
//! | 40 | 60 | block map |  | 152 | 104 | extended attributes |

use super::{INODE_BYTES, extents, groups::Layout, span};
use crate::{
    LayerError,
    bytes::{put, put16, put32},
    image::Image,
    tree::{Content, Inode, Tree},
};

/// Blocks are counted in file system blocks.
const HUGE_FILE: u32 = 0x4_0000;

/// The block map is an extent tree.
const EXTENTS: u32 = 0x8_0000;

/// Bytes of fields beyond the first 128.
pub(super) const EXTRA: u16 = 24;

/// Where the extended attributes begin.
const XATTRS: usize = 128 + EXTRA as usize;

/// Writes the table of all groups, which lie one after another.
pub(super) fn write(tree: &Tree, layout: &Layout, image: &mut Image<'_, '_>) -> Result<(), LayerError> {
    for inode in tree.inodes() {
        image.write(&inode.as_ref().map_or([0; INODE_BYTES as usize], render))?;
    }
    let written = (tree.inodes().len() as u64).saturating_mul(u64::from(INODE_BYTES));
    image.zero(layout.table_bytes().saturating_sub(written))
}

/// One inode's bytes.
fn render(inode: &Inode) -> [u8; INODE_BYTES as usize] {
    let mut record = [0; INODE_BYTES as usize];
    let to = &mut record;
    put16(to, 0, inode.mode);
    put16(to, 2, inode.uid as u16);
    put32(to, 4, inode.size as u32);
    put32(to, 8, inode.accessed.low());
    put32(to, 12, inode.changed.low());
    put32(to, 16, inode.modified.low());
    put16(to, 24, inode.gid as u16);
    put16(to, 26, inode.links as u16);
    put32(to, 28, inode.blocks);
    put32(to, 32, HUGE_FILE | if span(inode).is_some() { EXTENTS } else { 0 });
    match &inode.content {
        Content::Device(device) => put32(to, 44, *device),
        Content::ShortLink(target) => put(to, 40, target),
        Content::Data(_) | Content::Directory(_) | Content::Empty => {
            put(to, 40, &span(inode).map_or([0; extents::MAP], extents::render_map));
        }
    }
    put32(to, 104, inode.xattr_block);
    put32(to, 108, (inode.size >> 32) as u32);
    put16(to, 120, (inode.uid >> 16) as u16);
    put16(to, 122, (inode.gid >> 16) as u16);
    put16(to, 128, EXTRA);
    put32(to, 132, inode.changed.high());
    put32(to, 136, inode.modified.high());
    put32(to, 140, inode.accessed.high());
    // The tar knows no time of creation: it is that of the last change of content.
    put32(to, 144, inode.modified.low());
    put32(to, 148, inode.modified.high());
    if let Some(xattrs) = &inode.inline {
        put(to, XATTRS, xattrs.as_slice());
    }
    record
}
