//! The library from C: the header, a program that is built with it, and what that program is told.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

// The library is what is tested, by its file: without this it would not be built along.
use caveau_verify as _;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// The folder of the recorded evidence, or `None` with a visible word.
fn fixtures() -> Option<PathBuf> {
    let root = std::env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| Path::new(HERE).join("../../../shared/fixtures"), PathBuf::from);
    let folder = root.join("attestation");
    if !folder.is_dir() {
        println!("skipped: no fixtures at {}", folder.display());
        return None;
    }
    Some(folder)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The test program, built as a user would build it.
fn program(folder: &Path) -> PathBuf {
    let libraries = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    assert!(libraries.join("libcaveau_verify.so").is_file(), "no library in {}", libraries.display());
    let program = folder.join("from_c");
    let mut build = Command::new("cc");
    build.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o"]).arg(&program);
    build.arg(Path::new(HERE).join("tests/from_c.c")).arg("-I").arg(Path::new(HERE).join("include"));
    build.arg("-L").arg(&libraries).arg("-lcaveau_verify").arg(format!("-Wl,-rpath,{}", libraries.display()));
    let built = build.output().unwrap();
    assert!(built.status.success(), "{}", said(&built));
    program
}

#[test]
fn the_header_is_of_this_source() {
    let config = cbindgen::Config::from_file(Path::new(HERE).join("cbindgen.toml")).unwrap();
    let source = Path::new(HERE).join("src/lib.rs");
    let bindings = cbindgen::Builder::new().with_config(config).with_src(source).generate().unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    let (made, header) = (String::from_utf8(made).unwrap(), Path::new(HERE).join("include/caveau_verify.h"));
    if std::env::var_os("CAVEAU_WRITE_HEADER").is_some() {
        std::fs::write(&header, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&header).unwrap_or_default();
    assert!(kept == made, "{} is not of this source: CAVEAU_WRITE_HEADER=1 makes it anew", header.display());
    let check = Command::new("c++").args(["-fsyntax-only", "-Wall", "-Werror", "-x", "c++"]).arg(&header).output();
    let check = check.unwrap();
    assert!(check.status.success(), "the header is no C++: {}", said(&check));
}

#[test]
fn a_program_in_c_judges_evidence() {
    let Some(fixtures) = fixtures() else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = program(folder.path());
    let cases: Value = serde_json::from_slice(&std::fs::read(fixtures.join("cases.json")).unwrap()).unwrap();
    let case = cases["cases"].as_array().unwrap().iter().find(|case| case["id"] == "snp/milan-v3-aci").unwrap();
    let of_case = |field: &str| fixtures.join(case[field].as_str().unwrap());
    let (report, vek) = (of_case("report"), of_case("vek"));
    let own = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let baseline = own("policy.json", br#"{"format": "caveau-appraisal-policy/1", "profile": "baseline"}"#);
    // 2026-11-23, 12:00.
    let run = |evidence: &Path, report_data: Option<&Path>, policy: Option<&Path>, attachments: &[&Path]| {
        let or_none = |path: Option<&Path>| path.map_or("-".into(), |path| path.as_os_str().to_owned());
        let mut command = Command::new(&program);
        command.arg(evidence).arg("1795435200").arg(or_none(report_data)).arg(or_none(policy)).args(attachments);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), said(&output))
    };

    let (code, text) = run(&report, None, Some(&baseline), &[&vek]);
    assert_eq!(code, 1, "authentic, not appraised: {text}");
    let json = text.lines().find_map(|line| line.strip_prefix("json ")).unwrap();
    let json: Value = serde_json::from_str(json).unwrap();
    assert_eq!(
        (json["kind"].as_str(), json["outcome"].as_str()),
        (Some("snp-report"), Some("authentic-not-appraised"))
    );
    assert!(text.contains("check report-signature 0 - the endorsement key signed the report"), "{text}");
    assert_eq!(text.matches("\ncheck ").count() + 1, json["checks"].as_array().unwrap().len());

    // What is expected decides.
    let data = hex::decode(json["claims"]["report_data"].as_str().unwrap()).unwrap();
    let (right, wrong) = (own("right", &data), own("wrong", &[1; 64]));
    assert_eq!(run(&report, Some(&right), Some(&baseline), &[&vek]).0, 1);
    let (code, text) = run(&report, Some(&wrong), Some(&baseline), &[&vek]);
    assert!(code == 2 && text.contains("check nonce 1 report-data "), "{code}: {text}");
    // The strict profile wants more than there is.
    let (code, text) = run(&report, None, None, &[&vek]);
    assert!(code == 2 && text.contains(" 1 crl-missing "), "{code}: {text}");
    // A changed byte, and a missing certificate.
    let mut bytes = std::fs::read(&report).unwrap();
    bytes[0x90] ^= 1;
    let changed = own("changed", &bytes);
    let (code, text) = run(&changed, None, Some(&baseline), &[&vek]);
    assert!(code == 2 && text.contains(" 1 report-signature "), "{code}: {text}");
    assert_eq!(run(&report, None, Some(&baseline), &[]).0, 2);

    // What makes no sense is an error with a word to it.
    let (nonsense, short) = (own("nonsense", b"hello"), own("short", &[1; 63]));
    for (evidence, data, policy, more, word) in [
        (&nonsense, None, None, vec![], "this is no evidence that is known"),
        (&report, None, Some(nonsense.as_path()), vec![], "failed to read the appraisal policy"),
        (&report, Some(short.as_path()), None, vec![], "63 bytes, and must have 64"),
        (&report, None, None, vec![vek.as_path(), nonsense.as_path()], "file 2 of those that go with the evidence"),
    ] {
        let (code, text) = run(evidence, data, policy, &more);
        assert!(code == 4 && text.contains(word), "{word}: {code}: {text}");
    }
}
