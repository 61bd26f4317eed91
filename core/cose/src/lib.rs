//! Signed envelopes: COSE_Sign1 with a certificate chain, an issuer that is a did:x509, a feed, and ledgers' receipts.
//! Policy fragments, transparency trust lists and endorsements come in them.
//!
//! ```text
//! bytes → Envelope::parse → Envelope            what it says, true or not
//!       → verify(Rules)   → VerifiedEnvelope    chain sound, signature holds, issuer names the signer
//! receipts → TrustList::verify                  whether a listed ledger made it for this very envelope
//! ```
//!
//! Trusts nobody: whether an issuer may say something is for the policy that names it. Promises that a
//! [`VerifiedEnvelope`] was signed by the holder of a certificate that its issuer's did:x509 names, under an authority
//! with that fingerprint; that what is judged are the bytes as they came, in the one spelling that CBOR and DER have
//! for them; and that no input makes it panic. Refuses what is not understood: unknown algorithms, critical labels and
//! extensions, ambiguous names. Asks no clock: the time for which a chain must be valid is an input ([`Validity`]).

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

mod algorithm;
pub mod build;
pub mod cbor;
mod certificate;
mod chain;
mod did;
mod envelope;
mod header;
mod key;
mod ledger;
mod name;
pub mod oid;
mod receipt;
mod sign;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use caveau_signature::Hash;
pub use certificate::{Certificate, CertificateError, MAX_CERTIFICATE_BYTES};
pub use chain::{Chain, ChainError, MAX_CERTIFICATES, Validity};
pub use did::{DidError, DidX509, MAX_DID_BYTES, Policy, San};
pub use envelope::{Envelope, EnvelopeError, MAX_ENVELOPE_BYTES, Rules, VerifiedEnvelope};
pub use header::{ContentType, Header, PayloadHash, Thumbprint};
pub use key::{KeyKind, PublicKey};
pub use ledger::{KeySet, TRUST_LIST_TYPE, TrustList, TrustListError};
pub use name::{Attribute, SubjectAlternativeName};
pub use receipt::{Receipt, ReceiptError};
pub use sign::{Draft, Form, SignError, Signer};
