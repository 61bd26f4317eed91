//! Signature algorithms, as COSE names them (RFC 9053, section 2; RFC 8230, section 2) and as certificates do.

use std::fmt;
use std::str::FromStr;

use caveau_signature::{Hash, Scheme};
use caveau_snp::der::{context, object_id, sequence, uint};

/// A signature algorithm of COSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// -7: ECDSA with SHA-256.
    Es256,
    /// -35: ECDSA with SHA-384.
    Es384,
    /// -36: ECDSA with SHA-512.
    Es512,
    /// -37: RSASSA-PSS with SHA-256.
    Ps256,
    /// -38: RSASSA-PSS with SHA-384.
    Ps384,
    /// -39: RSASSA-PSS with SHA-512.
    Ps512,
    /// -8: EdDSA, of which Ed25519 is supported.
    EdDsa,
}

/// A name that is no algorithm's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no signature algorithm: expected one of ES256, ES384, ES512, PS256, PS384, PS512, EdDSA")]
pub struct UnknownAlgorithm(String);

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Es256, Self::Es384, Self::Es512, Self::Ps256, Self::Ps384, Self::Ps512, Self::EdDsa];

    /// The algorithm with this number in COSE's registry, where it is one of these.
    #[must_use]
    pub fn from_id(id: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.id() == id)
    }

    /// Its number in COSE's registry.
    #[must_use]
    pub const fn id(self) -> i64 {
        match self {
            Self::Es256 => -7,
            Self::Es384 => -35,
            Self::Es512 => -36,
            Self::Ps256 => -37,
            Self::Ps384 => -38,
            Self::Ps512 => -39,
            Self::EdDsa => -8,
        }
    }

    /// Its name in COSE's registry.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(crate) const fn scheme(self) -> Scheme {
        match self {
            Self::Es256 => Scheme::EcdsaFixed(Hash::Sha256),
            Self::Es384 => Scheme::EcdsaFixed(Hash::Sha384),
            Self::Es512 => Scheme::EcdsaFixed(Hash::Sha512),
            Self::Ps256 => Scheme::RsaPss(Hash::Sha256),
            Self::Ps384 => Scheme::RsaPss(Hash::Sha384),
            Self::Ps512 => Scheme::RsaPss(Hash::Sha512),
            Self::EdDsa => Scheme::Ed25519,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownAlgorithm(text.chars().take(32).collect()))
    }
}

const RSA_PREFIX: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const NULL: [u8; 2] = [5, 0];

/// Those of certificates.
const OF_CERTIFICATES: [Scheme; 10] = [
    Scheme::EcdsaDer(Hash::Sha256),
    Scheme::EcdsaDer(Hash::Sha384),
    Scheme::EcdsaDer(Hash::Sha512),
    Scheme::RsaPkcs1(Hash::Sha256),
    Scheme::RsaPkcs1(Hash::Sha384),
    Scheme::RsaPkcs1(Hash::Sha512),
    Scheme::RsaPss(Hash::Sha256),
    Scheme::RsaPss(Hash::Sha384),
    Scheme::RsaPss(Hash::Sha512),
    Scheme::Ed25519,
];

/// The scheme that a certificate's AlgorithmIdentifier names. None of SHA-1 or MD5 is among them.
pub(crate) fn named_by(identifier: &[u8]) -> Option<Scheme> {
    OF_CERTIFICATES.into_iter().find(|scheme| identifiers(*scheme).iter().any(|known| known == identifier))
}

/// The AlgorithmIdentifiers that name a scheme; the first is the one to write.
pub(crate) fn identifiers(scheme: Scheme) -> Vec<Vec<u8>> {
    let rsa = |last: u8| object_id(&[&RSA_PREFIX[..], &[last]].concat());
    match scheme {
        Scheme::EcdsaDer(hash) | Scheme::EcdsaFixed(hash) => {
            let last = match hash {
                Hash::Sha256 => 2,
                Hash::Sha384 => 3,
                Hash::Sha512 => 4,
            };
            vec![sequence(&[&object_id(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, last])])]
        }
        Scheme::Ed25519 => vec![sequence(&[&object_id(&[0x2b, 0x65, 0x70])])],
        Scheme::RsaPkcs1(hash) => {
            let last = match hash {
                Hash::Sha256 => 0x0b,
                Hash::Sha384 => 0x0c,
                Hash::Sha512 => 0x0d,
            };
            vec![sequence(&[&rsa(last), &NULL])]
        }
        Scheme::RsaPss(hash) => {
            // RFC 4055, section 3.1: the hash with NULL or without parameters; the trailer's default left out, or
            // not.
            let salt = u64::try_from(hash.length()).unwrap_or(0);
            let with = |parameters: &[u8], trailer: &[u8]| {
                let hash = sequence(&[&object_id(&hash.oid()), parameters]);
                let mask = sequence(&[&rsa(0x08), &hash]);
                let all = [context(0, &hash), context(1, &mask), context(2, &uint(salt)), trailer.to_vec()];
                sequence(&[&rsa(0x0a), &sequence(&[&all.concat()])])
            };
            let trailer = context(3, &uint(1));
            vec![with(&NULL, &[]), with(&NULL, &trailer), with(&[], &[]), with(&[], &trailer)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_the_registrys() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_id(algorithm.id()), Some(algorithm));
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
        }
        // RS256, RSA with SHA-1, HMAC: never.
        for id in [-257, -65_535, 5, 0] {
            assert_eq!(Algorithm::from_id(id), None);
        }
        assert!("RS256".parse::<Algorithm>().is_err());
    }

    #[test]
    fn certificates_identifiers_are_told() {
        let id = |text: &str| hex::decode(text).unwrap();
        let known = |text| named_by(&id(text));
        assert_eq!(known("300a06082a8648ce3d040303"), Some(Scheme::EcdsaDer(Hash::Sha384)));
        assert_eq!(known("300d06092a864886f70d01010c0500"), Some(Scheme::RsaPkcs1(Hash::Sha384)));
        assert_eq!(known("300506032b6570"), Some(Scheme::Ed25519));
        let pss = "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d0101083\
            00d06096086480165030402010500a203020120";
        assert_eq!(known(pss), Some(Scheme::RsaPss(Hash::Sha256)));
        // SHA-1 with RSA, SHA-1 with ECDSA, PSS with its defaults (SHA-1).
        for weak in ["300d06092a864886f70d0101050500", "300906072a8648ce3d0401", "300d06092a864886f70d01010a3000"] {
            assert_eq!(known(weak), None, "{weak}");
        }
    }
}
