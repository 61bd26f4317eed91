//! Bounded copies of what a guest or QEMU says without end.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes of the newest output that are kept for error messages.
const KEPT: usize = 2048;

/// The newest output of a stream, for error messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    bytes: Arc<Mutex<Vec<u8>>>,
}

/// A file that holds the newest bytes of a stream: at most `limit`, at least half of that once there were as many.
#[derive(Debug)]
pub(crate) struct BoundedFile {
    file: File,
    length: u64,
    limit: u64,
}

impl Tail {
    /// Starts a thread that reads `stream` to its end, into `file` and into the tail that is returned.
    pub(crate) fn of(name: &str, stream: impl Read + Send + 'static, file: BoundedFile) -> io::Result<Self> {
        let tail = Self::default();
        let ours = tail.clone();
        let named = std::thread::Builder::new().name(name.to_owned());
        named.spawn(move || file.take_all(stream, |more| ours.push(more)))?;
        Ok(tail)
    }

    fn push(&self, more: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.extend_from_slice(more);
        let surplus = bytes.len().saturating_sub(KEPT);
        bytes.drain(..surplus);
    }

    /// The last `lines` lines as printable text; empty where nothing was said.
    pub(crate) fn last_lines(&self, lines: usize) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let text: String = String::from_utf8_lossy(&bytes)
            .chars()
            .filter(|character| *character == '\n' || !character.is_control())
            .collect();
        let all: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl BoundedFile {
    /// A new, empty file that only its owner can read.
    pub(crate) fn create(path: &Path, limit: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { file, length: 0, limit })
    }

    /// Takes what comes of `stream` until its end; `seen` hears of it, too.
    pub(crate) fn take_all(mut self, mut stream: impl Read, mut seen: impl FnMut(&[u8])) {
        let mut chunk = [0; 4096];
        loop {
            match stream.read(&mut chunk) {
                Ok(count @ 1..) => {
                    seen(&chunk[..count]);
                    // A full disk must not stop the reading: the writer would stall.
                    let _ = self.append(&chunk[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Adds bytes; where they do not fit, the older half goes.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.length + bytes.len() as u64 > self.limit {
            self.halve()?;
        }
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn halve(&mut self) -> io::Result<()> {
        let keep = (self.limit / 2).min(self.length);
        self.file.seek(SeekFrom::Start(self.length - keep))?;
        let mut kept = Vec::new();
        self.file.read_to_end(&mut kept)?;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(&kept)?;
        self.length = kept.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_bounded_and_ends_with_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let mut file = BoundedFile::create(&path, 1000).unwrap();
        for number in 0..500 {
            file.append(format!("line {number:04}\n").as_bytes()).unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() <= 1000);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("line 0498\nline 0499\n") && text.len() >= 500, "{text}");
    }

    #[test]
    fn the_tail_is_printable() {
        let tail = Tail::default();
        tail.push(b"one\n\x1b[2Jtwo\r\nthree\n");
        assert_eq!(tail.last_lines(2), "[2Jtwo\nthree");
        tail.push(&[b'x'; 5000]);
        assert_eq!(tail.last_lines(9).len(), KEPT);
        assert_eq!(Tail::default().last_lines(3), "");
    }
}
