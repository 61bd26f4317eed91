//! What envelopes and receipts say of themselves: COSE header parameters (RFC 9052, section 3) and the claims among
//! them.
//!
//! | label | what | source |
//! |---|---|---|
//! | 1 | algorithm | RFC 9052 |
//! | 2 | labels that a reader must understand | RFC 9052 |
//! | 3 | content type | RFC 9052 |
//! | 4 | key identifier | RFC 9052 |
//! | 15 | CWT claims: 1 issuer, 2 subject, 6 issued at, `svn` | RFC 9597 |
//! | 33 | certificate chain | RFC 9360 |
//! | 34 | thumbprint of the signer's certificate | RFC 9360 |
//! | 258 to 260 | the payload is a hash: its algorithm, the content's type and place | draft-ietf-cose-hash-envelope |
//! | `iss`, `feed`, `signingtime` | issuer, subject, time, before there were CWT claims | Azure's signing service |

use caveau_signature::Hash;
use caveau_snp::time::Timestamp;

use crate::algorithm::Algorithm;
use crate::cbor::Value;
use crate::envelope::EnvelopeError;

pub(crate) const ALGORITHM: Value<'static> = Value::Int(1);
pub(crate) const CRITICAL: Value<'static> = Value::Int(2);
pub(crate) const CONTENT_TYPE: Value<'static> = Value::Int(3);
pub(crate) const KEY_ID: Value<'static> = Value::Int(4);
pub(crate) const CLAIMS: Value<'static> = Value::Int(15);
pub(crate) const CHAIN: Value<'static> = Value::Int(33);
pub(crate) const THUMBPRINT: Value<'static> = Value::Int(34);
pub(crate) const PAYLOAD_HASH: Value<'static> = Value::Int(258);
pub(crate) const PREIMAGE_TYPE: Value<'static> = Value::Int(259);
pub(crate) const PREIMAGE_LOCATION: Value<'static> = Value::Int(260);
pub(crate) const LEGACY_ISSUER: Value<'static> = Value::Text("iss");
pub(crate) const LEGACY_FEED: Value<'static> = Value::Text("feed");
pub(crate) const LEGACY_TIME: Value<'static> = Value::Text("signingtime");

/// Claims in a map of CWT claims.
pub(crate) const CLAIM_ISSUER: Value<'static> = Value::Int(1);
pub(crate) const CLAIM_SUBJECT: Value<'static> = Value::Int(2);
pub(crate) const CLAIM_ISSUED_AT: Value<'static> = Value::Int(6);
pub(crate) const CLAIM_SVN: Value<'static> = Value::Text("svn");

/// The labels that are understood, and may therefore be critical.
const UNDERSTOOD: [Value<'static>; 12] = [
    ALGORITHM,
    CRITICAL,
    CONTENT_TYPE,
    CLAIMS,
    CHAIN,
    THUMBPRINT,
    PAYLOAD_HASH,
    PREIMAGE_TYPE,
    PREIMAGE_LOCATION,
    LEGACY_ISSUER,
    LEGACY_FEED,
    LEGACY_TIME,
];

/// The protected header of an envelope: what it says, true or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The signature's algorithm.
    pub algorithm: Algorithm,
    /// The type of the payload.
    pub content_type: Option<ContentType<'a>>,
    /// The certificate chain in DER, the signer's certificate first; empty where there is none.
    pub chain: Vec<&'a [u8]>,
    /// The digest of the signer's certificate.
    pub thumbprint: Option<Thumbprint<'a>>,
    /// Who says to have signed.
    pub issuer: Option<&'a str>,
    /// What the payload is about: a feed, which CWT calls subject.
    pub feed: Option<&'a str>,
    /// The payload's security version.
    pub svn: Option<i64>,
    /// When it says to have been signed.
    pub signing_time: Option<Timestamp>,
    /// Where the payload is but the digest of a content: of which.
    pub payload_hash: Option<PayloadHash<'a>>,
}

/// The type of a payload or content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType<'a> {
    /// A number in the registry of CoAP content formats.
    Number(u16),
    /// A media type.
    Text(&'a str),
}

impl std::fmt::Display for ContentType<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "CoAP content format {number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A certificate's digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thumbprint<'a> {
    /// The hash function.
    pub hash: Hash,
    /// The digest.
    pub digest: &'a [u8],
}

/// The content whose digest a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadHash<'a> {
    /// The hash function's number in COSE's registry.
    pub algorithm: i64,
    /// The content's type.
    pub content_type: Option<ContentType<'a>>,
    /// Where it may be found.
    pub location: Option<&'a str>,
}

impl<'a> Header<'a> {
    /// Reads a protected header's map.
    pub(crate) fn read(map: &Value<'a>) -> Result<Self, EnvelopeError> {
        check_labels(map, &UNDERSTOOD)?;
        let claims = optional(map, &CLAIMS, "CWT claims (15)", |value| value.as_map().map(|_| value.clone()))?;
        let claim = |key: &Value<'_>| claims.as_ref().and_then(|claims| claims.entry(key).cloned());
        let issuer = one_of("issuer", text(claim(&CLAIM_ISSUER))?, text(map.entry(&LEGACY_ISSUER).cloned())?)?;
        let feed = one_of("feed or subject", text(claim(&CLAIM_SUBJECT))?, text(map.entry(&LEGACY_FEED).cloned())?)?;
        let signing_time = one_of("time", time(claim(&CLAIM_ISSUED_AT))?, time(map.entry(&LEGACY_TIME).cloned())?)?;
        let svn = match claim(&CLAIM_SVN) {
            None => None,
            Some(value) => Some(value.as_int().ok_or_else(|| wrong("svn", "an integer of 64 bits", &value))?),
        };
        let algorithm = map.entry(&ALGORITHM).ok_or(EnvelopeError::Missing("algorithm (1)"))?;
        Ok(Self {
            algorithm: read_algorithm(algorithm)?,
            content_type: optional(map, &CONTENT_TYPE, "content type (3)", content_type)?,
            chain: optional(map, &CHAIN, "certificate chain (33)", chain)?.unwrap_or_default(),
            thumbprint: optional(map, &THUMBPRINT, "certificate thumbprint (34)", thumbprint)?,
            issuer,
            feed,
            svn,
            signing_time,
            payload_hash: payload_hash(map)?,
        })
    }
}

/// Checks that labels are integers or texts, and that a reader who understands `understood` may read a header with
/// them.
pub(crate) fn check_labels(map: &Value<'_>, understood: &[Value<'static>]) -> Result<(), EnvelopeError> {
    let entries = map.as_map().ok_or_else(|| wrong("header", "a map", map))?;
    for (label, _) in entries {
        if !matches!(label, Value::Int(_) | Value::Text(_)) {
            return Err(wrong("header label", "an integer or a text", label));
        }
    }
    let Some(critical) = map.entry(&CRITICAL) else { return Ok(()) };
    let labels = critical.as_array().filter(|labels| !labels.is_empty());
    for label in labels.ok_or_else(|| wrong("list of critical labels (2)", "an array that is not empty", critical))? {
        if !understood.contains(label) || map.entry(label).is_none() {
            return Err(EnvelopeError::Critical(label.show_key()));
        }
    }
    Ok(())
}

pub(crate) fn read_algorithm(value: &Value<'_>) -> Result<Algorithm, EnvelopeError> {
    let known = value.as_int().and_then(Algorithm::from_id);
    known.ok_or_else(|| EnvelopeError::Algorithm(value.show_key()))
}

pub(crate) fn text(value: Option<Value<'_>>) -> Result<Option<&str>, EnvelopeError> {
    let Some(value) = value else { return Ok(None) };
    value.as_text().map(Some).ok_or_else(|| wrong("issuer, subject or feed", "a text", &value))
}

/// Seconds since 1970, with or without the tag that says so.
pub(crate) fn time(value: Option<Value<'_>>) -> Result<Option<Timestamp>, EnvelopeError> {
    let Some(value) = value else { return Ok(None) };
    let number = if let Value::Tag(1, inner) = &value { inner.as_int() } else { value.as_int() };
    let seconds = number.and_then(|number| u64::try_from(number).ok());
    let seconds = seconds.ok_or_else(|| wrong("time", "whole seconds since 1970", &value))?;
    Ok(Some(Timestamp::from_unix(seconds)))
}

/// What is said in one of two places, or in both the same.
fn one_of<T: PartialEq>(what: &'static str, new: Option<T>, old: Option<T>) -> Result<Option<T>, EnvelopeError> {
    match (new, old) {
        (Some(new), Some(old)) if new != old => Err(EnvelopeError::Ambiguous(what)),
        (new, old) => Ok(new.or(old)),
    }
}

/// What `read` makes of an entry, where there is one.
fn optional<'a, T>(
    map: &Value<'a>,
    label: &Value<'static>,
    what: &'static str,
    read: impl Fn(&Value<'a>) -> Option<T>,
) -> Result<Option<T>, EnvelopeError> {
    let Some(value) = map.entry(label) else { return Ok(None) };
    let problem = || EnvelopeError::Malformed { part: what, problem: format!("{} of another form", value.kind()) };
    read(value).map(Some).ok_or_else(problem)
}

fn content_type<'a>(value: &Value<'a>) -> Option<ContentType<'a>> {
    let number = value.as_int().and_then(|number| u16::try_from(number).ok()).map(ContentType::Number);
    number.or_else(|| value.as_text().map(ContentType::Text))
}

/// One certificate, or an array of several.
fn chain<'a>(value: &Value<'a>) -> Option<Vec<&'a [u8]>> {
    match value {
        Value::Bytes(one) => Some(vec![one]),
        Value::Array(several) if !several.is_empty() => several.iter().map(Value::as_bytes).collect(),
        _ => None,
    }
}

fn thumbprint<'a>(value: &Value<'a>) -> Option<Thumbprint<'a>> {
    let [hash, digest] = value.as_array()? else { return None };
    let hash = Hash::from_id(hash.as_int()?)?;
    let digest = digest.as_bytes().filter(|digest| digest.len() == hash.length())?;
    Some(Thumbprint { hash, digest })
}

fn payload_hash<'a>(map: &Value<'a>) -> Result<Option<PayloadHash<'a>>, EnvelopeError> {
    let algorithm = optional(map, &PAYLOAD_HASH, "payload's hash algorithm (258)", Value::as_int)?;
    let content_type = optional(map, &PREIMAGE_TYPE, "content's type (259)", content_type)?;
    let location = optional(map, &PREIMAGE_LOCATION, "content's place (260)", Value::as_text)?;
    match algorithm {
        Some(algorithm) => Ok(Some(PayloadHash { algorithm, content_type, location })),
        None if content_type.is_some() || location.is_some() => {
            Err(EnvelopeError::Missing("payload's hash algorithm (258)"))
        }
        None => Ok(None),
    }
}

pub(crate) fn wrong(part: &'static str, expected: &str, found: &Value<'_>) -> EnvelopeError {
    EnvelopeError::Malformed { part, problem: format!("{}, expected {expected}", found.kind()) }
}
