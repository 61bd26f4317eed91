//! Requests to load further pieces of policy. Signatures have been checked before: what is here is what they vouch for.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fragment::LedgerKeys;

/// Load a fragment: `load_fragment`. Everything but `text` comes from a signed envelope that verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadFragment {
    /// The signer: the did:x509 that resolved against the envelope's certificates.
    pub issuer: String,
    /// What the envelope calls it.
    pub feed: String,
    /// Security version in the envelope's header, if there is one.
    pub header_svn: Option<i64>,
    /// Receipts that verified, each with a key of [`crate::Enforcer::ledger_keys`].
    pub receipts: Vec<Receipt>,
    /// The envelope's payload: a Rego module.
    pub text: String,
}

/// A ledger's receipt whose signature verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The ledger that issued it.
    pub ledger: String,
    /// Identifier of the key that it verified with, one of that ledger.
    #[serde(with = "hex::serde")]
    pub key_id: Vec<u8>,
}

/// Load a transparency trust list: `load_transparency_trust_list`. It comes from a signed envelope that verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadTrustList {
    /// The signer: the did:x509 that resolved against the envelope's certificates.
    pub issuer: String,
    /// What the envelope calls it.
    pub subject: String,
    /// Security version in the envelope's header.
    pub svn: i64,
    /// The ledgers that it lists, with their keys.
    #[serde(with = "listed_keys")]
    pub ledgers: LedgerKeys,
}

/// Keys of ledgers in JSON: a list of `{ledger, key_id, key}`, the last two hexadecimal.
mod listed_keys {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::fragment::LedgerKeys;

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Listed {
        ledger: String,
        #[serde(with = "hex::serde")]
        key_id: Vec<u8>,
        #[serde(with = "hex::serde")]
        key: Vec<u8>,
    }

    pub(super) fn serialize<S: Serializer>(ledgers: &LedgerKeys, serializer: S) -> Result<S::Ok, S::Error> {
        let listed = ledgers.iter().flat_map(|(ledger, keys)| {
            keys.iter().map(|(id, key)| Listed { ledger: ledger.clone(), key_id: id.clone(), key: key.clone() })
        });
        serializer.collect_seq(listed)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LedgerKeys, D::Error> {
        let mut ledgers = LedgerKeys::new();
        for Listed { ledger, key_id, key } in Vec::deserialize(deserializer)? {
            ledgers.entry(ledger).or_default().insert(key_id, key);
        }
        Ok(ledgers)
    }
}

/// What a policy is asked about a fragment, first of its envelope alone, then with its text loaded as a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FragmentQuestion {
    pub(crate) issuer: String,
    pub(crate) feed: String,
    /// Name of the module.
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    pub(crate) fragment_loaded: bool,
    #[serde(default)]
    pub(crate) has_header_svn: bool,
    #[serde(default)]
    pub(crate) header_svn: Value,
    #[serde(default)]
    pub(crate) receipts: Vec<Vouched>,
}

/// A receipt, and who vouches for the key that it verified with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vouched {
    /// The ledger.
    pub(crate) issuer: String,
    /// Subjects of the trust lists that brought the key.
    #[serde(default, deserialize_with = "super::null_is_empty")]
    pub(crate) ttl_subjects: Vec<String>,
}

/// What a policy is asked about a trust list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrustListQuestion {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) svn: Value,
    #[serde(default, deserialize_with = "super::null_is_empty")]
    pub(crate) ledgers: Vec<String>,
}
