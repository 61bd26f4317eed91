//! Bits of packed bytes.

/// A place in the packed bytes, and up to 63 bits from before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits {
    at: u32,
    held: u64,
    count: u32,
}

impl Bits {
    /// At a bit of `bytes`, of which eight must follow.
    pub(crate) fn at_bit(bytes: &[u8], bit: usize) -> Self {
        let mut bits = Self { at: (bit >> 3) as u32, held: 0, count: 0 };
        bits.refill(bytes);
        bits.skip(bit as u32 & 7);
        bits
    }

    /// Takes bits until there are 56 at least; zeros where eight bytes do not follow.
    #[inline(always)]
    pub(crate) fn refill(&mut self, bytes: &[u8]) {
        let at = self.at as usize;
        let next = bytes.get(at..at + 8).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u64::from_le_bytes(*chunk));
        self.held |= next << (self.count & 63);
        self.at += (63 - self.count) >> 3;
        self.count |= 56;
    }

    /// The bits that come next, the first lowest. Bits beyond those held are of no meaning.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        self.held
    }

    /// Goes on by so many bits, which must be held.
    #[inline(always)]
    pub(crate) fn skip(&mut self, count: u32) {
        self.held >>= count & 63;
        self.count = self.count.wrapping_sub(count);
    }

    /// Goes on by so many bits, behind which these are left.
    #[inline(always)]
    pub(crate) fn skipped(&mut self, left: u64, count: u32) {
        self.held = left;
        self.count = self.count.wrapping_sub(count);
    }

    /// So many bits, at most 16, which must be held.
    pub(crate) fn take(&mut self, count: u32) -> usize {
        let value = self.held & ((1 << count) - 1);
        self.skip(count);
        value as usize
    }

    /// Where the next bit is.
    pub(crate) fn bit(&self) -> usize {
        self.at as usize * 8 - self.count as usize
    }
}
