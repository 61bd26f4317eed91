//! Verdicts that no recorded quote has: every level, every status, every certificate revoked or expired, under a root of the
//! test's own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

mod platform;

use caveau_dcap::{Authority, Claims, Expectations, Rules, TcbStatus, appraise, examine};
use caveau_snp::appraise::Profile;
use caveau_snp::check::first_failure;
use caveau_snp::time::Timestamp;
use platform::{Platform, Said, enclave, identity, tcb_info, td15};
use serde_json::Value;

fn rules() -> Rules {
    Rules { at: "2026-01-15".parse::<Timestamp>().unwrap(), require_crl: true }
}

/// The claims, or the code of the first check that fails.
fn judged(platform: &Platform, said: &Said, info: &Value, of_qe: &Value) -> Result<Claims, String> {
    let examination = examine(platform, &platform.quote(said), &platform.collateral(info, of_qe), &rules());
    assert_eq!(examination.claims.is_none(), first_failure(&examination.checks).is_some(), "{:?}", examination.checks);
    examination.claims.ok_or_else(|| first_failure(&examination.checks).unwrap().to_owned())
}

fn status(platform: &Platform, said: &Said, levels: &[(u8, &str)]) -> Result<(TcbStatus, Vec<String>), String> {
    let (id, qe) = if said.tdx { ("TDX", "TD_QE") } else { ("SGX", "QE") };
    let claims = judged(platform, said, &tcb_info(id, levels), &identity(qe))?;
    Ok((claims.tcb_status, claims.advisories))
}

fn ids(numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(|number| format!("INTEL-SA-0000{number}")).collect()
}

#[test]
fn the_level_reached_says_how_an_enclave_stands() {
    let platform = Platform::new();
    let enclave = enclave(0x05);
    for (levels, expected) in [
        (&[(5, "UpToDate")][..], Ok((TcbStatus::UpToDate, vec![]))),
        (&[(6, "UpToDate"), (5, "SWHardeningNeeded")], Ok((TcbStatus::SwHardeningNeeded, ids(&[1])))),
        (&[(6, "UpToDate"), (4, "OutOfDate")], Ok((TcbStatus::OutOfDate, ids(&[1])))),
        (&[(3, "ConfigurationNeeded"), (2, "OutOfDate")], Ok((TcbStatus::ConfigurationNeeded, ids(&[1])))),
        (&[(5, "Revoked")], Err("tcb-revoked".to_owned())),
        (&[(6, "UpToDate")], Err("tcb-level-none".to_owned())),
        (&[], Err("tcb-level-none".to_owned())),
    ] {
        assert_eq!(status(&platform, &enclave, levels), expected, "{levels:?}");
    }
    // An old quoting enclave makes it worse, and brings its own advisories.
    let old_qe = Said { qe_isv_svn: 3, ..enclave.clone() };
    assert_eq!(status(&platform, &old_qe, &[(5, "UpToDate")]), Ok((TcbStatus::OutOfDate, ids(&[3]))));
    let levels = [(5, "ConfigurationNeeded")];
    assert_eq!(status(&platform, &old_qe, &levels), Ok((TcbStatus::OutOfDateConfigurationNeeded, ids(&[1, 3]))));
    let mut of_qe = identity("QE");
    for (status, expected) in [
        ("OutOfDateConfigurationNeeded", TcbStatus::OutOfDate),
        ("ConfigurationNeeded", TcbStatus::OutOfDate),
        ("UpToDate", TcbStatus::UpToDate),
    ] {
        of_qe["tcbLevels"][1]["tcbStatus"] = status.into();
        let claims = judged(&platform, &old_qe, &tcb_info("SGX", &[(5, "UpToDate")]), &of_qe).unwrap();
        assert_eq!(claims.tcb_status, expected, "{status}");
    }
    of_qe["tcbLevels"][1]["tcbStatus"] = "Revoked".into();
    assert_eq!(judged(&platform, &old_qe, &tcb_info("SGX", &levels), &of_qe).unwrap_err(), "qe-revoked");
    let too_old = Said { qe_isv_svn: 1, ..enclave.clone() };
    assert_eq!(status(&platform, &too_old, &levels), Err("qe-level-none".to_owned()));
    // MISCSELECT is written byte by byte, from the least on.
    let exinfo = Said { qe_misc_select: [1, 0, 0, 0], ..enclave.clone() };
    for (miscselect, expected) in [("01000000", None), ("00000001", Some("qe-identity-mismatch"))] {
        let mut of_qe = identity("QE");
        of_qe["miscselect"] = miscselect.into();
        let found = judged(&platform, &exinfo, &tcb_info("SGX", &[(5, "UpToDate")]), &of_qe);
        assert_eq!(found.err().as_deref(), expected, "{miscselect}");
    }
    let debug_qe = Said { qe_attributes: 0x13, ..enclave };
    assert_eq!(status(&platform, &debug_qe, &levels), Err("qe-identity-mismatch".to_owned()));
}

#[test]
fn the_module_says_how_a_trust_domain_stands() {
    let platform = Platform::new();
    let levels = [(5, "UpToDate")];
    for (launch, now, expected) in [
        ([6, 1], [6, 1], Ok((TcbStatus::UpToDate, vec![]))),
        ([5, 1], [5, 1], Ok((TcbStatus::OutOfDate, ids(&[2])))),
        ([5, 1], [6, 1], Ok((TcbStatus::TdRelaunchAdvised, ids(&[2])))),
        ([6, 1], [5, 1], Ok((TcbStatus::OutOfDate, vec![]))),
        ([3, 1], [3, 1], Err("tcb-revoked".to_owned())),
        ([6, 1], [3, 1], Err("tcb-revoked".to_owned())),
        ([1, 1], [6, 1], Err("tcb-level-none".to_owned())),
        ([6, 3], [6, 3], Err("tdx-module-unknown".to_owned())),
        ([0, 0], [0, 0], Ok((TcbStatus::UpToDate, vec![]))),
    ] {
        assert_eq!(status(&platform, &td15(launch, now), &levels), expected, "{launch:?} {now:?}");
    }
    // Against an old quoting enclave it is no help to launch the domain anew.
    let old_qe = Said { qe_isv_svn: 3, ..td15([5, 1], [6, 1]) };
    assert_eq!(status(&platform, &old_qe, &levels), Ok((TcbStatus::OutOfDate, ids(&[2, 3]))));
    // Without a version the first two SVNs are the levels' own; the third always is.
    let mut low = td15([6, 1], [6, 1]);
    low.body.1[2] = 4;
    assert_eq!(status(&platform, &low, &levels), Err("tcb-level-none".to_owned()));
    let mut signer = td15([6, 1], [6, 1]);
    signer.body.1[64] = 1;
    assert_eq!(status(&platform, &signer, &levels), Err("tdx-module".to_owned()));
    let mut attributes = td15([6, 1], [6, 1]);
    attributes.body.1[112] = 1;
    assert_eq!(status(&platform, &attributes, &levels), Err("tdx-module".to_owned()));
    let ten = Said { version: 4, body: (2, td15([6, 1], [0, 0]).body.1[..584].to_vec()), ..td15([6, 1], [6, 1]) };
    assert_eq!(status(&platform, &ten, &levels), Ok((TcbStatus::UpToDate, vec![])));
}

#[test]
fn each_certificate_can_be_revoked_and_expire() {
    let (enclave, levels) = (enclave(0x05), [(5, "UpToDate")]);
    let with = |change: fn(&mut Platform)| {
        let mut platform = Platform::new();
        change(&mut platform);
        status(&platform, &enclave, &levels).map(|(status, _)| status)
    };
    assert_eq!(with(|_| ()), Ok(TcbStatus::UpToDate));
    for (change, code) in [
        ((|platform| platform.revoked.0 = vec![2]) as fn(&mut Platform), "certificate-revoked"),
        (|platform| platform.revoked.0 = vec![3], "certificate-revoked"),
        (|platform| platform.revoked.1 = vec![4], "certificate-revoked"),
        (|platform| platform.crl_until = "260101000000Z", "crl-stale"),
        (|platform| platform.pck_until = "260101000000Z", "cert-validity"),
        (|platform| *platform.root_der.last_mut().unwrap() ^= 1, "certificate-rights"),
    ] {
        assert_eq!(with(change), Err(code.to_owned()));
    }
    assert_eq!(with(|platform| platform.revoked.1 = vec![2, 3, 5]), Ok(TcbStatus::UpToDate), "of other issuers");
    let other = Platform::new();
    struct Nobody;
    impl Authority for Nobody {
        fn believes(&self, _root: &[u8]) -> bool {
            false
        }
    }
    let collateral = other.collateral(&tcb_info("SGX", &levels), &identity("QE"));
    let examination = examine(&Nobody, &other.quote(&enclave), &collateral, &rules());
    assert_eq!(first_failure(&examination.checks), Some("root-untrusted"));
}

#[test]
fn statements_must_be_signed_in_force_and_of_this_platform() {
    let platform = Platform::new();
    let enclave = enclave(0x05);
    let levels = [(5, "UpToDate")];
    let with = |change: &dyn Fn(&mut Value, &mut Value)| {
        let (mut info, mut of_qe) = (tcb_info("SGX", &levels), identity("QE"));
        change(&mut info, &mut of_qe);
        judged(&platform, &enclave, &info, &of_qe).map(|claims| claims.collateral.evaluation_number)
    };
    assert_eq!(with(&|_, _| ()), Ok(17));
    type Change<'a> = &'a dyn Fn(&mut Value, &mut Value);
    let cases: [(Change<'_>, &str); 10] = [
        (&|info, _| info["nextUpdate"] = "2026-01-14T00:00:00Z".into(), "tcb-info-expired"),
        (&|info, _| info["issueDate"] = "2026-01-16T00:00:00Z".into(), "tcb-info-not-yet-valid"),
        (&|_, of_qe| of_qe["nextUpdate"] = "2026-01-14T00:00:00Z".into(), "qe-identity-expired"),
        (&|info, _| info["fmspc"] = "00906ED50000".into(), "fmspc-mismatch"),
        (&|info, _| info["pceId"] = "0001".into(), "pceid-mismatch"),
        (&|_, of_qe| of_qe["id"] = "TD_QE".into(), "qe-identity-kind"),
        (&|_, of_qe| of_qe["mrsigner"] = "00".repeat(32).into(), "qe-identity-mismatch"),
        (&|_, of_qe| of_qe["miscselect"] = "01000000".into(), "qe-identity-mismatch"),
        (&|_, of_qe| of_qe["tcbLevels"][0]["tcbStatus"] = "SWHardeningNeeded".into(), "collateral-malformed"),
        (&|info, _| info["version"] = 4.into(), "collateral-malformed"),
    ];
    for (change, code) in cases {
        assert_eq!(with(change), Err(code.to_owned()));
    }
    let good = platform.collateral(&tcb_info("SGX", &levels), &identity("QE"));
    let quote = platform.quote(&enclave);
    let first =
        |collateral| first_failure(&examine(&platform, &quote, &collateral, &rules()).checks).map(str::to_owned);
    let mut changed = good.clone();
    changed.tcb_infos[0].signature[0] ^= 1;
    assert_eq!(first(changed), Some("tcb-info-signature".to_owned()));
    let mut changed = good.clone();
    changed.qe_identities[0].text += " ";
    assert_eq!(first(changed), Some("qe-identity-signature".to_owned()));
    let mut others = good.clone();
    let other = Platform::new();
    others.tcb_infos = other.collateral(&tcb_info("SGX", &levels), &identity("QE")).tcb_infos;
    assert_eq!(first(others), Some("tcb-info-signature".to_owned()));
    // Of several, the statement that is about this platform counts.
    let mut foreign = tcb_info("SGX", &levels);
    foreign["fmspc"] = "00906ED50000".into();
    let several = platform.collateral(&foreign, &identity("TD_QE")).with(good);
    assert_eq!(first(several), None);
}

#[test]
fn what_the_host_may_do_is_told() {
    let platform = Platform::new();
    let levels = [(5, "UpToDate")];
    let code = |said: &Said| {
        let (id, qe) = if said.tdx { ("TDX", "TD_QE") } else { ("SGX", "QE") };
        let claims = judged(&platform, said, &tcb_info(id, &levels), &identity(qe)).unwrap();
        let checks = appraise(&claims, &Expectations::default(), Profile::Strict);
        first_failure(&checks).map(str::to_owned)
    };
    assert_eq!(code(&enclave(0x05)), None);
    assert_eq!(code(&enclave(0x07)).as_deref(), Some("debug"));
    let mut known = enclave(0x05);
    known.body.1[128..160]
        .copy_from_slice(&hex::decode("83d719e77deaca1470f6baf62a4d774303c899db69020f9c70ee1dfc08c7ce9e").unwrap());
    assert_eq!(code(&known).as_deref(), Some("published-test-key"));
    let with = |at: usize, value: u8| {
        let mut said = td15([6, 1], [6, 1]);
        said.body.1[at] = value;
        code(&said)
    };
    assert_eq!(with(120, 0), None);
    assert_eq!(with(120, 1).as_deref(), Some("debug"));
    assert_eq!(with(120, 0x10).as_deref(), Some("td-attributes"), "profiling");
    assert_eq!(with(123, 0).as_deref(), Some("td-attributes"), "SEPT_VE_DISABLE");
    assert_eq!(with(123, 0x30).as_deref(), Some("td-attributes"), "migratable");
    assert_eq!(with(124, 1).as_deref(), Some("td-attributes"), "reserved");
    assert_eq!(with(122, 2).as_deref(), Some("service-domain"));
    assert_eq!(with(600, 1).as_deref(), Some("service-domain"));
}
