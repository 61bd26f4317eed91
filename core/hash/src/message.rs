//! The messages `salt ‖ block` of several lanes, cut into SHA blocks.
//!
//! With blocks of a multiple of 64 bytes, the salt and the front of the data make the first SHA block, the data's end
//! and the padding (FIPS 180-4, section 5.1.1) the last, and all between are read where they lie.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use crate::SALT_BYTES;

/// Bytes that one run of the compression function takes in.
pub(crate) const SHA_BLOCK: usize = 64;

/// Bytes of the data in the first SHA block, after the salt; as many are left over for the last.
const HALF: usize = SHA_BLOCK - SALT_BYTES;

/// Round constants (FIPS 180-4, section 4.2.2).
#[rustfmt::skip]
pub(crate) const K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// Initial state, A to H (FIPS 180-4, section 5.3.3).
pub(crate) const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// What is left of each lane's data.
pub(crate) struct Lanes<'a, const LANES: usize> {
    rest: [&'a [u8]; LANES],
    message_bytes: usize,
}

impl<'a, const LANES: usize> Lanes<'a, LANES> {
    /// One block in each lane, all of the same length.
    #[inline]
    pub(crate) fn new(blocks: [&'a [u8]; LANES]) -> Self {
        let block = blocks.first().map_or(0, |block| block.len());
        Self { rest: blocks, message_bytes: block.saturating_add(SALT_BYTES) }
    }

    /// The first SHA block of each message.
    #[inline]
    pub(crate) fn first(&mut self, salt: &[u8; SALT_BYTES]) -> [[u8; SHA_BLOCK]; LANES] {
        let mut first = [[0; SHA_BLOCK]; LANES];
        for (first, rest) in first.iter_mut().zip(&mut self.rest) {
            let (head, tail) = rest.split_first_chunk().unwrap_or((&[0; HALF], &[]));
            *first = join(salt, head);
            *rest = tail;
        }
        first
    }

    /// The next whole SHA block of each message, or nothing where there is less.
    #[inline]
    pub(crate) fn next_whole(&mut self) -> Option<[&'a [u8; SHA_BLOCK]; LANES]> {
        let mut whole = [&[0; SHA_BLOCK]; LANES];
        for (whole, rest) in whole.iter_mut().zip(&mut self.rest) {
            (*whole, *rest) = rest.split_first_chunk()?;
        }
        Some(whole)
    }

    /// Asks for what comes two SHA blocks on: of so many lanes no processor foresees that it is wanted.
    #[inline]
    pub(crate) fn prefetch(&self) {
        for rest in self.rest {
            if let Some(later) = rest.get(2 * SHA_BLOCK..) {
                #[expect(unsafe_code, reason = "prefetching takes a pointer")]
                // SAFETY: prefetching reads nothing and cannot fault; the pointer is within or at the end of a slice.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(later.as_ptr().cast());
                }
            }
        }
    }

    /// The last SHA block of each message: what is left, a one bit, zeros, and the message's length in bits.
    #[inline]
    pub(crate) fn last(&self) -> [[u8; SHA_BLOCK]; LANES] {
        let mut padding = [0; HALF];
        padding[0] = 0x80;
        if let Some(length) = padding.last_chunk_mut() {
            *length = (self.message_bytes as u64).saturating_mul(8).to_be_bytes();
        }
        self.rest.map(|rest| join(rest.first_chunk().unwrap_or(&[0; HALF]), &padding))
    }
}

/// Puts one half after the other, in whole registers: byte by byte, this took a tenth of the time.
#[inline]
fn join(first: &[u8; HALF], second: &[u8; HALF]) -> [u8; SHA_BLOCK] {
    let mut block = [0; SHA_BLOCK];
    for (to, from) in block.as_chunks_mut().0.iter_mut().zip([first, second]) {
        *to = *from;
    }
    block
}
