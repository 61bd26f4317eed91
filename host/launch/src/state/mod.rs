//! The groups' state on disk, true whatever is killed: who runs is told by a lock, how it ended by a record.
//!
//! ```text
//! $XDG_RUNTIME_DIR/caveau/        0700, the user's own (else /tmp/caveau-UID)
//!   NAME/
//!     lock            flock(2) held by the supervisor for all its life; the kernel drops it with the process
//!     plan.json       what was asked for
//!     record.json     what happened so far; replaced as a whole
//!     control.sock    the supervisor's socket, 0600
//!     log/            output of the containers
//!     console.log     the guest's serial console, bounded
//!     qemu.log        QEMU's messages, bounded
//!     supervisor.log  the supervisor's own messages and the secure processor's, bounded
//! ```

mod group_folder;
mod record;
mod root;

pub use group_folder::{GroupFolder, GroupLock};
pub use record::{Accelerator, Cause, ContainerRecord, Phase, Record, Stage, Status};
pub(crate) use record::{Recorder, derive, now_ns};
pub use root::StateRoot;

use std::{io, path::PathBuf};

use crate::GroupName;

/// What can be wrong with the state on disk.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder for all groups is not safe to use.
    #[error("state folder {path:?} is not safe: {fault}; remove it or set XDG_RUNTIME_DIR to a folder of your own")]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A file or folder cannot be used.
    #[error("failed to {act} {path:?}")]
    File {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path:?} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
    /// There is a group of that name.
    #[error("there is a group called {0} already: remove it with `caveau rm {0}`, or choose another name")]
    Exists(GroupName),
    /// There is no group of that name.
    #[error("there is no group called {0}; `caveau ps -a` lists those that there are")]
    Unknown(GroupName),
    /// The group still runs.
    #[error("group {0} still runs: stop it first")]
    Running(GroupName),
}

/// Turns an I/O error into one that names the file.
pub(crate) fn file_error(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StateError {
    let path = path.into();
    move |cause| StateError::File { act, path, cause }
}
