//! The owner's standing expectations, from appraisal policies, each held against a really signed report: what is as expected
//! passes, and each thing that is not has its code.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use crate::processor::{ONE, Persona, made, now};
use caveau_emulated::judge;
use caveau_evidence::{Appraisal, Expectations, ExpectedReportData, Timestamp};
use caveau_evidence::{AppraisalPolicy, Evidence, Outcome, Profile, Use, report_data};
use caveau_snp::product::{Fms, ProductLine};
use caveau_snp::report::FirmwareVersion;
use serde_json::{Value, json};

const NONCE: [u8; 32] = [0x6e; 32];

/// A processor and a guest with something in every field that can be expected.
fn persona() -> Persona {
    let mut persona = Persona::software(5);
    let fields = &mut persona.fields;
    fields.report_data = report_data(Use::Challenge, &NONCE, b"").0;
    (fields.measurement, fields.host_data) = ([3; 48], [4; 32]);
    (fields.id_key_digest, fields.author_key_digest, fields.author_key_enabled) = ([5; 48], [6; 48], true);
    (fields.family_id, fields.image_id, fields.guest_svn, fields.report_id) = ([7; 16], [8; 16], 9, [10; 32]);
    fields.platform_info = 0x24;
    fields.policy = 0x3_0133;
    (fields.launch_mit_vector, fields.current_mit_vector) = (Some(3), Some(7));
    let firmware = FirmwareVersion { major: 1, minor: 58, build: 2 };
    (fields.current_firmware, fields.committed_firmware) = (firmware, firmware);
    persona
}

fn hex(byte: u8, times: usize) -> String {
    format!("{byte:02x}").repeat(times)
}

/// All that an owner can expect of [`persona`].
fn policy() -> Value {
    let chip = persona().fields.chip_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    json!({
        "format": "caveau-appraisal-policy/1",
        "product_lines": { "Software": {
            "least_tcb": { "bootloader": 4, "tee": 0, "snp": 24, "microcode": 219 }, "least_firmware": "1.58.2"
        } },
        "chips": { "allow": [chip, hex(1, 64)], "deny": [hex(2, 64)] },
        "firmware": { "mitigations": "0x3" },
        "platform_info": { "required": ["ecc_on"], "forbidden": ["smt_on", "tsme_on"] },
        "guest_policy": {
            "exact": "0x30133", "required": ["smt_allowed"], "forbidden": ["cxl_allowed"], "least_abi": "1.51"
        },
        "guest": {
            "policy_digest": hex(4, 32), "measurements": [hex(1, 48), hex(3, 48)], "vmpl": 0,
            "id_keys": [hex(5, 48)], "author_keys": [hex(1, 48), hex(6, 48)],
            "family_id": hex(7, 16), "image_id": hex(8, 16), "least_svn": 9, "report_id": hex(10, 32)
        },
        "revocation": { "least_number": 7 }
    })
}

fn judged_at(evidence: &Evidence, policy: &Value, profile: Profile, at: Timestamp) -> Appraisal {
    let policy = AppraisalPolicy::parse(policy.to_string().as_bytes()).unwrap();
    let report_data = Some(ExpectedReportData::Challenge(NONCE.to_vec()));
    let expected = Expectations { report_data, ..policy.expectations };
    judge(&[ONE.root()], evidence, &expected, profile, at)
}

fn judged(persona: &Persona, policy: &Value) -> Appraisal {
    judged_at(&ONE.evidence(persona), policy, Profile::Strict, now())
}

#[test]
fn what_is_expected_in_everything_passes() {
    let appraisal = judged(&persona(), &policy());
    assert_eq!(appraisal.outcome, Outcome::Passed, "{:#?}", appraisal.checks);
    let list = appraisal.claims.unwrap().endorsement.revocation_list.unwrap();
    assert_eq!((list.number, list.this_update), (7, made().minus_seconds(3600)));
}

/// One expectation after the other is changed to what the report is not.
#[test]
fn each_expectation_refuses_what_is_not_so() {
    let changes = [
        ("/product_lines", json!({ "Genoa": {}, "Milan": {}, "Turin": {} }), "product-line-refused"),
        ("/product_lines", json!({}), "product-line-refused"),
        ("/product_lines/Software/least_tcb/bootloader", json!(5), "minimum-tcb"),
        ("/product_lines/Software/least_tcb/tee", json!(1), "minimum-tcb"),
        ("/product_lines/Software/least_tcb/snp", json!(25), "minimum-tcb"),
        ("/product_lines/Software/least_tcb/microcode", json!(220), "minimum-tcb"),
        ("/product_lines/Software/least_firmware", json!("1.58.3"), "minimum-firmware"),
        ("/product_lines/Software/least_firmware", json!("2.0.0"), "minimum-firmware"),
        ("/chips/allow", json!([]), "chip-refused"),
        ("/chips/allow", json!([hex(1, 64)]), "chip-refused"),
        ("/chips/deny", policy()["chips"]["allow"].clone(), "chip-refused"),
        ("/provider", json!("CN=softsp.invalid"), "provider"),
        ("/firmware/mitigations", json!("0x4"), "mitigations"),
        ("/firmware/mitigations", json!("0x8"), "mitigations"),
        ("/platform_info/required", json!(["ecc_on", "rapl_off"]), "platform-info"),
        ("/platform_info/forbidden", json!(["alias_check_complete"]), "platform-info"),
        ("/guest_policy", json!({ "exact": "0x30134" }), "guest-policy"),
        ("/guest_policy", json!({ "required": ["single_socket"] }), "guest-policy"),
        ("/guest_policy", json!({ "forbidden": ["smt_allowed"] }), "guest-policy"),
        ("/guest_policy", json!({ "least_abi": "1.52" }), "guest-policy"),
        ("/guest_policy", json!({ "least_abi": "2.0" }), "guest-policy"),
        ("/guest/policy_digest", json!(hex(5, 32)), "host-data"),
        ("/guest/measurements", json!([]), "measurement"),
        ("/guest/measurements", json!([hex(1, 48)]), "measurement"),
        ("/guest/vmpl", json!(1), "vmpl"),
        ("/guest/id_keys", json!([]), "id-block"),
        ("/guest/id_keys", json!([hex(6, 48)]), "id-block"),
        ("/guest/author_keys", json!([]), "id-block"),
        ("/guest/author_keys", json!([hex(5, 48)]), "id-block"),
        ("/guest/family_id", json!(hex(8, 16)), "family-id"),
        ("/guest/image_id", json!(hex(7, 16)), "image-id"),
        ("/guest/least_svn", json!(10), "guest-svn"),
        ("/guest/report_id", json!(hex(1, 32)), "report-id"),
        ("/guest/migration_agent", json!(hex(1, 32)), "migration-agent"),
        ("/revocation/least_number", json!(8), "crl-rollback"),
    ];
    let persona = persona();
    let evidence = ONE.evidence(&persona);
    for (path, value, code) in &changes {
        let mut policy = policy();
        let (parent, name) = path.rsplit_once('/').unwrap();
        policy.pointer_mut(parent).unwrap()[name] = value.clone();
        let appraisal = judged_at(&evidence, &policy, Profile::Strict, now());
        assert_eq!((appraisal.outcome, appraisal.first_failure()), (Outcome::Refused, Some(*code)), "{path} {value}");
    }
    println!("expectations: {} changes, all with their codes", changes.len());
}

/// A change of a report that no change of an expectation can stand for.
type Change = fn(&mut Persona);

#[test]
fn claims_that_do_not_count_are_not_taken() {
    let changes: [(&str, Change); 8] = [
        // A digest without the bit that says the author key was checked is whatever the host wrote there.
        ("id-block", |p| p.fields.author_key_enabled = false),
        ("id-block", |p| p.fields.id_key_digest = [0; 48]),
        ("mitigations", |p| p.fields.launch_mit_vector = Some(2)),
        ("mitigations", |p| p.fields.current_mit_vector = Some(1)),
        ("mitigations", |p| p.fields.version = 4),
        ("minimum-firmware", |p| p.fields.committed_firmware.build = 1),
        ("minimum-tcb", |p| p.fields.launch_tcb -= 1 << 48),
        ("chip-masked", |p| p.fields.chip_id = [0; 64]),
    ];
    for (code, change) in changes {
        let mut persona = persona();
        change(&mut persona);
        let mut policy = policy();
        policy["firmware"]["allow_provisional"] = json!(true);
        assert_eq!(judged(&persona, &policy).first_failure(), Some(code));
    }
    // A list of chips that may not be used says nothing of a chip that hides.
    let mut masked = persona();
    masked.fields.chip_id = [0; 64];
    let mut policy = policy();
    policy["chips"] = json!({ "deny": [hex(2, 64)], "allow_masked": true });
    assert_eq!(judged(&masked, &policy).first_failure(), Some("chip-masked"));
    policy["chips"] = json!({ "allow_masked": true });
    assert_eq!(judged(&masked, &policy).outcome, Outcome::Passed);
}

/// What is refused unless its owner says that it is meant, then passes.
#[test]
fn what_is_allowed_passes() {
    let mut provisional = persona();
    provisional.fields.current_tcb += 1 << 56;
    let mut allowing = policy();
    assert_eq!(judged(&provisional, &allowing).first_failure(), Some("provisional-firmware"));
    allowing["firmware"]["allow_provisional"] = json!(true);
    assert_eq!(judged(&provisional, &allowing).outcome, Outcome::Passed);

    let mut at_vmpl_2 = persona();
    at_vmpl_2.fields.vmpl = 2;
    let mut allowing = policy();
    allowing["guest"]["vmpl"] = json!(2);
    assert_eq!(judged(&at_vmpl_2, &allowing).outcome, Outcome::Passed);

    let mut with_agent = persona();
    (with_agent.fields.policy, with_agent.fields.report_id_ma) = (0x7_0133, [1; 32]);
    let mut allowing = policy();
    allowing["guest_policy"] = json!({});
    assert_eq!(judged(&with_agent, &allowing).first_failure(), Some("migration-agent"));
    allowing["guest"]["migration_agent"] = json!(hex(2, 32));
    assert_eq!(judged(&with_agent, &allowing).first_failure(), Some("migration-agent"));
    allowing["guest"]["migration_agent"] = json!(hex(1, 32));
    assert_eq!(judged(&with_agent, &allowing).outcome, Outcome::Passed);
}

/// With a trusted key, the ID block says which launch digest is meant; without any, there is nothing to hold it against. Nor is
/// there where it is not said which of the guests that the key signed: by family, image and least security version.
#[test]
fn a_trusted_id_block_stands_for_the_launch_digest() {
    let without = |names: &[&str]| {
        let mut policy = policy();
        let guest = policy["guest"].as_object_mut().unwrap();
        names.iter().for_each(|name| drop(guest.remove(*name).unwrap()));
        judged(&persona(), &policy)
    };
    for key in ["author_keys", "id_keys"] {
        assert_eq!(without(&["measurements", key]).outcome, Outcome::Passed, "without {key}");
    }
    for name in ["family_id", "image_id", "least_svn"] {
        let appraisal = without(&["measurements", name]);
        assert_eq!(appraisal.outcome, Outcome::AuthenticNotAppraised, "without {name}");
        assert!(appraisal.summary.contains("measurement"), "{}", appraisal.summary);
        assert_eq!(without(&[name]).outcome, Outcome::Passed, "with a launch digest, and without {name}");
    }
    let nothing = without(&["measurements", "author_keys", "id_keys", "family_id", "image_id", "least_svn"]);
    assert_eq!(nothing.outcome, Outcome::AuthenticNotAppraised);
}

/// Whoever launches a guest can make a key and sign an ID block with it that claims any family, image and security version.
#[test]
fn an_id_block_of_a_key_that_nobody_trusts_says_nothing() {
    let mut self_made = persona();
    (self_made.fields.id_key_digest, self_made.fields.guest_svn) = ([0x66; 48], u32::MAX);
    self_made.fields.author_key_enabled = false;
    let codes = |appraisal: Appraisal| -> Vec<String> {
        assert_eq!(appraisal.outcome, Outcome::Refused);
        appraisal.checks.iter().filter_map(|check| check.code.clone()).collect()
    };
    assert_eq!(codes(judged(&self_made, &policy())), ["id-block", "family-id", "guest-svn"]);
    let asked = |guest: Value| {
        let mut policy = policy();
        let fields = policy["guest"].as_object_mut().unwrap();
        for name in ["id_keys", "author_keys", "family_id", "image_id", "least_svn"] {
            fields.remove(name);
        }
        fields.extend(guest.as_object().unwrap().clone());
        policy
    };
    assert_eq!(judged(&self_made, &asked(json!({}))).outcome, Outcome::Passed);
    for (name, value, code) in [
        ("least_svn", json!(1), "guest-svn"),
        ("family_id", json!(hex(7, 16)), "family-id"),
        ("image_id", json!(hex(8, 16)), "image-id"),
    ] {
        let mut guest = json!({});
        guest[name] = value;
        assert_eq!(codes(judged(&self_made, &asked(guest.clone()))), [code]);
        guest["id_keys"] = json!([hex(0x66, 48)]);
        assert_eq!(judged(&self_made, &asked(guest)).outcome, Outcome::Passed, "{name} under a key that is trusted");
    }
}

#[test]
fn a_provider_key_needs_its_provider() {
    let mut vlek = Persona::vlek();
    vlek.fields.report_data = persona().fields.report_data;
    let policy = |provider: Option<&str>| json!({ "format": "caveau-appraisal-policy/1", "provider": provider });
    assert_eq!(judged(&vlek, &policy(None)).first_failure(), Some("provider"));
    assert_eq!(judged(&vlek, &policy(Some("CN=softsp"))).first_failure(), Some("provider"));
    assert_eq!(judged(&vlek, &policy(Some("CN=softsp.invalid"))).first_failure(), None);
    assert_eq!(judged_at(&ONE.evidence(&vlek), &policy(None), Profile::Baseline, now()).first_failure(), None);
}

/// For Milan the strict profile wants to hear which chips; hiding the chip is no way around it.
#[test]
fn milan_needs_its_chips_listed() {
    let mut milan = Persona::line(ProductLine::Milan, 3, Fms { family: 0x19, model: 1, stepping: 1 }, "Milan-B0");
    milan.fields.report_data = persona().fields.report_data;
    let firmware = FirmwareVersion { major: 1, minor: 55, build: 22 };
    (milan.fields.current_firmware, milan.fields.committed_firmware) = (firmware, firmware);
    let chip: String = milan.fields.chip_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let policy = |chips: Value| json!({ "format": "caveau-appraisal-policy/1", "chips": chips });
    assert_eq!(judged(&milan, &policy(json!({}))).first_failure(), Some("chip-list-needed"));
    assert_eq!(judged(&milan, &policy(json!({ "allow": [chip] }))).first_failure(), None);
    let baseline = judged_at(&ONE.evidence(&milan), &policy(json!({})), Profile::Baseline, now());
    assert_eq!(baseline.first_failure(), None);
    milan.fields.chip_id = [0; 64];
    assert_eq!(judged(&milan, &policy(json!({ "allow_masked": true }))).first_failure(), Some("chip-list-needed"));
}

/// Time is an input: the same evidence before, within and after what its certificates and its revocation list allow.
#[test]
fn the_time_of_the_appraisal_decides() {
    const DAY: u64 = 24 * 3600;
    let evidence = ONE.evidence(&persona());
    let at = |at, profile| {
        let appraisal = judged_at(&evidence, &policy(), profile, at);
        appraisal.checks.iter().filter_map(|check| check.code.clone()).collect::<Vec<_>>()
    };
    let start = made().minus_seconds(3600);
    assert_eq!(at(start.minus_seconds(1), Profile::Strict), ["cert-validity", "crl-not-yet-valid"]);
    assert!(at(start, Profile::Strict).is_empty());
    assert!(at(made().plus_seconds(365 * DAY), Profile::Strict).is_empty());
    assert_eq!(at(made().plus_seconds(365 * DAY + 1), Profile::Strict), ["crl-stale"]);
    assert_eq!(at(made().plus_seconds(365 * DAY + 1), Profile::Baseline), ["crl-stale"], "a list that is there counts");
    assert_eq!(at(made().plus_seconds(7 * 365 * DAY + 1), Profile::Strict), ["cert-validity", "crl-stale"]);
}
