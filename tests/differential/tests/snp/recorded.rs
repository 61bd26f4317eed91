//! Recorded reports, and the changes of them that the cases describe.

use caveau_differential::Listed;
use caveau_evidence::{Evidence, Profile, Timestamp, verify};

use super::{Comparison, peer, pieces};
use crate::fixtures::Fixtures;

/// What ours refuses of recorded evidence by checks that the other does not make.
const OURS_ALONE: Listed = &[
    ("cert-validity", "it reads no dates"),
    ("reserved-nonzero-0x2d0", "of R it takes 48 bytes of 72"),
    ("reserved-nonzero-0x318", "of S it takes 48 bytes of 72"),
    ("reserved-nonzero-0x330", "it does not look at the bytes after the signature, which nobody signed"),
];

/// Both verifiers' words on a piece at a date.
fn hold(comparison: &mut Comparison, name: &str, evidence: &Evidence, date: &str) {
    let at = date.parse::<Timestamp>().unwrap().plus_seconds(12 * 3600);
    let verification = verify(evidence, &Profile::Baseline.rules(at));
    let claims = verification.verified.as_deref();
    comparison.hold(&format!("{name} at {date}"), &verification.checks, claims, pieces(evidence));
}

#[test]
fn recorded_reports_and_changes_of_them() {
    let Some(fixtures) = Fixtures::open() else { return };
    let mut comparison = Comparison::new(OURS_ALONE, &[]);
    for kind in ["snp-report", "snp-negative"] {
        for case in fixtures.cases(kind) {
            let genuine = kind == "snp-report";
            let evidence = if genuine { fixtures.report_case(&case) } else { fixtures.negative(&case) };
            let name = case["id"].as_str().unwrap();
            for date in case["authentic"].as_object().unwrap().keys() {
                hold(&mut comparison, name, &evidence, date);
            }
            // Remembering pairs of certificates, or a chain, it says what it does of everything at once.
            let all = pieces(&evidence);
            let remembering = comparison.peer.verify(all).is_ok();
            assert_eq!(peer::verify_whole(all).is_ok(), remembering, "{name}");
            let vek = peer::verified_vek(all.vek, all.intermediate, all.root);
            assert_eq!(vek.and_then(|vek| peer::verify_report(&vek, all.report)).is_ok(), remembering, "{name}");
        }
    }
    assert!(comparison.ledger.accepted() >= 8);
    comparison.close("recorded reports");
}
