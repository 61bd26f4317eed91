//! Storage of the guest: layers checked block by block, encrypted scratch space, and the overlays that containers run on.
//!
//! Trusts the guest's kernel, and the permits that it takes by value. Promises that what is mounted as a layer leads to the
//! root hash of the permit for as long as it is mounted, that what is written to scratch space is encrypted and authenticated
//! under a key that no disk has seen, that every mount has `nodev`, and that a step which fails leaves nothing behind. Refuses
//! disks that are there twice, sizes and superblocks that contradict each other, and targets outside `/run/caveau`.
//!
//! Disks are named by logical unit number alone, and everything else (device names, folders) is chosen here: no text of the
//! host becomes a path or a table.
//!
//! The steps of a group, each under its permit:
//! ```text
//!   mount_layer ×n ─┐
//!   mount_disk ─▶ mount_scratch ─▶ mount_overlay ─▶ … ─▶ unmount_overlay ─▶ unmount_scratch ─▶ unmount_disk, unmount_layer ×n
//! ```
//! The order of unmounting is for the caller to keep; the kernel refuses another.

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
        reason = "tests stop at the first surprise"
    )
)]

mod corruption;
mod device_mapper;
mod disk;
mod error;
mod ext4;
mod layer;
mod mount;
mod overlay;
mod scratch;

use std::sync::atomic::{AtomicU64, Ordering};

pub use corruption::{Corruption, CorruptionWatch};
pub use error::{LayoutError, Result, StorageError};
pub use ext4::FormatError;
pub use layer::Layer;
pub use overlay::Overlay;
pub use scratch::{EncryptedDisk, Scratch, ScratchSource};

/// The guest's storage: one per guest.
#[derive(Debug)]
pub struct Storage {
    device_mapper: device_mapper::DeviceMapper,
    next: AtomicU64,
}

impl Storage {
    /// Opens device mapper and has the kernel look for disks. `/dev` (devtmpfs), `/sys` and `/run` must be mounted, and the
    /// modules loaded.
    ///
    /// # Errors
    /// Where the kernel has no device mapper, or does not look for disks.
    pub fn open() -> Result<Self> {
        disk::look()?;
        Ok(Self { device_mapper: device_mapper::DeviceMapper::open()?, next: AtomicU64::new(0) })
    }

    /// A name that was not used before.
    fn device_name(&self, kind: &str) -> String {
        format!("{kind}-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }
}
