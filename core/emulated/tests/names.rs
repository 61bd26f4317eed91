//! Judgements of emulated evidence by others' names: who reads them as hardware's must fail.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use crate::processor::{ONE, Persona, now};
use caveau_emulated::judge;
use caveau_evidence::{
    Expectations, ExpectedReportData, Hex, Judgement, Outcome, Profile, Subject, Tee, TeeClass, azure_claims, ear,
    snp_judgement,
};
use serde_json::{Value, json};

fn persona() -> Persona {
    let mut persona = Persona::software(5);
    persona.fields.measurement = [3; 48];
    persona.fields.host_data = [4; 32];
    persona
}

fn expected() -> Expectations {
    Expectations {
        report_data: Some(ExpectedReportData::Exact(Hex([0; 64]))),
        policy_digest: Some(Hex([4; 32])),
        measurements: Some(vec![Hex([3; 48])]),
        ..Expectations::default()
    }
}

fn allowed() -> Judgement {
    snp_judgement(judge(&[ONE.root()], &ONE.evidence(&persona()), &expected(), Profile::Strict, now()))
}

/// By the hardware verifier, as of somebody who did not ask for emulated evidence.
fn refused(tee: Tee) -> Judgement {
    let mut evidence = ONE.evidence(&persona());
    evidence.tee = tee;
    snp_judgement(caveau_evidence::judge(&evidence, &expected(), Profile::Strict, now()))
}

/// Nothing in these results may serve who looks for hardware.
fn is_no_hardware(ear: &Value) {
    assert_eq!(ear["caveau.tee-class"], "software");
    let part = &ear["submods"]["snp-report"];
    assert_eq!(part["ear.status"], "contraindicated");
    let vector = &part["ear.trustworthiness-vector"];
    let of = |name: &str| vector[name].as_i64().unwrap();
    assert_eq!((of("hardware"), of("instance-identity"), of("runtime-opaque"), of("storage-opaque")), (97, 97, 96, 32));
}

#[test]
fn emulated_evidence_that_is_allowed_is_not_affirmed() {
    let judgement = allowed();
    assert_eq!((judgement.outcome, judgement.tee_class), (Outcome::Passed, Some(TeeClass::Emulated)));
    is_no_hardware(&ear(&judgement, None));
}

#[test]
fn emulated_evidence_that_is_refused_is_never_called_hardware() {
    for tee in [Tee::EmulatedSnp, Tee::Snp] {
        let judgement = refused(tee);
        assert_eq!((judgement.outcome, judgement.tee_class), (Outcome::Refused, Some(TeeClass::Emulated)));
        assert!(judgement.summary.contains("EMULATED"), "{}", judgement.summary);
        let ear = ear(&judgement, None);
        is_no_hardware(&ear);
        assert_eq!(ear["submods"]["snp-report"].get("ear.veraison.annotated-evidence"), None);
    }
}

#[test]
fn azures_claims_on_an_emulated_guest_are_of_another_type_and_marked() {
    let judgement = allowed();
    let claims = azure_claims(judgement.claims.as_ref().and_then(Subject::snp).unwrap());
    assert_eq!(claims["x-ms-attestation-type"], "emulated-sevsnpvm");
    assert_eq!(claims["x-caveau-emulated"], true);
    // What the guest is, is told as for hardware.
    assert_eq!(claims["x-ms-sevsnpvm-launchmeasurement"], "03".repeat(48));
    assert_eq!(ear(&judgement, None)["submods"]["snp-report"]["ear.veraison.annotated-evidence"], json!(claims));
}
