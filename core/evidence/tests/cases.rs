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

#[test]
fn changed_reports_and_wrong_chains() {
    let Some(fixtures) = Fixtures::open() else { return };
    let cases = fixtures.cases("snp-negative");
    for case in &cases {
        let evidence = fixtures.negative(case);
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
