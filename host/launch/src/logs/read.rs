//! Reading a log, and following it while it grows.

use std::{
    fs::File,
    io::{BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use super::{LogEntry, LogError, file_path, numbers};

/// Longest line that is read: an entry's greatest line, escaped byte by byte, and its frame.
const MAX_ENTRY: usize = 256 * 1024;

/// Reads a group's log from its oldest entry on.
#[derive(Debug)]
pub struct LogReader {
    folder: PathBuf,
    number: u64,
    file: Option<BufReader<File>>,
    partial: Vec<u8>,
}

/// What a look at the log brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Follow {
    /// The next entry.
    Entry(LogEntry),
    /// Files were removed before they were read: the reader was too slow, or came late.
    Gap {
        /// How many files.
        files: u64,
    },
    /// Nothing more for now.
    Quiet,
}

impl LogReader {
    /// A reader of the log in `folder`; a log that does not exist yet is empty.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), number: 0, file: None, partial: Vec::new() }
    }

    /// The next entry, if there is one.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn next_entry(&mut self) -> Result<Follow, LogError> {
        loop {
            if let Some(line) = self.line()? {
                return self.entry(&line).map(Follow::Entry);
            }
            // The current file has no more: it is finished only if there is a newer one, and it stays as it was since
            // the line before, as newer ones are begun after the last line of this.
            let next = match numbers(&self.folder) {
                Err(LogError::File { cause, .. }) if cause.kind() == ErrorKind::NotFound => return Ok(Follow::Quiet),
                found => found?.into_iter().find(|number| *number > self.number),
            };
            let Some(next) = next else { return Ok(Follow::Quiet) };
            if let Some(line) = self.line()? {
                return self.entry(&line).map(Follow::Entry);
            }
            // The first file that there ever was has number 1.
            let gap = next - self.number - 1;
            if !self.advance(next)? {
                continue;
            }
            if gap > 0 {
                return Ok(Follow::Gap { files: gap });
            }
        }
    }

    /// Goes to a newer file; `false` where it was removed in between.
    fn advance(&mut self, number: u64) -> Result<bool, LogError> {
        let path = file_path(&self.folder, number);
        match File::open(&path) {
            Ok(file) => {
                self.file = Some(BufReader::new(file));
                self.number = number;
                self.partial.clear();
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(LogError::File { act: "open", path, cause }),
        }
    }

    /// A whole line of the current file; the part of one that is being written is kept for the next call.
    fn line(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let path = || file_path(&self.folder, self.number);
        file.read_until(b'\n', &mut self.partial).map_err(|cause| LogError::File {
            act: "read",
            path: path(),
            cause,
        })?;
        if self.partial.len() > MAX_ENTRY {
            return Err(damaged(path(), &self.partial));
        }
        if !self.partial.ends_with(b"\n") {
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut self.partial)))
    }

    fn entry(&self, line: &[u8]) -> Result<LogEntry, LogError> {
        serde_json::from_slice(line).map_err(|_| damaged(file_path(&self.folder, self.number), line))
    }
}

fn damaged(path: PathBuf, line: &[u8]) -> LogError {
    LogError::Damaged { path, line: String::from_utf8_lossy(line).chars().take(80).collect() }
}

#[cfg(test)]
mod tests {
    use caveau_protocol::Stream;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        LogLimits,
        logs::write::{LogWriter, MAX_LINE},
    };

    fn all(reader: &mut LogReader) -> Vec<Follow> {
        let mut seen = Vec::new();
        loop {
            match reader.next_entry().unwrap() {
                Follow::Quiet => return seen,
                other => seen.push(other),
            }
        }
    }

    fn bytes(seen: &[Follow]) -> Vec<u8> {
        seen.iter().flat_map(|entry| if let Follow::Entry(entry) = entry { entry.bytes() } else { vec![] }).collect()
    }

    const LIMITS: LogLimits = LogLimits { file_bytes: 64 * 1024, files: 3 };

    #[test]
    fn lines_come_whole_and_binary_survives() {
        let folder = tempfile::tempdir().unwrap();
        let writer = LogWriter::create(folder.path(), LIMITS).unwrap();
        let mut reader = LogReader::open(folder.path());
        let mut out = writer.lines("web", Stream::Stdout);
        out.push(b"hel").unwrap();
        assert_eq!(all(&mut reader), []);
        out.push("lo w\u{f6}rld\n".as_bytes()).unwrap();
        out.push(b"\xff\xfe\nrest").unwrap();
        out.flush().unwrap();
        let seen = all(&mut reader);
        assert_eq!(bytes(&seen), b"hello w\xc3\xb6rld\n\xff\xfe\nrest");
        let texts: Vec<_> = seen
            .iter()
            .map(|entry| if let Follow::Entry(entry) = entry { entry.text.clone() } else { panic!("gap") })
            .collect();
        assert_eq!(texts, [Some("hello w\u{f6}rld\n".into()), None, Some("rest".into())]);
    }

    #[test]
    fn the_log_is_bounded_whatever_comes() {
        let folder = tempfile::tempdir().unwrap();
        let writer = LogWriter::create(folder.path(), LIMITS).unwrap();
        let mut out = writer.lines("web", Stream::Stdout);
        for _ in 0..100 {
            out.push(&[b'\x01'; MAX_LINE - 1]).unwrap();
        }
        let sizes: Vec<u64> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
        assert!(sizes.len() <= 3, "{sizes:?}");
        // Escaped, a control character takes six bytes: one entry may be longer than a file's limit, but no more than one.
        assert!(sizes.iter().all(|size| *size <= 6 * MAX_LINE as u64 + 200), "{sizes:?}");
        let mut late = LogReader::open(folder.path());
        let seen = all(&mut late);
        assert!(matches!(seen[..], [Follow::Gap { files: 1.. }, Follow::Entry(_), ..]), "whoever comes late is told");
    }

    #[test]
    fn a_follower_passes_from_file_to_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = LogReader::open(&folder.path().join("later"));
        assert_eq!(reader.next_entry().unwrap(), Follow::Quiet);
        let writer = LogWriter::create(&folder.path().join("later"), LIMITS).unwrap();
        let mut out = writer.lines("web", Stream::Stderr);
        let mut expected = Vec::new();
        let mut seen = Vec::new();
        for number in 0..2000 {
            let line = format!("line {number} {}\n", "x".repeat(100));
            out.push(line.as_bytes()).unwrap();
            expected.extend_from_slice(line.as_bytes());
            seen.extend(all(&mut reader));
        }
        assert!(!seen.iter().any(|entry| matches!(entry, Follow::Gap { .. })));
        assert_eq!(bytes(&seen), expected);
    }

    #[test]
    fn a_slow_follower_hears_of_the_gap() {
        let folder = tempfile::tempdir().unwrap();
        let writer = LogWriter::create(folder.path(), LIMITS).unwrap();
        let mut out = writer.lines("web", Stream::Stdout);
        out.push(b"first\n").unwrap();
        let mut reader = LogReader::open(folder.path());
        assert!(matches!(reader.next_entry().unwrap(), Follow::Entry(_)));
        for number in 0..5000 {
            out.push(format!("line {number} {}\n", "x".repeat(100)).as_bytes()).unwrap();
        }
        let seen = all(&mut reader);
        assert!(seen.iter().any(|entry| matches!(entry, Follow::Gap { files: 1.. })));
        assert!(bytes(&seen).ends_with(format!("line 4999 {}\n", "x".repeat(100)).as_bytes()));
    }

    #[test]
    fn a_damaged_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("0000000001.jsonl"), "nonsense\n").unwrap();
        let error = LogReader::open(folder.path()).next_entry().unwrap_err().to_string();
        assert!(error.contains("nonsense"), "{error}");
    }

    proptest! {
        #[test]
        fn every_byte_survives(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..12)) {
            let folder = tempfile::tempdir().unwrap();
            let writer = LogWriter::create(folder.path(), LogLimits { file_bytes: 1 << 30, files: 2 }).unwrap();
            let mut out = writer.lines("web", Stream::Stdout);
            for chunk in &chunks {
                out.push(chunk).unwrap();
            }
            out.flush().unwrap();
            prop_assert_eq!(bytes(&all(&mut LogReader::open(folder.path()))), chunks.concat());
        }
    }
}
