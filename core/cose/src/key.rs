//! Public keys, of certificates and of ledgers, and the signatures that they verify.

use std::borrow::Cow;
use std::fmt;

use caveau_signature::{Curve, Key, Scheme, verifies};
use caveau_snp::der::{big_uint, bit_string, sequence};
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode as _, Reader as _, SliceReader, Tag, Tagged as _};

use crate::algorithm::Algorithm;

/// What kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    /// ECDSA on NIST's P-256.
    P256,
    /// ECDSA on NIST's P-384.
    P384,
    /// ECDSA on NIST's P-521.
    P521,
    /// RSA of 2,048 to 8,192 bits.
    Rsa,
    /// Ed25519.
    Ed25519,
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey<'a> {
    kind: KeyKind,
    /// An uncompressed point, a PKCS #1 RSAPublicKey, or Ed25519's 32 bytes.
    bytes: Cow<'a, [u8]>,
}

impl KeyKind {
    const ALL: [Self; 5] = [Self::P256, Self::P384, Self::P521, Self::Rsa, Self::Ed25519];

    /// Bytes of a coordinate, and of half a signature, on the curve; 0 for other keys.
    #[must_use]
    pub const fn field_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
            Self::Rsa | Self::Ed25519 => 0,
        }
    }

    /// The algorithm to sign with, where the owner of such a key names none.
    #[must_use]
    pub const fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::Es256,
            Self::P384 => Algorithm::Es384,
            Self::P521 => Algorithm::Es512,
            Self::Rsa => Algorithm::Ps384,
            Self::Ed25519 => Algorithm::EdDsa,
        }
    }

    /// DER of the AlgorithmIdentifier in a SubjectPublicKeyInfo.
    const fn identifier(self) -> &'static [u8] {
        match self {
            Self::P256 => b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
            Self::P384 => b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22",
            Self::P521 => b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23",
            Self::Rsa => b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00",
            Self::Ed25519 => b"\x30\x05\x06\x03\x2b\x65\x70",
        }
    }

    /// Whether the bytes have this kind's length and beginning. Whether a point lies on its curve shows when it is
    /// used.
    fn fits(self, bytes: &[u8]) -> bool {
        match self {
            Self::Ed25519 => bytes.len() == 32,
            Self::Rsa => !bytes.is_empty() && bytes.len() <= 1100,
            _ => bytes.len() == self.field_bytes().saturating_mul(2).saturating_add(1) && bytes.first() == Some(&4),
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
            Self::Rsa => "RSA",
            Self::Ed25519 => "Ed25519",
        })
    }
}

impl fmt::Debug for PublicKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.kind, hex::encode(&self.bytes))
    }
}

impl<'a> PublicKey<'a> {
    /// A key of this kind from an uncompressed point, a PKCS #1 RSAPublicKey, or Ed25519's 32 bytes; `None` where the
    /// bytes do not have that form.
    #[must_use]
    pub fn new(kind: KeyKind, bytes: impl Into<Cow<'a, [u8]>>) -> Option<Self> {
        let bytes = bytes.into();
        kind.fits(&bytes).then_some(Self { kind, bytes })
    }

    /// The key in a SubjectPublicKeyInfo; `None` where it is malformed or of another kind.
    #[must_use]
    pub fn from_spki(spki: &'a [u8]) -> Option<Self> {
        let outer = AnyRef::from_der(spki).ok()?;
        outer.tag().assert_eq(Tag::Sequence).ok()?;
        let mut reader = SliceReader::new(outer.value()).ok()?;
        let identifier = reader.tlv_bytes().ok()?;
        let bytes = reader.decode::<BitStringRef<'a>>().ok()?.as_bytes()?;
        reader.finish().ok()?;
        let kind = KeyKind::ALL.into_iter().find(|kind| kind.identifier() == identifier)?;
        Self::new(kind, bytes)
    }

    /// Its SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn to_spki(&self) -> Vec<u8> {
        sequence(&[self.kind.identifier(), &bit_string(&self.bytes)])
    }

    /// What kind of key it is.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The same, for as long as is wanted.
    #[must_use]
    pub fn into_owned(self) -> PublicKey<'static> {
        PublicKey { kind: self.kind, bytes: Cow::Owned(self.bytes.into_owned()) }
    }

    /// Whether a key of this kind can be used with an algorithm. ECDSA goes with every curve (RFC 9053, section 2.1).
    #[must_use]
    pub fn supports(&self, algorithm: Algorithm) -> bool {
        self.goes_with(algorithm.scheme())
    }

    /// Whether this key made a signature, in COSE's form, over a message.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.verifies_scheme(algorithm.scheme(), message, signature)
    }

    pub(crate) fn verifies_scheme(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
        if !self.goes_with(scheme) {
            return false;
        }
        let key = match self.kind {
            KeyKind::P256 => Key::Ecdsa(Curve::P256, &self.bytes),
            KeyKind::P384 => Key::Ecdsa(Curve::P384, &self.bytes),
            KeyKind::P521 => Key::Ecdsa(Curve::P521, &self.bytes),
            KeyKind::Rsa => Key::Rsa(&self.bytes),
            KeyKind::Ed25519 => Key::Ed25519(&self.bytes),
        };
        // Any curve goes with any hash here, which verifiers know for the form in DER alone.
        if let Scheme::EcdsaFixed(hash) = scheme {
            let half = self.kind.field_bytes();
            let halves = signature.split_at_checked(half).filter(|(_, s)| s.len() == half);
            return halves.is_some_and(|(r, s)| {
                verifies(Scheme::EcdsaDer(hash), &key, message, &sequence(&[&big_uint(r), &big_uint(s)]))
            });
        }
        verifies(scheme, &key, message, signature)
    }

    const fn goes_with(&self, scheme: Scheme) -> bool {
        match scheme {
            Scheme::EcdsaDer(_) | Scheme::EcdsaFixed(_) => {
                matches!(self.kind, KeyKind::P256 | KeyKind::P384 | KeyKind::P521)
            }
            Scheme::Ed25519 => matches!(self.kind, KeyKind::Ed25519),
            Scheme::RsaPkcs1(_) | Scheme::RsaPss(_) => matches!(self.kind, KeyKind::Rsa),
        }
    }
}
