//! Where data, superblock and tree lie, from the number of data blocks alone.

use crate::{BLOCK_BYTES, RootHash, SALT};

/// Digests that fit into one hash block.
const FAN_OUT: u64 = (BLOCK_BYTES / caveau_hash::DIGEST_BYTES) as u64;

/// Most data blocks of a device: 16 TiB, the most that ext4 with 32-bit block numbers can address.
pub const MAX_DATA_BLOCKS: u64 = 1 << 32;

/// Layout of one device that holds data, superblock and hash tree: all that a dm-verity table needs but the root hash.
///
/// Block numbers count 4096-byte blocks from the device's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerityGeometry {
    data_blocks: u64,
}

/// A size that no layer can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// No data, or more than dm-verity and ext4 can address here.
    #[error("failed to lay out a hash tree over {data_blocks} data blocks: expected 1 to {MAX_DATA_BLOCKS}")]
    DataBlocks {
        /// Data blocks asked for.
        data_blocks: u64,
    },
    /// The device's size is not that of any data with its superblock and tree.
    #[error(
        "failed to find the hash tree in {device_bytes} bytes: data, superblock and tree never have that size together; the file is truncated or not a layer"
    )]
    DeviceBytes {
        /// Bytes of the device.
        device_bytes: u64,
    },
}

impl VerityGeometry {
    /// The layout for so many data blocks.
    ///
    /// # Errors
    /// [`GeometryError::DataBlocks`] for none or too many.
    pub fn of_data(data_blocks: u64) -> Result<Self, GeometryError> {
        match data_blocks {
            1..=MAX_DATA_BLOCKS => Ok(Self { data_blocks }),
            _ => Err(GeometryError::DataBlocks { data_blocks }),
        }
    }

    /// The layout of a whole device, found from its size: the size grows with the data, so only one layout has it.
    ///
    /// # Errors
    /// [`GeometryError::DeviceBytes`] where no layout has that size.
    pub fn of_device(device_bytes: u64) -> Result<Self, GeometryError> {
        let (mut low, mut high) = (1, MAX_DATA_BLOCKS);
        while low < high {
            let middle = low.midpoint(high);
            if (Self { data_blocks: middle }).device_bytes() < device_bytes {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        let found = Self { data_blocks: low };
        if found.device_bytes() == device_bytes { Ok(found) } else { Err(GeometryError::DeviceBytes { device_bytes }) }
    }

    /// Number of data blocks.
    #[must_use]
    pub fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// Bytes of data; the superblock begins right after them.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        to_bytes(self.data_blocks)
    }

    /// Block at which the tree begins, its top level first: one after the superblock.
    #[must_use]
    pub fn hash_start_block(&self) -> u64 {
        self.data_blocks.saturating_add(1)
    }

    /// Hash blocks of each level, from the leaves up to the single block at the top; none where there is but one data
    /// block, whose digest then is the root.
    #[must_use]
    pub fn level_blocks(&self) -> Vec<u64> {
        let mut levels = Vec::new();
        let mut below = self.data_blocks;
        while below > 1 {
            below = below.div_ceil(FAN_OUT);
            levels.push(below);
        }
        levels
    }

    /// Block at which a level begins; level 0 are the leaves, the last in [`Self::level_blocks`] is the top.
    #[must_use]
    pub fn level_start(&self, level: usize) -> u64 {
        let above: u64 = self.level_blocks().iter().skip(level.saturating_add(1)).sum();
        self.hash_start_block().saturating_add(above)
    }

    /// Hash blocks of the whole tree.
    #[must_use]
    pub fn tree_blocks(&self) -> u64 {
        self.level_blocks().iter().sum()
    }

    /// Bytes of data, superblock and tree together.
    #[must_use]
    pub fn device_bytes(&self) -> u64 {
        to_bytes(self.hash_start_block().saturating_add(self.tree_blocks()))
    }

    /// Size of the mapped device in 512-byte sectors, as device-mapper counts.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.data_blocks.saturating_mul(BLOCK_BYTES as u64 / 512)
    }

    /// Parameters of a dm-verity target (kernel documentation, `admin-guide/device-mapper/verity`, "Construction
    /// Parameters") over `device`, which holds data and tree: a path or `major:minor`.
    #[must_use]
    pub fn target_parameters(&self, device: &str, root: &RootHash) -> String {
        let salt: String = SALT.iter().map(|byte| format!("{byte:02x}")).collect();
        let (data_blocks, hash_start) = (self.data_blocks, self.hash_start_block());
        format!("1 {device} {device} {BLOCK_BYTES} {BLOCK_BYTES} {data_blocks} {hash_start} sha256 {root} {salt}")
    }
}

/// Blocks as bytes.
fn to_bytes(blocks: u64) -> u64 {
    blocks.saturating_mul(BLOCK_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn device_size_names_one_layout(data_blocks in prop_oneof![1_u64..40_000, 1..=MAX_DATA_BLOCKS]) {
            let geometry = VerityGeometry::of_data(data_blocks).unwrap();
            prop_assert_eq!(VerityGeometry::of_device(geometry.device_bytes()), Ok(geometry));
            let odd = geometry.device_bytes() + 1;
            prop_assert_eq!(VerityGeometry::of_device(odd), Err(GeometryError::DeviceBytes { device_bytes: odd }));
        }
    }

    #[test]
    fn levels_of_some_sizes() {
        for (data_blocks, levels) in
            [(1, vec![]), (2, vec![1]), (128, vec![1]), (129, vec![2, 1]), (128 * 128 + 1, vec![129, 2, 1])]
        {
            assert_eq!(VerityGeometry::of_data(data_blocks).unwrap().level_blocks(), levels);
        }
        let geometry = VerityGeometry::of_data(128 * 128 + 1).unwrap();
        assert_eq!([0, 1, 2].map(|level| geometry.level_start(level) - geometry.hash_start_block()), [3, 1, 0]);
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        for data_blocks in [0, MAX_DATA_BLOCKS + 1, u64::MAX] {
            assert_eq!(VerityGeometry::of_data(data_blocks), Err(GeometryError::DataBlocks { data_blocks }));
        }
        for device_bytes in [0, 4096, 12288, u64::MAX] {
            assert_eq!(VerityGeometry::of_device(device_bytes), Err(GeometryError::DeviceBytes { device_bytes }));
        }
    }

    #[test]
    fn target_parameters_name_everything() {
        let root = "01".repeat(32);
        let line = VerityGeometry::of_data(14).unwrap().target_parameters("8:16", &root.parse().unwrap());
        assert_eq!(line, format!("1 8:16 8:16 4096 4096 14 15 sha256 {root} {}", "00".repeat(32)));
    }
}
