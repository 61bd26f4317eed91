//! SNP guest messages: what guest and secure processor say to each other.
//!
//! The bytes are those of the SEV-SNP firmware ABI (AMD 56860, "Guest Messages"): a 96-byte header, a payload
//! sealed by AES-256-GCM under one of four VM platform communication keys (VMPCK), strict sequence numbers. On
//! hardware the hypervisor carries them for the `SNP_GUEST_REQUEST` exits of the GHCB protocol (AMD 56421); for
//! `emulated-snp` they go over a virtio-serial port in the frames of [`frame`], which stand for those exits:
//!
//! ```text
//! guest                                                    secure processor
//!   | Secrets                                            -> |   once in a launch, as a launch makes one page
//!   | <-                             Secrets {4096 bytes}   |
//!   | Request {message n}                                -> |
//!   | <-         Response {exit information, message n+1}   |
//!   | ExtendedRequest {capacity, message n+2}            -> |
//!   | <- ExtendedResponse {…, certificate table, message}   |
//! ```
//!
//! Trusts: nothing it reads; every parser here takes hostile bytes.
//! Promises: no panic and no allocation beyond the stated bounds on any input; a key is never used twice with the
//! same nonce; a session that saw an error it cannot order is wiped, as the Linux driver does.
//! Refuses: unknown header versions and algorithms, bytes that must be zero and are not, sequence numbers that are
//! not the next one, frames over their bound.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes,
        reason = "tests fail by panicking and compute with known small numbers"
    )
)]

mod error;
pub mod frame;
mod header;
pub mod key;
pub mod report;
mod secrets;
mod session;
mod vmpck;

pub use error::{FrameError, MessageError};
pub use header::{HEADER_SIZE, Header, MAX_MESSAGE, MAX_PAYLOAD, MessageType};
pub use secrets::{SECRETS_PAGE_SIZE, SecretsPage};
pub use session::{GuestSession, ProcessorSession, Received};
pub use vmpck::{Vmpck, VmpckId};

/// Status of a response payload (MSG_REPORT_RSP, MSG_KEY_RSP; AMD 56860).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 0: done.
    Success,
    /// 0x16: a field of the request has a value that is not allowed.
    InvalidParameters,
    /// 0x27: the selected key does not exist or must not be used.
    InvalidKeySelection,
    /// Any other number.
    Other(u32),
}

impl From<u32> for Status {
    fn from(value: u32) -> Self {
        match value {
            0 => Self::Success,
            0x16 => Self::InvalidParameters,
            0x27 => Self::InvalidKeySelection,
            other => Self::Other(other),
        }
    }
}

impl From<Status> for u32 {
    fn from(status: Status) -> Self {
        match status {
            Status::Success => 0,
            Status::InvalidParameters => 0x16,
            Status::InvalidKeySelection => 0x27,
            Status::Other(other) => other,
        }
    }
}
