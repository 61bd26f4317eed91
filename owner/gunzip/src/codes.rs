//! Huffman codes of DEFLATE (RFC 1951, section 3.2) as tables that are looked up with the next bits of input.
//!
//! The first bits choose an entry of the main table. Codes longer than those have a further table for each beginning. An
//! entry tells all that a step needs, extra bits of lengths and distances included.
//!
//! ```text
//! bits  0..6   bits to skip: the code and its extra bits
//! bits  8..14  where extra bits begin; in an entry that leads further, the number of bits that choose there
//! bit  14      literals and lengths: an exception. It leads further (bit 16), ends the block (bit 17), or is no symbol
//! bit  15      literals and lengths: a length; distances: an exception, as above
//! bits 16..24  a literal, a symbol of code lengths, or base of a length less 3
//! bits 24..32  of a literal, the bits to skip once more; of a length, nothing
//! bits 16..31  base of a distance less 1
//! bits 18..32  in an entry that leads further, where that table begins
//! ```

use crate::Broken;

/// Bits that choose in the main table of literals and lengths, of distances, and of code lengths.
pub(crate) const LITERAL_BITS: u32 = 12;
pub(crate) const DISTANCE_BITS: u32 = 9;
pub(crate) const PRECODE_BITS: u32 = 7;

/// Entries of a code's tables: the main one and a further one for every two of the longest codes, then up to a power of
/// two, so that a mask replaces the check of a bound.
pub(crate) const LITERAL_ENTRIES: usize = 8192;
pub(crate) const DISTANCE_ENTRIES: usize = 2048;
pub(crate) const PRECODE_ENTRIES: usize = 128;

/// The longest code in bits.
const LONGEST: usize = 15;

/// Symbols of the largest alphabet.
const SYMBOLS: usize = 288;

/// An entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(u32);

impl Entry {
    const EXCEPTION: u32 = 1 << 14;
    const MATCH: u32 = 1 << 15;
    const FAR_EXCEPTION: u32 = 1 << 15;
    const FURTHER: u32 = 1 << 16;
    const END: u32 = 1 << 17;

    /// Bits that no symbol has.
    pub(crate) const INVALID: Self = Self(Self::EXCEPTION | Self::FAR_EXCEPTION);

    /// Entry of a symbol of literals and lengths (RFC 1951, section 3.2.5) that has a code of so many bits.
    pub(crate) const fn literal_or_length(symbol: usize, bits: u32) -> Self {
        let entry = match symbol {
            0..=255 => Self((symbol as u32) << 16 | bits << 24),
            256 => Self(Self::INVALID.0 | Self::END),
            257..=264 => Self(Self::MATCH | (symbol as u32 - 257) << 16),
            265..=284 => {
                let (step, extra) = ((symbol as u32 - 261) % 4, (symbol as u32 - 261) / 4);
                Self(Self::MATCH | ((4 + step) << extra) << 16 | extra)
            }
            285 => Self(Self::MATCH | 255 << 16),
            _ => Self::INVALID,
        };
        entry.with_code(bits)
    }

    /// Entry of a symbol of distances.
    pub(crate) const fn distance(symbol: usize, bits: u32) -> Self {
        let entry = match symbol {
            0..=3 => Self((symbol as u32) << 16),
            4..=29 => {
                let (step, extra) = (symbol as u32 % 2, symbol as u32 / 2 - 1);
                Self(((2 + step) << extra) << 16 | extra)
            }
            _ => Self::INVALID,
        };
        entry.with_code(bits)
    }

    /// Entry of a symbol of code lengths.
    pub(crate) const fn code_length(symbol: usize, bits: u32) -> Self {
        Self((symbol as u32) << 16).with_code(bits)
    }

    const fn with_code(self, bits: u32) -> Self {
        Self(self.0 + (bits << 8 | bits))
    }

    const fn further(start: u32, bits: u32, before: u32) -> Self {
        Self(Self::INVALID.0 | Self::FURTHER | start << 18 | bits << 8 | before)
    }

    /// Whether this entry of literals and lengths, or the distance behind it if there is to be one, is an exception.
    #[inline(always)]
    pub(crate) const fn is_exception_with(self, far: Self, first: Self) -> bool {
        ((self.0 & far.0) >> 1 | self.0 | first.0) & Self::EXCEPTION != 0
    }

    /// Whether this entry, be it of which table it may, is an exception.
    pub(crate) const fn is_exception(self) -> bool {
        self.0 & Self::INVALID.0 == Self::INVALID.0
    }

    pub(crate) const fn is_further(self) -> bool {
        self.is_exception() && self.0 & Self::FURTHER != 0
    }

    pub(crate) const fn is_end(self) -> bool {
        self.is_exception() && self.0 & Self::END != 0
    }

    /// One for a length, zero for a literal.
    #[inline(always)]
    pub(crate) const fn matches(self) -> u32 {
        self.0 >> 15 & 1
    }

    /// Bits to skip.
    #[inline(always)]
    pub(crate) const fn skip(self) -> u32 {
        self.0 & 63
    }

    /// Bits to skip if this is a literal, else none; not for an exception.
    #[inline(always)]
    pub(crate) const fn literal_skip(self) -> u32 {
        self.0 >> 24
    }

    /// The literal, or symbol of code lengths.
    #[inline(always)]
    pub(crate) const fn literal(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Where in the further table the following bits lead.
    pub(crate) const fn place(self, following: u64) -> usize {
        let mask = (1_u64 << (self.0 >> 8 & 15)) - 1;
        (self.0 >> 18) as usize + (following & mask) as usize
    }

    /// The value of the extra bits, from among the bits that the entry was found with.
    #[inline(always)]
    const fn extra(self, from: u64) -> u32 {
        ((from & ((1_u64 << self.skip()) - 1)) >> (self.0 >> 8 & 63)) as u32
    }

    /// The length less 3.
    #[inline(always)]
    pub(crate) const fn length(self, from: u64) -> u32 {
        (self.0 >> 16 & 255) + self.extra(from)
    }

    /// The distance less 1.
    #[inline(always)]
    pub(crate) const fn far(self, from: u64) -> u32 {
        (self.0 >> 16) + self.extra(from)
    }
}

/// Fills a code's tables, given the length of each symbol's code; 0 for symbols that have none.
///
/// As zlib does it, a code that leaves bits without a symbol is refused, except for one with a single code of one bit, or
/// with none, where `may_lack`.
pub(crate) fn build<const ENTRIES: usize>(
    table: &mut [Entry; ENTRIES],
    main_bits: u32,
    lengths: &[u8],
    entry: fn(usize, u32) -> Entry,
    may_lack: bool,
) -> Result<(), Broken> {
    let counts = count(lengths);
    let longest = longest(&counts);
    if !is_whole(&counts, may_lack) {
        return Err(Broken::Code);
    }
    let mut places = [0_usize; LONGEST + 2];
    for length in 1..=LONGEST {
        places[length + 1] = places[length] + counts[length];
    }
    let mut sorted = [0_u16; SYMBOLS];
    for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
        let place = &mut places[usize::from(*length & 15)];
        sorted[*place] = symbol as u16;
        *place += 1;
    }
    let mut symbols = sorted.iter().map(|symbol| usize::from(*symbol));
    // The table for one bit more is the one so far, twice, and the new codes in it.
    let (mut code, mut size) = (0_u32, 1_usize);
    table[0] = Entry::INVALID;
    for bits in 1..=main_bits {
        table.copy_within(0..size, size);
        size <<= 1;
        code <<= 1;
        for symbol in symbols.by_ref().take(counts[bits as usize]) {
            // Codes come with their first bit highest; the input has it lowest.
            table[(code.reverse_bits() >> (32 - bits)) as usize] = entry(symbol, bits);
            code += 1;
        }
    }
    let further_bits = (longest as u32).saturating_sub(main_bits);
    let mut free = size;
    let mut prefix_before = usize::MAX;
    for bits in main_bits + 1..=longest as u32 {
        code <<= 1;
        for symbol in symbols.by_ref().take(counts[bits as usize]) {
            let turned = (code.reverse_bits() >> (32 - bits)) as usize;
            code += 1;
            let prefix = turned & (size - 1);
            if prefix != prefix_before {
                table[prefix] = Entry::further(free as u32, further_bits, main_bits);
                prefix_before = prefix;
                free += 1 << further_bits;
            }
            let entry = entry(symbol, bits - main_bits);
            let further = &mut table[free - (1 << further_bits)..free];
            further[turned >> main_bits..].iter_mut().step_by(1 << (bits - main_bits)).for_each(|place| *place = entry);
        }
    }
    Ok(())
}

/// Whether lengths of symbols' codes make a code, as [`build`] wants it.
pub(crate) fn is_code(lengths: &[u8], may_lack: bool) -> bool {
    is_whole(&count(lengths), may_lack)
}

/// How many codes there are of each length.
fn count(lengths: &[u8]) -> [usize; LONGEST + 1] {
    let mut counts = [0; LONGEST + 1];
    lengths.iter().for_each(|length| counts[usize::from(*length & 15)] += 1);
    counts[0] = 0;
    counts
}

fn longest(counts: &[usize; LONGEST + 1]) -> usize {
    (1..=LONGEST).rev().find(|length| counts[*length] > 0).unwrap_or(0)
}

/// Whether so many codes of each length leave no bits without a symbol, or are but one of one bit, or none.
fn is_whole(counts: &[usize; LONGEST + 1], may_lack: bool) -> bool {
    let left = counts[1..].iter().try_fold(1_usize, |left, count| (left << 1).checked_sub(*count));
    left == Some(0) || (may_lack && left.is_some() && longest(counts) <= 1)
}
