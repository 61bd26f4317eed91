//! Chunks to tokens, two at a time.

use std::io;
use std::mem;

use crate::Broken;
use crate::decode::{Decoder, Stop};
use crate::find::find_block;
use crate::lanes::{run_one, run_two};
use crate::source::Chunk;
use crate::tokens::Tokens;

/// Bits in which the beginning of a block is looked for.
const SEARCH: usize = 8 * (128 << 10);

/// A chunk and what was made of it.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) chunk: Chunk,
    pub(crate) tokens: Tokens,
    pub(crate) decoder: Decoder,
    /// The bit of the stream where the tokens begin, if anything was decoded.
    pub(crate) start: Option<u64>,
    /// How it ended.
    pub(crate) end: Result<Stop, Broken>,
}

impl Piece {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            chunk: Chunk::default(),
            tokens: Tokens::new(),
            decoder: Decoder::new(),
            start: None,
            end: Ok(Stop::Starved),
        })
    }

    /// Goes to where decoding may begin in a chunk that was just filled. Says whether there are codes to go on with.
    fn begin_chunk(&mut self, guess: bool) -> bool {
        if self.chunk.number() == 0 {
            self.tokens.clear();
            (self.decoder, self.start) = (Decoder::new(), Some(0));
            return self.is_ready();
        }
        if guess {
            return self.begin(self.chunk.stretch().start * 8) && self.is_ready();
        }
        self.tokens.clear();
        (self.start, self.end) = (None, Ok(Stop::Starved));
        false
    }

    /// Goes to where decoding may begin: at the first block from a bit of the stream on. False where none is found.
    fn begin(&mut self, from: u64) -> bool {
        self.tokens.clear();
        let input = self.chunk.stretch();
        let first = (from - input.start * 8) as usize;
        let found = find_block(input.bytes, first, SEARCH);
        self.start = found.map(|bit| input.start * 8 + bit as u64);
        self.end = Ok(Stop::Starved);
        if let Some(start) = self.start {
            self.decoder.seek(start);
        }
        found.is_some()
    }

    /// Does what comes before codes. Says whether it is ready for them, and not at its end.
    fn is_ready(&mut self) -> bool {
        loop {
            match self.decoder.advance(self.chunk.stretch(), self.chunk.stop(), &mut self.tokens) {
                Ok(None) => return true,
                Ok(Some(stop)) => {
                    self.end = Ok(stop);
                    return false;
                }
                // What is broken was no block, or else it will turn out so from where it really begins.
                Err(broken) => {
                    let again = self.start.filter(|_| self.chunk.number() > 0);
                    if !again.is_some_and(|start| self.begin(start + 1)) {
                        self.end = Err(broken);
                        return false;
                    }
                }
            }
        }
    }

    /// Makes tokens of codes alone, or together with another piece.
    fn run(&mut self, other: Option<&mut Self>) {
        let input = self.chunk.stretch();
        let mut lane = self.decoder.lane(input, &mut self.tokens);
        let Some(other) = other else {
            run_one(&mut lane);
            let (bit, outcome) = lane.place();
            self.decoder.settle(input, bit, outcome);
            return;
        };
        let other_input = other.chunk.stretch();
        let mut other_lane = other.decoder.lane(other_input, &mut other.tokens);
        run_two(&mut lane, &mut other_lane);
        let ((bit, outcome), (other_bit, other_outcome)) = (lane.place(), other_lane.place());
        self.decoder.settle(input, bit, outcome);
        other.decoder.settle(other_input, other_bit, other_outcome);
    }
}

/// Has two pieces in work.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pieces: [Option<Box<Piece>>; 2],
}

impl Worker {
    /// The next piece that is done; none at the end.
    ///
    /// `supply` gives a piece whose chunk was just filled, if there is one, and says whether it is worth a guess where a
    /// block begins. It is told whether it may wait: not while there is another piece to work on, for which somebody may
    /// be waiting in turn.
    pub(crate) fn next(
        &mut self,
        mut supply: impl FnMut(bool) -> io::Result<Option<(Box<Piece>, bool)>>,
    ) -> io::Result<Option<Box<Piece>>> {
        loop {
            for at in 0..2 {
                if self.pieces[at].is_some() {
                    continue;
                }
                if let Some((mut piece, guess)) = supply(self.pieces[1 - at].is_none())? {
                    if !piece.begin_chunk(guess) {
                        return Ok(Some(piece));
                    }
                    self.pieces[at] = Some(piece);
                }
            }
            // Also of those that ran when the other one was given away: both can come to their block's end at once.
            for piece in &mut self.pieces {
                if piece.as_mut().is_some_and(|piece| !piece.is_ready()) {
                    return Ok(mem::take(piece));
                }
            }
            match &mut self.pieces {
                [Some(first), Some(second)] => first.run(Some(second)),
                [Some(piece), None] | [None, Some(piece)] => piece.run(None),
                [None, None] => return Ok(None),
            }
        }
    }
}
