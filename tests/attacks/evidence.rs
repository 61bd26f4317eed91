//! The host shows evidence that is not fresh, not whole, or not of this group.

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

    // Truncated, with a field too many, and not JSON at all: no evidence.
    let mut forged = original;
    forged["trust_me"] = true.into();
    for broken in [text[..text.len() / 2].to_owned(), forged.to_string(), "hello".to_owned(), String::new()] {
        std::fs::write(&edited, broken).expect("written");
        verify(&edited, NONCE).expect_code(2);
    }
}

/// Checks fail with these codes, and no other does.
#[track_caller]
fn is_refused(verified: Outcome, expected: &[&str]) {
    let judged = verified.expect_code(1).json();
    let rows = judged["checks"].as_array().expect("checks").iter();
    let codes: Vec<&str> = rows.filter_map(|check| check["code"].as_str()).collect();
    assert_eq!(codes, expected, "{judged}");
}
