//! Writing DER (ITU-T X.690): just what certificates and revocation lists need. What is handed in as content is written
//! as it is.

use crate::time::Timestamp;

/// An element with this one-byte tag, of parts one after the other.
#[must_use]
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let bytes = length.to_be_bytes();
    let significant = bytes.iter().position(|&byte| byte != 0).and_then(|first| bytes.get(first..)).unwrap_or(&[]);
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => out.push(short),
        // The length's own length: at most eight.
        _ => {
            out.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
            out.extend(significant);
        }
    }
    out.extend(parts.iter().copied().flatten());
    out
}

/// A SEQUENCE of encoded parts.
#[must_use]
pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

/// A SET with this content.
#[must_use]
pub fn set(content: &[u8]) -> Vec<u8> {
    tlv(0x31, &[content])
}

/// An explicit context-specific tag around `content`.
#[must_use]
pub fn context(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xa0 | number, &[content])
}

/// A BOOLEAN.
#[must_use]
pub fn boolean(value: bool) -> Vec<u8> {
    tlv(0x01, &[&[if value { 0xff } else { 0 }]])
}

/// A non-negative INTEGER: no more bytes than needed, a leading zero where the highest bit is set.
#[must_use]
pub fn uint(value: u64) -> Vec<u8> {
    big_uint(&value.to_be_bytes())
}

/// The same of any length, big-endian, with or without leading zeros; 0 of no bytes.
#[must_use]
pub fn big_uint(bytes: &[u8]) -> Vec<u8> {
    let digits = bytes.iter().position(|&byte| byte != 0).and_then(|first| bytes.get(first..)).unwrap_or(&[0]);
    let sign: &[u8] = if digits.first().is_some_and(|&byte| byte >= 0x80) { &[0] } else { &[] };
    tlv(0x02, &[sign, digits])
}

/// A BIT STRING of whole bytes.
#[must_use]
pub fn bit_string(content: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], content])
}

/// An OCTET STRING.
#[must_use]
pub fn octet_string(content: &[u8]) -> Vec<u8> {
    tlv(0x04, &[content])
}

/// An OBJECT IDENTIFIER, given as its contents.
#[must_use]
pub fn object_id(content: &[u8]) -> Vec<u8> {
    tlv(0x06, &[content])
}

/// A UTF8String.
#[must_use]
pub fn text(value: &str) -> Vec<u8> {
    tlv(0x0c, &[value.as_bytes()])
}

/// An IA5String; whether the text is ASCII is for the caller to see to.
#[must_use]
pub fn ia5_text(value: &str) -> Vec<u8> {
    tlv(0x16, &[value.as_bytes()])
}

/// UTCTime up to 2049, GeneralizedTime from 2050 on (RFC 5280, 4.1.2.5).
#[must_use]
pub fn time(at: Timestamp) -> Vec<u8> {
    let digits: String = at.to_string().chars().filter(|c| !matches!(c, '-' | ':' | 'T')).collect();
    match digits
        .strip_prefix("19")
        .filter(|year| *year >= "5")
        .or_else(|| digits.strip_prefix("20").filter(|year| *year < "5"))
    {
        Some(short) => tlv(0x17, &[short.as_bytes()]),
        None => tlv(0x18, &[digits.as_bytes()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal() {
        assert_eq!(octet_string(&[0; 127])[..2], [0x04, 0x7f]);
        assert_eq!(octet_string(&[0; 128])[..3], [0x04, 0x81, 0x80]);
        assert_eq!(octet_string(&[0; 256])[..4], [0x04, 0x82, 1, 0]);
        assert_eq!(octet_string(&[]), [0x04, 0]);
    }

    #[test]
    fn integers_are_minimal_and_not_negative() {
        assert_eq!(uint(0), [2, 1, 0]);
        assert_eq!(uint(0x7f), [2, 1, 0x7f]);
        assert_eq!(uint(0x80), [2, 2, 0, 0x80]);
        assert_eq!(uint(0xf_0001), [2, 3, 0x0f, 0, 1]);
    }

    #[test]
    fn times_change_their_form_in_2050() {
        assert_eq!(time(Timestamp::from_unix(2_524_607_999)), b"\x17\x0d491231235959Z");
        assert_eq!(time(Timestamp::from_unix(2_524_608_000)), b"\x18\x0f20500101000000Z");
    }
}
