//! The channel of owners and of others who ask the guest itself: this protocol inside TLS 1.3, which the host carries as bytes.
//!
//! ```text
//!   owner ──TCP──▶ supervisor ──open_channel, write_channel, read_channel──▶ agent
//!   └──────────────────────── TLS 1.3, raw public keys on both sides ────────────┘
//! ```
//!
//! Neither side knows the other's key beforehand: the guest's is new with each start. What makes it known is a report whose
//! REPORT_DATA binds the caller's nonce and the [exporter](EXPORTER_LABEL) of this very session: whoever stands between has a
//! session of its own on each side, with another exporter. The caller's key, where it shows one, is looked up in the policy.

/// Label of the exporter (RFC 5705; RFC 8446, section 7.5), whose context is the caller's nonce.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-caveau-owner-channel";

/// Length of the exported secret in bytes.
pub const EXPORTER_LENGTH: usize = 64;

/// The application's name in the handshake (ALPN, RFC 7301).
pub const APPLICATION: &[u8] = b"caveau-owner/1";
