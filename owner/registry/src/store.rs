//! The store's folder: names, permissions, temporary files.
//!
//! ```text
//! <root>/layers/<diff id>.img    ext4 image, verity superblock, hash tree (read-only file)
//!               <diff id>.json   what was made and checked (see `layers`)
//!               <diff id>.lock   held while the entry is made or removed
//!       /blobs/<digest>          manifests and configurations, checked against their name when read
//!       /images/<key>.json       what a name means (see `images`)
//!       /partial/<digest>        what has come of a blob whose fetching broke off (see `kept`)
//!       /tmp/                    files that are being written
//! ```
//!
//! A file gets its final name only when it is complete and on disk. What a killed process leaves in `tmp` is removed by
//! the next one that opens the store: a file there without a living owner's lock is nobody's.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use caveau_oci::Digest;
use rustix::fs::FlockOperation;
use tempfile::NamedTempFile;

use crate::error::At;
use crate::lock::{flock, flock_now};
use crate::{RegistryError, kept};

/// A folder with converted layers and the documents of images, shared by all processes of a user.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store in `root`, creating it if need be.
    ///
    /// # Errors
    /// [`RegistryError::File`] if the folder cannot be made or written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, RegistryError> {
        let store = Self { root: root.into() };
        for part in ["layers", "blobs", "images", "partial", "tmp"] {
            let path = store.root.join(part);
            DirBuilder::new().recursive(true).mode(0o700).create(&path).at("create", &path)?;
        }
        store.mark_as_cache()?;
        store.sweep()?;
        kept::sweep(&store, kept::LONGEST)?;
        Ok(store)
    }

    /// Opens the user's store: `$XDG_CACHE_HOME/caveau`, or `~/.cache/caveau` where that variable is not set to an
    /// absolute path (XDG base directory specification).
    ///
    /// # Errors
    /// As [`Store::open`]; also if neither variable says where.
    pub fn open_default() -> Result<Self, RegistryError> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        let Some(cache) = cache else {
            let reason = "neither XDG_CACHE_HOME nor HOME is set to an absolute path; set one of them";
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, reason);
            return Err(source).at("find the store in", Path::new("caveau"));
        };
        Self::open(cache.join("caveau"))
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a file that belongs to the layer `diff_id`.
    pub(crate) fn layer_path(&self, diff_id: Digest, extension: &str) -> PathBuf {
        self.layers_dir().join(format!("{}.{extension}", diff_id.hex()))
    }

    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn blobs_dir(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn images_dir(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn partial_dir(&self) -> PathBuf {
        self.root.join("partial")
    }

    fn tmp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// A new file without a final name. It vanishes when dropped, or is swept when its owner dies.
    pub(crate) fn temporary(&self) -> Result<NamedTempFile, RegistryError> {
        let dir = self.tmp_dir();
        // Shared, so that no sweep sees the file before it is locked.
        let guard = self.tmp_guard()?;
        flock(&guard, FlockOperation::LockShared).at("lock", &dir)?;
        let file = NamedTempFile::new_in(&dir).at("create a file in", &dir)?;
        flock(file.as_file(), FlockOperation::LockExclusive).at("lock", file.path())?;
        Ok(file)
    }

    /// A new file that never has a name, for what is needed only as long as it is open.
    pub(crate) fn nameless(&self) -> Result<File, RegistryError> {
        let dir = self.tmp_dir();
        tempfile::tempfile_in(&dir).at("create a file in", &dir)
    }

    /// Holds off who removes documents that no image has, while documents and the record that names them are written; or,
    /// `alone`, everybody else.
    pub(crate) fn documents_guard(&self, alone: bool) -> Result<File, RegistryError> {
        let path = self.root.join("blobs.lock");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).at("open", &path)?;
        let operation = if alone { FlockOperation::LockExclusive } else { FlockOperation::LockShared };
        flock(&file, operation).at("lock", &path)?;
        Ok(file)
    }

    /// Writes `content` to `path` so that there is either all of it or what was there before.
    pub(crate) fn write(&self, path: &Path, content: &[u8]) -> Result<(), RegistryError> {
        let mut file = self.temporary()?;
        file.write_all(content).at("write", file.path())?;
        persist(file, path).map(drop)
    }

    /// Removes files that processes left behind which are no more.
    fn sweep(&self) -> Result<(), RegistryError> {
        let dir = self.tmp_dir();
        let guard = self.tmp_guard()?;
        if !flock_now(&guard, FlockOperation::NonBlockingLockExclusive).at("lock", &dir)? {
            return Ok(());
        }
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let path = entry.at("list", &dir)?.path();
            let Ok(file) = File::open(&path) else { continue };
            if flock_now(&file, FlockOperation::NonBlockingLockExclusive).at("lock", &path)? {
                // Somebody else's sweep may have been faster; gone is gone.
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    /// The file by which temporary files are created and swept in turn.
    fn tmp_guard(&self) -> Result<File, RegistryError> {
        let path = self.root.join("tmp.lock");
        File::options().read(true).write(true).create(true).truncate(false).open(&path).at("open", &path)
    }

    /// Tells backup programs to pass over the store (cache directory tagging specification).
    fn mark_as_cache(&self) -> Result<(), RegistryError> {
        let path = self.root.join("CACHEDIR.TAG");
        if path.exists() {
            return Ok(());
        }
        self.write(&path, b"Signature: 8a477f597d28d172789f06886806bc55\n# Caveau's converted image layers.\n")
    }
}

/// Gives a complete file its final name: contents to disk, rename, folder to disk.
pub(crate) fn persist(file: NamedTempFile, path: &Path) -> Result<File, RegistryError> {
    file.as_file().sync_all().at("write", file.path())?;
    let kept = file.persist(path).map_err(|error| error.error).at("rename a finished file to", path)?;
    // The lock told sweeps that the file had an owner. Its final name must not look taken.
    flock(&kept, FlockOperation::Unlock).at("unlock", path)?;
    if let Some(dir) = path.parent() {
        File::open(dir).and_then(|dir| dir.sync_all()).at("write", dir)?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_what_nobody_owns_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let alive = store.temporary().unwrap();
        let orphan = store.tmp_dir().join("orphan");
        fs::write(&orphan, "x").unwrap();
        Store::open(dir.path()).unwrap();
        assert!(alive.path().exists() && !orphan.exists());
    }

    #[test]
    fn documents_stay_while_the_record_that_names_them_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let document = store.blobs_dir().join("document");
        fs::write(&document, "x").unwrap();
        let guard = store.documents_guard(false).unwrap();
        std::thread::scope(|scope| {
            let pruning = scope.spawn(|| store.prune(false).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(document.exists());
            drop(guard);
            pruning.join().unwrap();
        });
        assert!(!document.exists());
    }

    #[test]
    fn a_write_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let path = store.blobs_dir().join("missing-folder/file");
        assert!(store.write(&path, b"x").is_err());
        assert_eq!(fs::read_dir(store.tmp_dir()).unwrap().count(), 0);
        let path = store.blobs_dir().join("file");
        store.write(&path, b"one").unwrap();
        store.write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }
}
