//! The tree over data that is at hand: a file's blocks, a slice, or a stream.

use std::{
    io::{self, Read, Write},
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    thread,
};

use crate::{
    BLOCK_BYTES, GeometryError, RootHash, Superblock, VerityGeometry,
    chunk::{CHUNK_BYTES, PIECE_BYTES, hash_block, hash_chunk_of},
    queue::hash_chunks,
};

/// Data that several threads can read at once.
pub trait BlockSource: Sync {
    /// Fills `buffer` from `offset` on, in bytes.
    ///
    /// # Errors
    /// Whatever reading fails with; [`io::ErrorKind::UnexpectedEof`] where there are not so many bytes.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// As many bytes as `buffer` has, from `offset` on, read into it or lent from where they are.
    ///
    /// # Errors
    /// Those of [`Self::read_at`].
    fn lend<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        self.read_at(offset, buffer)?;
        Ok(buffer)
    }
}

impl BlockSource for [u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        buffer.copy_from_slice(part(self, offset, end)?);
        Ok(())
    }

    fn lend<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        part(self, offset, offset.saturating_add(buffer.len() as u64))
    }
}

/// The bytes between two offsets.
fn part(bytes: &[u8], start: u64, end: u64) -> io::Result<&[u8]> {
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok()).map(|(start, end)| start..end);
    range.and_then(|range| bytes.get(range)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Data over which no tree can be made.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// No data, or too much.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The data ends within a block.
    #[error("failed to make a hash tree over {bytes} bytes: expected whole blocks of {BLOCK_BYTES} bytes")]
    PartialBlock {
        /// Bytes of data.
        bytes: u64,
    },
    /// The data cannot be read.
    #[error("failed to read the data to be hashed")]
    Read(#[from] io::Error),
}

/// A whole tree in memory: 32 bytes for each data block, and as much again over 128 of the levels above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashTree {
    geometry: VerityGeometry,
    root: RootHash,
    /// Levels from the leaves up, each whole blocks.
    levels: Vec<Vec<u8>>,
}

/// All levels above the leaves, and the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpperLevels {
    levels: Vec<Vec<u8>>,
    root: RootHash,
}

impl UpperLevels {
    /// Builds them from the leaf blocks' digests, one after another in order; there must be at least one.
    #[must_use]
    pub fn of_leaves(digests: Vec<u8>) -> Self {
        let mut levels = Vec::new();
        let mut below = digests;
        while below.len() > caveau_hash::DIGEST_BYTES {
            below.resize(below.len().next_multiple_of(BLOCK_BYTES), 0);
            let above = below.as_chunks().0.iter().flat_map(hash_block).collect();
            levels.push(below);
            below = above;
        }
        let root = RootHash::computed(below.first_chunk().copied().unwrap_or_default());
        Self { levels, root }
    }

    /// The levels above the leaves from the bottom up, each whole blocks; none where there is but one leaf block.
    #[must_use]
    pub fn levels(&self) -> &[Vec<u8>] {
        &self.levels
    }

    /// The root hash.
    #[must_use]
    pub fn root(&self) -> RootHash {
        self.root
    }
}

impl HashTree {
    /// The tree over the first `data_bytes` bytes of a source, read and hashed by `threads` threads at once.
    ///
    /// # Errors
    /// [`TreeError`] where there is no data, too much, half a block, or reading fails.
    pub fn of_source(
        source: &(impl BlockSource + ?Sized),
        data_bytes: u64,
        threads: NonZeroUsize,
    ) -> Result<Self, TreeError> {
        let geometry = whole_blocks(data_bytes)?;
        let leaf_blocks = geometry.data_blocks().div_ceil(crate::CHUNK_BLOCKS as u64);
        let mut leaves = vec![0; (leaf_blocks as usize).saturating_mul(BLOCK_BYTES)];
        let work = Mutex::new(leaves.as_chunks_mut().0.iter_mut().zip((0_u64..).step_by(CHUNK_BYTES)));
        let hash_some = || -> io::Result<()> {
            let mut buffer = vec![0; PIECE_BYTES];
            loop {
                let next = work.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((leaf, offset)) = next else { return Ok(()) };
                let length = data_bytes.saturating_sub(offset).min(CHUNK_BYTES as u64) as usize;
                hash_chunk_of(source, (offset, length), &mut buffer, leaf)?;
            }
        };
        on_threads(threads, &hash_some)?;
        Ok(Self::over_leaves(geometry, leaves))
    }

    /// The tree over all that a reader gives, hashed by `threads` threads while this one reads.
    ///
    /// # Errors
    /// [`TreeError`] where there is no data, too much, half a block, or reading fails.
    pub fn of_reader(mut reader: impl Read, threads: NonZeroUsize) -> Result<Self, TreeError> {
        let mut leaves = Vec::new();
        let mut collect = |chunk: crate::HashedChunk| {
            let start = (chunk.index as usize).saturating_mul(BLOCK_BYTES);
            let end = start.saturating_add(BLOCK_BYTES);
            leaves.resize(end.max(leaves.len()), 0);
            if let Some(place) = leaves.get_mut(start..end) {
                place.copy_from_slice(chunk.leaf.as_slice());
            }
            Ok(())
        };
        let data_bytes = hash_chunks(threads, &|_, _| Ok(()), &mut collect, |queue| {
            let mut data_bytes = 0_u64;
            for index in 0.. {
                let mut buffer = queue.buffer()?;
                let length = fill(&mut reader, &mut buffer)?;
                data_bytes = data_bytes.saturating_add(length as u64);
                buffer.truncate(length);
                if !length.is_multiple_of(BLOCK_BYTES) {
                    return Err(TreeError::PartialBlock { bytes: data_bytes });
                }
                if length > 0 {
                    queue.submit(index, buffer)?;
                }
                if length < CHUNK_BYTES {
                    break;
                }
            }
            Ok(data_bytes)
        })?;
        Ok(Self::over_leaves(whole_blocks(data_bytes)?, leaves))
    }

    /// The tree above complete leaves.
    fn over_leaves(geometry: VerityGeometry, leaves: Vec<u8>) -> Self {
        if geometry.data_blocks() == 1 {
            // A tree over one block has no levels: the block's own digest is the root.
            let root = RootHash::computed(leaves.first_chunk().copied().unwrap_or_default());
            return Self { geometry, root, levels: Vec::new() };
        }
        let upper = UpperLevels::of_leaves(leaves.as_chunks().0.iter().flat_map(hash_block).collect());
        let mut levels = vec![leaves];
        levels.extend(upper.levels);
        Self { geometry, root: upper.root, levels }
    }

    /// Where everything lies.
    #[must_use]
    pub fn geometry(&self) -> VerityGeometry {
        self.geometry
    }

    /// The root hash.
    #[must_use]
    pub fn root(&self) -> RootHash {
        self.root
    }

    /// Writes superblock and tree, which belong right behind the data.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_to(&self, mut writer: impl Write) -> io::Result<()> {
        writer.write_all(&Superblock::new(self.geometry, &self.root).to_block())?;
        self.levels.iter().rev().try_for_each(|level| writer.write_all(level))
    }
}

/// The layout over so many bytes of data.
fn whole_blocks(data_bytes: u64) -> Result<VerityGeometry, TreeError> {
    if !data_bytes.is_multiple_of(BLOCK_BYTES as u64) {
        return Err(TreeError::PartialBlock { bytes: data_bytes });
    }
    Ok(VerityGeometry::of_data(data_bytes.checked_div(BLOCK_BYTES as u64).unwrap_or_default())?)
}

/// Reads until the buffer is full or the reader ends; returns how many bytes came.
fn fill(reader: &mut impl Read, mut buffer: &mut [u8]) -> io::Result<usize> {
    let all = buffer.len();
    while !buffer.is_empty() {
        match reader.read(buffer) {
            Ok(0) => break,
            Ok(count) => buffer = buffer.get_mut(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all.saturating_sub(buffer.len()))
}

/// Runs the same work on several threads, this one among them; the first error wins.
pub(crate) fn on_threads<E: Send>(threads: NonZeroUsize, work: &(impl Fn() -> Result<(), E> + Sync)) -> Result<(), E> {
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads.get()).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            // A panic there goes on here, as it would have without threads.
            let outcome = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(outcome);
        }
        result
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THREADS: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    fn data(blocks: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(blocks * BLOCK_BYTES / 8)
        .flatten()
        .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn slice_and_stream_agree(blocks in prop_oneof![1_usize..300, Just(128), Just(256)], seed: u64) {
            let data = data(blocks, seed);
            let tree = HashTree::of_source(data.as_slice(), data.len() as u64, THREADS).unwrap();
            prop_assert_eq!(&HashTree::of_reader(data.as_slice(), NonZeroUsize::MIN).unwrap(), &tree);
            let mut written = Vec::new();
            tree.write_to(&mut written).unwrap();
            prop_assert_eq!((data.len() + written.len()) as u64, tree.geometry().device_bytes());
        }
    }

    #[test]
    fn no_data_or_half_a_block_is_refused() {
        assert!(matches!(HashTree::of_reader(io::empty(), THREADS), Err(TreeError::Geometry(_))));
        let half = [0; BLOCK_BYTES / 2];
        assert!(matches!(HashTree::of_reader(&half[..], THREADS), Err(TreeError::PartialBlock { bytes: 2048 })));
        let source = HashTree::of_source(&half[..], 2048, THREADS);
        assert!(matches!(source, Err(TreeError::PartialBlock { bytes: 2048 })));
        let short = HashTree::of_source(&half[..], 4096, THREADS);
        assert!(matches!(short, Err(TreeError::Read(error)) if error.kind() == io::ErrorKind::UnexpectedEof));
    }
}
