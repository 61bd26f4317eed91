//! SHA-256 of many equal blocks at once, several streams a core.
//!
//! A single SHA-256 stream leaves most of a core idle: each round waits for the one before. Blocks of a hash tree are
//! independent of one another, so several are hashed together:
//!
//! | processor | streams | module |
//! |---|---|---|
//! | with AVX-512 (F and BW) | sixteen, one in each element of a register | `wide` |
//! | with the SHA extensions | two, their instructions interleaved | `interleaved` |
//! | any other | one, through the `sha2` crate | `portable` |
//!
//! The last is also what the others are tested against.
//!
//! - Trusts: its caller for nothing; lengths that do not fit together are an error.
//! - Promises: the same digests on every processor; no allocation; reads and writes only the slices that it is given.
//! - Refuses: nothing else. It is the only crate of `core` with unsafe code: calls of functions for processor features
//!   that were detected, and bytes taken for registers.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes,
        reason = "a test may panic: that is how it fails"
    )
)]

#[cfg(target_arch = "x86_64")]
mod interleaved;
#[cfg(target_arch = "x86_64")]
mod message;
mod portable;
#[cfg(target_arch = "x86_64")]
mod wide;

/// Bytes in one SHA-256 digest.
pub const DIGEST_BYTES: usize = 32;

/// Bytes of salt hashed before each block.
pub const SALT_BYTES: usize = 32;

/// Lengths of the slices given to [`hash_blocks`] that do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to hash {data} bytes in blocks of {block_size} into {out} bytes: expected whole blocks, at least one byte each, and 32 bytes of output for each block"
)]
pub struct LengthError {
    /// Bytes of data given.
    pub data: usize,
    /// Size of one block in bytes, as given.
    pub block_size: usize,
    /// Bytes of output given.
    pub out: usize,
}

/// Hashes each block of `data` with the salt before it, `SHA-256(salt ‖ block)`, and writes the digests one after
/// another to `out`.
///
/// `data` holds whole blocks of `block_size` bytes; `out` holds exactly 32 bytes for each. This is the hash of a
/// version 1 dm-verity tree (kernel documentation, `admin-guide/device-mapper/verity`).
///
/// # Errors
/// [`LengthError`] where the three lengths do not fit together; nothing is written then.
pub fn hash_blocks(salt: &[u8; SALT_BYTES], block_size: usize, data: &[u8], out: &mut [u8]) -> Result<(), LengthError> {
    let mismatch = LengthError { data: data.len(), block_size, out: out.len() };
    let blocks = data.len().checked_div(block_size).ok_or(mismatch)?;
    if blocks.checked_mul(block_size) != Some(data.len()) || blocks.checked_mul(DIGEST_BYTES) != Some(out.len()) {
        return Err(mismatch);
    }
    #[cfg(target_arch = "x86_64")]
    let (data, out) = {
        let hashed = wide::hash_blocks(salt, block_size, data, out);
        let data = data.get(hashed.saturating_mul(block_size)..).unwrap_or_default();
        let out = out.get_mut(hashed.saturating_mul(DIGEST_BYTES)..).unwrap_or_default();
        if interleaved::hash_blocks(salt, block_size, data, out) {
            return Ok(());
        }
        (data, out)
    };
    portable::hash_blocks(salt, block_size, data, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn reference(salt: &[u8; 32], block_size: usize, data: &[u8]) -> Vec<u8> {
        data.chunks(block_size)
            .flat_map(|block| Sha256::new().chain_update(salt).chain_update(block).finalize())
            .collect()
    }

    proptest! {
        #[test]
        fn agrees_with_sha2(
            salt: [u8; 32],
            block_size in prop_oneof![1_usize..300, Just(64_usize), Just(128), Just(4096)],
            count in 0_usize..40,
            seed: u64,
        ) {
            let mut state = seed;
            let data: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .take(block_size * count)
            .collect();
            let expected = reference(&salt, block_size, &data);
            let mut whole = vec![0; 32 * count];
            hash_blocks(&salt, block_size, &data, &mut whole).unwrap();
            prop_assert_eq!(&whole, &expected);
            let mut plain = vec![0; 32 * count];
            portable::hash_blocks(&salt, block_size, &data, &mut plain);
            prop_assert_eq!(&plain, &expected);
            #[cfg(target_arch = "x86_64")]
            {
                let mut pairs = vec![0; 32 * count];
                let able = interleaved::hash_blocks(&salt, block_size, &data, &mut pairs);
                prop_assert!(!able || pairs == expected);
            }
        }
    }

    #[test]
    fn known_digest_of_a_zero_block() {
        let mut out = [0; 32];
        hash_blocks(&[0; 32], 4096, &[0; 4096], &mut out).unwrap();
        // head -c 4128 /dev/zero | sha256sum
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "2e534ef0107d592d1706ac38ad58596b85ef3375d360a6d669f974792df5cb5a");
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let mut out = [0; 64];
        for (block_size, data) in [(0, 0), (64, 63), (64, 64), (64, 192), (63, 128)] {
            let error = hash_blocks(&[0; 32], block_size, &vec![0; data], &mut out).unwrap_err();
            assert_eq!(error, LengthError { data, block_size, out: 64 });
        }
        assert_eq!(out, [0; 64], "nothing is written where lengths are refused");
    }
}
