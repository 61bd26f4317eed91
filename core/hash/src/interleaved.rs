//! Two SHA-256 streams interleaved on the x86 SHA extensions.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_set_epi64x,
    _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
    _mm_shuffle_epi32,
};

use crate::{
    DIGEST_BYTES, SALT_BYTES,
    message::{K, Lanes, SHA_BLOCK, START},
};

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
///
/// The state is kept as the instructions want it: F E B A, then H G D C, each from the low word up.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn digest_lanes<'a, const LANES: usize>(
    salt: &[u8; SALT_BYTES],
    blocks: [&[u8]; LANES],
    digests: &mut impl Iterator<Item = &'a mut [u8]>,
) {
    let [a, b, c, d, e, f, g, h] = START;
    let mut states = [[words([f, e, b, a]), words([h, g, d, c])]; LANES];
    let mut lanes = Lanes::new(blocks);
    compress(&mut states, lanes.first(salt).each_ref());
    while let Some(whole) = lanes.next_whole() {
        compress(&mut states, whole);
    }
    compress(&mut states, lanes.last().each_ref());
    for (state, digest) in states.into_iter().zip(digests) {
        store(state, digest);
    }
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
    for constants in K.as_chunks().0 {
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
