//! Block groups: how many there are, their bitmaps and their descriptors (kernel documentation, `filesystems/ext4`,
//! "Block Group Descriptors" and "Block and Inode Bitmaps").

use caveau_verity::BLOCK_BYTES;

use super::{BLOCKS_PER_GROUP, INODE_BYTES, superblock::DESCRIPTOR_BLOCKS};
use crate::{
    BLOCK, LayerError,
    bytes::{clear_bit, put16, put32, set_bit},
    convert::MAX_DISK,
    image::Image,
    tree::{FIRST_INODE, Inode, Tree, file_type},
};

/// Inodes in one block of the table: their number per group grows by this.
const INODES_PER_BLOCK: u32 = BLOCK_BYTES as u32 / INODE_BYTES;

/// Most inodes of a group: as many as one block of bitmap has bits.
const MAX_INODES: u32 = 32_768;

/// Bytes of a group descriptor.
pub(super) const DESCRIPTOR: usize = 32;

/// Descriptors in a block.
const PER_DESCRIPTOR_BLOCK: u32 = (BLOCK_BYTES / DESCRIPTOR) as u32;

/// Where table and bitmaps lie, and how large everything is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) groups: u32,
    pub(super) inodes_per_group: u32,
    /// First block of the inode table.
    table: u32,
}

/// What the bitmaps say in all, and the groups' descriptors.
pub(super) struct Groups {
    pub(super) descriptors: Vec<[u8; DESCRIPTOR]>,
    pub(super) free_blocks: u32,
    pub(super) free_inodes: u32,
}

impl Layout {
    /// The layout with the fewest groups, and of those the one with the fewest inodes a group, for so many blocks of
    /// data and so many inodes.
    pub(super) fn new(blocks: u32, inodes: usize) -> Result<Self, LayerError> {
        let too_many = LayerError::TooManyEntries { limit: u64::from(u32::MAX / INODE_BYTES) };
        let Ok(inodes) = u32::try_from(inodes) else { return Err(too_many) };
        let candidates = (INODES_PER_BLOCK..=MAX_INODES).step_by(INODES_PER_BLOCK as usize);
        let best = candidates.map(|per_group| (group_count(blocks, inodes, per_group), per_group)).min();
        let (groups, inodes_per_group) = best.unwrap_or_default();
        let layout = Self { groups, inodes_per_group, table: blocks };
        // Beyond this the reference's own arithmetic overflows and what it writes is no file system.
        let room = u64::from(groups).saturating_mul(u64::from(inodes_per_group));
        if room < u64::from(inodes) || layout.table_bytes() > u64::from(u32::MAX) {
            return Err(too_many);
        }
        if groups.div_ceil(PER_DESCRIPTOR_BLOCK) > DESCRIPTOR_BLOCKS {
            return Err(LayerError::ImageTooLarge { limit: MAX_DISK });
        }
        Ok(layout)
    }

    /// Bytes of the inode table.
    pub(super) fn table_bytes(&self) -> u64 {
        let inodes = u64::from(self.groups).saturating_mul(u64::from(self.inodes_per_group));
        inodes.saturating_mul(u64::from(INODE_BYTES))
    }

    /// Blocks of one group's part of the table.
    fn table_blocks(&self) -> u32 {
        self.inodes_per_group.div_euclid(INODES_PER_BLOCK)
    }

    /// First block of the bitmaps.
    fn bitmaps(&self) -> u32 {
        self.table.saturating_add(self.groups.saturating_mul(self.table_blocks()))
    }

    /// Blocks that hold something.
    fn used_blocks(&self) -> u32 {
        self.bitmaps().saturating_add(self.groups.saturating_mul(2))
    }

    /// All blocks: at least one in the last group.
    pub(super) fn disk_blocks(&self) -> u32 {
        let least = self.groups.saturating_sub(1).saturating_mul(BLOCKS_PER_GROUP).saturating_add(1);
        self.used_blocks().max(least)
    }

    /// Inodes in all groups.
    pub(super) fn inodes(&self) -> u32 {
        self.groups.saturating_mul(self.inodes_per_group)
    }
}

/// Groups needed with so many inodes a group. Computed in 32 bits as the reference does it: for millions of inodes and
/// few a group that wraps, which makes such a choice look better or worse than it is.
fn group_count(blocks: u32, inodes: u32, inodes_per_group: u32) -> u32 {
    let table_blocks = inodes_per_group.div_euclid(INODES_PER_BLOCK);
    let data_blocks = BLOCKS_PER_GROUP.saturating_sub(table_blocks).saturating_sub(2);
    let full_groups = inodes.saturating_sub(1).checked_div(inodes_per_group).unwrap_or_default();
    let blocks = blocks.max(full_groups.wrapping_mul(data_blocks).wrapping_add(1));
    blocks.wrapping_add(data_blocks.saturating_sub(1)).checked_div(data_blocks).unwrap_or_default()
}

/// Writes the bitmaps of all groups, and zeros up to the image's end.
pub(super) fn write(tree: &Tree, layout: &Layout, image: &mut Image<'_, '_>) -> Result<Groups, LayerError> {
    let (mut used_blocks, mut used_inodes) = (0_u32, 0_u32);
    let mut descriptors = Vec::new();
    for group in 0..layout.groups {
        let (blocks, blocks_here) = block_bitmap(layout, group);
        let (inodes, inodes_here, directories) = inode_bitmap(tree, layout, group);
        image.write(&blocks)?;
        image.write(&inodes)?;
        used_blocks = used_blocks.wrapping_add(blocks_here);
        used_inodes = used_inodes.wrapping_add(inodes_here);
        let mut descriptor = [0; DESCRIPTOR];
        let bitmap = layout.bitmaps().saturating_add(group.saturating_mul(2));
        put32(&mut descriptor, 0, bitmap);
        put32(&mut descriptor, 4, bitmap.saturating_add(1));
        put32(&mut descriptor, 8, layout.table.saturating_add(group.saturating_mul(layout.table_blocks())));
        put16(&mut descriptor, 12, BLOCKS_PER_GROUP.saturating_sub(blocks_here) as u16);
        put16(&mut descriptor, 14, layout.inodes_per_group.saturating_sub(inodes_here) as u16);
        put16(&mut descriptor, 16, directories as u16);
        descriptors.push(descriptor);
    }
    let unused = layout.disk_blocks().saturating_sub(layout.used_blocks());
    image.zero(u64::from(unused).saturating_mul(BLOCK))?;
    let free_blocks = BLOCKS_PER_GROUP.wrapping_mul(layout.groups).wrapping_sub(used_blocks);
    Ok(Groups { descriptors, free_blocks, free_inodes: layout.inodes().wrapping_sub(used_inodes) })
}

/// A group's block bitmap, and how many of its bits are set. Blocks beyond the image's end count as used; the blocks
/// kept for descriptors of groups that there are not, in the first group, do not.
fn block_bitmap(layout: &Layout, group: u32) -> ([u8; BLOCK_BYTES], u32) {
    let mut bitmap = [0; BLOCK_BYTES];
    let first = group.saturating_mul(BLOCKS_PER_GROUP);
    let used = layout.used_blocks().saturating_sub(first).min(BLOCKS_PER_GROUP);
    (0..used).for_each(|block| set_bit(&mut bitmap, block));
    if group == 0 {
        let used_descriptors = layout.groups.div_ceil(PER_DESCRIPTOR_BLOCK);
        let unused = used_descriptors.saturating_add(1)..=DESCRIPTOR_BLOCKS;
        unused.for_each(|block| clear_bit(&mut bitmap, block));
    }
    let present = layout.disk_blocks().saturating_sub(first);
    (present..BLOCKS_PER_GROUP).for_each(|block| set_bit(&mut bitmap, block));
    let count = bitmap.iter().map(|byte| byte.count_ones()).sum();
    (bitmap, count)
}

/// A group's inode bitmap, how many inodes it says are used, and how many of them are directories.
fn inode_bitmap(tree: &Tree, layout: &Layout, group: u32) -> ([u8; BLOCK_BYTES], u32, u32) {
    let mut bitmap = [0; BLOCK_BYTES];
    let (mut used, mut directories) = (0_u32, 0_u32);
    let first = group.saturating_mul(layout.inodes_per_group).saturating_add(1);
    for (place, number) in (0..layout.inodes_per_group).zip(first..) {
        let inode = tree.inode(number);
        if inode.is_some() || number < FIRST_INODE {
            set_bit(&mut bitmap, place);
            used = used.saturating_add(1);
        }
        if inode.map(Inode::file_type) == Some(file_type::DIRECTORY) {
            directories = directories.saturating_add(1);
        }
    }
    (bitmap, used, directories)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_group_with_few_inodes() {
        let layout = Layout::new(10, 11).unwrap();
        assert_eq!((layout.groups, layout.inodes_per_group, layout.disk_blocks()), (1, 16, 13));
    }

    #[test]
    fn many_inodes_make_few_groups_large() {
        let layout = Layout::new(10, 100_000).unwrap();
        assert_eq!((layout.groups, layout.inodes_per_group), (4, 25_008));
    }

    #[test]
    fn what_the_reference_cannot_count_is_refused() {
        assert!(matches!(Layout::new(10, 20_000_000), Err(LayerError::TooManyEntries { .. })));
        assert!(matches!(Layout::new(40_000_000, 11), Err(LayerError::ImageTooLarge { .. })));
    }
}
