//! Where pieces come from: threads, or the reader's own.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};

use crate::pieces::{Piece, Worker};
use crate::source::{Cut, Source};

/// Guesses in a row that came to nothing, after which most chunks are left to the reader.
const MISSES: u64 = 3;

/// Of how many chunks one is guessed at nevertheless.
const AGAIN: u64 = 8;

/// Pieces beyond those in work: the reader's, the next one, and some that are done.
const SPARE: usize = 4;

/// Fills pieces.
struct Feed<R> {
    source: Source<R>,
    free: Receiver<Box<Piece>>,
    misses: Arc<AtomicU64>,
}

impl<R: Read> Feed<R> {
    fn supply(&mut self, may_wait: bool) -> io::Result<Option<(Box<Piece>, bool)>> {
        let free = if may_wait { self.free.recv().ok() } else { self.free.try_recv().ok() };
        let Some(mut piece) = free else { return Ok(None) };
        if !self.source.next(&mut piece.chunk)? {
            return Ok(None);
        }
        let guess = self.misses.load(Ordering::Relaxed) < MISSES || piece.chunk.number() % AGAIN == 0;
        Ok(Some((piece, guess)))
    }
}

/// Who works.
enum Workers<R> {
    Here(Worker, Feed<R>),
    Threads(Receiver<io::Result<Box<Piece>>>, Vec<JoinHandle<()>>),
}

/// Gives pieces in their order.
pub(crate) struct Engine<R> {
    /// Taken only when all ends.
    workers: Option<Workers<R>>,
    free: Option<Sender<Box<Piece>>>,
    early: BTreeMap<u64, Box<Piece>>,
    misses: Arc<AtomicU64>,
    #[cfg(test)]
    pub(crate) hits: u64,
}

impl<R: Read + Send + 'static> Engine<R> {
    /// Over `input`, with so many threads; with none or one, the reader's own does everything.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub(crate) fn new(input: R, cut: Cut, threads: usize) -> io::Result<Self> {
        let (free, free_out) = channel();
        for _ in 0..threads.max(1) * 2 + SPARE {
            // The other end is here.
            let _ = free.send(Piece::new());
        }
        let misses = Arc::new(AtomicU64::new(0));
        let feed = Feed { source: Source::new(input, cut), free: free_out, misses: Arc::clone(&misses) };
        let workers = if threads < 2 { Workers::Here(Worker::default(), feed) } else { start(feed, threads)? };
        Ok(Self {
            workers: Some(workers),
            free: Some(free),
            early: BTreeMap::new(),
            misses,
            #[cfg(test)]
            hits: 0,
        })
    }
}

/// Starts threads.
fn start<R: Read + Send + 'static>(feed: Feed<R>, threads: usize) -> io::Result<Workers<R>> {
    let feed = Arc::new(Mutex::new(feed));
    let (done, done_out) = channel();
    let mut handles = Vec::new();
    for _ in 0..threads {
        let (feed, done) = (Arc::clone(&feed), done.clone());
        handles.push(thread::Builder::new().name("gunzip".to_owned()).spawn(move || work(&feed, &done))?);
    }
    Ok(Workers::Threads(done_out, handles))
}

/// Says so where a thread ends by a panic: whoever waits for its pieces would wait for ever.
struct Alarm<'a>(&'a Sender<io::Result<Box<Piece>>>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            // A reader that is gone waits for nothing.
            let _ = self.0.send(Err(io::Error::other("a thread that unpacks gzip has failed")));
        }
    }
}

/// What a thread does, until there is no more input or nobody wants more.
fn work<R: Read>(feed: &Mutex<Feed<R>>, done: &Sender<io::Result<Box<Piece>>>) {
    let _alarm = Alarm(done);
    let mut worker = Worker::default();
    let supply = |may_wait| {
        let mut feed = match feed.try_lock() {
            Ok(feed) => feed,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if may_wait => feed.lock().unwrap_or_else(PoisonError::into_inner),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        feed.supply(may_wait)
    };
    while let Some(piece) = worker.next(supply).transpose() {
        let failed = piece.is_err();
        if done.send(piece).is_err() || failed {
            break;
        }
    }
}

impl<R: Read> Engine<R> {
    /// The piece of this number; none behind the last.
    ///
    /// # Errors
    /// Where the input cannot be read, or a thread has died.
    pub(crate) fn piece(&mut self, number: u64) -> io::Result<Option<Box<Piece>>> {
        loop {
            if let Some(piece) = self.early.remove(&number) {
                return Ok(Some(piece));
            }
            let piece = match &mut self.workers {
                Some(Workers::Here(worker, feed)) => worker.next(|may_wait| feed.supply(may_wait))?,
                Some(Workers::Threads(done, _)) => done.recv().ok().transpose()?,
                None => None,
            };
            let Some(piece) = piece else { return Ok(None) };
            self.early.insert(piece.chunk.number(), piece);
        }
    }

    /// Takes back a piece that is used up.
    pub(crate) fn free(&self, piece: Box<Piece>) {
        if let Some(free) = &self.free {
            // At the end there is nobody who wants it.
            let _ = free.send(piece);
        }
    }

    /// Says whether a guess came true.
    pub(crate) fn learn(&mut self, hit: bool) {
        #[cfg(test)]
        {
            self.hits += u64::from(hit);
        }
        let misses = if hit { 0 } else { self.misses.load(Ordering::Relaxed) + 1 };
        self.misses.store(misses, Ordering::Relaxed);
    }
}

impl<R> Drop for Engine<R> {
    fn drop(&mut self) {
        // Without these, threads find nothing more to do.
        self.free = None;
        if let Some(Workers::Threads(done, handles)) = self.workers.take() {
            drop(done);
            for handle in handles {
                // One that has panicked was missed already.
                let _ = handle.join();
            }
        }
    }
}
