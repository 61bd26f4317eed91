//! The host shows evidence that is not fresh, not whole, or not of this group.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use caveau_tests::{Outcome, guest_folder, hostile::Hostile};

const NONCE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn replayed_edited_and_borrowed_evidence() {
    let Some(host) = Hostile::new() else { return };
    let group = host.start(|_| ()).expect("the honest plan starts");
    let name = group.folder().name().to_string();
    let path = |name: &str| host.folder.path().join(name).display().to_string();
    let (evidence, edited, policy) = (path("evidence.json"), path("edited.json"), path("policy.rego"));
    std::fs::write(&policy, &host.plan.policy).expect("the policy is written");
    host.caveau.run(&["attest", &name, "--nonce", NONCE, "-o", &evidence]).success();
    let root =
        host.caveau.run(&["doctor", "--json"]).json()["emulated_root"].as_str().map(str::to_owned).expect("a root");
    let reference = guest_folder().join("guest.json").display().to_string();
    let verify = |file: &str, nonce: &str| {
        let given = ["--json", "verify", file, "--nonce", nonce, "--policy", &policy, "--reference", &reference];
        host.caveau.run(&[&given[..], &["--cpus", "1", "--allow-emulated", &root]].concat())
    };
    verify(&evidence, NONCE).success();

    // Replayed: the report answers another nonce.
    is_refused(verify(&evidence, &NONCE.replace('0', "9")), &["report-data"]);

    // Edited: a changed byte of the report, wherever it is, breaks the signature or a rule of its form.
    let text = std::fs::read_to_string(&evidence).expect("the evidence");
    let original: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let report = original["report"].as_str().expect("a report").to_owned();
    let forge = |field: &str, value: &str| {
        let mut forged = original.clone();
        forged[field] = value.into();
        std::fs::write(&edited, forged.to_string()).expect("written");
        verify(&edited, NONCE)
    };
    // Characters of base64: of the version, of MEASUREMENT, of REPORT_ID_MA, of the signature's r, of what is reserved.
    for (at, code) in [
        (4, "version"),
        (200, "report-signature"),
        (500, "report-signature"),
        (900, "report-signature"),
        (report.len() - 8, "reserved-nonzero-0x330"),
    ] {
        let mut characters: Vec<char> = report.chars().collect();
        characters[at] = if characters[at] == 'A' { 'B' } else { 'A' };
        is_refused(forge("report", &characters.into_iter().collect::<String>()), &[code]);
    }
    // The policy's text in the evidence is another one than the report vouches for.
    is_refused(forge("policy", "cGFja2FnZSBwb2xpY3kK"), &["policy-text"]);
    // It claims to be hardware, and its certificates say what it is.
    is_refused(forge("tee", "snp"), &["software-root", "product-line-unknown"]);

    // What happened: an event that is left out, changed or moved, and the log of an earlier moment.
    let events = path("events.json");
    let attest = |file: &str| {
        host.caveau.run(&["attest", &name, "--nonce", NONCE, "--events", "-o", file]).success();
        let held: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(file).expect("evidence")).expect("JSON");
        held
    };
    let earlier = attest(&events);
    host.caveau.run(&["exec", &name, "sh"]).expect_code(125);
    let held = attest(&events);
    let judged = verify(&events, NONCE).success().json();
    let shown: Vec<(&str, &str)> = judged["event_log"]["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| (event["op"].as_str().expect("an op"), event["outcome"].as_str().expect("an outcome")))
        .collect();
    assert_eq!(shown.first(), Some(&("mount_layer", "done")), "{shown:?}");
    assert_eq!(shown.last(), Some(&("exec", "denied")), "{shown:?}");
    let log = String::from_utf8(decoded(&held["event_log"])).expect("text");
    let lines: Vec<&str> = log.lines().collect();
    let without_last = format!("{}\n", lines[..lines.len() - 1].join("\n"));
    let lies = [without_last, log.replace("\"denied\"", "\"done\""), log.replacen("mount_layer", "mount_other", 1)];
    for lie in &lies {
        let mut forged = held.clone();
        forged["event_log"] = encoded(lie.as_bytes()).into();
        std::fs::write(&edited, forged.to_string()).expect("written");
        is_refused(verify(&edited, NONCE), &["event-log"]);
    }
    // Log and head of before, which go together, with the report of now.
    let mut forged = held.clone();
    for field in ["event_log", "runtime_data"] {
        forged[field] = earlier[field].clone();
    }
    std::fs::write(&edited, forged.to_string()).expect("written");
    is_refused(verify(&edited, NONCE), &["report-data"]);
    // A challenge's evidence is none of a log, nor the other way round.
    let mut forged = original.clone();
    for field in ["event_log", "runtime_data"] {
        forged[field] = held[field].clone();
    }
    std::fs::write(&edited, forged.to_string()).expect("written");
    is_refused(verify(&edited, NONCE), &["report-data"]);
    let mut forged = held;
    forged.as_object_mut().expect("an object").remove("event_log");
    std::fs::write(&edited, forged.to_string()).expect("written");
    is_refused(verify(&edited, NONCE), &["report-data"]);

    // Truncated, with a field too many, and not JSON at all: no evidence.
    let mut forged = original;
    forged["trust_me"] = true.into();
    for broken in [text[..text.len() / 2].to_owned(), forged.to_string(), "hello".to_owned(), String::new()] {
        std::fs::write(&edited, broken).expect("written");
        verify(&edited, NONCE).expect_code(2);
    }
}

fn decoded(value: &serde_json::Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().expect("text")).expect("base64")
}

fn encoded(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// Checks fail with these codes, and no other does.
#[track_caller]
fn is_refused(verified: Outcome, expected: &[&str]) {
    let judged = verified.expect_code(1).json();
    let rows = judged["checks"].as_array().expect("checks").iter();
    let codes: Vec<&str> = rows.filter_map(|check| check["code"].as_str()).collect();
    assert_eq!(codes, expected, "{judged}");
}
