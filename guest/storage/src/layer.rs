//! Layers: a disk whose blocks all lead to a permitted root hash, mounted read-only.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use caveau_policy::{MountLayer, Permit, UnmountLayer};
use caveau_verity::{RootHash, Superblock, VerityGeometry};
use rustix::mount::MountAttrFlags;

use crate::device_mapper::{MappedDevice, Target};
use crate::disk::Disk;
use crate::error::IoContext as _;
use crate::mount::{FileSystem, checked_target, detach, same_target};
use crate::{LayoutError, Result, Storage, StorageError};

/// A mounted layer.
#[derive(Debug)]
#[must_use = "it stays mounted until unmount_layer"]
pub struct Layer {
    target: PathBuf,
    root: RootHash,
    device: MappedDevice,
}

impl Layer {
    /// Where it is mounted.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The root hash that each of its blocks was, or will be when it is read, checked against.
    #[must_use]
    pub fn root(&self) -> &RootHash {
        &self.root
    }

    /// The kernel's name of its device, as [`crate::Corruption`] has it.
    #[must_use]
    pub fn device_name(&self) -> String {
        self.device.kernel_name()
    }
}

impl Storage {
    /// Mounts the layer on disk `lun`, read-only, at the permit's target.
    ///
    /// Nothing of the disk is believed: its layout follows from its size and must be what its superblock says, and each block is
    /// checked against the permit's root hash whenever the kernel reads it. A block that does not match is an I/O error, for
    /// whoever reads it, now or later.
    ///
    /// # Errors
    /// Where there is no such disk, it is not laid out as a layer, or the first blocks that a mount reads do not match.
    pub fn mount_layer(&self, permit: Permit<MountLayer>, lun: u16) -> Result<Layer> {
        let MountLayer { target, root } = permit.into_inner();
        let target = checked_target(&target)?;
        let disk = Disk::find(lun)?;
        let geometry = layout(&disk)?;
        let parameters = geometry.target_parameters(&disk.number, &root);
        let table = Target {
            kind: "verity",
            sectors: geometry.sectors(),
            parameters: &parameters,
            read_only: true,
            secret: false,
        };
        let device = self.device_mapper.map(&self.device_name("layer"), &table)?;
        let file_system = FileSystem {
            kind: "ext4",
            flags: &["ro"],
            values: &[("source", device.path().display().to_string())],
            attributes: MountAttrFlags::MOUNT_ATTR_RDONLY,
        };
        if let Err(error) = file_system.mount(&target) {
            self.device_mapper.remove(&device)?;
            return Err(error);
        }
        Ok(Layer { target, root, device })
    }

    /// Unmounts a layer.
    ///
    /// # Errors
    /// [`StorageError::OtherTarget`] where the permit is for another one; else where it is in use. It can be tried again.
    pub fn unmount_layer(&self, permit: Permit<UnmountLayer>, layer: &Layer) -> Result<()> {
        same_target(&permit.into_inner().target, &layer.target)?;
        detach(&layer.target)?;
        self.device_mapper.remove(&layer.device)
    }

    /// Whether a block of the layer that was read did not lead to its root hash: the host changed the disk.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub fn is_corrupted(&self, layer: &Layer) -> Result<bool> {
        // "V": all blocks read so far were valid; "C": corruption was found (kernel documentation, dm-verity, Status).
        Ok(self.device_mapper.status(&layer.device)?.trim() != "V")
    }
}

/// The layout of the layer on `disk`.
fn layout(disk: &Disk) -> Result<VerityGeometry> {
    let refuse = |source: LayoutError| StorageError::NotALayer { lun: disk.lun, source };
    let sized = VerityGeometry::of_device(disk.bytes).map_err(|error| refuse(error.into()))?;
    let mut block = vec![0; caveau_verity::BLOCK_BYTES];
    disk.reader()?.read_exact_at(&mut block, sized.data_bytes()).context("read the superblock of", &disk.path)?;
    let told = Superblock::parse(&block).map_err(|error| refuse(error.into()))?.geometry();
    if told != sized {
        return Err(refuse(LayoutError::Mismatch { told: told.data_blocks(), sized: sized.data_blocks() }));
    }
    Ok(sized)
}
