//! PEM (RFC 7468): a certificate as text.

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// Characters of base64 on a line (RFC 7468, section 2).
const LINE: usize = 64;

/// A certificate, given as DER, in PEM.
#[must_use]
pub fn certificate(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in BASE64_STANDARD.encode(der).chars().enumerate() {
        if index > 0 && index.is_multiple_of(LINE) {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_lines_have_64_characters() {
        let text = certificate(&[0xa5; 100]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!((lines[1].len(), lines[2].len(), lines[3].len()), (64, 64, 8));
        assert_eq!(BASE64_STANDARD.decode(lines[1..4].concat()).unwrap(), [0xa5; 100]);
    }
}
