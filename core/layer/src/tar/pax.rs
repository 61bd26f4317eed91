//! Records of pax extended headers (POSIX.1-2001, `pax`, "pax Extended Header").

use std::collections::BTreeMap;

use super::{TarError, number::decimal};
use crate::time::Moment;

/// Prefix of the keys that hold extended attributes.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// Keys whose values are C strings and must not hold a NUL.
const C_STRINGS: [&[u8]; 4] = [b"path", b"linkpath", b"uname", b"gname"];

/// The oldest GNU sparse format repeats these two keys, which pax does not allow.
const SPARSE_OFFSET: &[u8] = b"GNU.sparse.offset";
const SPARSE_BYTES: &[u8] = b"GNU.sparse.numbytes";
pub(super) const SPARSE_MAP: &[u8] = b"GNU.sparse.map";

/// Records by key, the last of each.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

impl Records {
    /// Reads `length key=value\n`, again and again. A sparse map given entry by entry becomes one record.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, TarError> {
        let mut records = BTreeMap::new();
        let mut map: Vec<&[u8]> = Vec::new();
        while !bytes.is_empty() {
            let (record, rest) = split_record(bytes)?;
            bytes = rest;
            let (key, value) = split_key(record)?;
            match key {
                SPARSE_OFFSET | SPARSE_BYTES => {
                    let due = if map.len().is_multiple_of(2) { SPARSE_OFFSET } else { SPARSE_BYTES };
                    if key != due || value.contains(&b',') {
                        return Err(TarError::Sparse("its map's offsets and lengths do not alternate"));
                    }
                    map.push(value);
                }
                _ => drop(records.insert(key.to_vec(), value.to_vec())),
            }
        }
        if !map.is_empty() {
            records.insert(SPARSE_MAP.to_vec(), map.join(&b','));
        }
        Ok(Self(records))
    }

    /// The value of a key; empty where there is none.
    pub(super) fn value(&self, key: &[u8]) -> &[u8] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// All records, in the order of their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// The extended attributes among them, by name.
    pub(super) fn into_xattrs(self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let named =
            self.0.into_iter().filter_map(|(key, value)| Some((key.strip_prefix(XATTR_PREFIX)?.to_vec(), value)));
        named.collect()
    }
}

/// Cuts one record off, without its length and line end.
fn split_record(bytes: &[u8]) -> Result<(&[u8], &[u8]), TarError> {
    let bad = |what: &str| TarError::Pax(format!("{what}: {:?}", shown(bytes)));
    let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(|| bad("no length"))?;
    let length = bytes.get(..space).and_then(decimal).and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| *length >= 5).ok_or_else(|| bad("length is not a number from 5"))?;
    let (record, rest) = bytes.split_at_checked(length).ok_or_else(|| bad("longer than its header"))?;
    let record = record.get(space.saturating_add(1)..).and_then(|record| record.strip_suffix(b"\n"));
    Ok((record.ok_or_else(|| bad("no line end where its length says"))?, rest))
}

/// Splits a record into key and value.
fn split_key(record: &[u8]) -> Result<(&[u8], &[u8]), TarError> {
    let bad = |what: &str| TarError::Pax(format!("{what}: {:?}", shown(record)));
    let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(|| bad("no equals sign"))?;
    let (key, value) = record.split_at_checked(equals).unwrap_or_default();
    let value = value.get(1..).unwrap_or_default();
    if key.is_empty() {
        return Err(bad("no key"));
    }
    let must_be_text = if C_STRINGS.contains(&key) { value } else { key };
    if must_be_text.contains(&0) { Err(bad("NUL byte")) } else { Ok((key, value)) }
}

/// The beginning of bytes, for an error's text.
fn shown(bytes: &[u8]) -> String {
    bytes.get(..80.min(bytes.len())).unwrap_or_default().escape_ascii().to_string()
}

/// A time record: seconds, and a fraction of which nine digits count.
pub(super) fn parse_time(value: &[u8]) -> Option<Moment> {
    let point = value.iter().position(|byte| *byte == b'.').unwrap_or(value.len());
    let (whole, fraction) = value.split_at_checked(point)?;
    let seconds = decimal(whole)?;
    let digits = fraction.get(1..).unwrap_or_default();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let padded = digits.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds =
        padded.fold(0_i64, |number, digit| number.wrapping_mul(10).wrapping_add(i64::from(digit.wrapping_sub(b'0'))));
    Some(Moment::new(seconds, if whole.starts_with(b"-") { nanoseconds.wrapping_neg() } else { nanoseconds }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|length| *length == rest + length.to_string().len()).unwrap();
        [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _records = Records::parse(&bytes);
            let _time = parse_time(&bytes);
        }

        #[test]
        fn binary_values_round_trip(
            key in "[A-Za-z.]{1,40}",
            values in proptest::collection::vec(proptest::collection::vec(1_u8.., 0..50), 1..4),
        ) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| record(key.as_bytes(), value)).collect();
            let records = Records::parse(&bytes).unwrap();
            prop_assert_eq!(records.value(key.as_bytes()), values.last().unwrap().as_slice());
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            &b"no"[..],
            b"4 =\n\n",
            b"9 a=b\n",
            b"6 a=bX",
            b"6 aab\n",
            b"6 =ab\n",
            b"-9 a=b\n",
            b"11 path=a\0\n",
            b"8 a\0b=c\n",
            b"30 GNU.sparse.numbytes=1234567\n",
        ] {
            assert!(Records::parse(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn times() {
        for (text, moment) in [
            ("1.5", Some(Moment::new(1, 500_000_000))),
            ("-1.25", Some(Moment::new(-2, 750_000_000))),
            ("-0.5", Some(Moment::new(-1, 500_000_000))),
            ("+7.", Some(Moment::new(7, 0))),
            ("1.12345678999", Some(Moment::new(1, 123_456_789))),
            (".5", None),
            ("1.x", None),
            ("", None),
            ("9223372036854775808", None),
        ] {
            assert_eq!(parse_time(text.as_bytes()), moment, "{text}");
        }
    }
}
