//! Mounting by file descriptors: options are separate strings, so that nothing in a path can become an option.

use std::path::{Component, Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::error::IoContext as _;
use crate::{Result, StorageError};

/// Everything that this crate mounts is below this folder.
const ROOT: &str = "/run/caveau";

/// A file system to be mounted.
pub(crate) struct FileSystem<'a> {
    /// Its type.
    pub(crate) kind: &'static str,
    /// Options without a value.
    pub(crate) flags: &'a [&'static str],
    /// Options with one.
    pub(crate) values: &'a [(&'static str, String)],
    /// Attributes beside `nodev`, which every mount has.
    pub(crate) attributes: MountAttrFlags,
}

impl FileSystem<'_> {
    /// Mounts it on `target`, which is made where it is missing.
    pub(crate) fn mount(&self, target: &Path) -> Result<()> {
        std::fs::create_dir_all(target).context("make folder", target)?;
        self.attach(target).context("mount on", target)
    }

    fn attach(&self, target: &Path) -> rustix::io::Result<()> {
        let context = fsopen(self.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for flag in self.flags {
            fsconfig_set_flag(&context, *flag)?;
        }
        for (key, value) in self.values {
            fsconfig_set_string(&context, *key, value.as_str())?;
        }
        fsconfig_create(&context)?;
        let attributes = self.attributes | MountAttrFlags::MOUNT_ATTR_NODEV;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }
}

/// Unmounts what is on `target` and removes the empty folder. What is not mounted any more is as well.
pub(crate) fn detach(target: &Path) -> Result<()> {
    match unmount(target, UnmountFlags::NOFOLLOW) {
        // A first try can have come this far.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(error) => return Err(error).context("unmount", target),
    }
    // What is mounted there next brings its own folder; one that cannot be removed does no harm.
    let _ = std::fs::remove_dir(target);
    Ok(())
}

/// A permit's target as a path, if it is a plain one below [`ROOT`].
///
/// The policy decides about targets too; this keeps a mistake there from reaching the rest of the guest.
pub(crate) fn checked_target(target: &str) -> Result<PathBuf> {
    let path = PathBuf::from(target);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    // Rebuilding it finds what `components` passes over: doubled and closing slashes, and `.`.
    let same = path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
    let below = path.strip_prefix(ROOT).is_ok_and(|rest| rest.components().count() >= 2);
    if plain && same && below { Ok(path) } else { Err(StorageError::Target(path)) }
}

/// That a permit and a thing have the same target.
pub(crate) fn same_target(permitted: &str, found: &Path) -> Result<()> {
    if Path::new(permitted) == found {
        return Ok(());
    }
    Err(StorageError::OtherTarget { permitted: PathBuf::from(permitted), found: found.to_path_buf() })
}

#[cfg(test)]
mod tests {
    use caveau_policy::Platform;

    use super::*;

    #[test]
    fn the_guests_own_targets_pass() {
        for target in [Platform::layer_target(3), Platform::scratch_target(0), Platform::overlay_target("web")] {
            assert_eq!(checked_target(&target).unwrap(), Path::new(&target));
        }
    }

    #[test]
    fn others_do_not() {
        let bad = [
            "",
            "/",
            "/etc/x/y",
            "run/caveau/layers/1",
            "/run/caveau",
            "/run/caveau/layers",
            "/run/caveau/layers/../../x",
            "/run/caveau/layers//1",
            "/run/caveau/layers/1/",
            "/run/caveau/./layers/1",
            "/run/caveaux/layers/1",
        ];
        for target in bad {
            assert!(matches!(checked_target(target), Err(StorageError::Target(_))), "{target:?}");
        }
    }
}
