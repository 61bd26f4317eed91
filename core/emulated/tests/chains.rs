//! Certificates and revocation lists that the genuine authorities signed, with one thing in them that must not be.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use crate::processor::{ONE, Persona, content, edit_extensions, elements, made, now, wrap};
use caveau_emulated::verify;
use caveau_evidence::{Evidence, Profile};
use caveau_snp::build::{CrlSpec, crl_tbs};
use caveau_snp::certificate::Certificate;
use caveau_snp::check::first_failure;

fn authentic(evidence: &Evidence) -> String {
    let verification = verify(&[ONE.root()], evidence, &Profile::Strict.rules(now()));
    assert_eq!(verification.verified.is_some(), first_failure(&verification.checks).is_none());
    first_failure(&verification.checks).unwrap_or("ok").to_owned()
}

/// The to-be-signed part of a certificate or list.
fn tbs_of(der: &[u8]) -> Vec<u8> {
    elements(content(der)).remove(0)
}

/// A to-be-signed part with its elements changed.
fn edit(tbs: &[u8], change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut parts = elements(content(tbs));
    change(&mut parts);
    wrap(0x30, &parts.concat())
}

/// An extension by its identifier's contents.
fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let flag: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    wrap(0x30, &[&wrap(6, oid), flag, &wrap(4, value)].concat())
}

fn is_extension(extension: &[u8], oid: &[u8]) -> bool {
    elements(content(extension))[0] == wrap(6, oid)
}

const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];

#[test]
fn authorities_have_just_the_rights_of_their_place() {
    let mut evidence = ONE.evidence(&Persona::software(5));
    let genuine = tbs_of(evidence.certificates.intermediate.as_ref().unwrap());
    let constraints: [(&str, &[u8], &str); 5] = [
        ("as it is", &[0x30, 6, 1, 1, 0xff, 2, 1, 0], "ok"),
        ("more authorities below it", &[0x30, 6, 1, 1, 0xff, 2, 1, 1], "ca-constraints"),
        ("any number of authorities below it", &[0x30, 3, 1, 1, 0xff], "ca-constraints"),
        ("no authority", &[0x30, 0], "ca-constraints"),
        ("nonsense", &[5, 0], "ca-constraints"),
    ];
    for (name, value, code) in constraints {
        let tbs = edit_extensions(&genuine, |list| {
            let slot = list.iter_mut().find(|one| is_extension(one, BASIC_CONSTRAINTS)).unwrap();
            *slot = extension(BASIC_CONSTRAINTS, true, value);
        });
        evidence.certificates.intermediate = Some(ONE.signed_by_ark(&tbs));
        assert_eq!(authentic(&evidence), code, "{name}");
    }
    // keyUsage cRLSign alone, and none.
    for usage in [Some(extension(KEY_USAGE, true, &[3, 2, 1, 2])), None] {
        let tbs = edit_extensions(&genuine, |list| {
            list.retain(|one| !is_extension(one, KEY_USAGE));
            list.extend(usage);
        });
        evidence.certificates.intermediate = Some(ONE.signed_by_ark(&tbs));
        assert_eq!(authentic(&evidence), "ca-constraints");
    }
}

#[test]
fn keys_are_of_their_kinds() {
    let genuine = ONE.evidence(&Persona::software(5));
    let [vek, intermediate] =
        [&genuine.certificates.vek, &genuine.certificates.intermediate].map(|slot| slot.as_ref().unwrap());
    let spki_of = |der: &[u8]| Certificate::parse(der).unwrap().spki().to_vec();
    let mut rsa_leaf = genuine.clone();
    let tbs = edit(&tbs_of(vek), |parts| parts[6] = spki_of(intermediate));
    rsa_leaf.certificates.vek = Some(ONE.signed_by_ask(&tbs));
    assert_eq!(authentic(&rsa_leaf), "key-type");
    let mut p384_authority = genuine.clone();
    let tbs = edit(&tbs_of(intermediate), |parts| parts[6] = spki_of(vek));
    p384_authority.certificates.intermediate = Some(ONE.signed_by_ark(&tbs));
    assert_eq!(authentic(&p384_authority), "key-type");
}

#[test]
fn names_lead_from_one_to_the_next() {
    let genuine = ONE.evidence(&Persona::software(5));
    let vek = genuine.certificates.vek.as_ref().unwrap();
    let mut evidence = genuine.clone();
    // The root's name as issuer: the chain's signatures hold, its names do not.
    let root = Certificate::parse(genuine.certificates.root.as_ref().unwrap()).unwrap().subject().to_vec();
    let tbs = edit(&tbs_of(vek), |parts| parts[3] = root);
    evidence.certificates.vek = Some(ONE.signed_by_ask(&tbs));
    assert_eq!(authentic(&evidence), "issuer-name");
    // Endorsement key and intermediate of another kind each.
    let vlek = ONE.evidence(&Persona::vlek());
    let mut mixed = genuine.clone();
    mixed.certificates.intermediate.clone_from(&vlek.certificates.intermediate);
    assert_eq!(authentic(&mixed), "intermediate-kind");
    let mut mixed = vlek;
    mixed.certificates.intermediate.clone_from(&genuine.certificates.intermediate);
    assert_eq!(authentic(&mixed), "intermediate-kind");
    let mut no_root = genuine.clone();
    no_root.certificates.root.clone_from(&genuine.certificates.intermediate);
    assert_eq!(authentic(&no_root), "root-name");
}

/// Names are shown to people before it is known whose they are: none may hold what a terminal would obey.
#[test]
fn names_have_no_control_characters() {
    let genuine = ONE.evidence(&Persona::software(5));
    let vek = genuine.certificates.vek.as_ref().unwrap();
    let mut evidence = genuine.clone();
    for (byte, code) in [
        (b' ', "leaf-kind"),
        (b'~', "leaf-kind"),
        (0x1b, "certificate-malformed"),
        (0x7f, "certificate-malformed"),
        (b'\n', "certificate-malformed"),
        (0, "certificate-malformed"),
    ] {
        let tbs = edit(&tbs_of(vek), |parts| {
            let start = parts[5].windows(8).position(|window| window == b"SEV-VCEK").unwrap();
            parts[5][start + 3] = byte;
        });
        evidence.certificates.vek = Some(ONE.signed_by_ask(&tbs));
        assert_eq!(authentic(&evidence), code, "{byte:#x}");
        let judged =
            caveau_evidence::judge(&evidence, &caveau_evidence::Expectations::default(), Profile::Strict, now());
        let shown = judged.checks.iter().map(|check| check.sentence.as_str()).collect::<String>() + &judged.summary;
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }
}

/// RSASSA-PSS with another salt, named inside and outside alike: the parameters are read, not just the algorithm.
#[test]
fn signatures_have_the_one_set_of_parameters() {
    let mut evidence = ONE.evidence(&Persona::software(5));
    let vek = evidence.certificates.vek.clone().unwrap();
    let mut shorter_salt = vek.clone();
    let salt = [0xa2, 3, 2, 1, 0x30];
    let places: Vec<usize> = (0..vek.len() - 5).filter(|at| vek[*at..*at + 5] == salt).collect();
    assert_eq!(places.len(), 2);
    for at in &places {
        shorter_salt[at + 4] = 0x20;
    }
    evidence.certificates.vek = Some(shorter_salt.clone());
    assert_eq!(authentic(&evidence), "certificate-malformed");
    shorter_salt[places[0] + 4] = 0x30;
    evidence.certificates.vek = Some(shorter_salt);
    assert_eq!(authentic(&evidence), "certificate-malformed");
}

/// A list in the name of the root with this identity, changed, and signed by [`ONE`].
fn list(root_id: &str, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let tbs = crl_tbs(&CrlSpec {
        root_id,
        this_update: made(),
        next_update: made().plus_seconds(30 * 24 * 3600),
        number: 7,
        revoked: &[],
    });
    ONE.signed_by_ark(&edit(&tbs, change))
}

#[test]
fn revocation_lists_are_whole_and_of_their_root() {
    type Change = fn(&mut Vec<Vec<u8>>);
    // version, algorithm, issuer, thisUpdate, nextUpdate, extensions
    let changes: [(&str, &str, Change); 7] = [
        ("as it is", "ok", |_| ()),
        ("without nextUpdate", "crl-malformed", |parts| drop(parts.remove(4))),
        ("version 1", "crl-malformed", |parts| drop(parts.remove(0))),
        ("without extensions", "crl-malformed", |parts| drop(parts.remove(5))),
        ("a delta of another list", "crl-malformed", |parts| {
            let extensions =
                [extension(&[0x55, 0x1d, 0x1b], true, &[2, 1, 1]), extension(&[0x55, 0x1d, 0x14], false, &[2, 1, 7])];
            parts[5] = wrap(0xa0, &wrap(0x30, &extensions.concat()));
        }),
        ("a negative number", "crl-malformed", |parts| {
            parts[5] = wrap(0xa0, &wrap(0x30, &extension(&[0x55, 0x1d, 0x14], false, &[2, 1, 0x87])));
        }),
        ("something behind it", "crl-malformed", |parts| parts.push(vec![5, 0])),
    ];
    let mut evidence = ONE.evidence(&Persona::software(5));
    for (name, code, change) in changes {
        evidence.certificates.crl = Some(list(&ONE.root_id, change));
        assert_eq!(authentic(&evidence), code, "{name}");
    }
    evidence.certificates.crl = Some(list("0123456789abcdef", |_| ()));
    assert_eq!(authentic(&evidence), "crl-issuer");
}
