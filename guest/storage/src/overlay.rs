//! A container's root file system: its layers, and what it writes itself.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use caveau_policy::{MountOverlay, Permit, UnmountOverlay};
use rustix::mount::MountAttrFlags;

use crate::error::IoContext as _;
use crate::mount::{FileSystem, checked_target, detach, same_target};
use crate::{Result, Scratch, Storage};

/// A mounted overlay.
#[derive(Debug)]
#[must_use = "it stays mounted until unmount_overlay"]
pub struct Overlay {
    target: PathBuf,
    writable: PathBuf,
}

impl Overlay {
    /// Where it is mounted.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }
}

impl Storage {
    /// Mounts the permit's layers, the first of them on top, with a fresh folder of `scratch` above them.
    ///
    /// # Errors
    /// Where a path of the permit is not below the guest's folder, or the kernel refuses.
    pub fn mount_overlay(&self, permit: Permit<MountOverlay>, scratch: &Scratch) -> Result<Overlay> {
        let MountOverlay { container_id: _, layer_paths, target } = permit.into_inner();
        let target = checked_target(&target)?;
        let layers = layer_paths.iter().map(|path| checked_target(path)).collect::<Result<Vec<_>>>()?;
        let writable = scratch.target().join(self.device_name("overlay"));
        let mounted = prepare(&writable).and_then(|()| mount(&layers, &writable, &target));
        match mounted {
            Ok(()) => Ok(Overlay { target, writable }),
            Err(error) => {
                // The first error is the one to tell; the name is not used again.
                let _ = std::fs::remove_dir_all(&writable);
                Err(error)
            }
        }
    }

    /// Unmounts an overlay and removes all that was written to it.
    ///
    /// # Errors
    /// [`StorageError::OtherTarget`] where the permit is for another one; else where it is in use. It can be tried again.
    pub fn unmount_overlay(&self, permit: Permit<UnmountOverlay>, overlay: &Overlay) -> Result<()> {
        same_target(&permit.into_inner().target, &overlay.target)?;
        detach(&overlay.target)?;
        // It is unmounted; files that the disk does not let go of any more end with the disk.
        let _ = std::fs::remove_dir_all(&overlay.writable);
        Ok(())
    }
}

/// Makes the folders for changes and for the overlay's own work.
fn prepare(writable: &Path) -> Result<()> {
    // The changes' folder becomes the container's `/`, which its users must be able to enter.
    for (path, mode) in
        [(writable.to_path_buf(), 0o700), (writable.join("upper"), 0o755), (writable.join("work"), 0o700)]
    {
        DirBuilder::new().mode(mode).create(&path).context("make folder", &path)?;
    }
    Ok(())
}

fn mount(layers: &[PathBuf], writable: &Path, target: &Path) -> Result<()> {
    let mut values: Vec<(&'static str, String)> =
        layers.iter().map(|layer| ("lowerdir+", layer.display().to_string())).collect();
    values.push(("upperdir", writable.join("upper").display().to_string()));
    values.push(("workdir", writable.join("work").display().to_string()));
    values.extend([("index", "off".to_owned()), ("metacopy", "off".to_owned()), ("redirect_dir", "off".to_owned())]);
    // Volatile: no waiting for the disk, since what is written never outlives the guest.
    let attributes = MountAttrFlags::empty();
    FileSystem { kind: "overlay", flags: &["volatile"], values: &values, attributes }.mount(target)
}
