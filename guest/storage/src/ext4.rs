//! An empty ext4 file system, as the few blocks that differ from zeros.
//!
//! The scratch disk gives an error for each block that was never written (its authentication fails), so nothing may be read
//! that this module, or the kernel after it, has not written. Hence: group descriptors with checksums, whose flags tell the
//! kernel that bitmaps and inode tables are not initialised and need not be read; no journal, no copies of the superblock.
//! Format: kernel documentation, "ext4 Data Structures and Algorithms".

mod blocks;
mod checksum;

use blocks::Block;

/// Bytes in a block.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// Blocks in a group: as many as one block has bits.
const GROUP_BLOCKS: u64 = 32768;
/// Inodes in a group: one for 16 KiB.
const GROUP_INODES: u64 = 8192;
const INODE_BYTES: u64 = 256;
const TABLE_BLOCKS: u64 = GROUP_INODES * INODE_BYTES / BLOCK_BYTES as u64;
/// Two bitmaps and the inode table.
const GROUP_OVERHEAD: u64 = 2 + TABLE_BLOCKS;
const DESCRIPTOR_BYTES: u64 = 32;
const DESCRIPTORS_PER_BLOCK: u64 = BLOCK_BYTES as u64 / DESCRIPTOR_BYTES;
/// Inodes in use: ten reserved ones and lost+found.
const USED_INODES: u64 = 11;

/// Least size of a file system.
pub(crate) const MIN_BYTES: u64 = 16 << 20;
/// Largest size of a file system.
pub(crate) const MAX_BYTES: u64 = 8 << 40;

/// A size for which there is no file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are no size for a file system: expected {MIN_BYTES} to {MAX_BYTES}")]
pub struct FormatError {
    /// The size.
    pub bytes: u64,
}

/// The blocks to write on a device of `bytes` bytes, in rising order: (number, contents). `uuid` and `hash_seed` are to be random.
///
/// # Errors
/// [`FormatError`] for a size outside `MIN_BYTES` and `MAX_BYTES`.
pub(crate) fn format(bytes: u64, uuid: [u8; 16], hash_seed: [u8; 16]) -> Result<Vec<(u64, Block)>, FormatError> {
    if !(MIN_BYTES..=MAX_BYTES).contains(&bytes) {
        return Err(FormatError { bytes });
    }
    Ok(blocks::all(&Layout::of(bytes), uuid, hash_seed))
}

/// Where things are. All counts fit in 32 bits: [`MAX_BYTES`] are 2³¹ blocks.
#[derive(Debug)]
struct Layout {
    blocks: u64,
    groups: u64,
    descriptor_blocks: u64,
}

#[expect(clippy::arithmetic_side_effects, reason = "at most 2^31 blocks: see MAX_BYTES")]
impl Layout {
    fn of(bytes: u64) -> Self {
        let mut blocks = bytes / BLOCK_BYTES as u64;
        let tail = blocks % GROUP_BLOCKS;
        // A last group with hardly more than its own tables is left out.
        if blocks > GROUP_BLOCKS && tail < GROUP_OVERHEAD + 64 {
            blocks -= tail;
        }
        let groups = blocks.div_ceil(GROUP_BLOCKS);
        Self { blocks, groups, descriptor_blocks: groups.div_ceil(DESCRIPTORS_PER_BLOCK) }
    }

    fn group_blocks(&self, group: u64) -> u64 {
        (self.blocks - group * GROUP_BLOCKS).min(GROUP_BLOCKS)
    }

    /// Block bitmap; the inode bitmap and the inode table follow.
    fn bitmap(&self, group: u64) -> u64 {
        let before = if group == 0 { 1 + self.descriptor_blocks } else { 0 };
        group * GROUP_BLOCKS + before
    }

    fn inode_table(&self, group: u64) -> u64 {
        self.bitmap(group) + 2
    }

    fn root_block(&self) -> u64 {
        self.inode_table(0) + TABLE_BLOCKS
    }

    fn lost_found_block(&self) -> u64 {
        self.root_block() + 1
    }

    /// Blocks in use, from the group's start without gaps.
    fn used(&self, group: u64) -> u64 {
        if group == 0 { self.lost_found_block() + 1 } else { GROUP_OVERHEAD }
    }

    fn free(&self, group: u64) -> u64 {
        self.group_blocks(group) - self.used(group)
    }

    fn all_free(&self) -> u64 {
        (0..self.groups).map(|group| self.free(group)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// Writes the file system into a sparse file.
    fn image(bytes: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        for (number, block) in format(bytes, [7; 16], [9; 16]).unwrap() {
            file.as_file().write_all_at(&block, number * BLOCK_BYTES as u64).unwrap();
        }
        file
    }

    fn check(bytes: u64) {
        let file = image(bytes);
        let out = Command::new("/sbin/e2fsck")
            .args(["-f", "-n"])
            .arg(file.path())
            .output()
            .expect("e2fsck (package e2fsprogs)");
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{bytes} bytes: {text}{}", String::from_utf8_lossy(&out.stderr));
        assert!(text.contains("11/") && text.contains("Pass 5"), "{text}");
    }

    #[test]
    fn e2fsck_finds_nothing() {
        let group = GROUP_BLOCKS * BLOCK_BYTES as u64;
        let tight = (GROUP_OVERHEAD + 64) * BLOCK_BYTES as u64;
        for bytes in [
            MIN_BYTES,
            64 << 20,
            group,
            group + 4096,
            group + tight - 4096,
            group + tight,
            group + tight + 5000,
            1 << 30,
        ] {
            check(bytes);
        }
    }

    #[test]
    fn large_disks_take_few_blocks() {
        check(64 << 30);
        let blocks = format(64 << 30, [7; 16], [9; 16]).unwrap();
        assert_eq!(blocks.len(), 1 + 4 + 2 + 1 + 2 + 1);
        assert!(blocks.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn odd_sizes_are_refused() {
        for bytes in [0, MIN_BYTES - 1, MAX_BYTES + 1, u64::MAX] {
            assert_eq!(format(bytes, [0; 16], [0; 16]).err(), Some(FormatError { bytes }));
        }
    }

    proptest! {
        #[test]
        fn counts_add_up(bytes in MIN_BYTES..=MAX_BYTES) {
            let layout = Layout::of(bytes);
            let used: u64 = (0..layout.groups).map(|group| layout.used(group)).sum();
            prop_assert_eq!(layout.all_free() + used, layout.blocks);
            prop_assert!(layout.blocks <= bytes / BLOCK_BYTES as u64);
            prop_assert!(layout.used(0) < layout.group_blocks(0));
        }
    }
}
