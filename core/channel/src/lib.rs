//! The attested channel between a guest and those who ask it: TLS 1.3 over any byte stream, with raw public keys (RFC 7250) on
//! both sides, and what binds a session to a report.
//!
//! ```text
//!   OwnerEnd ◀── TLS 1.3 ──▶ GuestEnd
//!      │ exporter(nonce)        │ exporter(nonce)      the same 64 bytes only where it is one session
//!      ▼                        ▼
//!   expected REPORT_DATA     REPORT_DATA of a report that is made for this session
//! ```
//!
//! - Trusts: nobody. *Any* key of the other side is taken in the handshake, and a handshake proves nothing but that whoever
//!   ends the session has the key that it shows.
//! - Promises: what is exported is the same on both sides only where no third party stands between them; the peer's key is one
//!   that it proved to have; nothing is resumed, so that each session has a handshake of its own.
//! - Refuses: other versions of TLS, certificates, other applications, and sessions that are cut off.
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
        reason = "a test may fail loudly"
    )
)]

mod any_key;
mod guest;
mod owner;

use std::io::{self, Read, Write};

use caveau_protocol::owner::{EXPORTER_LABEL, EXPORTER_LENGTH};
use rustls::{ConnectionCommon, SideData};

pub use self::{
    guest::{GuestEnd, GuestIdentity},
    owner::{OwnerEnd, OwnerKey},
};

/// What is exported of a session, for one nonce.
pub type Exporter = [u8; EXPORTER_LENGTH];

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The key is none that signatures can be made with here.
    #[error(
        "the private key is not one of ECDSA on P-256, P-384 or P-521, Ed25519, or RSA, as PKCS#8, SEC 1 or PKCS#1 has it"
    )]
    Key,
    /// A key could not be made.
    #[error("failed to make a key")]
    Random,
    /// The stream failed, or the other side broke off.
    #[error("the channel failed")]
    Stream(#[source] io::Error),
    /// The other side does not keep to the protocol.
    #[error("the channel could not be set up")]
    Tls(#[source] rustls::Error),
}

/// Does the handshake to its end.
fn shake_hands<D: SideData>(
    connection: &mut ConnectionCommon<D>,
    stream: &mut (impl Read + Write),
) -> Result<(), ChannelError> {
    while connection.is_handshaking() {
        connection.complete_io(stream).map_err(|error| {
            // What TLS has to say comes wrapped.
            match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(inner) => ChannelError::Tls(inner.clone()),
                None => ChannelError::Stream(error),
            }
        })?;
    }
    Ok(())
}

/// What the session gives for this nonce.
fn export<D: SideData>(connection: &ConnectionCommon<D>, nonce: &[u8]) -> Result<Exporter, ChannelError> {
    connection.export_keying_material([0; EXPORTER_LENGTH], EXPORTER_LABEL, Some(nonce)).map_err(ChannelError::Tls)
}

#[cfg(test)]
mod tests;
