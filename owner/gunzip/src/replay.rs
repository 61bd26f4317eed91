//! Tokens to content.

use crate::Broken;
use crate::tokens::Tokens;

/// How far back a match may reach (RFC 1951, section 2).
pub(crate) const WINDOW: usize = 32 << 10;

/// Content that is made at a time, beside the window.
const CHUNK: usize = 256 << 10;

/// Where a chunk is full. Behind it there is room for one token, and for what is written in whole steps beyond its end.
const LIMIT: usize = WINDOW + CHUNK;
const ROOM: usize = 512 + 258 + 4 * STEP;

/// Bytes that are moved in one step.
const STEP: usize = 16;

/// Content, and as much of it from before as matches may refer to.
#[derive(Debug)]
pub(crate) struct Content {
    out: Box<[u8; LIMIT + ROOM]>,
    /// Where the member began, as far as it is there.
    start: usize,
    /// What is new lies between these.
    fresh: usize,
    end: usize,
}

/// How far tokens have been replayed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    pub(crate) token: usize,
    literal: usize,
}

impl Content {
    pub(crate) fn new() -> Self {
        Self { out: Box::new([0; LIMIT + ROOM]), start: 0, fresh: 0, end: 0 }
    }

    /// What the last [`Self::replay`] and those before it since [`Self::slide`] made.
    pub(crate) fn fresh(&self) -> &[u8] {
        &self.out[self.fresh..self.end]
    }

    /// Whether there is room for more.
    pub(crate) fn is_full(&self) -> bool {
        self.end > LIMIT
    }

    /// Says that a member begins.
    pub(crate) fn begin(&mut self) {
        self.start = self.end;
    }

    /// Forgets all but the window.
    pub(crate) fn slide(&mut self) {
        let away = self.end.saturating_sub(WINDOW);
        self.out.copy_within(away..self.end, 0);
        self.end -= away;
        self.fresh = self.end;
        self.start = self.start.saturating_sub(away);
    }

    /// Makes content of tokens up to the token `stop`, or until the chunk is full.
    ///
    /// # Errors
    /// Where a match begins before the member.
    pub(crate) fn replay(&mut self, tokens: &Tokens, cursor: &mut Cursor, stop: usize) -> Result<(), Broken> {
        let out = &mut *self.out;
        let literals = &*tokens.literals;
        let (mut end, mut literal) = (self.end, cursor.literal);
        for token in tokens.tokens.get(cursor.token..stop).unwrap_or_default() {
            if end > LIMIT {
                break;
            }
            let run = token.run(literal);
            step(out, end, literals, literal);
            if run > STEP {
                step(out, end + STEP, literals, literal + STEP);
                if run > 2 * STEP {
                    out[end..end + run].copy_from_slice(&literals[literal..literal + run]);
                }
            }
            end += run;
            literal += run;
            cursor.token += 1;
            if token.has_match() {
                let (length, distance) = (token.length(), token.distance());
                if distance > end - self.start {
                    return Err(Broken::Distance);
                }
                repeat(out, end, distance, length);
                end += length;
            }
        }
        cursor.literal = literal;
        self.end = end;
        Ok(())
    }
}

/// Moves sixteen literals.
#[inline(always)]
fn step(out: &mut [u8; LIMIT + ROOM], end: usize, literals: &[u8], literal: usize) {
    let bytes: [u8; STEP] = literals[literal..literal + STEP].first_chunk().copied().unwrap_or_default();
    out[end..end + STEP].copy_from_slice(&bytes);
}

/// Repeats `length` bytes from `distance` back at `end`. May write some bytes more, which are written again.
#[inline(always)]
fn repeat(out: &mut [u8; LIMIT + ROOM], end: usize, distance: usize, length: usize) {
    let mut from = end - distance;
    let mut to = end;
    let stop = end + length;
    // What is written in a step must not be read in it: a short distance is doubled by copies.
    while to - from < STEP {
        copy(out, from, to);
        to += to - from;
        if to >= stop {
            return;
        }
    }
    copy(out, from, to);
    while to + STEP < stop {
        to += STEP;
        from += STEP;
        copy(out, from, to);
    }
}

/// Copies sixteen bytes.
#[inline(always)]
fn copy(out: &mut [u8; LIMIT + ROOM], from: usize, to: usize) {
    let bytes: [u8; STEP] = out[from..from + STEP].first_chunk().copied().unwrap_or_default();
    out[to..to + STEP].copy_from_slice(&bytes);
}
