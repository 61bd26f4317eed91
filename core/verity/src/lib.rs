//! dm-verity hash trees: superblock, tree, root hash.
//!
//! A layer lies in a file, or on a device, as
//!
//! ```text
//! data (whole blocks) | superblock (one block) | hash tree, top level first
//! ```
//!
//! in the version 1 format of dm-verity (kernel documentation, `admin-guide/device-mapper/verity`; superblock of
//! cryptsetup's `veritysetup`): SHA-256, data and hash blocks of 4096 bytes, 32 zero bytes of salt before each block,
//! each level padded with zeros to whole blocks. The salt is fixed so that the same data has the same root everywhere.
//!
//! - Trusts: nothing that it reads; the root hash that a caller expects is the only anchor.
//! - Promises: roots and trees equal to those of `veritysetup` for the same data; memory bounded by the tree's size
//!   where a tree is kept, and by a few chunks and the tree's upper levels (32 bytes for each 512 KiB) where it is not.
//! - Refuses: other block sizes, hashes, salts and versions, anything non-zero where the format has padding, and data
//!   that is not whole blocks.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes,
        reason = "a test may panic: that is how it fails"
    )
)]

mod chunk;
mod geometry;
mod queue;
mod root;
mod superblock;
mod tree;
mod verify;

pub use chunk::{CHUNK_BLOCKS, CHUNK_BYTES, HashBlock, hash_block};
pub use geometry::{GeometryError, MAX_DATA_BLOCKS, VerityGeometry};
pub use queue::{ChunkQueue, HashedChunk, hash_chunks};
pub use root::{RootHash, RootHashError};
pub use superblock::{SUPERBLOCK_BYTES, Superblock, SuperblockError};
pub use tree::{BlockSource, HashTree, TreeError, UpperLevels};
pub use verify::{VerifyError, verify_device, verify_tree};

/// Bytes in a data block and in a hash block.
pub const BLOCK_BYTES: usize = 4096;

/// The salt hashed before every block.
pub const SALT: [u8; 32] = [0; 32];
