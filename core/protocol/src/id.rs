//! Identifiers that cross the wire: each has one form, checked when it is read.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An identifier that is not of its form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {value:?}: it must be {form}")]
pub struct InvalidId {
    what: &'static str,
    value: String,
    form: &'static str,
}

/// A container's identifier: 64 lower-case hexadecimal digits, as in containerd and in ACI.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// An identifier from 32 bytes, usually random ones.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }

    /// The 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(text.to_owned()));
        }
        Err(invalid("container id", text, "64 lower-case hexadecimal digits"))
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for ContainerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ContainerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A mounted layer: the guest numbers them as it mounts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayerId(pub u32);

/// A process of a container: its init (`exec` absent), or one that was executed in it later.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// The container.
    pub container: ContainerId,
    /// Number of the executed process, as the guest gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<u32>,
}

impl ProcessId {
    /// The container's init process.
    #[must_use]
    pub fn init(container: ContainerId) -> Self {
        Self { container, exec: None }
    }
}

/// A challenger's nonce: 16 to 64 bytes, hexadecimal on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(Vec<u8>);

impl Nonce {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for Nonce {
    type Error = InvalidId;

    fn try_from(bytes: Vec<u8>) -> Result<Self, InvalidId> {
        if (16..=64).contains(&bytes.len()) {
            return Ok(Self(bytes));
        }
        Err(invalid("nonce", &hex::encode(bytes), NONCE_FORM))
    }
}

impl FromStr for Nonce {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        hex::decode(text)
            .ok()
            .and_then(|bytes| Self::try_from(bytes).ok())
            .ok_or_else(|| invalid("nonce", text, NONCE_FORM))
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(&self.0))
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

const NONCE_FORM: &str = "16 to 64 bytes as hexadecimal digits";

/// An error that shows at most the first 80 characters of a hostile value.
fn invalid(what: &'static str, value: &str, form: &'static str) -> InvalidId {
    InvalidId { what, value: value.chars().take(80).collect(), form }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn container_ids_have_one_form() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
        for bad in
            ["", "..", "/etc", &good[1..], &good.to_uppercase(), &format!("{good}0"), &format!("{}/", &good[1..])]
        {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn nonces_are_neither_short_nor_long() {
        assert!("00".repeat(15).parse::<Nonce>().is_err());
        assert!("00".repeat(16).parse::<Nonce>().is_ok());
        assert!("00".repeat(64).parse::<Nonce>().is_ok());
        assert!("00".repeat(65).parse::<Nonce>().is_err());
        assert!("zz".repeat(20).parse::<Nonce>().is_err());
    }

    proptest! {
        #[test]
        fn nonces_round_trip(bytes in proptest::collection::vec(any::<u8>(), 16..=64)) {
            let nonce = Nonce::try_from(bytes.clone()).unwrap();
            let read: Nonce = nonce.to_string().parse().unwrap();
            prop_assert_eq!(read.as_bytes(), &bytes[..]);
        }
    }
}
