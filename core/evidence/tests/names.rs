//! Judgements of hardware's evidence by others' names: Azure's claims and EAR. Those of emulated evidence: `core/emulated`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use crate::fixtures::Fixtures;
use caveau_evidence::{
    Evidence, Expectations, ExpectedReportData, Judgement, Outcome, Profile, Subject, TeeClass, azure_claims, ear,
    judge, snp_judgement, verify,
};
use serde_json::json;

fn judged(evidence: &Evidence, expected: &Expectations) -> Judgement {
    snp_judgement(judge(evidence, expected, Profile::Baseline, "2026-11-23".parse().unwrap()))
}

/// What the report says itself: an owner who expects just that.
fn as_it_is(evidence: &Evidence) -> Expectations {
    let rules = Profile::Baseline.rules("2026-11-23".parse().unwrap());
    let claims = verify(evidence, &rules).verified.unwrap();
    Expectations {
        report_data: Some(ExpectedReportData::Exact(claims.report_data)),
        policy_digest: Some(claims.host_data),
        measurements: Some(vec![claims.measurement]),
        ..Expectations::default()
    }
}

#[test]
fn hardware_that_is_as_expected_is_affirmed() {
    let Some(fixtures) = Fixtures::open() else { return };
    let evidence = fixtures.report("milan-v3-aci", "milan");
    let judgement = judged(&evidence, &as_it_is(&evidence));
    assert_eq!(judgement.outcome, Outcome::Passed, "{}", judgement.summary);
    let ear = ear(&judgement, None);
    assert_eq!(ear["caveau.tee-class"], "hardware");
    let part = &ear["submods"]["snp-report"];
    assert_eq!(part["ear.status"], "affirming");
    let vector = json!({
        "instance-identity": 2, "configuration": 2, "executables": 2, "hardware": 2, "runtime-opaque": 2,
        "storage-opaque": 0,
    });
    assert_eq!(part["ear.trustworthiness-vector"], vector);
    let claims = azure_claims(judgement.claims.as_ref().and_then(Subject::snp).unwrap());
    assert_eq!(claims["x-ms-attestation-type"], "sevsnpvm");
    assert!(!claims.keys().any(|name| name.contains("emulated")));
    assert_eq!(part["ear.veraison.annotated-evidence"], json!(claims));
}

#[test]
fn hardware_that_is_not_as_expected_is_still_hardware() {
    let Some(fixtures) = Fixtures::open() else { return };
    let evidence = fixtures.report("milan-v3-aci", "milan");
    let bare = ear(&judged(&evidence, &Expectations::default()), None);
    assert_eq!(
        (&bare["submods"]["snp-report"]["ear.status"], &bare["caveau.tee-class"]),
        (&json!("warning"), &json!("hardware"))
    );
    let other = Expectations { measurements: Some(vec![caveau_evidence::Hex([9; 48])]), ..as_it_is(&evidence) };
    let refused = ear(&judged(&evidence, &other), None);
    let part = &refused["submods"]["snp-report"];
    assert_eq!((&part["ear.status"], &refused["caveau.tee-class"]), (&json!("contraindicated"), &json!("hardware")));
    assert_eq!(part["ear.trustworthiness-vector"]["executables"], 96);
    assert_eq!(part["ear.trustworthiness-vector"]["hardware"], 2);
}

/// What nothing vouches for is of no class.
#[test]
fn what_is_not_authentic_is_not_called_hardware() {
    let Some(fixtures) = Fixtures::open() else { return };
    let mut evidence = fixtures.report("milan-v3-aci", "milan");
    let expected = as_it_is(&evidence);
    evidence.report[0x90] ^= 1;
    let judgement = judged(&evidence, &expected);
    assert_eq!((judgement.outcome, judgement.tee_class), (Outcome::Refused, None));
    assert_eq!(serde_json::to_value(&judgement).unwrap()["tee_class"], json!(null));
    let ear = ear(&judgement, None);
    assert_eq!(ear["caveau.tee-class"], "unknown");
    let part = &ear["submods"]["snp-report"];
    assert_eq!(
        (&part["ear.status"], &part["ear.trustworthiness-vector"]["hardware"]),
        (&json!("contraindicated"), &json!(96))
    );
    assert_eq!(part.get("ear.veraison.annotated-evidence"), None);
    evidence.report[0x90] ^= 1;
    assert_eq!(judged(&evidence, &expected).tee_class, Some(TeeClass::Hardware));
}

/// Who reads the result can tell by which rules it was made.
#[test]
fn the_appraisal_policy_is_named_with_its_digest() {
    let Some(fixtures) = Fixtures::open() else { return };
    let judgement = judged(&fixtures.report("milan-v3-aci", "milan"), &Expectations::default());
    let without = ear(&judgement, None);
    let part = &without["submods"]["snp-report"];
    assert_eq!(part["ear.appraisal-policy-id"], "urn:caveau:profile:baseline");
    assert_eq!(part["caveau.appraisal-policy-sha256"], json!(null));
    let digest = "5c".repeat(32);
    let with = ear(&judgement, Some(&digest));
    let part = &with["submods"]["snp-report"];
    let id = format!("urn:caveau:profile:baseline:appraisal-policy:sha256:{digest}");
    assert_eq!(
        (&part["ear.appraisal-policy-id"], &part["caveau.appraisal-policy-sha256"]),
        (&json!(id), &json!(digest))
    );
}
