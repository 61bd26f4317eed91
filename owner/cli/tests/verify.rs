//! `caveau verify` on recorded evidence of hardware, as a shell sees it: no VM, no network.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Folder of the recorded reports, or `None` with a visible word.
fn fixtures() -> Option<PathBuf> {
    let root = std::env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"), PathBuf::from);
    let folder = root.join("attestation/snp");
    if !folder.is_dir() {
        println!("skipped: no fixtures at {}", folder.display());
        return None;
    }
    Some(folder)
}

/// A folder with the evidence `ev.json`: a report with its endorsement key's certificate, and nothing else.
fn evidence(fixtures: &Path, report: &str) -> TempDir {
    let read =
        |name: &str| BASE64_STANDARD.encode(std::fs::read(fixtures.join("reports").join(report).join(name)).unwrap());
    let evidence = json!({
        "format": "caveau-evidence/1", "tee": "snp", "report": read("report.bin"),
        "certificates": { "vek": read("vcek.der") }
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ev.json"), evidence.to_string()).unwrap();
    folder
}

/// `caveau` in that folder, with a cache and data of its own.
fn caveau(folder: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_caveau"))
        .args(arguments)
        .current_dir(folder.path())
        .env("XDG_CACHE_HOME", folder.path().join("cache"))
        .env("XDG_DATA_HOME", folder.path().join("data"))
        .output()
        .unwrap()
}

/// The exit code, and the codes of the checks that failed.
fn verify(folder: &TempDir, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let output = caveau(folder, &[&["--json", "verify", "ev.json"][..], arguments].concat());
    let judged: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let checks = judged["checks"].as_array().cloned().unwrap_or_default();
    let codes = checks.iter().filter_map(|check| check["code"].as_str().map(str::to_owned)).collect();
    (output.status.code(), codes)
}

fn refused(codes: &[&str]) -> (Option<i32>, Vec<String>) {
    (Some(1), codes.iter().map(|code| (*code).to_owned()).collect())
}

#[test]
fn certificates_are_given_by_file_and_the_time_by_option() {
    let Some(fixtures) = fixtures() else { return };
    let folder = evidence(&fixtures, "milan-v3-aci");
    let path = |name: &str| fixtures.join(name).display().to_string();
    let (ask, ark, list) = (path("roots/milan-ask.der"), path("roots/milan-ark.der"), path("crl/milan-crl-2022.der"));
    let genoa = path("roots/genoa-ark.der");
    let at = ["--at", "2026-11-23", "--profile", "baseline"];
    let with = |more: &[&str]| verify(&folder, &[&at[..], more].concat());
    let chain = ["--certificates", &ask, "--certificates", &ark];
    assert_eq!(with(&[]), refused(&["certificate-missing"]));
    assert_eq!(with(&chain), refused(&[]), "authentic, not appraised");
    assert_eq!(with(&["--certificates", &ask, "--certificates", &genoa]).1[0], "issuer-name");
    assert_eq!(with(&[&chain[..], &["--crl", &list]].concat()), refused(&["crl-stale"]));
    assert_eq!(with(&[&chain[..], &["--certificates", &list]].concat()), refused(&["crl-stale"]));
    assert_eq!(
        verify(&folder, &[&["--at", "2020-01-01", "--profile", "baseline"][..], &chain].concat()).1,
        ["cert-validity"]
    );
    let (code, _) = with(&[&chain[..], &["--certificates", &genoa]].concat());
    assert_eq!(code, Some(2), "two roots");
    let (code, _) = with(&[&chain[..], &["--crl", &ark]].concat());
    assert_eq!(code, Some(2), "a certificate is no revocation list");
}

/// Milan by the strict profile: everything but the revocation list of the day, which no recording can have.
#[test]
fn milan_is_held_against_the_chips_that_are_listed() {
    let Some(fixtures) = fixtures() else { return };
    let folder = evidence(&fixtures, "milan-v3-aci");
    let path = |name: &str| fixtures.join(name).display().to_string();
    let (ask, ark) = (path("roots/milan-ask.der"), path("roots/milan-ark.der"));
    let at = ["--at", "2026-11-23", "--certificates", &ask, "--certificates", &ark];
    let report = std::fs::read(fixtures.join("reports/milan-v3-aci/report.bin")).unwrap();
    let chip = hex::encode(&report[0x1a0..0x1e0]);
    let policy = |fields: Value| {
        let mut policy = json!({ "format": "caveau-appraisal-policy/1", "profile": "baseline" });
        policy.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        std::fs::write(folder.path().join("appraisal.json"), policy.to_string()).unwrap();
        let judged = verify(&folder, &[&at[..], &["--appraisal", "appraisal.json"]].concat());
        assert_eq!(judged.0, Some(1));
        judged.1
    };
    assert_eq!(verify(&folder, &[&at[..], &["--chip", &chip]].concat()), refused(&["crl-missing"]));
    assert!(policy(json!({ "chips": { "allow": [chip] } })).is_empty());
    assert_eq!(policy(json!({ "chips": { "deny": [chip] } })), ["chip-refused"]);
    assert_eq!(policy(json!({ "product_lines": { "Genoa": {} } })), ["product-line-refused"]);
    assert_eq!(policy(json!({ "product_lines": { "Milan": { "least_firmware": "9.0.0" } } })), ["minimum-firmware"]);
    assert_eq!(policy(json!({ "product_lines": { "Milan": { "least_tcb": { "microcode": 255 } } } })), ["minimum-tcb"]);
    assert_eq!(policy(json!({ "provider": "CN=x" })), ["provider"]);
    assert_eq!(policy(json!({ "guest": { "vmpl": 1 } })), ["vmpl"]);
    assert_eq!(policy(json!({ "guest_policy": { "exact": "0x30000" } })), ["guest-policy"]);
}

#[test]
fn the_example_is_an_appraisal_policy_and_mistakes_are_told() {
    let Some(fixtures) = fixtures() else { return };
    let folder = evidence(&fixtures, "genoa-v3-aci");
    let example = caveau(&folder, &["verify", "--appraisal-example"]);
    assert_eq!(example.status.code(), Some(0));
    std::fs::write(folder.path().join("example.json"), &example.stdout).unwrap();
    let judged = verify(&folder, &["--appraisal", "example.json"]);
    assert_eq!(judged, refused(&["certificate-missing"]), "the example was read");
    for (arguments, said) in [
        (&["verify"][..], "FILE"),
        (&["verify", "ev.json", "--chip", "12"], "`12` is no chip ID"),
        (&["verify", "ev.json", "--product-line", "Rome"], "no product line"),
        (&["verify", "ev.json", "--at", "yesterday"], "no point in time"),
        (&["verify", "ev.json", "--appraisal", "ev.json"], "expected `caveau-appraisal-policy/1`"),
        (&["verify", "ev.json", "--appraisal", "example.json", "--provider", "x"], "give one of them"),
        (&["verify", "ev.json", "--certificates", "example.json"], "failed to use example.json"),
        (&["verify", "ev.json", "--fetch-certificates=http://192.0.2.1"], "only https"),
    ] {
        let output = caveau(&folder, arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}
