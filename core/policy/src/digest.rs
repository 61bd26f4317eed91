//! The policy's digest, and the launch field that carries it.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// SHA-256 of a policy's text. Made only from a text, by [`PolicyDigest::of`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PolicyDigest([u8; 32]);

impl PolicyDigest {
    /// The digest of a policy text, byte for byte.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// The 32 bytes: what a launch puts into HOST_DATA.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PolicyDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PolicyDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// HOST_DATA of a TEE's report (SNP firmware ABI, `ATTESTATION_REPORT`, offset 0xC0): what the launch bound the group to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HostData([u8; 32]);

impl HostData {
    /// The field's bytes, out of a report whose signature the secure processor made.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Whether it binds to the policy of this digest.
    #[must_use]
    pub fn binds(&self, digest: &PolicyDigest) -> bool {
        self.0 == digest.0
    }
}

impl From<[u8; 32]> for HostData {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for HostData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for HostData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha256_of_the_bytes() {
        let digest = PolicyDigest::of("abc");
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(HostData::new(*digest.as_bytes()).binds(&digest));
        assert!(!HostData::new([0; 32]).binds(&digest));
        assert!(!HostData::new(*digest.as_bytes()).binds(&PolicyDigest::of("abc\n")));
    }
}
