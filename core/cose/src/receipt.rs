//! Receipts: a ledger's signed word that it holds a signed statement (draft-ietf-cose-merkle-tree-proofs), in the
//! profile of CCF ledgers (draft-ietf-scitt-receipts-ccf-profile).
//!
//! ```text
//! receipt  = COSE_Sign1: protected {1: algorithm, 4: key id, 15: {1: ledger, 2: subject, 6: time}, 395: 2, …}
//!            unprotected {396: {-1: [proof…]}}, payload null (the Merkle root takes its place)
//! proof    = bstr .cbor {1: [transaction: bstr 32, evidence: tstr, data: bstr 32], 2: [[left: bool, hash: bstr 32]…]}
//! leaf     = SHA-256(transaction || SHA-256(evidence) || data)
//! ```

use caveau_signature::Hash;
use caveau_snp::time::Timestamp;

use crate::cbor::{CborError, Value};
use crate::envelope::{EnvelopeError, Sign1};
use crate::header::{
    ALGORITHM, CLAIM_ISSUED_AT, CLAIM_ISSUER, CLAIM_SUBJECT, CLAIMS, CRITICAL, KEY_ID, check_labels, read_algorithm,
    text, time,
};
use crate::key::PublicKey;

/// Largest receipt accepted.
const MAX_RECEIPT_BYTES: usize = 256 * 1024;
/// Most proofs of a receipt.
const MAX_PROOFS: usize = 16;
/// Longest path of a proof: a ledger of more than 2^64 entries there is not.
const MAX_PATH: usize = 64;
/// Longest evidence, in bytes.
const MAX_EVIDENCE: usize = 1024;

/// The kind of the verifiable data structure, and a CCF ledger's.
const STRUCTURE: Value<'static> = Value::Int(395);
const CCF_LEDGER: i64 = 2;
/// Proofs, and those of inclusion among them.
const PROOFS: Value<'static> = Value::Int(396);
const INCLUSION: Value<'static> = Value::Int(-1);

/// A receipt as it came. Nothing about it has been verified.
#[derive(Clone, Debug)]
pub struct Receipt<'a> {
    raw: &'a [u8],
    sign1: Sign1<'a>,
    key_id: &'a [u8],
    issuer: &'a str,
    subject: Option<&'a str>,
    issued_at: Option<Timestamp>,
}

/// Why a receipt is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// More bytes than are accepted.
    #[error("it has {0} bytes; at most {MAX_RECEIPT_BYTES} are accepted")]
    TooLarge(usize),
    /// No COSE_Sign1.
    #[error("its envelope is refused")]
    Envelope(#[source] Box<EnvelopeError>),
    /// Something that must be there is not, or of another form.
    #[error("its {0} is missing or of another form than expected")]
    Malformed(&'static str),
    /// A proof is no CBOR that is accepted.
    #[error("a proof is not the CBOR expected")]
    Cbor(#[source] CborError),
    /// Another kind of ledger.
    #[error("it is of a verifiable data structure other than that of CCF ledgers (2)")]
    Structure,
    /// A receipt for another statement.
    #[error("it is for the statement {found}, and this one is {expected}")]
    OtherStatement {
        /// SHA-256 of the statement it is for, in hexadecimal.
        found: String,
        /// SHA-256 of the statement it came with.
        expected: String,
    },
    /// No key with that identifier is known for the ledger.
    #[error("no key of the ledger `{issuer}` with the identifier {key_id} is trusted")]
    UnknownKey {
        /// The ledger.
        issuer: String,
        /// The key's identifier.
        key_id: String,
    },
    /// The signature does not hold.
    #[error("its signature is not that of the ledger's key over the root that its proof leads to")]
    Signature,
}

impl<'a> Receipt<'a> {
    /// Reads a receipt: which ledger's it is, and with which key it is said to be signed. Its proofs are read when it
    /// is verified, since a receipt of a ledger of another kind is no fault of the envelope it is on.
    ///
    /// # Errors
    /// [`ReceiptError`], one of those that are about form.
    pub fn parse(raw: &'a [u8]) -> Result<Self, ReceiptError> {
        if raw.len() > MAX_RECEIPT_BYTES {
            return Err(ReceiptError::TooLarge(raw.len()));
        }
        let sign1 = Sign1::parse("receipt", raw).map_err(refused)?;
        let header = &sign1.header;
        check_labels(header, &[ALGORITHM, CRITICAL, KEY_ID, CLAIMS, STRUCTURE]).map_err(refused)?;
        let key_id =
            header.entry(&KEY_ID).and_then(Value::as_bytes).ok_or(ReceiptError::Malformed("key identifier (4)"))?;
        let claims = header.entry(&CLAIMS).filter(|claims| claims.as_map().is_some());
        let claims = claims.ok_or(ReceiptError::Malformed("CWT claims (15)"))?;
        let issuer = text(claims.entry(&CLAIM_ISSUER).cloned()).map_err(refused)?;
        let subject = text(claims.entry(&CLAIM_SUBJECT).cloned()).map_err(refused)?;
        let issued_at = time(claims.entry(&CLAIM_ISSUED_AT).cloned()).map_err(refused)?;
        let issuer = issuer.ok_or(ReceiptError::Malformed("issuer"))?;
        Ok(Self { raw, key_id, issuer, subject, issued_at, sign1 })
    }

    /// The receipt's bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }
    /// The ledger whose it says to be.
    #[must_use]
    pub const fn issuer(&self) -> &'a str {
        self.issuer
    }
    /// What it says to be about: the kind of entry, such as `scitt.ccf.signature.v1`.
    #[must_use]
    pub const fn subject(&self) -> Option<&'a str> {
        self.subject
    }
    /// The identifier of the key that signed it: with CCF ledgers, hexadecimal digits.
    #[must_use]
    pub const fn key_id(&self) -> &'a [u8] {
        self.key_id
    }
    /// When it says to have been made.
    #[must_use]
    pub const fn issued_at(&self) -> Option<Timestamp> {
        self.issued_at
    }

    /// Checks that each of its proofs (there must be one) is for the statement with this digest, and leads to a root
    /// that `key` signed.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn verify(&self, statement: &[u8; 32], key: &PublicKey<'_>) -> Result<(), ReceiptError> {
        let header = &self.sign1.header;
        if header.entry(&STRUCTURE).and_then(Value::as_int) != Some(CCF_LEDGER) {
            return Err(ReceiptError::Structure);
        }
        if self.sign1.payload != Value::NULL {
            return Err(ReceiptError::Malformed("payload, which must be null,"));
        }
        let algorithm = header.entry(&ALGORITHM).ok_or(ReceiptError::Malformed("algorithm (1)"))?;
        let algorithm = read_algorithm(algorithm).map_err(refused)?;
        let proofs = self.sign1.unprotected.entry(&PROOFS).and_then(|proofs| proofs.entry(&INCLUSION));
        let proofs = proofs.and_then(Value::as_array).filter(|proofs| !proofs.is_empty() && proofs.len() <= MAX_PROOFS);
        for proof in proofs.ok_or(ReceiptError::Malformed("list of inclusion proofs (396, -1)"))? {
            let proof = proof.as_bytes().ok_or(ReceiptError::Malformed("inclusion proof"))?;
            let proof = Value::decode(proof).map_err(ReceiptError::Cbor)?;
            let (root, data) = root_of(&proof)?;
            if data != statement {
                return Err(ReceiptError::OtherStatement {
                    found: hex::encode(data),
                    expected: hex::encode(statement),
                });
            }
            if !key.verifies(algorithm, &self.sign1.signed(&root), self.sign1.signature) {
                return Err(ReceiptError::Signature);
            }
        }
        Ok(())
    }
}

/// (the Merkle root that a proof leads to, the digest of the statement it is for).
fn root_of<'a>(proof: &Value<'a>) -> Result<(Vec<u8>, &'a [u8]), ReceiptError> {
    let hash = |value: &Value<'a>| value.as_bytes().filter(|bytes| bytes.len() == 32);
    let leaf = proof.entry(&Value::Int(1)).and_then(Value::as_array).unwrap_or_default();
    let [transaction, evidence, data] = leaf else { return Err(ReceiptError::Malformed("proof's leaf")) };
    let evidence = evidence.as_text().filter(|text| (1..=MAX_EVIDENCE).contains(&text.len()));
    let (Some(transaction), Some(evidence), Some(data)) = (hash(transaction), evidence, hash(data)) else {
        return Err(ReceiptError::Malformed("proof's leaf"));
    };
    let path = proof.entry(&Value::Int(2)).and_then(Value::as_array);
    let path = path.filter(|path| !path.is_empty() && path.len() <= MAX_PATH);
    let evidence = Hash::Sha256.digest(evidence.as_bytes());
    let mut node = Hash::Sha256.digest(&[transaction, &evidence, data].concat());
    for step in path.ok_or(ReceiptError::Malformed("proof's path"))? {
        let (left, sibling) = match step.as_array() {
            Some([Value::Simple(left @ (20 | 21)), sibling]) => (*left == 21, hash(sibling)),
            _ => (false, None),
        };
        let sibling = sibling.ok_or(ReceiptError::Malformed("proof's path"))?;
        let pair = if left { [sibling, &node].concat() } else { [&node, sibling].concat() };
        node = Hash::Sha256.digest(&pair);
    }
    Ok((node, data))
}

fn refused(error: EnvelopeError) -> ReceiptError {
    ReceiptError::Envelope(Box::new(error))
}
