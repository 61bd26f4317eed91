//! One block after another through the `sha2` crate: any processor, any block size.

use sha2::{Digest as _, Sha256};

use crate::{DIGEST_BYTES, SALT_BYTES};

/// Hashes whole blocks; the caller has checked the lengths.
pub(crate) fn hash_blocks(salt: &[u8; SALT_BYTES], block_size: usize, data: &[u8], out: &mut [u8]) {
    for (block, digest) in data.chunks_exact(block_size).zip(out.chunks_exact_mut(DIGEST_BYTES)) {
        digest.copy_from_slice(&Sha256::new().chain_update(salt).chain_update(block).finalize());
    }
}
