//! Two SHA-256 streams interleaved on the x86 SHA extensions.
//!
//! The message for one block is `salt ‖ block`, 32 + n bytes. With n a multiple of 64 the salt and the first half of a
//! SHA block make the first SHA block, the last half of one and the padding (FIPS 180-4, section 5.1.1) the last, and
//! all between are read where they lie.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_set_epi64x,
    _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
    _mm_shuffle_epi32,
};

use crate::{DIGEST_BYTES, SALT_BYTES};

/// Bytes that one run of the compression function takes in.
const SHA_BLOCK: usize = 64;

/// Bytes of the data in the first SHA block, after the salt; as many are left over for the last.
const HALF: usize = SHA_BLOCK - SALT_BYTES;

/// Round constants, four to a row (FIPS 180-4, section 4.2.2).
#[rustfmt::skip]
const K: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// Initial state (FIPS 180-4, section 5.3.3) in the order that the instructions keep it: F E B A, then H G D C, each
/// from the low word up.
const START: [[u32; 4]; 2] =
    [[0x9b05_688c, 0x510e_527f, 0xbb67_ae85, 0x6a09_e667], [0x5be0_cd19, 0x1f83_d9ab, 0xa54f_f53a, 0x3c6e_f372]];

/// Hashes whole blocks and says so, or does nothing where this processor or block size has to go the portable way.
///
/// The caller has checked the lengths.
pub(crate) fn hash_blocks(salt: &[u8; SALT_BYTES], block_size: usize, data: &[u8], out: &mut [u8]) -> bool {
    let able = is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
        && block_size.is_multiple_of(SHA_BLOCK);
    if able {
        #[expect(unsafe_code, reason = "calling a function compiled for processor features that were just detected")]
        // SAFETY: the features that `in_pairs` is compiled for were detected above; it has no other precondition.
        unsafe {
            in_pairs(salt, block_size, data, out);
        }
    }
    able
}

/// Hashes blocks two by two, and an odd last one alone.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn in_pairs(salt: &[u8; SALT_BYTES], block_size: usize, data: &[u8], out: &mut [u8]) {
    let mut blocks = data.chunks_exact(block_size);
    let mut digests = out.chunks_exact_mut(DIGEST_BYTES);
    while let Some(first) = blocks.next() {
        match blocks.next() {
            Some(second) => digest_lanes(salt, [first, second], &mut digests),
            None => digest_lanes(salt, [first], &mut digests),
        }
    }
}

/// Hashes one block in each lane, all of the same length, and writes each digest to the next place in `digests`.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn digest_lanes<'a, const LANES: usize>(
    salt: &[u8; SALT_BYTES],
    blocks: [&[u8]; LANES],
    digests: &mut impl Iterator<Item = &'a mut [u8]>,
) {
    let [feba, hgdc] = START;
    let mut states = [[words(feba), words(hgdc)]; LANES];
    let mut rest = blocks;
    let mut edges = [[0; SHA_BLOCK]; LANES];
    for (edge, rest) in edges.iter_mut().zip(&mut rest) {
        let (head, tail) = rest.split_at_checked(HALF).unwrap_or_default();
        for (to, from) in edge.iter_mut().zip(salt.iter().chain(head)) {
            *to = *from;
        }
        *rest = tail;
    }
    compress(&mut states, edges.each_ref());
    while let Some(whole) = split_sha_blocks(&mut rest) {
        compress(&mut states, whole);
    }
    for ((edge, rest), block) in edges.iter_mut().zip(rest).zip(blocks) {
        *edge = padded(rest, SALT_BYTES.saturating_add(block.len()));
    }
    compress(&mut states, edges.each_ref());
    for (state, digest) in states.into_iter().zip(digests) {
        store(state, digest);
    }
}

/// Takes one whole SHA block off the front of each lane, or nothing where they hold less.
#[inline]
fn split_sha_blocks<'a, const LANES: usize>(rest: &mut [&'a [u8]; LANES]) -> Option<[&'a [u8; SHA_BLOCK]; LANES]> {
    let mut whole = [&[0; SHA_BLOCK]; LANES];
    for (whole, rest) in whole.iter_mut().zip(rest) {
        (*whole, *rest) = rest.split_first_chunk()?;
    }
    Some(whole)
}

/// The last SHA block of a message: what is left, a one bit, zeros, and the message's length in bits, big-endian.
fn padded(rest: &[u8], message_bytes: usize) -> [u8; SHA_BLOCK] {
    let mut last = [0; SHA_BLOCK];
    let bits = (message_bytes as u64).saturating_mul(8).to_be_bytes();
    for (to, from) in last.iter_mut().zip(rest.iter().chain(&[0x80])) {
        *to = *from;
    }
    if let Some(length) = last.last_chunk_mut() {
        *length = bits;
    }
    last
}

/// One run of the compression function (FIPS 180-4, section 6.2.2) in every lane, their instructions interleaved.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
#[inline]
fn compress<const LANES: usize>(states: &mut [[__m128i; 2]; LANES], blocks: [&[u8; SHA_BLOCK]; LANES]) {
    let before = *states;
    let mut schedule = [[_mm_setzero_si128(); 4]; LANES];
    for (window, block) in schedule.iter_mut().zip(blocks) {
        *window = load(block);
    }
    for constants in &K {
        let constants = words(*constants);
        for (state, window) in states.iter_mut().zip(&mut schedule) {
            four_rounds(state, window, constants);
        }
    }
    for (state, before) in states.iter_mut().zip(before) {
        for (now, before) in state.iter_mut().zip(before) {
            *now = _mm_add_epi32(*now, before);
        }
    }
}

/// Four rounds with the oldest four words of the window, which it then replaces by the next four of the message
/// schedule.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
#[inline]
fn four_rounds(state: &mut [__m128i; 2], window: &mut [__m128i; 4], constants: __m128i) {
    let [abef, cdgh] = *state;
    let [w0, w1, w2, w3] = *window;
    let input = _mm_add_epi32(w0, constants);
    let cdgh = _mm_sha256rnds2_epu32(cdgh, abef, input);
    let abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32::<0x0e>(input));
    *state = [abef, cdgh];
    let partial = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
    *window = [w1, w2, w3, _mm_sha256msg2_epu32(partial, w3)];
}

/// Four words as one register, the first lowest.
#[target_feature(enable = "sse2")]
#[inline]
fn words([a, b, c, d]: [u32; 4]) -> __m128i {
    let pair = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)).cast_signed();
    _mm_set_epi64x(pair(c, d), pair(a, b))
}

/// A SHA block as sixteen words in four registers, turned from big-endian.
#[target_feature(enable = "ssse3")]
#[inline]
fn load(block: &[u8; SHA_BLOCK]) -> [__m128i; 4] {
    let to_big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let mut window = [_mm_setzero_si128(); 4];
    for (register, bytes) in window.iter_mut().zip(block.as_chunks::<16>().0) {
        let number = u128::from_le_bytes(*bytes);
        let raw = _mm_set_epi64x(((number >> 64) as u64).cast_signed(), (number as u64).cast_signed());
        *register = _mm_shuffle_epi8(raw, to_big_endian);
    }
    window
}

/// Writes the state out as a digest: A to H, each big-endian.
#[target_feature(enable = "ssse3,sse4.1")]
fn store([abef, cdgh]: [__m128i; 2], digest: &mut [u8]) {
    let feba = _mm_shuffle_epi32::<0x1b>(abef);
    let dchg = _mm_shuffle_epi32::<0xb1>(cdgh);
    let abcd = _mm_blend_epi16::<0xf0>(feba, dchg);
    let efgh = _mm_alignr_epi8::<8>(dchg, feba);
    let to_big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    for (place, half) in digest.chunks_exact_mut(16).zip([abcd, efgh]) {
        let half = _mm_shuffle_epi8(half, to_big_endian);
        let (low, high) = (_mm_cvtsi128_si64(half).to_le_bytes(), _mm_extract_epi64::<1>(half).to_le_bytes());
        for (to, from) in place.iter_mut().zip(low.into_iter().chain(high)) {
            *to = from;
        }
    }
}
