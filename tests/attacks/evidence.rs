//! The host shows evidence that is not fresh, not whole, or not of this group.

use caveau_tests::{guest_folder, hostile::Hostile};

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
        host.caveau.run(&[
            "verify",
            file,
            "--nonce",
            nonce,
            "--policy",
            &policy,
            "--reference",
            &reference,
            "--cpus",
            "1",
            "--allow-emulated",
            &root,
        ])
    };
    verify(&evidence, NONCE).success();

    // Replayed: the report answers another nonce.
    let replayed = verify(&evidence, &NONCE.replace('0', "9")).expect_code(1);
    assert!(replayed.stdout.contains("nonce"), "{}", replayed.stdout);

    // Edited: one byte of the report, wherever it is, breaks the signature or a rule.
    let text = std::fs::read_to_string(&evidence).expect("the evidence");
    let original: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let report = original["report"].as_str().expect("a report").to_owned();
    for at in [4, 200, 500, 900, report.len() - 8] {
        let mut characters: Vec<char> = report.chars().collect();
        characters[at] = if characters[at] == 'A' { 'B' } else { 'A' };
        let mut forged = original.clone();
        forged["report"] = characters.into_iter().collect::<String>().into();
        std::fs::write(&edited, forged.to_string()).expect("written");
        verify(&edited, NONCE).expect_code(1);
    }

    // The policy's text in the evidence is another one than the report vouches for.
    let mut forged = original.clone();
    forged["policy"] = "cGFja2FnZSBwb2xpY3kK".into();
    std::fs::write(&edited, forged.to_string()).expect("written");
    verify(&edited, NONCE).expect_code(1);

    // It claims to be hardware.
    let mut forged = original.clone();
    forged["tee"] = "snp".into();
    std::fs::write(&edited, forged.to_string()).expect("written");
    verify(&edited, NONCE).expect_code(1);

    // Truncated, with a field too many, and not JSON at all: no evidence.
    let mut forged = original;
    forged["trust_me"] = true.into();
    for broken in [text[..text.len() / 2].to_owned(), forged.to_string(), "hello".to_owned(), String::new()] {
        std::fs::write(&edited, broken).expect("written");
        verify(&edited, NONCE).expect_code(2);
    }
}
