//! `caveau verify` on recorded evidence of hardware, as a shell sees it: no VM, no network.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::fixtures::Fixtures;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Folder of the recorded reports, or `None` with a visible word.
fn fixtures() -> Option<PathBuf> {
    Fixtures::open().map(|fixtures| fixtures.path("snp"))
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
    assert_eq!(with(&[]), refused(&[]), "AMD's own certificates are built in");
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

/// A folder of the recorded evidence of other kinds than a group's.
fn recorded(fixtures: &Path, name: &str) -> String {
    fixtures.parent().unwrap().join(name).display().to_string()
}

/// What was recognised, the exit code, and the codes of the checks that failed.
fn judge(arguments: &[&str]) -> (String, Option<i32>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let output = caveau(&folder, &[&["--json", "verify"][..], arguments].concat());
    let judged: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
    let checks = judged["checks"].as_array().cloned().unwrap_or_default();
    let codes = checks.iter().filter_map(|check| check["code"].as_str().map(str::to_owned)).collect();
    (judged["recognised"].as_str().unwrap().to_owned(), output.status.code(), codes)
}

#[test]
fn evidence_of_any_kind_is_recognised() {
    let Some(fixtures) = fixtures() else { return };
    let path = |name: &str| recorded(&fixtures, name);
    let old = ["--profile", "baseline", "--at", "2025-07-08"];
    let now = ["--profile", "baseline", "--at", "2026-11-23"];
    for (file, options, form, codes) in [
        ("snp/reports/genoa-v3-aci/report.bin", now, "a report of SEV-SNP", &[][..]),
        ("snp/reports/turin-v5-aci/report.bin", now, "a report of SEV-SNP", &[]),
        ("snp/reports/milan-v2-debug/report.bin", now, "a report of SEV-SNP", &["debug"]),
        ("snp/reports/milan-v3-vlek-vmpl1/report.bin", now, "a report of SEV-SNP", &["cert-validity"]),
        ("snp/negative/chip-mismatch-aci/report.bin", now, "a report of SEV-SNP", &["report-signature"]),
        ("azure-cvm/milan-v3.json", now, "a confidential VM of Azure's on SEV-SNP", &[]),
        ("azure-cvm/milan-v2.json", now, "a confidential VM of Azure's on SEV-SNP", &["provisional-firmware"]),
        ("azure-cvm/hcl-report-tdx.bin", now, "a confidential VM of Azure's on TDX", &["quote-missing"]),
        ("tdx/quote-v4-emr.bin", old, "a quote of a TDX trust domain", &[]),
        ("tdx/sgx-quote-v3.bin", old, "a quote of an SGX enclave", &[]),
        ("tdx/quote-v4-emr.bin", now, "a quote of a TDX trust domain", &["crl-stale"]),
    ] {
        let (found, code, failed) = judge(&[&[path(file).as_str()][..], &options].concat());
        assert_eq!((found.as_str(), code), (form, Some(1)), "{file}");
        assert_eq!(failed.first().map(String::as_str), codes.first().copied(), "{file}: {failed:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    for (file, said) in [
        ("azure-aci/host-amd-certs.json", "no evidence: give the report"),
        ("tdx/quote-v4-emr.collateral.json", "no evidence: give the quote"),
        ("snp/roots/milan-ark.der", "no evidence: give the report"),
        ("azure-aci/security-policy.base64", "no evidence that is known"),
    ] {
        let output = caveau(&folder, &["verify", &path(file)]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(said), "{file}: {text}");
    }
}

/// A report, and a confidential VM of Azure's, as their owners expect them: exit code 0.
#[test]
fn evidence_of_others_passes_where_it_is_as_expected() {
    let Some(fixtures) = fixtures() else { return };
    let path = |name: &str| recorded(&fixtures, name);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| {
        let file = folder.path().join(name);
        std::fs::write(&file, value.to_string()).unwrap();
        file.display().to_string()
    };
    let report = std::fs::read(path("snp/reports/genoa-v3-aci/report.bin")).unwrap();
    let part = |from: usize, to: usize| hex::encode(&report[from..to]);
    let format = "caveau-appraisal-policy/1";
    let policy = write(
        "snp.json",
        &json!({ "format": format, "guest": { "policy_digest": part(0xc0, 0xe0), "measurements": [part(0x90, 0xc0)] } }),
    );
    let file = path("snp/reports/genoa-v3-aci/report.bin");
    let data = part(0x50, 0x90);
    let options = ["--profile", "baseline", "--at", "2026-11-23", "--appraisal", &policy];
    let judged = judge(&[&[file.as_str()][..], &options, &["--report-data", &data]].concat());
    assert_eq!((judged.1, judged.2), (Some(0), vec![]));
    let judged = judge(&[&[file.as_str()][..], &options, &["--report-data", "01"]].concat());
    assert_eq!((judged.1, judged.2), (Some(1), vec!["report-data".to_owned()]));

    let vm = path("azure-cvm/milan-v3.json");
    let output = caveau(&folder, &["--json", "verify", &vm, "--profile", "baseline", "--at", "2026-11-23"]);
    let claims = &serde_json::from_slice::<Value>(&output.stdout).unwrap()["claims"];
    let measurement = &claims["processor"]["snp"]["measurement"];
    let policy = write(
        "azure.json",
        &json!({
            "format": format, "guest": { "measurements": [measurement] },
            "azure": { "pcrs": { "4": claims["registers"]["4"] }, "vm_configuration": { "secure-boot": true } }
        }),
    );
    let options = ["--profile", "baseline", "--at", "2026-11-23", "--appraisal", &policy];
    let nonce = hex::encode("challenge");
    let judged = judge(&[&[vm.as_str()][..], &options, &["--nonce", &nonce]].concat());
    assert_eq!((judged.1, judged.2), (Some(0), vec![]));
}

/// A bundle of ACI with Azure's signed reference values: they are what the launch digest is held against.
#[test]
fn azures_signed_reference_values_stand_for_the_launch_digest() {
    let Some(fixtures) = fixtures() else { return };
    let read = |name: &str| std::fs::read(recorded(&fixtures, name)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bundle = |report: &str, signed: &[u8]| {
        let report = |file: &str| BASE64_STANDARD.encode(read(&format!("snp/reports/{report}/{file}")));
        let json = json!({
            "attestation": report("report.bin"), "platform_certificates": report("vcek.der"),
            "uvm_endorsements": BASE64_STANDARD.encode(signed),
        });
        let file = folder.path().join("bundle.json");
        std::fs::write(&file, json.to_string()).unwrap();
        file.display().to_string()
    };
    let did = "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.2";
    let judged = |file: &str, issuer: &str, svn: &str| {
        let signer = ["--endorsement-issuer", issuer, "--endorsement-feed", "ContainerPlat-AMD-UVM"];
        let (_, code, mut codes) = judge(
            &[&[file, "--profile", "baseline", "--at", "2026-11-23", "--endorsement-least-svn", svn][..], &signer]
                .concat(),
        );
        codes.sort();
        (code, codes)
    };
    let refused = |codes: &[&str]| (Some(1), codes.iter().map(|code| (*code).to_owned()).collect::<Vec<_>>());
    let genuine = read("azure-aci/uvm-endorsement-svn101.cose");
    let good = bundle("genoa-v3-aci", &genuine);
    // Nonce and policy are not expected here, so that it is no pass; nothing is refused.
    assert_eq!(judged(&good, did, "101"), refused(&[]));
    assert_eq!(judged(&good, did, "102"), refused(&["measurement", "reference-info-svn"]));
    let other = did.replace("59.1.2", "59.1.1");
    assert_eq!(judged(&good, &other, "101"), refused(&["measurement", "reference-info-issuer"]));
    let other_guest = bundle("genoa-v3-aci", &read("azure-aci/uvm-endorsement-svn100.cose"));
    assert_eq!(judged(&other_guest, did, "100"), refused(&["measurement"]));
    let mut edited = genuine;
    let place = edited.len() - 400;
    edited[place] ^= 1;
    let edited = bundle("genoa-v3-aci", &edited);
    assert_eq!(judged(&edited, did, "101"), refused(&["measurement", "reference-info-signature"]));
    let output = caveau(&folder, &["verify", &recorded(&fixtures, "azure-aci/uvm-endorsement-svn22.cose")]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("this file with --endorsement"), "{text}");
}

/// Reference values of another tool's, of another guest: nothing of them holds for a recorded report.
#[test]
fn a_corim_is_held_against_reports() {
    let Some(fixtures) = fixtures() else { return };
    let path = |name: &str| recorded(&fixtures, name);
    let at = ["--profile", "baseline", "--at", "2026-11-23"];
    let corim = path("corim/corim-sevsnp-valid.cbor");
    let report = path("snp/reports/genoa-v3-aci/report.bin");
    let judged = judge(&[&[report.as_str(), "--reference", &corim][..], &at].concat());
    assert_eq!((judged.1, judged.2), (Some(1), vec!["measurement".to_owned(), "reference-values".to_owned()]));
    let folder = tempfile::tempdir().unwrap();
    let (bad, quote) = (path("corim/corim-sevsnp-bad-refval-key.cbor"), path("tdx/quote-v4-emr.bin"));
    for (arguments, said) in [
        (vec![report.as_str(), "--reference", &bad], "it has no number (0)"),
        (vec![report.as_str(), "--reference", &corim, "--cpus", "1"], "a CoRIM has no such"),
        (vec![quote.as_str(), "--reference", &corim], "is none"),
    ] {
        let output = caveau(&folder, &[&["verify"][..], &arguments, &at].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(said), "{said}: {text}");
    }
}

#[test]
fn the_example_is_an_appraisal_policy_and_mistakes_are_told() {
    let Some(fixtures) = fixtures() else { return };
    let folder = evidence(&fixtures, "genoa-v3-aci");
    let example = caveau(&folder, &["verify", "--appraisal-example"]);
    assert_eq!(example.status.code(), Some(0));
    std::fs::write(folder.path().join("example.json"), &example.stdout).unwrap();
    let judged = verify(&folder, &["--appraisal", "example.json"]);
    assert!(judged.0 == Some(1) && judged.1.contains(&"measurement".to_owned()), "the example was read: {judged:?}");
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

/// The rows of the table before the checks, by name.
fn rows(text: &str) -> BTreeMap<String, String> {
    let table = text.split("\nChecks\n").next().unwrap_or_default();
    let row = |line: &str| {
        let (name, value) = line.strip_prefix("  ")?.split_once("  ").or_else(|| line.trim().rsplit_once(' '))?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    table.lines().filter_map(row).collect()
}

/// What people read of hardware: chip, product, levels of firmware and microcode, debugging, SMT, as the report says them.
#[test]
fn the_table_shows_the_hardware_as_it_is() {
    let Some(fixtures) = fixtures() else { return };
    let levels = |text: &str| -> BTreeSet<String> { text.split(", ").map(str::to_owned).collect() };
    for (report, product, fms, tcb, firmware, platform) in [
        (
            "milan-v3-aci",
            "Milan",
            "19/01/01",
            "bootloader 4, tee 0, snp 24, microcode 219",
            "major 1, minor 55, build 29",
            "0x25",
        ),
        (
            "turin-v5-aci",
            "Turin",
            "1a/02/01",
            "fmc 1, bootloader 1, tee 1, snp 4, microcode 81",
            "major 1, minor 55, build 65",
            "0x65",
        ),
    ] {
        let folder = evidence(&fixtures, report);
        let output = caveau(&folder, &["verify", "ev.json", "--profile", "baseline", "--at", "2026-11-23"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("Recognised as ") && text.contains("\nHardware TCB\n"), "{text}");
        assert!(!text.to_lowercase().contains("emulated"), "{text}");
        let bytes = std::fs::read(fixtures.join("reports").join(report).join("report.bin")).unwrap();
        let rows = rows(&text);
        let row = |name: &str| rows.get(name).unwrap_or_else(|| panic!("no row {name}: {text}")).as_str();
        assert_eq!((row("product"), row("fms"), row("signing key")), (product, fms, "VCEK"));
        assert_eq!(row("chip id"), hex::encode(&bytes[0x1a0..0x1e0]));
        assert_eq!(row("measurement"), hex::encode(&bytes[0x90..0xc0]));
        assert_eq!(row("host data"), hex::encode(&bytes[0xc0..0xe0]));
        for name in ["reported tcb", "committed tcb", "current tcb", "launch tcb"] {
            assert_eq!(levels(row(name)), levels(tcb), "{name}");
        }
        for name in ["current firmware", "committed firmware"] {
            assert_eq!(levels(row(name)), levels(firmware), "{name}");
        }
        assert_eq!((row("guest policy: value"), row("guest policy: abi")), ("0x3001f", "0.31"));
        assert_eq!((row("guest policy: debug allowed"), row("guest policy: smt allowed")), ("false", "true"));
        assert_eq!((row("platform info: value"), row("platform info: smt on")), (platform, "true"));
        assert_eq!(row("vmpl"), "0");
    }
    let debugged = evidence(&fixtures, "milan-v2-debug");
    let output = caveau(&debugged, &["verify", "ev.json", "--profile", "baseline", "--at", "2026-11-23"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(rows(&text)["guest policy: debug allowed"], "true", "{text}");
}
