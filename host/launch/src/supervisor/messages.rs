//! The supervisor's own messages, and those of the secure processor that it starts: bounded as QEMU's are.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    thread::{self, JoinHandle},
};

use crate::machine::{BoundedFile, LOG_BYTES};

/// Standard error of this process and of the children that inherit it, led into a bounded file until this is dropped.
pub(super) struct Messages {
    /// Standard error as it was.
    before: OwnedFd,
    copier: Option<JoinHandle<()>>,
}

impl Messages {
    /// Begins the file at `path` anew.
    pub(super) fn bound(path: &Path) -> io::Result<Self> {
        let before = io::stderr().as_fd().try_clone_to_owned()?;
        let file = BoundedFile::create(path, LOG_BYTES)?;
        let (reader, writer) = io::pipe()?;
        let copier = thread::Builder::new().name("supervisor-log".into());
        let copier = copier.spawn(move || file.take_all(reader, |_| ()))?;
        rustix::stdio::dup2_stderr(&writer)?;
        Ok(Self { before, copier: Some(copier) })
    }
}

impl Drop for Messages {
    /// Waits for the last words to be in the file. The children that could say more have ended by now.
    fn drop(&mut self) {
        if rustix::stdio::dup2_stderr(&self.before).is_ok()
            && let Some(copier) = self.copier.take()
        {
            // It does not panic, and if it did, there would be nobody left to hear of it.
            let _ = copier.join();
        }
    }
}
