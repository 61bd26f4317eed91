//! The format: members (RFC 1952) of blocks (RFC 1951), from packed bytes to tokens.

use crate::Broken;
use crate::bits::Bits;
use crate::codes::{DISTANCE_BITS, DISTANCE_ENTRIES, Entry, LITERAL_BITS, LITERAL_ENTRIES, build};
use crate::header::{self, Header};
use crate::lanes::{Lane, Outcome, STEP_BYTES, has_room, run_one};
use crate::tokens::{End, Tokens};

/// Zeros behind the last byte of the input, so that looking ahead needs no special case there.
pub(crate) const PADDING: usize = 1024;

/// Bytes of input that the header of a block may have, and the bits before and after it.
pub(crate) const BLOCK_HEADER: usize = 640;

/// A stretch of the packed stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch<'a> {
    /// The bytes; at the end of the stream [`PADDING`] zeros more.
    pub(crate) bytes: &'a [u8],
    /// Where the first one lies in the stream.
    pub(crate) start: u64,
    /// Whether the stream ends here.
    pub(crate) last: bool,
}

impl Stretch<'_> {
    /// Where the stream's bytes end.
    fn end(&self) -> usize {
        self.bytes.len() - if self.last { PADDING } else { 0 }
    }
}

/// Why the decoder came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is at a block that could be found from without, at or behind the place where to stop.
    Block,
    /// The stream has ended.
    Ended,
    /// There is no room for more tokens.
    Full,
    /// It needs the bytes behind the stretch.
    Starved,
}

/// Where in the format it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Block,
    Codes,
    Stored(usize),
    Trailer,
    Ended,
    /// Codes stood for nothing.
    Broken,
}

/// Makes tokens of packed bytes. It can go on where it stopped.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// Where it is, in bits of the stream.
    position: u64,
    last_block: bool,
    header: Header,
    literals: Box<[Entry; LITERAL_ENTRIES]>,
    distances: Box<[Entry; DISTANCE_ENTRIES]>,
}

impl Decoder {
    /// At the beginning of a stream.
    pub(crate) fn new() -> Self {
        Self {
            state: State::Header,
            position: 0,
            last_block: false,
            header: Header::new(),
            literals: Box::new([Entry::INVALID; LITERAL_ENTRIES]),
            distances: Box::new([Entry::INVALID; DISTANCE_ENTRIES]),
        }
    }

    /// Goes to a block at a bit of the stream.
    pub(crate) fn seek(&mut self, position: u64) {
        (self.state, self.position, self.last_block) = (State::Block, position, false);
        // A guess before this one may have ended within what it took for a header.
        self.header = Header::new();
    }

    /// Where it is, in bits of the stream.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Adds tokens, at least up to the bit where to stop if nothing else comes before.
    ///
    /// # Errors
    /// Where the stream is broken; then the tokens mean nothing.
    pub(crate) fn run(&mut self, input: Stretch<'_>, stop_at: u64, tokens: &mut Tokens) -> Result<Stop, Broken> {
        loop {
            if let Some(stop) = self.advance(input, stop_at, tokens)? {
                return Ok(stop);
            }
            let mut lane = self.lane(input, tokens);
            run_one(&mut lane);
            let (bit, outcome) = lane.place();
            self.settle(input, bit, outcome);
        }
    }

    /// Does all that comes before codes; nothing comes back where it is ready for them.
    ///
    /// # Errors
    /// Where the stream is broken; then the tokens mean nothing.
    pub(crate) fn advance(
        &mut self,
        input: Stretch<'_>,
        stop_at: u64,
        tokens: &mut Tokens,
    ) -> Result<Option<Stop>, Broken> {
        loop {
            let bit = (self.position - input.start * 8) as usize;
            let (byte, end) = (bit.div_ceil(8), input.end());
            if input.last && byte > end {
                return Err(Broken::Cut);
            }
            match self.state {
                State::Header => {
                    let used = self.header.read(input.bytes.get(byte..end).unwrap_or_default())?;
                    self.position = (input.start + (byte + used) as u64) * 8;
                    if self.header.is_complete() {
                        self.header = Header::new();
                        (self.state, self.last_block) = (State::Block, false);
                    } else {
                        return input.starved();
                    }
                }
                State::Block if self.last_block => self.state = State::Trailer,
                State::Block => {
                    if input.bytes.len() < byte + BLOCK_HEADER {
                        return Ok(Some(Stop::Starved));
                    }
                    if self.position >= stop_at && header::is_dynamic(Bits::at_bit(input.bytes, bit).peek()) {
                        return Ok(Some(Stop::Block));
                    }
                    self.block(input, bit)?;
                }
                State::Broken => return Err(Broken::Code),
                State::Codes if !has_room(tokens) => return Ok(Some(Stop::Full)),
                State::Codes if bit / 8 + STEP_BYTES > input.bytes.len() => return input.starved(),
                State::Codes => return Ok(None),
                State::Stored(left) => {
                    let bytes = input.bytes.get(byte..end.min(byte + left)).unwrap_or_default();
                    let count = tokens.push_literals(bytes);
                    self.position = (input.start + (byte + count) as u64) * 8;
                    self.state = State::Stored(left - count);
                    if count == left {
                        self.state = State::Block;
                    } else if count < bytes.len() {
                        return Ok(Some(Stop::Full));
                    } else {
                        return input.starved();
                    }
                }
                State::Trailer => {
                    let Some(trailer) = input.bytes.get(byte..end).and_then(<[u8]>::first_chunk::<8>) else {
                        return input.starved();
                    };
                    let [c0, c1, c2, c3, length @ ..] = *trailer;
                    let crc = u32::from_le_bytes([c0, c1, c2, c3]);
                    tokens.ends.push(End { token: tokens.count, crc, length: u32::from_le_bytes(length) });
                    self.position = (input.start + byte as u64 + 8) * 8;
                    self.state = State::Ended;
                }
                State::Ended if byte < end => self.state = State::Header,
                State::Ended if input.last => return Ok(Some(Stop::Ended)),
                State::Ended => return Ok(Some(Stop::Starved)),
            }
        }
    }

    /// The header of a block (RFC 1951, section 3.2.3).
    fn block(&mut self, input: Stretch<'_>, bit: usize) -> Result<(), Broken> {
        let mut bits = Bits::at_bit(input.bytes, bit);
        self.last_block = bits.take(1) == 1;
        self.state = match bits.take(2) {
            0 => {
                let byte = bits.bit().div_ceil(8);
                bits = Bits::at_bit(input.bytes, byte * 8);
                let (length, inverse) = (bits.take(16), bits.take(16));
                if length != inverse ^ 0xffff {
                    return Err(Broken::Stored);
                }
                State::Stored(length)
            }
            kind @ 1..=2 => {
                let lengths =
                    if kind == 1 { header::Lengths::fixed() } else { header::Lengths::read(&mut bits, input.bytes)? };
                build(&mut self.literals, LITERAL_BITS, lengths.literals(), Entry::literal_or_length, true)?;
                build(&mut self.distances, DISTANCE_BITS, lengths.distances(), Entry::distance, true)?;
                State::Codes
            }
            _ => return Err(Broken::Block),
        };
        self.position = input.start * 8 + bits.bit() as u64;
        Ok(())
    }

    /// What the lane of this block's codes starts from.
    pub(crate) fn lane<'a>(&'a mut self, input: Stretch<'a>, tokens: &'a mut Tokens) -> Lane<'a> {
        Lane {
            bytes: input.bytes,
            bit: (self.position - input.start * 8) as usize,
            literals: &self.literals,
            distances: &self.distances,
            tokens,
            outcome: Outcome::Going,
        }
    }

    /// Takes back where the lane has come to.
    pub(crate) fn settle(&mut self, input: Stretch<'_>, bit: usize, outcome: Outcome) {
        self.position = input.start * 8 + bit as u64;
        self.state = match outcome {
            Outcome::Going => State::Codes,
            Outcome::End => State::Block,
            Outcome::Broken => State::Broken,
        };
    }
}

impl Stretch<'_> {
    /// More is needed than there is.
    fn starved(&self) -> Result<Option<Stop>, Broken> {
        if self.last { Err(Broken::Cut) } else { Ok(Some(Stop::Starved)) }
    }
}
