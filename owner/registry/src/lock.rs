//! Locks between processes: `flock` on files, which the kernel releases when their holder ends, however it ends.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::RegistryError;
use crate::error::At;

/// An exclusive lock on one entry of the store, held until dropped.
pub(crate) struct EntryLock {
    file: File,
    path: PathBuf,
}

impl EntryLock {
    /// Takes the lock at `path`, calling `waiting` once if another holder must be waited for.
    pub(crate) fn take(path: &Path, waiting: impl FnOnce()) -> Result<Self, RegistryError> {
        if let Some(lock) = Self::attempt(path)? {
            return Ok(lock);
        }
        waiting();
        loop {
            let file = open(path)?;
            flock(&file, FlockOperation::LockExclusive).at("lock", path)?;
            if is_current(&file, path)? {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }

    /// Takes the lock at `path` unless somebody holds it.
    pub(crate) fn attempt(path: &Path) -> Result<Option<Self>, RegistryError> {
        loop {
            let file = open(path)?;
            if !flock_now(&file, FlockOperation::NonBlockingLockExclusive).at("lock", path)? {
                return Ok(None);
            }
            if is_current(&file, path)? {
                return Ok(Some(Self { file, path: path.to_owned() }));
            }
        }
    }

    /// The lock's file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Removes the lock's file, for an entry that is gone. Whoever waits for it notices and makes a new one.
    pub(crate) fn remove(self) -> Result<(), RegistryError> {
        std::fs::remove_file(&self.path).at("remove", &self.path)
    }
}

fn open(path: &Path) -> Result<File, RegistryError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).at("open", path)
}

/// Whether `file` is still what `path` names: its holder may have removed it while we waited.
fn is_current(file: &File, path: &Path) -> Result<bool, RegistryError> {
    let ours = file.metadata().at("read", path)?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok(there.ino() == ours.ino() && there.dev() == ours.dev()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at("read", path),
    }
}

/// Applies a lock, going on when a signal interrupts the wait.
pub(crate) fn flock(file: &File, operation: FlockOperation) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(file, operation))
}

/// Applies a non-blocking lock; false if somebody else's is in the way.
pub(crate) fn flock_now(file: &File, operation: FlockOperation) -> Result<bool, Errno> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = EntryLock::take(&path, || panic!("nobody holds it")).unwrap();
        assert!(EntryLock::attempt(&path).unwrap().is_none());
        drop(held);
        let again = EntryLock::attempt(&path).unwrap().unwrap();
        again.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_removed_lock_is_not_mistaken_for_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = EntryLock::take(&path, || ()).unwrap();
        let waiter = {
            let path = path.clone();
            std::thread::spawn(move || {
                let lock = EntryLock::take(&path, || ()).unwrap();
                assert!(path.exists(), "the lock that was taken is the one that others see");
                drop(lock);
            })
        };
        std::thread::sleep(std::time::Duration::from_millis(20));
        first.remove().unwrap();
        waiter.join().unwrap();
    }
}
