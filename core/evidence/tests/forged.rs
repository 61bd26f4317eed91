//! Chains that look like AMD's, made with other keys, and genuine evidence with bytes changed: none of it verifies.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::sync::LazyLock;

use crate::fixtures::Fixtures;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA384, RsaKeyPair};
use caveau_evidence::{Certificates, Evidence, Profile, Timestamp, verify};
use caveau_snp::certificate::{Certificate, PublicKey};
use caveau_snp::check::first_failure;
use caveau_snp::report::{Report, SIGNED_BYTES, Signature, set_signature};
use proptest::collection::vec;
use proptest::prelude::*;

fn genuine() -> Option<Evidence> {
    Fixtures::open().map(|fixtures| fixtures.report("milan-v3-aci", "milan"))
}

fn codes(evidence: &Evidence) -> Vec<String> {
    let verification = verify(evidence, &Profile::Baseline.rules(now()));
    assert_eq!(verification.verified.is_none(), first_failure(&verification.checks).is_some());
    verification.checks.into_iter().filter_map(|check| check.code).collect()
}

fn now() -> Timestamp {
    "2026-11-23".parse().unwrap()
}

/// A forger's keys.
struct Forger {
    ark: RsaKeyPair,
    ask: RsaKeyPair,
    vek: EcdsaKeyPair,
}

static FORGER: LazyLock<Forger> = LazyLock::new(|| Forger {
    ark: RsaKeyPair::generate(KeySize::Rsa4096).unwrap(),
    ask: RsaKeyPair::generate(KeySize::Rsa4096).unwrap(),
    vek: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
});

/// A genuine certificate with another key of the same kind in it, signed by `issuer`: all names and extensions stay.
fn forge(genuine: &[u8], public_key: &[u8], issuer: &RsaKeyPair) -> Vec<u8> {
    let certificate = Certificate::parse(genuine).unwrap();
    let (PublicKey::P256(old) | PublicKey::P384(old) | PublicKey::Rsa4096(old)) = certificate.public_key();
    let mut forged = replace(genuine, old, public_key);
    let signature_at = forged.len() - 512;
    // SEQUENCE header of four bytes, then the signed part, whose own header has four bytes too.
    let tbs_length = 4 + (usize::from(forged[6]) << 8 | usize::from(forged[7]));
    let mut signature = vec![0; 512];
    issuer.sign(&RSA_PSS_SHA384, &SystemRandom::new(), &forged[4..4 + tbs_length], &mut signature).unwrap();
    forged[signature_at..].copy_from_slice(&signature);
    forged
}

fn replace(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    [&bytes[..at], new, &bytes[at + old.len()..]].concat()
}

/// The genuine report with other report data, signed by the forger.
fn forge_report(report: &[u8]) -> Vec<u8> {
    let mut forged: [u8; 1184] = report.try_into().unwrap();
    forged[0x50] ^= 1;
    let signature = FORGER.vek.sign(&SystemRandom::new(), &forged[..SIGNED_BYTES]).unwrap();
    let (r, s) = signature.as_ref().split_at(48);
    set_signature(&mut forged, &Signature { r: r.try_into().unwrap(), s: s.try_into().unwrap() });
    forged.to_vec()
}

fn forged() -> Option<Evidence> {
    let mut evidence = genuine()?;
    let certificates = &mut evidence.certificates;
    let forge_slot = |slot: &mut Option<Vec<u8>>, key: &[u8], issuer: &RsaKeyPair| {
        *slot = Some(forge(slot.as_ref().unwrap(), key, issuer));
    };
    forge_slot(&mut certificates.root, FORGER.ark.public_key().as_ref(), &FORGER.ark);
    forge_slot(&mut certificates.intermediate, FORGER.ask.public_key().as_ref(), &FORGER.ark);
    forge_slot(&mut certificates.vek, FORGER.vek.public_key().as_ref(), &FORGER.ask);
    evidence.report = forge_report(&evidence.report);
    Some(evidence)
}

/// A chain that is flawless but for its root: names, extensions and signatures are as AMD's.
#[test]
fn a_forged_chain_with_amd_names_fails_at_its_root_alone() {
    let Some(evidence) = forged() else { return };
    assert_eq!(codes(&evidence), ["root-untrusted"]);
}

#[test]
fn a_forged_chain_under_the_real_root_fails_at_its_signature() {
    let (Some(real), Some(mut evidence)) = (genuine(), forged()) else { return };
    evidence.certificates.root.clone_from(&real.certificates.root);
    assert_eq!(codes(&evidence), ["chain-signature"]);
    evidence.certificates.intermediate.clone_from(&real.certificates.intermediate);
    assert_eq!(codes(&evidence), ["chain-signature"]);
    evidence.certificates.vek.clone_from(&real.certificates.vek);
    assert_eq!(codes(&evidence), ["report-signature"]);
}

/// The real root's key in a certificate whose body is another: the anchor is the certificate, not its key.
#[test]
fn a_copy_of_the_root_with_a_flipped_byte_is_no_root() {
    let Some(real) = genuine() else { return };
    let root = real.certificates.root.clone().unwrap();
    // The last byte is the signature's; the years of notAfter stand in the body.
    let not_after = root.windows(13).position(|window| window == b"451022172305Z").unwrap();
    for at in [root.len() - 1, not_after + 1] {
        let mut evidence = real.clone();
        evidence.certificates.root.as_mut().unwrap()[at] ^= 1;
        assert_eq!(codes(&evidence), ["root-untrusted"]);
    }
}

#[test]
fn processors_of_unknown_or_unsupported_lines_get_an_error() {
    let Some(real) = genuine() else { return };
    for (family, model) in [(0x1a, 0x50), (0x1a, 0x9f), (0xff, 0xff), (0x17, 0x31)] {
        let mut evidence = real.clone();
        evidence.report[0x188..0x18a].copy_from_slice(&[family, model]);
        assert_eq!(codes(&evidence)[0], "product-line-unknown", "{family:x}/{model:x}");
    }
}

/// Turin's layout: the same key for another FMC level is another key.
#[test]
fn a_key_for_another_fmc_level_does_not_pass() {
    let Some(fixtures) = Fixtures::open() else { return };
    let mut evidence = fixtures.report("turin-v5-aci", "turin");
    assert!(codes(&evidence).is_empty());
    evidence.report[0x180] ^= 1;
    assert_eq!(codes(&evidence), ["report-signature", "tcb-mismatch"]);
    evidence.certificates.vek = Some(fixtures.read("snp/certs-only/turin-vcek-all-zero-tcb.der"));
    assert!(codes(&evidence).contains(&"tcb-mismatch".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn genuine_evidence_with_a_changed_byte_never_verifies(part in 0usize..4, at: prop::sample::Index, flip in 1u8..) {
        let Some(mut evidence) = genuine() else { return Ok(()) };
        let certificates = &mut evidence.certificates;
        let slot = match part {
            0 => &mut evidence.report,
            1 => certificates.vek.as_mut().unwrap(),
            2 => certificates.intermediate.as_mut().unwrap(),
            _ => certificates.root.as_mut().unwrap(),
        };
        let at = at.index(slot.len());
        slot[at] ^= flip;
        prop_assert!(!codes(&evidence).is_empty(), "part {}, byte {:#x}", part, at);
    }

    #[test]
    fn hostile_certificates_and_reports_get_an_answer(
        report in vec(any::<u8>(), 1184..1185),
        vek in vec(any::<u8>(), 0..600),
        cut: prop::sample::Index,
    ) {
        let Some(mut evidence) = genuine() else { return Ok(()) };
        let _ = Report::parse(&report);
        let intermediate = evidence.certificates.intermediate.as_mut().unwrap();
        let cut = cut.index(intermediate.len());
        intermediate.splice(cut..cut, vek.iter().copied());
        evidence.certificates.vek = Some(vek);
        prop_assert!(!codes(&evidence).is_empty());
        let _ = Certificates::from_table(&report);
        let _ = Certificates::from_thim(&report);
    }
}
