//! Gets the layers of an image into the store, several at a time, each in one pass.
//!
//! ```text
//! source ──> [feed: size, blob digest] ──> [unpack: limits] ──> [diff ID, convert: ext4 image, hash tree, root] ──> store
//!              a thread                      a thread              the worker's own thread, and the converter's
//! ```
//!
//! A stage passes on the end of its stream only after all its checks, so a layer that is wrong anywhere never gets as
//! far as the store. Where several stages fail, the first in the row tells why: a flipped bit in a blob is reported as a
//! wrong digest and not as whatever the decompressor made of it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use caveau_layer::LayerError;
use caveau_oci::{Digest, Hasher};

use crate::convert::{MeteredImage, write_image};
use crate::error::unwrap_io;
use crate::inflate::{GZIP_THREADS, Unpacker, pump};
use crate::kept::{self, KeptBlob};
use crate::layers::{self, Converted, Entry};
use crate::lock::EntryLock;
use crate::pipe::{PipeReader, PipeWriter, fill, pipe};
use crate::plan::{LayerSource, LayerSpec};
use crate::{Event, Limits, Options, Progress, RegistryError, Store, StoredLayer};

/// Bytes that are still read from a source after a later stage has failed, to learn whether the source was at fault.
const DRAIN_BYTES: u64 = 64 << 20;

/// The layers of `specs`, in their order, from the store or through it from `source`.
pub(crate) fn fill_layers(
    store: &Store,
    specs: &[LayerSpec],
    source: &dyn LayerSource,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Vec<StoredLayer>, RegistryError> {
    let mut wanted: BTreeMap<Digest, &LayerSpec> = BTreeMap::new();
    for spec in specs {
        wanted.entry(spec.diff_id).or_insert(spec);
    }
    let packed = wanted.values().map(|spec| spec.size).fold(0, u64::saturating_add);
    let stop = AtomicBool::new(false);
    let job = Job { store, source, limits: &options.limits, packed, spent: Spent::default(), stop: &stop, progress };
    // Large layers first: the longest one decides when all are there.
    let mut queue: Vec<&LayerSpec> = wanted.into_values().collect();
    queue.sort_by_key(|spec| spec.size);
    let queue = Mutex::new(queue);
    let (done, failed) = (Mutex::new(BTreeMap::new()), Mutex::new(None));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(spec) = lock(&queue).pop() else { break };
            match job.layer(spec) {
                Ok(layer) => drop(lock(&done).insert(spec.diff_id, layer)),
                Err(error) => {
                    // First, since whoever is stopped by it fails, too.
                    lock(&failed).get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    let workers = options.parallel.clamp(1, 16).min(specs.len().max(1));
    thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        if !error.is_broken_off() {
            // Who lies about one layer will hardly be asked for the others again.
            kept::forget(store, specs)?;
        }
        return Err(error);
    }
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let found = specs.iter().map(|spec| done.get(&spec.diff_id).cloned());
    found.collect::<Option<_>>().ok_or(RegistryError::Worker { doing: "fetching layers" })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes read from the source, bytes unpacked from them, and bytes written for the file systems made of those, of all
/// layers of an image together.
#[derive(Default)]
struct Spent {
    packed: AtomicU64,
    unpacked: AtomicU64,
    written: AtomicU64,
}

/// How a layer grows, in the words of errors.
struct Growth {
    whole: &'static str,
    act: &'static str,
}

const UNPACKED: Growth = Growth { whole: "the uncompressed image", act: "unpack to" };
const WRITTEN: Growth = Growth { whole: "the converted image", act: "become file systems of" };

/// What all layers of an image share.
struct Job<'a> {
    store: &'a Store,
    source: &'a dyn LayerSource,
    limits: &'a Limits,
    /// Bytes of all layers as they are packed.
    packed: u64,
    spent: Spent,
    /// Set once a layer has failed.
    stop: &'a AtomicBool,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    /// One layer, from the store if it is there and good.
    fn layer(&self, spec: &LayerSpec) -> Result<StoredLayer, RegistryError> {
        let layer = spec.diff_id;
        if let Some(stored) = layers::quick(self.store, layer)? {
            self.progress.report(Event::LayerCached { layer });
            return Ok(stored);
        }
        let waiting = || self.progress.report(Event::LayerAwaited { layer });
        let held = EntryLock::take(&self.store.layer_path(layer, "lock"), waiting)?;
        match layers::thorough(self.store, layer, &held)? {
            Entry::Good(stored) => {
                self.progress.report(Event::LayerCached { layer });
                return Ok(stored);
            }
            Entry::Damaged => self.progress.report(Event::LayerDamaged { layer }),
            Entry::Absent => {}
        }
        let made = self.make(spec, &held);
        if made.is_err() && !self.store.layer_path(layer, "img").exists() {
            // Who waits for the lock makes a new file of it. The error that there is says more than another.
            let _ = held.remove();
        }
        made
    }

    /// Converts a layer into the store. The caller holds the entry's lock.
    fn make(&self, spec: &LayerSpec, held: &EntryLock) -> Result<StoredLayer, RegistryError> {
        let image = self.store.temporary()?;
        let converted = self.convert(spec, image.as_file())?;
        let stored = layers::insert(self.store, spec.diff_id, image, converted, held)?;
        self.progress.report(Event::LayerStored { layer: spec.diff_id });
        Ok(stored)
    }

    /// Ends work for an image that has failed.
    fn go_on(&self) -> Result<(), RegistryError> {
        if self.stop.load(Ordering::Relaxed) { Err(RegistryError::Stopped) } else { Ok(()) }
    }

    /// Runs the three stages.
    fn convert(&self, spec: &LayerSpec, image: &std::fs::File) -> Result<Converted, RegistryError> {
        let mut source = KeptBlob::open(self.store, self.source, spec)?;
        self.progress.report(Event::LayerStarted { layer: spec.diff_id, bytes: spec.size });
        if source.had() > 0 {
            self.progress.report(Event::LayerResumed { layer: spec.diff_id, bytes: source.had() });
        }
        let (to_unpack, packed) = pipe();
        let (to_convert, tar) = pipe();
        let converted = thread::scope(|scope| {
            let feeding = scope.spawn(|| self.feed(spec, &mut source, to_unpack));
            let unpacking = scope.spawn(|| self.unpack(spec, packed, to_convert));
            let converted = self.write_layer(spec, tar, image);
            // Joined from the back: each stage ends once the one behind it is gone.
            let unpacked = unpacking.join().unwrap_or(Err(RegistryError::Worker { doing: "unpacking a layer" }));
            let fed = feeding.join().unwrap_or(Err(RegistryError::Worker { doing: "fetching a layer" }));
            fed?;
            unpacked?;
            converted
        });
        let (had, broken_off) = (source.had(), converted.as_ref().is_err_and(RegistryError::is_broken_off));
        let closed = source.close(broken_off);
        match converted {
            Ok(converted) => closed.map(|()| converted),
            Err(error) if had > 0 && !broken_off => {
                Err(RegistryError::KeptPart { bytes: had, source: Box::new(error) })
            }
            Err(error) => Err(error),
        }
    }

    /// First stage: the source's bytes, counted and hashed.
    fn feed(&self, spec: &LayerSpec, source: &mut dyn Read, out: PipeWriter) -> Result<(), RegistryError> {
        let what = spec.blob.map_or_else(|| format!("layer {}", spec.diff_id), |blob| format!("blob {blob}"));
        let (mut hasher, mut count, mut wanted, mut left) = (Hasher::new(), 0_u64, true, DRAIN_BYTES);
        loop {
            self.go_on()?;
            let mut chunk = out.buffer();
            // Sources that are not on this machine say themselves what is wrong.
            let read = fill(source, &mut chunk)
                .map_err(|error| unwrap_io(error, |source| RegistryError::Read { what: what.clone(), source }))?;
            if read == 0 {
                break;
            }
            count += read as u64;
            if count > spec.size {
                return Err(RegistryError::WrongSize { what, expected: spec.size, found: count });
            }
            self.spent.packed.fetch_add(read as u64, Ordering::Relaxed);
            self.progress.report(Event::LayerAdvanced { layer: spec.diff_id, bytes: read as u64 });
            if spec.blob.is_some() {
                hasher.update(&chunk[..read]);
            }
            if wanted {
                chunk.truncate(read);
                wanted = out.send(chunk).is_ok();
            } else if left < read as u64 {
                return Ok(());
            } else {
                left -= read as u64;
            }
        }
        if count != spec.size {
            return Err(RegistryError::WrongSize { what, expected: spec.size, found: count });
        }
        if let Some(blob) = spec.blob {
            blob.check_found(&what, hasher.finish())?;
        }
        out.finish();
        Ok(())
    }

    /// Second stage: the tar's bytes, held against the limits.
    fn unpack(&self, spec: &LayerSpec, packed: PipeReader, out: PipeWriter) -> Result<(), RegistryError> {
        let layer = spec.diff_id;
        let failed = |error: io::Error| RegistryError::Unpack { layer, reason: error.to_string() };
        let mut unpacker = Unpacker::new(packed, self.threads(spec)).map_err(failed)?;
        let mut total = 0;
        let within_limits = |read| {
            total += read;
            self.check_layer(layer, total, read).map_err(io::Error::other)
        };
        pump(&mut unpacker, &out, within_limits).map_err(|error| unwrap_io(error, failed))?;
        out.finish();
        Ok(())
    }

    /// Threads that unpack a layer: several for one that keeps the others waiting, since memory goes with them.
    fn threads(&self, spec: &LayerSpec) -> usize {
        if spec.size > self.packed / 2 { GZIP_THREADS } else { 1 }
    }

    /// Refuses a layer whose tar grows too large, by itself or with those before it.
    fn check_layer(&self, layer: Digest, total: u64, more: u64) -> Result<(), RegistryError> {
        self.go_on()?;
        let limit = self.limits.layer_bytes;
        if total > limit {
            return Err(RegistryError::TooLarge { what: format!("uncompressed layer {layer}"), limit });
        }
        self.check_growth(layer, &UNPACKED, &self.spent.unpacked, more)
    }

    /// Refuses an image that grows too large, in all or for its packed size.
    fn check_growth(&self, layer: Digest, of: &Growth, spent: &AtomicU64, more: u64) -> Result<(), RegistryError> {
        let limits = self.limits;
        let grown = spent.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        let packed = self.spent.packed.load(Ordering::Relaxed);
        if grown > limits.image_bytes {
            return Err(RegistryError::TooLarge { what: of.whole.to_owned(), limit: limits.image_bytes });
        }
        if grown > limits.free_bytes && grown > packed.saturating_mul(limits.ratio) {
            let what = format!(
                "a decompression bomb? layer {layer} and those before it {} {} times their size, which",
                of.act, limits.ratio
            );
            return Err(RegistryError::TooLarge { what, limit: limits.free_bytes });
        }
        Ok(())
    }

    /// Third stage: hashes the tar and makes the image of it.
    fn write_layer(&self, spec: &LayerSpec, tar: PipeReader, file: &std::fs::File) -> Result<Converted, RegistryError> {
        let layer = spec.diff_id;
        let mut tar = HashingReader { inner: tar, hasher: Hasher::new(), count: 0 };
        let meter = |more| self.check_growth(layer, &WRITTEN, &self.spent.written, more).map_err(io::Error::other);
        let failed = |error| RegistryError::Convert { layer, source: Box::new(error) };
        let root =
            write_image(&mut tar, &MeteredImage { file, meter: &meter }, &self.conversion(spec)).map_err(|error| {
                match error {
                    LayerError::Sink(error) => unwrap_io(error, |error| failed(LayerError::Sink(error))),
                    other => failed(other),
                }
            })?;
        // The converter stops at the tar's end mark; the diff ID covers what follows, too.
        io::copy(&mut tar, &mut io::sink())
            .map_err(|error| RegistryError::Unpack { layer, reason: error.to_string() })?;
        let HashingReader { hasher, count, .. } = tar;
        layer.check_found("the uncompressed layer", hasher.finish())?;
        Ok(Converted { root, tar_bytes: count })
    }

    /// What a layer of this packed size may become.
    fn conversion(&self, spec: &LayerSpec) -> caveau_layer::Limits {
        let (limits, defaults) = (self.limits, caveau_layer::Limits::default());
        let names = limits.free_names.saturating_add(spec.size / limits.name_bytes.max(1));
        caveau_layer::Limits {
            image_bytes: limits.layer_bytes.min(defaults.image_bytes),
            entries: names.min(defaults.entries),
            ..defaults
        }
    }
}

struct HashingReader {
    inner: PipeReader,
    hasher: Hasher,
    count: u64,
}

impl Read for HashingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.count += read as u64;
        Ok(read)
    }
}
