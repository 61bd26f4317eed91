//! A container layer's tar stream to a deterministic ext4 image.
//!
//! One pass over the tar writes the image, hashes it as it grows, and ends with its dm-verity tree and root hash:
//!
//! ```text
//! tar ──> entries ──> inodes, names (kept) ──────────────┐
//!              └────> file data ──> image blocks ──> hashing threads ──> tree, root
//! ```
//!
//! The image is byte for byte that of the reference converter (hcsshim, `ext4/tar2ext4`: whiteouts converted, disk size
//! at most 128 GiB), whose root hashes stand in existing policies. Where its behaviour is odd this crate is odd in the
//! same way, and says so at the place. What it does not define (it panics, or its result depends on chance) is an error
//! here.
//!
//! ```text
//! block 0        superblock            written last
//! blocks 1 to 8  group descriptors     written last
//! block 9 …      extended attributes, file data, extent trees, in the order of the tar
//!                directories, depth first
//!                inode table
//!                two bitmaps a group
//! ```
//!
//! - Trusts: nothing in the tar. The sink is the caller's: it must give back what was written to it.
//! - Promises: the same bytes for the same tar; memory of at most 64 MiB (measured: 25 MiB for 3 GiB of data) and, for
//!   each entry, at most 256 bytes with a name of usual length and 550 with the longest (measured: 202 and 440), plus
//!   its extended attributes within the inode; and for those that need a block of their own at most
//!   [`Limits::attribute_bytes`] in all.
//! - Refuses: whatever the reference refuses, and more entries or image bytes than the limits allow. On an error the
//!   sink holds an unfinished image, which the caller throws away.
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

mod bytes;
mod convert;
mod error;
mod ext4;
mod image;
mod leaves;
mod path;
mod sink;
mod tar;
mod time;
mod tree;
mod xattr;

pub use convert::{LayerSummary, Limits, convert, hash};
pub use error::{EntryError, LayerError, PathText};
pub use sink::{ImageSink, MemoryImage};
pub use tar::TarError;

/// Bytes in an ext4 block, and in a dm-verity block.
const BLOCK: u64 = caveau_verity::BLOCK_BYTES as u64;
