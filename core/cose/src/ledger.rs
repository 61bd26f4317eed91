//! Ledgers' keys, and the signed lists that bring them. Whose keys count is for the policy to say.
//!
//! A transparency trust list is an envelope of type `application/vnd.transparency-trust-list.v1+cose` whose payload is
//!
//! ```text
//! {+ ledger: tstr => {1: [+ COSE_Key], …}}
//! ```

use std::collections::BTreeMap;

use crate::algorithm::Algorithm;
use crate::cbor::{CborError, Value};
use crate::key::{KeyKind, PublicKey};
use crate::receipt::{Receipt, ReceiptError};

/// The media type of a transparency trust list.
pub const TRUST_LIST_TYPE: &str = "application/vnd.transparency-trust-list.v1+cose";
/// Most ledgers of a list, and most keys of a ledger.
const MAX_ENTRIES: usize = 256;

/// A ledger's entry: its keys.
const KEYS: Value<'static> = Value::Int(1);

/// Labels of a COSE_Key (RFC 9052, section 7; RFC 9053, section 7).
const KEY_TYPE: Value<'static> = Value::Int(1);
const KEY_IDENTIFIER: Value<'static> = Value::Int(2);
const KEY_ALGORITHM: Value<'static> = Value::Int(3);
const KEY_OPERATIONS: Value<'static> = Value::Int(4);
const CURVE: Value<'static> = Value::Int(-1);
const X: Value<'static> = Value::Int(-2);
const Y: Value<'static> = Value::Int(-3);
/// The operation "verify".
const VERIFY: Value<'static> = Value::Int(2);

/// Keys by their identifiers.
pub type KeySet = BTreeMap<Vec<u8>, PublicKey<'static>>;

/// The payload of a transparency trust list: ledgers by name, with their keys. That the list itself is trusted is for
/// the policy to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustList {
    ledgers: BTreeMap<String, KeySet>,
}

/// Why bytes are no list of ledgers' keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustListError {
    /// No CBOR that is accepted.
    #[error("the trust list is not the CBOR expected")]
    Cbor(#[source] CborError),
    /// Not a map of ledgers.
    #[error("the trust list is no map of from 1 to {MAX_ENTRIES} ledgers' names")]
    NoLedgers,
    /// A ledger without a usable key.
    #[error("the trust list has no usable key of the ledger `{0}`")]
    NoKeys(String),
}

impl TrustList {
    /// Reads a payload. Of a ledger's keys, those that are malformed, of kinds that are not supported, without
    /// identifier, or other than the one with the same identifier before them are left out; one must remain (RFC 9052,
    /// section 7).
    ///
    /// # Errors
    /// [`TrustListError`].
    pub fn parse(payload: &[u8]) -> Result<Self, TrustListError> {
        let value = Value::decode(payload).map_err(TrustListError::Cbor)?;
        let entries = value.as_map().filter(|entries| !entries.is_empty() && entries.len() <= MAX_ENTRIES);
        let mut ledgers = BTreeMap::new();
        for (name, entry) in entries.ok_or(TrustListError::NoLedgers)? {
            let name = name.as_text().ok_or(TrustListError::NoLedgers)?;
            let keys = entry.entry(&KEYS).and_then(Value::as_array).unwrap_or_default();
            let mut set = KeySet::new();
            for (identifier, key) in keys.iter().take(MAX_ENTRIES).filter_map(read_key) {
                set.entry(identifier).or_insert(key);
            }
            if set.is_empty() {
                return Err(TrustListError::NoKeys(name.chars().take(200).collect()));
            }
            ledgers.insert(name.to_owned(), set);
        }
        Ok(Self { ledgers })
    }

    /// The ledgers' names and keys.
    #[must_use]
    pub const fn ledgers(&self) -> &BTreeMap<String, KeySet> {
        &self.ledgers
    }

    /// Verifies a receipt for the statement with this digest, by the list's keys of the ledger whose it says to be and no
    /// others.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn verify(&self, receipt: &Receipt<'_>, statement: &[u8; 32]) -> Result<(), ReceiptError> {
        let key = self.ledgers.get(receipt.issuer()).and_then(|keys| keys.get(receipt.key_id()));
        let key = key.ok_or_else(|| ReceiptError::UnknownKey {
            issuer: receipt.issuer().chars().take(200).collect(),
            key_id: String::from_utf8_lossy(receipt.key_id()).chars().take(128).collect(),
        })?;
        receipt.verify(statement, key)
    }
}

/// (identifier, key) of a COSE_Key that may verify signatures.
fn read_key(value: &Value<'_>) -> Option<(Vec<u8>, PublicKey<'static>)> {
    let identifier = value.entry(&KEY_IDENTIFIER)?.as_bytes().filter(|identifier| !identifier.is_empty())?;
    let (kind, curve) = (value.entry(&KEY_TYPE)?.as_int()?, value.entry(&CURVE)?.as_int()?);
    let x = value.entry(&X)?.as_bytes()?;
    let key = match (kind, curve) {
        (1, 6) => PublicKey::new(KeyKind::Ed25519, x.to_vec())?,
        (2, 1..=3) => {
            let kind = match curve {
                1 => KeyKind::P256,
                2 => KeyKind::P384,
                _ => KeyKind::P521,
            };
            let y = value.entry(&Y)?.as_bytes()?;
            if x.len() != y.len() {
                return None;
            }
            PublicKey::new(kind, [&[4], x, y].concat())?
        }
        _ => return None,
    };
    if let Some(algorithm) = value.entry(&KEY_ALGORITHM) {
        Algorithm::from_id(algorithm.as_int()?).filter(|algorithm| key.supports(*algorithm))?;
    }
    if let Some(operations) = value.entry(&KEY_OPERATIONS) {
        operations.as_array()?.contains(&VERIFY).then_some(())?;
    }
    Some((identifier.to_vec(), key))
}
