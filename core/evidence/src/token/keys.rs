//! Keys that sign tokens: JWK (RFC 7517) and PEM.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use caveau_signature::{Curve, Hash, Key as PublicKey, Scheme, verifies};
use caveau_snp::spki::{RawKey, of_certificate, parse};
use serde::Deserialize;

use super::Token;

/// A key that signs tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    pub(super) id: Option<String>,
    algorithm: Option<String>,
    key: Key,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// Why bytes are no keys.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// Other JSON.
    #[error("failed to read the keys: expected a JWK set (`keys`) or one JWK")]
    Json(#[source] serde_json::Error),
    /// No keys of use.
    #[error("there is no public key in it that signs tokens: expected P-256, P-384 or RSA, as JWK or PEM")]
    None,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: Option<String>,
    kty: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    #[serde(default)]
    x5c: Vec<String>,
}

impl TokenKey {
    /// Reads keys: a JWK set, a JWK, or public keys or certificates in PEM. Those of other kinds are passed over.
    ///
    /// # Errors
    /// [`TokenKeyError`].
    pub fn parse(bytes: &[u8]) -> Result<Vec<Self>, TokenKeyError> {
        let text = std::str::from_utf8(bytes).map_err(|_| TokenKeyError::None)?.trim_start();
        let keys: Vec<Self> = if text.starts_with('{') {
            let set = match serde_json::from_str::<JwkSet>(text) {
                Ok(set) => set.keys,
                Err(_) => vec![serde_json::from_str::<Jwk>(text).map_err(TokenKeyError::Json)?],
            };
            set.into_iter().filter_map(Self::of_jwk).collect()
        } else {
            let blocks = crate::pem::blocks(text, &["PUBLIC KEY", "CERTIFICATE"]).ok_or(TokenKeyError::None)?;
            let key = |der: Vec<u8>| key_in(&der).map(|key| Self { id: None, algorithm: None, key });
            blocks.into_iter().filter_map(key).collect()
        };
        if keys.is_empty() { Err(TokenKeyError::None) } else { Ok(keys) }
    }

    fn of_jwk(jwk: Jwk) -> Option<Self> {
        if jwk.purpose.is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let number = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let point = |size: usize| {
            let (x, y) = (number(&jwk.x)?, number(&jwk.y)?);
            (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
        };
        let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("EC", Some("P-256")) => Key::P256(point(32)?),
            ("EC", Some("P-384")) => Key::P384(point(48)?),
            ("RSA", _) if jwk.n.is_some() => Key::Rsa { n: number(&jwk.n)?, e: number(&jwk.e)? },
            // MAA publishes its keys as certificates alone.
            ("RSA" | "EC", _) => key_in(&STANDARD.decode(jwk.x5c.first()?).ok()?)?,
            _ => return None,
        };
        Some(Self { id: jwk.kid, algorithm: jwk.alg, key })
    }

    /// Whether this key made the token's signature, by an algorithm of its own.
    pub(super) fn has_signed(&self, token: &Token) -> bool {
        let (message, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        if self.algorithm.as_ref().is_some_and(|algorithm| *algorithm != token.algorithm) {
            return false;
        }
        let (scheme, key) = match (&self.key, token.algorithm.as_str()) {
            (Key::P256(point), "ES256") => (Scheme::EcdsaFixed(Hash::Sha256), PublicKey::Ecdsa(Curve::P256, point)),
            (Key::P384(point), "ES384") => (Scheme::EcdsaFixed(Hash::Sha384), PublicKey::Ecdsa(Curve::P384, point)),
            (Key::Rsa { n, e }, "RS256") => (Scheme::RsaPkcs1(Hash::Sha256), PublicKey::RsaNumbers { n, e }),
            (Key::Rsa { n, e }, "PS256") => (Scheme::RsaPss(Hash::Sha256), PublicKey::RsaNumbers { n, e }),
            _ => return false,
        };
        verifies(scheme, &key, message, signature)
    }
}

/// The public key in a SubjectPublicKeyInfo, or in a certificate. Certificates are containers here: whoever gave it believes
/// the key, so nothing else in it is looked at.
fn key_in(der: &[u8]) -> Option<Key> {
    let spki = of_certificate(der).unwrap_or(der);
    match parse(spki)? {
        RawKey::P256(point) => Some(Key::P256(point.to_vec())),
        RawKey::P384(point) => Some(Key::P384(point.to_vec())),
        RawKey::Rsa { n, e } => Some(Key::Rsa { n: n.to_vec(), e: e.to_vec() }),
    }
}
