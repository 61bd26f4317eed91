//! From entries to the tree and the image: the one pass.

use std::{cell::RefCell, io::Read, num::NonZeroUsize};

use caveau_verity::{RootHash, VerityGeometry, hash_chunks};

use crate::{
    BLOCK, ImageSink, LayerError, ext4,
    image::Image,
    leaves::Leaves,
    path,
    tar::{ContentRun, Entry, Kind, TarReader},
    time::FsTime,
    tree::{Failure, File, Tree, file_type},
};

/// Largest image, and the size for which descriptors are reserved: 128 GiB, as in the policies that exist.
pub(crate) const MAX_DISK: u64 = 128 << 30;

/// Prefix of a name that removes the rest of it from the layers below (OCI image specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";

/// Name that removes everything from the layers below in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a layer may at most take up. The tar's own size is for the caller to limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the ext4 image; at most 128 GiB, which is also the default. A tar of a few bytes can name sparse files
    /// and deep paths that make an image of any size.
    pub image_bytes: u64,
    /// Names in all directories. Memory grows with them. Default: 4,194,304.
    pub entries: u64,
    /// Bytes of memory for extended attributes that fill a block and may be written again: those of directories, empty
    /// files, short links and devices. Default: 64 MiB.
    pub attribute_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { image_bytes: MAX_DISK, entries: 1 << 22, attribute_bytes: 64 << 20 }
    }
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSummary {
    /// Root hash of the image.
    pub root: RootHash,
    /// Where image, superblock and tree lie; also their sizes.
    pub geometry: VerityGeometry,
    /// Entries read from the tar.
    pub entries: u64,
}

/// Converts a layer's tar into `sink`: ext4 image, verity superblock, hash tree.
///
/// Hashing and writing run on `threads` threads besides this one, which reads the tar. The tar is read up to its end
/// mark and a little further, at most 64 KiB; who needs all of it read, say for its digest, reads the rest.
///
/// # Errors
/// [`LayerError`]; the sink then holds an unfinished image, to be thrown away.
pub fn convert(
    tar: impl Read,
    sink: &dyn ImageSink,
    limits: &Limits,
    threads: NonZeroUsize,
) -> Result<LayerSummary, LayerError> {
    run(tar, Some(sink), limits, threads)
}

/// The same without writing anything: only to know the root hash.
///
/// # Errors
/// [`LayerError`], apart from failing to write.
pub fn hash(tar: impl Read, limits: &Limits, threads: NonZeroUsize) -> Result<LayerSummary, LayerError> {
    run(tar, None, limits, threads)
}

fn run(
    tar: impl Read,
    sink: Option<&dyn ImageSink>,
    limits: &Limits,
    threads: NonZeroUsize,
) -> Result<LayerSummary, LayerError> {
    let pins = RefCell::default();
    let mut leaves = Leaves::new(sink, &pins);
    let store = |offset: u64, bytes: &[u8]| sink.map_or(Ok(()), |sink| sink.write_at(offset, bytes));
    let mut collect = |chunk| leaves.collect(chunk);
    let (late, blocks, entries) = hash_chunks(threads, &store, &mut collect, |queue| {
        let mut image = Image::new(queue, &pins, limits.image_bytes.min(MAX_DISK));
        let (mut tree, entries) = read_tar(tar, limits, &mut image)?;
        let (late, blocks) = ext4::finish(&mut tree, &mut image)?;
        image.finish()?;
        Ok::<_, LayerError>((late, blocks, entries))
    })?;
    for (block, content) in &late {
        leaves.rewrite(*block, content).map_err(LayerError::Sink)?;
    }
    let geometry = VerityGeometry::of_data(blocks.into())?;
    let root = leaves.finish(geometry).map_err(LayerError::Sink)?;
    Ok(LayerSummary { root, geometry, entries })
}

impl From<std::io::Error> for LayerError {
    /// What the hashing threads report is always about the sink: the tar's errors carry its offset.
    fn from(error: std::io::Error) -> Self {
        Self::Sink(error)
    }
}

/// Reads all entries into the tree, and their data into the image. Returns the tree and the number of entries.
fn read_tar(tar: impl Read, limits: &Limits, image: &mut Image<'_, '_>) -> Result<(Tree, u64), LayerError> {
    // Superblock and descriptors are written when all else is known.
    image.pin();
    image.zero(u64::from(ext4::DESCRIPTOR_BLOCKS).saturating_add(1).saturating_mul(BLOCK))?;
    let mut tree = Tree::new(limits, image)?;
    let mut reader = TarReader::new(tar);
    let mut entries = 0_u64;
    while let Some(entry) = reader.next_entry()? {
        entries = entries.saturating_add(1);
        let path = entry.path.clone();
        match add(&mut tree, entry, image) {
            Ok(Some((number, size))) => {
                let start = image.block();
                copy_data(&mut reader, image)?;
                if size > 0 {
                    tree.finish_data(number, start, image)?;
                }
            }
            Ok(None) => {}
            Err(failure) => return Err(failure.at(&path)),
        }
    }
    Ok((tree, entries))
}

/// Puts one entry into the tree. Where data has to follow, returns its inode's number and its size.
fn add(tree: &mut Tree, entry: Entry, image: &mut Image<'_, '_>) -> Result<Option<(u32, u64)>, Failure> {
    let path = entry.path.clone();
    let names = path::components(&path);
    tree.make_parents(&names, image)?;
    let (directory, name) = path::split(&path);
    if name == OPAQUE {
        tree.mark_opaque(&path::components(directory), image)?;
        return Ok(None);
    }
    if let Some(removed) = name.strip_prefix(WHITEOUT) {
        // Overlayfs takes a character device with number 0/0 for a removed file.
        let hidden = [directory, removed].concat();
        tree.create(&path::components(&hidden), File::new(file_type::CHARACTER), image)?;
        return Ok(None);
    }
    if entry.kind == Kind::HardLink {
        tree.link(&names, &path::components(&entry.link), &entry.link)?;
        return Ok(None);
    }
    let size = if entry.kind == Kind::Regular { entry.size } else { 0 };
    let number = tree.create(&names, file(entry), image)?;
    Ok(Some((number, size)))
}

/// What the tree is asked for by an entry that is not a link.
fn file(entry: Entry) -> File {
    let file_type = match entry.kind {
        Kind::BlockDevice => file_type::BLOCK,
        Kind::CharacterDevice => file_type::CHARACTER,
        Kind::Directory => file_type::DIRECTORY,
        Kind::Fifo => file_type::FIFO,
        Kind::HardLink | Kind::Regular => file_type::REGULAR,
        Kind::Symlink => file_type::SYMLINK,
    };
    let (major, minor) = entry.device;
    File {
        uid: entry.uid,
        gid: entry.gid,
        accessed: FsTime::new(entry.accessed),
        changed: FsTime::new(entry.changed),
        modified: FsTime::new(entry.modified),
        size: entry.size,
        target: entry.link,
        // The kernel's encoding for devices with large numbers (`include/linux/kdev_t.h`, `new_encode_dev`).
        device: minor & 0xff | major << 8 | (minor & !0xff) << 12,
        xattrs: entry.xattrs,
        ..File::new(file_type | entry.mode)
    }
}

/// Copies the current entry's content to the image.
fn copy_data(reader: &mut TarReader<impl Read>, image: &mut Image<'_, '_>) -> Result<(), LayerError> {
    while let Some(run) = reader.next_run()? {
        match run {
            ContentRun::Data(bytes) => image.fill(bytes, &mut |place| reader.read_data(place))?,
            ContentRun::Zeros(bytes) => image.zero(bytes)?,
        }
    }
    Ok(())
}
