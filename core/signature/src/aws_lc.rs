//! Signatures verified by aws-lc-rs.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1,
    ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA512_ASN1,
    ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

use crate::{Curve, Hash, Key, Scheme, Verifier};

/// aws-lc-rs.
#[derive(Clone, Copy, Debug)]
pub struct AwsLc;

impl Verifier for AwsLc {
    fn verifies(&self, scheme: Scheme, key: &Key<'_>, message: &[u8], signature: &[u8]) -> bool {
        match *key {
            Key::Ecdsa(curve, point) => {
                ecdsa(scheme, curve).is_some_and(|algorithm| holds(algorithm, point, message, signature))
            }
            Key::Ed25519(bytes) => scheme == Scheme::Ed25519 && holds(&ED25519, bytes, message, signature),
            Key::Rsa(der) => rsa(scheme).is_some_and(|algorithm| holds(algorithm, der, message, signature)),
            Key::RsaNumbers { n, e } => rsa(scheme)
                .is_some_and(|algorithm| RsaPublicKeyComponents { n, e }.verify(algorithm, message, signature).is_ok()),
        }
    }
}

fn holds(algorithm: &'static dyn VerificationAlgorithm, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

fn ecdsa(scheme: Scheme, curve: Curve) -> Option<&'static dyn VerificationAlgorithm> {
    use Hash::{Sha256, Sha384, Sha512};
    Some(match (scheme, curve) {
        (Scheme::EcdsaDer(Sha256), Curve::P256) => &ECDSA_P256_SHA256_ASN1,
        (Scheme::EcdsaDer(Sha384), Curve::P256) => &ECDSA_P256_SHA384_ASN1,
        (Scheme::EcdsaDer(Sha512), Curve::P256) => &ECDSA_P256_SHA512_ASN1,
        (Scheme::EcdsaDer(Sha256), Curve::P384) => &ECDSA_P384_SHA256_ASN1,
        (Scheme::EcdsaDer(Sha384), Curve::P384) => &ECDSA_P384_SHA384_ASN1,
        (Scheme::EcdsaDer(Sha512), Curve::P384) => &ECDSA_P384_SHA512_ASN1,
        (Scheme::EcdsaDer(Sha256), Curve::P521) => &ECDSA_P521_SHA256_ASN1,
        (Scheme::EcdsaDer(Sha384), Curve::P521) => &ECDSA_P521_SHA384_ASN1,
        (Scheme::EcdsaDer(Sha512), Curve::P521) => &ECDSA_P521_SHA512_ASN1,
        (Scheme::EcdsaFixed(Sha256), Curve::P256) => &ECDSA_P256_SHA256_FIXED,
        (Scheme::EcdsaFixed(Sha384), Curve::P384) => &ECDSA_P384_SHA384_FIXED,
        _ => return None,
    })
}

fn rsa(scheme: Scheme) -> Option<&'static RsaParameters> {
    use Hash::{Sha256, Sha384, Sha512};
    Some(match scheme {
        Scheme::RsaPkcs1(Sha256) => &RSA_PKCS1_2048_8192_SHA256,
        Scheme::RsaPkcs1(Sha384) => &RSA_PKCS1_2048_8192_SHA384,
        Scheme::RsaPkcs1(Sha512) => &RSA_PKCS1_2048_8192_SHA512,
        Scheme::RsaPss(Sha256) => &RSA_PSS_2048_8192_SHA256,
        Scheme::RsaPss(Sha384) => &RSA_PSS_2048_8192_SHA384,
        Scheme::RsaPss(Sha512) => &RSA_PSS_2048_8192_SHA512,
        Scheme::EcdsaDer(_) | Scheme::EcdsaFixed(_) | Scheme::Ed25519 => return None,
    })
}
