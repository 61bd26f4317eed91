//! Quotes and collateral of platforms that the tests make, under a root of their own: levels, modules, quoting enclaves and what
//! the host may do in every combination.

use std::fmt::Write as _;

use caveau_dcap::{Rules, examine};
use caveau_differential::{Dice, Ledger, Listed};
use caveau_evidence::Timestamp;
use caveau_evidence::dcap::Collateral;
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;
use serde_json::{Value, json};

use super::Comparison;
use super::platform::{FMSPC, Platform, Said, enclave, identity, tcb_info, td15};

const PIECES: usize = 1500;

/// What ours refuses of generated quotes by checks that the other does not make.
const OURS_ALONE: Listed = &[
    (
        "collateral-malformed",
        "it takes versions of TCB info after 3, any tcbType, and statuses that levels never have where another level is reached",
    ),
    ("pceid-mismatch", "it does not ask whether the TCB info is for the platform's PCE-ID"),
    ("td-attributes", "it takes bits 18 to 22 of TDATTRIBUTES, of whose meaning ours knows nothing"),
];

/// What the other refuses, and ours accepts.
const THEIRS_ALONE: Listed = &[
    // "Intel TDX DCAP Quoting Library API", appendix A: TEE type 0 is SGX from version 4 on too.
    ("SGX TEE quote must have version 3", "versions 4 and 5 are for quotes of SGX too"),
    // "Intel SGX ECDSA Quote Library API", appendix A.4: the authentication data have a length of their own.
    ("Invalid QE auth data length", "a quoting enclave may have other authentication data than 32 bytes"),
    (
        "missing field `sgxtcbcomponents`",
        "TCB info of version 2 names each component, and platforms of SGX still have it",
    ),
];

/// The statuses that Intel gives to levels of platforms.
const STATUSES: [&str; 7] = [
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
];

/// Platforms: their revocations and dates differ.
fn platforms() -> Vec<Platform> {
    let with = |change: fn(&mut Platform)| {
        let mut platform = Platform::new();
        change(&mut platform);
        platform
    };
    vec![
        with(|_| ()),
        with(|platform| platform.components = std::array::from_fn(|at| u8::try_from(3 + at % 4).unwrap())),
        with(|platform| platform.revoked = (vec![9], vec![8, 9])),
        with(|platform| platform.authentication = vec![1, 2, 3]),
        with(|platform| platform.revoked.0 = vec![2]),
        with(|platform| platform.revoked.0 = vec![3]),
        with(|platform| platform.revoked.1 = vec![4]),
        with(|platform| platform.crl_until = "260101000000Z"),
        with(|platform| platform.pck_until = "260101000000Z"),
    ]
}

/// What a quote says.
fn said(dice: &mut Dice) -> Said {
    let mut said = if dice.once_in(3) {
        let enclave = enclave(if dice.once_in(10) { 0x07 } else { 0x05 });
        Said { version: if dice.once_in(12) { 4 } else { 3 }, ..enclave }
    } else {
        let versions = [[6, 1], [5, 1], [4, 1], [3, 1], [1, 1], [7, 1], [6, 3], [0, 0], [6, 0]];
        let usual = if dice.once_in(4) { versions.len() } else { 3 };
        let (launch, now) = (*dice.one_of(&versions[..usual]), *dice.one_of(&versions[..3]));
        domain(td15(launch, if dice.once_in(2) { now } else { launch }), dice)
    };
    said.qe_isv_svn = *dice.one_of(&[4, 4, 4, 5, 3, 2, 1]);
    if dice.once_in(12) {
        said.qe_attributes = *dice.one_of(&[0x13, 0x15, 0x01]);
    }
    if dice.once_in(8) {
        said.qe_misc_select = [1, 0, 0, 0];
    }
    said
}

/// A domain of one of the three layouts, with anything in the fields that nobody judges, and now and then in those that are.
fn domain(mut said: Said, dice: &mut Dice) -> Said {
    let body = &mut said.body.1;
    for range in [16..64, 128..520, 520..584] {
        body[range].iter_mut().for_each(|byte| *byte = dice.byte());
    }
    match dice.below(12) {
        0 => body[120 + dice.below(8)] ^= 1 << dice.below(8),
        1 => body[64 + dice.below(48)] = dice.byte(),
        2 => body[112 + dice.below(8)] = 1 << dice.below(8),
        3 => body[2] = *dice.one_of(&[4, 5, 9]),
        4 => body[600 + dice.below(48)] = dice.byte(),
        _ => {}
    }
    match dice.below(4) {
        0 => Said { version: 4, body: (2, body[..584].to_vec()), ..said },
        1 => Said { body: (2, body[..584].to_vec()), ..said },
        2 => {
            let extension: Vec<u8> = (0..885 - 648).map(|_| dice.byte()).collect();
            Said { body: (4, [&body[..], &extension].concat()), ..said }
        }
        _ => said,
    }
}

/// What Intel would say of such platforms, or nearly.
fn statements(said: &Said, dice: &mut Dice) -> (Value, Value) {
    // The best level first, as Intel writes them.
    let mut svns: Vec<u8> = (0..dice.below(4)).map(|_| u8::try_from(dice.below(7)).unwrap()).collect();
    svns.push(if dice.once_in(8) { 6 } else { 2 });
    svns.sort_unstable_by(|one, other| other.cmp(one));
    let levels: Vec<(u8, &str)> = svns.into_iter().map(|svn| (svn, *dice.one_of(&STATUSES))).collect();
    let (tcb, qe) = if said.tdx { ("TDX", "TD_QE") } else { ("SGX", "QE") };
    let (mut info, mut of_qe) = (tcb_info(tcb, &levels), identity(qe));
    if let Some(modules) = info.get_mut("tdxModuleIdentities") {
        modules[0]["tcbLevels"][1]["tcbStatus"] =
            (*dice.one_of(&["UpToDate", "OutOfDate", "OutOfDate", "Revoked"])).into();
    }
    of_qe["tcbLevels"][1]["tcbStatus"] =
        (*dice.one_of(&["OutOfDate", "OutOfDate", "ConfigurationNeeded", "OutOfDateConfigurationNeeded", "Revoked"]))
            .into();
    if said.qe_misc_select != [0; 4] {
        of_qe["miscselect"] = (*dice.one_of(&["01000000", "01000000", "00000001"])).into();
    }
    twist(&mut info, &mut of_qe, dice);
    (info, of_qe)
}

/// Once in a while, one thing that is unusual or wrong in a statement.
fn twist(info: &mut Value, of_qe: &mut Value, dice: &mut Dice) {
    match dice.below(60) {
        0 => info["fmspc"] = "00906ED50000".into(),
        1 => info["fmspc"] = hex::encode(FMSPC).into(),
        2 => info["pceId"] = "0001".into(),
        3 => info["nextUpdate"] = "2026-01-14T00:00:00Z".into(),
        4 => info["issueDate"] = "2026-01-16T00:00:00Z".into(),
        5 => info["nextUpdate"] = "2026-01-15T00:00:00Z".into(),
        6 => info["version"] = 4.into(),
        7 => info["id"] = "TDX".into(),
        8 => info["tcbType"] = 1.into(),
        9 => info["tcbLevels"][0]["tcbStatus"] = "TDRelaunchAdvised".into(),
        10 => info["tcbLevels"][0]["tcb"]["pcesvn"] = 12.into(),
        11 => info["tcbLevels"] = json!([]),
        12 => of_qe["nextUpdate"] = "2026-01-14T00:00:00Z".into(),
        13 => of_qe["issueDate"] = "2026-01-16T00:00:00Z".into(),
        14 => of_qe["id"] = "QE".into(),
        15 => of_qe["id"] = "QVE".into(),
        16 => of_qe["version"] = 3.into(),
        17 => of_qe["mrsigner"] = "00".repeat(32).into(),
        18 => of_qe["isvprodid"] = 3.into(),
        19 => of_qe["attributes"] = "15000000000000000000000000000000".into(),
        20 => of_qe["tcbLevels"][0]["tcbStatus"] = "SWHardeningNeeded".into(),
        21 => info["tcbEvaluationDataNumber"] = 1.into(),
        22 => info["new"] = json!({ "of": "tomorrow" }),
        23 => info["tdxModule"] = Value::Null,
        24..=26 if info["id"] == "SGX" => flatten(info),
        _ => {}
    }
}

/// TCB info as version 2 has it.
fn flatten(info: &mut Value) {
    info["version"] = 2.into();
    for level in info["tcbLevels"].as_array_mut().unwrap() {
        let components = level["tcb"].as_object_mut().unwrap().remove("sgxtcbcomponents").unwrap();
        for (number, component) in (1..).zip(components.as_array().unwrap()) {
            level["tcb"][format!("sgxtcbcomp{number:02}svn")] = component["svn"].clone();
        }
    }
}

/// The same collateral as the other takes it.
fn for_the_other(platform: &Platform, collateral: &Collateral) -> QuoteCollateralV3 {
    let mut chain = String::new();
    for der in [&collateral.certificates[0], &platform.root_der] {
        let _ = write!(chain, "{}", caveau_snp::pem::certificate(der));
    }
    let (info, of_qe) = (&collateral.tcb_infos[0], &collateral.qe_identities[0]);
    QuoteCollateralV3 {
        pck_crl_issuer_chain: String::new(),
        root_ca_crl: collateral.crls[0].clone(),
        pck_crl: collateral.crls[1].clone(),
        tcb_info_issuer_chain: chain.clone(),
        tcb_info: info.text.clone(),
        tcb_info_signature: info.signature.to_vec(),
        qe_identity_issuer_chain: chain,
        qe_identity: of_qe.text.clone(),
        qe_identity_signature: of_qe.signature.to_vec(),
        pck_certificate_chain: None,
    }
}

#[test]
fn generated_quotes() {
    let at: Timestamp = "2026-01-15".parse().unwrap();
    let platforms = platforms();
    let mut dice = Dice::new(0x7d);
    let mut comparison =
        Comparison { ledger: Ledger::new(OURS_ALONE, THEIRS_ALONE), ..Comparison::under_intel(&[], &[]) };
    for round in 0..PIECES {
        let platform = if dice.once_in(6) { dice.one_of(&platforms) } else { &platforms[dice.below(3)] };
        let said = said(&mut dice);
        let (info, of_qe) = statements(&said, &mut dice);
        let (quote, collateral) = (platform.quote(&said), platform.collateral(&info, &of_qe));
        comparison.peer = QuoteVerifier::new(platform.root_der.clone());
        let examination = examine(platform, &quote, &collateral, &Rules { at, require_crl: true });
        let ours = (examination.checks, examination.claims);
        let levels = info["tcbLevels"].as_array().unwrap().iter().map(|level| level["tcbStatus"].to_string());
        let name = format!("{round}, version {}, body {}, {:?}", said.version, said.body.0, levels.collect::<Vec<_>>());
        comparison.hold(&name, "generated", ours, (&quote, &for_the_other(platform, &collateral), at));
    }
    let (accepted, worse) = (comparison.ledger.accepted(), comparison.worse.len());
    comparison.close("generated quotes");
    assert!(accepted > PIECES / 5 && worse == 2, "{accepted} {worse}");
}
