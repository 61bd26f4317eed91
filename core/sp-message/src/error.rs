//! Why bytes were refused.

/// A guest message, or the payload inside it, that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The tag does not fit: another key, another sequence number, or changed bytes.
    #[error("message {sequence} failed to authenticate under VMPCK{vmpck}")]
    Authentication {
        /// Sequence number in the header.
        sequence: u64,
        /// Key named in the header.
        vmpck: u8,
    },
    /// The cipher refused to work; no input of the other side leads here.
    #[error("failed to seal a message: the cipher refused")]
    Cipher,
    /// The sequence numbers of this key are used up.
    #[error("the sequence numbers of VMPCK{vmpck} are used up; start the guest anew")]
    Exhausted {
        /// The key.
        vmpck: u8,
    },
    /// A header or payload field with a value that is not allowed.
    #[error("{field} is {found:#x}, expected {expected}")]
    Field {
        /// The field's name in the specification.
        field: &'static str,
        /// What is allowed, in words.
        expected: &'static str,
        /// What came.
        found: u64,
    },
    /// Bytes that must be zero and are not.
    #[error("{field} must be zero")]
    NonZero {
        /// Where the bytes are.
        field: &'static str,
    },
    /// A sequence number that is not the next one: a replay, a gap or a reordering.
    #[error("sequence number {found}, expected {expected}")]
    Sequence {
        /// The next one.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// Wrong number of bytes.
    #[error("{what} is {found} bytes long, expected {expected}")]
    Size {
        /// Which structure.
        what: &'static str,
        /// Bytes, in words where it is a range.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// An earlier error left the sequence in doubt, so the key was destroyed.
    #[error("VMPCK{vmpck} was destroyed after an earlier error; start the guest anew")]
    Wiped {
        /// The key.
        vmpck: u8,
    },
}

/// A frame of the port that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side closed the link between two frames.
    #[error("the link is closed")]
    Closed,
    /// A body that does not have its kind's shape.
    #[error("a frame of kind {kind} is malformed: {why}")]
    Malformed {
        /// The kind byte.
        kind: u8,
        /// What is wrong.
        why: &'static str,
    },
    /// The announced length is zero or over the bound.
    #[error("a frame of {found} bytes was announced, allowed are 1 to {max}")]
    Oversized {
        /// Announced bytes.
        found: u32,
        /// The bound.
        max: usize,
    },
    /// The link broke, or its deadline passed.
    #[error("failed to carry a frame over the link")]
    Transport(#[from] std::io::Error),
    /// The link ended inside a frame.
    #[error("the link ended inside a frame")]
    Truncated,
    /// A kind that this side does not know or does not take.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
}
