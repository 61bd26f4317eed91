//! MSG_REPORT_REQ and MSG_REPORT_RSP (AMD 56860, "Attestation").

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::{field, zero};
use crate::{MessageError, Status};

/// Version of both payloads.
pub const MESSAGE_VERSION: u8 = 1;
/// Bytes of an attestation report.
pub const REPORT_SIZE: usize = 1184;
/// Bytes of a request.
pub const REQUEST_SIZE: usize = 96;

/// Which key signs the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeySelection {
    /// 0: the VLEK if one is loaded, else the VCEK.
    #[default]
    VlekElseVcek,
    /// 1: the VCEK.
    Vcek,
    /// 2: the VLEK.
    Vlek,
}

/// A guest's request for a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRequest {
    /// 64 bytes that the report repeats.
    pub report_data: [u8; 64],
    /// VMPL that the report names; not lower than the requester's.
    pub vmpl: u32,
    /// Which key signs.
    pub key: KeySelection,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRequest {
    report_data: [u8; 64],
    vmpl: U32,
    key_selection: U32,
    reserved_48: [u8; 24],
}

const _: () = assert!(size_of::<RawRequest>() == REQUEST_SIZE);

impl ReportRequest {
    /// Reads the payload of MSG_REPORT_REQ.
    ///
    /// # Errors
    /// When its length, the key selection or a reserved byte is not as specified.
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        let raw = RawRequest::ref_from_bytes(payload).map_err(|_| MessageError::Size {
            what: "MSG_REPORT_REQ",
            expected: REQUEST_SIZE,
            found: payload.len(),
        })?;
        zero("MSG_REPORT_REQ bytes 0x48..0x60", &raw.reserved_48)?;
        let key = match raw.key_selection.get() {
            0 => KeySelection::VlekElseVcek,
            1 => KeySelection::Vcek,
            2 => KeySelection::Vlek,
            other => return Err(field("KEY_SEL", "0 to 2", u64::from(other))),
        };
        Ok(Self { report_data: raw.report_data, vmpl: raw.vmpl.get(), key })
    }

    /// The payload's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; REQUEST_SIZE] {
        let raw = RawRequest {
            report_data: self.report_data,
            vmpl: U32::new(self.vmpl),
            key_selection: U32::new(match self.key {
                KeySelection::VlekElseVcek => 0,
                KeySelection::Vcek => 1,
                KeySelection::Vlek => 2,
            }),
            reserved_48: [0; 24],
        };
        zerocopy::transmute!(raw)
    }
}

/// The processor's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportResponse {
    /// Whether there is a report.
    pub status: Status,
    /// The report, if there is one.
    pub report: Option<Box<[u8; REPORT_SIZE]>>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawResponse {
    status: U32,
    report_size: U32,
    reserved_08: [u8; 24],
}

impl ReportResponse {
    /// An answer without a report.
    #[must_use]
    pub fn refused(status: Status) -> Self {
        Self { status, report: None }
    }

    /// Reads the payload of MSG_REPORT_RSP.
    ///
    /// # Errors
    /// When a size is wrong or a report comes with a status that is not success.
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        let size = |found| MessageError::Size { what: "MSG_REPORT_RSP", expected: REPORT_SIZE, found };
        let (raw, body) = RawResponse::ref_from_prefix(payload).map_err(|_| size(payload.len()))?;
        zero("MSG_REPORT_RSP bytes 0x08..0x20", &raw.reserved_08)?;
        let status = Status::from(raw.status.get());
        if status != Status::Success {
            return Ok(Self::refused(status));
        }
        if raw.report_size.get() as usize != REPORT_SIZE {
            return Err(field("REPORT_SIZE", "1184", u64::from(raw.report_size.get())));
        }
        let report = <[u8; REPORT_SIZE]>::try_from(body).map_err(|_| size(body.len()))?;
        Ok(Self { status, report: Some(Box::new(report)) })
    }

    /// The payload's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = self.report.as_ref().map(|report| report.as_slice()).unwrap_or_default();
        let raw = RawResponse {
            status: U32::new(self.status.into()),
            report_size: U32::new(u32::try_from(body.len()).unwrap_or_default()),
            reserved_08: [0; 24],
        };
        [raw.as_bytes(), body].concat()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn key_selection_lies_at_0x44() {
        let request = ReportRequest { report_data: [1; 64], vmpl: 3, key: KeySelection::Vlek };
        let bytes = request.to_bytes();
        assert_eq!(bytes[0x40..0x48], [3, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(ReportRequest::parse(&bytes).unwrap(), request);
    }

    #[test]
    fn reserved_bytes_and_unknown_keys_are_refused() {
        let bytes = ReportRequest { report_data: [1; 64], vmpl: 0, key: KeySelection::Vcek }.to_bytes();
        for (offset, value) in [(0x44, 3), (0x47, 1), (0x48, 1), (0x5f, 1)] {
            let mut changed = bytes;
            changed[offset] = value;
            assert!(ReportRequest::parse(&changed).is_err(), "offset {offset:#x}");
        }
    }

    #[test]
    fn an_answer_survives_the_round_trip() {
        let done = ReportResponse { status: Status::Success, report: Some(Box::new([5; REPORT_SIZE])) };
        assert_eq!(ReportResponse::parse(&done.to_bytes()).unwrap(), done);
        for status in [Status::InvalidParameters, Status::InvalidKeySelection, Status::Other(9)] {
            let refused = ReportResponse::refused(status);
            assert_eq!(ReportResponse::parse(&refused.to_bytes()).unwrap(), refused);
        }
        let mut short = done.to_bytes();
        short.pop();
        assert!(ReportResponse::parse(&short).is_err());
        assert!(ReportResponse::parse(&ReportResponse::refused(Status::Success).to_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            drop(ReportResponse::parse(&bytes));
            drop(ReportRequest::parse(&bytes));
        }

        #[test]
        fn what_parses_is_written_back_the_same(mut bytes in proptest::collection::vec(any::<u8>(), REQUEST_SIZE), key in 0u8..3) {
            bytes[0x44..].fill(0);
            bytes[0x44] = key;
            prop_assert_eq!(ReportRequest::parse(&bytes).unwrap().to_bytes().to_vec(), bytes);
        }
    }
}
