//! What has come of a blob that is being fetched, kept for the next run where this one does not get to its end.
//!
//! A layer is converted while it comes, so nothing else of it would outlive a broken connection or a process that was
//! ended. The bytes stand in `<root>/partial/<blob digest>` as they came; the next run takes them from there, asks the
//! registry for the rest, and holds all of it against the blob's digest as always. Files that nobody has taken up for a
//! week are swept, and those of complete layers are removed at once.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use caveau_oci::Digest;

use crate::error::At;
use crate::lock::EntryLock;
use crate::plan::{LayerSource, LayerSpec};
use crate::{RegistryError, Store};

/// Smaller blobs are fetched anew.
const LEAST_BYTES: u64 = 1 << 20;

/// What is older is no longer taken up: the image has most likely been given up.
pub(crate) const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The file of one blob, locked.
struct Part {
    held: EntryLock,
    /// Bytes that an earlier run left in it.
    had: u64,
}

impl Part {
    /// The part of `blob` that is there, which may be none; nothing where another process has it.
    fn open(store: &Store, blob: Digest, size: u64) -> Result<Option<Self>, RegistryError> {
        let path = path(store, blob);
        let Some(held) = EntryLock::attempt(&path)? else { return Ok(None) };
        let had = held.file().metadata().at("read", &path)?.len();
        if had <= size {
            return Ok(Some(Self { held, had }));
        }
        held.file().set_len(0).at("empty", &path)?;
        Ok(Some(Self { held, had: 0 }))
    }
}

/// Reads a layer's blob: first what an earlier run left of it, then the rest from the source, which is kept in turn.
pub(crate) struct KeptBlob<'a> {
    part: Option<Part>,
    rest: Box<dyn Read + Send + 'a>,
    at: u64,
}

impl<'a> KeptBlob<'a> {
    /// Opens the blob of `layer`. Sources on this machine have it at hand, so nothing of theirs is kept.
    pub(crate) fn open(
        store: &Store,
        source: &'a dyn LayerSource,
        layer: &LayerSpec,
    ) -> Result<KeptBlob<'a>, RegistryError> {
        let blob = layer.blob.filter(|_| source.is_remote() && layer.size >= LEAST_BYTES);
        let part = blob.map(|blob| Part::open(store, blob, layer.size)).transpose()?.flatten();
        let had = part.as_ref().map_or(0, |part| part.had);
        match source.open(layer, had) {
            Ok(rest) => Ok(Self { part, rest, at: 0 }),
            Err(error) => {
                if let Some(empty) = part.filter(|part| part.had == 0) {
                    empty.held.remove()?;
                }
                Err(error)
            }
        }
    }

    /// Bytes that come from an earlier run.
    pub(crate) fn had(&self) -> u64 {
        self.part.as_ref().map_or(0, |part| part.had)
    }

    /// Ends the reading. What came stays for another run if it is good as far as it goes: `broken_off` says that only
    /// the rest of it is missing.
    pub(crate) fn close(self, broken_off: bool) -> Result<(), RegistryError> {
        match self.part {
            Some(part) if !broken_off || self.at == 0 && part.had == 0 => part.held.remove(),
            _ => Ok(()),
        }
    }

    /// Keeps bytes that came from the source; where the disk is full they are needed less than the layer.
    fn keep(&mut self, bytes: &[u8]) {
        let Some(part) = &self.part else { return };
        if part.held.file().write_all_at(bytes, self.at).is_err()
            && let Some(part) = self.part.take()
        {
            // A sweep finds it, should it stay.
            let _ = part.held.remove();
        }
    }
}

impl Read for KeptBlob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(part) = self.part.as_ref().filter(|part| self.at < part.had) {
            let most = usize::try_from(part.had - self.at).unwrap_or(usize::MAX).min(buffer.len());
            let count = part.held.file().read_at(&mut buffer[..most], self.at)?;
            if count == 0 && most > 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "somebody cut short what an earlier run kept",
                ));
            }
            self.at += count as u64;
            return Ok(count);
        }
        let count = self.rest.read(buffer)?;
        self.keep(&buffer[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

/// Removes parts that were not written to for `age` and that nobody has open; gives their bytes.
pub(crate) fn sweep(store: &Store, age: Duration) -> Result<u64, RegistryError> {
    let (dir, mut bytes) = (store.partial_dir(), 0);
    for entry in fs::read_dir(&dir).at("list", &dir)? {
        let path = entry.at("list", &dir)?.path();
        // Whoever was faster has removed it; what is no file was not kept here by us, and must not keep the store shut.
        let Some(found) = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file) else { continue };
        let written = found.modified().at("read", &path)?;
        if SystemTime::now().duration_since(written).unwrap_or_default() < age {
            continue;
        }
        if let Some(held) = EntryLock::attempt(&path)? {
            bytes += held.file().metadata().at("read", &path)?.len();
            held.remove()?;
        }
    }
    Ok(bytes)
}

/// Removes what is kept of these layers and nobody has open.
pub(crate) fn forget(store: &Store, layers: &[LayerSpec]) -> Result<(), RegistryError> {
    for path in layers.iter().filter_map(|layer| Some(path(store, layer.blob?))).filter(|path| path.exists()) {
        if let Some(held) = EntryLock::attempt(&path)? {
            held.remove()?;
        }
    }
    Ok(())
}

fn path(store: &Store, blob: Digest) -> PathBuf {
    store.partial_dir().join(blob.hex())
}
