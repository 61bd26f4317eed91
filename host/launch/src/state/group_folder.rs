//! One group's folder: its lock, its plan, its record, its paths.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;
use serde::{Serialize, de::DeserializeOwned};

use super::{Record, StateError, file_error};
use crate::{GroupName, LaunchPlan};

/// One group's folder.
#[derive(Clone, Debug)]
pub struct GroupFolder {
    path: PathBuf,
    name: GroupName,
}

/// The lock of one group, held as long as this or an inherited copy of its descriptor is open.
#[derive(Debug)]
pub struct GroupLock {
    file: OwnedFd,
}

impl GroupLock {
    /// Takes over a lock that the parent process handed down.
    pub(crate) fn inherited(file: OwnedFd) -> Self {
        Self { file }
    }
}

impl AsFd for GroupLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl GroupFolder {
    pub(crate) fn at(path: &Path, name: &GroupName) -> Self {
        Self { path: path.to_owned(), name: name.clone() }
    }

    /// The group's name.
    #[must_use]
    pub fn name(&self) -> &GroupName {
        &self.name
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The supervisor's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Folder of the containers' output.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The guest's serial console: its last part.
    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        self.path.join("console.log")
    }

    /// QEMU's messages.
    #[must_use]
    pub fn qemu_log(&self) -> PathBuf {
        self.path.join("qemu.log")
    }

    /// The supervisor's own messages.
    #[must_use]
    pub fn supervisor_log(&self) -> PathBuf {
        self.path.join("supervisor.log")
    }

    /// What was asked of the policy and what it said, where the group was started with `--record`; for
    /// `caveau policy replay`.
    #[must_use]
    pub fn requests(&self) -> PathBuf {
        self.path.join("requests.jsonl")
    }

    /// The plan.
    ///
    /// # Errors
    /// Where it cannot be read or is damaged.
    pub fn plan(&self) -> Result<LaunchPlan, StateError> {
        self.read("plan.json")
    }

    pub(crate) fn write_plan(&self, plan: &LaunchPlan) -> Result<(), StateError> {
        self.write("plan.json", plan)
    }

    /// What happened so far.
    ///
    /// # Errors
    /// Where it cannot be read or is damaged.
    pub fn record(&self) -> Result<Record, StateError> {
        self.read("record.json")
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<(), StateError> {
        self.write("record.json", record)
    }

    /// Makes the lock file and takes it.
    pub(super) fn make_lock(&self) -> Result<GroupLock, StateError> {
        let path = self.lock_path();
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let file = OwnedFd::from(file.map_err(file_error("make", &path))?);
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| file_error("lock", &path)(error.into()))?;
        Ok(GroupLock { file })
    }

    /// Takes the lock, or `None` where a supervisor holds it. A listing that looks at the lock at this very moment
    /// does not count as one: it is waited out.
    ///
    /// # Errors
    /// Where the lock file cannot be used.
    pub fn try_lock(&self) -> Result<Option<GroupLock>, StateError> {
        let file = self.open_lock()?;
        for _ in 0..20 {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(GroupLock { file })),
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(file_error("lock", self.lock_path())(error.into())),
            }
        }
        Ok(None)
    }

    /// Whether a supervisor lives.
    ///
    /// # Errors
    /// Where the lock file cannot be used.
    pub fn is_held(&self) -> Result<bool, StateError> {
        let file = self.open_lock()?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(file_error("lock", self.lock_path())(error.into())),
        }
    }

    /// Waits until no supervisor lives; `false` where that takes longer than `limit`.
    ///
    /// # Errors
    /// Where the lock file cannot be used.
    pub fn wait_until_free(&self, limit: Duration) -> Result<bool, StateError> {
        let start = Instant::now();
        while self.is_held()? {
            if start.elapsed() > limit {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(true)
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    fn open_lock(&self) -> Result<OwnedFd, StateError> {
        let path = self.lock_path();
        match File::options().read(true).open(&path) {
            Ok(file) => Ok(file.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.path.exists() => {
                Err(StateError::Unknown(self.name.clone()))
            }
            Err(error) => Err(file_error("open", path)(error)),
        }
    }

    fn read<T: DeserializeOwned>(&self, file: &str) -> Result<T, StateError> {
        let path = self.path.join(file);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.path.exists() => {
                return Err(StateError::Unknown(self.name.clone()));
            }
            result => result.map_err(file_error("read", &path))?,
        };
        serde_json::from_slice(&bytes).map_err(|cause| StateError::Damaged { path, cause })
    }

    /// Replaces a file as a whole: a reader sees the old or the new one. It is not forced to disk: after the host's next
    /// boot no group runs, and nothing here means anything.
    fn write(&self, file: &str, value: &impl Serialize) -> Result<(), StateError> {
        let path = self.path.join(file);
        let fresh = self.path.join(format!("{file}.new"));
        let bytes =
            serde_json::to_vec_pretty(value).map_err(|cause| StateError::Damaged { path: path.clone(), cause })?;
        let write = || -> io::Result<()> {
            let mut out = File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            out.write_all(&bytes)?;
            fs::rename(&fresh, &path)
        };
        write().map_err(file_error("write", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StateRoot, plan::tests::sample};

    #[test]
    fn the_lock_tells_who_lives() {
        let keep = tempfile::tempdir().unwrap();
        let root = StateRoot::at(&keep.path().join("caveau")).unwrap();
        let name: GroupName = "web".parse().unwrap();
        let (folder, lock) = root.create(&name, |folder| folder.write_plan(&sample())).unwrap();
        assert!(folder.is_held().unwrap());
        assert!(folder.try_lock().unwrap().is_none());
        assert!(!folder.wait_until_free(Duration::from_millis(1)).unwrap());
        // A copy of the descriptor, as a child process inherits it, keeps the lock.
        let copy = lock.as_fd().try_clone_to_owned().unwrap();
        drop(lock);
        assert!(folder.is_held().unwrap());
        drop(copy);
        assert!(!folder.is_held().unwrap());
        assert!(folder.try_lock().unwrap().is_some());
        assert_eq!(folder.plan().unwrap(), sample());
    }

    #[test]
    fn damage_and_absence_are_told_apart() {
        let keep = tempfile::tempdir().unwrap();
        let root = StateRoot::at(&keep.path().join("caveau")).unwrap();
        let name: GroupName = "web".parse().unwrap();
        let (folder, lock) = root.create(&name, |_| Ok(())).unwrap();
        fs::write(folder.path().join("plan.json"), "{").unwrap();
        assert!(matches!(folder.plan(), Err(StateError::Damaged { .. })));
        assert!(matches!(folder.record(), Err(StateError::File { act: "read", .. })));
        drop(lock);
        root.remove(&folder).unwrap();
        assert!(matches!(folder.plan(), Err(StateError::Unknown(_))));
        assert!(matches!(folder.is_held(), Err(StateError::Unknown(_))));
    }
}
