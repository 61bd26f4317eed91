//! The converter at work on a file.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;

use caveau_layer::ImageSink;
use caveau_verity::RootHash;

/// A file as the place of a layer's image. Parts that are never written take no room on disk.
#[derive(Debug)]
pub struct FileImage<'a>(
    /// The file, open for reading and writing, empty.
    pub &'a File,
);

impl ImageSink for FileImage<'_> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
}

/// Makes the image of the layer `tar` in `file`, at most `limit` bytes of file system, hashing on all processors.
pub(crate) fn write_image(
    tar: &mut impl Read,
    file: &File,
    limit: u64,
) -> Result<RootHash, Box<dyn std::error::Error + Send + Sync>> {
    let defaults = caveau_layer::Limits::default();
    let limits = caveau_layer::Limits { image_bytes: limit.min(defaults.image_bytes), ..defaults };
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Ok(caveau_layer::convert(tar, &FileImage(file), &limits, threads)?.root)
}
