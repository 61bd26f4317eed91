//! PEM (RFC 7468): certificates in text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates of a PEM text, in order, as DER; `None` when a block does not end or is no base64. Text between blocks is
/// passed over.
#[must_use]
pub fn certificates(text: &str) -> Option<Vec<Vec<u8>>> {
    let mut rest = text;
    let mut found = Vec::new();
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (body, next) = after.split_once(END)?;
        let digits: String = body.split_ascii_whitespace().collect();
        found.push(STANDARD.decode(digits).ok()?);
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

    #[test]
    fn blocks_are_read_in_order() {
        let text = format!("first\n{BEGIN}\nAQID\nBA==\n{END}\n{BEGIN}\r\nBQ==\r\n{END}\n");
        assert_eq!(certificates(&text).unwrap(), [vec![1, 2, 3, 4], vec![5]]);
        assert_eq!(to_der(text.trim_start_matches("first\n").as_bytes()).unwrap(), [1, 2, 3, 4]);
        assert_eq!(to_der(&[0x30, 0]).unwrap(), [0x30, 0]);
    }

    #[test]
    fn broken_blocks_are_refused() {
        assert_eq!(certificates(&format!("{BEGIN}\nAQID\n")), None);
        assert_eq!(certificates(&format!("{BEGIN}\n*\n{END}")), None);
        assert_eq!(certificates("nothing"), Some(Vec::new()));
    }
}
