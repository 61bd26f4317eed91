//! Frames: `u32 LE header length | u32 LE body length | header (JSON) | body (raw bytes)`.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

/// Greatest length of a header in bytes.
pub const MAX_HEADER: usize = 256 * 1024;

/// Greatest length of a body in bytes; a policy's text is the largest there is.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The body is longer than it may be.
    #[error("frame body of {length} bytes is over the limit of {most}")]
    BodyTooLong {
        /// Announced length in bytes.
        length: usize,
        /// Most that is taken here, at most [`MAX_BODY`].
        most: usize,
    },
    /// The header is empty or longer than [`MAX_HEADER`].
    #[error("frame header of {length} bytes is not within 1 and {MAX_HEADER}")]
    HeaderLength {
        /// Announced length in bytes.
        length: usize,
    },
    /// The header is not the JSON that was expected.
    #[error("failed to decode the frame's header")]
    Header(#[source] serde_json::Error),
    /// The stream failed, or ended within a frame.
    #[error("failed to move a frame over the stream")]
    Stream(#[source] io::Error),
}

/// One frame: a JSON header and raw bytes that belong to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    header: Vec<u8>,
    /// Bytes that accompany the header: output, input, a policy's text.
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame with `header` as JSON.
    ///
    /// # Errors
    /// [`FrameError::Header`] where the value does not serialise, [`FrameError::HeaderLength`] and
    /// [`FrameError::BodyTooLong`] where it is over the limits.
    pub fn new(header: &impl Serialize, body: Vec<u8>) -> Result<Self, FrameError> {
        let header = serde_json::to_vec(header).map_err(FrameError::Header)?;
        check_lengths(header.len(), body.len(), MAX_BODY)?;
        Ok(Self { header, body })
    }

    /// Bytes of header and body, which is what the frame holds of memory.
    #[must_use]
    pub fn size(&self) -> usize {
        self.header.len().saturating_add(self.body.len())
    }

    /// Decodes the header, strictly: the type decides which fields there may be.
    ///
    /// # Errors
    /// [`FrameError::Header`] where the JSON is not a `T`.
    pub fn header<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        serde_json::from_slice(&self.header).map_err(FrameError::Header)
    }
}

/// Reads one frame; `None` where the stream ends before a frame's first byte.
///
/// # Errors
/// [`FrameError`]; after any of them the stream is out of step and must be closed.
pub fn read_frame(stream: &mut impl Read) -> Result<Option<Frame>, FrameError> {
    read_frame_within(stream, MAX_BODY)
}

/// As [`read_frame`], where no body may be longer than `most` bytes.
///
/// # Errors
/// As [`read_frame`].
pub fn read_frame_within(stream: &mut impl Read, most: usize) -> Result<Option<Frame>, FrameError> {
    let Some(header_length) = read_first_length(stream)? else { return Ok(None) };
    let body_length = read_length(stream)?;
    check_lengths(header_length, body_length, most)?;
    let header = read_exactly(stream, header_length)?;
    let body = read_exactly(stream, body_length)?;
    Ok(Some(Frame { header, body }))
}

/// Writes one frame in one call, so that frames of several threads behind a lock do not mingle.
///
/// # Errors
/// [`FrameError::Stream`] where the stream fails; lengths were checked when the frame was made.
pub fn write_frame(stream: &mut impl Write, frame: &Frame) -> Result<(), FrameError> {
    check_lengths(frame.header.len(), frame.body.len(), MAX_BODY)?;
    let mut bytes = Vec::with_capacity(frame.header.len().saturating_add(frame.body.len()).saturating_add(8));
    for length in [frame.header.len(), frame.body.len()] {
        let length = u32::try_from(length).map_err(|_| FrameError::BodyTooLong { length, most: MAX_BODY })?;
        bytes.extend_from_slice(&length.to_le_bytes());
    }
    bytes.extend_from_slice(&frame.header);
    bytes.extend_from_slice(&frame.body);
    stream.write_all(&bytes).and_then(|()| stream.flush()).map_err(FrameError::Stream)
}

/// Refuses lengths outside the limits, before anything is allocated for them.
fn check_lengths(header: usize, body: usize, most: usize) -> Result<(), FrameError> {
    if header == 0 || header > MAX_HEADER {
        return Err(FrameError::HeaderLength { length: header });
    }
    if body > most.min(MAX_BODY) {
        return Err(FrameError::BodyTooLong { length: body, most });
    }
    Ok(())
}

/// Reads a frame's first length; an end of stream before its first byte is the stream's orderly end.
fn read_first_length(stream: &mut impl Read) -> Result<Option<usize>, FrameError> {
    let mut first = [0u8; 1];
    loop {
        match stream.read(&mut first) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FrameError::Stream(error)),
        }
    }
    let mut rest = [0u8; 3];
    stream.read_exact(&mut rest).map_err(FrameError::Stream)?;
    let [a] = first;
    let [b, c, d] = rest;
    Ok(Some(to_length(u32::from_le_bytes([a, b, c, d]))))
}

/// Reads a `u32` in little-endian order as a length.
fn read_length(stream: &mut impl Read) -> Result<usize, FrameError> {
    let mut bytes = [0u8; 4];
    stream.read_exact(&mut bytes).map_err(FrameError::Stream)?;
    Ok(to_length(u32::from_le_bytes(bytes)))
}

/// A length that does not fit the machine's word is over every limit.
fn to_length(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Reads `length` bytes; the caller has checked the limit.
fn read_exactly(stream: &mut impl Read, length: usize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0u8; length];
    stream.read_exact(&mut bytes).map_err(FrameError::Stream)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_stream_is_an_orderly_end() {
        assert!(read_frame(&mut &[][..]).unwrap().is_none());
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &Frame::new(&json!({"a": 1}), b"body".to_vec()).unwrap()).unwrap();
        for end in 1..bytes.len() {
            assert!(matches!(read_frame(&mut &bytes[..end]), Err(FrameError::Stream(_))), "cut at {end}");
        }
    }

    #[test]
    fn lengths_over_the_limits_are_refused_unread() {
        let long_header = [u32::MAX.to_le_bytes(), 0u32.to_le_bytes()].concat();
        assert!(matches!(read_frame(&mut &long_header[..]), Err(FrameError::HeaderLength { .. })));
        let no_header = [0u8; 8];
        assert!(matches!(read_frame(&mut &no_header[..]), Err(FrameError::HeaderLength { length: 0 })));
        let long_body = [2u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
        assert!(matches!(read_frame(&mut &long_body[..]), Err(FrameError::BodyTooLong { .. })));
    }

    proptest! {
        #[test]
        fn frames_survive_the_stream(text in ".{0,200}", body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let frame = Frame::new(&json!({"text": text}), body.clone()).unwrap();
            let mut bytes = Vec::new();
            write_frame(&mut bytes, &frame).unwrap();
            let read = read_frame(&mut &bytes[..]).unwrap().unwrap();
            prop_assert_eq!(read.header::<serde_json::Value>().unwrap(), json!({"text": text}));
            prop_assert_eq!(read.body, body);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some(frame)) = read_frame(&mut &bytes[..]) {
                let _ = frame.header::<crate::RequestEnvelope>();
                let _ = frame.header::<crate::ReplyEnvelope>();
            }
        }
    }
}
