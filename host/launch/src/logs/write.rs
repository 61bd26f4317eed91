//! Writing a log: chunks in, lines out, never more than the limits allow.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use caveau_protocol::Stream;

use super::{LogEntry, LogError, file_path, numbers};
use crate::{LogLimits, state::now_ns};

/// Longest line; a longer one is cut into several entries, so that a container without line ends is bounded too.
pub(crate) const MAX_LINE: usize = 16 * 1024;

/// The one writer of a group's log, shared by all streams of all containers.
#[derive(Debug)]
pub(crate) struct LogWriter {
    folder: PathBuf,
    limits: LogLimits,
    open: Mutex<Open>,
}

/// The file that is written to.
#[derive(Debug)]
struct Open {
    file: File,
    number: u64,
    length: u64,
}

/// One stream's way into the log: holds back an unfinished line.
#[derive(Debug)]
pub(crate) struct LineBuffer<'a> {
    writer: &'a LogWriter,
    container: &'a str,
    stream: Stream,
    rest: Vec<u8>,
}

impl LogWriter {
    /// Opens the log, beginning a new file.
    pub(crate) fn create(folder: &Path, limits: LogLimits) -> Result<Self, LogError> {
        let failed = |cause| LogError::File { act: "make", path: folder.to_owned(), cause };
        fs::DirBuilder::new().mode(0o700).recursive(true).create(folder).map_err(failed)?;
        let number = numbers(folder)?.last().map_or(1, |last| last + 1);
        let open = Mutex::new(begin(folder, number)?);
        Ok(Self { folder: folder.to_owned(), limits, open })
    }

    /// A buffer for one stream of one container.
    pub(crate) fn lines<'a>(&'a self, container: &'a str, stream: Stream) -> LineBuffer<'a> {
        LineBuffer { writer: self, container, stream, rest: Vec::new() }
    }

    fn append(&self, entry: &LogEntry) -> Result<(), LogError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |act, number, cause| LogError::File { act, path: file_path(&self.folder, number), cause };
        let mut line = serde_json::to_vec(entry).map_err(|error| failed("encode for", open.number, error.into()))?;
        line.push(b'\n');
        if open.length > 0 && open.length + line.len() as u64 > self.limits.file_bytes {
            *open = begin(&self.folder, open.number + 1)?;
            self.forget_old()?;
        }
        open.file.write_all(&line).map_err(|cause| failed("write", open.number, cause))?;
        open.length += line.len() as u64;
        Ok(())
    }

    /// Removes the oldest files beyond those that are kept.
    fn forget_old(&self) -> Result<(), LogError> {
        let numbers = numbers(&self.folder)?;
        let surplus = numbers.len().saturating_sub(self.limits.files as usize);
        numbers.iter().take(surplus).try_for_each(|number| {
            let path = file_path(&self.folder, *number);
            fs::remove_file(&path).map_err(|cause| LogError::File { act: "remove", path, cause })
        })
    }
}

/// Makes a new file of a log.
fn begin(folder: &Path, number: u64) -> Result<Open, LogError> {
    let path = file_path(folder, number);
    let made: io::Result<File> = File::options().append(true).create_new(true).mode(0o600).open(&path);
    let file = made.map_err(|cause| LogError::File { act: "make", path, cause })?;
    Ok(Open { file, number, length: 0 })
}

impl LineBuffer<'_> {
    /// Takes a chunk; whole lines go into the log at once.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), LogError> {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            while self.rest.len() > MAX_LINE {
                let tail = self.rest.split_off(MAX_LINE);
                self.flush()?;
                self.rest = tail;
            }
            if self.rest.ends_with(b"\n") {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Puts an unfinished line into the log, at the stream's end.
    pub(crate) fn flush(&mut self) -> Result<(), LogError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let line = std::mem::take(&mut self.rest);
        self.writer.append(&LogEntry::new(now_ns(), self.container, self.stream, line))
    }
}
