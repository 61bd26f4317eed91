//! Numbers in headers and records.

use super::{TarError, until_nul};

/// A header's numeric field: octal text, or, with the top bit set, a big-endian two's complement number (GNU).
pub(super) fn numeric(field: &'static str, bytes: &[u8]) -> Result<i64, TarError> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => binary(bytes).ok_or_else(|| error(field, bytes)),
        _ => octal(field, bytes),
    }
}

/// Base 256: the top bit is the mark, the next the sign, all the others the value.
fn binary(bytes: &[u8]) -> Option<i64> {
    let (first, rest) = bytes.split_first()?;
    let inverted = if first & 0x40 != 0 { 0xff } else { 0 };
    let magnitude = rest.iter().try_fold(u64::from((first ^ inverted) & 0x7f), |number, byte| {
        (number >> 56 == 0).then_some(number << 8 | u64::from(byte ^ inverted))
    })?;
    let number = i64::try_from(magnitude).ok()?;
    Some(if inverted == 0 { number } else { !number })
}

/// Octal text, with spaces and NULs around it; nothing at all is zero.
pub(super) fn octal(field: &'static str, bytes: &[u8]) -> Result<i64, TarError> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = bytes.iter().position(|byte| !blank(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last.saturating_add(1));
    let digits = until_nul(bytes.get(start..end).unwrap_or_default());
    let number = digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'7' => number.checked_mul(8).map(|number| number | u64::from(digit & 7)),
        _ => None,
    });
    // More than 63 bits turn negative, as in the reference; a size then is refused as negative.
    number.map(u64::cast_signed).ok_or_else(|| error(field, bytes))
}

/// Decimal text with an optional sign.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn error(field: &'static str, bytes: &[u8]) -> TarError {
    TarError::Number { field, value: bytes.escape_ascii().to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..14)) {
            let _number = numeric("size", &bytes);
            let _number = octal("size", &bytes);
            let _number = decimal(&bytes);
        }

        #[test]
        fn octal_and_binary_round_trip(number in 0..1_i64 << 33) {
            prop_assert_eq!(numeric("size", format!("{number:011o}\0").as_bytes()).unwrap(), number);
            let mut field = [0_u8; 12];
            field[4..].copy_from_slice(&(-number).to_be_bytes());
            field[..4].fill(if number > 0 { 0xff } else { 0x80 });
            if number == 0 {
                field[1..4].fill(0);
            }
            prop_assert_eq!(numeric("size", &field).unwrap(), -number);
        }
    }

    #[test]
    fn edges() {
        for (bytes, number) in [
            (&b""[..], Some(0)),
            (b"\0 \0", Some(0)),
            (b" 755 \0", Some(0o755)),
            (b"7\0junk", Some(7)),
            (b"8", None),
            (b"-1", None),
            (b"1777777777777777777777", Some(-1)),
            (b"2000000000000000000000", None),
            (b"\x80\0\0\0\0\0\0\x05", Some(5)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(numeric("mode", bytes).ok(), number, "{}", bytes.escape_ascii());
        }
    }
}
