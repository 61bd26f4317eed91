//! The converter at work on a file.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;

use caveau_layer::{ImageSink, LayerError};
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

/// A file as the place of a layer's image, whose every written byte is asked for first.
pub(crate) struct MeteredImage<'a> {
    pub(crate) file: &'a File,
    /// Says whether so many more bytes may be written.
    pub(crate) meter: &'a (dyn Fn(u64) -> io::Result<()> + Sync),
}

impl ImageSink for MeteredImage<'_> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (self.meter)(bytes.len() as u64)?;
        FileImage(self.file).write_at(offset, bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        FileImage(self.file).read_at(offset, buffer)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        FileImage(self.file).set_len(bytes)
    }
}

/// Makes the image of the layer `tar`, hashing on all processors.
pub(crate) fn write_image(
    tar: &mut impl Read,
    image: &MeteredImage<'_>,
    limits: &caveau_layer::Limits,
) -> Result<RootHash, LayerError> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Ok(caveau_layer::convert(tar, image, limits, threads)?.root)
}
