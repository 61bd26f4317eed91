//! What Caveau puts into REPORT_DATA: one meaning per use, kept apart by domain.
//!
//! ```text
//! REPORT_DATA = SHA-512( "caveau/report-data/1" 00  use 00  u64le(len(nonce)) nonce  u64le(len(data)) data )
//! ```
//! `use` is one of `challenge`, `owner-channel`, `event-log`, `key-release`, in ASCII; `nonce` is the verifier's; `data` is
//! what the guest ties to the report, such as a session's secret or a public key, and comes along with the evidence. All 64 bytes are compared.

use caveau_signature::sha512;

use crate::Hex;

/// What a report is for. A report made for one use is worthless for every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// Somebody asks what runs.
    Challenge,
    /// One session of a channel to the guest itself; the data is what the session exports for the nonce.
    OwnerChannel,
    /// A group's event log; the data is its head.
    EventLog,
    /// Release of a key; the data is the public key to which it is wrapped.
    KeyRelease,
}

impl Use {
    /// The use as it stands in the hash.
    #[must_use]
    pub const fn domain(self) -> &'static str {
        match self {
            Self::Challenge => "challenge",
            Self::OwnerChannel => "owner-channel",
            Self::EventLog => "event-log",
            Self::KeyRelease => "key-release",
        }
    }
}

/// The 64 bytes of REPORT_DATA for this use, nonce and data.
#[must_use]
pub fn report_data(purpose: Use, nonce: &[u8], data: &[u8]) -> Hex<64> {
    // A length above u64 does not exist.
    let length = |part: &[u8]| u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes();
    let (domain, of_nonce, of_data) = (purpose.domain().as_bytes(), length(nonce), length(data));
    Hex(sha512(&[b"caveau/report-data/1\0", domain, &[0], &of_nonce, nonce, &of_data, data]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_nonces_and_data_are_kept_apart() {
        let uses = [Use::Challenge, Use::OwnerChannel, Use::EventLog, Use::KeyRelease];
        let mut seen: Vec<_> = uses.iter().map(|purpose| report_data(*purpose, b"nonce", b"data")).collect();
        seen.push(report_data(Use::Challenge, b"nonced", b"ata"));
        seen.push(report_data(Use::Challenge, b"nonce", b""));
        seen.push(report_data(Use::Challenge, b"", b"nonce"));
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn the_binding_is_the_documented_hash() {
        let text = b"caveau/report-data/1\0challenge\0\x02\0\0\0\0\0\0\0ab\x01\0\0\0\0\0\0\0c";
        assert_eq!(report_data(Use::Challenge, b"ab", b"c").0[..], sha512(&[text]));
    }
}
