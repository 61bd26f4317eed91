//! Software processors under a false paravisor: the hardware verifier's entries for Azure's confidential VMs and for quotes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use crate::processor::{ONE, Persona, now};
use aws_lc_rs::digest::{SHA256, digest};
use caveau_evidence::dcap::{self, Collateral};
use caveau_evidence::{
    AzureEvidence, AzureExpectations, Certificates, Outcome, Profile, TeeClass, judge_azure, judge_quote, quote_rules,
    verify_azure, verify_quote,
};
use caveau_snp::check::first_failure;
use caveau_snp::product::{Fms, ProductLine};

/// The paravisor's claims, with a key that may be any: it is vouched for by REPORT_DATA alone.
fn claims() -> Vec<u8> {
    let modulus = "q".repeat(341) + "Q";
    let key = format!(r#"{{"kid":"HCLAkPub","kty":"RSA","key_ops":["sign"],"n":"{modulus}","e":"AQAB"}}"#);
    format!(r#"{{"keys":[{key}],"vm-configuration":{{"secure-boot":true}}}}"#).into_bytes()
}

/// A paravisor's report as Azure's (see `azure/hcl.rs`), around a software processor's.
fn paravisors(report: &[u8], claims: &[u8]) -> Vec<u8> {
    let size = u32::try_from(claims.len()).unwrap();
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let header = numbers(&[2, size + 0x4d4, 2, 0, 0, 0, 0]);
    let of_claims = numbers(&[size + 20, 1, 2, 1, size]);
    [b"HCLA", &header[..], report, &of_claims, claims].concat()
}

/// Evidence in which every link holds, from the claims' hash to the signatures: only the root is a program's.
fn evidence(persona: &Persona) -> AzureEvidence {
    let mut persona = persona.clone();
    let claims = claims();
    persona.fields.report_data = [0; 64];
    persona.fields.report_data[..32].copy_from_slice(digest(&SHA256, &claims).as_ref());
    let made = ONE.evidence(&persona);
    AzureEvidence {
        hcl_report: paravisors(&made.report, &claims),
        certificates: made.certificates,
        ..AzureEvidence::default()
    }
}

fn personas() -> [Persona; 3] {
    let fms = Fms { family: 0x19, model: 1, stepping: 1 };
    [Persona::software(5), Persona::line(ProductLine::Milan, 3, fms, "Milan-B0"), Persona::vlek()]
}

#[test]
fn no_software_processor_passes_under_a_paravisor() {
    for persona in personas() {
        let evidence = evidence(&persona);
        for profile in [Profile::Baseline, Profile::Strict] {
            let verification = verify_azure(&evidence, &profile.rules(now()));
            assert!(verification.verified.is_none());
            assert_eq!(first_failure(&verification.checks), Some("software-root"));
            let failed: Vec<_> = verification.checks.iter().filter_map(|check| check.code.as_deref()).collect();
            let of_chain = ["software-root", "product-line-unknown", "product-line-mismatch", "root-untrusted"];
            assert!(failed.len() >= 2 && failed.iter().all(|code| of_chain.contains(code)), "{failed:?}");
            let judgement = judge_azure(&evidence, &AzureExpectations::default(), profile, now());
            assert_eq!((judgement.outcome, judgement.first_failure()), (Outcome::Refused, Some("software-root")));
            assert_eq!((judgement.tee_class, judgement.claims.is_none()), (Some(TeeClass::Emulated), true));
        }
    }
}

/// Nor with AMD's own certificates beside its report.
#[test]
fn amds_authorities_do_not_vouch_for_a_software_processor() {
    for persona in personas() {
        let mut evidence = evidence(&persona);
        let vek = evidence.certificates.vek.take();
        evidence.certificates = Certificates { vek, ..Certificates::default() }.with_built_in();
        let verification = verify_azure(&evidence, &Profile::Baseline.rules(now()));
        assert!(verification.verified.is_none() && first_failure(&verification.checks).is_some());
    }
}

#[test]
fn a_software_processors_report_is_no_quote() {
    let report = ONE.evidence(&Persona::software(5)).report;
    let collateral = Collateral::default();
    let verification = verify_quote(&report, &collateral, &quote_rules(Profile::Baseline, now()));
    assert!(verification.verified.is_none() && first_failure(&verification.checks).is_some());
    let judgement = judge_quote(&report, &collateral, &dcap::Expectations::default(), Profile::Baseline, now());
    assert_eq!((judgement.outcome, judgement.tee_class), (Outcome::Refused, None));
}
