//! What DEFLATE's codes say, before it is known what matches refer to: literals and matches.

/// Tokens and literals that there is room for.
pub(crate) const TOKENS: usize = 1 << 18;
pub(crate) const LITERALS: usize = 1 << 20;

/// Room behind the literals, so that they can be moved in steps.
pub(crate) const ROOM: usize = 512;

/// Most literals of one token.
pub(crate) const MAX_RUN: usize = 255;

/// Some literals, and mostly a match behind them.
///
/// ```text
/// bits 0..15  distance less 1
/// bit  15     there is no match
/// bits 16..24 length less 3
/// bits 24..32 where its literals end, as far as eight bits tell it
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Token(u32);

impl Token {
    const NO_MATCH: u32 = 1 << 15;

    /// Literals up to a place, and a match.
    #[inline(always)]
    pub(crate) const fn new(literal: u32, length: u32, far: u32) -> Self {
        Self(literal << 24 | length << 16 | far)
    }

    /// Literals up to a place alone.
    const fn literals(literal: usize) -> Self {
        Self((literal as u32) << 24 | Self::NO_MATCH)
    }

    /// How many literals there are, from a place on.
    #[inline(always)]
    pub(crate) const fn run(self, literal: usize) -> usize {
        ((self.0 >> 24).wrapping_sub(literal as u32) & 255) as usize
    }

    #[inline(always)]
    pub(crate) const fn has_match(self) -> bool {
        self.0 & Self::NO_MATCH == 0
    }

    #[inline(always)]
    pub(crate) const fn length(self) -> usize {
        (self.0 >> 16 & 255) as usize + 3
    }

    #[inline(always)]
    pub(crate) const fn distance(self) -> usize {
        (self.0 & 0x7fff) as usize + 1
    }
}

/// The end of a member: it lies before a token, and its content must have this checksum and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) token: usize,
    pub(crate) crc: u32,
    pub(crate) length: u32,
}

/// Tokens, their literals, and the ends of members among them.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) tokens: Box<[Token; TOKENS]>,
    pub(crate) count: usize,
    pub(crate) literals: Box<[u8; LITERALS + ROOM]>,
    pub(crate) literal: usize,
    pub(crate) ends: Vec<End>,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self { tokens: zeroed(), count: 0, literals: zeroed(), literal: 0, ends: Vec::new() }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        (self.count, self.literal) = (0, 0);
        self.ends.clear();
    }

    /// Adds as many of the literals as there is room for, and says how many.
    pub(crate) fn push_literals(&mut self, bytes: &[u8]) -> usize {
        let mut pushed = 0;
        for run in bytes.chunks(MAX_RUN) {
            let Some(places) = self.literals[..LITERALS].get_mut(self.literal..self.literal + run.len()) else { break };
            let Some(token) = self.tokens.get_mut(self.count) else { break };
            places.copy_from_slice(run);
            self.literal += run.len();
            *token = Token::literals(self.literal);
            self.count += 1;
            pushed += run.len();
        }
        pushed
    }

    /// Makes a token of literals that none covers yet, if they are more than `most`.
    pub(crate) fn cover(&mut self, most: usize) {
        let covered = self.tokens[..self.count].last().map_or(0, |token| token.0 >> 24);
        if (self.literal as u32).wrapping_sub(covered) & 255 > most as u32 {
            self.tokens[self.count] = Token::literals(self.literal);
            self.count += 1;
        }
    }
}

/// An array of zeros, most of whose memory is not touched before it is used.
fn zeroed<T: Clone + Default, const COUNT: usize>() -> Box<[T; COUNT]> {
    let Ok(array) = vec![T::default(); COUNT].into_boxed_slice().try_into() else { unreachable!("as many as asked") };
    array
}
