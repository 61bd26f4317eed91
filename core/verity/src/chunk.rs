//! The unit of work: as many data blocks as one leaf block of the tree has digests for.

use caveau_hash::{LengthError, hash_blocks};

use crate::{BLOCK_BYTES, SALT};

/// Data blocks of one chunk.
pub const CHUNK_BLOCKS: usize = BLOCK_BYTES / caveau_hash::DIGEST_BYTES;

/// Bytes of one chunk: 512 KiB.
pub const CHUNK_BYTES: usize = CHUNK_BLOCKS * BLOCK_BYTES;

/// One block of the hash tree: up to 128 digests, zeros after the last.
pub type HashBlock = [u8; BLOCK_BYTES];

/// Hashes a chunk's data blocks into the leaf block over them.
///
/// # Errors
/// [`LengthError`] where `data` is not whole blocks, or more than a chunk.
pub fn hash_chunk(data: &[u8], leaf: &mut HashBlock) -> Result<(), LengthError> {
    let digests = (data.len() / BLOCK_BYTES).saturating_mul(caveau_hash::DIGEST_BYTES);
    let mismatch = LengthError { data: data.len(), block_size: BLOCK_BYTES, out: BLOCK_BYTES };
    let (used, rest) = leaf.split_at_mut_checked(digests).ok_or(mismatch)?;
    rest.fill(0);
    hash_blocks(&SALT, BLOCK_BYTES, data, used)
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

    #[test]
    fn leaf_is_padded_with_zeros() {
        let mut leaf = [7; BLOCK_BYTES];
        hash_chunk(&[1; 3 * BLOCK_BYTES], &mut leaf).unwrap();
        assert_eq!(leaf[..32], hash_block(&[1; BLOCK_BYTES]));
        assert_eq!(leaf[..32], leaf[64..96]);
        assert!(leaf[96..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn more_than_a_chunk_or_half_a_block_is_refused() {
        for bytes in [CHUNK_BYTES + BLOCK_BYTES, BLOCK_BYTES / 2] {
            assert!(hash_chunk(&vec![0; bytes], &mut [0; BLOCK_BYTES]).is_err());
        }
    }
}
