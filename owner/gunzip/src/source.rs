//! The packed stream, cut into chunks that overlap.

use std::io::{self, Read};

use crate::decode::{PADDING, Stretch};

/// How the stream is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Bytes from one chunk's beginning to the next one's.
    pub(crate) chunk: usize,
    /// Bytes that a chunk shares with the next one: a block that begins in this chunk mostly ends there.
    pub(crate) overlap: usize,
}

/// Bytes of the stream, with those that come first in the next chunk.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    number: u64,
    start: u64,
    next: u64,
    last: bool,
}

impl Chunk {
    /// How many come before it.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn stretch(&self) -> Stretch<'_> {
        Stretch { bytes: &self.bytes, start: self.start, last: self.last }
    }

    /// The bit of the stream where the next chunk begins; where there is none, one that never comes.
    pub(crate) fn stop(&self) -> u64 {
        if self.last { u64::MAX } else { self.next * 8 }
    }
}

/// Reads chunks.
pub(crate) struct Source<R> {
    input: R,
    cut: Cut,
    /// What was read for the chunk before and belongs to the next one too.
    carry: Vec<u8>,
    number: u64,
    start: u64,
    ended: bool,
}

impl<R: Read> Source<R> {
    pub(crate) fn new(input: R, cut: Cut) -> Self {
        Self { input, cut, carry: Vec::new(), number: 0, start: 0, ended: false }
    }

    /// Fills the next chunk; false where there is none.
    pub(crate) fn next(&mut self, chunk: &mut Chunk) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let bytes = &mut chunk.bytes;
        bytes.clear();
        bytes.extend_from_slice(&self.carry);
        let wanted = self.cut.chunk + self.cut.overlap;
        // An error of the reader ends the stream.
        self.ended = true;
        self.input.by_ref().take((wanted - bytes.len()) as u64).read_to_end(bytes)?;
        self.ended = bytes.len() < wanted;
        self.carry.clear();
        (chunk.number, chunk.start, chunk.last) = (self.number, self.start, self.ended);
        chunk.next = self.start + self.cut.chunk as u64;
        if self.ended {
            bytes.resize(bytes.len() + PADDING, 0);
        } else {
            self.carry.extend_from_slice(&bytes[self.cut.chunk..]);
        }
        self.number += 1;
        self.start = chunk.next;
        Ok(true)
    }
}
