//! The image as a stream of blocks, gathered into chunks that other threads store and hash.

use std::io;

use caveau_verity::{CHUNK_BYTES, ChunkQueue};

use crate::{BLOCK, LayerError, leaves::Pins};

/// The image's end, where everything but superblock and group descriptors is written in order.
pub(crate) struct Image<'a, 'q> {
    queue: &'a mut ChunkQueue<'q>,
    pins: &'a Pins,
    /// The chunk being filled; none as long as it is all zeros.
    buffer: Option<Vec<u8>>,
    /// Which chunk that is, and how far it is filled.
    index: u64,
    filled: usize,
    limit: u64,
}

impl<'a, 'q> Image<'a, 'q> {
    /// An empty image that may grow to `limit` bytes.
    pub(crate) fn new(queue: &'a mut ChunkQueue<'q>, pins: &'a Pins, limit: u64) -> Self {
        Self { queue, pins, buffer: None, index: 0, filled: 0, limit }
    }

    /// Bytes so far.
    pub(crate) fn position(&self) -> u64 {
        self.index.saturating_mul(CHUNK_BYTES as u64).saturating_add(self.filled as u64)
    }

    /// Number of the block that begins here. Images are far smaller than 2^32 blocks.
    pub(crate) fn block(&self) -> u32 {
        (self.position() / BLOCK) as u32
    }

    /// Says that blocks written into the current chunk may be written again at the end. Returns the bytes of memory that
    /// this takes: its leaf block is kept, once.
    pub(crate) fn pin(&mut self) -> u64 {
        if self.pins.borrow_mut().insert(self.index) { BLOCK } else { 0 }
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), LayerError> {
        let length = bytes.len() as u64;
        self.fill(length, &mut |place| {
            let (now, later) = bytes.split_at_checked(place.len().min(bytes.len())).unwrap_or_default();
            place.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            bytes = later;
            Ok(now.len())
        })
    }

    /// Appends so many bytes that `read` provides: it fills the front of the place it is given and says how many.
    pub(crate) fn fill(
        &mut self,
        bytes: u64,
        read: &mut dyn FnMut(&mut [u8]) -> Result<usize, LayerError>,
    ) -> Result<(), LayerError> {
        self.make_room(bytes)?;
        let mut left = bytes;
        while left > 0 {
            let filled = self.filled;
            let space = self.space(left);
            let buffer = self.materialise().map_err(LayerError::Sink)?;
            let place = buffer.get_mut(filled..).and_then(|place| place.get_mut(..space)).unwrap_or_default();
            let count = read(place)?.min(space);
            left = left.saturating_sub(count as u64);
            self.advance(count)?;
        }
        Ok(())
    }

    /// Appends zeros.
    pub(crate) fn zero(&mut self, bytes: u64) -> Result<(), LayerError> {
        self.make_room(bytes)?;
        let mut left = bytes;
        while left > 0 {
            let space = self.space(left);
            if let Some(buffer) = &mut self.buffer {
                buffer.get_mut(self.filled..).and_then(|rest| rest.get_mut(..space)).unwrap_or_default().fill(0);
            }
            left = left.saturating_sub(space as u64);
            self.advance(space)?;
        }
        Ok(())
    }

    /// Appends zeros up to a whole block.
    pub(crate) fn align(&mut self) -> Result<(), LayerError> {
        let rest = self.position().wrapping_neg() & BLOCK.saturating_sub(1);
        self.zero(rest)
    }

    /// Hands over the last chunk.
    pub(crate) fn finish(mut self) -> Result<(), LayerError> {
        self.align()?;
        if self.filled > 0 {
            self.materialise().map_err(LayerError::Sink)?;
            let mut bytes = self.buffer.take().unwrap_or_default();
            bytes.truncate(self.filled);
            self.queue.submit(self.index, bytes).map_err(LayerError::Sink)?;
        }
        Ok(())
    }

    /// Checks that so many more bytes are allowed.
    fn make_room(&self, bytes: u64) -> Result<(), LayerError> {
        if self.position().saturating_add(bytes) > self.limit {
            return Err(LayerError::ImageTooLarge { limit: self.limit });
        }
        Ok(())
    }

    /// How many of so many bytes the current chunk has space for.
    fn space(&self, wanted: u64) -> usize {
        CHUNK_BYTES.saturating_sub(self.filled).min(usize::try_from(wanted).unwrap_or(usize::MAX))
    }

    /// The current chunk's bytes, which until now may have been zeros that nobody had to store.
    fn materialise(&mut self) -> io::Result<&mut Vec<u8>> {
        let buffer = match self.buffer.take() {
            Some(buffer) => buffer,
            None => {
                let mut buffer = self.queue.buffer()?;
                buffer.get_mut(..self.filled).unwrap_or_default().fill(0);
                buffer
            }
        };
        Ok(self.buffer.insert(buffer))
    }

    /// Goes on behind so many bytes, and to the next chunk where this one is full.
    fn advance(&mut self, bytes: usize) -> Result<(), LayerError> {
        self.filled = self.filled.saturating_add(bytes);
        if self.filled < CHUNK_BYTES {
            return Ok(());
        }
        let handed_over = match self.buffer.take() {
            Some(buffer) => self.queue.submit(self.index, buffer),
            None => self.queue.submit_zeros(self.index),
        };
        self.index = self.index.saturating_add(1);
        self.filled = 0;
        handed_over.map_err(LayerError::Sink)
    }
}
