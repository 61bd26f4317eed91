//! Checks a device, data with superblock and tree, against the root hash that it should have.

use std::{
    io,
    num::NonZeroUsize,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    BLOCK_BYTES, BlockSource, GeometryError, HashBlock, RootHash, Superblock, SuperblockError, VerityGeometry,
    chunk::{CHUNK_BLOCKS, CHUNK_BYTES, PIECE_BYTES, hash_block, hash_chunk_of},
    tree::on_threads,
};

/// How a device differs from what its root hash promises.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A data block is not what its digest says.
    #[error("failed to verify the layer: data block {block} is damaged")]
    Data {
        /// Number of the block.
        block: u64,
    },
    /// The size is not that of a layer.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The device cannot be read.
    #[error("failed to read the layer")]
    Read(#[from] io::Error),
    /// The tree's top does not hash to the root.
    #[error("failed to verify the layer: expected root hash {expected}, found {found}")]
    Root {
        /// The root expected.
        expected: RootHash,
        /// The root that the tree has.
        found: RootHash,
    },
    /// The superblock is damaged.
    #[error("failed to verify the layer")]
    Superblock(#[from] SuperblockError),
    /// The superblock tells another size than the device has.
    #[error(
        "failed to verify the layer: expected {expected} data blocks from its size, found {found} in its superblock"
    )]
    SuperblockBlocks {
        /// Data blocks that the device's size means.
        expected: u64,
        /// Data blocks that the superblock tells.
        found: u64,
    },
    /// A hash block is not what the level above says.
    #[error("failed to verify the layer: hash block {block} is damaged")]
    Tree {
        /// Number of the block, counted from the device's start.
        block: u64,
    },
}

/// Checks superblock and upper tree, and returns the layout and the digests that the leaf blocks must have.
fn verify_upper(
    source: &(impl BlockSource + ?Sized),
    device_bytes: u64,
    root: &RootHash,
) -> Result<(VerityGeometry, Vec<u8>), VerifyError> {
    let geometry = VerityGeometry::of_device(device_bytes)?;
    let superblock = Superblock::parse(&read_block(source, geometry.data_blocks())?)?;
    let (expected, found) = (geometry.data_blocks(), superblock.geometry().data_blocks());
    if found != expected {
        return Err(VerifyError::SuperblockBlocks { expected, found });
    }
    let levels = geometry.level_blocks();
    let mut digests = root.as_bytes().to_vec();
    for (level, blocks) in levels.iter().enumerate().skip(1).rev() {
        let mut content = Vec::new();
        let numbers = geometry.level_start(level)..;
        for ((block, digest), _) in numbers.zip(digests.as_chunks().0).zip(0..*blocks) {
            content.extend(read_hash_block(source, block, digest, geometry, root)?);
        }
        digests = content;
    }
    Ok((geometry, digests))
}

/// Reads a block of the tree and checks it against its digest.
fn read_hash_block(
    source: &(impl BlockSource + ?Sized),
    block: u64,
    digest: &[u8; 32],
    geometry: VerityGeometry,
    root: &RootHash,
) -> Result<HashBlock, VerifyError> {
    let content = read_block(source, block)?;
    let found = hash_block(&content);
    if found == *digest {
        return Ok(content);
    }
    if block == geometry.hash_start_block() {
        return Err(VerifyError::Root { expected: *root, found: RootHash::computed(found) });
    }
    Err(VerifyError::Tree { block })
}

/// Reads one block.
fn read_block(source: &(impl BlockSource + ?Sized), block: u64) -> Result<HashBlock, VerifyError> {
    let mut content = [0; BLOCK_BYTES];
    source.read_at(block.saturating_mul(BLOCK_BYTES as u64), &mut content)?;
    Ok(content)
}

/// Checks superblock and tree against a root hash, not the data below: enough to know that dm-verity will refuse every
/// block that is not the layer's. It reads a 128th of the device.
///
/// # Errors
/// [`VerifyError`] with the first thing found wrong.
pub fn verify_tree(
    source: &(impl BlockSource + ?Sized),
    device_bytes: u64,
    root: &RootHash,
) -> Result<VerityGeometry, VerifyError> {
    let (geometry, digests) = verify_upper(source, device_bytes, root)?;
    let leaves = geometry.level_blocks().first().copied().unwrap_or_default();
    let numbers = geometry.level_start(0)..;
    for ((block, digest), _) in numbers.zip(digests.as_chunks().0).zip(0..leaves) {
        read_hash_block(source, block, digest, geometry, root)?;
    }
    Ok(geometry)
}

/// Checks superblock, tree and every data block against a root hash, with `threads` threads at once.
///
/// # Errors
/// [`VerifyError`] with something found wrong, where there is more than one not always the same.
pub fn verify_device(
    source: &(impl BlockSource + ?Sized),
    device_bytes: u64,
    root: &RootHash,
    threads: NonZeroUsize,
) -> Result<VerityGeometry, VerifyError> {
    let (geometry, digests) = verify_upper(source, device_bytes, root)?;
    let leaf_start = geometry.level_start(0);
    let chunks = geometry.data_blocks().div_ceil(CHUNK_BLOCKS as u64);
    let next = AtomicU64::new(0);
    let verify_some = || -> Result<(), VerifyError> {
        let (mut buffer, mut found) = (vec![0; PIECE_BYTES], [0; BLOCK_BYTES]);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let digest = usize::try_from(index).ok().and_then(|index| digests.as_chunks().0.get(index));
            let Some(digest) = digest.filter(|_| index < chunks) else { return Ok(()) };
            let offset = index.saturating_mul(CHUNK_BYTES as u64);
            let length = geometry.data_bytes().saturating_sub(offset).min(CHUNK_BYTES as u64) as usize;
            hash_chunk_of(source, (offset, length), &mut buffer, &mut found)?;
            let expected = if geometry.data_blocks() == 1 {
                single_digest(digest)
            } else {
                read_hash_block(source, leaf_start.saturating_add(index), digest, geometry, root)?
            };
            compare(index, &expected, &found)?;
        }
    };
    on_threads(threads, &verify_some)?;
    Ok(geometry)
}

/// The leaf block that a tree over one block would have, were it stored.
fn single_digest(digest: &[u8; 32]) -> HashBlock {
    let mut leaf = [0; BLOCK_BYTES];
    if let Some(first) = leaf.first_chunk_mut() {
        *first = *digest;
    }
    leaf
}

/// Names the first data block of a chunk whose digest differs.
fn compare(chunk: u64, expected: &HashBlock, found: &HashBlock) -> Result<(), VerifyError> {
    let pairs = expected.as_chunks::<32>().0.iter().zip(found.as_chunks::<32>().0);
    match (chunk.saturating_mul(CHUNK_BLOCKS as u64)..).zip(pairs).find(|(_, (expected, found))| expected != found) {
        Some((block, _)) => Err(VerifyError::Data { block }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HashTree;

    const THREADS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    fn device(blocks: usize) -> (Vec<u8>, HashTree) {
        let mut bytes: Vec<u8> = (0..blocks * BLOCK_BYTES).map(|place| (place / 509 * 7 + place) as u8).collect();
        let tree = HashTree::of_source(bytes.as_slice(), bytes.len() as u64, THREADS).unwrap();
        tree.write_to(&mut bytes).unwrap();
        (bytes, tree)
    }

    fn verify(bytes: &[u8], root: &RootHash) -> Result<VerityGeometry, VerifyError> {
        verify_device(bytes, bytes.len() as u64, root, THREADS)
    }

    #[test]
    fn whole_devices_are_accepted() {
        for blocks in [1, 2, 127, 128, 129, 300] {
            let (bytes, tree) = device(blocks);
            assert_eq!(verify(&bytes, &tree.root()).unwrap(), tree.geometry());
            assert_eq!(verify_tree(bytes.as_slice(), bytes.len() as u64, &tree.root()).unwrap(), tree.geometry());
        }
    }

    #[test]
    fn every_damage_is_named() {
        let (bytes, tree) = device(300);
        let root = tree.root();
        let damaged = |block: usize| {
            let mut copy = bytes.clone();
            copy[block * BLOCK_BYTES + 5] ^= 1;
            copy
        };
        assert!(matches!(verify(&damaged(0), &root), Err(VerifyError::Data { block: 0 })));
        assert!(matches!(verify(&damaged(299), &root), Err(VerifyError::Data { block: 299 })));
        assert!(matches!(verify(&damaged(300), &root), Err(VerifyError::Superblock(_))));
        assert!(matches!(verify(&damaged(301), &root), Err(VerifyError::Root { .. })));
        assert!(matches!(verify(&damaged(304), &root), Err(VerifyError::Tree { block: 304 })));
        let leaf = damaged(303);
        assert!(matches!(
            verify_tree(leaf.as_slice(), leaf.len() as u64, &root),
            Err(VerifyError::Tree { block: 303 })
        ));
        let whole = damaged(0);
        assert!(verify_tree(whole.as_slice(), whole.len() as u64, &root).is_ok(), "the tree alone is sound");
    }

    #[test]
    fn other_roots_and_sizes_are_refused() {
        let (bytes, _) = device(300);
        let other = "00".repeat(32).parse().unwrap();
        assert!(matches!(verify(&bytes, &other), Err(VerifyError::Root { .. })));
        assert!(matches!(verify(&bytes[..bytes.len() - 4096 * 2], &other), Err(VerifyError::Superblock(_))));
        assert!(matches!(verify(&bytes[..bytes.len() - 1], &other), Err(VerifyError::Geometry(_))));
        let (mut single, tree) = device(1);
        assert!(verify(&single, &tree.root()).is_ok());
        single[9] ^= 1;
        assert!(matches!(verify(&single, &tree.root()), Err(VerifyError::Data { block: 0 })));
    }
}
