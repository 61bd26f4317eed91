//! What a supervisor tells the process that started it, over an inherited pipe: one JSON line each.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use caveau_protocol::ErrorKind;
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "announce", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Announcement {
    /// A step of the start is done.
    Step {
        /// Which.
        name: String,
    },
    /// The containers run. The last line.
    Started,
    /// They do not. The last line.
    Failed(Failure),
}

/// Why a group could not be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// For a person.
    pub reason: String,
    /// Whose fault the guest says it is, where the guest refused.
    pub kind: Option<ErrorKind>,
    /// The policy's denial, where there is one.
    pub denial: Option<serde_json::Value>,
    /// For how many seconds the guest stays, so that its owners can ask it why; `None` where it has ended.
    pub kept_s: Option<u64>,
}

/// The pipe's writing end. Once the last line is said, whoever started the supervisor may go.
#[derive(Debug)]
pub(super) struct Announcer {
    pipe: Mutex<Option<File>>,
    done: Arc<AtomicBool>,
}

impl Announcer {
    pub(super) fn new(pipe: File) -> Self {
        Self { pipe: Mutex::new(Some(pipe)), done: Arc::default() }
    }

    /// Another handle to the pipe, to see whether anybody listens, and whether the last line has been said.
    pub(super) fn watched(&self) -> io::Result<(OwnedFd, Arc<AtomicBool>)> {
        let pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = pipe.as_ref().ok_or(io::ErrorKind::BrokenPipe)?.try_clone()?;
        Ok((copy.into(), Arc::clone(&self.done)))
    }

    /// Sends one line. After the last one, or when nobody listens any more, the pipe is closed.
    pub(super) fn say(&self, announcement: &Announcement) {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(announcement, Announcement::Step { .. }) {
            self.done.store(true, Ordering::SeqCst);
        }
        let heard = pipe.as_mut().is_some_and(|pipe| write_line(pipe, announcement).is_ok());
        if !heard || !matches!(announcement, Announcement::Step { .. }) {
            *pipe = None;
        }
    }
}

fn write_line(pipe: &mut File, announcement: &Announcement) -> io::Result<()> {
    let mut line = serde_json::to_vec(announcement)?;
    line.push(b'\n');
    pipe.write_all(&line)
}
