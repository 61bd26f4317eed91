//! Headers: of a member (RFC 1952, section 2.3) and of a block with its own codes (RFC 1951, section 3.2.7).

use crate::Broken;
use crate::bits::Bits;
use crate::codes::{Entry, PRECODE_BITS, PRECODE_ENTRIES, build};

/// Flags of a member's header (RFC 1952, section 2.3.1).
mod flag {
    pub(super) const HEADER_CRC: u8 = 1 << 1;
    pub(super) const EXTRA: u8 = 1 << 2;
    pub(super) const NAME: u8 = 1 << 3;
    pub(super) const COMMENT: u8 = 1 << 4;
    pub(super) const RESERVED: u8 = 0xe0;
}

/// Bytes that every header has.
const FIXED: usize = 10;

/// A part of a member's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Fixed,
    ExtraLength,
    Extra,
    Name,
    Comment,
    Crc,
    Complete,
}

/// Reads the header of a member, which may come in pieces.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    part: Part,
    flags: u8,
    /// Bytes of the part that are there; those of numbers are also kept.
    there: usize,
    kept: [u8; FIXED],
    extra: usize,
    crc: crc32fast::Hasher,
}

impl Header {
    /// Of which nothing was read.
    pub(crate) fn new() -> Self {
        Self { part: Part::Fixed, flags: 0, there: 0, kept: [0; FIXED], extra: 0, crc: crc32fast::Hasher::new() }
    }

    /// Whether all was read.
    pub(crate) fn is_complete(&self) -> bool {
        self.part == Part::Complete
    }

    /// Reads as far as the header goes, and says how many bytes that was.
    ///
    /// # Errors
    /// Where it is not a header, has flags that there are not, or a wrong checksum.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut used = 0;
        loop {
            self.skip_absent();
            let Some(byte) = bytes.get(used).filter(|_| !self.is_complete()) else { return Ok(used) };
            used += 1;
            self.byte(*byte)?;
        }
    }

    fn byte(&mut self, byte: u8) -> Result<(), Broken> {
        if let Some(place) = self.kept.get_mut(self.there) {
            *place = byte;
        }
        self.there += 1;
        if self.part != Part::Crc {
            self.crc.update(&[byte]);
        }
        let [first, second, method, flags, ..] = self.kept;
        match self.part {
            Part::Fixed if self.there == FIXED => {
                if [first, second, method] != [0x1f, 0x8b, 8] || flags & flag::RESERVED != 0 {
                    return Err(Broken::Header);
                }
                self.flags = flags;
                self.next(Part::ExtraLength);
            }
            Part::ExtraLength if self.there == 2 => {
                self.extra = usize::from(u16::from_le_bytes([first, second]));
                self.next(Part::Extra);
            }
            Part::Extra if self.there == self.extra => self.next(Part::Name),
            Part::Name if byte == 0 => self.next(Part::Comment),
            Part::Comment if byte == 0 => self.next(Part::Crc),
            Part::Crc if self.there == 2 => {
                if u16::from_le_bytes([first, second]) != self.crc.clone().finalize() as u16 {
                    return Err(Broken::Header);
                }
                self.next(Part::Complete);
            }
            _ => {}
        }
        Ok(())
    }

    fn next(&mut self, part: Part) {
        (self.part, self.there) = (part, 0);
    }

    /// Goes past the parts that the flags do not promise.
    fn skip_absent(&mut self) {
        let lacks = |flag| self.flags & flag == 0;
        if self.part == Part::ExtraLength && lacks(flag::EXTRA) || self.part == Part::Extra && self.extra == 0 {
            self.part = Part::Name;
        }
        if self.part == Part::Name && lacks(flag::NAME) {
            self.part = Part::Comment;
        }
        if self.part == Part::Comment && lacks(flag::COMMENT) {
            self.part = Part::Crc;
        }
        if self.part == Part::Crc && lacks(flag::HEADER_CRC) {
            self.part = Part::Complete;
        }
    }
}

/// The order in which lengths of the code for code lengths come.
const PRECODE_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The most codes for literals and lengths, and for distances, that are allowed.
const MAX_LITERALS: usize = 286;
const MAX_DISTANCES: usize = 30;

/// The symbol that ends a block.
const END_OF_BLOCK: usize = 256;

/// Whether bits begin a block that has its own codes and is not the last.
pub(crate) const fn is_dynamic(bits: u64) -> bool {
    bits & 0b111 == 0b100
}

/// Lengths of a block's codes.
pub(crate) struct Lengths {
    lengths: [u8; 320],
    literals: usize,
    distances: usize,
}

impl Lengths {
    /// Those of a block with fixed codes (RFC 1951, section 3.2.6).
    pub(crate) fn fixed() -> Self {
        let mut lengths = [8; 320];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        lengths[288..].fill(5);
        Self { lengths, literals: 288, distances: 32 }
    }

    /// Reads them. More bytes must follow than they can take.
    ///
    /// # Errors
    /// Where they are too many, or make no code.
    pub(crate) fn read(bits: &mut Bits, bytes: &[u8]) -> Result<Self, Broken> {
        let (literals, distances, count) = (bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4);
        if literals > MAX_LITERALS || distances > MAX_DISTANCES {
            return Err(Broken::Code);
        }
        let mut precode = [0_u8; 19];
        for (number, place) in PRECODE_ORDER.iter().take(count).enumerate() {
            if number % 16 == 0 {
                bits.refill(bytes);
            }
            precode[*place] = bits.take(3) as u8;
        }
        let mut table = [Entry::INVALID; PRECODE_ENTRIES];
        build(&mut table, PRECODE_BITS, &precode, Entry::code_length, false)?;
        let mut lengths = [0; 320];
        let (mut at, total) = (0, literals + distances);
        while at < total {
            bits.refill(bytes);
            let entry = table[bits.peek() as usize & (PRECODE_ENTRIES - 1)];
            bits.skip(entry.skip());
            let (length, times) = match entry.literal() {
                length @ 0..=15 => (length, 1),
                16 if at > 0 => (lengths[at - 1], 3 + bits.take(2)),
                17 => (0, 3 + bits.take(3)),
                18 => (0, 11 + bits.take(7)),
                _ => return Err(Broken::Code),
            };
            if at + times > total {
                return Err(Broken::Code);
            }
            lengths[at..at + times].fill(length);
            at += times;
        }
        // A block without an end would be one.
        if lengths[END_OF_BLOCK] == 0 {
            return Err(Broken::Code);
        }
        Ok(Self { lengths, literals, distances })
    }

    pub(crate) fn literals(&self) -> &[u8] {
        &self.lengths[..self.literals]
    }

    pub(crate) fn distances(&self) -> &[u8] {
        &self.lengths[self.literals..self.literals + self.distances]
    }
}
