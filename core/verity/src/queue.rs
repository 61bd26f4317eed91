//! A bounded queue between the one who makes data and the threads that hash it.
//!
//! ```text
//! producer ── submit(chunk) ──> worker: store the bytes, hash them ──> collector (in the producer's thread)
//!    ^                                                                     │
//!    └───────────────────────── empty buffers ─────────────────────────────┘
//! ```
//!
//! There are two buffers more than workers. A producer that runs ahead waits for one of them, so memory stays bounded
//! whatever the data's size is.

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use crate::{
    BLOCK_BYTES,
    chunk::{CHUNK_BYTES, HashBlock, hash_block, hash_data_blocks, hash_pieces},
};

/// Most worker threads that are of use: beyond it the producer is what limits.
const MAX_WORKERS: usize = 64;

/// What hashing one chunk gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashedChunk {
    /// Which chunk: its data begins at this many times [`CHUNK_BYTES`].
    pub index: u64,
    /// The leaf block over its data.
    pub leaf: Box<HashBlock>,
    /// The leaf block's own digest.
    pub digest: [u8; 32],
}

/// A chunk on its way to a worker.
struct Job {
    index: u64,
    bytes: Vec<u8>,
}

/// A chunk on its way back: its buffer, to be used again, and what came of it.
struct Done {
    bytes: Vec<u8>,
    outcome: io::Result<HashedChunk>,
}

/// The producer's end.
pub struct ChunkQueue<'a> {
    jobs: Sender<Job>,
    done: Receiver<Done>,
    spare: Vec<Vec<u8>>,
    /// Buffers that may still be made.
    unmade: usize,
    in_flight: usize,
    zeros: Option<HashedChunk>,
    collect: &'a mut dyn FnMut(HashedChunk) -> io::Result<()>,
}

/// Runs `produce` here and the hashing of what it submits on `threads` other threads.
///
/// Workers call `store(offset, bytes)` for each piece of a chunk before they hash it. Each finished chunk goes to `collect`, in
/// any order, called from this thread. All chunks have been stored and collected when this returns `Ok`.
///
/// # Errors
/// The first error of `produce`, `store` or `collect`. What was stored until then stays.
pub fn hash_chunks<T, E: From<io::Error>>(
    threads: NonZeroUsize,
    store: &(dyn Fn(u64, &[u8]) -> io::Result<()> + Sync),
    collect: &mut dyn FnMut(HashedChunk) -> io::Result<()>,
    produce: impl FnOnce(&mut ChunkQueue<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let workers = threads.get().min(MAX_WORKERS);
    let (jobs, waiting) = mpsc::channel();
    let (finished, done) = mpsc::channel();
    let waiting = Mutex::new(waiting);
    thread::scope(|scope| {
        for _ in 0..workers {
            let (waiting, finished) = (&waiting, finished.clone());
            scope.spawn(move || work(waiting, &finished, store));
        }
        // Only workers must be able to keep the channel open: without any, waiting for a chunk has to fail.
        drop(finished);
        let unmade = workers.saturating_add(2);
        let mut queue = ChunkQueue { jobs, done, spare: Vec::new(), unmade, in_flight: 0, zeros: None, collect };
        let made = produce(&mut queue)?;
        while queue.in_flight > 0 {
            queue.wait()?;
        }
        Ok(made)
    })
}

/// A worker: takes chunks until there are no more.
fn work(
    waiting: &Mutex<Receiver<Job>>,
    finished: &Sender<Done>,
    store: &(dyn Fn(u64, &[u8]) -> io::Result<()> + Sync),
) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { index, bytes }) = next else { return };
        let outcome = HashedChunk::stored(index, &bytes, store);
        if finished.send(Done { bytes, outcome }).is_err() {
            return;
        }
    }
}

impl HashedChunk {
    /// Stores and hashes one chunk's data, piece by piece.
    ///
    /// # Errors
    /// Those of `store`; [`io::ErrorKind::InvalidInput`] where it is not whole blocks, or more than a chunk.
    fn stored(index: u64, data: &[u8], store: &dyn Fn(u64, &[u8]) -> io::Result<()>) -> io::Result<Self> {
        let offset = index.saturating_mul(CHUNK_BYTES as u64);
        let mut leaf = Box::new([0; BLOCK_BYTES]);
        hash_pieces(data.len(), &mut leaf, |piece, digests| {
            let start = offset.saturating_add(piece.start as u64);
            let bytes = data.get(piece).unwrap_or_default();
            store(start, bytes)?;
            hash_data_blocks(bytes, digests)
        })?;
        Ok(Self { index, digest: hash_block(&leaf), leaf })
    }
}

impl ChunkQueue<'_> {
    /// An empty buffer of [`CHUNK_BYTES`] bytes, whose content is left over from before; waits until there is one.
    ///
    /// # Errors
    /// Those of `store` and `collect` for chunks that have come back.
    pub fn buffer(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = loop {
            if let Some(spare) = self.spare.pop() {
                break spare;
            }
            if let Some(fewer) = self.unmade.checked_sub(1) {
                self.unmade = fewer;
                break Vec::new();
            }
            self.wait()?;
        };
        bytes.resize(CHUNK_BYTES, 0);
        Ok(bytes)
    }

    /// Hands a chunk over: whole blocks, and all of [`CHUNK_BYTES`] but for the last chunk.
    ///
    /// # Errors
    /// Those of `collect` for chunks that have come back.
    pub fn submit(&mut self, index: u64, bytes: Vec<u8>) -> io::Result<()> {
        self.jobs.send(Job { index, bytes }).map_err(|_| ended())?;
        self.in_flight = self.in_flight.saturating_add(1);
        while let Ok(done) = self.done.try_recv() {
            self.take(done)?;
        }
        Ok(())
    }

    /// A whole chunk of zeros: not stored, since what was never written reads as zeros, and hashed only once.
    ///
    /// # Errors
    /// Those of `collect`.
    pub fn submit_zeros(&mut self, index: u64) -> io::Result<()> {
        let zeros = match self.zeros.take() {
            Some(zeros) => zeros,
            None => HashedChunk::stored(index, &vec![0; CHUNK_BYTES], &|_, _| Ok(()))?,
        };
        let zeros = self.zeros.insert(HashedChunk { index, ..zeros });
        (self.collect)(zeros.clone())
    }

    /// Gives back a buffer that is not needed.
    pub fn give_back(&mut self, bytes: Vec<u8>) {
        self.spare.push(bytes);
    }

    /// Waits for one chunk to come back.
    fn wait(&mut self) -> io::Result<()> {
        let done = self.done.recv().map_err(|_| ended())?;
        self.take(done)
    }

    /// Takes a chunk back and passes its hashes on.
    fn take(&mut self, done: Done) -> io::Result<()> {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.spare.push(done.bytes);
        (self.collect)(done.outcome?)
    }
}

/// A worker's thread ended early, which it does only by a panic.
fn ended() -> io::Error {
    io::Error::other("a hashing thread ended early")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_store_is_reported() {
        let threads = NonZeroUsize::new(2).unwrap();
        let store = |offset: u64, _: &[u8]| if offset == 0 { Ok(()) } else { Err(io::Error::other("disk full")) };
        let result: io::Result<()> = hash_chunks(threads, &store, &mut |_| Ok(()), |queue| {
            for index in 0..50 {
                let bytes = queue.buffer()?;
                queue.submit(index, bytes)?;
            }
            Ok(())
        });
        assert_eq!(result.unwrap_err().to_string(), "disk full");
    }

    #[test]
    fn zeros_hash_as_if_they_were_stored() {
        let mut seen = Vec::new();
        let threads = NonZeroUsize::MIN;
        let mut collect = |chunk| {
            seen.push(chunk);
            Ok(())
        };
        hash_chunks(threads, &|_, _| Ok(()), &mut collect, |queue| -> io::Result<()> {
            queue.submit_zeros(0)?;
            queue.submit_zeros(1)?;
            let mut bytes = queue.buffer()?;
            bytes.fill(0);
            queue.submit(2, bytes)
        })
        .unwrap();
        assert_eq!(seen.iter().map(|chunk| chunk.index).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(seen.windows(2).all(|pair| pair[0].leaf == pair[1].leaf && pair[0].digest == pair[1].digest));
    }
}
