//! Superblock and group descriptors, the blocks before the data (kernel documentation, `filesystems/ext4/super`).

use caveau_verity::{BLOCK_BYTES, HashBlock};

use super::{
    BLOCKS_PER_GROUP, INODE_BYTES, LateBlocks,
    groups::{DESCRIPTOR, Groups, Layout},
    inode_table::EXTRA,
};
use crate::{
    bytes::{put, put16, put32},
    tree::FIRST_INODE,
};

/// Blocks kept for group descriptors: as many as 1024 groups need, the most that a disk of 128 GiB has.
pub(crate) const DESCRIPTOR_BLOCKS: u32 = 8;

/// Where the superblock begins in the first block.
const START: usize = 1024;

const MAGIC: u16 = 0xef53;

/// Compatible features: `sparse_super2`, `ext_attr`.
const COMPAT: u32 = 0x200 | 0x8;

/// Incompatible features: `filetype`, `extent`, `flex_bg`.
const INCOMPAT: u32 = 0x2 | 0x40 | 0x200;

/// Features that forbid writing by those who do not know them: `large_file`, `huge_file`, `extra_isize`, `read-only`.
const READ_ONLY: u32 = 0x2 | 0x8 | 0x40 | 0x1000;

/// The blocks before the data, with their numbers.
pub(super) fn render(layout: &Layout, groups: &Groups) -> LateBlocks {
    let mut blocks = vec![(0, render_superblock(layout, groups))];
    let mut descriptors = groups.descriptors.chunks(BLOCK_BYTES / DESCRIPTOR);
    for number in 1..=DESCRIPTOR_BLOCKS {
        let mut block = Box::new([0; BLOCK_BYTES]);
        put(block.as_mut_slice(), 0, descriptors.next().unwrap_or_default().as_flattened());
        blocks.push((number, block));
    }
    blocks
}

fn render_superblock(layout: &Layout, groups: &Groups) -> Box<HashBlock> {
    let mut block = Box::new([0; BLOCK_BYTES]);
    let to = block.get_mut(START..).unwrap_or_default();
    put32(to, 0, layout.inodes());
    put32(to, 4, layout.disk_blocks());
    put32(to, 12, groups.free_blocks);
    put32(to, 16, groups.free_inodes);
    // Block and cluster size: 2^(10 + 2) bytes.
    put32(to, 24, 2);
    put32(to, 28, 2);
    put32(to, 32, BLOCKS_PER_GROUP);
    put32(to, 36, BLOCKS_PER_GROUP);
    put32(to, 40, layout.inodes_per_group);
    put16(to, 56, MAGIC);
    // Cleanly unmounted; go on after errors; revision with inodes of any size.
    put16(to, 58, 1);
    put16(to, 60, 1);
    put32(to, 76, 1);
    put32(to, 84, FIRST_INODE);
    put16(to, 88, INODE_BYTES as u16);
    put32(to, 92, COMPAT);
    put32(to, 96, INCOMPAT);
    put32(to, 100, READ_ONLY);
    put16(to, 348, EXTRA);
    put16(to, 350, EXTRA);
    // Groups in a flexible group: 2^31.
    put(to, 372, &[31]);
    // Inode of lost+found.
    put32(to, 616, FIRST_INODE);
    block
}
