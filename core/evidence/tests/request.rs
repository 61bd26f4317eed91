//! One call for any file: the same verdicts as with the parts taken out by hand.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use crate::fixtures::Fixtures;
use caveau_evidence::{AppraisalPolicy, Hex, Judgement, Outcome, Profile, Request, RequestError, Timestamp};

fn request(at: &str) -> Request {
    let policy = AppraisalPolicy { profile: Some(Profile::Baseline), ..AppraisalPolicy::default() };
    Request::new(policy, at.parse::<Timestamp>().unwrap().plus_seconds(12 * 3600))
}

fn failures(judgement: &Judgement) -> Vec<&str> {
    judgement.checks.iter().filter_map(|check| check.code.as_deref()).collect()
}

#[test]
fn reports_with_their_certificates_as_files() {
    let Some(fixtures) = Fixtures::open() else { return };
    for case in fixtures.cases("snp-report") {
        let path = |field: &str| case[field].as_str().unwrap();
        let report = fixtures.read(path("report"));
        let [vek, intermediate, root] = ["vek", "intermediate", "root"].map(|field| fixtures.read(path(field)));
        for (date, expected) in case["authentic"].as_object().unwrap() {
            let judged = request(date).judge_file(&report, &[&root, &vek, &intermediate]).unwrap();
            let found = judged.claims.is_some();
            assert_eq!(found, expected == "ok", "{} at {date}: {:?}", case["id"], failures(&judged));
            // AMD's own intermediates and roots need not be given.
            let built_in = request(date).judge_file(&report, &[&vek]).unwrap();
            assert!(built_in.claims.is_some() || expected != "ok", "{}: {:?}", case["id"], failures(&built_in));
        }
    }
}

#[test]
fn quotes_with_their_collateral() {
    let Some(fixtures) = Fixtures::open() else { return };
    for case in fixtures.cases("dcap") {
        let quote = fixtures.read(case["quote"].as_str().unwrap());
        let collateral = fixtures.read(case["collateral"].as_str().unwrap());
        let mut request = request("2026-01-01");
        request.at = Timestamp::from_unix(case["unix_time"].as_u64().unwrap());
        let judged = request.judge_file(&quote, &[&collateral]).unwrap();
        let refused = case["expect"].as_str().unwrap().starts_with("error: ");
        assert_eq!(judged.outcome == Outcome::Refused, refused, "{}: {:?}", case["id"], failures(&judged));
        request.nonce = Some(vec![1; 32]);
        let error = request.judge_file(&quote, &[&collateral]).unwrap_err();
        assert!(matches!(error, RequestError::NotOfIt { what: "a nonce", .. }), "{error}");
    }
}

#[test]
fn what_cannot_be_judged_is_told() {
    let Some(fixtures) = Fixtures::open() else { return };
    let base = fixtures.cases("snp-report").into_iter().find(|case| case["id"] == "snp/milan-v3-aci").unwrap();
    let report = fixtures.read(base["report"].as_str().unwrap());
    let vek = fixtures.read(base["vek"].as_str().unwrap());
    let request = request("2026-11-23");
    let said = |error: RequestError| error.to_string();
    let error = said(request.judge_file(&report, &[&vek, b"nonsense"]).unwrap_err());
    assert!(error.starts_with("file 2 of those that go with the evidence"), "{error}");
    let error = said(request.judge_file(&report, &[&report]).unwrap_err());
    assert!(error.contains("it is evidence itself"), "{error}");
    let error = said(request.judge_file(&vek, &[]).unwrap_err());
    assert!(error.contains("and no evidence"), "{error}");
    let many: Vec<&[u8]> = vec![&vek; 65];
    assert!(said(request.judge_file(&report, &many).unwrap_err()).contains("at most 64"));
    let both = Request { nonce: Some(vec![1; 32]), report_data: Some(Hex([0; 64])), ..request.clone() };
    assert!(matches!(both.judge_file(&report, &[&vek]), Err(RequestError::NonceAndReportData)));
    // Two that say different things.
    let other = fixtures.cases("snp-report").into_iter().find(|case| case["vek"] != base["vek"]).unwrap();
    let other = fixtures.read(other["vek"].as_str().unwrap());
    assert!(matches!(request.judge_file(&report, &[&vek, &other]), Err(RequestError::Certificates(_))));
    // Without the certificate of its key a report is refused, which is a judgement.
    let alone = request.judge_file(&report, &[]).unwrap();
    assert_eq!(alone.outcome, Outcome::Refused);
}
