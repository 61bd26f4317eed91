//! Every persona of a software secure processor: accepted under its root, refused everywhere else and by every changed field.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use crate::fixtures::Fixtures;
use crate::processor::{ONE, OTHER, Persona, amd_extension, edit_extensions, is_amd_extension, now, wrap};
use caveau_emulated::{SoftwareRoot, SoftwareRootError, judge, verify};
use caveau_evidence::{
    Appraisal, Evidence, Expectations, ExpectedReportData, Hex, Minimum, Outcome, Product, Profile, Tee, TeeClass, Use,
    report_data,
};
use caveau_snp::build::ASK_SERIAL;
use caveau_snp::check::first_failure;
use caveau_snp::product::{Fms, ProductLine};
use caveau_snp::report::HOST_VMPL;
use caveau_snp::tcb::Tcb;

const NONCE: [u8; 32] = [0x6e; 32];

fn fms(family: u8, model: u8, stepping: u8) -> Fms {
    Fms { family, model, stepping }
}

fn personas() -> Vec<(&'static str, Persona)> {
    vec![
        ("software", Persona::software(5)),
        ("software-v2", Persona::software(2)),
        ("software-v3", Persona::software(3)),
        ("software-v4", Persona::software(4)),
        ("milan-v2", Persona::line(ProductLine::Milan, 2, Fms::default(), "Milan-B0")),
        ("milan", Persona::line(ProductLine::Milan, 3, fms(0x19, 1, 1), "Milan-B0")),
        ("genoa", Persona::line(ProductLine::Genoa, 3, fms(0x19, 0x11, 1), "Genoa")),
        ("turin", Persona::line(ProductLine::Turin, 5, fms(0x1a, 2, 1), "Turin")),
        ("vlek", Persona::vlek()),
    ]
}

fn judged(evidence: &Evidence, expected: &Expectations, profile: Profile) -> Appraisal {
    judge(&[OTHER.root(), ONE.root()], evidence, expected, profile, now())
}

/// The code of the first authenticity check that fails.
fn authentic(evidence: &Evidence) -> String {
    let verification = verify(&[ONE.root()], evidence, &Profile::Strict.rules(now()));
    assert_eq!(verification.verified.is_some(), first_failure(&verification.checks).is_none());
    first_failure(&verification.checks).unwrap_or("ok").to_owned()
}

/// The default persona, its report made for the nonce, and what its owner expects.
fn expected() -> (Persona, Expectations) {
    let mut persona = Persona::software(5);
    persona.fields.report_data = report_data(Use::Challenge, &NONCE, b"").0;
    persona.fields.measurement = [3; 48];
    persona.fields.host_data = [4; 32];
    let expectations = Expectations {
        report_data: Some(ExpectedReportData::Challenge(NONCE.to_vec())),
        policy_digest: Some(Hex([4; 32])),
        measurements: Some(vec![Hex([3; 48])]),
        ..Expectations::default()
    };
    (persona, expectations)
}

#[test]
fn each_persona_is_authentic_under_its_root_alone() {
    for (name, persona) in personas() {
        let evidence = ONE.evidence(&persona);
        assert_eq!(authentic(&evidence), "ok", "{name}");
        let under_other = verify(&[OTHER.root()], &evidence, &Profile::Baseline.rules(now()));
        assert_eq!(first_failure(&under_other.checks), Some("root-untrusted"), "{name}");
        let under_none = verify(&[], &evidence, &Profile::Baseline.rules(now()));
        assert_eq!(first_failure(&under_none.checks), Some("root-untrusted"), "{name}");
    }
}

/// Both entries of the hardware verifier, with the file's word against itself and with a lie in it, under both profiles.
#[test]
fn the_hardware_verifier_refuses_each_persona_whatever_the_file_says() {
    for (name, persona) in personas() {
        let mut evidence = ONE.evidence(&persona);
        for (tee, first) in [(Tee::EmulatedSnp, "emulated-tee"), (Tee::Snp, "software-root")] {
            evidence.tee = tee;
            for profile in [Profile::Baseline, Profile::Strict] {
                let appraisal = caveau_evidence::judge(&evidence, &Expectations::default(), profile, now());
                assert_eq!((appraisal.outcome, appraisal.first_failure()), (Outcome::Refused, Some(first)), "{name}");
                assert_eq!(
                    (appraisal.tee_class, appraisal.claims.is_none()),
                    (Some(TeeClass::Emulated), true),
                    "{name}"
                );
                let verification = caveau_evidence::verify(&evidence, &profile.rules(now()));
                assert_eq!(first_failure(&verification.checks), Some(first), "{name}");
                assert!(verification.verified.is_none(), "{name}");
                let examined = appraisal.checks.iter().take(verification.checks.len());
                assert!(examined.eq(&verification.checks), "{name}: both entries make the same checks");
                // Other locks hold where one is broken.
                let codes: Vec<_> = verification.checks.iter().filter_map(|check| check.code.as_deref()).collect();
                let others = ["software-root", "product-line-unknown", "product-line-mismatch", "root-untrusted"];
                assert!(codes.iter().filter(|code| others.contains(code)).count() >= 2, "{name}: {codes:?}");
            }
        }
        assert_eq!(authentic(&evidence), "hardware-tee", "{name}");
    }
}

#[test]
fn what_is_expected_passes_and_says_that_it_is_emulated() {
    let (persona, expectations) = expected();
    let appraisal = judged(&ONE.evidence(&persona), &expectations, Profile::Strict);
    assert_eq!(appraisal.outcome, Outcome::Passed, "{:#?}", appraisal.checks);
    assert_eq!(appraisal.tee_class, Some(TeeClass::Emulated));
    assert!(appraisal.summary.contains("EMULATED"));
    assert_eq!(appraisal.claims.unwrap().tee_class, TeeClass::Emulated);
    let bare = judged(&ONE.evidence(&persona), &Expectations::default(), Profile::Strict);
    assert_eq!(bare.outcome, Outcome::AuthenticNotAppraised);
    assert!(bare.summary.contains("nonce, policy, measurement"), "{}", bare.summary);
}

#[test]
fn the_nonce_covers_what_came_along() {
    let (mut persona, expectations) = expected();
    persona.fields.report_data = report_data(Use::Challenge, &NONCE, b"key").0;
    let mut evidence = ONE.evidence(&persona);
    evidence.runtime_data = b"key".to_vec();
    assert_eq!(judged(&evidence, &expectations, Profile::Strict).outcome, Outcome::Passed);
    evidence.runtime_data = b"yek".to_vec();
    assert_eq!(judged(&evidence, &expectations, Profile::Strict).first_failure(), Some("report-data"));
    persona.fields.report_data = report_data(Use::KeyRelease, &NONCE, b"key").0;
    let mut other_use = ONE.evidence(&persona);
    other_use.runtime_data = b"key".to_vec();
    assert_eq!(judged(&other_use, &expectations, Profile::Strict).first_failure(), Some("report-data"));
}

/// A change of a persona.
type Change = fn(&mut Persona);

/// Mutated fields with valid signatures: what no mutated hardware report can show.
#[test]
fn each_branch_of_the_appraisal_has_its_code() {
    let changes: [(&str, Change); 19] = [
        ("vmpl", |p| p.fields.vmpl = 1),
        ("host-requested", |p| p.fields.vmpl = HOST_VMPL),
        ("guest-policy", |p| p.fields.policy = 0x1_0000),
        ("guest-policy", |p| p.fields.policy = 0x8000_0000_0003_0000),
        ("debug", |p| p.fields.policy |= 1 << 19),
        ("migration-agent", |p| p.fields.policy |= 1 << 18),
        ("migration-agent", |p| p.fields.report_id_ma = [1; 32]),
        ("provisional-firmware", |p| p.fields.current_tcb += 1 << 56),
        ("provisional-firmware", |p| p.fields.current_firmware.build += 1),
        ("minimum-version", |p| p.fields.version = 2),
        ("alias-check", |p| p.fields.platform_info = 0),
        ("tcb-order", |p| {
            p.fields.committed_tcb -= 1 << 56;
            p.fields.current_tcb -= 1 << 56;
        }),
        ("minimum-tcb", |p| *p = p.clone().with_tcb(Tcb { snp: 23, ..p.tcb })),
        ("minimum-tcb", |p| p.fields.launch_tcb -= 1 << 48),
        ("chip-masked", |p| p.fields.chip_id = [0; 64]),
        ("provider", |p| {
            let mut vlek = Persona::vlek();
            (vlek.fields.version, vlek.fields.host_data) = (5, p.fields.host_data);
            (vlek.fields.report_data, vlek.fields.measurement) = (p.fields.report_data, p.fields.measurement);
            *p = vlek;
        }),
        ("report-data", |p| p.fields.report_data[63] ^= 1),
        ("host-data", |p| p.fields.host_data[0] ^= 1),
        ("measurement", |p| p.fields.measurement[47] ^= 1),
    ];
    let (base, expectations) = expected();
    let tcb = Some(Tcb { snp: 24, ..Tcb::default() });
    let minima = vec![Minimum { product: Product::Software, tcb, firmware: None, as_of: None }];
    let expectations = Expectations { minima, ..expectations };
    for (code, change) in changes {
        let mut persona = base.clone();
        change(&mut persona);
        let appraisal = judged(&ONE.evidence(&persona), &expectations, Profile::Strict);
        assert_eq!((appraisal.outcome, appraisal.first_failure()), (Outcome::Refused, Some(code)));
    }
    println!("appraisal: {} changed fields, all with their codes", changes.len());
}

#[test]
fn firmware_minima_hold_for_the_line_that_is_played() {
    let played = |line, model, name, snp, build| {
        let mut persona = Persona::line(line, 3, fms(0x19, model, 1), name);
        let tcb = Tcb { snp, ..persona.tcb };
        persona = persona.with_tcb(tcb);
        persona.fields.current_firmware = caveau_snp::report::FirmwareVersion { major: 1, minor: 55, build };
        persona.fields.committed_firmware = persona.fields.current_firmware;
        let chips = Some(vec![Hex(persona.fields.chip_id)]);
        let expectations = Expectations { chips, ..Expectations::default() };
        judged(&ONE.evidence(&persona), &expectations, Profile::Strict).first_failure().map(str::to_owned)
    };
    assert_eq!(played(ProductLine::Milan, 1, "Milan-B0", 0x18, 22), None);
    assert_eq!(played(ProductLine::Milan, 1, "Milan-B0", 0x17, 22).as_deref(), Some("minimum-tcb"));
    assert_eq!(played(ProductLine::Milan, 1, "Milan-B0", 0x18, 21).as_deref(), Some("minimum-firmware"));
    assert_eq!(played(ProductLine::Genoa, 0x11, "Genoa", 0x17, 38), None);
    assert_eq!(played(ProductLine::Genoa, 0x11, "Genoa", 0x17, 37).as_deref(), Some("minimum-firmware"));
}

#[test]
fn each_branch_of_the_examination_has_its_code() {
    let changes: [(&str, Change); 9] = [
        ("crl-missing", |p| p.crl = false),
        ("intermediate-revoked", |p| p.revoked = vec![1, ASK_SERIAL]),
        ("product-line-unknown", |p| p.fields.fms = Some(fms(0x1a, 0x50, 0))),
        ("product-line-unknown", |p| p.fields.fms = Some(fms(1, 2, 3))),
        ("product-line-mismatch", |p| p.fields.chip_id[0] = b's'),
        ("product-name", |p| p.product_name = "Genoa"),
        ("product-name", |p| p.product_name = "Softwares"),
        ("tcb-mismatch", |p| p.tcb.microcode -= 1),
        ("tcb-layout", |p| p.fields.reported_tcb |= 1 << 16),
    ];
    for (code, change) in changes {
        let mut persona = Persona::software(5);
        change(&mut persona);
        assert_eq!(authentic(&ONE.evidence(&persona)), code);
    }
    let mut other_chip = ONE.evidence(&Persona::software(5));
    let mut persona = Persona::software(5);
    persona.fields.chip_id[63] ^= 1;
    other_chip.report = ONE.report(&persona);
    assert_eq!(authentic(&other_chip), "hwid-mismatch");
    let mut vlek = ONE.evidence(&Persona::software(5));
    vlek.certificates.vek = ONE.evidence(&Persona::vlek()).certificates.vek;
    assert_eq!(authentic(&vlek), "leaf-kind");
}

/// Changes of the endorsement key's certificate, signed anew: the bugs of other verifiers.
#[test]
fn malformed_extensions_have_no_second_meaning() {
    let snp_level = &[3, 3][..];
    let hwid = &[4][..];
    let replace = |arcs: &'static [u8], value: Vec<u8>| {
        move |list: &mut Vec<Vec<u8>>| {
            let slot = list.iter_mut().find(|extension| is_amd_extension(extension, arcs)).unwrap();
            *slot = amd_extension(arcs, &value);
        }
    };
    type Edit = Box<dyn Fn(&mut Vec<Vec<u8>>)>;
    let edits: Vec<(&str, &str, Edit)> = vec![
        ("two bytes", "vek-extensions", Box::new(replace(snp_level, vec![2, 2, 1, 0x18]))),
        ("not minimal", "vek-extensions", Box::new(replace(snp_level, vec![2, 2, 0, 0x18]))),
        ("empty integer", "vek-extensions", Box::new(replace(snp_level, vec![2, 0]))),
        ("empty value", "vek-extensions", Box::new(replace(snp_level, vec![]))),
        ("trailing byte", "vek-extensions", Box::new(replace(snp_level, vec![2, 1, 0x18, 0]))),
        ("level of no part", "vek-extensions", Box::new(replace(&[3, 6], vec![2, 1, 1]))),
        (
            "level of another line's part",
            "vek-extensions",
            Box::new(|list| list.push(amd_extension(&[3, 9], &[2, 1, 1]))),
        ),
        ("negative", "vek-extensions", Box::new(replace(snp_level, vec![2, 1, 0x98]))),
        ("twice", "certificate-malformed", Box::new(move |list| list.push(amd_extension(snp_level, &[2, 1, 0x18])))),
        ("missing", "vek-extensions", Box::new(move |list| list.retain(|one| !is_amd_extension(one, snp_level)))),
        ("no chip", "vek-identity", Box::new(move |list| list.retain(|one| !is_amd_extension(one, hwid)))),
        ("short chip", "vek-extensions", Box::new(replace(hwid, vec![7; 63]))),
        ("chip and provider", "vek-identity", Box::new(|list| list.push(amd_extension(&[5], &wrap(0x16, b"CN=x"))))),
        ("another version", "vek-extensions", Box::new(replace(&[1], vec![2, 1, 1]))),
        ("unknown AMD extension", "ok", Box::new(|list| list.push(amd_extension(&[77], &[5, 0])))),
        ("unknown critical", "unknown-critical-extension", Box::new(|list| list.push(critical_extension()))),
        ("no marker", "software-marker-missing", Box::new(|list| drop(list.pop()))),
        ("product with an escape", "vek-extensions", Box::new(replace(&[2], wrap(0x16, b"Software-\x1b[2J")))),
        ("may sign", "ca-constraints", Box::new(|list| list.insert(0, authority_extension()))),
    ];
    let persona = Persona::software(5);
    let mut evidence = ONE.evidence(&persona);
    for (name, code, edit) in &edits {
        let tbs = edit_extensions(&ONE.vek_tbs(&persona), |list| edit(list));
        evidence.certificates.vek = Some(ONE.signed_by_ask(&tbs));
        assert_eq!(authentic(&evidence), *code, "{name}");
    }
    println!("extensions: {} changes, all with their codes", edits.len());
}

/// 1.2.3.4, critical.
fn critical_extension() -> Vec<u8> {
    wrap(0x30, &[wrap(6, &[0x2a, 3, 4]), vec![1, 1, 0xff], wrap(4, &[5, 0])].concat())
}

/// basicConstraints: an authority.
fn authority_extension() -> Vec<u8> {
    wrap(0x30, &[wrap(6, &[0x55, 0x1d, 0x13]), vec![1, 1, 0xff], wrap(4, &[0x30, 3, 1, 1, 0xff])].concat())
}

#[test]
fn hardware_ids_that_look_like_der_are_read() {
    for first in [[0x02, 0xea], [0x04, 0x3e], [0x04, 0x40]] {
        let mut persona = Persona::software(5);
        // The prefix stays: the two bytes come right after it, and lead in the form wrapped in an OCTET STRING.
        persona.fields.chip_id[8..10].copy_from_slice(&first);
        let mut evidence = ONE.evidence(&persona);
        assert_eq!(authentic(&evidence), "ok");
        let wrapped = wrap(4, &persona.fields.chip_id);
        let tbs = edit_extensions(&ONE.vek_tbs(&persona), |list| {
            let slot = list.iter_mut().find(|one| is_amd_extension(one, &[4])).unwrap();
            *slot = amd_extension(&[4], &wrapped);
        });
        evidence.certificates.vek = Some(ONE.signed_by_ask(&tbs));
        assert_eq!(authentic(&evidence), "ok");
    }
}

#[test]
fn only_a_software_root_can_be_allowed() {
    let der = ONE.ark_certificate();
    assert_eq!(SoftwareRoot::parse(&der).unwrap().id(), ONE.root_id);
    let ask = ONE.evidence(&Persona::software(5)).certificates.intermediate.unwrap();
    assert!(matches!(SoftwareRoot::parse(&ask), Err(SoftwareRootError::WrongName { .. })));
    let mut flipped = der.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(matches!(SoftwareRoot::parse(&flipped), Err(SoftwareRootError::WrongName { .. })));
    assert!(matches!(SoftwareRoot::parse(b"-----BEGIN CERTIFICATE-----"), Err(SoftwareRootError::Pem)));
    assert!(matches!(SoftwareRoot::parse(&der[1..]), Err(SoftwareRootError::Certificate(_))));
    let Some(ark) = fixture("snp/roots/milan-ark.der") else { return };
    assert!(matches!(SoftwareRoot::parse(&ark), Err(SoftwareRootError::NotMarked(_))));
}

fn fixture(name: &str) -> Option<Vec<u8>> {
    Fixtures::open().map(|fixtures| fixtures.read(name))
}

/// Real evidence stays hardware's: no software root makes it pass here, whatever the file says it is.
#[test]
fn evidence_of_hardware_is_not_judged_here() {
    let (Some(report), Some(vek)) =
        (fixture("snp/reports/milan-v3-aci/report.bin"), fixture("snp/reports/milan-v3-aci/vcek.der"))
    else {
        return;
    };
    let mut evidence = ONE.evidence(&Persona::software(5));
    evidence.report = report;
    // A real VCEK in a software chain, and the whole real chain.
    evidence.certificates.vek = Some(vek);
    assert_eq!(authentic(&evidence), "software-marker-missing");
    evidence.certificates.intermediate = fixture("snp/roots/milan-ask.der");
    evidence.certificates.root = fixture("snp/roots/milan-ark.der");
    assert_eq!(authentic(&evidence), "software-marker-missing");
    evidence.tee = Tee::Snp;
    assert_eq!(authentic(&evidence), "hardware-tee");
}
