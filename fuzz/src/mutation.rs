//! Changes to an input, as libFuzzer makes them, but from a strategy that can be shrunk and replayed.

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// One change.
#[derive(Clone, Debug)]
pub enum Mutation {
    /// Turns one bit over.
    Flip(Index, u8),
    /// Puts a number, little or big endian, over what is there.
    Number(Index, u64, u8, bool),
    /// Puts bytes in between.
    Insert(Index, Vec<u8>),
    /// Takes a range away.
    Remove(Index, Index),
    /// Repeats a range behind itself.
    Repeat(Index, Index),
    /// Cuts the rest off.
    Truncate(Index),
    /// Continues with the end of another input.
    Splice(Index, Index, Index),
}

/// Numbers at which lengths and offsets go wrong.
static EDGES: [u64; 14] = [
    0,
    1,
    17,
    18,
    0x7f,
    0x80,
    0xff,
    0xfff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// Pieces of the formats that are parsed.
static PIECES: [&[u8]; 12] =
    [b"\0", b"/", b"..", b"\"", b"{", b"[", b"}", b"0", b"-1", b":=", b"\x30\x82\xff\xff", b"\xff\xff\xff\xff"];

impl Mutation {
    /// Any change.
    pub fn any() -> impl Strategy<Value = Self> {
        let place = any::<Index>;
        prop_oneof![
            3 => (place(), 0u8..8).prop_map(|(at, bit)| Self::Flip(at, bit)),
            3 => (place(), prop_oneof![select(&EDGES[..]), any::<u64>()], 0u8..4, any::<bool>())
                .prop_map(|(at, number, width, big)| Self::Number(at, number, width, big)),
            2 => (place(), prop_oneof![
                select(&PIECES[..]).prop_map(<[u8]>::to_vec),
                proptest::collection::vec(any::<u8>(), 1..16),
            ]).prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            1 => (place(), place()).prop_map(|(from, to)| Self::Remove(from, to)),
            1 => (place(), place()).prop_map(|(from, to)| Self::Repeat(from, to)),
            1 => place().prop_map(Self::Truncate),
            1 => (place(), place(), place()).prop_map(|(at, other, from)| Self::Splice(at, other, from)),
        ]
    }

    /// Makes the change. Inputs do not grow beyond four times the largest seed by it.
    pub fn apply(&self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        match self {
            Self::Flip(at, bit) => {
                if let Some(byte) = element(input, at) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Number(at, number, width, big) => overwrite(input, at, *number, *width, *big),
            Self::Insert(at, bytes) => {
                let at = position(input, at);
                input.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(from, to) => drop(input.drain(range(input, from, to))),
            Self::Repeat(from, to) => {
                let range = range(input, from, to);
                let (end, copy) = (range.end, input[range].to_vec());
                let limit = corpus.iter().map(Vec::len).max().unwrap_or_default().saturating_mul(4);
                if input.len() + copy.len() <= limit {
                    input.splice(end..end, copy);
                }
            }
            Self::Truncate(at) => input.truncate(position(input, at)),
            Self::Splice(at, other, from) => {
                if let Some(other) = (!corpus.is_empty()).then(|| other.get(corpus)) {
                    input.truncate(position(input, at));
                    input.extend_from_slice(&other[position(other, from)..]);
                }
            }
        }
    }
}

fn element<'a>(input: &'a mut [u8], at: &Index) -> Option<&'a mut u8> {
    if input.is_empty() { None } else { Some(at.get_mut(input)) }
}

/// A place in the input, its end included.
fn position(input: &[u8], at: &Index) -> usize {
    at.index(input.len() + 1)
}

fn range(input: &[u8], from: &Index, to: &Index) -> std::ops::Range<usize> {
    let (from, to) = (position(input, from), position(input, to));
    from.min(to)..from.max(to)
}

fn overwrite(input: &mut [u8], at: &Index, number: u64, width: u8, big: bool) {
    let start = position(input, at);
    let width = 1_usize << width;
    let bytes = number.to_le_bytes();
    let place = input[start..].iter_mut().take(width);
    let bytes = &bytes[..width];
    if big {
        place.zip(bytes.iter().rev()).for_each(|(to, from)| *to = *from);
    } else {
        place.zip(bytes).for_each(|(to, from)| *to = *from);
    }
}
