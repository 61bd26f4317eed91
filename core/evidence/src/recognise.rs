//! What a file is: evidence comes in many forms, and whoever has some need not know which.
//!
//! Recognised by what is in it, never by its name. What is in it may itself be in hexadecimal or base64, once.
//!
//! | kind | form |
//! |---|---|
//! | a group's evidence | JSON of format `caveau-evidence/1` |
//! | a report of SEV-SNP | its 1184 bytes; with a certificate table after it; as the firmware's answer, with its status before it |
//! | a bundle of ACI | JSON with report, certificates and endorsements of its reference values: as sent to Azure's attestation service (`SnpReport`, `VcekCertChain`, `Endorsements`; also in `report`), or as a sidecar gives it (`attestation` or `quote`, `platform_certificates` or `endorsements`, `uvm_endorsements`) |
//! | evidence of Confidential Containers on SEV-SNP | JSON with `attestation_report`, field by field, and `cert_chain` |
//! | a confidential VM of Azure's | a paravisor's report (`HCLA…`), or JSON with `hcl_report` and `tpm_quote` |
//! | a quote of SGX or TDX | its bytes, or JSON with `quote` (and `collateral`) |
//! | a token | JWT, or JSON with `token` |

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use caveau_cose::Envelope;
use caveau_dcap::{Collateral, Quote};
use caveau_snp::report::REPORT_BYTES;
use serde_json::{Map, Value};

use crate::azure::{AzureEvidence, HclReport};
use crate::causes::with_causes;
use crate::certificates::Certificates;
use crate::coco;
use crate::file::{Evidence, MAX_EVIDENCE_BYTES, Tee};
use crate::reference_info::ReferenceInfo;
use crate::token::Token;

/// Evidence of some kind, or what goes along with evidence.
#[derive(Clone, Debug)]
pub enum AnyEvidence {
    /// A confidential VM of Azure's.
    Azure(Box<AzureEvidence>),
    /// Certificates or revocation lists of SEV-SNP alone.
    Certificates(Certificates),
    /// Collateral of Intel's alone.
    Collateral(Box<Collateral>),
    /// A quote of SGX or TDX, with the collateral that came along.
    Quote(Vec<u8>, Box<Collateral>),
    /// A report of SEV-SNP: a group's evidence, a report alone, a bundle of ACI, or evidence of Confidential Containers.
    Snp(Box<SnpBundle>),
    /// Signed reference values alone (COSE_Sign1).
    SignedValues(Vec<u8>),
    /// A token.
    Token(Box<Token>),
}

/// A report of SEV-SNP with what came along.
#[derive(Clone, Debug)]
pub struct SnpBundle {
    /// The form in words.
    pub form: &'static str,
    /// Report, certificates, policy, and signed reference values.
    pub evidence: Evidence,
}

/// Why a file is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum NotRecognised {
    /// A form that was recognised, and is broken.
    #[error("this looks like {what}, and is not: {why}")]
    Broken {
        /// Like what.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// Too long.
    #[error("the evidence has {0} bytes, at most {MAX_EVIDENCE_BYTES} are accepted")]
    TooLong(usize),
    /// None of the forms.
    #[error(
        "this is no evidence that is known: expected evidence of caveau, a report of SEV-SNP (1184 bytes), a paravisor's \
         report or evidence of Azure's, a quote of SGX or TDX, or a token"
    )]
    Unknown,
}

fn broken(what: &'static str) -> impl Fn(&dyn std::error::Error) -> NotRecognised {
    move |error| NotRecognised::Broken { what, why: with_causes(error) }
}

/// Recognises evidence.
///
/// # Errors
/// [`NotRecognised`].
pub fn recognise(bytes: &[u8]) -> Result<AnyEvidence, NotRecognised> {
    recognise_at(bytes, true)
}

fn recognise_at(bytes: &[u8], may_be_text: bool) -> Result<AnyEvidence, NotRecognised> {
    if bytes.len() > MAX_EVIDENCE_BYTES {
        return Err(NotRecognised::TooLong(bytes.len()));
    }
    if HclReport::is_likely(bytes) {
        let evidence = AzureEvidence::parse(bytes).map_err(|error| broken("a paravisor's report")(&error))?;
        return Ok(AnyEvidence::Azure(Box::new(evidence)));
    }
    if Quote::is_likely(bytes) {
        return Ok(AnyEvidence::Quote(bytes.to_vec(), Box::default()));
    }
    if let Some(bundle) = raw_report(bytes) {
        return Ok(AnyEvidence::Snp(Box::new(bundle)));
    }
    let text = std::str::from_utf8(bytes).ok().map(str::trim).filter(|text| !text.is_empty());
    match text {
        Some(text) if text.starts_with('{') => of_json(text),
        Some(text) if text.starts_with('[') || text.starts_with('"') => Err(NotRecognised::Unknown),
        Some(text) if Token::is_likely(text) => of_token(text),
        Some(text) if may_be_text && !text.contains("-----BEGIN") => match decoded(text) {
            Some(inner) => recognise_at(&inner, false),
            None => Err(NotRecognised::Unknown),
        },
        _ => parts(bytes),
    }
}

/// A report alone; with its certificate table after it; or as the firmware answers it, its status and length before it.
fn raw_report(bytes: &[u8]) -> Option<SnpBundle> {
    const ANSWER: [usize; 2] = [0x20 + REPORT_BYTES, 4000];
    let number = |at: usize| bytes.get(at..)?.first_chunk().map(|number| u32::from_le_bytes(*number));
    let bundle = |form, report: &[u8], certificates| SnpBundle {
        form,
        evidence: Evidence::new(Tee::Snp, report.to_vec(), certificates),
    };
    if bytes.len() == REPORT_BYTES {
        return Some(bundle("a report of SEV-SNP", bytes, Certificates::default()));
    }
    if ANSWER.contains(&bytes.len()) && number(0) == Some(0) && number(4) == u32::try_from(REPORT_BYTES).ok() {
        let report = bytes.get(0x20..)?.get(..REPORT_BYTES)?;
        return Some(bundle("the firmware's answer with a report of SEV-SNP", report, Certificates::default()));
    }
    let (report, table) = bytes.split_at_checked(REPORT_BYTES)?;
    let looks_like_one = matches!(number(0), Some(1..=9)) && number(0x34) == Some(1);
    let certificates = Certificates::from_table(table).ok().filter(|_| looks_like_one)?;
    Some(bundle("a report of SEV-SNP with its certificate table", report, certificates))
}

/// Certificates, lists, collateral or signed reference values alone.
fn parts(bytes: &[u8]) -> Result<AnyEvidence, NotRecognised> {
    if let Ok(certificates) = Certificates::from_file(bytes) {
        return Ok(AnyEvidence::Certificates(certificates));
    }
    if let Ok(collateral) = Collateral::parse(bytes) {
        return Ok(AnyEvidence::Collateral(Box::new(collateral)));
    }
    if Envelope::parse(bytes).is_ok_and(|envelope| ReferenceInfo::parse(envelope.payload()).is_ok()) {
        return Ok(AnyEvidence::SignedValues(bytes.to_vec()));
    }
    Err(NotRecognised::Unknown)
}

fn of_token(text: &str) -> Result<AnyEvidence, NotRecognised> {
    let token = Token::parse(text).map_err(|error| broken("a token")(&error))?;
    Ok(AnyEvidence::Token(Box::new(token)))
}

fn of_json(text: &str) -> Result<AnyEvidence, NotRecognised> {
    let fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| broken("JSON")(&error))?;
    let has = |name: &str| fields.contains_key(name);
    let format = fields.get("format").and_then(Value::as_str).unwrap_or_default();
    if format.starts_with("caveau-evidence/") {
        let evidence = Evidence::parse(text.as_bytes()).map_err(|error| broken("evidence of caveau")(&error))?;
        let bundle = SnpBundle { form: "evidence of caveau", evidence };
        return Ok(AnyEvidence::Snp(Box::new(bundle)));
    }
    let inner = fields.get("evidence").and_then(Value::as_object);
    let is_azure = |fields: &Map<String, Value>| {
        fields.contains_key("hcl_report") || (fields.contains_key("report") && fields.contains_key("quote"))
    };
    if is_azure(&fields) || inner.is_some_and(is_azure) {
        let evidence = AzureEvidence::parse(text.as_bytes()).map_err(|error| broken("evidence of Azure's")(&error))?;
        return Ok(AnyEvidence::Azure(Box::new(evidence)));
    }
    if let Some(token) = fields.get("token").and_then(Value::as_str) {
        return of_token(token);
    }
    if coco::is_likely(&fields) {
        const WHAT: &str = "evidence of Confidential Containers on SEV-SNP";
        let evidence = coco::parse(text).map_err(|error| broken(WHAT)(&error))?;
        return Ok(AnyEvidence::Snp(Box::new(SnpBundle { form: WHAT, evidence })));
    }
    if let Some(bundle) = aci_bundle(&fields)? {
        return Ok(AnyEvidence::Snp(Box::new(bundle)));
    }
    let nested = inner.or(fields.get("tdx").and_then(Value::as_object)).unwrap_or(&fields);
    if let Some(quote) = nested.get("quote").and_then(bytes_of).filter(|bytes| Quote::is_likely(bytes)) {
        let collateral = fields.get("collateral").map(|value| Collateral::parse(value.to_string().as_bytes()));
        let collateral = collateral.transpose().map_err(|error| broken("a quote with collateral")(&error))?;
        return Ok(AnyEvidence::Quote(quote, Box::new(collateral.unwrap_or_default())));
    }
    if has("vcekCert") {
        let certificates =
            Certificates::from_thim(text.as_bytes()).map_err(|error| broken("a host's certificates")(&error))?;
        return Ok(AnyEvidence::Certificates(certificates));
    }
    match Collateral::parse(text.as_bytes()) {
        Ok(collateral) => Ok(AnyEvidence::Collateral(Box::new(collateral))),
        Err(_) => Err(NotRecognised::Unknown),
    }
}

/// A bundle of ACI; `None` where it is none.
fn aci_bundle(fields: &Map<String, Value>) -> Result<Option<SnpBundle>, NotRecognised> {
    const WHAT: &str = "a bundle of ACI";
    let missing = |what: &str| NotRecognised::Broken { what: WHAT, why: format!("{what} cannot be read") };
    // As sent to Azure's attestation service: `report` is the base64url of the inner JSON.
    let outer = fields.get("report").and_then(Value::as_str).and_then(decoded);
    let inner: Option<Map<String, Value>> = outer.as_deref().and_then(|json| serde_json::from_slice(json).ok());
    let of = inner.as_ref().unwrap_or(fields);
    if let Some(report) = of.get("SnpReport") {
        let report = bytes_of(report).ok_or_else(|| missing("SnpReport"))?;
        let chain = of.get("VcekCertChain").map(|chain| bytes_of(chain).ok_or_else(|| missing("VcekCertChain")));
        let certificates = chain.transpose()?.map(|chain| Certificates::from_file(&chain)).transpose();
        let certificates = certificates.map_err(|error| broken(WHAT)(&error))?.unwrap_or_default();
        let endorsements = of.get("Endorsements").and_then(bytes_of).and_then(|json| {
            let value: Value = serde_json::from_slice(&json).ok()?;
            value.get("Uvm")?.as_array().map(|list| list.iter().filter_map(bytes_of).collect())
        });
        let mut evidence = Evidence::new(Tee::Snp, report, certificates);
        let runtime = fields.get("runtimeData").and_then(|data| data.get("data")).and_then(bytes_of);
        evidence.runtime_data = runtime.unwrap_or_default();
        evidence.endorsements = endorsements.unwrap_or_default();
        return Ok(Some(SnpBundle { form: WHAT, evidence }));
    }
    let first = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)).and_then(bytes_of);
    let Some(report) = first(&["attestation", "quote", "raw"]).filter(|report| report.len() == REPORT_BYTES) else {
        return Ok(None);
    };
    let certificates = first(&["platform_certificates", "endorsements"]).map(|file| Certificates::from_file(&file));
    let certificates = certificates.transpose().map_err(|error| broken(WHAT)(&error))?.unwrap_or_default();
    let mut evidence = Evidence::new(Tee::Snp, report, certificates);
    evidence.endorsements = first(&["uvm_endorsements"]).into_iter().collect();
    evidence.policy = first(&["security_policy", "policy"]);
    Ok(Some(SnpBundle { form: WHAT, evidence }))
}

/// The bytes in a value: a list of numbers, or text in hexadecimal or base64; PEM and JSON as they are.
fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Array(list) => list.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect(),
        Value::String(text) if text.contains("-----BEGIN") || text.trim_start().starts_with('{') => {
            Some(text.clone().into_bytes())
        }
        Value::String(text) => decoded(text),
        _ => None,
    }
}

/// Text in hexadecimal or one of the forms of base64, white space left out. What could be both is hexadecimal.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.split_ascii_whitespace().collect();
    let digits = digits.strip_prefix("0x").unwrap_or(&digits);
    let engines = [&STANDARD, &URL_SAFE, &STANDARD_NO_PAD, &URL_SAFE_NO_PAD];
    let decode = || engines.iter().find_map(|engine| engine.decode(digits).ok());
    hex::decode(digits).ok().or_else(decode).filter(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use caveau_snp::report::{ReportFields, Signature, set_signature};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    fn report() -> Vec<u8> {
        let mut report = ReportFields::empty().to_unsigned();
        set_signature(&mut report, &Signature { r: [1; 48], s: [2; 48] });
        report.to_vec()
    }

    fn bundle(bytes: &[u8]) -> SnpBundle {
        match recognise(bytes) {
            Ok(AnyEvidence::Snp(bundle)) => *bundle,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_report_is_recognised_in_each_of_its_forms() {
        let raw = report();
        let answer = [&[0, 0, 0, 0, 0xa0, 4, 0, 0][..], &[0; 24], &raw].concat();
        let long_answer = [&answer[..], &vec![0; 4000 - answer.len()]].concat();
        let with_table = [&raw[..], &[0; 24]].concat();
        let forms = [
            raw.clone(),
            answer,
            long_answer,
            with_table,
            hex::encode(&raw).into_bytes(),
            STANDARD.encode(&raw).into_bytes(),
            URL_SAFE_NO_PAD.encode(&raw).into_bytes(),
        ];
        for form in forms {
            assert_eq!(bundle(&form).evidence.report, raw);
        }
    }

    #[test]
    fn bundles_are_recognised() {
        let raw = report();
        let inner = json!({
            "SnpReport": URL_SAFE_NO_PAD.encode(&raw),
            "VcekCertChain": URL_SAFE_NO_PAD.encode("-----BEGIN X-----\n-----END X-----"),
            "Endorsements": URL_SAFE_NO_PAD.encode(json!({ "Uvm": [URL_SAFE_NO_PAD.encode([0xd2, 1])] }).to_string()),
        });
        let outer = json!({ "report": URL_SAFE_NO_PAD.encode(inner.to_string()), "nonce": "1" });
        let broken = recognise(outer.to_string().as_bytes()).unwrap_err().to_string();
        assert!(broken.contains("a bundle of ACI") && broken.contains("neither a certificate"), "{broken}");
        let mut without = inner;
        without.as_object_mut().unwrap().remove("VcekCertChain");
        let found = bundle(without.to_string().as_bytes());
        assert_eq!((found.evidence.report, found.evidence.endorsements), (raw.clone(), vec![vec![0xd2, 1]]));
        let sidecar = json!({ "attestation": STANDARD.encode(&raw), "uvm_endorsements": STANDARD.encode([0xd2]) });
        assert_eq!(bundle(sidecar.to_string().as_bytes()).evidence.endorsements, [[0xd2]]);
    }

    #[test]
    fn what_is_not_recognised_is_told() {
        for (text, said) in [
            ("", "no evidence that is known"),
            ("hello", "no evidence that is known"),
            ("{}", "no evidence that is known"),
            ("{", "looks like JSON"),
            ("[]", "no evidence that is known"),
            (r#"{"format":"caveau-evidence/9"}"#, "looks like evidence of caveau"),
            ("HCLA", "no evidence"),
            ("eyJ9.eyJ9.AA", "looks like a token"),
            (r#"{"hcl_report":1}"#, "looks like evidence of Azure's"),
        ] {
            let error = recognise(text.as_bytes());
            // A paravisor's report alone is for its verifier to refuse.
            let Err(error) = error else {
                assert_eq!(text, "HCLA");
                continue;
            };
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_something_or_an_error(bytes in vec(any::<u8>(), 0..1300)) {
            let _ = recognise(&bytes);
        }

        #[test]
        fn any_json_is_something_or_an_error(
            name in "(report|quote|hcl_report|evidence|token|attestation|SnpReport|collateral|vcekCert|tcbInfo)",
            value in "[ -~]{0,40}",
        ) {
            let _ = recognise(json!({ name.clone(): value }).to_string().as_bytes());
            let _ = recognise(json!({ name.clone(): { name: value } }).to_string().as_bytes());
        }
    }
}
