//! Bytes from one thread to another, in chunks whose buffers go round.
//!
//! The reader sees the end of the stream only if the writer said that it was good ([`PipeWriter::finish`]). A writer
//! that fails ([`PipeWriter::fail`]), or goes away without a word, makes an error, so nothing that was cut off passes for
//! complete.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Bytes of a chunk: large enough that handing it over costs nothing beside its content.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// Chunks under way between two threads.
const DEPTH: usize = 4;

enum Message {
    Chunk(Vec<u8>),
    End,
    Failed(io::Error),
}

/// Takes chunks.
pub(crate) struct PipeWriter {
    full: SyncSender<Message>,
    empty: Receiver<Vec<u8>>,
}

/// Gives the chunks' bytes.
pub(crate) struct PipeReader {
    full: Receiver<Message>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

/// The reader has gone away: nothing more is wanted.
#[derive(Debug)]
pub(crate) struct ReaderGone;

/// Makes the two ends.
pub(crate) fn pipe() -> (PipeWriter, PipeReader) {
    let (full_in, full_out) = sync_channel(DEPTH);
    let (empty_in, empty_out) = channel();
    let writer = PipeWriter { full: full_in, empty: empty_out };
    (writer, PipeReader { full: full_out, empty: empty_in, chunk: Vec::new(), at: 0, ended: false })
}

impl PipeWriter {
    /// A buffer of [`CHUNK_BYTES`] bytes to fill, used before or new.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.empty.try_recv().unwrap_or_default();
        buffer.resize(CHUNK_BYTES, 0);
        buffer
    }

    /// Hands over the next bytes, waiting while the reader is far behind.
    pub(crate) fn send(&self, chunk: Vec<u8>) -> Result<(), ReaderGone> {
        self.full.send(Message::Chunk(chunk)).map_err(|_| ReaderGone)
    }

    /// Says that all that was sent is complete and good.
    pub(crate) fn finish(self) {
        // A reader that has gone away does not need to know.
        let _ = self.full.send(Message::End);
    }

    /// Says that there is no more for this reason, which the reader gets as its error.
    pub(crate) fn fail(self, error: io::Error) {
        // As above.
        let _ = self.full.send(Message::Failed(error));
    }
}

/// Fills `buffer` from `source` as far as there is something; fewer bytes mean the end.
pub(crate) fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.chunk.len() && !self.ended {
            match self.full.recv() {
                Ok(Message::Chunk(chunk)) => {
                    let used = std::mem::replace(&mut self.chunk, chunk);
                    self.at = 0;
                    if used.capacity() > 0 {
                        // A writer that has gone away needs no buffers.
                        let _ = self.empty.send(used);
                    }
                }
                Ok(Message::End) => self.ended = true,
                Ok(Message::Failed(error)) => return Err(error),
                Err(_) => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the stream broke off")),
            }
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_through_in_order() {
        let (writer, mut reader) = pipe();
        let sender = std::thread::spawn(move || {
            for number in 0..50_u8 {
                let mut buffer = writer.buffer();
                buffer.truncate(1000);
                buffer.fill(number);
                writer.send(buffer).unwrap();
            }
            writer.finish();
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, (0..50_u8).flat_map(|number| [number; 1000]).collect::<Vec<_>>());
        sender.join().unwrap();
    }

    #[test]
    fn a_writer_that_breaks_off_is_no_end() {
        let (writer, mut reader) = pipe();
        writer.send(vec![1, 2, 3]).unwrap();
        drop(writer);
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_writer_that_fails_says_why_and_there_is_no_end_after_it() {
        let (writer, mut reader) = pipe();
        writer.send(vec![1, 2, 3]).unwrap();
        writer.fail(io::Error::other("disk on fire"));
        let mut read = Vec::new();
        assert_eq!(reader.read_to_end(&mut read).unwrap_err().to_string(), "disk on fire");
        assert_eq!(read, [1, 2, 3]);
        assert_eq!(reader.read_to_end(&mut read).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_writer_learns_that_nobody_reads() {
        let (writer, reader) = pipe();
        drop(reader);
        assert!(writer.send(vec![1]).is_err());
    }
}
