//! Pieces in their order, to content.

use std::io::{self, BufRead, Read};

use crate::Broken;
use crate::decode::Stop;
use crate::engine::Engine;
use crate::pieces::Piece;
use crate::replay::{Content, Cursor};
use crate::source::Cut;

/// Bytes from one chunk to the next, and those that two share: more than blocks of common compressors have.
const CUT: Cut = Cut { chunk: 512 << 10, overlap: 128 << 10 };

/// Reads the content of a gzip stream.
///
/// The input must be the stream and nothing else: one member or more. The content is given before its checksum can be
/// compared, so only once the end was read without an error is any of it good.
pub struct GunzipReader<R> {
    engine: Engine<R>,
    /// The piece whose tokens are replayed; its decoder is the one that goes on.
    piece: Option<Box<Piece>>,
    /// The piece whose input the decoder goes on with, since that of its own is used up.
    ahead: Option<Box<Piece>>,
    number: u64,
    cursor: Cursor,
    ends: usize,
    content: Content,
    taken: usize,
    crc: crc32fast::Hasher,
    length: u32,
    state: State,
}

/// Whether there is more to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Going,
    Ended,
    Failed,
}

impl<R: Read + Send + 'static> GunzipReader<R> {
    /// Over `input`, unpacked by so many threads beside the one that reads; with none or one, by the latter alone.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub fn new(input: R, threads: usize) -> io::Result<Self> {
        Self::with_cut(input, threads, CUT)
    }

    /// As [`new`](Self::new), over chunks of so many bytes that share so many: for tests, since only small chunks make many
    /// of a small stream. Less than 1 KiB is none.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    #[doc(hidden)]
    pub fn in_chunks(input: R, threads: usize, chunk: usize, overlap: usize) -> io::Result<Self> {
        Self::with_cut(input, threads, Cut { chunk: chunk.max(1 << 10), overlap: overlap.max(1 << 10) })
    }

    fn with_cut(input: R, threads: usize, cut: Cut) -> io::Result<Self> {
        Ok(Self {
            engine: Engine::new(input, cut, threads)?,
            piece: None,
            ahead: None,
            number: 0,
            cursor: Cursor::default(),
            ends: 0,
            content: Content::new(),
            taken: 0,
            crc: crc32fast::Hasher::new(),
            length: 0,
            state: State::Going,
        })
    }
}

impl<R: Read> GunzipReader<R> {
    /// Makes new content, until there is much of it, or no more.
    fn refill(&mut self) -> io::Result<()> {
        self.content.slide();
        self.taken = 0;
        while !self.content.is_full() && self.state == State::Going {
            if !self.replay()? && !self.go_on()? {
                self.state = State::Ended;
            }
        }
        Ok(())
    }

    /// Replays tokens up to the end of a member or of the tokens. False where there were none.
    fn replay(&mut self) -> io::Result<bool> {
        let Some(piece) = &self.piece else { return Ok(false) };
        let end = piece.tokens.ends.get(self.ends);
        let stop = end.map_or(piece.tokens.count, |end| end.token);
        let before = self.content.fresh().len();
        self.content.replay(&piece.tokens, &mut self.cursor, stop)?;
        let new = self.content.fresh().get(before..).unwrap_or_default();
        self.crc.update(new);
        self.length = self.length.wrapping_add(new.len() as u32);
        let replayed = !new.is_empty();
        match end {
            Some(end) if self.cursor.token == stop => {
                if self.crc.clone().finalize() != end.crc || self.length != end.length {
                    return Err(Broken::Checksum.into());
                }
                self.crc.reset();
                self.length = 0;
                self.content.begin();
                self.ends += 1;
                Ok(true)
            }
            _ => Ok(replayed),
        }
    }

    /// Gets more tokens. False at the end of the stream.
    fn go_on(&mut self) -> io::Result<bool> {
        (self.cursor, self.ends) = (Cursor::default(), 0);
        let Some(mut piece) = self.piece.take() else {
            self.piece = self.engine.piece(0)?;
            return if self.piece.is_some() { Ok(true) } else { Err(Broken::Cut.into()) };
        };
        let end = piece.end?;
        if end == Stop::Ended {
            return Ok(false);
        }
        if end != Stop::Full && self.is_through(&piece, end) {
            self.number += 1;
            let next = self.engine.piece(self.number)?.ok_or(Broken::Cut)?;
            if let Some(used) = self.ahead.replace(next) {
                self.engine.learn(false);
                self.engine.free(used);
            }
        }
        if let Some(ahead) =
            self.ahead.take_if(|ahead| end == Stop::Block && ahead.start == Some(piece.decoder.position()))
        {
            self.engine.learn(true);
            self.engine.free(piece);
            self.piece = Some(ahead);
            return Ok(true);
        }
        piece.tokens.clear();
        piece.end = match &self.ahead {
            None => piece.decoder.run(piece.chunk.stretch(), piece.chunk.stop(), &mut piece.tokens),
            Some(ahead) => {
                // To where the next piece's tokens begin, if that is still to come.
                let position = piece.decoder.position();
                let stop = ahead.start.filter(|start| *start > position).unwrap_or(ahead.chunk.stop());
                piece.decoder.run(ahead.chunk.stretch(), stop, &mut piece.tokens)
            }
        };
        self.piece = Some(piece);
        Ok(true)
    }

    /// Whether the decoder has come to where the next chunk begins, or needs it.
    fn is_through(&self, piece: &Piece, end: Stop) -> bool {
        let chunk = self.ahead.as_ref().map_or(&piece.chunk, |ahead| &ahead.chunk);
        end == Stop::Starved || piece.decoder.position() >= chunk.stop()
    }
}

impl<R: Read> BufRead for GunzipReader<R> {
    /// Content, some 256 KiB at a time; nothing at the end.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.content.fresh().len() {
            match self.state {
                State::Going => {
                    if let Err(error) = self.refill() {
                        self.state = State::Failed;
                        self.taken = self.content.fresh().len();
                        return Err(error);
                    }
                }
                State::Ended => {}
                State::Failed => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "broken gzip: it failed before"));
                }
            }
        }
        Ok(self.content.fresh().get(self.taken..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.taken = self.content.fresh().len().min(self.taken + count);
    }
}

impl<R: Read> Read for GunzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let content = self.fill_buf()?;
        let count = content.len().min(buffer.len());
        let (now, content) = (&mut buffer[..count], &content[..count]);
        now.copy_from_slice(content);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
