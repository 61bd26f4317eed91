//! The evidence file, format `caveau-evidence/1`: what a group proves itself with, as JSON.
//!
//! ```text
//! {
//!   "format": "caveau-evidence/1",
//!   "tee": "snp" | "emulated-snp",
//!   "report": base64 of the 1184 bytes,
//!   "certificates": { "vek", "intermediate", "root", "crl": base64 of DER; each may be left out },
//!   "runtime_data": base64 of what is bound into REPORT_DATA along with the nonce; may be left out,
//!   "policy": base64 of the policy's text; may be left out,
//!   "event_log": base64 of what the guest did (caveau-event-log/1), whose head is the runtime data; may be left out,
//!   "endorsements": a list of base64 of signed reference values (COSE_Sign1), which count where the verifier's owner trusts who
//!     signed them; may be left out,
//!   "reference_values": any JSON, for people: no verifier reads it; may be left out
//! }
//! ```
//! Everything in it is the sender's word. A field that is not known is an error.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caveau_cose::MAX_ENVELOPE_BYTES;
use caveau_snp::appraise::Attached;
use caveau_snp::event_log::MAX_EVENT_LOG_BYTES;
use caveau_snp::examine::Endorsed;
use serde::{Deserialize, Serialize};

use crate::certificates::Certificates;
use crate::reference_info::MAX_ENVELOPES;

/// Largest evidence file.
pub const MAX_EVIDENCE_BYTES: usize = 8 * 1024 * 1024;
const FORMAT: &str = "caveau-evidence/1";
const MAX_REPORT_BYTES: usize = 4096;
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
const MAX_CRL_BYTES: usize = 1024 * 1024;
const MAX_RUNTIME_BYTES: usize = 64 * 1024;
const MAX_POLICY_BYTES: usize = 4 * 1024 * 1024;

/// Evidence: bytes from anyone, in their places.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Which TEE the sender says it is.
    pub tee: Tee,
    /// The report.
    pub report: Vec<u8>,
    /// What endorses it.
    pub certificates: Certificates,
    /// What is bound into REPORT_DATA along with the nonce; empty where nothing is.
    pub runtime_data: Vec<u8>,
    /// The policy's text.
    pub policy: Option<Vec<u8>>,
    /// What the guest did: [`caveau_snp::event_log`].
    pub event_log: Option<Vec<u8>>,
    /// Signed reference values (COSE_Sign1), for [`crate::judge_signed_values`].
    pub endorsements: Vec<Vec<u8>>,
    /// What the sender says is expected: for people, never used in an appraisal.
    pub reference_values: Option<serde_json::Value>,
}

/// Kinds of TEE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tee {
    /// The software secure processor: no confidentiality.
    EmulatedSnp,
    /// AMD SEV-SNP.
    Snp,
}

/// Why a file is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A field is not base64.
    #[error("`{field}` is not standard base64 with padding")]
    Base64 {
        /// Which field.
        field: &'static str,
        /// Why.
        #[source]
        source: base64::DecodeError,
    },
    /// Another format.
    #[error("the evidence has format {0:?}, expected `{FORMAT}`: use a version of caveau that knows it")]
    Format(String),
    /// More than a file may have.
    #[error("`{field}` has {found} entries, at most {limit} are accepted")]
    TooMany {
        /// Which field.
        field: &'static str,
        /// How many it has.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// No JSON, or other JSON.
    #[error("failed to read the evidence: expected JSON of format {FORMAT}")]
    Json(#[source] serde_json::Error),
    /// Too long.
    #[error("`{field}` has {found} bytes, at most {limit} are accepted")]
    TooLong {
        /// Which field, or the file.
        field: &'static str,
        /// Its length.
        found: usize,
        /// The limit.
        limit: usize,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    tee: Tee,
    report: String,
    #[serde(default)]
    certificates: FileCertificates,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runtime_data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_log: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    endorsements: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference_values: Option<serde_json::Value>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCertificates {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vek: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intermediate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crl: Option<String>,
}

/// Only what tells formats apart.
#[derive(Deserialize)]
struct Versioned {
    format: String,
}

impl Evidence {
    /// A report and what endorses it, alone.
    #[must_use]
    pub const fn new(tee: Tee, report: Vec<u8>, certificates: Certificates) -> Self {
        Self {
            tee,
            report,
            certificates,
            runtime_data: Vec::new(),
            policy: None,
            event_log: None,
            endorsements: Vec::new(),
            reference_values: None,
        }
    }

    /// Reads an evidence file.
    ///
    /// # Errors
    /// [`EvidenceError`], when it is too long, of another format, or has a field that is unknown, missing or not base64.
    pub fn parse(json: &[u8]) -> Result<Self, EvidenceError> {
        bounded("the evidence", json.len(), MAX_EVIDENCE_BYTES)?;
        let Versioned { format } = serde_json::from_slice(json).map_err(EvidenceError::Json)?;
        if format != FORMAT {
            return Err(EvidenceError::Format(format.chars().take(64).collect()));
        }
        let file: File = serde_json::from_slice(json).map_err(EvidenceError::Json)?;
        let certificate = |field, text: Option<String>| decode_option(field, text, MAX_CERTIFICATE_BYTES);
        Ok(Self {
            tee: file.tee,
            report: decode("report", &file.report, MAX_REPORT_BYTES)?,
            certificates: Certificates {
                vek: certificate("certificates.vek", file.certificates.vek)?,
                intermediate: certificate("certificates.intermediate", file.certificates.intermediate)?,
                root: certificate("certificates.root", file.certificates.root)?,
                crl: decode_option("certificates.crl", file.certificates.crl, MAX_CRL_BYTES)?,
            },
            runtime_data: decode_option("runtime_data", file.runtime_data, MAX_RUNTIME_BYTES)?.unwrap_or_default(),
            policy: decode_option("policy", file.policy, MAX_POLICY_BYTES)?,
            event_log: decode_option("event_log", file.event_log, MAX_EVENT_LOG_BYTES)?,
            endorsements: endorsements(&file.endorsements)?,
            reference_values: file.reference_values,
        })
    }

    /// The evidence file's text, ending with a newline. It reads back equal.
    ///
    /// # Errors
    /// [`EvidenceError::TooLong`] or [`EvidenceError::Json`], when it could not be read back.
    pub fn to_json(&self) -> Result<String, EvidenceError> {
        let encode = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
        let runtime_data = Some(&self.runtime_data).filter(|data| !data.is_empty()).map(|data| STANDARD.encode(data));
        let file = File {
            format: FORMAT.to_owned(),
            tee: self.tee,
            report: STANDARD.encode(&self.report),
            certificates: FileCertificates {
                vek: encode(&self.certificates.vek),
                intermediate: encode(&self.certificates.intermediate),
                root: encode(&self.certificates.root),
                crl: encode(&self.certificates.crl),
            },
            runtime_data,
            policy: encode(&self.policy),
            event_log: encode(&self.event_log),
            endorsements: self.endorsements.iter().map(|envelope| STANDARD.encode(envelope)).collect(),
            reference_values: self.reference_values.clone(),
        };
        let mut text = serde_json::to_string_pretty(&file).map_err(EvidenceError::Json)?;
        text.push('\n');
        bounded("the evidence", text.len(), MAX_EVIDENCE_BYTES)?;
        Ok(text)
    }

    /// The parts that are examined.
    #[must_use]
    pub fn endorsed(&self) -> Endorsed<'_> {
        let Certificates { vek, intermediate, root, crl } = &self.certificates;
        Endorsed {
            report: &self.report,
            vek: vek.as_deref().unwrap_or_default(),
            intermediate: intermediate.as_deref().unwrap_or_default(),
            root: root.as_deref().unwrap_or_default(),
            crl: crl.as_deref(),
        }
    }

    /// What the report vouches for by its hash.
    #[must_use]
    pub fn attached(&self) -> Attached<'_> {
        Attached {
            runtime_data: &self.runtime_data,
            policy: self.policy.as_deref(),
            event_log: self.event_log.as_deref(),
        }
    }
}

fn endorsements(texts: &[String]) -> Result<Vec<Vec<u8>>, EvidenceError> {
    let field = "endorsements";
    if texts.len() > MAX_ENVELOPES {
        return Err(EvidenceError::TooMany { field, found: texts.len(), limit: MAX_ENVELOPES });
    }
    texts.iter().map(|text| decode(field, text, MAX_ENVELOPE_BYTES)).collect()
}

fn bounded(field: &'static str, found: usize, limit: usize) -> Result<(), EvidenceError> {
    if found <= limit { Ok(()) } else { Err(EvidenceError::TooLong { field, found, limit }) }
}

fn decode(field: &'static str, text: &str, limit: usize) -> Result<Vec<u8>, EvidenceError> {
    let bytes = STANDARD.decode(text).map_err(|source| EvidenceError::Base64 { field, source })?;
    bounded(field, bytes.len(), limit)?;
    Ok(bytes)
}

fn decode_option(field: &'static str, text: Option<String>, limit: usize) -> Result<Option<Vec<u8>>, EvidenceError> {
    text.map(|text| decode(field, &text, limit)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn parse(json: &str) -> Result<Evidence, EvidenceError> {
        Evidence::parse(json.as_bytes())
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        parse(r#"{"format":"caveau-evidence/1","tee":"snp","report":"AQ=="}"#).unwrap();
        for (json, expected) in [
            (r#"{"format":"caveau-evidence/2","tee":"snp","future":1}"#, "format \"caveau-evidence/2\""),
            ("{\"format\":\"caveau\\u001b[2J\"}", "format \"caveau\\u{1b}[2J\""),
            (r#"{"format":"caveau-evidence/1","tee":"tdx","report":""}"#, "failed to read"),
            (r#"{"format":"caveau-evidence/1","tee":"snp","report":"","root":""}"#, "failed to read"),
            (r#"{"format":"caveau-evidence/1","tee":"snp","tee":"snp","report":""}"#, "failed to read"),
            (r#"{"format":"caveau-evidence/1","tee":"snp","report":"AQ"}"#, "`report` is not standard base64"),
            (r#"{"format":"caveau-evidence/1","tee":"snp","report":"AR=="}"#, "`report` is not standard base64"),
            (r#"{"format":"caveau-evidence/1","tee":"snp","report":"","certificates":{"ark":""}}"#, "failed to read"),
            (r#"{"format":"caveau-evidence/1","tee":"snp","report":"","endorsements":["A"]}"#, "`endorsements` is not"),
            ("[]", "failed to read"),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
        let many = format!(
            r#"{{"format":"caveau-evidence/1","tee":"snp","report":"","endorsements":[""{}]}}"#,
            r#","""#.repeat(MAX_ENVELOPES)
        );
        assert!(parse(&many).unwrap_err().to_string().contains("`endorsements` has 17 entries, at most 16"));
        let long = format!(r#"{{"format":"caveau-evidence/1","tee":"snp","report":"{}"}}"#, "AAAA".repeat(2000));
        assert!(parse(&long).unwrap_err().to_string().contains("6000 bytes, at most 4096"));
        assert!(matches!(Evidence::parse(&vec![b' '; MAX_EVIDENCE_BYTES + 1]), Err(EvidenceError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn evidence_reads_back(
            report in vec(any::<u8>(), 0..1300),
            vek in option::of(vec(any::<u8>(), 0..50)),
            crl in option::of(vec(any::<u8>(), 0..50)),
            runtime_data in vec(any::<u8>(), 0..50),
            policy in option::of(vec(any::<u8>(), 0..50)),
            event_log in option::of(vec(any::<u8>(), 0..50)),
            endorsements in vec(vec(any::<u8>(), 0..50), 0..MAX_ENVELOPES),
            emulated: bool,
        ) {
            let evidence = Evidence {
                tee: if emulated { Tee::EmulatedSnp } else { Tee::Snp },
                report,
                certificates: Certificates { vek, crl, ..Certificates::default() },
                runtime_data,
                policy,
                event_log,
                endorsements,
                reference_values: Some(serde_json::json!({"kernel": "x"})),
            };
            prop_assert_eq!(parse(&evidence.to_json().unwrap()).unwrap(), evidence);
        }

        #[test]
        fn any_bytes_are_evidence_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
            let _ = Evidence::parse(&bytes);
        }
    }
}
