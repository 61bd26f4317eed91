//! PEM (RFC 7468): keys and certificates in text files.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

/// Characters of base64 on a line (RFC 7468, section 2).
const LINE: usize = 64;

/// What stands between `-----BEGIN label-----` and its end.
#[derive(Clone, Debug)]
pub struct Block {
    /// The label, such as `CERTIFICATE`.
    pub label: String,
    /// The contents. Forgotten when dropped: they may be a private key.
    pub der: Zeroizing<Vec<u8>>,
}

/// Text that is not PEM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// A block does not end.
    #[error("the block `{0}` does not end")]
    Open(String),
    /// A block is not base64.
    #[error("the block `{0}` is not base64; a key that is encrypted must be decrypted first")]
    NotBase64(String),
    /// No certificate.
    #[error("there is no block `-----BEGIN CERTIFICATE-----`")]
    NoCertificate,
}

/// The blocks of a text, in their order. What stands outside of blocks is ignored.
///
/// # Errors
/// [`PemError::Open`] and [`PemError::NotBase64`].
pub fn blocks(text: &str) -> Result<Vec<Block>, PemError> {
    let mut lines = text.lines().map(str::trim);
    let mut all = Vec::new();
    while let Some(line) = lines.next() {
        let label = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let Some(label) = label.map(str::to_owned) else { continue };
        let end = format!("-----END {label}-----");
        let mut base64 = Zeroizing::new(String::new());
        loop {
            match lines.next() {
                Some(line) if line == end => break,
                Some(line) => base64.push_str(line),
                None => return Err(PemError::Open(label)),
            }
        }
        match BASE64_STANDARD.decode(base64.as_bytes()) {
            Ok(der) => all.push(Block { label, der: Zeroizing::new(der) }),
            Err(_) => return Err(PemError::NotBase64(label)),
        }
    }
    Ok(all)
}

/// The certificates of a text, in their order.
///
/// # Errors
/// [`PemError`].
pub fn certificates(text: &str) -> Result<Vec<Vec<u8>>, PemError> {
    let certificates = blocks(text)?.into_iter().filter(|block| block.label == "CERTIFICATE");
    let all: Vec<_> = certificates.map(|block| block.der.to_vec()).collect();
    if all.is_empty() { Err(PemError::NoCertificate) } else { Ok(all) }
}

/// A block in text.
#[must_use]
pub fn write(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(BASE64_STANDARD.encode(der));
    let mut text = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        let _ = writeln!(text, "{line}");
        rest = after;
    }
    let _ = writeln!(text, "-----END {label}-----");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_read_back() {
        let text = format!("a note\n{}\r\n{}", *write("CERTIFICATE", &[7; 100]), *write("X", &[]));
        let found = blocks(&text).unwrap();
        assert_eq!((found[0].label.as_str(), found[0].der.as_slice()), ("CERTIFICATE", &[7; 100][..]));
        assert_eq!((found[1].label.as_str(), found[1].der.len()), ("X", 0));
        assert!(text.lines().all(|line| line.len() <= LINE));
        assert_eq!(certificates(&text).unwrap(), [vec![7; 100]]);
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!(certificates("").unwrap_err(), PemError::NoCertificate);
        assert_eq!(blocks("-----BEGIN A-----\nAAAA").unwrap_err(), PemError::Open("A".to_owned()));
        let encrypted = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----";
        assert_eq!(blocks(encrypted).unwrap_err(), PemError::NotBase64("EC PRIVATE KEY".to_owned()));
    }
}
