//! CBOR (RFC 8949), one spelling for each value: definite lengths, shortest heads, no key twice in a map.
//!
//! So decoding loses nothing: what was decoded encodes to the bytes it came from. The order of a map's keys is kept,
//! since COSE does not fix it.

use std::collections::BTreeSet;

/// Deepest nesting accepted.
const MAX_DEPTH: usize = 16;
/// Most items accepted, counted with all that is nested.
const MAX_ITEMS: usize = 16 * 1024;

/// A CBOR item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer: -2^64 to 2^64-1.
    Int(i128),
    /// A byte string.
    Bytes(&'a [u8]),
    /// A text string.
    Text(&'a str),
    /// An array.
    Array(Vec<Value<'a>>),
    /// A map, in its order.
    Map(Vec<(Value<'a>, Value<'a>)>),
    /// A tag and what it is on.
    Tag(u64, Box<Value<'a>>),
    /// A simple value: 20 false, 21 true, 22 null, 23 undefined.
    Simple(u8),
    /// A floating-point number: its width in bytes (2, 4 or 8) and its bits.
    Float(u8, u64),
}

/// Why bytes are no CBOR item that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// The bytes end within an item.
    #[error("it ends within an item")]
    Truncated,
    /// Bytes follow the item.
    #[error("{0} bytes follow it")]
    Trailing(usize),
    /// A head is longer than its number needs, or of no defined form.
    #[error("the head 0x{0:02x} is not the shortest form of a defined item of definite length")]
    Head(u8),
    /// Text is not UTF-8.
    #[error("a text string is not UTF-8")]
    NotUtf8,
    /// A key comes twice in a map.
    #[error("the key {0} comes twice in a map")]
    DuplicateKey(String),
    /// Nesting or number of items.
    #[error("it nests deeper than {MAX_DEPTH} levels or has more than {MAX_ITEMS} items")]
    TooLarge,
}

impl<'a> Value<'a> {
    /// `null`.
    pub const NULL: Self = Self::Simple(22);

    /// Reads exactly one item.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, CborError> {
        let mut decoder = Decoder { rest: bytes, items: 0 };
        let value = decoder.item(0)?;
        if decoder.rest.is_empty() { Ok(value) } else { Err(CborError::Trailing(decoder.rest.len())) }
    }

    /// The one encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// A map with its keys in canonical order: the shorter encoding first, then bytewise (RFC 7049, section 3.9), as
    /// COSE tools write headers.
    #[must_use]
    pub fn sorted_map(mut entries: Vec<(Value<'a>, Value<'a>)>) -> Self {
        entries.sort_by_cached_key(|(key, _)| {
            let key = key.encode();
            (key.len(), key)
        });
        Self::Map(entries)
    }

    /// The integer, where it is one of 64 bits with sign.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(value) = self { i64::try_from(*value).ok() } else { None }
    }

    /// The bytes, where it is a byte string.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The text, where it is a text string.
    #[must_use]
    pub fn as_text(&self) -> Option<&'a str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The items, where it is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Value<'a>]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The entries, where it is a map.
    #[must_use]
    pub fn as_map(&self) -> Option<&[(Value<'a>, Value<'a>)]> {
        if let Self::Map(entries) = self { Some(entries) } else { None }
    }

    /// What a map has under a key.
    #[must_use]
    pub fn entry(&self, key: &Value<'_>) -> Option<&Value<'a>> {
        self.as_map()?.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// What kind of item it is, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) => "an integer",
            Self::Bytes(_) => "a byte string",
            Self::Text(_) => "a text",
            Self::Array(_) => "an array",
            Self::Map(_) => "a map",
            Self::Tag(..) => "a tagged item",
            Self::Simple(20 | 21) => "a truth value",
            Self::Simple(22) => "null",
            Self::Simple(_) => "a simple value",
            Self::Float(..) => "a floating-point number",
        }
    }

    /// A map's key in words: a number, or a text in quotation marks.
    #[must_use]
    pub fn show_key(&self) -> String {
        match self {
            Self::Int(number) => number.to_string(),
            Self::Text(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
            other => other.kind().to_owned(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(value) => match u64::try_from(*value) {
                Ok(value) => head(out, 0, value),
                // -1 - n has all bits of n inverted.
                Err(_) => head(out, 1, u64::try_from(!*value).unwrap_or(u64::MAX)),
            },
            Self::Bytes(bytes) => {
                head(out, 2, length(bytes.len()));
                out.extend_from_slice(bytes);
            }
            Self::Text(text) => {
                head(out, 3, length(text.len()));
                out.extend_from_slice(text.as_bytes());
            }
            Self::Array(items) => {
                head(out, 4, length(items.len()));
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(entries) => {
                head(out, 5, length(entries.len()));
                for (key, value) in entries {
                    key.write(out);
                    value.write(out);
                }
            }
            Self::Tag(number, item) => {
                head(out, 6, *number);
                item.write(out);
            }
            Self::Simple(value) => head(out, 7, u64::from(*value)),
            Self::Float(width, bits) => {
                let (initial, skip) = match width {
                    2 => (0xf9, 6),
                    4 => (0xfa, 4),
                    _ => (0xfb, 0),
                };
                out.push(initial);
                out.extend(bits.to_be_bytes().iter().skip(skip));
            }
        }
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Writes an item's head: its major type and number, in the shortest form.
fn head(out: &mut Vec<u8>, major: u8, number: u64) {
    let initial = major << 5;
    match (u8::try_from(number), u16::try_from(number), u32::try_from(number)) {
        (Ok(small @ 0..=23), ..) => out.push(initial | small),
        (Ok(byte), ..) => out.extend([initial | 24, byte]),
        (_, Ok(short), _) => {
            out.push(initial | 25);
            out.extend(short.to_be_bytes());
        }
        (_, _, Ok(word)) => {
            out.push(initial | 26);
            out.extend(word.to_be_bytes());
        }
        _ => {
            out.push(initial | 27);
            out.extend(number.to_be_bytes());
        }
    }
}

struct Decoder<'a> {
    rest: &'a [u8],
    items: usize,
}

impl<'a> Decoder<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], CborError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CborError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A number of so many bytes.
    fn number(&mut self, count: usize) -> Result<u64, CborError> {
        Ok(self.take(count)?.iter().fold(0, |number: u64, byte| (number << 8) | u64::from(*byte)))
    }

    /// (the initial byte, the number in the head).
    fn head(&mut self) -> Result<(u8, u64), CborError> {
        let initial = self.take(1)?.first().copied().ok_or(CborError::Truncated)?;
        let (number, least) = match initial & 0x1f {
            small @ 0..=23 => (u64::from(small), 0),
            24 => (self.number(1)?, 24),
            25 => (self.number(2)?, 0x100),
            26 => (self.number(4)?, 0x1_0000),
            27 => (self.number(8)?, 0x1_0000_0000),
            _ => return Err(CborError::Head(initial)),
        };
        // Floating-point numbers have the length of their width; a simple value of a byte begins at 32.
        let least = match initial {
            0xf8 => 32,
            0xf9..=0xfb => 0,
            _ => least,
        };
        if number < least { Err(CborError::Head(initial)) } else { Ok((initial, number)) }
    }

    fn item(&mut self, depth: usize) -> Result<Value<'a>, CborError> {
        self.items = self.items.saturating_add(1);
        if depth > MAX_DEPTH || self.items > MAX_ITEMS {
            return Err(CborError::TooLarge);
        }
        let inner = depth.saturating_add(1);
        let (initial, number) = self.head()?;
        Ok(match initial >> 5 {
            0 => Value::Int(i128::from(number)),
            1 => Value::Int(!i128::from(number)),
            2 => Value::Bytes(self.string(number)?),
            3 => Value::Text(std::str::from_utf8(self.string(number)?).map_err(|_| CborError::NotUtf8)?),
            4 => {
                let mut items = Vec::new();
                for _ in 0..number {
                    items.push(self.item(inner)?);
                }
                Value::Array(items)
            }
            5 => Value::Map(self.entries(number, inner)?),
            6 => Value::Tag(number, Box::new(self.item(inner)?)),
            _ => match initial {
                0xf9 => Value::Float(2, number),
                0xfa => Value::Float(4, number),
                0xfb => Value::Float(8, number),
                _ => Value::Simple(u8::try_from(number).map_err(|_| CborError::Head(initial))?),
            },
        })
    }

    fn string(&mut self, length: u64) -> Result<&'a [u8], CborError> {
        self.take(usize::try_from(length).map_err(|_| CborError::Truncated)?)
    }

    fn entries(&mut self, count: u64, depth: usize) -> Result<Vec<(Value<'a>, Value<'a>)>, CborError> {
        let mut entries = Vec::new();
        let mut keys = BTreeSet::new();
        for _ in 0..count {
            let before = self.rest;
            let key = self.item(depth)?;
            let length = before.len().saturating_sub(self.rest.len());
            if !keys.insert(before.get(..length).unwrap_or_default()) {
                return Err(CborError::DuplicateKey(key.show_key()));
            }
            entries.push((key, self.item(depth)?));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_rfc_read_and_write_back() {
        // RFC 8949, appendix A.
        for text in [
            "00",
            "17",
            "1818",
            "1903e8",
            "1a000f4240",
            "1b000000e8d4a51000",
            "1bffffffffffffffff",
            "3bffffffffffffffff",
            "20",
            "3863",
            "f90000",
            "fa47c35000",
            "fb3ff199999999999a",
            "f97e00",
            "f4",
            "f5",
            "f6",
            "f7",
            "f0",
            "f8ff",
            "c11a514b67b0",
            "d74401020304",
            "40",
            "4401020304",
            "60",
            "6449455446",
            "80",
            "83010203",
            "8301820203820405",
            "a0",
            "a201020304",
            "a26161016162820203",
        ] {
            let bytes = hex::decode(text).unwrap();
            assert_eq!(hex::encode(Value::decode(&bytes).unwrap().encode()), text);
        }
        assert_eq!(
            Value::decode(&[0x3b, 255, 255, 255, 255, 255, 255, 255, 255]),
            Ok(Value::Int(-18_446_744_073_709_551_616))
        );
    }

    #[test]
    fn other_spellings_are_refused() {
        // Long heads, indefinite lengths, reserved heads and simple values, a break alone.
        for text in [
            "1817",
            "1900ff",
            "1a0000ffff",
            "1b00000000ffffffff",
            "5f4101ff",
            "9fff",
            "bfff",
            "1c",
            "f800",
            "f818",
            "f81f",
            "ff",
            "fc",
        ] {
            let bytes = hex::decode(text).unwrap();
            assert!(matches!(Value::decode(&bytes), Err(CborError::Head(_))), "{text}");
        }
        assert_eq!(Value::decode(&[0x61, 0xff]), Err(CborError::NotUtf8));
        assert_eq!(Value::decode(&[0xa2, 1, 2, 1, 3]), Err(CborError::DuplicateKey("1".to_owned())));
        assert_eq!(Value::decode(&[0x01, 0x02]), Err(CborError::Trailing(1)));
        for cut in ["", "18", "42aa", "8201", "a101", "c1"] {
            assert_eq!(Value::decode(&hex::decode(cut).unwrap()), Err(CborError::Truncated), "{cut}");
        }
    }

    #[test]
    fn a_small_input_cannot_ask_for_much() {
        assert_eq!(Value::decode(&[0x81; 64]), Err(CborError::TooLarge));
        assert_eq!(Value::decode(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255]), Err(CborError::Truncated));
        assert_eq!(Value::decode(&[0x5b, 255, 255, 255, 255, 255, 255, 255, 255]), Err(CborError::Truncated));
        let many = [&[0x99, 0xff, 0xff][..], &[0; 0xffff]].concat();
        assert_eq!(Value::decode(&many), Err(CborError::TooLarge));
    }

    #[test]
    fn maps_are_sorted_as_cose_tools_do() {
        let entry = |key| (key, Value::NULL);
        let map = Value::sorted_map(vec![
            entry(Value::Text("feed")),
            entry(Value::Int(33)),
            entry(Value::Text("iss")),
            entry(Value::Int(-1)),
            entry(Value::Int(1)),
        ]);
        let keys: Vec<_> = map.as_map().unwrap().iter().map(|(key, _)| key.show_key()).collect();
        assert_eq!(keys, ["1", "-1", "33", "\"iss\"", "\"feed\""]);
    }
}
