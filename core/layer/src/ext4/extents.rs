//! Extents: which blocks of the image are which blocks of a file (kernel documentation, `filesystems/ext4/ifork`,
//! "Extent Tree").
//!
//! A file's blocks lie one after another, so extents follow from the first block and their number. Up to four are in
//! the inode; for more, blocks of 340 extents each come right behind the data, and the inode points to those.

use caveau_verity::BLOCK_BYTES;

use crate::{
    LayerError,
    bytes::{put, put16, put32},
    image::Image,
    tree::Span,
};

/// Bytes of the block map in an inode.
pub(crate) const MAP: usize = 60;

const MAGIC: u16 = 0xf30a;

/// Bytes of a header, and of an entry of either kind.
const ENTRY: usize = 12;

/// Most blocks of one extent.
const MAX_BLOCKS: u32 = 0x8000;

/// Extents in the inode.
const IN_INODE: u32 = 4;

/// Extents in a block.
const IN_BLOCK: u32 = (BLOCK_BYTES / ENTRY - 1) as u32;

/// Ends a file's data at the image's end and writes the extent blocks that it needs. Returns the data's blocks, and how
/// many there are with the extent blocks.
pub(crate) fn close(start: u32, image: &mut Image<'_, '_>) -> Result<(Span, u32), LayerError> {
    image.align()?;
    let span = Span { start, blocks: image.block().saturating_sub(start) };
    let leaves = leaf_blocks(span);
    for leaf in 0..leaves {
        image.write(&render_leaf(span, leaf, leaves))?;
    }
    Ok((span, span.blocks.saturating_add(leaves)))
}

/// Number of extents.
fn extents(span: Span) -> u32 {
    span.blocks.div_ceil(MAX_BLOCKS)
}

/// Number of extent blocks: none as long as the inode has room; else one more than are full, even where that one is not
/// needed.
fn leaf_blocks(span: Span) -> u32 {
    let extents = extents(span);
    if extents <= IN_INODE { 0 } else { (extents / IN_BLOCK).saturating_add(1) }
}

/// The inode's block map.
pub(crate) fn render_map(span: Span) -> [u8; MAP] {
    let mut map = [0; MAP];
    let leaves = leaf_blocks(span);
    if leaves == 0 {
        put_header(&mut map, extents(span), IN_INODE, 0);
        put_extents(&mut map, extents(span), span.start, 0, span.blocks);
        return map;
    }
    put_header(&mut map, leaves, IN_INODE, 1);
    for (leaf, entry) in (0..leaves).zip((ENTRY..).step_by(ENTRY)) {
        put32(&mut map, entry, first_block(leaf));
        put32(&mut map, entry.saturating_add(4), span.start.saturating_add(span.blocks).saturating_add(leaf));
    }
    map
}

/// The first block of a file that an extent block is about.
fn first_block(leaf: u32) -> u32 {
    leaf.saturating_mul(IN_BLOCK.saturating_mul(MAX_BLOCKS))
}

/// An extent block.
///
/// From the second on (files from 42.5 GiB) the reference counts the extents left wrongly and adds the block's first to
/// the start twice; a file that large cannot be read there, but its image has to be the same.
fn render_leaf(span: Span, leaf: u32, leaves: u32) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let count = extents(span).wrapping_sub(leaf.saturating_mul(leaves)).min(IN_BLOCK);
    let first = first_block(leaf);
    put_header(&mut block, count, IN_BLOCK, 0);
    put_extents(&mut block, count, span.start.wrapping_add(first), first, span.blocks);
    block
}

fn put_header(node: &mut [u8], entries: u32, capacity: u32, depth: u16) {
    put16(node, 0, MAGIC);
    put16(node, 2, entries as u16);
    put16(node, 4, capacity as u16);
    put16(node, 6, depth);
}

/// Puts extents that begin with block `first` of a file with `blocks` blocks. Beyond the file's end the reference's
/// arithmetic wraps.
fn put_extents(node: &mut [u8], count: u32, start: u32, first: u32, blocks: u32) {
    for (extent, entry) in (0..count).zip((ENTRY..).step_by(ENTRY)) {
        let block = first.wrapping_add(extent.wrapping_mul(MAX_BLOCKS));
        let length = blocks.wrapping_sub(block).min(MAX_BLOCKS);
        put32(node, entry, block);
        put16(node, entry.saturating_add(4), length as u16);
        put(node, entry.saturating_add(8), &start.wrapping_add(block).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extent_blocks_begin_with_the_fifth_extent() {
        for (blocks, leaves) in
            [(0, 0), (1, 0), (4 * 0x8000, 0), (4 * 0x8000 + 1, 1), (339 * 0x8000, 1), (340 * 0x8000, 2), (1 << 25, 4)]
        {
            assert_eq!(leaf_blocks(Span { start: 9, blocks }), leaves, "{blocks} blocks");
        }
    }

    #[test]
    fn the_last_extent_is_short() {
        let map = render_map(Span { start: 9, blocks: 0x8000 + 3 });
        assert_eq!(map[..12], [0x0a, 0xf3, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(map[12..24], [0, 0, 0, 0, 0, 0x80, 0, 0, 9, 0, 0, 0]);
        assert_eq!(map[24..36], [0, 0x80, 0, 0, 3, 0, 0, 0, 9, 0x80, 0, 0]);
    }
}
