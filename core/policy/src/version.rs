//! Versions of policy API and framework: `MAJOR.MINOR.PATCH`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A version; compared number by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// The version of these numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }
}

/// Text that is not `MAJOR.MINOR.PATCH`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid version {0:?}: it must be MAJOR.MINOR.PATCH")]
pub struct InvalidVersion(String);

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let invalid = || InvalidVersion(text.chars().take(80).collect());
        let mut numbers = text.split('.').map(|part| {
            let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            // A leading zero would give one version two spellings.
            let plain = plain && (part.len() == 1 || !part.starts_with('0'));
            plain.then(|| part.parse::<u32>().ok()).flatten().ok_or_else(invalid)
        });
        let mut next = || numbers.next().unwrap_or_else(|| Err(invalid()));
        let version = Self::new(next()?, next()?, next()?);
        if numbers.next().is_some() { Err(invalid()) } else { Ok(version) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!("0.10.0".parse::<Version>().unwrap() > Version::new(0, 9, 9));
        assert_eq!("0.5.0".parse::<Version>().unwrap().to_string(), "0.5.0");
        for bad in ["", "0.5", "0.5.0.0", "0.05.0", "0.5.x", "0.5.0-rc1", "-1.0.0", "0..1", "99999999999.0.0"] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }
}
