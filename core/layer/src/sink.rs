//! Where an image goes: a file of the caller's, or memory.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

/// Receives an image's bytes, from several threads and not in order.
///
/// It is empty at first; bytes below its length that were never written read as zeros, as in a sparse file. For an
/// image of more than 2 GiB, part of the hash tree is put down far behind the image (256 GiB and up) until its place is
/// known, read back from there, and cut off by [`Self::set_len`] at the end.
pub trait ImageSink: Sync {
    /// Writes all of `bytes` from `offset` on.
    ///
    /// # Errors
    /// Whatever writing fails with.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `buffer` with what was written from `offset` on.
    ///
    /// # Errors
    /// Whatever reading fails with.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Makes the sink exactly so many bytes long: cut off, or with zeros at its end.
    ///
    /// # Errors
    /// Whatever that fails with.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
}

/// An image in memory, for layers known to be small.
#[derive(Debug, Default)]
pub struct MemoryImage(Mutex<Vec<u8>>);

impl MemoryImage {
    /// The image's bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Offset and length as a range of a slice.
fn range(offset: u64, length: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok();
    let range = start.and_then(|start| Some(start..start.checked_add(length)?));
    range.ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

impl ImageSink for MemoryImage {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let range = range(offset, bytes.len())?;
        let mut image = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if image.len() < range.end {
            image.resize(range.end, 0);
        }
        if let Some(place) = image.get_mut(range) {
            place.copy_from_slice(bytes);
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let image = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.copy_from_slice(image.get(range(offset, buffer.len())?).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let length = range(bytes, 0)?.start;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).resize(length, 0);
        Ok(())
    }
}
