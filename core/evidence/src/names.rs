//! Claims by others' names: as Azure's attestation service has them (`x-ms-sevsnpvm-…`), and as EAT attestation results (EAR,
//! draft-ietf-rats-ear and -ar4si). Unsigned: whoever signs them vouches for the judgement.

use caveau_snp::Hex;
use caveau_snp::appraisal::Outcome;
use caveau_snp::check::Verdict;
use caveau_snp::claims::{Claims, TeeClass};
use caveau_snp::report::SigningKey;
use serde_json::{Map, Value, json};

use crate::judgement::{Judgement, Subject};

/// What `x-ms-attestation-type` is for a guest of SEV-SNP.
const HARDWARE_TYPE: &str = "sevsnpvm";
/// What it is for an emulated one: none that a consumer of Azure's claims knows.
const EMULATED_TYPE: &str = "emulated-sevsnpvm";
/// Stands, and is true, in every set of claims on an emulated guest.
const EMULATED_MARKER: &str = "x-caveau-emulated";
/// The class in an EAR.
const EAR_CLASS: &str = "caveau.tee-class";
const SOFTWARE: &str = "software";

/// Whether claims are marked as these functions mark those on an emulated guest.
pub(crate) fn is_marked_emulated(claims: &Map<String, Value>) -> bool {
    let is_marked = |claims: &Map<String, Value>| {
        claims.get(EMULATED_MARKER).is_some_and(|marker| *marker != Value::Bool(false))
            || claims.get("x-ms-attestation-type").is_some_and(|kind| kind == EMULATED_TYPE)
            || claims.get(EAR_CLASS).is_some_and(|class| class == SOFTWARE)
    };
    is_marked(claims) || claims.get("x-ms-isolation-tee").and_then(Value::as_object).is_some_and(is_marked)
}

/// The claims on a guest of SEV-SNP by the names of Azure's attestation service. Those on an emulated guest are of another
/// type (`emulated-sevsnpvm`), which a consumer made for hardware refuses, and have a marker (`x-caveau-emulated`).
#[must_use]
pub fn azure_claims(claims: &Claims) -> Map<String, Value> {
    let policy = claims.guest_policy;
    let tcb = claims.reported_tcb;
    let digest = |digest: Option<Hex<48>>| digest.unwrap_or(Hex([0; 48])).to_string();
    let mut out = Map::new();
    let emulated = claims.tee_class == TeeClass::Emulated;
    let kind = if emulated { EMULATED_TYPE } else { HARDWARE_TYPE };
    out.insert("x-ms-attestation-type".to_owned(), kind.into());
    if emulated {
        out.insert(EMULATED_MARKER.to_owned(), true.into());
    }
    for (name, value) in [
        ("authorkeydigest", json!(digest(claims.author_key_digest))),
        ("bootloader-svn", json!(tcb.bootloader)),
        ("chip-family", json!(claims.product.name())),
        ("chipid", json!(claims.chip_id.unwrap_or(Hex([0; 64])))),
        ("familyId", json!(claims.family_id)),
        ("guestsvn", json!(claims.guest_svn)),
        ("hostdata", json!(claims.host_data)),
        ("idkeydigest", json!(digest(claims.id_key_digest))),
        ("imageId", json!(claims.image_id)),
        ("is-debuggable", json!(policy.debug_allowed())),
        ("launchmeasurement", json!(claims.measurement)),
        ("microcode-svn", json!(tcb.microcode)),
        ("migration-allowed", json!(policy.migration_agent_allowed())),
        ("reportdata", json!(claims.report_data)),
        ("reportid", json!(claims.report_id)),
        ("smt-allowed", json!(policy.smt_allowed())),
        ("snpfw-svn", json!(tcb.snp)),
        ("tee-svn", json!(tcb.tee)),
        ("vmpl", json!(claims.vmpl)),
    ] {
        out.insert(format!("x-ms-sevsnpvm-{name}"), value);
    }
    out
}

/// AR4SI's values: affirming, warning, contraindicated (draft-ietf-rats-ar4si, 2.3).
const NO_CLAIM: i8 = 0;
const AFFIRMED: i8 = 2;
/// Of hardware: genuine, with known holes. Of storage: its keys are software's.
const UNSAFE: i8 = 32;
const CONTRAINDICATED: i8 = 96;
const UNRECOGNISED: i8 = 97;

/// A name for what was asked of the evidence: the profile, and the file that was held beside it.
fn policy_id(judgement: &Judgement, appraisal_policy: Option<&str>) -> String {
    let profile = json!(judgement.profile);
    let profile = profile.as_str().unwrap_or_default();
    match appraisal_policy {
        Some(digest) => format!("urn:caveau:profile:{profile}:appraisal-policy:sha256:{digest}"),
        None => format!("urn:caveau:profile:{profile}"),
    }
}

/// The judgement as an EAR's claims. The appraisal's own checks stand in `caveau.checks`. `appraisal_policy` is the SHA-256,
/// hexadecimal, of the appraisal policy's file where one was used: part of the policy's name, and a claim of its own.
#[must_use]
pub fn ear(judgement: &Judgement, appraisal_policy: Option<&str>) -> Value {
    let emulated = judgement.tee_class == Some(TeeClass::Emulated);
    let status = match judgement.outcome {
        _ if emulated => "contraindicated",
        Outcome::Passed => "affirming",
        Outcome::AuthenticNotAppraised => "warning",
        Outcome::Refused => "contraindicated",
    };
    let check = |names: &[&str]| {
        let of = judgement.checks.iter().filter(|check| names.contains(&check.name));
        of.fold(NO_CLAIM, |worst, check| match check.verdict {
            Verdict::Ok => worst.max(AFFIRMED),
            Verdict::Failed => CONTRAINDICATED,
            Verdict::NotApplicable | Verdict::Skipped => worst,
        })
    };
    let authentic = judgement.claims.is_some();
    let hardware = match (emulated, authentic, check(&["minimum-tcb", "minimum-firmware", "tcb-status"])) {
        (true, ..) => UNRECOGNISED,
        (_, false, _) => CONTRAINDICATED,
        (_, true, CONTRAINDICATED) => UNSAFE,
        _ => AFFIRMED,
    };
    let opaque = match (emulated, authentic) {
        (true, _) | (_, false) => CONTRAINDICATED,
        _ if check(&["debug"]) == CONTRAINDICATED => CONTRAINDICATED,
        _ => AFFIRMED,
    };
    let instance = match &judgement.claims {
        Some(Subject::Snp(claims)) if claims.signing_key == SigningKey::Vcek && claims.chip_id.is_some() => AFFIRMED,
        Some(_) => NO_CLAIM,
        None => CONTRAINDICATED,
    };
    let vector = json!({
        "instance-identity": if emulated { UNRECOGNISED } else { instance },
        "configuration": check(&["guest-policy", "policy", "platform-info", "td-attributes", "vm-configuration"]),
        "executables": check(&["measurement", "pcrs"]),
        "hardware": hardware,
        "runtime-opaque": opaque,
        "storage-opaque": if emulated { UNSAFE } else { NO_CLAIM },
    });
    let native = judgement.claims.as_ref().map_or(Value::Null, |claims| json!(claims));
    let of_snp = judgement.claims.as_ref().and_then(Subject::snp);
    let mut part = json!({
        "ear.status": status,
        "ear.trustworthiness-vector": vector,
        "ear.appraisal-policy-id": policy_id(judgement, appraisal_policy),
        "caveau.appraisal-policy-sha256": appraisal_policy,
        "caveau.claims": native,
        "caveau.checks": judgement.checks,
    });
    if let (Some(claims), Some(fields)) = (of_snp, part.as_object_mut()) {
        fields.insert("ear.veraison.annotated-evidence".to_owned(), Value::Object(azure_claims(claims)));
    }
    let class = match judgement.tee_class {
        Some(TeeClass::Emulated) => SOFTWARE,
        Some(TeeClass::Hardware) => "hardware",
        None => "unknown",
    };
    json!({
        "eat_profile": "tag:github.com,2023:veraison/ear",
        "iat": judgement.at.unix(),
        "ear.verifier-id": { "developer": "caveau", "build": env!("CARGO_PKG_VERSION") },
        EAR_CLASS: class,
        "caveau.evidence-sha256": judgement.report_sha256,
        "submods": { json!(judgement.kind).as_str().unwrap_or("evidence"): part },
    })
}
