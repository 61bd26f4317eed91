//! The inner loop: codes to tokens, of one stretch or of two at once.
//!
//! A step waits for memory most of the time: the input's next bits choose an entry, which says where the bits of the next
//! step begin. A processor has room for another stretch's steps meanwhile. That only comes true where neither has to
//! guess its way at a branch, so a step does the same whether it meets a literal or a match: it writes a literal and a
//! token, and then goes past one of the two.

use crate::bits::Bits;
use crate::codes::{DISTANCE_BITS, DISTANCE_ENTRIES, Entry, LITERAL_BITS, LITERAL_ENTRIES};
use crate::tokens::{LITERALS, MAX_RUN, ROOM, TOKENS, Token, Tokens};

/// Bytes that a step may look at, and a few.
pub(crate) const STEP_BYTES: usize = 16;

/// Steps between two looks at how many literals wait for their token.
const STEPS: usize = 60;

/// Where a lane stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There may be more.
    Going,
    /// The block has ended.
    End,
    /// Bits stand for nothing.
    Broken,
}

/// A stretch of codes, and where its tokens go.
#[derive(Debug)]
pub(crate) struct Lane<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) bit: usize,
    pub(crate) literals: &'a [Entry; LITERAL_ENTRIES],
    pub(crate) distances: &'a [Entry; DISTANCE_ENTRIES],
    pub(crate) tokens: &'a mut Tokens,
    pub(crate) outcome: Outcome,
}

/// Whether a step is possible.
pub(crate) fn has_room(tokens: &Tokens) -> bool {
    tokens.count + 2 < TOKENS && tokens.literal + 1 < LITERALS
}

/// What a step changes.
#[derive(Clone, Copy)]
struct Place {
    bits: Bits,
    token: u32,
    literal: u32,
    outcome: Outcome,
}

/// What a careful step found.
enum Careful {
    Literal(u8),
    Match(u32, u32),
    End,
    Broken,
}

impl Lane<'_> {
    /// Steps that are possible before room or input might run out.
    fn steps(&self) -> usize {
        let input = self.bytes.len().saturating_sub(self.bit / 8 + STEP_BYTES / 2) / (STEP_BYTES / 2);
        let room = (TOKENS - self.tokens.count).saturating_sub(2).min(LITERALS.saturating_sub(self.tokens.literal) / 2);
        if self.outcome == Outcome::Going { input.min(room).min(STEPS) } else { 0 }
    }

    /// Where it has come to: the bit, and how it stands.
    pub(crate) fn place(&self) -> (usize, Outcome) {
        (self.bit, self.outcome)
    }

    /// What steps work on, and the place to begin at.
    fn begin(&mut self) -> (Work<'_>, Place) {
        let place = Place {
            bits: Bits::at_bit(self.bytes, self.bit),
            token: self.tokens.count as u32,
            literal: self.tokens.literal as u32,
            outcome: Outcome::Going,
        };
        let work = Work {
            bytes: self.bytes,
            literals: self.literals,
            distances: self.distances,
            tokens_out: &mut self.tokens.tokens,
            literals_out: &mut self.tokens.literals,
        };
        (work, place)
    }

    /// Takes the place where steps ended.
    fn end(&mut self, place: Place) {
        self.bit = place.bits.bit();
        (self.tokens.count, self.tokens.literal) = (place.token as usize, place.literal as usize);
        self.outcome = place.outcome;
        self.tokens.cover(MAX_RUN - 2 * STEPS);
    }
}

/// What steps work on.
struct Work<'a> {
    bytes: &'a [u8],
    literals: &'a [Entry; LITERAL_ENTRIES],
    distances: &'a [Entry; DISTANCE_ENTRIES],
    tokens_out: &'a mut [Token; TOKENS],
    literals_out: &'a mut [u8; LITERALS + ROOM],
}

impl Work<'_> {
    /// One step: perhaps a literal, then a literal or a match; or else what [`careful`] finds. False where the loop has
    /// to end.
    #[inline(always)]
    fn step(&mut self, place: &mut Place) -> bool {
        place.bits.refill(self.bytes);
        let word = place.bits.peek();
        let first = self.literals[word as usize & ((1 << LITERAL_BITS) - 1)];
        let rest = word >> (first.literal_skip() & 63);
        // The same again where the first is not a literal.
        let entry = self.literals[rest as usize & ((1 << LITERAL_BITS) - 1)];
        let matches = entry.matches();
        let far_rest = rest >> entry.skip();
        let far = self.distances[far_rest as usize & ((1 << DISTANCE_BITS) - 1)];
        if entry.is_exception_with(far, first) {
            return self.careful_step(place);
        }
        // Of these, as many count as are literals: a match that comes first comes second, too.
        let at = place.literal as usize;
        self.literals_out[at..at + 2].copy_from_slice(&[first.literal(), entry.literal()]);
        let literal = place.literal + (first.matches() ^ 1);
        self.tokens_out[place.token as usize] = Token::new(literal, entry.length(rest), far.far(far_rest));
        place.token += matches;
        place.literal = literal + (matches ^ 1);
        let far_skip = far.skip() & matches.wrapping_neg();
        place.bits.skipped(far_rest >> far_skip, first.literal_skip() + entry.skip() + far_skip);
        true
    }

    // Inlined so that a place never needs an address, and stays in registers.
    #[inline(always)]
    fn careful_step(&mut self, place: &mut Place) -> bool {
        let (found, bits) = careful(place.bits.peek(), self.literals, self.distances);
        place.bits.skip(bits);
        match found {
            Careful::Literal(literal) => {
                self.literals_out[place.literal as usize] = literal;
                place.literal += 1;
            }
            Careful::Match(length, far) => {
                self.tokens_out[place.token as usize] = Token::new(place.literal, length, far);
                place.token += 1;
            }
            Careful::End => place.outcome = Outcome::End,
            Careful::Broken => place.outcome = Outcome::Broken,
        }
        place.outcome == Outcome::Going
    }
}

/// A step with the further tables; and how many bits it takes.
#[cold]
#[inline(never)]
fn careful(word: u64, literals: &[Entry; LITERAL_ENTRIES], distances: &[Entry; DISTANCE_ENTRIES]) -> (Careful, u32) {
    let (entry, rest, before) = look(word, literals, LITERAL_BITS);
    let used = before + entry.skip();
    if entry.is_end() {
        return (Careful::End, used);
    }
    if entry.is_exception() {
        return (Careful::Broken, 0);
    }
    if entry.matches() == 0 {
        return (Careful::Literal(entry.literal()), used);
    }
    let length = entry.length(rest);
    let (entry, rest, before) = look(word >> used, distances, DISTANCE_BITS);
    if entry.is_exception() {
        return (Careful::Broken, 0);
    }
    (Careful::Match(length, entry.far(rest)), used + before + entry.skip())
}

/// The entry for the next bits; those that it was found with, and how many were used before them.
fn look<const ENTRIES: usize>(word: u64, table: &[Entry; ENTRIES], main_bits: u32) -> (Entry, u64, u32) {
    let entry = table[word as usize & ((1 << main_bits) - 1)];
    if !entry.is_further() {
        return (entry, word, 0);
    }
    let rest = word >> main_bits;
    (table[entry.place(rest) & (ENTRIES - 1)], rest, main_bits)
}

/// Goes on with one lane until its block ends, or input or room does.
pub(crate) fn run_one(lane: &mut Lane<'_>) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") {
        #[expect(unsafe_code, reason = "calls a function for processors with BMI2")]
        // SAFETY: the processor was just found to have what the function is compiled for; it has no other demands.
        unsafe {
            bmi2::run_one(lane);
        }
        return;
    }
    one(lane);
}

/// Goes on with two lanes until one cannot.
pub(crate) fn run_two(first: &mut Lane<'_>, second: &mut Lane<'_>) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") {
        #[expect(unsafe_code, reason = "calls a function for processors with BMI2")]
        // SAFETY: the processor was just found to have what the function is compiled for; it has no other demands.
        unsafe {
            bmi2::run_two(first, second);
        }
        return;
    }
    two(first, second);
}

/// The same for processors that shift and cut off bits in one instruction, which is a third faster.
#[cfg(target_arch = "x86_64")]
mod bmi2 {
    use super::{Lane, one, two};

    #[target_feature(enable = "bmi1,bmi2")]
    pub(super) fn run_one(lane: &mut Lane<'_>) {
        one(lane);
    }

    #[target_feature(enable = "bmi1,bmi2")]
    pub(super) fn run_two(first: &mut Lane<'_>, second: &mut Lane<'_>) {
        two(first, second);
    }
}

#[inline(always)]
fn one(lane: &mut Lane<'_>) {
    loop {
        let steps = lane.steps();
        if steps == 0 {
            break;
        }
        let (mut work, mut place) = lane.begin();
        for _ in 0..steps {
            if !work.step(&mut place) {
                break;
            }
        }
        lane.end(place);
    }
    lane.tokens.cover(0);
}

#[inline(always)]
fn two(first: &mut Lane<'_>, second: &mut Lane<'_>) {
    loop {
        let steps = first.steps().min(second.steps());
        if steps == 0 {
            break;
        }
        let ((mut work_1, mut place_1), (mut work_2, mut place_2)) = (first.begin(), second.begin());
        for _ in 0..steps {
            if !work_1.step(&mut place_1) || !work_2.step(&mut place_2) {
                break;
            }
        }
        first.end(place_1);
        second.end(place_2);
    }
    first.tokens.cover(0);
    second.tokens.cover(0);
}
