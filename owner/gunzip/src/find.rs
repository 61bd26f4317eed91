//! Guesses where a block begins in the middle of a stream.
//!
//! Only blocks with their own codes that are not the last are looked for: their headers are so particular that hardly any
//! other bits pass. What is found is a guess all the same, and nothing is made of it before what comes before has been
//! unpacked up to this very bit.

use crate::bits::Bits;
use crate::codes::is_code;
use crate::decode::BLOCK_HEADER;
use crate::header::Lengths;

/// Bits from a block's beginning that one look at 64 bits tests for all places.
const TESTED: usize = 13;

/// Places that one look tests, when it begins anywhere in a byte.
const PLACES: usize = 57 - TESTED;

/// The share of four code lengths of three bits each in the space of a code for code lengths, in 1/128.
static SHARES: [u16; 4096] = {
    let mut shares = [0; 4096];
    let mut lengths = 0;
    while lengths < shares.len() {
        let mut at = 0;
        while at < 12 {
            let length = lengths >> at & 7;
            if length > 0 {
                shares[lengths] += 128 >> length;
            }
            at += 3;
        }
        lengths += 1;
    }
    shares
};

/// The first bit from `from` on, and before `to`, where a block may begin.
pub(crate) fn find_block(bytes: &[u8], from: usize, to: usize) -> Option<usize> {
    let to = to.min(bytes.len().saturating_sub(BLOCK_HEADER) * 8);
    let mut bit = from;
    while bit < to {
        let word = word(bytes, bit);
        // Not the last, type 2; at most 286 literals and lengths and 30 distances.
        let (few_literals, few_distances) = (!all_of_four(word >> 4), !all_of_four(word >> 9));
        let mut places = !word & !(word >> 1) & word >> 2 & few_literals & few_distances & ((1 << PLACES) - 1);
        while places != 0 {
            let place = bit + places.trailing_zeros() as usize;
            if place < to && has_precode(bytes, place) && has_codes(bytes, place) {
                return Some(place);
            }
            places &= places - 1;
        }
        bit += PLACES;
    }
    None
}

/// Whether the bit and the three behind it are set, for all bits at once.
const fn all_of_four(word: u64) -> u64 {
    word & word >> 1 & word >> 2 & word >> 3
}

/// The bits from one on, 57 at least.
fn word(bytes: &[u8], bit: usize) -> u64 {
    let chunk = bytes.get(bit / 8..).and_then(<[u8]>::first_chunk);
    chunk.map_or(0, |chunk| u64::from_le_bytes(*chunk) >> (bit & 7))
}

/// Whether the lengths of the code for code lengths fill its space.
fn has_precode(bytes: &[u8], block: usize) -> bool {
    let count = (word(bytes, block + 13) & 15) + 4;
    let lengths = word(bytes, block + 17) & ((1 << (3 * count)) - 1);
    let share = |at: u32| SHARES[(lengths >> at) as usize & 4095];
    share(0) + share(12) + share(24) + share(36) + share(48) == 128
}

/// Whether the block's codes can be read and are codes.
fn has_codes(bytes: &[u8], block: usize) -> bool {
    let mut bits = Bits::at_bit(bytes, block + 3);
    Lengths::read(&mut bits, bytes)
        .is_ok_and(|lengths| is_code(lengths.literals(), true) && is_code(lengths.distances(), true))
}
