//! The store's layers: an ext4 image with its hash tree for each diff ID, checked on use.
//!
//! Beside each image file stands a small document that says what was made: the diff ID, the root hash, the sizes, and a
//! *stamp*, the file's inode, size, modification and change times when every block of it was last verified against the
//! root. Whoever uses the layer compares the stamp. If it is the same, nobody has written to the file since, since the
//! kernel moves the change time at each write and lets no ordinary user set it back; so the check costs one `stat`. If
//! it differs (the file was written to, restored from a backup, copied), every block is verified again: a good file
//! gets a new stamp, a damaged one is built again. What this does not see, a disk that returns other bytes without
//! having been asked to write any, the guest sees: it maps the layer with dm-verity and gets an I/O error for that
//! block, never other data.
//!
//! A user of a layer holds a shared lock on the image file, so that nobody prunes it from under a group that starts.

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caveau_oci::Digest;
use caveau_verity::{BlockSource, RootHash};
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::error::At;
use crate::lock::{EntryLock, flock};
use crate::store::persist;
use crate::{RegistryError, Store};

/// The version of the document beside an image file. Entries of other versions are built again.
const VERSION: u32 = 1;
/// Bytes that the document may have.
const MAX_RECORD_BYTES: u64 = 64 << 10;

/// A layer in the store, open and protected from pruning while this value (or a clone) lives.
#[derive(Debug, Clone)]
pub struct StoredLayer {
    /// SHA-256 of the layer's uncompressed tar.
    pub diff_id: Digest,
    /// The dm-verity root hash of the image.
    pub root: RootHash,
    /// The file: ext4 image, superblock, hash tree.
    pub path: PathBuf,
    /// The file's length in bytes.
    pub bytes: u64,
    file: Arc<File>,
}

impl StoredLayer {
    /// The very file that was checked, open for reading: hand this on rather than look the path up again.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// What was made of a tar, told by the converter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Converted {
    /// The image's root hash.
    pub(crate) root: RootHash,
    /// Bytes of the uncompressed tar.
    pub(crate) tar_bytes: u64,
}

/// The document beside an image file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    diff_id: Digest,
    root: RootHash,
    tar_bytes: u64,
    stamp: Stamp,
    /// SHA-256 of the fields above, against damage.
    check: Digest,
}

/// What the kernel says about a file that nobody has written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File, path: &Path) -> Result<Self, RegistryError> {
        let found = file.metadata().at("read", path)?;
        Ok(Self {
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl Record {
    fn new(diff_id: Digest, converted: Converted, stamp: Stamp) -> Self {
        let Converted { root, tar_bytes } = converted;
        let check = Self::checksum(diff_id, root, tar_bytes, stamp);
        Self { version: VERSION, diff_id, root, tar_bytes, stamp, check }
    }

    fn checksum(diff_id: Digest, root: RootHash, tar_bytes: u64, stamp: Stamp) -> Digest {
        Digest::of(format!("{VERSION} {diff_id} {root} {tar_bytes} {stamp:?}").as_bytes())
    }

    /// The record at `path`, if it is whole and that of `diff_id`.
    fn read(path: &Path, diff_id: Digest) -> Option<Self> {
        if fs::metadata(path).ok()?.len() > MAX_RECORD_BYTES {
            return None;
        }
        let record: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let check = Self::checksum(diff_id, record.root, record.tar_bytes, record.stamp);
        (record.version == VERSION && record.diff_id == diff_id && record.check == check).then_some(record)
    }

    fn write(&self, store: &Store) -> Result<(), RegistryError> {
        let path = store.layer_path(self.diff_id, "json");
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).at("write", &path)?;
        store.write(&path, &text)
    }
}

/// What a thorough look at an entry finds.
pub(crate) enum Entry {
    /// Nothing.
    Absent,
    /// Something that must not be used.
    Damaged,
    /// A layer as it was made.
    Good(StoredLayer),
}

/// The layer's entry if the quick check is enough to know that it is good.
pub(crate) fn quick(store: &Store, diff_id: Digest) -> Result<Option<StoredLayer>, RegistryError> {
    let Some(open) = Opened::new(store, diff_id)? else { return Ok(None) };
    let Some(record) = Record::read(&store.layer_path(diff_id, "json"), diff_id) else { return Ok(None) };
    let same = Stamp::of(&open.file, &open.path)? == record.stamp;
    Ok(same.then(|| open.into_layer(diff_id, &record)))
}

/// The layer's entry, verified in full if the quick check is not enough. The caller holds the entry's lock.
pub(crate) fn thorough(store: &Store, diff_id: Digest, _lock: &EntryLock) -> Result<Entry, RegistryError> {
    if let Some(layer) = quick(store, diff_id)? {
        return Ok(Entry::Good(layer));
    }
    let Some(open) = Opened::new(store, diff_id)? else { return Ok(Entry::Absent) };
    let Some(mut record) = Record::read(&store.layer_path(diff_id, "json"), diff_id) else {
        return Ok(Entry::Damaged);
    };
    // The stamp is taken before the blocks are read: a write in between makes the next check a full one.
    let stamp = Stamp::of(&open.file, &open.path)?;
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let source = FileBlocks(&open.file);
    if stamp.bytes != record.stamp.bytes
        || caveau_verity::verify_device(&source, stamp.bytes, &record.root, threads).is_err()
    {
        return Ok(Entry::Damaged);
    }
    record = Record::new(diff_id, Converted { root: record.root, tar_bytes: record.tar_bytes }, stamp);
    record.write(store)?;
    Ok(Entry::Good(open.into_layer(diff_id, &record)))
}

/// Makes a finished image file the layer's entry. The caller holds the entry's lock.
pub(crate) fn insert(
    store: &Store,
    diff_id: Digest,
    image: NamedTempFile,
    converted: Converted,
    _lock: &EntryLock,
) -> Result<StoredLayer, RegistryError> {
    let path = store.layer_path(diff_id, "img");
    image.as_file().set_permissions(fs::Permissions::from_mode(0o400)).at("protect", image.path())?;
    drop(persist(image, &path)?);
    let Some(open) = Opened::new(store, diff_id)? else {
        return Err(std::io::Error::from(std::io::ErrorKind::NotFound)).at("open", &path);
    };
    let record = Record::new(diff_id, converted, Stamp::of(&open.file, &path)?);
    record.write(store)?;
    Ok(open.into_layer(diff_id, &record))
}

/// An image file, open, locked against pruning, and still in the store when it was locked.
struct Opened {
    file: File,
    path: PathBuf,
}

impl Opened {
    fn new(store: &Store, diff_id: Digest) -> Result<Option<Self>, RegistryError> {
        let path = store.layer_path(diff_id, "img");
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
        let file = match File::options().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            // Something else than a file of ours: the file that is made anew takes its place.
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error).at("open", &path),
        };
        flock(&file, FlockOperation::LockShared).at("lock", &path)?;
        let found = file.metadata().at("read", &path)?;
        Ok((found.is_file() && found.nlink() > 0).then_some(Self { file, path }))
    }

    fn into_layer(self, diff_id: Digest, record: &Record) -> StoredLayer {
        let Self { file, path } = self;
        StoredLayer { diff_id, root: record.root, path, bytes: record.stamp.bytes, file: Arc::new(file) }
    }
}

/// A file's blocks, for verification.
struct FileBlocks<'a>(&'a File);

impl BlockSource for FileBlocks<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}
