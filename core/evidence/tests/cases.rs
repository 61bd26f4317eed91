//! The reference verdicts of `cases.json`: genuine reports, and changes of them, each with the code it must fail with.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use crate::fixtures::Fixtures;
use caveau_evidence::{Appraisal, Certificates, Evidence, Expectations, Profile, Timestamp, judge, verify};
use caveau_snp::appraise::APPRAISAL;
use caveau_snp::certificate::Certificate;
use caveau_snp::check::{Check, first_failure};
use caveau_snp::crl::Crl;
use serde_json::Value;

fn at(date: &str) -> Timestamp {
    date.parse::<Timestamp>().unwrap().plus_seconds(12 * 3600)
}

/// The code of the first authenticity check that fails, `ok` when none does.
fn authentic(evidence: &Evidence, date: &str) -> String {
    let verification = verify(evidence, &Profile::Baseline.rules(at(date)));
    assert_eq!(verification.verified.is_some(), first_failure(&verification.checks).is_none());
    first_failure(&verification.checks).unwrap_or("ok").to_owned()
}

/// The code of the first check of the profile that fails, `ok` when none does.
fn default_policy(appraisal: &Appraisal) -> &str {
    let checks: Vec<Check> = appraisal.checks.iter().filter(|check| APPRAISAL.contains(&check.name)).cloned().collect();
    let code = first_failure(&checks);
    appraisal.first_failure().filter(|first| Some(*first) == code).unwrap_or("ok")
}

#[test]
fn genuine_reports() {
    let Some(fixtures) = Fixtures::open() else { return };
    let cases = fixtures.cases("snp-report");
    let mut verdicts = 0;
    for case in &cases {
        let evidence = fixtures.report_case(case);
        let dates = case["authentic"].as_object().unwrap();
        for (date, expected) in dates {
            assert_eq!(authentic(&evidence, date), expected.as_str().unwrap(), "{} at {date}", case["id"]);
            verdicts += 1;
        }
        // The profile's verdict holds for a date on which the evidence is authentic.
        let (date, _) = dates.iter().find(|(_, verdict)| *verdict == "ok").unwrap();
        let appraisal = judge(&evidence, &Expectations::default(), Profile::Baseline, at(date));
        assert_eq!(default_policy(&appraisal), case["default_policy"].as_str().unwrap(), "{}", case["id"]);
        verdicts += 1;
    }
    println!("snp-report: {} cases, {verdicts} verdicts as expected", cases.len());
    assert!(cases.len() >= 8);
}

/// Applies the change that a case describes in words.
fn apply(fixtures: &Fixtures, case: &Value) -> Evidence {
    let base = case["base"].as_str().unwrap();
    let id = case["id"].as_str().unwrap().trim_start_matches("snp-neg/");
    if base.starts_with("snp/negative/") {
        return certificates_of_another(fixtures, base);
    }
    let mut evidence = fixtures.base(base);
    let report = &mut evidence.report;
    let certificates = &mut evidence.certificates;
    match id {
        "sig-reserved-tail" => report[0x330] = 0xee,
        "sig-last-byte" => report[0x49f] = 1,
        "sig-r-high" => report[0x2d0] = 1,
        "sig-s-high" => report[0x318] = 1,
        "sig-zero" => report[0x2a0..0x330].fill(0),
        "short" => report.truncate(report.len().checked_sub(1).unwrap()),
        "long" => report.push(0),
        "version-6" => report[0] = 6,
        "version-1" => report[0] = 1,
        "sig-algo-0" => report[0x34] = 0,
        "signing-key-none" => report[0x48] = 0x1c,
        "signing-key-vlek" => report[0x48] = 4,
        "keyinfo-bit5" => report[0x48] = 0x20,
        "mitvec-in-v3" => report[0x1f8] = 1,
        "report-data" => report[0x50] ^= 1,
        "measurement" => report[0x90] ^= 1,
        "tcb-raise" => report[0x187] = report[0x187].wrapping_add(1),
        "fms-to-turin" => report[0x188..0x18a].copy_from_slice(&[0x1a, 2]),
        "sig-malleated" => negate_s(report),
        "wrong-product-chain" => {
            certificates.intermediate = Some(fixtures.read("snp/roots/genoa-ask.der"));
            certificates.root = Some(fixtures.read("snp/roots/genoa-ark.der"));
        }
        "vlek-as-vcek-slot" => certificates.intermediate = Some(fixtures.read("snp/roots/milan-ask.der")),
        "vcek-report-with-vlek" => {
            certificates.vek = Some(fixtures.read("snp/reports/milan-v3-vlek-vmpl1/vlek.der"));
            certificates.intermediate = Some(fixtures.read("snp/roots/milan-asvk.der"));
        }
        "intermediate-as-root" => certificates.root.clone_from(&certificates.intermediate),
        "revoked-genoa-ask-no-crl" => {
            certificates.intermediate = Some(fixtures.read("snp/roots/genoa-ask-REVOKED-020001.der"));
        }
        other => panic!("the case {other} is not known: teach this test its change"),
    }
    evidence
}

/// Cases that come with files of their own: a folder with a report and a VCEK, or a VCEK alone.
fn certificates_of_another(fixtures: &Fixtures, base: &str) -> Evidence {
    let (report, vek) = if base.ends_with(".der") {
        ("snp/reports/milan-v3-aci/report.bin".to_owned(), base.to_owned())
    } else {
        (format!("{base}/report.bin"), format!("{base}/vcek.der"))
    };
    // Whichever chain the certificate names.
    let vek_bytes = fixtures.read(&vek);
    let issuer = Certificate::parse(&vek_bytes).unwrap().issuer().to_vec();
    let line = ["milan", "genoa", "turin"].into_iter().find(|line| {
        let ask = fixtures.read(&format!("snp/roots/{line}-ask.der"));
        Certificate::parse(&ask).unwrap().subject() == issuer
    });
    let line = line.unwrap();
    fixtures.evidence(&report, &vek, &format!("snp/roots/{line}-ask.der"), &format!("snp/roots/{line}-ark.der"))
}

/// S := n - S, little-endian in the report.
fn negate_s(report: &mut [u8]) {
    let order = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";
    let digits: Vec<u8> =
        (0..48).map(|byte| u8::from_str_radix(&order[byte * 2..byte * 2 + 2], 16).unwrap()).rev().collect();
    let mut borrow = 0;
    for (byte, of_order) in report[0x2e8..0x318].iter_mut().zip(digits) {
        let difference = i16::from(of_order) - i16::from(*byte) - borrow;
        borrow = i16::from(difference < 0);
        *byte = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    assert_eq!(borrow, 0);
}

#[test]
fn changed_reports_and_wrong_chains() {
    let Some(fixtures) = Fixtures::open() else { return };
    let cases = fixtures.cases("snp-negative");
    for case in &cases {
        let evidence = apply(&fixtures, case);
        for (date, expected) in case["authentic"].as_object().unwrap() {
            assert_eq!(authentic(&evidence, date), expected.as_str().unwrap(), "{}", case["id"]);
        }
    }
    println!("snp-negative: {} cases, all with their codes", cases.len());
    assert!(cases.len() >= 28);
}

#[test]
fn revocation_lists() {
    let Some(fixtures) = Fixtures::open() else { return };
    let cases = fixtures.cases("crl");
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        let line = if id.contains("genoa") || id.contains("swapped") { "genoa" } else { "milan" };
        // A swapped issuer: the list of one line, held against the other line's root.
        let line = if id.contains("swapped") { "milan" } else { line };
        let ask =
            if id.ends_with("revoked-ask") { "genoa-ask-REVOKED-020001".to_owned() } else { format!("{line}-ask") };
        let (intermediate, root) =
            (fixtures.read(&format!("snp/roots/{ask}.der")), fixtures.read(&format!("snp/roots/{line}-ark.der")));
        let crl = fixtures.read(case["crl"].as_str().unwrap());
        let (intermediate, root) = (Certificate::parse(&intermediate).unwrap(), Certificate::parse(&root).unwrap());
        let result = Crl::parse(&crl).unwrap().check(&intermediate, &root, at(case["at"].as_str().unwrap()), 0);
        let code = result.map_or_else(|refusal| refusal.code, |_| "ok".to_owned());
        assert_eq!(code, case["expect"].as_str().unwrap(), "{id}");
    }
    println!("crl: {} cases, all with their codes", cases.len());
    assert!(cases.len() >= 6);
}

/// With a list from its own time, the revoked ASK is found by the whole verification too, and an old list is told.
#[test]
fn revocation_within_a_verification() {
    let Some(fixtures) = Fixtures::open() else { return };
    let mut evidence = fixtures.base("snp/genoa-v3-aci");
    evidence.certificates.crl = Some(fixtures.read("snp/crl/genoa-crl-2022.der"));
    let verification = verify(&evidence, &Profile::Baseline.rules(at("2026-11-23")));
    assert_eq!(first_failure(&verification.checks), Some("crl-stale"));
    evidence.certificates.crl = Some(vec![0x30, 0]);
    let verification = verify(&evidence, &Profile::Baseline.rules(at("2026-11-23")));
    assert_eq!(first_failure(&verification.checks), Some("crl-malformed"));
    evidence.certificates.crl = None;
    let verification = verify(&evidence, &Profile::Strict.rules(at("2026-11-23")));
    assert_eq!(first_failure(&verification.checks), Some("crl-missing"));
    let rollback = caveau_snp::examine::Rules { crl_at_least: 4, ..Profile::Baseline.rules(at("2023-01-01")) };
    let (ask, ark) = (fixtures.read("snp/roots/milan-ask.der"), fixtures.read("snp/roots/milan-ark.der"));
    let crl = fixtures.read("snp/crl/milan-crl-2022.der");
    let parsed = Crl::parse(&crl).unwrap();
    let refusal = parsed
        .check(
            &Certificate::parse(&ask).unwrap(),
            &Certificate::parse(&ark).unwrap(),
            rollback.at,
            rollback.crl_at_least,
        )
        .unwrap_err();
    assert_eq!(refusal.code, "crl-rollback");
}

/// What ACI's evidence says is held against expectations; each wrong one has its own code.
#[test]
fn expectations_decide() {
    use caveau_evidence::{ExpectedGuestPolicy, ExpectedReportData, Hex, Outcome};
    let Some(fixtures) = Fixtures::open() else { return };
    let mut evidence = fixtures.base("snp/milan-v2-aci");
    let encoded = String::from_utf8(fixtures.read("azure-aci/security-policy.base64")).unwrap();
    evidence.policy = Some(base64_decode(encoded.trim()));
    let claims = verify(&evidence, &Profile::Baseline.rules(at("2026-11-23"))).verified.unwrap();
    let judged = |expected: &Expectations| judge(&evidence, expected, Profile::Baseline, at("2026-11-23"));

    let bare = judged(&Expectations::default());
    assert_eq!(bare.outcome, Outcome::AuthenticNotAppraised);
    let right = Expectations {
        report_data: Some(ExpectedReportData::Exact(claims.report_data)),
        policy_digest: Some(claims.host_data),
        measurements: Some(vec![Hex([0; 48]), claims.measurement]),
        ..Expectations::default()
    };
    assert_eq!(judged(&right).outcome, Outcome::Passed, "{:?}", judged(&right).checks);
    let exactly_usual = ExpectedGuestPolicy { exact: Some(0x3_0000), ..ExpectedGuestPolicy::default() };
    for (wrong, code) in [
        (Expectations { policy_digest: Some(Hex([1; 32])), ..right.clone() }, "host-data"),
        (Expectations { measurements: Some(vec![]), ..right.clone() }, "measurement"),
        (
            Expectations { report_data: Some(ExpectedReportData::Challenge(vec![1; 32])), ..right.clone() },
            "report-data",
        ),
        (Expectations { chips: Some(vec![]), ..right.clone() }, "chip-refused"),
        (Expectations { product_lines: Some(vec![]), ..right.clone() }, "product-line-refused"),
        (Expectations { provider: Some("CN=x".to_owned()), ..right.clone() }, "provider"),
        (Expectations { guest_policy: exactly_usual, ..right.clone() }, "guest-policy"),
        (Expectations { mitigations: 1, ..right.clone() }, "mitigations"),
        (Expectations { id_keys: Some(vec![]), ..right.clone() }, "id-block"),
        (Expectations { least_guest_svn: Some(u32::MAX), ..right.clone() }, "guest-svn"),
    ] {
        let appraisal = judged(&wrong);
        assert_eq!((appraisal.outcome, appraisal.first_failure()), (Outcome::Refused, Some(code)));
    }
    let strict = judge(&evidence, &right, Profile::Strict, at("2026-11-23"));
    assert_eq!(strict.first_failure(), Some("crl-missing"));
}

#[test]
fn another_policy_beside_the_report_is_told() {
    let Some(fixtures) = Fixtures::open() else { return };
    let mut evidence = fixtures.base("snp/milan-v2-aci");
    evidence.policy = Some(b"package policy".to_vec());
    let appraisal = judge(&evidence, &Expectations::default(), Profile::Baseline, at("2026-11-23"));
    assert_eq!(appraisal.first_failure(), Some("policy-text"));
}

#[test]
fn certificates_come_from_where_hosts_keep_them() {
    let Some(fixtures) = Fixtures::open() else { return };
    let mut evidence = fixtures.base("snp/milan-v2-aci");
    evidence.certificates = Certificates::from_thim(&fixtures.read("azure-aci/host-amd-certs.json")).unwrap();
    assert_eq!(authentic(&evidence, "2026-11-23"), "ok");
    let partial = Certificates { root: None, ..evidence.certificates.clone() };
    evidence.certificates = partial.clone();
    assert_eq!(authentic(&evidence, "2026-11-23"), "certificate-missing");
    let ark = Certificates { root: Some(fixtures.read("snp/roots/milan-ark.der")), ..Certificates::default() };
    evidence.certificates = partial.or(ark);
    assert_eq!(authentic(&evidence, "2026-11-23"), "ok");
    assert!(Certificates::from_thim(b"{}").is_err());
}

#[test]
fn files_of_certificates_are_sorted_by_what_they_are() {
    use base64::Engine;
    let Some(fixtures) = Fixtures::open() else { return };
    let names =
        ["reports/milan-v3-aci/vcek.der", "roots/milan-ask.der", "roots/milan-ark.der", "crl/milan-crl-2022.der"];
    let parts = names.map(|name| fixtures.read(&format!("snp/{name}")));
    let expected = {
        let [vek, intermediate, root, crl] = parts.clone().map(Some);
        Certificates { vek, intermediate, root, crl }
    };
    let pem = |der: &[u8], label: &str| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    let [vek, ask, ark, crl] = &parts;
    let text =
        [pem(crl, "X509 CRL"), pem(ark, "CERTIFICATE"), pem(ask, "CERTIFICATE"), pem(vek, "CERTIFICATE")].concat();
    assert_eq!(Certificates::from_file(text.as_bytes()).unwrap(), expected);
    let singly = parts.iter().map(|der| Certificates::from_file(der).unwrap());
    assert_eq!(singly.fold(Certificates::default(), |all, one| all.with(one).unwrap()), expected);
    let thim = fixtures.read("azure-aci/host-amd-certs.json");
    assert_eq!(Certificates::from_file(&thim).unwrap(), Certificates::from_thim(&thim).unwrap());

    let two_lines = [pem(ask, "CERTIFICATE"), pem(&fixtures.read("snp/roots/genoa-ask.der"), "CERTIFICATE")].concat();
    for (bytes, said) in [
        (two_lines.as_bytes(), "two for the intermediate"),
        (b"-----BEGIN CERTIFICATE-----\nAQ==\n", "a PEM block is broken"),
        (b"-----BEGIN X-----\n-----END X-----\n", "neither a certificate nor"),
        (&ask[..ask.len() - 1], "failed to read a certificate"),
        (b"hello", "certificate table"),
        (b"", "certificate table"),
    ] {
        let error = Certificates::from_file(bytes).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

fn base64_decode(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
