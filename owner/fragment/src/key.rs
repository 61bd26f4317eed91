//! Private keys in memory.

use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA384, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaKeyPair, RsaSignatureEncoding,
};
use caveau_cose::{Algorithm, KeyKind, PublicKey, Signer};
use zeroize::Zeroizing;

use crate::pem::{self, PemError};

/// A private key. Shown as its kind alone.
pub struct PrivateKey {
    kind: KeyKind,
    pair: Pair,
    /// PKCS #8.
    der: Zeroizing<Vec<u8>>,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// Why there is no key, or why it did not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM.
    #[error("the key's file is not the PEM expected")]
    Pem(#[source] PemError),
    /// No key in the file.
    #[error("there is no private key: expected a block PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY")]
    NoKey,
    /// The key is encrypted.
    #[error("the private key is encrypted: decrypt it first (openssl pkey -in KEY -out PLAIN), or keep it in a token")]
    Encrypted,
    /// A key that is not supported.
    #[error("the private key is none of P-256, P-384, P-521, Ed25519, and RSA of 2048 to 8192 bits")]
    Unsupported,
    /// An algorithm that does not go with the key.
    #[error("a key of {key} cannot sign with {algorithm}; it can with {possible}")]
    Algorithm {
        /// The key.
        key: KeyKind,
        /// What was asked for.
        algorithm: Algorithm,
        /// With what it can.
        possible: &'static str,
    },
    /// The cryptographic library failed.
    #[error("the cryptographic library failed to {0}")]
    Library(&'static str),
}

impl PrivateKey {
    /// Makes a key; of RSA, one of 3,072 bits.
    ///
    /// # Errors
    /// [`KeyError::Library`].
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let failed = |_: Unspecified| KeyError::Library("make a key");
        let der = match kind {
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
                let (algorithm, _) = ecdsa(kind).ok_or(KeyError::Unsupported)?;
                let pair = EcdsaKeyPair::generate(algorithm).map_err(failed)?;
                pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec()
            }
            KeyKind::Ed25519 => {
                Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()).map_err(failed)?.as_ref().to_vec()
            }
            KeyKind::Rsa => {
                let pair = RsaKeyPair::generate(KeySize::Rsa3072).map_err(failed)?;
                pair.as_der().map_err(failed)?.as_ref().to_vec()
            }
        };
        Self::from_pkcs8(&der)
    }

    /// Reads the first key of a PEM file: PKCS #8, or the older forms of EC and RSA keys.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        if text.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let blocks = pem::blocks(text).map_err(KeyError::Pem)?;
        let block = blocks.iter().find(|block| block.label.ends_with("PRIVATE KEY")).ok_or(KeyError::NoKey)?;
        match block.label.as_str() {
            "PRIVATE KEY" => Self::from_pkcs8(&block.der),
            "EC PRIVATE KEY" => Self::from_ec(|algorithm| EcdsaKeyPair::from_private_key_der(algorithm, &block.der)),
            "RSA PRIVATE KEY" => Self::from_rsa(RsaKeyPair::from_der(&block.der)),
            _ => Err(KeyError::NoKey),
        }
    }

    /// Reads a key of PKCS #8.
    ///
    /// # Errors
    /// [`KeyError::Unsupported`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            let der = Zeroizing::new(der.to_vec());
            return Ok(Self { kind: KeyKind::Ed25519, pair: Pair::Ed25519(pair), der });
        }
        Self::from_ec(|algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der))
            .or_else(|_| Self::from_rsa(RsaKeyPair::from_pkcs8(der)))
    }

    fn from_ec(
        read: impl Fn(&'static EcdsaSigningAlgorithm) -> Result<EcdsaKeyPair, KeyRejected>,
    ) -> Result<Self, KeyError> {
        let read = |kind| {
            let pair = read(ecdsa(kind)?.0).ok()?;
            let der = Zeroizing::new(pair.to_pkcs8v1().ok()?.as_ref().to_vec());
            Some(Self { kind, pair: Pair::Ecdsa(pair), der })
        };
        [KeyKind::P384, KeyKind::P256, KeyKind::P521].into_iter().find_map(read).ok_or(KeyError::Unsupported)
    }

    fn from_rsa(pair: Result<RsaKeyPair, KeyRejected>) -> Result<Self, KeyError> {
        let pair = pair.map_err(|_| KeyError::Unsupported)?;
        let der = pair.as_der().map_err(|_| KeyError::Library("write a key"))?;
        Ok(Self { kind: KeyKind::Rsa, der: Zeroizing::new(der.as_ref().to_vec()), pair: Pair::Rsa(pair) })
    }

    /// The key in DER: PKCS #8.
    #[must_use]
    pub fn to_pkcs8(&self) -> &[u8] {
        &self.der
    }

    /// The key in PEM, as PKCS #8.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::write("PRIVATE KEY", &self.der)
    }

    /// What kind of key it is.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public half.
    ///
    /// # Errors
    /// [`KeyError::Unsupported`], for RSA keys of a length that is not accepted.
    pub fn public_key(&self) -> Result<PublicKey<'static>, KeyError> {
        let bytes = match &self.pair {
            Pair::Ecdsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
        };
        PublicKey::new(self.kind, bytes).ok_or(KeyError::Unsupported)
    }

    /// Signs a certificate's to-be-signed part, in the form that [`caveau_cose::build::assemble`] takes.
    ///
    /// # Errors
    /// [`KeyError::Library`].
    pub fn sign_certificate(&self, tbs: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.pair {
            Pair::Ecdsa(_) => {
                let (_, algorithm) = ecdsa(self.kind).ok_or(KeyError::Unsupported)?;
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, &self.der).map_err(|_| KeyError::Unsupported)?;
                let signature = pair.sign(&SystemRandom::new(), tbs).map_err(|_| KeyError::Library("sign"))?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.sign(tbs).as_ref().to_vec()),
            Pair::Rsa(pair) => sign_rsa(pair, &RSA_PKCS1_SHA384, tbs),
        }
    }

    const fn possible(&self) -> &'static str {
        match self.kind {
            KeyKind::P256 => "ES256",
            KeyKind::P384 => "ES384",
            KeyKind::P521 => "ES512",
            KeyKind::Rsa => "PS256, PS384 and PS512",
            KeyKind::Ed25519 => "EdDSA",
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.kind)
    }
}

impl Signer for PrivateKey {
    type Error = KeyError;

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match (&self.pair, algorithm) {
            (Pair::Ecdsa(pair), _) if algorithm == self.kind.algorithm() => {
                let signature = pair.sign(&SystemRandom::new(), message).map_err(|_| KeyError::Library("sign"))?;
                Ok(signature.as_ref().to_vec())
            }
            (Pair::Ed25519(pair), Algorithm::EdDsa) => Ok(pair.sign(message).as_ref().to_vec()),
            (Pair::Rsa(pair), Algorithm::Ps256) => sign_rsa(pair, &RSA_PSS_SHA256, message),
            (Pair::Rsa(pair), Algorithm::Ps384) => sign_rsa(pair, &RSA_PSS_SHA384, message),
            (Pair::Rsa(pair), Algorithm::Ps512) => sign_rsa(pair, &RSA_PSS_SHA512, message),
            _ => Err(KeyError::Algorithm { key: self.kind, algorithm, possible: self.possible() }),
        }
    }
}

fn sign_rsa(pair: &RsaKeyPair, encoding: &'static RsaSignatureEncoding, message: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), message, &mut signature).map_err(|_| KeyError::Library("sign"))?;
    Ok(signature)
}

/// How to sign documents and certificates with a curve's keys.
fn ecdsa(kind: KeyKind) -> Option<(&'static EcdsaSigningAlgorithm, &'static EcdsaSigningAlgorithm)> {
    match kind {
        KeyKind::P256 => Some((&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_ASN1_SIGNING)),
        KeyKind::P384 => Some((&ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING)),
        KeyKind::P521 => Some((&ECDSA_P521_SHA512_FIXED_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING)),
        KeyKind::Rsa | KeyKind::Ed25519 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_sign() {
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Ed25519, KeyKind::Rsa] {
            let key = PrivateKey::generate(kind).unwrap();
            let read = PrivateKey::from_pem(&key.to_pem()).unwrap();
            assert_eq!(read.kind(), kind);
            let public = key.public_key().unwrap();
            assert_eq!(read.public_key().unwrap(), public);
            assert_eq!(PublicKey::from_spki(&public.to_spki()), Some(public.clone()));
            for algorithm in Algorithm::ALL {
                match read.sign(algorithm, b"message") {
                    Ok(signature) => {
                        assert!(public.verifies(algorithm, b"message", &signature), "{kind} {algorithm}");
                        assert!(!public.verifies(algorithm, b"massage", &signature), "{kind} {algorithm}");
                    }
                    Err(KeyError::Algorithm { possible, .. }) => assert!(!possible.contains(algorithm.name())),
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(!format!("{key:?}").contains('['), "a key is shown");
        }
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(PrivateKey::from_pem("").unwrap_err(), KeyError::NoKey);
        let broken = pem::write("PRIVATE KEY", &[1, 2, 3]);
        assert_eq!(PrivateKey::from_pem(&broken).unwrap_err(), KeyError::Unsupported);
        let encrypted = pem::write("ENCRYPTED PRIVATE KEY", &[1]);
        assert_eq!(PrivateKey::from_pem(&encrypted).unwrap_err(), KeyError::Encrypted);
    }
}
