//! The root hash: the one value that stands for all of a layer's bytes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Root hash of a dm-verity tree: 32 bytes, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootHash([u8; 32]);

/// A text that is not a root hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootHashError {
    /// The text holds something else than a lower-case hexadecimal digit.
    #[error(
        "failed to parse root hash: expected lower-case hexadecimal digits, found {found:?} at position {position}"
    )]
    Digit {
        /// What stands there.
        found: char,
        /// Where it stands, in characters from 0.
        position: usize,
    },
    /// The text has the wrong length.
    #[error("failed to parse root hash: expected 64 hexadecimal digits, found {found} characters")]
    Length {
        /// Characters found.
        found: usize,
    },
}

impl RootHash {
    /// For this crate's tree builder, the one place where a root is computed.
    pub(crate) fn computed(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for RootHash {
    type Err = RootHashError;

    /// Reads exactly the form that [`fmt::Display`] writes, so that one root has one spelling.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = text.chars().count();
        if found != 64 {
            return Err(RootHashError::Length { found });
        }
        let mut digits = text.chars().enumerate().map(|(position, found)| match found {
            '0'..='9' | 'a'..='f' => Ok(found.to_digit(16).unwrap_or_default() as u8),
            _ => Err(RootHashError::Digit { found, position }),
        });
        let mut bytes = [0; 32];
        for byte in &mut bytes {
            let mut digit = || digits.next().unwrap_or(Err(RootHashError::Length { found }));
            *byte = digit()? << 4 | digit()?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootHash({self})")
    }
}

impl Serialize for RootHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RootHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_round_trip(bytes: [u8; 32]) {
            let root = RootHash(bytes);
            prop_assert_eq!(root.to_string().parse(), Ok(root));
            let json = serde_json::to_string(&root).unwrap();
            prop_assert_eq!(serde_json::from_str::<RootHash>(&json).unwrap(), root);
        }

        #[test]
        fn parse_never_panics(text in ".{0,80}") {
            let parsed: Result<RootHash, _> = text.parse();
            if let Ok(root) = parsed {
                prop_assert_eq!(root.to_string(), text);
            }
        }
    }

    #[test]
    fn only_one_spelling() {
        let upper = "AB".repeat(32);
        assert_eq!(upper.parse::<RootHash>(), Err(RootHashError::Digit { found: 'A', position: 0 }));
        assert_eq!("ab".parse::<RootHash>(), Err(RootHashError::Length { found: 2 }));
    }
}
