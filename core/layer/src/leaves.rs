//! The tree's leaf blocks while the image grows.
//!
//! Where the tree will lie is known only at the end, since it follows the data. Until then leaf blocks wait: those of
//! the first 2 GiB in memory, 16 MiB of them; later ones far behind the image in the sink itself. Leaf blocks over
//! blocks that may still be written again stay in memory wherever they are.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
};

use caveau_verity::{
    BLOCK_BYTES, CHUNK_BLOCKS, HashBlock, HashedChunk, RootHash, Superblock, UpperLevels, VerityGeometry, hash_block,
};

use crate::{BLOCK, ImageSink, bytes::put};

/// Leaf blocks kept in memory: 16 MiB.
const IN_MEMORY: u64 = 4096;

/// Where later leaf blocks wait in the sink: far behind every image that there can be.
const WAITING: u64 = 1 << 38;

/// Chunks whose blocks may be written again later.
pub(crate) type Pins = RefCell<BTreeSet<u64>>;

/// Leaf blocks and their digests.
pub(crate) struct Leaves<'a> {
    sink: Option<&'a dyn ImageSink>,
    pins: &'a Pins,
    digests: Vec<[u8; 32]>,
    kept: BTreeMap<u64, Box<HashBlock>>,
}

impl<'a> Leaves<'a> {
    /// With the sink in which the tree ends up, or none where only the root is wanted.
    pub(crate) fn new(sink: Option<&'a dyn ImageSink>, pins: &'a Pins) -> Self {
        Self { sink, pins, digests: Vec::new(), kept: BTreeMap::new() }
    }

    /// Takes a hashed chunk, in any order.
    pub(crate) fn collect(&mut self, chunk: HashedChunk) -> io::Result<()> {
        let HashedChunk { index, leaf, digest } = chunk;
        self.set_digest(index, digest);
        let pinned = self.pins.borrow().contains(&index);
        match self.sink {
            Some(sink) if index >= IN_MEMORY && !pinned => sink.write_at(waiting_place(index), leaf.as_slice())?,
            None if !pinned => {}
            _ => drop(self.kept.insert(index, leaf)),
        }
        Ok(())
    }

    fn set_digest(&mut self, index: u64, digest: [u8; 32]) {
        let index = index as usize;
        if self.digests.len() <= index {
            self.digests.resize(index.saturating_add(1), [0; 32]);
        }
        if let Some(place) = self.digests.get_mut(index) {
            *place = digest;
        }
    }

    /// Writes a block of a pinned chunk again.
    pub(crate) fn rewrite(&mut self, block: u32, content: &HashBlock) -> io::Result<()> {
        if let Some(sink) = self.sink {
            sink.write_at(u64::from(block).saturating_mul(BLOCK), content)?;
        }
        let (index, within) = ((block as usize).div_euclid(CHUNK_BLOCKS), (block as usize).rem_euclid(CHUNK_BLOCKS));
        let index = index as u64;
        let leaf = self.kept.get_mut(&index).ok_or_else(|| io::Error::other("a block that is not pinned"))?;
        put(leaf.as_mut_slice(), within.saturating_mul(32), &hash_block(content));
        let digest = hash_block(leaf);
        self.set_digest(index, digest);
        Ok(())
    }

    /// Writes superblock and tree behind the data, cuts off what waited behind them, and returns the root.
    pub(crate) fn finish(self, geometry: VerityGeometry) -> io::Result<RootHash> {
        let upper = UpperLevels::of_leaves(self.digests.as_flattened().to_vec());
        let root = upper.root();
        let Some(sink) = self.sink else { return Ok(root) };
        let start = geometry.data_bytes();
        sink.write_at(start, &Superblock::new(geometry, &root).to_block())?;
        for (level, content) in upper.levels().iter().enumerate() {
            let block = geometry.level_start(level.saturating_add(1));
            sink.write_at(block.saturating_mul(BLOCK), content)?;
        }
        let mut kept = self.kept;
        let mut waiting = [0; BLOCK_BYTES];
        for (index, block) in (0..self.digests.len() as u64).zip(geometry.level_start(0)..) {
            let place = block.saturating_mul(BLOCK);
            if let Some(leaf) = kept.remove(&index) {
                sink.write_at(place, leaf.as_slice())?;
            } else {
                sink.read_at(waiting_place(index), &mut waiting)?;
                sink.write_at(place, &waiting)?;
            }
        }
        sink.set_len(geometry.device_bytes())?;
        Ok(root)
    }
}

/// Where a leaf block waits in the sink.
fn waiting_place(index: u64) -> u64 {
    WAITING.saturating_add(index.saturating_mul(BLOCK))
}
