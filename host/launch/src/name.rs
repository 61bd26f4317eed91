//! Names of groups: they become folder names, so there is one narrow form.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Greatest length of a name in bytes.
const MAX_LENGTH: usize = 63;

/// A group's name: 1 to 63 of `a-z A-Z 0-9 _ . -`, the first a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName(String);

/// A name that is not of the form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid group name {0:?}: it must be 1 to 63 of a-z, A-Z, 0-9, '_', '.' and '-', and begin with a letter or a digit"
)]
pub struct InvalidName(String);

impl GroupName {
    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let first_is_good = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let all_are_good = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        if first_is_good && all_are_good && text.len() <= MAX_LENGTH {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidName(text.chars().take(80).collect()))
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for GroupName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for GroupName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for bad in ["", ".", "..", "a/b", "/a", ".hidden", "-x", "a b", "a\0", "ü", &"a".repeat(64)] {
            assert!(bad.parse::<GroupName>().is_err(), "{bad:?}");
        }
        for good in ["a", "web-1", "A.b_c", &"a".repeat(63)] {
            assert_eq!(good.parse::<GroupName>().unwrap().as_str(), good);
        }
    }
}
