//! The contents of the blocks.

use super::checksum::crc16;
use super::{
    BLOCK_BYTES, DESCRIPTOR_BYTES, DESCRIPTORS_PER_BLOCK, GROUP_BLOCKS, GROUP_INODES, INODE_BYTES, Layout, USED_INODES,
};

/// One block's contents.
pub(crate) type Block = Vec<u8>;

/// Where the superblock stands in the first block.
const SUPERBLOCK: usize = 1024;
const ROOT_INODE: u32 = 2;
const LOST_FOUND_INODE: u32 = 11;

const COMPATIBLE: u32 = 0x8 | 0x20 | 0x200; // ext_attr, dir_index, sparse_super2
const INCOMPATIBLE: u32 = 0x2 | 0x40; // filetype, extents
const READ_ONLY_COMPATIBLE: u32 = 0x2 | 0x8 | 0x10 | 0x20 | 0x40; // large_file, huge_file, uninit_bg, dir_nlink, extra_isize

const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;

/// All blocks, in rising order.
pub(super) fn all(layout: &Layout, uuid: [u8; 16], hash_seed: [u8; 16]) -> Vec<(u64, Block)> {
    let mut blocks = vec![(0, superblock(layout, uuid, hash_seed))];
    blocks.extend((1..).zip(descriptors(layout, &uuid)));
    blocks.extend((layout.bitmap(0)..).zip([
        bitmap(layout.used(0), layout.group_blocks(0)),
        bitmap(USED_INODES, GROUP_INODES),
        inodes(layout),
    ]));
    blocks.extend((layout.root_block()..).zip([
        folder(ROOT_INODE, ROOT_INODE, Some(("lost+found", LOST_FOUND_INODE))),
        folder(LOST_FOUND_INODE, ROOT_INODE, None),
    ]));
    if let Some(last) = layout.groups.checked_sub(1).filter(|&last| last > 0) {
        blocks.push((layout.bitmap(last), bitmap(layout.used(last), layout.group_blocks(last))));
    }
    blocks
}

/// A block that is filled at offsets.
struct Fields(Block);

impl Fields {
    fn new() -> Self {
        Self(vec![0; BLOCK_BYTES])
    }

    /// Every offset used here is within the block; another one would write nothing.
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(offset).zip(bytes) {
            *to = *from;
        }
    }

    fn u16(&mut self, offset: usize, value: u16) {
        self.put(offset, &value.to_le_bytes());
    }

    fn u32(&mut self, offset: usize, value: u32) {
        self.put(offset, &value.to_le_bytes());
    }
}

/// The low 32 bits; no count here has more.
fn low(value: u64) -> u32 {
    value as u32
}

fn superblock(layout: &Layout, uuid: [u8; 16], hash_seed: [u8; 16]) -> Block {
    let mut block = Fields::new();
    let inodes = layout.groups.saturating_mul(GROUP_INODES);
    let words = [
        (0, low(inodes)),
        (4, low(layout.blocks)),
        (12, low(layout.all_free())),
        (16, low(inodes.saturating_sub(USED_INODES))),
        (24, 2), // block size 4096
        (28, 2),
        (32, low(GROUP_BLOCKS)),
        (36, low(GROUP_BLOCKS)),
        (40, low(GROUP_INODES)),
        (76, 1), // dynamic revision
        (84, LOST_FOUND_INODE),
        (92, COMPATIBLE),
        (96, INCOMPATIBLE),
        (100, READ_ONLY_COMPATIBLE),
        (352, 1), // signed directory hash
    ];
    for (offset, value) in words {
        block.u32(SUPERBLOCK.saturating_add(offset), value);
    }
    let halves = [
        (54, 0xffff), // never checked by count of mounts
        (56, 0xef53),
        (58, 1), // clean
        (60, 2), // on errors: read-only
        (88, INODE_BYTES as u16),
        (348, 32),
        (350, 32),
    ];
    for (offset, value) in halves {
        block.u16(SUPERBLOCK.saturating_add(offset), value);
    }
    block.put(SUPERBLOCK + 104, &uuid);
    block.put(SUPERBLOCK + 236, &hash_seed);
    block.put(SUPERBLOCK + 252, &[1]); // half MD4
    block.0
}

/// The blocks of group descriptors.
fn descriptors(layout: &Layout, uuid: &[u8; 16]) -> Vec<Block> {
    let mut all: Vec<u8> = (0..layout.groups).flat_map(|group| descriptor(layout, group, uuid)).collect();
    let room = layout.descriptor_blocks.saturating_mul(DESCRIPTORS_PER_BLOCK).saturating_mul(DESCRIPTOR_BYTES);
    all.resize(usize::try_from(room).unwrap_or(all.len()), 0);
    all.chunks(BLOCK_BYTES).map(<[u8]>::to_vec).collect()
}

fn descriptor(layout: &Layout, group: u64, uuid: &[u8; 16]) -> Vec<u8> {
    let first = group == 0;
    let last = group.saturating_add(1) == layout.groups;
    // The last group's length is not a whole one's, so its bitmap is written out.
    let flags = match (first, last) {
        (true, _) => 0,
        (false, true) => INODE_UNINIT,
        (false, false) => INODE_UNINIT | BLOCK_UNINIT,
    };
    let used_inodes = if first { USED_INODES } else { 0 };
    let free_inodes = low(GROUP_INODES.saturating_sub(used_inodes)) as u16;
    let mut fields = Fields::new();
    fields.u32(0, low(layout.bitmap(group)));
    fields.u32(4, low(layout.bitmap(group).saturating_add(1)));
    fields.u32(8, low(layout.inode_table(group)));
    fields.u16(12, low(layout.free(group)) as u16);
    fields.u16(14, free_inodes);
    fields.u16(16, if first { 2 } else { 0 });
    fields.u16(18, flags);
    fields.u16(28, free_inodes);
    let checked = fields.0.get(..30).unwrap_or_default();
    let crc = [uuid.as_slice(), &low(group).to_le_bytes(), checked].into_iter().fold(0xffff, crc16);
    fields.u16(30, crc);
    fields.0.truncate(DESCRIPTOR_BYTES as usize);
    fields.0
}

/// A bitmap with the first `used` bits set, and all from `end` on, which stand for nothing.
fn bitmap(used: u64, end: u64) -> Block {
    let byte = |index: u64| {
        (0..8).fold(0_u8, |byte, bit| {
            let position = index.saturating_mul(8).saturating_add(bit);
            byte | u8::from(position < used || position >= end) << bit
        })
    };
    (0..BLOCK_BYTES as u64).map(byte).collect()
}

/// The first block of the first inode table: the root folder and lost+found.
fn inodes(layout: &Layout) -> Block {
    let mut block = Fields::new();
    put_folder(&mut block, ROOT_INODE, 0o755, 3, layout.root_block());
    put_folder(&mut block, LOST_FOUND_INODE, 0o700, 2, layout.lost_found_block());
    block.0
}

/// An inode of a folder with one block.
fn put_folder(block: &mut Fields, inode: u32, mode: u16, links: u16, at: u64) {
    let start = (inode as usize).saturating_sub(1).saturating_mul(INODE_BYTES as usize);
    let offset = |field: usize| start.saturating_add(field);
    block.u16(offset(0), 0o040_000 | mode);
    block.u32(offset(4), BLOCK_BYTES as u32);
    block.u16(offset(26), links);
    block.u32(offset(28), BLOCK_BYTES as u32 / 512);
    block.u32(offset(32), 0x8_0000); // extents
    // Extent header (magic, one entry of four, depth 0), then the extent: file block 0, one block, at `at`.
    block.u16(offset(40), 0xf30a);
    block.u16(offset(42), 1);
    block.u16(offset(44), 4);
    block.u16(offset(56), 1);
    block.u32(offset(60), low(at));
    block.u16(offset(128), 32);
}

/// A folder's block: itself, its parent, and one more entry or none.
fn folder(inode: u32, parent: u32, entry: Option<(&str, u32)>) -> Block {
    let mut block = Fields::new();
    let mut at = 0_usize;
    let mut add = |inode: u32, name: &str, length: usize| {
        block.u32(at, inode);
        block.u16(at.saturating_add(4), length as u16);
        block.put(at.saturating_add(6), &[name.len() as u8, 2]);
        block.put(at.saturating_add(8), name.as_bytes());
        at = at.saturating_add(length);
    };
    add(inode, ".", 12);
    match entry {
        Some((name, other)) => {
            add(parent, "..", 12);
            add(other, name, BLOCK_BYTES - 24);
        }
        None => add(parent, "..", BLOCK_BYTES - 12),
    }
    block.0
}
