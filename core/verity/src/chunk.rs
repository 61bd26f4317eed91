//! The unit of work: as many data blocks as one leaf block of the tree has digests for.

use std::{io, ops::Range};

use caveau_hash::{DIGEST_BYTES, hash_blocks};

use crate::{BLOCK_BYTES, BlockSource, SALT};

/// Data blocks of one chunk.
pub const CHUNK_BLOCKS: usize = BLOCK_BYTES / DIGEST_BYTES;

/// Bytes of one chunk: 512 KiB.
pub const CHUNK_BYTES: usize = CHUNK_BLOCKS * BLOCK_BYTES;

/// Bytes that are had and hashed at a time: 64 KiB, which stay in a core's own cache in between. A whole chunk would not,
/// and would be fetched from memory twice.
pub(crate) const PIECE_BYTES: usize = 64 << 10;

/// Bytes of the digests of a piece.
const PIECE_DIGESTS: usize = PIECE_BYTES / BLOCK_BYTES * DIGEST_BYTES;

/// One block of the hash tree: up to 128 digests, zeros after the last.
pub type HashBlock = [u8; BLOCK_BYTES];

/// Hashes a chunk of `length` bytes into the leaf block over its data blocks: calls `hash` for each piece in order, with the
/// piece's place in the chunk and that of its digests.
///
/// # Errors
/// Those of `hash`; [`io::ErrorKind::InvalidInput`] where `length` is not whole blocks, or more than a chunk.
pub(crate) fn hash_pieces(
    length: usize,
    leaf: &mut HashBlock,
    mut hash: impl FnMut(Range<usize>, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    if length > CHUNK_BYTES || !length.is_multiple_of(BLOCK_BYTES) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "failed to hash a chunk of {length} bytes: expected whole blocks of {BLOCK_BYTES}, at most {CHUNK_BYTES}"
            ),
        ));
    }
    let starts = (0..CHUNK_BYTES).step_by(PIECE_BYTES);
    for (start, digests) in starts.zip(leaf.chunks_exact_mut(PIECE_DIGESTS)) {
        let end = start.saturating_add(PIECE_BYTES).min(length).max(start);
        let count = end.saturating_sub(start) / BLOCK_BYTES;
        let (used, rest) = digests.split_at_mut(count.saturating_mul(DIGEST_BYTES).min(PIECE_DIGESTS));
        rest.fill(0);
        if count > 0 {
            hash(start..end, used)?;
        }
    }
    Ok(())
}

/// Hashes a chunk of `length` bytes that lies in a source from `offset` on, by way of a buffer of [`PIECE_BYTES`].
///
/// # Errors
/// As [`hash_pieces`], and those of the source.
pub(crate) fn hash_chunk_of(
    source: &(impl BlockSource + ?Sized),
    (offset, length): (u64, usize),
    buffer: &mut [u8],
    leaf: &mut HashBlock,
) -> io::Result<()> {
    hash_pieces(length, leaf, |piece, digests| {
        let buffer = buffer.get_mut(..piece.len()).ok_or(io::ErrorKind::InvalidInput)?;
        let data = source.lend(offset.saturating_add(piece.start as u64), buffer)?;
        hash_data_blocks(data, digests)
    })
}

/// Digests of data blocks.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] where `data` is not whole blocks, or `digests` not as long as their digests.
pub(crate) fn hash_data_blocks(data: &[u8], digests: &mut [u8]) -> io::Result<()> {
    hash_blocks(&SALT, BLOCK_BYTES, data, digests).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Digest of one block, of data or of the tree.
#[must_use]
pub fn hash_block(block: &HashBlock) -> [u8; 32] {
    let mut digest = [0; 32];
    // The lengths are those of the types: there is nothing that could be refused.
    let _always_fits = hash_blocks(&SALT, BLOCK_BYTES, block, &mut digest);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_chunk(data: &[u8], leaf: &mut HashBlock) -> io::Result<()> {
        hash_chunk_of(data, (0, data.len()), &mut [0; PIECE_BYTES], leaf)
    }

    #[test]
    fn leaf_is_padded_with_zeros() {
        let mut leaf = [7; BLOCK_BYTES];
        hash_chunk(&[1; 3 * BLOCK_BYTES], &mut leaf).unwrap();
        assert_eq!(leaf[..32], hash_block(&[1; BLOCK_BYTES]));
        assert_eq!(leaf[..32], leaf[64..96]);
        assert!(leaf[96..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn pieces_make_up_the_chunk() {
        let blocks = PIECE_BYTES / BLOCK_BYTES;
        for count in [blocks - 1, blocks, blocks + 1, 3 * blocks + 5, CHUNK_BLOCKS] {
            let data: Vec<u8> = (0..count).flat_map(|block| [u8::try_from(block).unwrap(); BLOCK_BYTES]).collect();
            let mut leaf = [7; BLOCK_BYTES];
            hash_chunk(&data, &mut leaf).unwrap();
            let mut expected: Vec<u8> = data.as_chunks().0.iter().flat_map(hash_block).collect();
            expected.resize(BLOCK_BYTES, 0);
            assert_eq!(leaf.as_slice(), expected, "{count} blocks");
        }
    }

    #[test]
    fn more_than_a_chunk_or_half_a_block_is_refused() {
        for bytes in [CHUNK_BYTES + BLOCK_BYTES, BLOCK_BYTES / 2] {
            assert!(hash_chunk(&vec![0; bytes], &mut [0; BLOCK_BYTES]).is_err());
        }
    }
}
