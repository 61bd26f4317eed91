//! PEM (RFC 7468): certificates in text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The labels of certificates and of revocation lists.
pub(crate) const LABELS: [&str; 2] = ["CERTIFICATE", "X509 CRL"];

/// The certificates of a PEM text, in order, as DER; `None` when a block does not end or is no base64. Text between blocks is
/// passed over.
#[must_use]
pub fn certificates(text: &str) -> Option<Vec<Vec<u8>>> {
    blocks(text, &LABELS[..1])
}

/// The blocks with any of these labels, as [`certificates`].
pub(crate) fn blocks(text: &str, labels: &[&str]) -> Option<Vec<Vec<u8>>> {
    let mut rest = text;
    let mut found = Vec::new();
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, body) = after.split_once("-----")?;
        let (body, next) = body.split_once(&format!("-----END {label}-----"))?;
        if labels.contains(&label) {
            let digits: String = body.split_ascii_whitespace().collect();
            found.push(STANDARD.decode(digits).ok()?);
        }
        rest = next;
    }
    Some(found)
}

/// One certificate that is DER, or PEM; `None` when it starts as PEM and is broken.
pub(crate) fn to_der(bytes: &[u8]) -> Option<Vec<u8>> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.trim_start().starts_with("-----BEGIN") => certificates(text)?.into_iter().next(),
        _ => Some(bytes.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";

    #[test]
    fn blocks_are_read_in_order() {
        let text = format!("first\n{BEGIN}\nAQID\nBA==\n{END}\n{BEGIN}\r\nBQ==\r\n{END}\n");
        assert_eq!(certificates(&text).unwrap(), [vec![1, 2, 3, 4], vec![5]]);
        assert_eq!(to_der(text.trim_start_matches("first\n").as_bytes()).unwrap(), [1, 2, 3, 4]);
        assert_eq!(to_der(&[0x30, 0]).unwrap(), [0x30, 0]);
    }

    #[test]
    fn other_blocks_are_passed_over() {
        let list = "-----BEGIN X509 CRL-----\nBQ==\n-----END X509 CRL-----\n";
        let text = format!("{list}{BEGIN}\nAQID\n{END}\n-----BEGIN X-----\n*\n-----END X-----\n");
        assert_eq!(certificates(&text).unwrap(), [vec![1, 2, 3]]);
        assert_eq!(blocks(&text, &LABELS).unwrap(), [vec![5], vec![1, 2, 3]]);
    }

    #[test]
    fn broken_blocks_are_refused() {
        assert_eq!(certificates(&format!("{BEGIN}\nAQID\n")), None);
        assert_eq!(certificates(&format!("{BEGIN}\n*\n{END}")), None);
        assert_eq!(certificates("nothing"), Some(Vec::new()));
        assert_eq!(certificates(&format!("{BEGIN}\nAQID\n-----END X509 CRL-----")), None);
    }
}
