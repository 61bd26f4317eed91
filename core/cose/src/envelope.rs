//! Signed envelopes: COSE_Sign1 (RFC 9052, section 4.2) with a certificate chain, an issuer and a feed.
//!
//! ```text
//! 18([ protected: bstr .cbor header,  unprotected: {394: [receipt…], …},  payload: bstr,  signature: bstr ])
//! signed: ["Signature1", protected, h'', payload]
//! ```
//!
//! The tag may be missing. All that decides is in the protected header; of the unprotected one, only receipts are read.

use crate::algorithm::Algorithm;
use crate::cbor::{CborError, Value};
use crate::chain::{Chain, ChainError, Validity};
use crate::did::{DidError, DidX509};
use crate::header::{ContentType, Header, wrong};
use crate::key::KeyKind;
use crate::receipt::{Receipt, ReceiptError};

/// Largest envelope accepted.
pub const MAX_ENVELOPE_BYTES: usize = 4 * 1024 * 1024;
/// Most receipts of an envelope.
const MAX_RECEIPTS: usize = 16;
/// The tag of a COSE_Sign1.
const SIGN1: u64 = 18;
const RECEIPTS: Value<'static> = Value::Int(394);

/// An envelope as it came. Nothing about it has been verified.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    sign1: Sign1<'a>,
    header: Header<'a>,
    payload: &'a [u8],
    receipts: Vec<Receipt<'a>>,
}

/// An envelope that the signer whom its issuer names has signed. Made by [`Envelope::verify`] alone.
#[derive(Clone, Debug)]
pub struct VerifiedEnvelope<'a> {
    envelope: Envelope<'a>,
    issuer: DidX509,
    feed: &'a str,
    chain: Chain<'a>,
}

/// By what to judge an envelope.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// For which time the chain must be valid.
    pub validity: Validity,
    /// The chain to judge by where the envelope has but the thumbprint of its signer's certificate.
    pub chain: &'a [&'a [u8]],
}

/// Why an envelope is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// More bytes than are accepted.
    #[error("the envelope has {0} bytes; at most {MAX_ENVELOPE_BYTES} are accepted")]
    TooLarge(usize),
    /// A part is no CBOR that is accepted.
    #[error("the {part} is not the CBOR expected")]
    Cbor {
        /// Which.
        part: &'static str,
        /// Why.
        #[source]
        problem: CborError,
    },
    /// A part has not the form expected.
    #[error("the {part} has not the form expected: {problem}")]
    Malformed {
        /// Which.
        part: &'static str,
        /// What was found.
        problem: String,
    },
    /// A part is missing.
    #[error("the protected header has no {0}")]
    Missing(&'static str),
    /// Two places say different things.
    #[error("the protected header names two different values as {0}: in its CWT claims, and beside them")]
    Ambiguous(&'static str),
    /// A label in both headers.
    #[error("the label {0} is in both headers")]
    DuplicateLabel(String),
    /// An algorithm that is not supported.
    #[error("the algorithm {0} is none of ES256, ES384, ES512, PS256, PS384, PS512 and EdDSA")]
    Algorithm(String),
    /// A critical label that is not understood, or not there.
    #[error("the label {0} is said to be critical, and is not understood or not there")]
    Critical(String),
    /// A receipt is malformed.
    #[error("receipt {0} cannot be read")]
    Receipt(usize, #[source] ReceiptError),
    /// No chain.
    #[error("the protected header has no certificate chain (33), and none was given for its thumbprint (34)")]
    NoChain,
    /// The thumbprint is another certificate's.
    #[error("the thumbprint in the header is not that of the signer's certificate")]
    Thumbprint,
    /// The chain is refused.
    #[error("the certificate chain is refused")]
    Chain(#[source] ChainError),
    /// The key and the algorithm do not go together.
    #[error("the signer's key is of {key}, with which {algorithm} is not possible")]
    KeyMismatch {
        /// The key.
        key: KeyKind,
        /// The algorithm of the header.
        algorithm: Algorithm,
    },
    /// The signature does not hold.
    #[error("the signature is not that of the signer's key over this content")]
    Signature,
    /// The issuer does not name the signer.
    #[error("the issuer does not name the signer")]
    Issuer(#[source] DidError),
}

impl EnvelopeError {
    /// Whether the bytes are at fault (else it is the signer who is not believed).
    #[must_use]
    pub const fn is_malformed(&self) -> bool {
        matches!(
            self,
            Self::TooLarge(_)
                | Self::Cbor { .. }
                | Self::Malformed { .. }
                | Self::Missing(_)
                | Self::Ambiguous(_)
                | Self::DuplicateLabel(_)
                | Self::Receipt(..)
        )
    }
}

impl<'a> Envelope<'a> {
    /// Reads an envelope: exactly one, with or without its tag.
    ///
    /// # Errors
    /// [`EnvelopeError`], one of those that are about form.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(EnvelopeError::TooLarge(bytes.len()));
        }
        let sign1 = Sign1::parse("envelope", bytes)?;
        let header = Header::read(&sign1.header)?;
        let Value::Bytes(payload) = sign1.payload else {
            return Err(wrong("payload", "a byte string within the envelope", &sign1.payload));
        };
        let receipts = receipts(&sign1.unprotected)?;
        Ok(Self { sign1, header, payload, receipts })
    }

    /// What the protected header says.
    #[must_use]
    pub const fn header(&self) -> &Header<'a> {
        &self.header
    }
    /// The payload.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
    /// The receipts with the envelope, none of them verified.
    #[must_use]
    pub fn receipts(&self) -> &[Receipt<'a>] {
        &self.receipts
    }

    /// SHA-256 of the envelope with its tag and an empty unprotected header: what a receipt is about (draft-ietf-scitt-
    /// architecture, Signed Statement).
    #[must_use]
    pub fn statement_digest(&self) -> [u8; 32] {
        let bare = Sign1 { unprotected: Value::Map(Vec::new()), ..self.sign1.clone() };
        let digest = caveau_signature::Hash::Sha256.digest(&bare.encode());
        <[u8; 32]>::try_from(digest).unwrap_or_default()
    }

    /// The envelope without what anybody could have put into its unprotected header but for these receipts.
    #[must_use]
    pub fn with_receipts(&self, receipts: &[&[u8]]) -> Vec<u8> {
        let receipts: Vec<_> = receipts.iter().map(|receipt| Value::Bytes(receipt)).collect();
        let unprotected = if receipts.is_empty() { vec![] } else { vec![(RECEIPTS, Value::Array(receipts))] };
        Sign1 { unprotected: Value::Map(unprotected), ..self.sign1.clone() }.encode()
    }

    /// Checks the chain and, by its first key, the signature. Who that is nobody has asked.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn verify_signature<'c>(&self, rules: &Rules<'c>) -> Result<Chain<'c>, EnvelopeError>
    where
        'a: 'c,
    {
        let ders: &[&'c [u8]] = match (&self.header.chain, &self.header.thumbprint) {
            (own, _) if !own.is_empty() => own.as_slice(),
            (_, Some(_)) if !rules.chain.is_empty() => rules.chain,
            _ => return Err(EnvelopeError::NoChain),
        };
        let chain = Chain::verify(ders, rules.validity).map_err(EnvelopeError::Chain)?;
        let leaf = chain.leaf().map_err(EnvelopeError::Chain)?;
        if let Some(thumbprint) = &self.header.thumbprint
            && thumbprint.hash.digest(leaf.der()) != thumbprint.digest
        {
            return Err(EnvelopeError::Thumbprint);
        }
        let (key, algorithm) = (leaf.public_key(), self.header.algorithm);
        if !key.supports(algorithm) {
            return Err(EnvelopeError::KeyMismatch { key: key.kind(), algorithm });
        }
        if !key.verifies(algorithm, &self.sign1.signed(self.payload), self.sign1.signature) {
            return Err(EnvelopeError::Signature);
        }
        Ok(chain)
    }

    /// Checks chain, signature, and that the issuer is a did:x509 which names the signer.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn verify<'c>(self, rules: &Rules<'c>) -> Result<VerifiedEnvelope<'c>, EnvelopeError>
    where
        'a: 'c,
    {
        let chain = self.verify_signature(rules)?;
        let said = |text: Option<&'a str>| text.filter(|text| !text.is_empty());
        let issuer = said(self.header.issuer).ok_or(EnvelopeError::Missing("issuer"))?;
        let feed = said(self.header.feed).ok_or(EnvelopeError::Missing("feed or subject"))?;
        let issuer = DidX509::parse(issuer).map_err(EnvelopeError::Issuer)?;
        issuer.check(&chain).map_err(EnvelopeError::Issuer)?;
        Ok(VerifiedEnvelope { envelope: self, issuer, feed, chain })
    }
}

impl<'a> VerifiedEnvelope<'a> {
    /// Reads and verifies an envelope.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn open(bytes: &'a [u8], rules: &Rules<'a>) -> Result<Self, EnvelopeError> {
        Envelope::parse(bytes)?.verify(rules)
    }

    /// Who signed it.
    #[must_use]
    pub const fn issuer(&self) -> &DidX509 {
        &self.issuer
    }
    /// What the payload is about: a feed, which CWT calls subject.
    #[must_use]
    pub const fn feed(&self) -> &'a str {
        self.feed
    }
    /// The payload's security version, where the header has it.
    #[must_use]
    pub const fn svn(&self) -> Option<i64> {
        self.envelope.header.svn
    }
    /// The payload's type.
    #[must_use]
    pub const fn content_type(&self) -> Option<ContentType<'a>> {
        self.envelope.header.content_type
    }
    /// The payload.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.envelope.payload
    }
    /// The receipts with the envelope, none of them verified: [`crate::TrustList::verify`] does.
    #[must_use]
    pub fn receipts(&self) -> &[Receipt<'a>] {
        &self.envelope.receipts
    }
    /// The signer's chain.
    #[must_use]
    pub const fn chain(&self) -> &Chain<'a> {
        &self.chain
    }
    /// The whole protected header.
    #[must_use]
    pub const fn header(&self) -> &Header<'a> {
        &self.envelope.header
    }
    /// The envelope.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope<'a> {
        &self.envelope
    }
}

fn receipts<'a>(unprotected: &Value<'a>) -> Result<Vec<Receipt<'a>>, EnvelopeError> {
    let Some(list) = unprotected.entry(&RECEIPTS) else { return Ok(Vec::new()) };
    let part = "list of receipts (394)";
    let items = list.as_array().ok_or_else(|| wrong(part, "an array", list))?;
    if items.len() > MAX_RECEIPTS {
        let problem = format!("{} receipts, at most {MAX_RECEIPTS} are accepted", items.len());
        return Err(EnvelopeError::Malformed { part, problem });
    }
    let read = |(index, item): (usize, &Value<'a>)| {
        let bytes = item.as_bytes().ok_or_else(|| wrong(part, "byte strings", item))?;
        Receipt::parse(bytes).map_err(|error| EnvelopeError::Receipt(index, error))
    };
    items.iter().enumerate().map(read).collect()
}

/// The four parts of a COSE_Sign1.
#[derive(Clone, Debug)]
pub(crate) struct Sign1<'a> {
    pub(crate) protected: &'a [u8],
    /// `protected`, decoded.
    pub(crate) header: Value<'a>,
    pub(crate) unprotected: Value<'a>,
    /// A byte string, or null where it is elsewhere.
    pub(crate) payload: Value<'a>,
    pub(crate) signature: &'a [u8],
}

impl<'a> Sign1<'a> {
    pub(crate) fn parse(part: &'static str, bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut value = Value::decode(bytes).map_err(|problem| EnvelopeError::Cbor { part, problem })?;
        if let Value::Tag(SIGN1, inner) = value {
            value = *inner;
        }
        let malformed = |problem: &str| EnvelopeError::Malformed { part, problem: problem.to_owned() };
        let Value::Array(parts) = value else { return Err(wrong(part, "a COSE_Sign1", &value)) };
        let Ok([protected, unprotected, payload, signature]) = <[Value<'a>; 4]>::try_from(parts) else {
            return Err(malformed("a COSE_Sign1 is an array of four"));
        };
        let (Value::Bytes(protected), Value::Map(entries), Value::Bytes(signature)) =
            (protected, &unprotected, signature)
        else {
            return Err(malformed("a COSE_Sign1 is of a byte string, a map, the payload, and a byte string"));
        };
        if !matches!(payload, Value::Bytes(_) | Value::NULL) {
            return Err(wrong(part, "a payload that is a byte string or null", &payload));
        }
        // RFC 9052, section 3: an empty map is written as an empty string.
        let header = if protected.is_empty() { Ok(Value::Map(Vec::new())) } else { Value::decode(protected) };
        let header = header.map_err(|problem| EnvelopeError::Cbor { part: "protected header", problem })?;
        crate::header::check_labels(&unprotected, &[])?;
        if let Some((label, _)) = entries.iter().find(|(label, _)| header.entry(label).is_some()) {
            return Err(EnvelopeError::DuplicateLabel(label.show_key()));
        }
        Ok(Self { protected, header, unprotected, payload, signature })
    }

    /// What is signed.
    pub(crate) fn signed(&self, payload: &[u8]) -> Vec<u8> {
        signed(self.protected, payload)
    }

    /// The whole with its tag.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let parts = vec![
            Value::Bytes(self.protected),
            self.unprotected.clone(),
            self.payload.clone(),
            Value::Bytes(self.signature),
        ];
        Value::Tag(SIGN1, Box::new(Value::Array(parts))).encode()
    }
}

/// What is signed: the Sig_structure of RFC 9052, section 4.4, without external data.
pub(crate) fn signed(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let parts = [Value::Text("Signature1"), Value::Bytes(protected), Value::Bytes(&[]), Value::Bytes(payload)];
    Value::Array(parts.to_vec()).encode()
}
