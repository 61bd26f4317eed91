//! Evidence of Azure's confidential VMs: the paravisor's report, whose claims have the key of the virtual TPM, and a quote of
//! that TPM.
//!
//! ```text
//! AMD's root ── … ── report: REPORT_DATA = hash ── claims (JSON): HCLAkPub ── TPM quote: nonce, digest ── registers (PCRs)
//! ```
//! The processor measures the paravisor (VMPL 0); what the VM itself runs is in the TPM's registers alone.
//!
//! Read from the JSON that attesters write: `hcl_report` (or `report`), `tpm_quote` (or `quote`) with `message`, `signature` and
//! `pcrs`, and `vcek` or `td_quote`; bytes in hexadecimal, base64, or as lists of numbers. It may stand in `evidence`.

mod hcl;
mod vtpm;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use caveau_dcap::Collateral;
use caveau_signature::Key;
use caveau_snp::Hex;
use caveau_snp::appraisal::{Appraisal, Kind};
use caveau_snp::appraise::{Attached, Expectations, Profile, appraise, not_appraised};
use caveau_snp::check::{Check, Refusal};
use caveau_snp::claims::{Claims, TeeClass};
use caveau_snp::examine::{Endorsed, Rules, examine, sha256};
use caveau_snp::time::Timestamp;
pub use hcl::{HclError, HclKind, HclReport};
use serde::{Deserialize, Serialize};
pub use vtpm::{TpmError, TpmQuote};

use crate::amd::Amd;
use crate::certificates::Certificates;
use crate::intel::verify_quote;
use crate::judgement::{Judgement, Subject};
use crate::pem;
use crate::verified::Verified;

/// Largest file of evidence of Azure's accepted.
const MAX_AZURE_BYTES: usize = 1024 * 1024;

/// Evidence of a confidential VM of Azure's: bytes from anyone, in their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AzureEvidence {
    /// The paravisor's report.
    pub hcl_report: Vec<u8>,
    /// The TPM's quote; `None` where the paravisor's report came alone.
    pub quote: Option<AzureQuote>,
    /// What endorses a report of SEV-SNP.
    pub certificates: Certificates,
    /// The quote of the trust domain, for TDX.
    pub td_quote: Option<Vec<u8>>,
    /// Collateral of the platform, for TDX.
    pub collateral: Collateral,
}

/// A quote of the virtual TPM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AzureQuote {
    /// TPMS_ATTEST.
    pub message: Vec<u8>,
    /// Its signature.
    pub signature: Vec<u8>,
    /// The registers' values: of the SHA-256 bank, or of those that were chosen.
    pub registers: Vec<Hex<32>>,
}

/// What authentic evidence of Azure's says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AzureClaims {
    /// The processor's claims: of the paravisor.
    pub processor: Processor,
    /// How the VM was set up, by the paravisor's word.
    pub vm_configuration: serde_json::Value,
    /// What the VM's owner put into the paravisor's report, hexadecimal.
    pub user_data: Option<String>,
    /// The nonce in the TPM's quote, hexadecimal.
    pub nonce: Option<String>,
    /// The TPM's registers that its quote is about.
    pub registers: BTreeMap<usize, Hex<32>>,
    /// How often the TPM was reset.
    pub resets: Option<u32>,
}

/// The processor under the paravisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Processor {
    /// SEV-SNP.
    Snp(Box<Claims>),
    /// TDX.
    Tdx(Box<caveau_dcap::Claims>),
}

/// What the owner expects beyond the processor's part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AzureExpectations {
    /// The nonce that was sent to the TPM.
    pub nonce: Option<Vec<u8>>,
    /// Values that registers must have.
    pub registers: Option<BTreeMap<usize, Hex<32>>>,
    /// What the paravisor must say of the VM's set-up: `secure-boot` for example.
    pub vm_configuration: BTreeMap<String, serde_json::Value>,
    /// Expectations of the processor, where it is SEV-SNP.
    pub snp: Expectations,
    /// Expectations of the processor, where it is TDX.
    pub tdx: caveau_dcap::Expectations,
}

/// Why a file is no evidence of Azure's.
#[derive(Debug, thiserror::Error)]
pub enum AzureError {
    /// Too long.
    #[error("the evidence has {0} bytes, at most {MAX_AZURE_BYTES} are accepted")]
    TooLong(usize),
    /// No JSON, or other JSON.
    #[error("failed to read the evidence: expected JSON with hcl_report and tpm_quote")]
    Json(#[source] serde_json::Error),
    /// A field whose bytes cannot be read.
    #[error("`{field}` is neither hexadecimal nor base64 of {what}")]
    Field {
        /// Which.
        field: &'static str,
        /// Of what it should be.
        what: &'static str,
    },
}

#[derive(Deserialize)]
struct File {
    #[serde(alias = "report")]
    hcl_report: Blob,
    #[serde(alias = "quote")]
    tpm_quote: Option<FileQuote>,
    vcek: Option<Blob>,
    #[serde(alias = "tdx_quote")]
    td_quote: Option<Blob>,
}

#[derive(Deserialize)]
struct FileQuote {
    message: Blob,
    signature: Blob,
    #[serde(default)]
    pcrs: Vec<Blob>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Blob {
    Text(String),
    Numbers(Vec<u8>),
}

impl Blob {
    /// Hexadecimal is tried before base64: whatever is both, attesters mean as hexadecimal.
    fn bytes(self, field: &'static str, what: &'static str) -> Result<Vec<u8>, AzureError> {
        let text = match self {
            Self::Numbers(bytes) => return Ok(bytes),
            Self::Text(text) => text,
        };
        if text.contains("-----BEGIN") {
            let der = pem::certificates(&text).and_then(|list| list.into_iter().next());
            return der.ok_or(AzureError::Field { field, what });
        }
        let digits = text.trim().trim_end_matches('=');
        let standard = || STANDARD.decode(text.trim()).ok();
        let bytes = hex::decode(digits).ok().or_else(|| URL_SAFE_NO_PAD.decode(digits).ok()).or_else(standard);
        bytes.ok_or(AzureError::Field { field, what })
    }
}

impl AzureEvidence {
    /// Reads evidence as attesters write it, or a paravisor's report alone.
    ///
    /// # Errors
    /// [`AzureError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, AzureError> {
        if bytes.len() > MAX_AZURE_BYTES {
            return Err(AzureError::TooLong(bytes.len()));
        }
        if HclReport::is_likely(bytes) {
            return Ok(Self { hcl_report: bytes.to_vec(), ..Self::default() });
        }
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(AzureError::Json)?;
        let inner = value.get("evidence").filter(|inner| inner.is_object()).cloned().unwrap_or(value);
        let file: File = serde_json::from_value(inner).map_err(AzureError::Json)?;
        let vek = file.vcek.map(|blob| blob.bytes("vcek", "a certificate")).transpose()?;
        Ok(Self {
            hcl_report: file.hcl_report.bytes("hcl_report", "a paravisor's report")?,
            quote: file.tpm_quote.map(FileQuote::read).transpose()?,
            certificates: Certificates { vek, ..Certificates::default() },
            td_quote: file.td_quote.map(|blob| blob.bytes("td_quote", "a quote")).transpose()?,
            collateral: Collateral::default(),
        })
    }

    /// The report of SEV-SNP in the paravisor's, where it is one: enough to look for its certificates.
    #[must_use]
    pub fn snp_report(&self) -> Option<&[u8]> {
        HclReport::parse(&self.hcl_report).ok().filter(|hcl| hcl.kind == HclKind::Snp).map(|hcl| hcl.report)
    }
}

impl FileQuote {
    fn read(self) -> Result<AzureQuote, AzureError> {
        let register = |blob: Blob| {
            let field = "tpm_quote.pcrs";
            let what = "32 bytes";
            blob.bytes(field, what)?.try_into().map(Hex).map_err(|_| AzureError::Field { field, what })
        };
        if self.pcrs.len() > vtpm::REGISTERS {
            return Err(AzureError::Field { field: "tpm_quote.pcrs", what: "at most 24 registers" });
        }
        Ok(AzureQuote {
            message: self.message.bytes("tpm_quote.message", "a TPM's quote")?,
            signature: self.signature.bytes("tpm_quote.signature", "a signature")?,
            registers: self.pcrs.into_iter().map(register).collect::<Result<_, _>>()?,
        })
    }
}

/// The claims of the paravisor.
#[derive(Deserialize)]
struct HclClaims {
    keys: Vec<Jwk>,
    #[serde(rename = "vm-configuration", default)]
    vm_configuration: serde_json::Value,
    #[serde(rename = "user-data")]
    user_data: Option<String>,
}

/// A key, JWK (RFC 7517).
#[derive(Deserialize)]
struct Jwk {
    kid: Option<String>,
    kty: String,
    #[serde(default)]
    key_ops: Vec<String>,
    n: Option<String>,
    e: Option<String>,
}

impl HclClaims {
    /// The TPM's attestation key: modulus and exponent.
    fn attestation_key(&self) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
        let mut named = self.keys.iter().filter(|key| key.kid.as_deref() == Some("HCLAkPub"));
        let (key, None) = (named.next(), named.next()) else {
            return Err(Refusal::new("vtpm-key", "the paravisor's claims have two keys named HCLAkPub"));
        };
        let key = key.ok_or_else(|| Refusal::new("vtpm-key", "the paravisor's claims lack the key HCLAkPub"))?;
        let number = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let may_sign = key.kty == "RSA" && key.key_ops == ["sign"];
        match (number(&key.n), number(&key.e)) {
            (Some(n), Some(e)) if may_sign => Ok((n, e)),
            _ => Err(Refusal::new("vtpm-key", "HCLAkPub in the paravisor's claims is no RSA key that signs")),
        }
    }
}

/// What [`verify_azure`] found.
#[derive(Clone, Debug)]
pub struct AzureVerification {
    /// Every check, in the order made.
    pub checks: Vec<Check>,
    /// The claims, where no check failed.
    pub verified: Option<Verified<AzureClaims>>,
}

/// Verifies that this evidence is of a confidential VM of Azure's: from the processor's root to the registers of its TPM.
#[must_use]
pub fn verify_azure(evidence: &AzureEvidence, rules: &Rules) -> AzureVerification {
    let parsed = HclReport::parse(&evidence.hcl_report);
    let hcl = match parsed {
        Ok(hcl) => hcl,
        Err(error) => {
            let check = Check::from_result("hcl-report", Err(Refusal::new("hcl-malformed", error.to_string())));
            return AzureVerification { checks: vec![check], verified: None };
        }
    };
    let name = if hcl.kind == HclKind::Snp { "SEV-SNP" } else { "TDX" };
    let mut checks = vec![Check::from_result("hcl-report", Ok(format!("a paravisor's report on {name}")))];
    let (report_data, processor) = processor(evidence, &hcl, &mut checks, rules);
    checks.push(Check::from_result("runtime-claims", bound(&hcl, report_data.as_ref())));
    let claims: Result<HclClaims, _> = serde_json::from_slice(hcl.claims);
    let key = match &claims {
        Ok(claims) => claims.attestation_key(),
        Err(error) => Err(Refusal::new("runtime-claims-malformed", format!("the paravisor's claims: {error}"))),
    };
    let sentence = "the paravisor's claims have the TPM's attestation key".to_owned();
    checks.push(Check::from_result("vtpm-key", key.as_ref().map(|_| sentence).map_err(Clone::clone)));
    let quote = vtpm_checks(evidence.quote.as_ref(), key.ok().as_ref(), &mut checks);
    let failed = checks.iter().any(Check::failed);
    let verified = match (processor, claims) {
        (Some(processor), Ok(claims)) if !failed => Some(Verified::new(AzureClaims {
            processor,
            vm_configuration: claims.vm_configuration,
            user_data: claims.user_data.filter(|data| data.chars().all(|c| c.is_ascii_hexdigit())),
            nonce: quote.as_ref().map(|(quote, _)| hex::encode(&quote.nonce)),
            registers: quote.as_ref().map(|(_, registers)| registers.iter().copied().collect()).unwrap_or_default(),
            resets: quote.as_ref().map(|(quote, _)| quote.resets),
        })),
        _ => None,
    };
    AzureVerification { checks, verified }
}

/// The processor's part: REPORT_DATA as far as it can be read, and the claims where they are authentic.
fn processor(
    evidence: &AzureEvidence,
    hcl: &HclReport<'_>,
    checks: &mut Vec<Check>,
    rules: &Rules,
) -> (Option<[u8; 64]>, Option<Processor>) {
    if hcl.kind == HclKind::Snp {
        let Certificates { vek, intermediate, root, crl } = &evidence.certificates;
        let endorsed = Endorsed {
            report: hcl.report,
            vek: vek.as_deref().unwrap_or_default(),
            intermediate: intermediate.as_deref().unwrap_or_default(),
            root: root.as_deref().unwrap_or_default(),
            crl: crl.as_deref(),
        };
        let (made, claims) = examine(&Amd, &endorsed, rules).into_parts();
        checks.extend(made);
        let report_data = caveau_snp::report::Report::parse(hcl.report).ok().map(|report| report.fields().report_data);
        return (report_data, claims.map(|claims| Processor::Snp(Box::new(claims))));
    }
    let Some(quote) = &evidence.td_quote else {
        let sentence =
            "the paravisor's report on TDX can be checked by the same machine alone: give the domain's quote";
        checks.push(Check::from_result("quote", Err(Refusal::new("quote-missing", sentence))));
        return (hcl.td_report_data().copied(), None);
    };
    let verification =
        verify_quote(quote, &evidence.collateral, &caveau_dcap::Rules { at: rules.at, require_crl: rules.require_crl });
    checks.extend(verification.checks);
    let report_data = caveau_dcap::Quote::parse(quote).ok().map(|quote| quote.body.report_data().0);
    (report_data, verification.verified.map(|claims| Processor::Tdx(Box::new(claims.into_inner()))))
}

fn bound(hcl: &HclReport<'_>, report_data: Option<&[u8; 64]>) -> Result<String, Refusal> {
    if report_data.is_some_and(|data| hcl.is_bound_by(data)) {
        return Ok("REPORT_DATA is the hash of the paravisor's claims".to_owned());
    }
    Err(Refusal::new("runtime-claims", "REPORT_DATA is not the hash of the paravisor's claims"))
}

/// The TPM's quote with the registers that it is about.
type QuotedRegisters = (TpmQuote, Vec<(usize, Hex<32>)>);

fn vtpm_checks(
    quote: Option<&AzureQuote>,
    key: Option<&(Vec<u8>, Vec<u8>)>,
    checks: &mut Vec<Check>,
) -> Option<QuotedRegisters> {
    const NAMES: [&str; 3] = ["vtpm-quote", "vtpm-signature", "vtpm-registers"];
    let [name, signature, registers] = NAMES;
    let Some(quote) = quote else {
        checks.extend(
            NAMES.map(|name| Check::skipped(name, "no quote of the TPM came along: what the VM runs is not told")),
        );
        return None;
    };
    let parsed =
        TpmQuote::parse(&quote.message).map_err(|error| Refusal::new("vtpm-quote-malformed", error.to_string()));
    let described = parsed.as_ref().map(|quote| format!("a quote of {} registers", quote.registers.len()));
    checks.push(Check::from_result(name, described.map_err(Clone::clone)));
    checks.push(match key {
        Some((n, e)) => {
            let key = Key::RsaNumbers { n, e };
            let holds = vtpm::is_signed(&quote.message, &quote.signature, &key);
            let broken = || Refusal::new("vtpm-signature", "the TPM's attestation key did not sign this quote");
            let sentence = "the TPM's attestation key signed the quote".to_owned();
            Check::from_result(signature, if holds { Ok(sentence) } else { Err(broken()) })
        }
        None => Check::skipped(signature, "the TPM's attestation key is not known"),
    });
    let Ok(parsed) = parsed else {
        checks.push(Check::skipped(registers, "the TPM's quote cannot be read"));
        return None;
    };
    if quote.registers.is_empty() {
        checks.push(Check::skipped(registers, "no values of the registers came along"));
        return Some((parsed, Vec::new()));
    }
    let holds = parsed.is_of(&quote.registers);
    let broken = || Refusal::new("vtpm-registers", "the registers' values are not those that the TPM quoted");
    let sentence = "the registers' values are those that the TPM quoted".to_owned();
    checks.push(Check::from_result(registers, if holds { Ok(sentence) } else { Err(broken()) }));
    let values = parsed.values(&quote.registers).filter(|_| holds)?;
    Some((parsed, values))
}

/// Checks of the processor's appraisal that have no meaning under the paravisor: REPORT_DATA is its own, HOST_DATA nobody's.
const NOT_UNDER_PARAVISOR: [&str; 4] = ["event-log", "nonce", "policy", "policy-text"];
/// The checks on what the VM runs.
const OF_VM: [&str; 3] = ["vm-configuration", "pcrs", "nonce"];

/// Verifies and appraises in one, for showing to people.
#[must_use]
pub fn judge_azure(
    evidence: &AzureEvidence,
    expected: &AzureExpectations,
    profile: Profile,
    at: Timestamp,
) -> Judgement {
    let verification = verify_azure(evidence, &expected.snp.rules(profile, at));
    let mut checks = verification.checks;
    let is_tdx = HclReport::parse(&evidence.hcl_report).is_ok_and(|hcl| hcl.kind == HclKind::Tdx);
    let appraised = match verification.verified.as_deref().map(|claims| &claims.processor) {
        Some(Processor::Snp(claims)) => appraise(claims, &Attached::default(), &expected.snp, profile),
        Some(Processor::Tdx(claims)) => caveau_dcap::appraise(claims, &expected.tdx, profile),
        None if is_tdx => caveau_dcap::not_appraised(None),
        None => not_appraised(),
    };
    checks.extend(appraised.into_iter().filter(|check| !NOT_UNDER_PARAVISOR.contains(&check.name)));
    match verification.verified.as_deref() {
        Some(claims) => checks.extend(of_vm(claims, expected)),
        None => checks.extend(OF_VM.map(|name| Check::skipped(name, "the evidence is not authentic"))),
    }
    let kind = if is_tdx { Kind::AzureTdxVm } else { Kind::AzureSnpVm };
    let claims = verification.verified.map(|claims| Subject::Azure(Box::new(claims.into_inner())));
    Appraisal::of(kind, (Some(TeeClass::Hardware), profile, at), sha256(&evidence.hcl_report), checks, claims)
}

fn of_vm(claims: &AzureClaims, expected: &AzureExpectations) -> Vec<Check> {
    let [configuration, pcrs, nonce] = OF_VM;
    let wrong = expected.vm_configuration.iter().find(|(name, value)| claims.vm_configuration.get(name) != Some(value));
    let configured = match wrong {
        Some((name, value)) => {
            let found = claims.vm_configuration.get(name).map_or("nothing".to_owned(), ToString::to_string);
            Err(Refusal::new("vm-configuration", format!("the VM's `{name}` is {found}, expected {value}")))
        }
        None => Ok("the VM is set up as expected".to_owned()),
    };
    let configured = if expected.vm_configuration.is_empty() {
        Check::not_applicable(configuration, "nothing is expected of the VM's set-up")
    } else {
        Check::from_result(configuration, configured)
    };
    let registers = match &expected.registers {
        None => Check::skipped(pcrs, "no values of the TPM's registers were given: any system may run in the VM"),
        Some(values) => Check::from_result(pcrs, registers_are(&claims.registers, values)),
    };
    let nonce = match (&expected.nonce, &claims.nonce) {
        (None, _) => Check::skipped(nonce, "no nonce was given: this evidence may be old"),
        (Some(expected), found) => Check::from_result(
            nonce,
            if found.as_deref() == Some(hex::encode(expected).as_str()) {
                Ok("the TPM's quote has the nonce".to_owned())
            } else {
                let found = found.as_deref().unwrap_or("none");
                let sentence = format!("the nonce in the TPM's quote is {found}, expected {}", hex::encode(expected));
                Err(Refusal::new("nonce", sentence))
            },
        ),
    };
    vec![configured, registers, nonce]
}

fn registers_are(found: &BTreeMap<usize, Hex<32>>, expected: &BTreeMap<usize, Hex<32>>) -> Result<String, Refusal> {
    for (register, value) in expected {
        let said = match found.get(register) {
            Some(found) if found == value => continue,
            Some(found) => found.to_string(),
            None => "not quoted".to_owned(),
        };
        return Err(Refusal::new("pcrs", format!("PCR {register} is {said}, expected {value}")));
    }
    Ok(format!("{} of the TPM's registers are as expected", expected.len()))
}
