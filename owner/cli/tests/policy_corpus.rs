//! `caveau policy replay --corpus` as a shell sees it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};

/// Lines of a session: a layer that the policy has, one that it has not, and what no decision is asked for.
fn session(number: u32, results: [Option<bool>; 2]) -> Vec<Value> {
    let policy = "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\
                  containers := [{\"layers\": [\"aa\"]}]\nmount_device := data.framework.mount_device\n";
    let query = |hash: &str, result: Option<bool>| {
        let input = json!({"target": "/m1", "deviceHash": hash, "mountPathRegex": "/m[0-9]+"});
        let mut line = json!({"t": "query", "s": number, "rule": "data.policy.mount_device", "input": input,
            "metadata_before": {"operatingsystem": {"ostype": "linux"}}, "error": ""});
        let change = json!([{"name": "devices", "action": "add", "key": "/m1", "value": hash}]);
        match result {
            Some(true) => line["result"] = json!({"allowed": true, "metadata": change}),
            Some(false) => line["result"] = json!({"allowed": false}),
            None => {}
        }
        line
    };
    let info = json!({"t": "query", "s": number, "rule": "data.framework.enforcement_point_info", "input": {}});
    vec![
        json!({"t": "session", "s": number, "test": "Layers", "policy": policy, "data": {}}),
        query("aa", results[0]),
        info,
        query("bb", results[1]),
    ]
}

fn file(folder: &tempfile::TempDir, name: &str, lines: &[Value]) -> PathBuf {
    let path = folder.path().join(name);
    let text: Vec<_> = lines.iter().map(Value::to_string).collect();
    fs::write(&path, text.join("\n")).expect("written");
    path
}

/// Decisions on standard output, the last line of standard error, and the exit code.
fn replay(files: &[PathBuf]) -> (Vec<Value>, String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caveau"));
    let Output { stdout, stderr, status } =
        command.args(["policy", "replay", "--corpus"]).args(files).output().expect("caveau starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let lines = text(stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (lines, text(stderr).lines().last().unwrap_or_default().to_owned(), status.code())
}

#[test]
fn each_decision_is_a_line_and_all_must_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = file(&folder, "good", &session(7, [Some(true), Some(false)]));
    let (lines, last, code) = replay(&[good.clone(), good.clone()]);
    assert_eq!((last.as_str(), code), ("4 of 4 decisions agree", Some(0)));
    assert_eq!(lines.len(), 4);
    let change = json!([{"name": "devices", "action": "add", "key": "/m1", "value": "aa"}]);
    let expected = json!({"s": 7, "n": 1, "rule": "data.policy.mount_device", "allowed": true, "env_list": null,
        "caps_list": null, "allow_stdio_access": null, "metadata": change});
    assert_eq!(lines[0], expected);
    assert_eq!((&lines[1]["n"], &lines[1]["allowed"], &lines[1]["metadata"]), (&json!(3), &json!(false), &Value::Null));
    let bad = file(&folder, "bad", &session(8, [Some(true), Some(true)]));
    let (lines, last, code) = replay(&[good, bad]);
    assert_eq!((lines.len(), last.as_str(), code), (4, "3 of 4 decisions agree", Some(1)));
}

#[test]
fn without_results_decisions_are_printed_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let (lines, last, code) = replay(&[file(&folder, "bare", &session(1, [None, None]))]);
    assert_eq!((lines.len(), last.as_str(), code), (2, "0 of 0 decisions agree", Some(1)));
    let allowed: Vec<_> = lines.iter().map(|line| &line["allowed"]).collect();
    assert_eq!(allowed, [&json!(true), &json!(false)]);
}

#[test]
fn what_is_no_corpus_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = session(1, [None, None]);
    let other = json!({"t": "query", "s": 2});
    for (name, lines) in [("headless", &lines[1..]), ("strange", &[lines[0].clone(), other][..]), ("odd", &[json!({})])]
    {
        assert_eq!(replay(&[file(&folder, name, lines)]).2, Some(2), "{name}");
    }
    let broken = folder.path().join("broken.gz");
    fs::write(&broken, [0x1f, 0x8b, 8, 0]).expect("written");
    assert_eq!(replay(&[broken]).2, Some(2));
    assert_eq!(replay(&[folder.path().join("nowhere")]).2, Some(2));
}

/// The recorded decisions, where they are there.
#[test]
fn every_recorded_decision_agrees() {
    let root = std::env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"), PathBuf::from);
    let folder = root.join("policy-decisions");
    if !folder.is_dir() {
        return;
    }
    let files = ["mount", "container", "exec", "fragment", "other"].map(|name| folder.join(format!("{name}.jsonl.gz")));
    let (lines, last, code) = replay(&files);
    assert_eq!((lines.len(), last.as_str(), code), (3440, "3440 of 3440 decisions agree", Some(0)));
}
