//! The on-disk structures of ext4 (kernel documentation, `filesystems/ext4`), in the one shape that layers have.
//!
//! 4096-byte blocks, 32768 blocks a group, inodes of 256 bytes of which 152 are used, 32-byte group descriptors, one
//! flexible group over everything, no journal, no checksums, no directory index, no UUID, no times.

mod directory;
pub(crate) mod extents;
mod groups;
mod inode_table;
mod superblock;

use caveau_verity::HashBlock;

pub(crate) use self::superblock::DESCRIPTOR_BLOCKS;
use crate::{
    LayerError,
    image::Image,
    tree::{Content, Inode, Tree},
    xattr,
};

/// Blocks in a group: as many as one block of bitmap has bits.
const BLOCKS_PER_GROUP: u32 = 32_768;

/// Bytes of an inode in the table.
const INODE_BYTES: u32 = 256;

/// Blocks whose content is known only at the end, with their numbers.
pub(crate) type LateBlocks = Vec<(u32, Box<HashBlock>)>;

/// Writes everything behind the data: directories, inode table, bitmaps and the space up to the end. Returns the blocks
/// that go before it or replace what was written, and the number of blocks in all.
pub(crate) fn finish(tree: &mut Tree, image: &mut Image<'_, '_>) -> Result<(LateBlocks, u32), LayerError> {
    directory::write_all(tree, image)?;
    let layout = groups::Layout::new(image.block(), tree.inodes().len())?;
    inode_table::write(tree, &layout, image)?;
    let groups = groups::write(tree, &layout, image)?;
    let mut late = superblock::render(&layout, &groups);
    let rewritten = tree.inodes().iter().flatten().filter(|inode| inode.xattrs_rewritten);
    late.extend(rewritten.map(|inode| (inode.xattr_block, Box::new(xattr::render_block(&inode.xattrs_in_block)))));
    Ok((late, layout.disk_blocks()))
}

/// The blocks of an inode's data.
fn span(inode: &Inode) -> Option<crate::tree::Span> {
    match &inode.content {
        Content::Data(span) => Some(*span),
        Content::Directory(directory) => Some(directory.span),
        _ => None,
    }
}
