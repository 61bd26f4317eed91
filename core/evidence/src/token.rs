//! Tokens: what another verifier found, signed by it (JWT, RFC 7519): EAR (EAT attestation results) and those of Azure's
//! attestation service (MAA).
//!
//! A token is believed by keys that its reader gives, and no others: neither a URL (`jku`) nor a certificate (`x5c`) nor a key
//! in the token is looked at. The algorithm is the key's: what the token says must fit it.

mod keys;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use caveau_snp::Hex;
use caveau_snp::appraisal::{Appraisal, EMULATED_TEE, Kind};
use caveau_snp::appraise::{Expectations, ExpectedReportData, Profile};
use caveau_snp::check::{Check, Refusal};
use caveau_snp::claims::TeeClass;
use caveau_snp::examine::sha256;
use caveau_snp::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::judgement::{Judgement, Subject};
use crate::names;
pub use keys::{TokenKey, TokenKeyError};

/// Largest token accepted.
pub const MAX_TOKEN_BYTES: usize = 256 * 1024;
/// Seconds by which clocks may differ where a token says from when on it holds.
const CLOCK_SKEW: u64 = 60;

/// A token as it came.
#[derive(Clone, Debug)]
pub struct Token {
    algorithm: String,
    key_id: Option<String>,
    signed: String,
    signature: Vec<u8>,
    claims: Map<String, Value>,
}

/// Why text is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Too long.
    #[error("the token has {0} bytes, at most {MAX_TOKEN_BYTES} are accepted")]
    TooLong(usize),
    /// Not three parts.
    #[error("this is no token: expected three parts of base64url, with dots between them")]
    Form,
    /// A part that is no JSON.
    #[error("failed to read the token's {part}: expected a JSON object")]
    Json {
        /// Header or claims.
        part: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A header that changes what the signature means.
    #[error("the token's header has `crit`, which is not understood")]
    Critical,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl Token {
    /// Whether text looks like a token.
    #[must_use]
    pub fn is_likely(text: &str) -> bool {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let is_part =
            |part: &&str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        parts.len() == 3 && parts.iter().all(is_part) && parts.first().is_some_and(|header| header.starts_with("ey"))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong(text.len()));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Form)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Form);
        let json = |part| move |source| TokenError::Json { part, source };
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(json("header"))?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let claims = serde_json::from_slice(&decode(claims)?).map_err(json("claims"))?;
        let signature = decode(signature)?;
        Ok(Self { algorithm: header.alg, key_id: header.kid, signed: signed.to_owned(), signature, claims })
    }

    /// The claims, believed by nobody.
    #[must_use]
    pub const fn unverified_claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

/// Shapes of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenShape {
    /// EAT attestation results: `submods`, each with `ear.status`.
    Ear,
    /// Azure's attestation service: `x-ms-attestation-type`.
    Maa,
    /// Neither.
    Unknown,
}

/// What an authentic token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TokenClaims {
    /// Its shape.
    pub shape: TokenShape,
    /// The algorithm of its signature.
    pub algorithm: String,
    /// The name of its key.
    pub key_id: Option<String>,
    /// Everything in it.
    pub claims: Map<String, Value>,
}

/// What the owner expects of a token, beyond what is expected of the evidence behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenExpectations {
    /// Verifiers (`iss`) that are believed; any whose key was given where nothing is said.
    pub issuers: Option<Vec<String>>,
    /// The nonce that was sent, as bytes.
    pub nonce: Option<Vec<u8>>,
    /// Expectations of the guest of SEV-SNP behind it.
    pub snp: Expectations,
}

const CHECKS: [&str; 8] =
    ["token-signature", "token-dates", "issuer", "attester", "debug", "nonce", "policy", "measurement"];

/// Verifies and appraises a token, believing `keys` and no others.
#[must_use]
pub fn judge_token(
    token: &Token,
    keys: &[TokenKey],
    expected: &TokenExpectations,
    profile: Profile,
    at: Timestamp,
) -> Judgement {
    let [signature, dates, issuer, attester, debug, nonce, policy, measurement] = CHECKS;
    let shape = TokenShape::of(&token.claims);
    let is_signed = signed_by(token, keys);
    let authentic = is_signed.is_ok();
    let mut checks = vec![
        Check::from_result(signature, is_signed),
        Check::from_result(dates, in_force(&token.claims, at)),
        match &expected.issuers {
            None => Check::not_applicable(issuer, "any verifier whose key was given is believed"),
            Some(issuers) => Check::from_result(issuer, issued_by(&token.claims, issuers)),
        },
        Check::from_result(attester, attested(&token.claims, shape)),
        match is_debuggable(&token.claims) {
            Some(true) => Check::from_result(
                debug,
                Err(Refusal::new("debug", "the token says that the host may read the guest's memory")),
            ),
            Some(false) => {
                Check::from_result(debug, Ok("the token says that the host may not debug the guest".to_owned()))
            }
            None => Check::not_applicable(debug, "the token does not tell of debugging"),
        },
    ];
    checks.push(match &expected.nonce {
        None => Check::skipped(nonce, "no nonce was given: this token may be old"),
        Some(bytes) => Check::from_result(nonce, has_nonce(&token.claims, bytes)),
    });
    let listed =
        |what: &str, name, code: &str, found: Option<String>, expected: Option<Vec<String>>| match (found, expected) {
            (_, None) => Check::skipped(name, format!("no {what} was given: any may be in force")),
            (Some(found), Some(list)) if list.contains(&found) => {
                Check::from_result(name, Ok(format!("the {what} is {found}")))
            }
            (found, Some(_)) => {
                let found = found.unwrap_or_else(|| "not told".to_owned());
                Check::from_result(
                    name,
                    Err(Refusal::new(code, format!("the {what} is {found}, which is not expected"))),
                )
            }
        };
    let digest = expected.snp.policy_digest.map(|digest| vec![digest.to_string()]);
    checks.push(listed("policy's digest", policy, "host-data", hex_claim(&token.claims, "hostdata"), digest));
    let digests = expected.snp.measurements.as_ref().map(|list| list.iter().map(Hex::to_string).collect());
    let found = hex_claim(&token.claims, "launchmeasurement");
    checks.push(listed("launch digest", measurement, "measurement", found, digests));
    let digest = sha256(token.signed.as_bytes());
    let claims = authentic.then(|| {
        Subject::Token(Box::new(TokenClaims {
            shape,
            algorithm: token.algorithm.clone(),
            key_id: token.key_id.clone(),
            claims: token.claims.clone(),
        }))
    });
    Appraisal::of(Kind::Token, (tee_class(&checks), profile, at), digest, checks, claims)
}

/// The class that the other verifier's word gives, where it is for a TEE.
fn tee_class(checks: &[Check]) -> Option<TeeClass> {
    let attester = checks.iter().find(|check| check.name == "attester")?;
    match attester.code.as_deref() {
        None => Some(TeeClass::Hardware),
        Some(EMULATED_TEE) => Some(TeeClass::Emulated),
        Some(_) => None,
    }
}

impl TokenExpectations {
    /// Those that go with expectations of the guest behind the token.
    #[must_use]
    pub fn of(snp: Expectations, issuers: Option<Vec<String>>) -> Self {
        let nonce = match &snp.report_data {
            Some(ExpectedReportData::Challenge(nonce) | ExpectedReportData::Session(nonce)) => Some(nonce.clone()),
            Some(ExpectedReportData::Exact(data)) => Some(data.0.to_vec()),
            None => None,
        };
        Self { issuers, nonce, snp }
    }
}

impl TokenShape {
    fn of(claims: &Map<String, Value>) -> Self {
        if claims.contains_key("x-ms-attestation-type") || claims.contains_key("x-ms-isolation-tee") {
            Self::Maa
        } else if claims.get("submods").is_some_and(Value::is_object) {
            Self::Ear
        } else {
            Self::Unknown
        }
    }
}

fn signed_by(token: &Token, keys: &[TokenKey]) -> Result<String, Refusal> {
    if keys.is_empty() {
        return Err(Refusal::new("token-key-missing", "no key was given by which the token could be believed"));
    }
    let named = |key: &&TokenKey| key.id.is_none() || token.key_id.is_none() || key.id == token.key_id;
    if keys.iter().filter(named).any(|key| key.has_signed(token)) {
        return Ok(format!("a key that was given signed the token, by {}", token.algorithm));
    }
    let sentence = format!("none of the {} keys that were given signed the token (by {})", keys.len(), token.algorithm);
    Err(Refusal::new("token-signature", sentence))
}

/// `exp`, which must be there, and `nbf` and `iat`, which need not.
fn in_force(claims: &Map<String, Value>, at: Timestamp) -> Result<String, Refusal> {
    let date = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value
            .as_u64()
            .map(|seconds| Some(Timestamp::from_unix(seconds)))
            .ok_or_else(|| Refusal::new("token-dates", format!("the token's `{name}` is no number of seconds"))),
    };
    for name in ["nbf", "iat"] {
        if let Some(from) = date(name)?.filter(|from| at.plus_seconds(CLOCK_SKEW) < *from) {
            return Err(Refusal::new(
                "token-not-yet-valid",
                format!("the token's `{name}` is {from}, later than {at}"),
            ));
        }
    }
    match date("exp")? {
        Some(until) if at > until => {
            Err(Refusal::new("token-expired", format!("the token was in force until {until}, now it is {at}")))
        }
        Some(until) => Ok(format!("the token is in force until {until}")),
        None => Err(Refusal::new("token-dates", "the token does not say until when it is in force")),
    }
}

fn issued_by(claims: &Map<String, Value>, issuers: &[String]) -> Result<String, Refusal> {
    match claims.get("iss").and_then(Value::as_str) {
        Some(issuer) if issuers.iter().any(|known| known == issuer) => Ok(format!("the verifier is {issuer}")),
        issuer => {
            let sentence = format!("the verifier is {}, which is not expected", issuer.unwrap_or("not named"));
            Err(Refusal::new("issuer", sentence))
        }
    }
}

/// What the other verifier found: of each part of an EAR, that it affirms; of MAA, that it was an attestation. What is marked
/// as emulated is refused, whatever else is said of it.
fn attested(claims: &Map<String, Value>, shape: TokenShape) -> Result<String, Refusal> {
    if names::is_marked_emulated(claims) {
        let sentence = "the token is about an emulated processor, which gives no confidentiality";
        return Err(Refusal::new(EMULATED_TEE, sentence));
    }
    match shape {
        TokenShape::Maa => {
            let of = |claims: &Map<String, Value>, name| claims.get(name).and_then(Value::as_str).map(str::to_owned);
            let inner = claims.get("x-ms-isolation-tee").and_then(Value::as_object);
            let kind =
                inner.and_then(|inner| of(inner, "x-ms-attestation-type")).or(of(claims, "x-ms-attestation-type"));
            match kind.as_deref() {
                Some(kind @ ("sevsnpvm" | "tdxvm" | "sgx")) => Ok(format!("Azure's attestation service judged {kind}")),
                kind => {
                    let sentence = format!("the token is about {}, which is no TEE", kind.unwrap_or("nothing"));
                    Err(Refusal::new("attester", sentence))
                }
            }
        }
        TokenShape::Ear => affirmed(claims),
        TokenShape::Unknown => Err(Refusal::new("attester", "the token is neither an EAR nor one of Azure's service")),
    }
}

fn affirmed(claims: &Map<String, Value>) -> Result<String, Refusal> {
    let parts = claims.get("submods").and_then(Value::as_object);
    let parts = parts.filter(|parts| !parts.is_empty());
    let parts = parts.ok_or_else(|| Refusal::new("attester", "the EAR has no results"))?;
    for (name, part) in parts {
        let status = part.get("ear.status").unwrap_or(&Value::Null);
        // AR4SI: affirming is 2 in CBOR and in its own JSON, and a word in others.
        if !(status.as_str() == Some("affirming") || status.as_u64() == Some(2)) {
            let sentence = format!("the verifier's result for `{name}` is {status}, expected affirming");
            return Err(Refusal::new("ear-status", sentence));
        }
        let vector = part.get("ear.trustworthiness-vector").and_then(Value::as_object);
        let worst = vector
            .into_iter()
            .flatten()
            .find(|(_, value)| value.as_i64().is_some_and(|value| !(0..32).contains(&value)));
        if let Some((what, value)) = worst {
            let sentence = format!("the verifier affirms `{name}`, but its `{what}` is {value}");
            return Err(Refusal::new("ear-status", sentence));
        }
    }
    Ok(format!("the verifier affirms {} of {}", parts.len(), parts.len()))
}

/// A claim on the guest of SEV-SNP: at the top, or in `x-ms-isolation-tee`.
fn snp_claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let name = format!("x-ms-sevsnpvm-{name}");
    let inner = claims.get("x-ms-isolation-tee").and_then(Value::as_object);
    claims.get(&name).or_else(|| inner?.get(&name))
}

fn hex_claim(claims: &Map<String, Value>, name: &str) -> Option<String> {
    snp_claim(claims, name)?.as_str().map(str::to_ascii_lowercase)
}

fn is_debuggable(claims: &Map<String, Value>) -> Option<bool> {
    let found = snp_claim(claims, "is-debuggable").or_else(|| claims.get("x-ms-sgx-is-debuggable"));
    // What is no boolean is taken for the worse.
    found.map(|value| value.as_bool().unwrap_or(true))
}

/// The nonce: `eat_nonce` of an EAR, `nonce` of MAA or in what the guest bound (`x-ms-runtime`).
fn has_nonce(claims: &Map<String, Value>, nonce: &[u8]) -> Result<String, Refusal> {
    let runtime = claims.get("x-ms-runtime").and_then(Value::as_object);
    let client = runtime.and_then(|runtime| runtime.get("client-payload")).and_then(Value::as_object);
    let places = [
        claims.get("eat_nonce"),
        claims.get("nonce"),
        runtime.and_then(|runtime| runtime.get("nonce")),
        client.and_then(|client| client.get("nonce")),
    ];
    let texts: Vec<String> = places
        .into_iter()
        .flatten()
        .flat_map(|value| match value {
            Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Value::String(text) => vec![text.clone()],
            _ => Vec::new(),
        })
        .collect();
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    let spellings = [
        hex::encode(nonce),
        hex::encode_upper(nonce),
        STANDARD.encode(nonce),
        URL_SAFE.encode(nonce),
        URL_SAFE_NO_PAD.encode(nonce),
    ];
    let literal = std::str::from_utf8(nonce).ok();
    let is_it = |text: &String| spellings.contains(text) || literal == Some(text.as_str());
    if texts.iter().any(is_it) {
        return Ok("the token has the nonce".to_owned());
    }
    let found = if texts.is_empty() { "none".to_owned() } else { texts.join(", ") };
    Err(Refusal::new("nonce", format!("the nonce in the token is {found}, expected {}", hex::encode(nonce))))
}
