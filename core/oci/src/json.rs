//! Bounded JSON reading shared by the documents of this crate.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::{OciError, shown};

/// Parses `bytes`, called `what` in errors, refusing more than `limit` bytes before looking at any of them.
///
/// Nesting is bounded by the parser (128 levels); fields that a type names twice are an error, unknown ones are passed
/// over as the OCI specification asks ("Implementations ... MUST NOT generate an error if they encounter an unknown property").
pub(crate) fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8], limit: u64) -> Result<T, OciError> {
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if found > limit {
        return Err(OciError::TooLarge { what, found, limit });
    }
    serde_json::from_slice(bytes).map_err(|error| OciError::Malformed { what, reason: shown(&error.to_string()) })
}

/// Reads `null` as the type's default: Docker writes `null` for empty lists and maps.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Refuses more than `limit` entries of `what`.
pub(crate) fn check_count(what: &'static str, count: usize, limit: usize) -> Result<(), OciError> {
    if count > limit {
        let widen = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        return Err(OciError::TooLarge { what, found: widen(count), limit: widen(limit) });
    }
    Ok(())
}
