//! SHA-2 (FIPS 180-4).

use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The digest of a message.
    #[must_use]
    pub fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha384 => Sha384::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }

    /// Bytes of a digest.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Its number in COSE's registry (RFC 9054): -16, -43, -44.
    #[must_use]
    pub const fn id(self) -> i64 {
        match self {
            Self::Sha256 => -16,
            Self::Sha384 => -43,
            Self::Sha512 => -44,
        }
    }

    /// The function with this number in COSE's registry.
    #[must_use]
    pub fn from_id(id: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.id() == id)
    }

    /// Its name in a did:x509.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The contents of its object identifier (2.16.840.1.101.3.4.2).
    #[must_use]
    pub const fn oid(self) -> [u8; 9] {
        let last = match self {
            Self::Sha256 => 1,
            Self::Sha384 => 2,
            Self::Sha512 => 3,
        };
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last]
    }
}

/// SHA-256 of these parts, one after the other.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// SHA-512 of these parts, one after the other.
#[must_use]
pub fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    let mut hash = Sha512::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's examples of "abc".
    #[test]
    fn digests_are_the_standards() {
        let expected = [
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ];
        for (hash, expected) in Hash::ALL.into_iter().zip(expected) {
            assert_eq!(hex::encode(hash.digest(b"abc")), expected);
            assert_eq!(hash.digest(b"").len(), hash.length());
            assert_eq!(Hash::from_id(hash.id()), Some(hash));
        }
        assert_eq!(hex::encode(sha256(&[b"a", b"", b"bc"])), expected[0]);
        assert_eq!(hex::encode(sha512(&[b"ab", b"c"])), expected[2]);
    }
}
