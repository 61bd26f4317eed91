//! Unpacks gzip (RFC 1952) on several processors, and on one faster than its codes seem to allow.
//!
//! A gzip stream has no marks in it: where a code begins is known only once the one before was read, and what a match
//! refers to only once that was unpacked. Two observations help.
//!
//! - Nearly all the time goes into reading codes, and that needs nothing of the content. So codes are read to *tokens*
//!   (some literals; a length and a distance), wherever in the stream a block begins; and tokens are *replayed* to content
//!   in their order, which takes a fifth of the time.
//! - A processor that reads codes mostly waits, for each code says where the next begins. So each thread reads codes of
//!   two places of the stream in one loop, as `caveau-hash` does it with hashes.
//!
//! ```text
//!           ┌─ chunk ─> find a block ─> codes ┐               thread 1
//! source ──>├─ chunk ─> find a block ─> codes ├─> tokens ┐
//!           ├─ chunk ─> find a block ─> codes ┐          ├─> in order: replay ─> CRC ─> content
//!           └─ chunk ─> find a block ─> codes ├─> tokens ┘    the reader's own thread
//!                                                             thread 2
//! ```
//!
//! Where a block begins is a guess, made from its header. Tokens of a chunk are used only where the chunk before ended at
//! the very bit where they begin; where it did not, the reader goes on through the chunk by itself.
//!
//! - Trusts: nobody; the stream is hostile.
//! - Promises: content only as the stream has it, an error for all that is broken, cut off or followed by something else;
//!   less than 40 MiB with two threads, whatever the stream is.
//! - Refuses: what the formats do not allow, and codes that zlib refuses.
mod bits;
mod codes;
mod decode;
mod engine;
mod find;
mod header;
mod lanes;
mod pieces;
mod reader;
mod replay;
mod source;
mod tokens;

use std::io;

pub use self::reader::GunzipReader;

/// Why a stream cannot be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A block of a type that there is not.
    #[error("a block is of an unknown type")]
    Block,
    /// CRC or length of the content.
    #[error("the content's checksum or length is wrong")]
    Checksum,
    /// A sequence of bits that stands for nothing, or code lengths that make no code.
    #[error("a code is invalid")]
    Code,
    /// The stream ends before its end.
    #[error("it is cut off")]
    Cut,
    /// A match that begins before the content.
    #[error("a match reaches back to before the beginning")]
    Distance,
    /// The header, or what follows the last member.
    #[error("a header is invalid, or something else follows the end")]
    Header,
    /// A stored block whose two lengths differ.
    #[error("a stored block's length is wrong")]
    Stored,
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        let kind = if broken == Broken::Cut { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData };
        Self::new(kind, format!("broken gzip: {broken}"))
    }
}
