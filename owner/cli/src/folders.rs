//! Where things are kept (XDG Base Directory Specification 0.8).

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::args::GuestFolder;

/// Folder of data that is kept: the guest, the emulated processor's root.
///
/// # Errors
/// Where neither `XDG_DATA_HOME` nor `HOME` is set.
pub(crate) fn data() -> Result<PathBuf> {
    base("XDG_DATA_HOME", ".local/share")
}

/// Folder of data that can be made again: images and layers.
///
/// # Errors
/// Where neither `XDG_CACHE_HOME` nor `HOME` is set.
pub(crate) fn cache() -> Result<PathBuf> {
    base("XDG_CACHE_HOME", ".cache")
}

impl GuestFolder {
    /// The folder that was asked for, or the usual one; absolute, since the group's supervisor works in another folder.
    ///
    /// # Errors
    /// As [`data`], and where there is no working folder.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        match &self.guest {
            Some(path) => std::path::absolute(path).with_context(|| format!("--guest {}", path.display())),
            None => Ok(data()?.join("guest")),
        }
    }
}

/// `caveau` below the folder that a variable names, or below `HOME` by default; relative values are ignored, as the
/// specification asks.
fn base(variable: &str, below_home: &str) -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)));
    Ok(folder.with_context(|| format!("neither {variable} nor HOME is set to an absolute path"))?.join("caveau"))
}

/// Folder on whose file system the groups' scratch disks live; their files have no names.
///
/// # Errors
/// As [`cache`], or where it cannot be made.
pub(crate) fn scratch() -> Result<PathBuf> {
    let folder = cache()?.join("scratch");
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    Ok(folder)
}
