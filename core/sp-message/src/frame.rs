//! Frames of the emulated processor's port: what the GHCB exits are on hardware.
//!
//! A frame is a u32 length (little endian, of what follows), one kind byte and a body:
//!
//! | kind | from | name | body |
//! |---|---|---|---|
//! | 1 | guest | Secrets | empty |
//! | 2 | guest | Request | message |
//! | 3 | guest | ExtendedRequest | u32 capacity for certificates, message |
//! | 129 | processor | Secrets | 4096-byte page |
//! | 130 | processor | Response | u64 exit information, message |
//! | 131 | processor | ExtendedResponse | u64 exit information, u32 size of the table, table, message |
//!
//! The exit information is `SW_EXITINFO2` of the GHCB protocol: firmware status in the lower, hypervisor status in
//! the upper 32 bits. Where it is not zero there is no message and no table; the size then says what the table needs.

use std::io::{ErrorKind, Read, Write};

use crate::{FrameError, MAX_MESSAGE, SECRETS_PAGE_SIZE};
use caveau_snp::certificate_table::MAX_TABLE;
use zeroize::Zeroizing;

/// Bytes after the length word of the largest frame from the guest.
pub const MAX_GUEST_FRAME: usize = 1 + 4 + MAX_MESSAGE;
/// Bytes after the length word of the largest frame from the processor.
pub const MAX_PROCESSOR_FRAME: usize = 1 + 8 + 4 + MAX_TABLE + MAX_MESSAGE;

/// `SW_EXITINFO2` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitInfo {
    /// Firmware status (AMD 56860, "Status Codes"); 0 is success.
    pub firmware: u32,
    /// Hypervisor status; 1 says that the room for certificates is too small.
    pub hypervisor: u32,
}

impl ExitInfo {
    /// Nothing went wrong.
    pub const SUCCESS: Self = Self { firmware: 0, hypervisor: 0 };
    /// `SNP_GUEST_VMM_ERR_INVALID_LEN`.
    pub const CERTIFICATES_TOO_LARGE: Self = Self { firmware: 0, hypervisor: 1 };

    /// The firmware's refusal.
    #[must_use]
    pub fn firmware(status: u32) -> Self {
        Self { firmware: status, hypervisor: 0 }
    }

    fn to_bytes(self) -> [u8; 8] {
        ((u64::from(self.hypervisor) << 32) | u64::from(self.firmware)).to_le_bytes()
    }

    fn from_bytes(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { firmware: u32::from_le_bytes([a, b, c, d]), hypervisor: u32::from_le_bytes([e, f, g, h]) }
    }
}

impl std::fmt::Display for ExitInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "firmware status {:#x}, hypervisor status {:#x}", self.firmware, self.hypervisor)
    }
}

/// What a guest sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestFrame {
    /// A request for a report together with the certificate table.
    ExtendedRequest {
        /// Bytes of table that the guest has room for.
        capacity: u32,
        /// The guest message.
        message: Vec<u8>,
    },
    /// `SNP_GUEST_REQUEST`.
    Request(Vec<u8>),
    /// The secrets page, please.
    Secrets,
}

/// What the processor answers.
#[derive(Clone, PartialEq, Eq)]
pub enum ProcessorFrame {
    /// Answer to [`GuestFrame::ExtendedRequest`].
    ExtendedResponse {
        /// How it went.
        exit_info: ExitInfo,
        /// Bytes that the table has or would have.
        table_size: u32,
        /// The table; empty on failure.
        table: Vec<u8>,
        /// The guest message; empty on failure.
        message: Vec<u8>,
    },
    /// Answer to [`GuestFrame::Request`].
    Response {
        /// How it went.
        exit_info: ExitInfo,
        /// The guest message; empty on failure.
        message: Vec<u8>,
    },
    /// The secrets page.
    Secrets(Zeroizing<Vec<u8>>),
}

/// Names the frame and its sizes; a page or message may hold secrets.
impl std::fmt::Debug for ProcessorFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ExtendedResponse { exit_info, table_size, message, .. } => {
                write!(f, "ExtendedResponse({exit_info}, {table_size} bytes of table, {} of message)", message.len())
            }
            Self::Response { exit_info, message } => write!(f, "Response({exit_info}, {} bytes)", message.len()),
            Self::Secrets(_) => f.write_str("Secrets"),
        }
    }
}

impl GuestFrame {
    /// Reads one frame.
    ///
    /// # Errors
    /// When the link ends or breaks, or the frame is over its bound, unknown or malformed.
    pub fn read(link: &mut impl Read) -> Result<Self, FrameError> {
        let (kind, body) = read_frame(link, MAX_GUEST_FRAME)?;
        match kind {
            1 if body.is_empty() => Ok(Self::Secrets),
            1 => Err(FrameError::Malformed { kind, why: "it must have no body" }),
            2 => Ok(Self::Request(bounded(kind, &body)?)),
            3 => {
                let (capacity, message) = body
                    .split_first_chunk::<4>()
                    .ok_or(FrameError::Malformed { kind, why: "it ends inside its capacity" })?;
                Ok(Self::ExtendedRequest { capacity: u32::from_le_bytes(*capacity), message: bounded(kind, message)? })
            }
            other => Err(FrameError::UnknownKind(other)),
        }
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// When the message is over its bound, or the link ends or breaks.
    pub fn write(&self, link: &mut impl Write) -> Result<(), FrameError> {
        match self {
            Self::Secrets => write_frame(link, MAX_GUEST_FRAME, &[&[1]]),
            Self::Request(message) => write_frame(link, MAX_GUEST_FRAME, &[&[2], message]),
            Self::ExtendedRequest { capacity, message } => {
                write_frame(link, MAX_GUEST_FRAME, &[&[3], &capacity.to_le_bytes(), message])
            }
        }
    }
}

impl ProcessorFrame {
    /// Reads one frame.
    ///
    /// # Errors
    /// When the link ends or breaks, or the frame is over its bound, unknown or malformed.
    pub fn read(link: &mut impl Read) -> Result<Self, FrameError> {
        let (kind, body) = read_frame(link, MAX_PROCESSOR_FRAME)?;
        match kind {
            129 if body.len() == SECRETS_PAGE_SIZE => Ok(Self::Secrets(body)),
            129 => Err(FrameError::Malformed { kind, why: "a secrets page has 4096 bytes" }),
            130 => {
                let (exit_info, message) = exit_info(kind, &body)?;
                Ok(Self::Response { exit_info, message: bounded(kind, message)? })
            }
            131 => Self::extended(kind, &body),
            other => Err(FrameError::UnknownKind(other)),
        }
    }

    fn extended(kind: u8, body: &[u8]) -> Result<Self, FrameError> {
        let (exit_info, rest) = exit_info(kind, body)?;
        let (size, rest) = rest
            .split_first_chunk::<4>()
            .ok_or(FrameError::Malformed { kind, why: "it ends inside the table's size" })?;
        let table_size = u32::from_le_bytes(*size);
        if exit_info != ExitInfo::SUCCESS {
            return if rest.is_empty() {
                Ok(Self::ExtendedResponse { exit_info, table_size, table: Vec::new(), message: Vec::new() })
            } else {
                Err(FrameError::Malformed { kind, why: "a failure carries nothing" })
            };
        }
        let (table, message) = usize::try_from(table_size)
            .ok()
            .and_then(|size| rest.split_at_checked(size))
            .ok_or(FrameError::Malformed { kind, why: "the table is longer than the frame" })?;
        if table.len() > MAX_TABLE {
            return Err(FrameError::Malformed { kind, why: "the table is over its bound" });
        }
        Ok(Self::ExtendedResponse { exit_info, table_size, table: table.to_vec(), message: bounded(kind, message)? })
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// When a part is over its bound, or the link ends or breaks.
    pub fn write(&self, link: &mut impl Write) -> Result<(), FrameError> {
        match self {
            Self::Secrets(page) => write_frame(link, MAX_PROCESSOR_FRAME, &[&[129], page]),
            Self::Response { exit_info, message } => {
                write_frame(link, MAX_PROCESSOR_FRAME, &[&[130], &exit_info.to_bytes(), message])
            }
            Self::ExtendedResponse { exit_info, table_size, table, message } => write_frame(
                link,
                MAX_PROCESSOR_FRAME,
                &[&[131], &exit_info.to_bytes(), &table_size.to_le_bytes(), table, message],
            ),
        }
    }
}

fn exit_info(kind: u8, body: &[u8]) -> Result<(ExitInfo, &[u8]), FrameError> {
    let (info, rest) = body
        .split_first_chunk::<8>()
        .ok_or(FrameError::Malformed { kind, why: "it ends inside its exit information" })?;
    Ok((ExitInfo::from_bytes(*info), rest))
}

fn bounded(kind: u8, message: &[u8]) -> Result<Vec<u8>, FrameError> {
    if message.len() > MAX_MESSAGE {
        return Err(FrameError::Malformed { kind, why: "the message is over 4096 bytes" });
    }
    Ok(message.to_vec())
}

/// Reads length, kind and body. Only the announced and permitted number of bytes is ever allocated.
fn read_frame(link: &mut impl Read, max: usize) -> Result<(u8, Zeroizing<Vec<u8>>), FrameError> {
    let mut length = [0; 4];
    if !read_full(link, &mut length)? {
        return Err(FrameError::Closed);
    }
    let found = u32::from_le_bytes(length);
    let size = usize::try_from(found).ok().filter(|size| (1..=max).contains(size));
    let size = size.ok_or(FrameError::Oversized { found, max })?;
    let mut kind = [0];
    let mut body = Zeroizing::new(vec![0; size.saturating_sub(1)]);
    if !read_full(link, &mut kind)? || (!body.is_empty() && !read_full(link, &mut body)?) {
        return Err(FrameError::Truncated);
    }
    Ok((u8::from_le_bytes(kind), body))
}

/// Fills the buffer; false where the link ends before its first byte.
fn read_full(link: &mut impl Read, buffer: &mut [u8]) -> Result<bool, FrameError> {
    let total = buffer.len();
    let mut rest = buffer;
    while !rest.is_empty() {
        match link.read(rest) {
            Ok(0) if rest.len() == total => return Ok(false),
            Ok(0) => return Err(FrameError::Truncated),
            Ok(read) => rest = rest.get_mut(read..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Writes length and parts in one go: a port that sees half a frame keeps the other side waiting.
fn write_frame(link: &mut impl Write, max: usize, parts: &[&[u8]]) -> Result<(), FrameError> {
    let size = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
    let length = u32::try_from(size).unwrap_or(u32::MAX);
    if size > max {
        return Err(FrameError::Oversized { found: length, max });
    }
    let mut frame = Zeroizing::new(Vec::with_capacity(size.saturating_add(4)));
    frame.extend_from_slice(&length.to_le_bytes());
    for part in parts {
        frame.extend_from_slice(part);
    }
    link.write_all(&frame)?;
    link.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guest_frame() -> impl Strategy<Value = GuestFrame> {
        let message = || proptest::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            Just(GuestFrame::Secrets),
            message().prop_map(GuestFrame::Request),
            (any::<u32>(), message()).prop_map(|(capacity, message)| GuestFrame::ExtendedRequest { capacity, message }),
        ]
    }

    fn processor_frame() -> impl Strategy<Value = ProcessorFrame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
        let info = || any::<(u32, u32)>().prop_map(|(firmware, hypervisor)| ExitInfo { firmware, hypervisor });
        prop_oneof![
            any::<u8>().prop_map(|byte| ProcessorFrame::Secrets(Zeroizing::new(vec![byte; SECRETS_PAGE_SIZE]))),
            (info(), bytes()).prop_map(|(exit_info, message)| ProcessorFrame::Response { exit_info, message }),
            (bytes(), bytes()).prop_map(|(table, message)| ProcessorFrame::ExtendedResponse {
                exit_info: ExitInfo::SUCCESS,
                table_size: u32::try_from(table.len()).unwrap(),
                table,
                message,
            }),
            (1u32.., any::<u32>()).prop_map(|(hypervisor, table_size)| ProcessorFrame::ExtendedResponse {
                exit_info: ExitInfo { firmware: 0, hypervisor },
                table_size,
                table: Vec::new(),
                message: Vec::new(),
            }),
        ]
    }

    /// A link that gives one byte at a time, as a port may.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let size = buffer.len().min(1);
            self.0.read(&mut buffer[..size])
        }
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_anything_is_read() {
        for length in [0, u32::try_from(MAX_GUEST_FRAME).unwrap() + 1, u32::MAX] {
            let error = GuestFrame::read(&mut length.to_le_bytes().as_slice()).unwrap_err();
            assert!(matches!(error, FrameError::Oversized { found, .. } if found == length), "{length}");
        }
    }

    #[test]
    fn a_request_over_one_page_is_refused() {
        let mut bytes = Vec::new();
        let length = u32::try_from(MAX_MESSAGE + 2).unwrap();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.resize(4 + MAX_MESSAGE + 2, 2);
        assert!(matches!(GuestFrame::read(&mut bytes.as_slice()), Err(FrameError::Malformed { kind: 2, .. })));
    }

    #[test]
    fn an_ended_link_is_told_from_a_broken_frame() {
        let mut bytes = Vec::new();
        GuestFrame::Request(vec![1, 2, 3]).write(&mut bytes).unwrap();
        assert!(matches!(GuestFrame::read(&mut [].as_slice()), Err(FrameError::Closed)));
        for end in 1..bytes.len() {
            assert!(matches!(GuestFrame::read(&mut &bytes[..end]), Err(FrameError::Truncated)), "{end}");
        }
    }

    #[test]
    fn each_side_refuses_the_other_sides_kinds() {
        let mut bytes = Vec::new();
        GuestFrame::Secrets.write(&mut bytes).unwrap();
        assert!(matches!(ProcessorFrame::read(&mut bytes.as_slice()), Err(FrameError::UnknownKind(1))));
        let mut bytes = Vec::new();
        ProcessorFrame::Response { exit_info: ExitInfo::SUCCESS, message: Vec::new() }.write(&mut bytes).unwrap();
        assert!(matches!(GuestFrame::read(&mut bytes.as_slice()), Err(FrameError::UnknownKind(130))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0u32..220) {
            let mut framed = length.to_le_bytes().to_vec();
            framed.extend_from_slice(&bytes);
            for kind in [1, 2, 3, 129, 130, 131] {
                if let Some(byte) = framed.get_mut(4) { *byte = kind; }
                drop(GuestFrame::read(&mut framed.as_slice()));
                drop(ProcessorFrame::read(&mut framed.as_slice()));
            }
        }

        #[test]
        fn guest_frames_survive_the_round_trip(frame in guest_frame()) {
            let mut bytes = Vec::new();
            frame.write(&mut bytes).unwrap();
            prop_assert_eq!(GuestFrame::read(&mut Drip(&bytes)).unwrap(), frame);
        }

        #[test]
        fn processor_frames_survive_the_round_trip(frame in processor_frame()) {
            let mut bytes = Vec::new();
            frame.write(&mut bytes).unwrap();
            prop_assert!(ProcessorFrame::read(&mut Drip(&bytes)).unwrap() == frame);
        }
    }
}
