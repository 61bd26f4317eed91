//! Thousands of changes of recorded evidence: a part of it mutated, or exchanged for another's.

use caveau_differential::{Dice, Listed, mutate};
use caveau_evidence::{Evidence, Profile, Timestamp, verify};

use super::{Comparison, pieces};
use crate::fixtures::Fixtures;

const PIECES: usize = 4000;

/// What ours refuses of changed evidence by checks that the other does not make.
const OURS_ALONE: Listed = &[
    (
        "certificate-malformed",
        "of a certificate's outer AlgorithmIdentifier, which nobody signed, it looks at the first identifier alone",
    ),
    (
        "report-signature + tcb-layout",
        "it verifies the signature over an encoding of its own, in which the unused bytes of TCBs are zero: changed ones pass",
    ),
    ("reserved-nonzero-0x2d0", "of R it takes 48 bytes of 72"),
    ("reserved-nonzero-0x318", "of S it takes 48 bytes of 72"),
    ("reserved-nonzero-0x330", "it does not look at the bytes after the signature, which nobody signed"),
];

/// The fields of a report by offset and length.
const FIELDS: [(usize, usize); 27] = [
    (0x000, 4),
    (0x004, 4),
    (0x008, 8),
    (0x010, 16),
    (0x020, 16),
    (0x030, 4),
    (0x034, 4),
    (0x038, 8),
    (0x040, 8),
    (0x048, 4),
    (0x050, 64),
    (0x090, 48),
    (0x0c0, 32),
    (0x0e0, 48),
    (0x110, 48),
    (0x140, 32),
    (0x160, 32),
    (0x180, 8),
    (0x188, 3),
    (0x1a0, 64),
    (0x1e0, 8),
    (0x1e8, 3),
    (0x1ec, 3),
    (0x1f0, 8),
    (0x1f8, 8),
    (0x2a0, 72),
    (0x2e8, 72),
];

/// Changes a piece; what was done, in words.
fn change(evidence: &mut Evidence, other: &Evidence, dice: &mut Dice) -> String {
    let part = dice.below(20);
    if part < 4 {
        return change_fields(&mut evidence.report, &other.report, dice);
    }
    let (certificates, others) = (&mut evidence.certificates, &other.certificates);
    let (name, slot, other) = match part {
        4..=11 => ("report", &mut evidence.report, &other.report),
        12..=14 => ("VEK", certificates.vek.as_mut().unwrap(), others.vek.as_ref().unwrap()),
        15 | 16 => ("intermediate", certificates.intermediate.as_mut().unwrap(), others.intermediate.as_ref().unwrap()),
        17 => ("root", certificates.root.as_mut().unwrap(), others.root.as_ref().unwrap()),
        _ => return exchange(evidence, other, dice),
    };
    format!("{name} {:?}", mutate(slot, other, dice))
}

/// A whole field of another report, or two fields of one length, the one for the other.
fn change_fields(report: &mut [u8], other: &[u8], dice: &mut Dice) -> String {
    let (at, length) = *dice.one_of(&FIELDS);
    let alike: Vec<usize> =
        FIELDS.iter().filter(|field| field.1 == length && field.0 != at).map(|field| field.0).collect();
    if alike.is_empty() || dice.once_in(2) {
        report[at..at + length].copy_from_slice(&other[at..at + length]);
        return format!("the other's field at {at:#x}");
    }
    let second = *dice.one_of(&alike);
    (0..length).for_each(|offset| report.swap(at + offset, second + offset));
    format!("fields at {at:#x} and {second:#x} exchanged")
}

/// Whole parts of another's evidence.
fn exchange(evidence: &mut Evidence, other: &Evidence, dice: &mut Dice) -> String {
    let parts = 1 + dice.below(7);
    if parts & 1 != 0 {
        evidence.certificates.vek.clone_from(&other.certificates.vek);
    }
    if parts & 2 != 0 {
        evidence.certificates.intermediate.clone_from(&other.certificates.intermediate);
    }
    if parts & 4 != 0 {
        evidence.certificates.root.clone_from(&other.certificates.root);
    }
    format!("certificates {parts:#b} of another")
}

#[test]
fn changed_reports_and_certificates() {
    let Some(fixtures) = Fixtures::open() else { return };
    let cases = fixtures.cases("snp-report");
    let genuine: Vec<(&str, Evidence, Timestamp)> = cases
        .iter()
        .map(|case| {
            let dates = case["authentic"].as_object().unwrap();
            let (date, _) = dates.iter().find(|(_, verdict)| *verdict == "ok").unwrap();
            (case["id"].as_str().unwrap(), fixtures.report_case(case), date.parse().unwrap())
        })
        .collect();
    let mut comparison = Comparison::new(OURS_ALONE, &[]);
    let mut dice = Dice::new(0x5e7);
    let mut round = 0;
    while round < PIECES {
        let (name, base, at) = dice.one_of(&genuine);
        let (_, other, _) = dice.one_of(&genuine);
        let mut evidence = base.clone();
        let done = change(&mut evidence, other, &mut dice);
        if evidence == *base {
            continue;
        }
        round += 1;
        let verification = verify(&evidence, &Profile::Baseline.rules(*at));
        let claims = verification.verified.as_deref();
        comparison.hold(&format!("{round}, {name}: {done}"), &verification.checks, claims, pieces(&evidence));
    }
    comparison.close("changed reports and certificates");
}
