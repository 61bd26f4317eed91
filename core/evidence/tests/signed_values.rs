//! Signed reference values: Azure's own, and made ones, each held against whom the owner trusts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use crate::fixtures::Fixtures;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use caveau_cose::{DidX509, Draft, Form, KeyKind};
use caveau_evidence::{
    AnyEvidence, Appraisal, Certificates, Endorser, Evidence, Expectations, Hex, Outcome, Profile, ReferenceInfo,
    SignedValues, Tee, Timestamp, Verdict, judge, judge_signed_values, recognise,
};
use caveau_fragment::{DevelopmentChain, DevelopmentSpec};
use caveau_snp::report::{ReportFields, Signature, set_signature};
use serde_json::json;

const AZURE: &str = "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.2";
const FEED: &str = "ContainerPlat-AMD-UVM";

fn now() -> Timestamp {
    "2026-11-23".parse().unwrap()
}

fn endorser(issuer: &str, feed: &str, least_svn: u64) -> Endorser {
    Endorser { issuer: DidX509::parse(issuer).unwrap(), feed: feed.to_owned(), least_svn, in_force: false }
}

/// The code of the first check that failed.
fn code(values: &SignedValues) -> Option<&str> {
    values.checks.iter().find_map(|check| check.code.as_deref())
}

/// A bundle as a sidecar of ACI gives it: a recorded report with these signed reference values.
fn bundle(fixtures: &Fixtures, report: &str, endorsement: &[u8]) -> (Evidence, Vec<Vec<u8>>) {
    let read = |name: &str| fixtures.read(&format!("snp/reports/{report}/{name}"));
    let json = json!({
        "attestation": BASE64_STANDARD.encode(read("report.bin")),
        "platform_certificates": BASE64_STANDARD.encode(read("vcek.der")),
        "uvm_endorsements": BASE64_STANDARD.encode(endorsement),
    });
    let AnyEvidence::Snp(bundle) = recognise(json.to_string().as_bytes()).unwrap() else { panic!("no bundle") };
    let mut evidence = bundle.evidence;
    evidence.certificates = evidence.certificates.with_built_in();
    let endorsements = std::mem::take(&mut evidence.endorsements);
    (evidence, endorsements)
}

/// The whole judgement, with everything but the launch digest expected.
fn judged(evidence: &Evidence, values: SignedValues) -> Appraisal {
    let fields = caveau_evidence::Report::parse(&evidence.report).unwrap();
    let expected = Expectations {
        report_data: Some(caveau_evidence::ExpectedReportData::Exact(Hex(fields.fields().report_data))),
        policy_digest: Some(Hex(fields.fields().host_data)),
        endorsed_measurements: values.measurements,
        ..Expectations::default()
    };
    judge(evidence, &expected, Profile::Baseline, now()).with_checks(values.checks)
}

#[test]
fn azures_own_stand_for_the_launch_digest() {
    let Some(fixtures) = Fixtures::open() else { return };
    for (report, svn) in [("milan-v2-aci", 22), ("milan-v3-aci", 101), ("genoa-v3-aci", 101)] {
        let signed = fixtures.read(&format!("azure-aci/uvm-endorsement-svn{svn}.cose"));
        let (evidence, envelopes) = bundle(&fixtures, report, &signed);
        let values = judge_signed_values(&envelopes, &[endorser(AZURE, FEED, svn)], &evidence, now());
        let accepted = values.accepted.clone().unwrap();
        assert_eq!((accepted.issuer.as_str(), accepted.feed.as_str(), accepted.svn), (AZURE, FEED, svn));
        let appraisal = judged(&evidence, values);
        assert_eq!(appraisal.outcome, Outcome::Passed, "{report}: {}", appraisal.summary);

        // Where nobody is trusted with them, the signature is verified, and that is all.
        let values = judge_signed_values(&envelopes, &[], &evidence, now());
        let verdicts: Vec<_> = values.checks.iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Skipped, Verdict::Skipped]);
        assert_eq!(judged(&evidence, values).outcome, Outcome::AuthenticNotAppraised);
    }
}

#[test]
fn what_is_not_as_expected_of_azures_is_refused() {
    let Some(fixtures) = Fixtures::open() else { return };
    let read = |svn: u32| fixtures.read(&format!("azure-aci/uvm-endorsement-svn{svn}.cose"));
    let signed = read(101);
    let (evidence, _) = bundle(&fixtures, "milan-v3-aci", &signed);
    let trusted = endorser(AZURE, FEED, 101);
    let refused = |envelopes: &[Vec<u8>], endorser: &Endorser, at: Timestamp| {
        let values = judge_signed_values(envelopes, std::slice::from_ref(endorser), &evidence, at);
        assert!(values.accepted.is_none() && values.measurements.as_ref().unwrap().is_empty());
        let first = code(&values).unwrap().to_owned();
        let appraisal = judged(&evidence, values);
        assert_eq!(appraisal.outcome, Outcome::Refused);
        assert!(appraisal.checks.iter().any(|check| check.name == "measurement" && check.failed()));
        first
    };
    let one = [signed.clone()];
    let (other_root, other_use) = (AZURE.replace("I__iu", "I__iv"), AZURE.replace("59.1.2", "59.1.3"));
    assert_eq!(refused(&one, &endorser(&other_root, FEED, 101), now()), "reference-info-issuer");
    assert_eq!(refused(&one, &endorser(&other_use, FEED, 101), now()), "reference-info-issuer");
    assert_eq!(refused(&one, &endorser(AZURE, "ConfAKS-AMD-UVM", 101), now()), "reference-info-feed");
    assert_eq!(refused(&one, &endorser(AZURE, FEED, 102), now()), "reference-info-svn");
    assert_eq!(refused(&one, &Endorser { in_force: true, ..trusted.clone() }, now()), "reference-info-expired");
    assert_eq!(refused(&one, &trusted, "2024-01-01".parse().unwrap()), "reference-info-time");
    assert_eq!(refused(&[], &trusted, now()), "reference-info-missing");
    assert_eq!(refused(&vec![signed.clone(); 17], &trusted, now()), "reference-info-count");
    assert_eq!(refused(&[vec![0xd2]], &trusted, now()), "reference-info-malformed");

    // Another guest's: by itself all is well with it, but the report has another launch digest.
    let values = judge_signed_values(&[read(22)], &[endorser(AZURE, FEED, 1)], &evidence, now());
    assert_eq!((code(&values), values.accepted.as_ref().unwrap().svn), (None, 22));
    let appraisal = judged(&evidence, values);
    let failed: Vec<_> = appraisal.checks.iter().filter(|check| check.failed()).map(|check| check.name).collect();
    assert_eq!(failed, ["measurement"]);
    // Beside the right ones it is passed over, and so is what is no envelope; in whatever order.
    for envelopes in [[read(22), vec![1], signed.clone()], [signed.clone(), vec![1], read(22)]] {
        let values = judge_signed_values(&envelopes, &[endorser(AZURE, FEED, 1)], &evidence, now());
        assert_eq!(values.accepted.as_ref().unwrap().svn, 101);
        assert_eq!(judged(&evidence, values).outcome, Outcome::Passed);
    }

    // A bit that changes anywhere but in the unprotected header, which nobody reads, is a bit too many.
    let timestamp = signed.windows(10).position(|window| window == b"itimestamp").unwrap();
    let payload = signed.windows(10).position(|window| window == b"x-ms-sevsn").unwrap() - 6;
    let mut changes = 0;
    for place in (0..timestamp).chain(payload..signed.len()).step_by(7) {
        let mut edited = signed.clone();
        edited[place] ^= 1 << (place % 8);
        let values = judge_signed_values(&[edited], std::slice::from_ref(&trusted), &evidence, now());
        assert!(values.accepted.is_none(), "changed at {place}");
        changes += 1;
    }
    println!("signed reference values of Azure's: {changes} changed bits, all refused");
    // And one that came along is refused even where nobody's are expected.
    let mut edited = signed;
    edited[payload + 40] ^= 1;
    let values = judge_signed_values(&[edited], &[], &evidence, now());
    assert_eq!(code(&values), Some("reference-info-signature"));
    assert_eq!(judged(&evidence, values).outcome, Outcome::Refused);
}

/// A signer of ours, and a report with this launch digest, of which nobody asks here whether it is authentic.
struct Bench {
    chain: DevelopmentChain,
    evidence: Evidence,
}

impl Bench {
    fn new(tee: Tee) -> Self {
        let (not_before, not_after) = ("2026-01-01".parse().unwrap(), "2026-06-01".parse().unwrap());
        let spec =
            DevelopmentSpec { common_name: "Guests", eku: "1.2.3.4", kind: KeyKind::P384, not_before, not_after };
        let mut report = ReportFields { measurement: [3; 48], ..ReportFields::empty() }.to_unsigned();
        set_signature(&mut report, &Signature { r: [1; 48], s: [2; 48] });
        let evidence = Evidence::new(tee, report.to_vec(), Certificates::default());
        Self { chain: DevelopmentChain::make(&spec).unwrap(), evidence }
    }

    fn sign(&self, payload: &[u8], change: impl FnOnce(&mut Draft<'_>)) -> Vec<u8> {
        let ders: Vec<&[u8]> = self.chain.certificates.iter().map(Vec::as_slice).collect();
        let mut draft = Draft {
            payload,
            content_type: "application/json",
            issuer: self.chain.issuer.as_str(),
            feed: "guest",
            svn: None,
            signing_time: Some("2026-02-01".parse().unwrap()),
            form: Form::Legacy,
            chain: &ders,
        };
        change(&mut draft);
        draft.sign(&self.chain.signer_key, None).unwrap()
    }

    fn judge(&self, envelope: Vec<u8>) -> SignedValues {
        let endorser = endorser(self.chain.issuer.as_str(), "guest", 5);
        judge_signed_values(&[envelope], &[endorser], &self.evidence, now())
    }
}

#[test]
fn ours_are_taken_in_each_form_and_refused_for_each_fault() {
    let bench = Bench::new(Tee::EmulatedSnp);
    let info = ReferenceInfo { svn: 5, tee: Tee::EmulatedSnp, measurements: vec![Hex([2; 48]), Hex([3; 48])] };
    let payload = info.to_json().unwrap();
    let plain = bench.sign(payload.as_bytes(), |_| ());
    let claims = bench.sign(payload.as_bytes(), |draft| {
        draft.form = Form::Claims;
        draft.svn = Some(5);
    });
    let timeless = bench.sign(payload.as_bytes(), |draft| draft.signing_time = None);
    let text = BASE64_STANDARD.encode(&plain).into_bytes();
    for envelope in [plain, claims, timeless, text] {
        let values = bench.judge(envelope);
        assert_eq!((code(&values), values.measurements.clone()), (None, Some(info.measurements.clone())));
    }
    let of = |change: fn(&mut ReferenceInfo)| {
        let mut other = info.clone();
        change(&mut other);
        bench.sign(other.to_json().unwrap().as_bytes(), |_| ())
    };
    let text = payload.as_bytes();
    let other_signer = Bench::new(Tee::EmulatedSnp);
    for (envelope, expected) in [
        (of(|info| info.svn = 4), "reference-info-svn"),
        (of(|info| info.tee = Tee::Snp), "reference-info-tee"),
        (bench.sign(text, |draft| draft.feed = "other"), "reference-info-feed"),
        (bench.sign(text, |draft| draft.content_type = "application/unknown+rego"), "reference-info-malformed"),
        (bench.sign(b"package fragment", |_| ()), "reference-info-malformed"),
        (
            bench.sign(text, |draft| {
                draft.form = Form::Claims;
                draft.svn = Some(6);
            }),
            "reference-info-malformed",
        ),
        (bench.sign(text, |draft| draft.signing_time = Some("2027-01-01".parse().unwrap())), "reference-info-time"),
        // The signer's certificate ended before.
        (
            bench.sign(text, |draft| draft.signing_time = Some("2026-07-01".parse().unwrap())),
            "reference-info-signature",
        ),
        (other_signer.sign(text, |_| ()), "reference-info-issuer"),
    ] {
        let values = bench.judge(envelope);
        assert_eq!((code(&values), values.measurements.clone()), (Some(expected), Some(Vec::new())));
    }
    // Signed with one key, and another's chain over it.
    let mut draft_chain = bench.sign(text, |_| ());
    let place = draft_chain.len() - 20;
    draft_chain[place] ^= 1;
    assert_eq!(code(&bench.judge(draft_chain)), Some("reference-info-signature"));
    // Whoever has the hardware's digest has not the emulated one's, and the other way round.
    let hardware = Bench { evidence: Evidence { tee: Tee::Snp, ..bench.evidence.clone() }, ..bench };
    assert_eq!(code(&hardware.judge(hardware.sign(text, |_| ()))), Some("reference-info-tee"));
}

#[test]
fn signed_values_alone_are_recognised() {
    let bench = Bench::new(Tee::Snp);
    let info = ReferenceInfo { svn: 1, tee: Tee::Snp, measurements: vec![Hex([3; 48])] };
    let signed = bench.sign(info.to_json().unwrap().as_bytes(), |_| ());
    for form in [signed.clone(), BASE64_URL_SAFE_NO_PAD.encode(&signed).into_bytes()] {
        assert!(matches!(recognise(&form), Ok(AnyEvidence::SignedValues(found)) if found == signed));
    }
    let fragment = bench.sign(b"package fragment", |_| ());
    assert!(recognise(&fragment).is_err());
}
