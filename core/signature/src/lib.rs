//! Hash functions, and the one trait behind which signatures are verified.
//!
//! Everything that judges evidence comes here for cryptography, and nothing else does it: SHA-2 is computed here, in Rust, on any
//! target; signatures are verified by a [`Verifier`]. With the feature `aws-lc` that is aws-lc-rs. Where that cannot be built, a
//! program leaves the feature out and gives its own with [`install`], before anything is judged.
//!
//! Trusts the verifier. Promises that without one nothing is ever taken for signed: the program ends.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes,
        reason = "tests stop at the first surprise"
    )
)]

#[cfg(feature = "aws-lc")]
mod aws_lc;
mod hash;
mod remembered;

#[cfg(feature = "aws-lc")]
pub use aws_lc::AwsLc;
pub use hash::{Hash, sha256, sha512};
pub use remembered::{forget, verifies_again};

/// A curve of NIST's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Curve {
    /// P-256.
    P256,
    /// P-384.
    P384,
    /// P-521.
    P521,
}

/// A public key, of whoever is said to have signed. Nothing about the bytes has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// ECDSA: an uncompressed point (SEC 1, section 2.3.3).
    Ecdsa(Curve, &'a [u8]),
    /// Ed25519: 32 bytes.
    Ed25519(&'a [u8]),
    /// RSA: an RSAPublicKey in DER (RFC 8017, appendix A.1.1).
    Rsa(&'a [u8]),
    /// RSA: modulus and exponent, big-endian.
    RsaNumbers {
        /// The modulus.
        n: &'a [u8],
        /// The exponent.
        e: &'a [u8],
    },
}

/// How a signature is made and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// ECDSA, r and s as a DER SEQUENCE.
    EcdsaDer(Hash),
    /// ECDSA, r and s one after the other, each as long as the curve's field, big-endian.
    EcdsaFixed(Hash),
    /// Ed25519.
    Ed25519,
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(Hash),
    /// RSASSA-PSS with MGF1 of the same hash and a salt as long as it.
    RsaPss(Hash),
}

/// Verifies signatures.
///
/// What a verifier must hold to: a key that does not go with the scheme, a point in another form or not on its curve, an RSA
/// modulus of less than 2,048 or more than 8,192 bits, numbers r and s outside of 1 to n - 1, and DER in another than its one form
/// are `false`. [`Scheme::EcdsaFixed`] needs to be known for P-256 with SHA-256 and P-384 with SHA-384 alone.
pub trait Verifier: Sync {
    /// Whether the holder of `key` made `signature` over `message` in this scheme.
    fn verifies(&self, scheme: Scheme, key: &Key<'_>, message: &[u8], signature: &[u8]) -> bool;
}

/// Whether the holder of `key` made `signature` over `message` in this scheme, by the program's [`Verifier`].
#[must_use]
pub fn verifies(scheme: Scheme, key: &Key<'_>, message: &[u8], signature: &[u8]) -> bool {
    verifier().verifies(scheme, key, message, signature)
}

#[cfg(feature = "aws-lc")]
fn verifier() -> &'static dyn Verifier {
    &AwsLc
}

#[cfg(not(feature = "aws-lc"))]
static INSTALLED: std::sync::OnceLock<&'static dyn Verifier> = std::sync::OnceLock::new();

/// Gives the program its verifier, once. There is no such function where the feature `aws-lc` is on.
///
/// # Errors
/// The verifier that was given, where there is one already.
#[cfg(not(feature = "aws-lc"))]
pub fn install(verifier: &'static dyn Verifier) -> Result<(), &'static dyn Verifier> {
    INSTALLED.set(verifier)
}

#[cfg(not(feature = "aws-lc"))]
#[expect(clippy::panic, reason = "a program that was built without cryptography must not go on as if it had any")]
fn verifier() -> &'static dyn Verifier {
    match INSTALLED.get() {
        Some(verifier) => *verifier,
        None => panic!("no verifier of signatures was installed: call caveau_signature::install first"),
    }
}
