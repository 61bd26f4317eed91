//! What can be wrong with a report's form.

use crate::report::REPORT_BYTES;

/// Why bytes are no report that a verifier may believe. The order is that of the checks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Another length than [`REPORT_BYTES`].
    #[error("the report has {0} bytes, expected {REPORT_BYTES}")]
    Length(usize),
    /// A version whose layout is not known.
    #[error("the report's version is {0}, expected 2 to 5")]
    Version(u32),
    /// A byte that must be zero is not.
    #[error("the report has bytes set in the reserved range at {0:#x}")]
    Reserved(usize),
    /// A signature algorithm other than ECDSA P-384 with SHA-384.
    #[error("the report's signature algorithm is {0}, expected 1 (ECDSA P-384 with SHA-384)")]
    SignatureAlgorithm(u32),
    /// Reserved bits of KEY_INFO.
    #[error("the report's KEY_INFO {0:#x} has reserved bits set")]
    KeyInfo(u32),
    /// A report that no endorsement key signed.
    #[error("the report's signing key is {0}, expected 0 (VCEK) or 1 (VLEK)")]
    SigningKey(u32),
    /// A platform that does not sign.
    #[error("the report says that the chip's key is masked: the platform does not sign reports")]
    ChipKeyMasked,
    /// A number of the signature out of range.
    #[error("the report's signature is out of range: r and s must be above zero and below the group's order")]
    SignatureRange,
}

impl ReportError {
    /// A short, stable code: `length`, `version`, `reserved-nonzero-0x330`, …
    #[must_use]
    pub fn code(&self) -> String {
        match self {
            Self::Length(_) => "length".to_owned(),
            Self::Version(_) => "version".to_owned(),
            Self::Reserved(at) => format!("reserved-nonzero-{at:#x}"),
            Self::SignatureAlgorithm(_) => "sig-algo".to_owned(),
            Self::KeyInfo(_) => "keyinfo-reserved".to_owned(),
            Self::SigningKey(_) => "signing-key".to_owned(),
            Self::ChipKeyMasked => "chip-key-masked".to_owned(),
            Self::SignatureRange => "sig-range".to_owned(),
        }
    }
}
