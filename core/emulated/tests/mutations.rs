//! Whatever a byte of evidence is changed to: an answer, never a panic, and never a pass.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::sync::LazyLock;

use crate::processor::{ONE, Persona, now};
use caveau_emulated::{SoftwareRoot, verify};
use caveau_evidence::{Evidence, Profile};
use proptest::collection::vec;
use proptest::prelude::*;

static GENUINE: LazyLock<(SoftwareRoot, Evidence)> =
    LazyLock::new(|| (ONE.root(), ONE.evidence(&Persona::software(5))));

fn is_authentic(evidence: &Evidence) -> bool {
    verify(std::slice::from_ref(&GENUINE.0), evidence, &Profile::Strict.rules(now())).verified.is_some()
}

/// The part of the evidence that is changed.
fn part(evidence: &mut Evidence, index: usize) -> &mut Vec<u8> {
    let certificates = &mut evidence.certificates;
    match index {
        0 => &mut evidence.report,
        1 => certificates.vek.as_mut().unwrap(),
        2 => certificates.intermediate.as_mut().unwrap(),
        3 => certificates.root.as_mut().unwrap(),
        _ => certificates.crl.as_mut().unwrap(),
    }
}

#[test]
fn the_unchanged_evidence_is_authentic() {
    assert!(is_authentic(&GENUINE.1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_changed_byte_is_never_authentic(index in 0usize..5, at: prop::sample::Index, flip in 1u8..) {
        let mut evidence = GENUINE.1.clone();
        let bytes = part(&mut evidence, index);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(!is_authentic(&evidence), "part {}, byte {:#x}", index, at);
    }

    #[test]
    fn cut_or_grown_parts_are_never_authentic(index in 0usize..5, at: prop::sample::Index, grown in vec(any::<u8>(), 1..4), cut: bool) {
        let mut evidence = GENUINE.1.clone();
        let bytes = part(&mut evidence, index);
        if cut {
            bytes.truncate(at.index(bytes.len()));
        } else {
            let at = at.index(bytes.len());
            bytes.splice(at..at, grown);
        }
        prop_assert!(!is_authentic(&evidence));
    }

    #[test]
    fn garbage_is_never_authentic(index in 0usize..5, garbage in vec(any::<u8>(), 0..2000)) {
        let mut evidence = GENUINE.1.clone();
        *part(&mut evidence, index) = garbage;
        prop_assert!(!is_authentic(&evidence));
    }
}
