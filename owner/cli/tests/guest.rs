//! `caveau guest sbom` and `caveau guest reproduce` as a shell sees them, on the guest that the tests run with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

fn caveau(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_caveau")).args(arguments).output().expect("caveau starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The built guest; a visible word where there is none.
fn guest() -> Option<PathBuf> {
    let folder = std::env::var_os("CAVEAU_GUEST").map(PathBuf::from);
    let folder = folder.filter(|folder| folder.join("guest.json").is_file());
    if folder.is_none() {
        println!("skipped: no guest (name one in CAVEAU_GUEST)");
    }
    folder
}

/// A copy of the guest as it would be after it was built again, under the names that `cargo xtask guest --like` gives.
fn rebuilt(guest: &Path) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a folder");
    for entry in guest.read_dir().expect("the guest's folder") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), place.path().join(entry.file_name())).expect("a copy");
    }
    fs::remove_file(place.path().join("guest.json")).expect("its description is not built again");
    fs::write(place.path().join("rebuilt.json"), r#"{"obtained":{},"missing":{},"notes":[]}"#).expect("written");
    place
}

/// Verdicts by name.
fn verdicts(output: &Output) -> Vec<(String, String)> {
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = value["found"].as_array().expect("a list").iter();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    found.map(|found| (word(&found["name"]), word(&found["verdict"]))).collect()
}

#[test]
fn the_bill_names_every_crate_of_the_agent() {
    let Some(folder) = guest() else { return };
    let folder = folder.to_str().expect("a path");
    let printed = caveau(&["guest", "sbom", folder]);
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    let file = tempfile::tempdir().expect("a folder");
    let file = file.path().join("bill.json");
    let written = caveau(&["guest", "sbom", &format!("{folder}/guest.json"), "-o", file.to_str().expect("a path")]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    assert_eq!(fs::read(&file).expect("the file"), printed.stdout);
    let bill: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    let components = bill["components"].as_array().expect("a list");
    let scope = |name: &str| {
        let found = components.iter().find(|component| component["name"] == name);
        found.map(|component| component["scope"].as_str().unwrap_or_default().to_owned())
    };
    for linked in ["caveau-agent", "libseccomp-sys", "libseccomp.a", "libc.a", "linux", "bios-256k.bin", "pvh.bin"] {
        assert_eq!(scope(linked).as_deref(), Some("required"), "{linked}");
    }
    assert_eq!(scope("serde_derive").as_deref(), Some("excluded"));
    assert_eq!(scope("clap"), None);
}

/// Prints `valid`, or what CycloneDX's own schema has against the document on standard input.
const VALIDATE: &str = "import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()) or 'valid')";

#[test]
fn the_bill_is_valid_by_cyclonedx_s_own_schema() {
    let Some(folder) = guest() else { return };
    let python = std::env::var("CAVEAU_ORACLES_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let imported = Command::new(&python).args(["-c", "import cyclonedx.validation.json, jsonschema"]).output();
    if !imported.is_ok_and(|output| output.status.success()) {
        println!("skipped: no Python with cyclonedx-python-lib (name it in CAVEAU_ORACLES_PYTHON)");
        return;
    }
    let bill = caveau(&["guest", "sbom", folder.to_str().expect("a path")]).stdout;
    let check = |bill: &[u8]| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, bill).expect("written");
        let input = fs::File::open(&file).expect("the file");
        let output = Command::new(&python).args(["-c", VALIDATE]).stdin(input).output().expect("python starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(check(&bill).trim(), "valid");
    let other = text(&bill).replacen("\"type\": \"firmware\"", "\"type\": \"rumour\"", 1);
    assert_ne!(check(other.as_bytes()).trim(), "valid", "the schema is really held against it");
}

#[test]
fn a_changed_byte_ends_with_1_and_is_named() {
    let Some(folder) = guest() else { return };
    let again = rebuilt(&folder);
    let (guest, place) = (folder.to_str().expect("a path"), again.path().to_str().expect("a path"));
    let arguments = ["guest", "reproduce", guest, "--rebuilt", place];
    let json = || caveau(&[&arguments[..], &["--json"]].concat());
    let before = json();
    // The copy has no agent beside its initial RAM disk, and no configuration of the kernel: those were not built again.
    assert_eq!(before.status.code(), Some(1));
    let of = |output: &Output, verdict: &str| -> Vec<String> {
        verdicts(output).into_iter().filter(|(_, found)| found == verdict).map(|(name, _)| name).collect()
    };
    let lacking = of(&before, "not-rebuilt");
    assert!(lacking.iter().all(|name| name == "agent" || name == "kernel configuration"), "{lacking:?}");
    assert!(of(&before, "differs").is_empty());
    let initrd = again.path().join("initrd.img");
    let mut bytes = fs::read(&initrd).expect("the archive");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&initrd, bytes).expect("written");
    let after = json();
    assert_eq!(after.status.code(), Some(1));
    let differ = of(&after, "differs");
    assert_eq!(differ.first().map(String::as_str), Some("initrd.img"));
    assert!(differ.iter().skip(1).all(|name| name.starts_with("launch digest of ")) && differ.len() > 1, "{differ:?}");
    let told = text(&caveau(&arguments).stdout);
    for words in ["differs      initrd.img\n", "in it: init\n", "recorded ", "rebuilt  ", "not reproduced: "] {
        assert!(told.contains(words), "{words} is not in {told}");
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().to_str().expect("a path");
    let failed = |arguments: &[&str], words: &str| {
        let output = caveau(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let told = text(&output.stderr);
        assert!(told.contains(words), "{words} is not in {told}");
    };
    failed(&["guest", "sbom", path], "guest.json");
    failed(&["guest", "sbom", &format!("{path}/other.json")], "is neither a guest's folder nor its guest.json");
    failed(&["guest", "reproduce", path], "guest.json");
    let sha256 = "a".repeat(64);
    let description = format!(
        r#"{{"format":1,"svn":1,"agent":{{"version":"0.1.0","sha256":"{sha256}"}},"kernel":{{"release":"1","banner":"1"}},
        "modules":[],"parts":{{}},"tees":{{}}}}"#
    );
    fs::write(place.path().join("guest.json"), description).expect("written");
    // An older description is read, and it is said what it lacks.
    failed(&["guest", "sbom", path], "does not record what the agent is made of");
    failed(&["guest", "reproduce", path, "--source", path], "is no checkout of Caveau");
    failed(&["guest", "reproduce", path, "--rebuilt", path], "rebuilt.json is missing");
}
