//! Output of containers on the host: rotated files of JSON lines, bounded in all.
//!
//! `log/NUMBER.jsonl`, ten digits, counting up. The newest is written to; when it is full the next is begun and the oldest
//! goes. A reader that follows goes from one number to the next and says so where some are gone already.

mod read;
mod write;

pub use read::{Follow, LogReader};
pub(crate) use write::LogWriter;

use std::path::{Path, PathBuf};

use caveau_protocol::Stream;
use serde::{Deserialize, Serialize};

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// When the host had the whole line: nanoseconds since 1970.
    pub time_ns: u64,
    /// The container's name.
    pub container: String,
    /// Which stream.
    pub stream: Stream,
    /// The line with its end, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The line with its end as base64, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// What can be wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A line is not what was written.
    #[error("{path:?} is damaged: {line:?} is no entry")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line's beginning.
        line: String,
    },
    /// A file cannot be used.
    #[error("failed to {act} {path:?}")]
    File {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

impl LogEntry {
    /// The line's bytes as the container wrote them.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        use base64::{Engine, prelude::BASE64_STANDARD};
        match (&self.text, &self.base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(text)) => BASE64_STANDARD.decode(text).unwrap_or_default(),
            (None, None) => Vec::new(),
        }
    }

    fn new(time_ns: u64, container: &str, stream: Stream, line: Vec<u8>) -> Self {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let (text, base64) = match String::from_utf8(line) {
            Ok(text) => (Some(text), None),
            Err(other) => (None, Some(BASE64_STANDARD.encode(other.as_bytes()))),
        };
        Self { time_ns, container: container.to_owned(), stream, text, base64 }
    }
}

/// A log file's path.
fn file_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.jsonl"))
}

/// The numbers of the files that there are, rising.
fn numbers(folder: &Path) -> Result<Vec<u64>, LogError> {
    let failed = |cause| LogError::File { act: "read", path: folder.to_owned(), cause };
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(".jsonl")).and_then(|digits| digits.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}
