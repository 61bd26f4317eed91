//! The 96-byte message header (AMD 56860, "Guest Message Format"; Linux `struct snp_guest_msg_hdr`).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{MessageError, VmpckId};

/// Bytes of a message header.
pub const HEADER_SIZE: usize = 96;
/// Bytes of the largest message: one page.
pub const MAX_MESSAGE: usize = 4096;
/// Bytes of the largest payload.
pub const MAX_PAYLOAD: usize = 4000;
/// Where the authenticated part of the header begins.
pub(crate) const AAD_START: usize = 0x30;
/// Bytes of an AES-GCM tag; the header has room for 32.
pub(crate) const TAG_SIZE: usize = 16;

const ALGORITHM_AES_256_GCM: u8 = 1;
const HEADER_VERSION: u8 = 1;

/// Message types that Caveau speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageType {
    /// MSG_KEY_REQ.
    KeyRequest = 3,
    /// MSG_KEY_RSP.
    KeyResponse = 4,
    /// MSG_REPORT_REQ.
    ReportRequest = 5,
    /// MSG_REPORT_RSP.
    ReportResponse = 6,
}

impl MessageType {
    /// The type with this number, if Caveau speaks it.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            3 => Some(Self::KeyRequest),
            4 => Some(Self::KeyResponse),
            5 => Some(Self::ReportRequest),
            6 => Some(Self::ReportResponse),
            _ => None,
        }
    }

    /// The type of the answer to a request; a response has none.
    #[must_use]
    pub fn response(self) -> Option<Self> {
        match self {
            Self::KeyRequest => Some(Self::KeyResponse),
            Self::ReportRequest => Some(Self::ReportResponse),
            Self::KeyResponse | Self::ReportResponse => None,
        }
    }
}

/// The bytes as they lie in the message.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) tag: [u8; TAG_SIZE],
    tag_rest: [u8; 16],
    sequence: U64,
    reserved_28: [u8; 8],
    algorithm: u8,
    header_version: u8,
    header_size: U16,
    message_type: u8,
    message_version: u8,
    payload_size: U16,
    reserved_38: U32,
    vmpck: u8,
    reserved_3d: [u8; 35],
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_SIZE);

/// What a header says, once its fixed fields were found right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// AES-GCM tag over the header's end and the payload.
    pub tag: [u8; 16],
    /// Sequence number; the nonce of the payload.
    pub sequence: u64,
    /// Type number; see [`MessageType`].
    pub message_type: u8,
    /// Version of the payload's layout.
    pub message_version: u8,
    /// Bytes of payload.
    pub payload_size: u16,
    /// Key under which the payload is sealed.
    pub vmpck: VmpckId,
}

impl Header {
    /// Reads the header at the start of a message, which must be exactly as long as the header says.
    ///
    /// # Errors
    /// When the length, algorithm, header version or size, VMPCK or a reserved byte is not as specified.
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        let (raw, payload) = RawHeader::ref_from_prefix(message).map_err(|_| MessageError::Size {
            what: "a guest message",
            expected: HEADER_SIZE,
            found: message.len(),
        })?;
        raw.check_fixed()?;
        let payload_size = raw.payload_size.get();
        if usize::from(payload_size) > MAX_PAYLOAD {
            return Err(field("MSG_SIZE", "at most 4000", u64::from(payload_size)));
        }
        if payload.len() != usize::from(payload_size) {
            return Err(MessageError::Size {
                what: "the payload of a guest message",
                expected: usize::from(payload_size),
                found: payload.len(),
            });
        }
        Ok(Self {
            tag: raw.tag,
            sequence: raw.sequence.get(),
            message_type: raw.message_type,
            message_version: raw.message_version,
            payload_size,
            vmpck: VmpckId::new(raw.vmpck).ok_or_else(|| field("MSG_VMPCK", "0 to 3", u64::from(raw.vmpck)))?,
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE] {
        let raw = RawHeader {
            tag: self.tag,
            tag_rest: [0; 16],
            sequence: U64::new(self.sequence),
            reserved_28: [0; 8],
            algorithm: ALGORITHM_AES_256_GCM,
            header_version: HEADER_VERSION,
            header_size: U16::new(96),
            message_type: self.message_type,
            message_version: self.message_version,
            payload_size: U16::new(self.payload_size),
            reserved_38: U32::ZERO,
            vmpck: self.vmpck.number(),
            reserved_3d: [0; 35],
        };
        zerocopy::transmute!(raw)
    }
}

impl RawHeader {
    fn check_fixed(&self) -> Result<(), MessageError> {
        if self.algorithm != ALGORITHM_AES_256_GCM {
            return Err(field("ALGO", "1 (AES-256-GCM)", u64::from(self.algorithm)));
        }
        if self.header_version != HEADER_VERSION {
            return Err(field("HDR_VERSION", "1", u64::from(self.header_version)));
        }
        if usize::from(self.header_size.get()) != HEADER_SIZE {
            return Err(field("HDR_SIZE", "96", u64::from(self.header_size.get())));
        }
        zero("header bytes 0x10..0x20", &self.tag_rest)?;
        zero("header bytes 0x28..0x30", &self.reserved_28)?;
        zero("header bytes 0x38..0x3c", self.reserved_38.as_bytes())?;
        zero("header bytes 0x3d..0x60", &self.reserved_3d)
    }
}

/// Shorthand for [`MessageError::Field`].
pub(crate) fn field(field: &'static str, expected: &'static str, found: u64) -> MessageError {
    MessageError::Field { field, expected, found }
}

/// Refuses bytes that are not all zero.
pub(crate) fn zero(field: &'static str, bytes: &[u8]) -> Result<(), MessageError> {
    if bytes.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(MessageError::NonZero { field }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(payload_size: u16) -> Header {
        Header {
            tag: [7; 16],
            sequence: 0x0102_0304_0506_0708,
            message_type: 5,
            message_version: 1,
            payload_size,
            vmpck: VmpckId::new(2).unwrap(),
        }
    }

    fn message(payload_size: u16) -> Vec<u8> {
        let mut bytes = header(payload_size).to_bytes().to_vec();
        bytes.resize(HEADER_SIZE + usize::from(payload_size), 0xaa);
        bytes
    }

    #[test]
    fn fields_lie_where_the_specification_has_them() {
        let bytes = header(96).to_bytes();
        assert_eq!(bytes[0x20..0x28], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[0x30..0x38], [1, 1, 96, 0, 5, 1, 96, 0]);
        assert_eq!(bytes[0x3c], 2);
    }

    #[test]
    fn each_fixed_field_is_checked() {
        for offset in (0x10..0x20).chain(0x28..0x34).chain(0x38..0x60) {
            let mut bytes = message(8);
            bytes[offset] ^= 0x80;
            assert!(Header::parse(&bytes).is_err(), "offset {offset:#x}");
        }
    }

    #[test]
    fn a_length_other_than_announced_is_refused() {
        let mut bytes = message(8);
        bytes.push(0);
        assert!(matches!(Header::parse(&bytes), Err(MessageError::Size { expected: 8, found: 9, .. })));
        assert!(matches!(Header::parse(&message(8)[..HEADER_SIZE + 7]), Err(MessageError::Size { .. })));
        assert!(matches!(Header::parse(&[0; 95]), Err(MessageError::Size { expected: 96, found: 95, .. })));
        assert!(matches!(Header::parse(&message(4001)), Err(MessageError::Field { field: "MSG_SIZE", .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(Header::parse(&bytes));
        }

        #[test]
        fn a_header_survives_the_round_trip(
            tag: [u8; 16], sequence: u64, message_type: u8, message_version: u8, payload_size in 0u16..=4000, vmpck in 0u8..4,
        ) {
            let header = Header {
                tag, sequence, message_type, message_version, payload_size, vmpck: VmpckId::new(vmpck).unwrap(),
            };
            let mut bytes = header.to_bytes().to_vec();
            bytes.resize(HEADER_SIZE + usize::from(payload_size), 0);
            prop_assert_eq!(Header::parse(&bytes).unwrap(), header);
        }
    }
}
