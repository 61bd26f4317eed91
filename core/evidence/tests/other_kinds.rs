//! The reference verdicts of `cases.json` on evidence of other kinds: quotes of Intel's TEEs, confidential VMs of Azure's.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::collections::BTreeMap;

use crate::fixtures::Fixtures;
use caveau_evidence::azure::{AzureVerification, Processor};
use caveau_evidence::dcap::{Collateral, Quote, TcbStatus};
use caveau_evidence::{
    AzureEvidence, AzureExpectations, Certificates, Expectations, Judgement, Outcome, Profile, Timestamp, judge_azure,
    judge_quote, verify_azure, verify_quote,
};
use caveau_snp::check::first_failure;

/// The code of the first check that fails, in the words of the cases.
fn words_of(code: &str) -> &'static [&'static str] {
    match code {
        "CRL expired" => &["crl-stale"],
        "no matching TCB level" => &["tcb-level-none"],
        "debug TD" => &["debug"],
        "FMSPC mismatch" => &["fmspc-mismatch"],
        "TCB info expired" => &["tcb-info-expired"],
        other => panic!("the verdict {other} is not known: teach this test its code"),
    }
}

#[test]
fn quotes() {
    let Some(fixtures) = Fixtures::open() else { return };
    let cases = fixtures.cases("dcap");
    for case in &cases {
        let quote = fixtures.read(case["quote"].as_str().unwrap());
        let collateral = fixtures.collateral(case["collateral"].as_str().unwrap());
        let at = Timestamp::from_unix(case["unix_time"].as_u64().unwrap());
        let expected = caveau_evidence::dcap::Expectations::default();
        let judged = judge_quote(&quote, &collateral, &expected, Profile::Baseline, at);
        let verdict = case["expect"].as_str().unwrap();
        let failures: Vec<&str> = judged.checks.iter().filter_map(|check| check.code.as_deref()).collect();
        match verdict.strip_prefix("error: ") {
            Some(words) => {
                assert!(words_of(words).contains(&failures[0]), "{}: {words}: {failures:?}", case["id"]);
                assert_eq!(judged.outcome, Outcome::Refused);
            }
            None => {
                assert!(failures.is_empty(), "{}: {failures:?}", case["id"]);
                let (status, advisories) = verdict.split_once(" + ").unwrap_or((verdict, ""));
                let Some(caveau_evidence::Subject::Quote(claims)) = judged.claims else { panic!("no claims") };
                assert_eq!(claims.tcb_status, status.parse::<TcbStatus>().unwrap(), "{}", case["id"]);
                assert_eq!(claims.advisories.join(", "), advisories, "{}", case["id"]);
            }
        }
    }
    println!("dcap: {} cases, all with their verdicts", cases.len());
    assert!(cases.len() >= 9);
}

/// Every bit of a quote that somebody signed: one changed is one failure at least.
#[test]
fn changed_quotes_and_collateral() {
    let Some(fixtures) = Fixtures::open() else { return };
    let rules = caveau_evidence::quote_rules(Profile::Strict, Timestamp::from_unix(1_752_000_000));
    for name in ["quote-v4-emr", "sgx-quote-v3"] {
        let quote = fixtures.read(&format!("tdx/{name}.bin"));
        let collateral = fixtures.collateral(&format!("tdx/{name}.collateral.json"));
        let good = verify_quote(&quote, &collateral, &rules);
        assert!(good.verified.is_some(), "{name}: {:?}", first_failure(&good.checks));
        let trailing = Quote::parse(&quote).unwrap().trailing;
        for at in (0..quote.len() - trailing).step_by(7) {
            let mut changed = quote.clone();
            changed[at] ^= 1 << (at % 8);
            // The text around a certificate in PEM means nothing; everything else does.
            let verified = verify_quote(&changed, &collateral, &rules).verified;
            let is_same = verified.as_deref() == good.verified.as_deref();
            assert!(verified.is_none() || (is_same && at > 1100), "{name}: byte {at}");
        }
        for field in ["tcb_info", "qe_identity"] {
            let mut other = collateral.clone();
            let list = if field == "tcb_info" { &mut other.tcb_infos } else { &mut other.qe_identities };
            list[0].text = list[0].text.replace("\"OutOfDate\"", "\"UpToDate\"").replace("SW", "Sw") + " ";
            assert!(verify_quote(&quote, &other, &rules).verified.is_none(), "{name}: {field}");
        }
        let mut without = collateral.clone();
        without.crls.clear();
        assert_eq!(first_failure(&verify_quote(&quote, &without, &rules).checks), Some("crl-missing"));
        let baseline = caveau_evidence::quote_rules(Profile::Baseline, rules.at);
        let verified = verify_quote(&quote, &without, &baseline).verified.unwrap();
        assert!(!verified.collateral.has_revocation_lists);
        let nothing = verify_quote(&quote, &Collateral::default(), &baseline);
        assert_eq!(first_failure(&nothing.checks), Some("collateral-missing"));
        let intrinsic = ["qe-report-signature", "attestation-key", "quote-signature", "pck-certificate"];
        let holds = |name: &str| {
            nothing.checks.iter().any(|check| check.name == name && !check.failed() && check.code.is_none())
        };
        assert!(intrinsic.iter().all(|name| holds(name)));
    }
}

#[test]
fn expectations_of_a_trust_domain_decide() {
    use caveau_evidence::dcap::{Expectations, TdIdentity};
    let Some(fixtures) = Fixtures::open() else { return };
    let quote = fixtures.read("tdx/quote-v4-emr.bin");
    let collateral = fixtures.collateral("tdx/quote-v4-emr.collateral.json");
    let at = Timestamp::from_unix(1_752_000_000);
    let judged = |expected: &Expectations, profile| judge_quote(&quote, &collateral, expected, profile, at);
    let bare: Judgement = judged(&Expectations::default(), Profile::Strict);
    assert_eq!(bare.outcome, Outcome::AuthenticNotAppraised, "{}", bare.summary);
    let Some(caveau_evidence::Subject::Quote(claims)) = bare.claims else { panic!("no claims") };
    let caveau_evidence::dcap::Body::Td(td) = &claims.body else { panic!("no trust domain") };
    let identity = TdIdentity { mr_td: Some(td.mr_td), ..TdIdentity::default() };
    let right = Expectations {
        report_data: Some(td.report_data),
        domains: Some(vec![identity.clone()]),
        ..Expectations::default()
    };
    assert_eq!(judged(&right, Profile::Strict).outcome, Outcome::Passed);
    let other = TdIdentity { rtmrs: [Some(td.mr_td), None, None, None], ..identity };
    for (wrong, code) in [
        (Expectations { domains: Some(vec![other]), ..right.clone() }, "measurement"),
        (Expectations { domains: Some(vec![TdIdentity::default()]), ..right.clone() }, "measurement"),
        (Expectations { report_data: Some(caveau_evidence::Hex([0; 64])), ..right.clone() }, "report-data"),
        (Expectations { platforms: Some(vec![]), ..right.clone() }, "platform-refused"),
        (Expectations { least_evaluation_number: 99, ..right.clone() }, "evaluation-number"),
        (Expectations { statuses: Some(vec![TcbStatus::OutOfDate]), ..right.clone() }, "tcb-status"),
    ] {
        assert_eq!(judged(&wrong, Profile::Baseline).first_failure(), Some(code));
    }
}

const AT: &str = "2026-11-23T12:00:00Z";

fn verified(evidence: &AzureEvidence) -> AzureVerification {
    verify_azure(evidence, &Profile::Baseline.rules(AT.parse().unwrap()))
}

#[test]
fn confidential_vms_of_azure() {
    let Some(fixtures) = Fixtures::open() else { return };
    let cases = fixtures.cases("azure-hcl");
    for case in &cases {
        let evidence = fixtures.azure(case["evidence"].as_str().unwrap());
        let verification = verified(&evidence);
        let claims = verification.verified.unwrap_or_else(|| panic!("{}: {:?}", case["id"], verification.checks));
        let Processor::Snp(processor) = &claims.processor else { panic!("no SEV-SNP") };
        assert_eq!(claims.registers.len(), 24, "{}", case["id"]);
        let provisional = processor.current_tcb != processor.committed_tcb;
        let expected = case["expect"].as_str().unwrap();
        assert!(expected.starts_with("ok"));
        assert_eq!(provisional, expected.contains("provisional"), "{}", case["id"]);
        if expected.contains("user-data carries the nonce") {
            let nonce = claims.nonce.clone().unwrap();
            assert!(claims.user_data.as_deref().unwrap().to_lowercase().starts_with(&nonce) && nonce.len() == 96);
        }
    }
    println!("azure-hcl: {} cases, all with their verdicts", cases.len());
    assert!(cases.len() >= 4);
}

#[test]
fn expectations_of_azure_decide() {
    let Some(fixtures) = Fixtures::open() else { return };
    let evidence = fixtures.azure("azure-cvm/milan-v3.json");
    let claims = verified(&evidence).verified.unwrap();
    let Processor::Snp(processor) = &claims.processor else { panic!("no SEV-SNP") };
    let judged =
        |expected: &AzureExpectations| judge_azure(&evidence, expected, Profile::Baseline, AT.parse().unwrap());
    let snp = Expectations {
        measurements: Some(vec![processor.measurement]),
        allow_provisional_firmware: true,
        ..Expectations::default()
    };
    let bare = judged(&AzureExpectations { snp: snp.clone(), ..AzureExpectations::default() });
    assert_eq!(bare.outcome, Outcome::AuthenticNotAppraised, "{}", bare.summary);
    let right = AzureExpectations {
        nonce: Some(b"challenge".to_vec()),
        registers: Some(BTreeMap::from([(0, claims.registers[&0]), (4, claims.registers[&4])])),
        vm_configuration: BTreeMap::from([("secure-boot".to_owned(), true.into())]),
        snp,
        ..AzureExpectations::default()
    };
    assert_eq!(judged(&right).outcome, Outcome::Passed, "{}", judged(&right).summary);
    let other = BTreeMap::from([(4, claims.registers[&0])]);
    let no_secure_boot = BTreeMap::from([("secure-boot".to_owned(), false.into())]);
    for (wrong, code) in [
        (AzureExpectations { nonce: Some(b"challengf".to_vec()), ..right.clone() }, "nonce"),
        (AzureExpectations { registers: Some(other), ..right.clone() }, "pcrs"),
        (AzureExpectations { vm_configuration: no_secure_boot, ..right.clone() }, "vm-configuration"),
    ] {
        assert_eq!(judged(&wrong).first_failure(), Some(code));
    }
}

/// From the processor's signature to the registers, each link is looked at.
#[test]
fn changed_evidence_of_azure() {
    let Some(fixtures) = Fixtures::open() else { return };
    for name in ["milan-v3", "genoa-v3"] {
        let good = fixtures.azure(&format!("azure-cvm/{name}.json"));
        let other = fixtures.azure("azure-cvm/milan-v3-userdata.json");
        let code_of = |change: &dyn Fn(&mut AzureEvidence)| {
            let mut evidence = good.clone();
            change(&mut evidence);
            let verification = verified(&evidence);
            assert!(verification.verified.is_none());
            first_failure(&verification.checks).unwrap().to_owned()
        };
        let changed = |part: fn(&mut AzureEvidence) -> &mut u8| code_of(&move |evidence| *part(evidence) ^= 1);
        assert_eq!(changed(|evidence| &mut evidence.hcl_report[0x20 + 0x90]), "report-signature");
        assert_eq!(changed(|evidence| &mut evidence.hcl_report[0x4e0]), "runtime-claims");
        assert_eq!(changed(|evidence| &mut evidence.quote.as_mut().unwrap().message[50]), "vtpm-signature");
        assert_eq!(changed(|evidence| &mut evidence.quote.as_mut().unwrap().signature[5]), "vtpm-signature");
        assert_eq!(changed(|evidence| &mut evidence.quote.as_mut().unwrap().registers[3].0[0]), "vtpm-registers");
        assert_eq!(code_of(&|evidence| evidence.quote.clone_from(&other.quote)), "vtpm-signature");
        assert_eq!(code_of(&|evidence| evidence.certificates = Certificates::default()), "certificate-missing");
    }
    let mismatch = AzureEvidence {
        certificates: Certificates {
            vek: Some(fixtures.read("snp/negative/chip-mismatch-hcl/vcek.der")),
            ..Certificates::default()
        }
        .with_built_in(),
        ..AzureEvidence::parse(&fixtures.read("snp/negative/chip-mismatch-hcl/hcl-report.bin")).unwrap_or_default()
    };
    let checks = verified(&mismatch).checks;
    assert!(checks.iter().any(|check| check.code.as_deref() == Some("report-signature")), "{checks:?}");
    let tdx = AzureEvidence::parse(&fixtures.read("azure-cvm/hcl-report-tdx.bin")).unwrap();
    let verification = verified(&tdx);
    assert_eq!(first_failure(&verification.checks), Some("quote-missing"));
    let bound = verification.checks.iter().find(|check| check.name == "runtime-claims").unwrap();
    assert!(!bound.failed(), "the TDREPORT has the hash of the claims");
}
