//! Writing DER (ITU-T X.690): just what certificates and revocation lists need.

use crate::time::Timestamp;

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
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

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

pub(crate) fn set(content: &[u8]) -> Vec<u8> {
    tlv(0x31, &[content])
}

/// An explicit context-specific tag around `content`.
pub(crate) fn context(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xa0 | number, &[content])
}

pub(crate) fn boolean(value: bool) -> Vec<u8> {
    tlv(0x01, &[&[if value { 0xff } else { 0 }]])
}

/// A non-negative INTEGER: no more bytes than needed, a leading zero where the highest bit is set.
pub(crate) fn uint(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let first = bytes.iter().position(|&byte| byte != 0).unwrap_or(7);
    let digits = bytes.get(first..).unwrap_or(&[]);
    let sign: &[u8] = if digits.first().is_some_and(|&byte| byte >= 0x80) { &[0] } else { &[] };
    tlv(0x02, &[sign, digits])
}

pub(crate) fn bit_string(content: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], content])
}

pub(crate) fn octet_string(content: &[u8]) -> Vec<u8> {
    tlv(0x04, &[content])
}

pub(crate) fn object_id(content: &[u8]) -> Vec<u8> {
    tlv(0x06, &[content])
}

pub(crate) fn text(value: &str) -> Vec<u8> {
    tlv(0x0c, &[value.as_bytes()])
}

pub(crate) fn ia5_text(value: &str) -> Vec<u8> {
    tlv(0x16, &[value.as_bytes()])
}

/// UTCTime up to 2049, GeneralizedTime from 2050 on (RFC 5280, 4.1.2.5).
pub(crate) fn time(at: Timestamp) -> Vec<u8> {
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
