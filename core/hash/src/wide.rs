//! Sixteen SHA-256 streams at once in AVX-512 registers, each word of the state one register with a stream in each of
//! its sixteen elements.
//!
//! Without an instruction for SHA-256, but with sixteen streams a step, this is faster than the SHA extensions on the
//! processors that have AVX-512: theirs take two streams to fill.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_ror_epi32, _mm512_set1_epi32, _mm512_set4_epi32, _mm512_setzero_si512,
    _mm512_shuffle_epi8, _mm512_shuffle_i32x4, _mm512_srli_epi32, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use crate::{
    DIGEST_BYTES, SALT_BYTES,
    message::{K, Lanes, SHA_BLOCK, START},
};

/// Streams at once.
pub(crate) const LANES: usize = 16;

/// Hashes blocks sixteen by sixteen and returns how many it hashed: none where this processor or block size has to go
/// another way. The caller has checked the lengths.
pub(crate) fn hash_blocks(salt: &[u8; SALT_BYTES], block_size: usize, data: &[u8], out: &mut [u8]) -> usize {
    let able = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && block_size.is_multiple_of(SHA_BLOCK);
    let Some(group_bytes) = block_size.checked_mul(LANES).filter(|_| able) else { return 0 };
    let mut hashed = 0_usize;
    for (group, digests) in data.chunks_exact(group_bytes).zip(out.chunks_exact_mut(DIGEST_BYTES * LANES)) {
        #[expect(unsafe_code, reason = "calling a function compiled for processor features that were just detected")]
        // SAFETY: the features that `sixteen` is compiled for were detected above; it has no other precondition.
        unsafe {
            sixteen(salt, block_size, group, digests);
        }
        hashed = hashed.saturating_add(LANES);
    }
    hashed
}

/// Hashes sixteen blocks.
#[target_feature(enable = "avx512f,avx512bw")]
fn sixteen(salt: &[u8; SALT_BYTES], block_size: usize, group: &[u8], digests: &mut [u8]) {
    let mut blocks = group.chunks_exact(block_size);
    let mut lanes = Lanes::new([(); LANES].map(|()| blocks.next().unwrap_or_default()));
    let mut state = [_mm512_setzero_si512(); 8];
    for (word, start) in state.iter_mut().zip(START) {
        *word = _mm512_set1_epi32(start.cast_signed());
    }
    compress(&mut state, lanes.first(salt).each_ref());
    while let Some(whole) = lanes.next_whole() {
        lanes.prefetch();
        compress(&mut state, whole);
    }
    compress(&mut state, lanes.last().each_ref());
    for (place, word) in (0..).step_by(4).zip(state) {
        for (digest, word) in digests.chunks_exact_mut(DIGEST_BYTES).zip(elements(word)) {
            for (to, from) in digest.iter_mut().skip(place).zip(word.to_be_bytes()) {
                *to = from;
            }
        }
    }
}

/// One run of the compression function (FIPS 180-4, section 6.2.2) on all streams.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn compress(state: &mut [__m512i; 8], blocks: [&[u8; SHA_BLOCK]; LANES]) {
    let mut w = transpose(blocks);
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    // A round leaves every variable but two as it was under the next one's name: instead of moving them, the names do.
    macro_rules! round {
        ($k:ident $at:literal $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
            let constant = _mm512_set1_epi32($k[$at].cast_signed());
            let sum1 = xor(_mm512_ror_epi32::<6>($e), _mm512_ror_epi32::<11>($e), _mm512_ror_epi32::<25>($e));
            let choice = _mm512_ternarylogic_epi32::<0xca>($e, $f, $g);
            let added = add(add($h, add(w[$at], constant)), add(sum1, choice));
            let sum0 = xor(_mm512_ror_epi32::<2>($a), _mm512_ror_epi32::<13>($a), _mm512_ror_epi32::<22>($a));
            let majority = _mm512_ternarylogic_epi32::<0xe8>($a, $b, $c);
            $d = add($d, added);
            $h = add(added, add(sum0, majority));
        };
    }
    macro_rules! schedule {
        ($($at:literal $next:literal $ninth:literal $last:literal),*) => {$(
            let small0 = xor(
                _mm512_ror_epi32::<7>(w[$next]),
                _mm512_ror_epi32::<18>(w[$next]),
                _mm512_srli_epi32::<3>(w[$next]),
            );
            let small1 = xor(
                _mm512_ror_epi32::<17>(w[$last]),
                _mm512_ror_epi32::<19>(w[$last]),
                _mm512_srli_epi32::<10>(w[$last]),
            );
            w[$at] = add(add(w[$at], small0), add(w[$ninth], small1));
        )*};
    }
    let mut first = true;
    for k in K.as_chunks::<16>().0 {
        if !first {
            schedule!(0 1 9 14, 1 2 10 15, 2 3 11 0, 3 4 12 1, 4 5 13 2, 5 6 14 3, 6 7 15 4, 7 8 0 5);
            schedule!(8 9 1 6, 9 10 2 7, 10 11 3 8, 11 12 4 9, 12 13 5 10, 13 14 6 11, 14 15 7 12, 15 0 8 13);
        }
        first = false;
        round!(k 0 a b c d e f g h);
        round!(k 1 h a b c d e f g);
        round!(k 2 g h a b c d e f);
        round!(k 3 f g h a b c d e);
        round!(k 4 e f g h a b c d);
        round!(k 5 d e f g h a b c);
        round!(k 6 c d e f g h a b);
        round!(k 7 b c d e f g h a);
        round!(k 8 a b c d e f g h);
        round!(k 9 h a b c d e f g);
        round!(k 10 g h a b c d e f);
        round!(k 11 f g h a b c d e);
        round!(k 12 e f g h a b c d);
        round!(k 13 d e f g h a b c);
        round!(k 14 c d e f g h a b);
        round!(k 15 b c d e f g h a);
    }
    for (word, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = add(*word, new);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn add(left: __m512i, right: __m512i) -> __m512i {
    _mm512_add_epi32(left, right)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn xor(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(a, b, c)
}

/// Sixteen SHA blocks, one a stream, as sixteen words of all streams, turned from big-endian.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn transpose(blocks: [&[u8; SHA_BLOCK]; LANES]) -> [__m512i; 16] {
    let mut words = [_mm512_setzero_si512(); 16];
    let mut quads = [[_mm512_setzero_si512(); 4]; 4];
    let big_endian = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    for (quad, [r0, r1, r2, r3]) in quads.iter_mut().zip(blocks.as_chunks::<4>().0) {
        let [r0, r1, r2, r3] = [load(r0), load(r1), load(r2), load(r3)];
        let (low01, high01) = (_mm512_unpacklo_epi32(r0, r1), _mm512_unpackhi_epi32(r0, r1));
        let (low23, high23) = (_mm512_unpacklo_epi32(r2, r3), _mm512_unpackhi_epi32(r2, r3));
        *quad = [
            _mm512_unpacklo_epi64(low01, low23),
            _mm512_unpackhi_epi64(low01, low23),
            _mm512_unpacklo_epi64(high01, high23),
            _mm512_unpackhi_epi64(high01, high23),
        ];
    }
    // Now each quarter of a register has one word of four streams; the quarters that belong together go together.
    let [q0, q1, q2, q3] = quads;
    let (w0, rest) = words.split_at_mut(4);
    let (w4, rest) = rest.split_at_mut(4);
    let (w8, w12) = rest.split_at_mut(4);
    let places = w0.iter_mut().zip(w4).zip(w8.iter_mut().zip(w12));
    for (((w0, w4), (w8, w12)), ((q0, q1), (q2, q3))) in places.zip(q0.into_iter().zip(q1).zip(q2.into_iter().zip(q3)))
    {
        let (even01, odd01) = (_mm512_shuffle_i32x4::<0x88>(q0, q1), _mm512_shuffle_i32x4::<0xdd>(q0, q1));
        let (even23, odd23) = (_mm512_shuffle_i32x4::<0x88>(q2, q3), _mm512_shuffle_i32x4::<0xdd>(q2, q3));
        *w0 = _mm512_shuffle_epi8(_mm512_shuffle_i32x4::<0x88>(even01, even23), big_endian);
        *w8 = _mm512_shuffle_epi8(_mm512_shuffle_i32x4::<0xdd>(even01, even23), big_endian);
        *w4 = _mm512_shuffle_epi8(_mm512_shuffle_i32x4::<0x88>(odd01, odd23), big_endian);
        *w12 = _mm512_shuffle_epi8(_mm512_shuffle_i32x4::<0xdd>(odd01, odd23), big_endian);
    }
    words
}

/// 64 bytes as a register.
#[target_feature(enable = "avx512f")]
#[inline]
fn load(bytes: &[u8; SHA_BLOCK]) -> __m512i {
    #[expect(unsafe_code, reason = "there is no safe way from bytes to a register")]
    // SAFETY: both types are 64 bytes without padding, and every bit pattern is a value of both.
    unsafe {
        std::mem::transmute::<[u8; SHA_BLOCK], __m512i>(*bytes)
    }
}

/// A register's elements, the lowest first.
#[target_feature(enable = "avx512f")]
#[inline]
fn elements(register: __m512i) -> [u32; LANES] {
    #[expect(unsafe_code, reason = "there is no safe way from a register to its elements")]
    // SAFETY: both types are 64 bytes without padding, and every bit pattern is a value of both.
    unsafe {
        std::mem::transmute::<__m512i, [u32; LANES]>(register)
    }
}
