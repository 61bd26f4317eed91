//! Object identifiers, between their DER contents and their dotted decimal form.

/// Most bytes of an identifier's contents.
const MAX_BYTES: usize = 64;

pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
pub(crate) const CERTIFICATE_POLICIES: &[u8] = &[0x55, 0x1d, 0x20];
pub(crate) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
pub(crate) const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
pub(crate) const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 1.3.6.1.4.1.57264.1.1: the OpenID Connect issuer that vouched for the subject, as plain text (Fulcio).
pub(crate) const FULCIO_ISSUER: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x01];

/// The DER contents of an identifier such as `1.3.6.1.5.5.7.3.3`; `None` where the text is none.
#[must_use]
pub fn from_dotted(text: &str) -> Option<Vec<u8>> {
    let arcs: Vec<u64> = text.split('.').map(arc).collect::<Option<_>>()?;
    let [first, second, rest @ ..] = arcs.as_slice() else { return None };
    if *first > 2 || (*first < 2 && *second > 39) {
        return None;
    }
    let mut bytes = Vec::new();
    push(&mut bytes, first.checked_mul(40)?.checked_add(*second)?);
    rest.iter().for_each(|arc| push(&mut bytes, *arc));
    (bytes.len() <= MAX_BYTES).then_some(bytes)
}

/// A number in decimal, without leading zeros.
fn arc(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Appends an arc: seven bits a byte, all but the last with the highest bit set.
fn push(bytes: &mut Vec<u8>, arc: u64) {
    for shift in (0..=9_u32).rev().map(|group| group.saturating_mul(7)) {
        let above = arc.checked_shr(shift).unwrap_or(0);
        let group = u8::try_from(above & 0x7f).unwrap_or(0);
        match shift {
            0 => bytes.push(group),
            _ if above > 0 => bytes.push(0x80 | group),
            _ => {}
        }
    }
}

/// The dotted decimal form; the bytes in hexadecimal where they are no identifier.
#[must_use]
pub fn to_dotted(bytes: &[u8]) -> String {
    dotted(bytes).unwrap_or_else(|| format!("0x{}", hex::encode(bytes)))
}

fn dotted(bytes: &[u8]) -> Option<String> {
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc: u64 = 0;
    for byte in bytes {
        arc = arc.checked_mul(128)? | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            arcs.push(arc);
            arc = 0;
        }
    }
    if bytes.last().is_none_or(|last| last & 0x80 != 0) {
        return None;
    }
    let (joined, rest) = arcs.split_first()?;
    let first = (joined / 40).min(2);
    let second = joined.checked_sub(first.checked_mul(40)?)?;
    let all = [first, second].into_iter().chain(rest.iter().copied());
    Some(all.map(|arc| arc.to_string()).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_convert_both_ways() {
        for (text, bytes) in [
            ("2.5.29.19", "551d13"),
            ("1.3.6.1.4.1.57264.1.1", "2b0601040183bf300101"),
            ("1.3.6.1.4.1.311.76.59.1.2", "2b060104018237 4c3b0102"),
            ("2.999.3", "883703"),
            ("0.0", "00"),
            ("2.23.18446744073709551615", "6781ffffffffffffffff7f"),
        ] {
            let bytes = hex::decode(bytes.replace(' ', "")).unwrap();
            assert_eq!(from_dotted(text).unwrap(), bytes, "{text}");
            assert_eq!(to_dotted(&bytes), text);
        }
        assert_eq!(from_dotted("1.3.6.1.4.1.57264.1.1").unwrap(), FULCIO_ISSUER);
    }

    #[test]
    fn other_texts_are_none() {
        for text in
            ["", "1", "1.", ".1", "1..2", "1.02", "3.1", "1.40", "1.-2", "1.+2", "1.2 ", "1.18446744073709551616"]
        {
            assert_eq!(from_dotted(text), None, "{text}");
        }
        assert_eq!(to_dotted(&[0x81]), "0x81");
        assert_eq!(to_dotted(&[]), "0x");
    }
}
