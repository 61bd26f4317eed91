//! Content digests: SHA-256 and nothing else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::OciError;

/// The SHA-256 digest of some content, written `sha256:` and 64 lower-case hexadecimal digits (OCI image
/// specification, descriptor, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// The digest whose 32 bytes are known already.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses the 64 hexadecimal digits that file names in layouts and caches carry without the `sha256:`.
    ///
    /// # Errors
    /// [`OciError::BadDigest`] if `text` is anything else.
    pub fn from_hex(text: &str) -> Result<Self, OciError> {
        let bad = || OciError::BadDigest { text: text.chars().take(100).collect() };
        // Upper-case digits would give one content two names.
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| bad())?;
        Ok(Self(bytes))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits alone, as in `blobs/sha256/<hex>`.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Checks that `content`, called `what` in the error, has this digest.
    ///
    /// # Errors
    /// [`OciError::DigestMismatch`] if it has not.
    pub fn check(&self, what: &str, content: &[u8]) -> Result<(), OciError> {
        self.check_found(what, Self::of(content))
    }

    /// Checks that the digest `found` for `what` is this one.
    ///
    /// # Errors
    /// [`OciError::DigestMismatch`] if it is not.
    pub fn check_found(&self, what: &str, found: Self) -> Result<(), OciError> {
        if *self == found {
            Ok(())
        } else {
            Err(OciError::DigestMismatch { what: what.to_owned(), expected: *self, found })
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        text.strip_prefix("sha256:")
            .and_then(|digits| Self::from_hex(digits).ok())
            .ok_or_else(|| OciError::BadDigest { text: text.chars().take(100).collect() })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a [`Digest`] while content streams by.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken in.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_digests() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        let mut hasher = Hasher::new();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), Digest::of(b"abc"));
    }

    #[test]
    fn refuses_every_other_form() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in [
            "",
            "sha256:",
            hex,
            &format!("sha512:{hex}{hex}"),
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("sha256:{hex}0"),
            &format!("sha256:{}", &hex[..63]),
            &format!(" sha256:{hex}"),
            "sha256:../../../../../../../../../../../../../../../../../../etc/passwd",
        ] {
            assert!(matches!(text.parse::<Digest>(), Err(OciError::BadDigest { .. })), "{text}");
        }
    }

    #[test]
    fn check_names_both_digests() {
        let error = Digest::of(b"a").check("config", b"b").unwrap_err().to_string();
        assert!(error.contains(&Digest::of(b"a").to_string()) && error.contains(&Digest::of(b"b").to_string()));
    }

    proptest! {
        #[test]
        fn round_trips(bytes: [u8; 32]) {
            let digest = Digest::from_bytes(bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
            let json = serde_json::to_string(&digest).unwrap();
            prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        }

        #[test]
        fn never_panics(text in "\\PC{0,200}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
