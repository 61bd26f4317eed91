//! `caveau measure --group`: what it predicts is what `caveau verify --reference` takes, without a VM.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::process::Output;

use caveau_evidence::{Use, report_data, sha256};
use caveau_policy::PolicyDigest;
use serde_json::{Value, json};

use crate::{
    expected::{Desk, NONCE, policy},
    page::Page,
    processor::{ONE, Persona},
};

const IMAGE: &str = "registry.example/shop/web:1";
const ALWAYS: [&str; 6] = ["--allow-emulated", "root.der", "--at", "2026-11-23T01:00:00Z", "--nonce", NONCE];

/// A desk with a guest's folder: the parts of no real guest, but each as guest.json says.
fn desk() -> Desk {
    let desk = Desk::of_policy(&policy(IMAGE, &["/bin/web"]));
    std::fs::create_dir(desk.0.path().join("guest")).unwrap();
    let files: [(&str, Vec<u8>); 6] = [
        ("vmlinux", b"kernel".to_vec()),
        ("vmlinuz", b"packed kernel".to_vec()),
        ("initrd.img", b"initrd".to_vec()),
        ("cmdline.emulated-snp", b"caveau.tee=emulated-snp".to_vec()),
        ("cmdline.snp", b"caveau.tee=snp".to_vec()),
        ("bios.bin", vec![0xf4; 8192]),
    ];
    let mut parts = serde_json::Map::new();
    for (name, bytes) in files {
        desk.write(&format!("guest/{name}"), &bytes);
        parts.insert(name.to_owned(), json!({ "bytes": bytes.len(), "sha256": sha256(&bytes).to_string() }));
    }
    let guest = json!({
        "format": caveau_guest_image::FORMAT, "svn": 1,
        "agent": { "version": "1", "sha256": "1".repeat(64) },
        "kernel": { "release": "6.12", "banner": "Linux version 6.12" },
        "modules": [],
        "parts": parts,
        "tees": {
            "emulated-snp": {
                "kernel": "vmlinux", "initrd": "initrd.img", "cmdline": "cmdline.emulated-snp", "firmware": ["bios.bin"],
                "launch_digests": []
            },
            "snp": {
                "kernel": "vmlinuz", "initrd": "initrd.img", "cmdline": "cmdline.snp", "firmware": [], "launch_digests": []
            }
        }
    });
    desk.write("guest/guest.json", guest.to_string());
    desk
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Predicts into `web.json`, and gives what is in it.
fn predict(desk: &Desk, more: &[&str]) -> Value {
    let arguments = ["measure", "--group", "web.rego", "--guest", "guest", "-o", "web.json"];
    let output = desk.run(&[&arguments[..], more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stdout.is_empty(), "what goes into a file is not printed");
    serde_json::from_slice(&std::fs::read(desk.0.path().join("web.json")).unwrap()).unwrap()
}

/// Evidence of a group with this launch digest under this policy, whose text comes along.
fn attest(desk: &Desk, digest: &str, policy: &str) {
    let mut persona = Persona::software(5);
    persona.fields.report_data = report_data(Use::Challenge, &hex::decode(NONCE).unwrap(), b"").0;
    persona.fields.host_data = *PolicyDigest::of(policy).as_bytes();
    persona.fields.measurement = hex::decode(digest).unwrap().try_into().unwrap();
    let mut evidence = ONE.evidence(&persona);
    evidence.policy = Some(policy.as_bytes().to_vec());
    desk.write("ev.json", evidence.to_json().unwrap());
}

fn digest(values: &Value, cpus: u64) -> &str {
    let mut listed = values["tees"]["emulated-snp"]["launch_digests"].as_array().unwrap().iter();
    listed.find(|row| row["vcpus"] == cpus).unwrap()["digest"].as_str().unwrap()
}

#[test]
fn reports_of_the_group_are_as_predicted_and_those_of_others_are_not() {
    let desk = desk();
    let values = predict(&desk, &["--cpu-type", "EPYC-v4", "--max-cpus", "4"]);
    let text = std::fs::read_to_string(desk.0.path().join("web.rego")).unwrap();
    assert_eq!(values["group"], json!({ "policy_sha256": PolicyDigest::of(&text).to_string() }));
    assert_eq!(values["tees"]["emulated-snp"]["launch_digests"].as_array().unwrap().len(), 4);
    // The digest is the one that is computed by itself.
    let one = desk.run(&["measure", "--guest", "guest", "--cpus", "2"]);
    assert_eq!(String::from_utf8(one.stdout).unwrap().trim(), digest(&values, 2));

    let judge = |cpus: &str| {
        Page::of(desk.0.path(), "ev.json", &[&ALWAYS[..], &["--reference", "web.json", "--cpus", cpus]].concat())
    };
    let codes = |page: &Page| {
        let checks = page.judgement["checks"].as_array().unwrap();
        checks.iter().filter_map(|check| check["code"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    for cpus in 1..=4 {
        attest(&desk, digest(&values, cpus), &text);
        let page = judge(&cpus.to_string());
        assert_eq!((page.code, &page.judgement["outcome"]), (Some(0), &json!("passed")), "{cpus}: {}", page.judgement);
        // The policy that came along is the one expected, and so it is shown.
        assert_eq!(page.judgement["policy"]["containers"][0]["image"], IMAGE);
        page.has(IMAGE);
    }
    let page = judge("3");
    assert_eq!((page.code, codes(&page)), (Some(1), vec!["measurement".to_owned()]));
    assert_eq!(judge("5").code, Some(1), "nothing was predicted for five");
    attest(&desk, digest(&values, 2), &policy("registry.example/other:1", &["/bin/web"]));
    let page = judge("2");
    assert_eq!((page.code, codes(&page)), (Some(1), vec!["host-data".to_owned()]));
    assert_eq!(page.judgement["policy"], Value::Null, "another policy is not shown as the one in force");
}

#[test]
fn what_does_not_go_together_is_told() {
    let desk = desk();
    let values = predict(&desk, &["--cpu-type", "EPYC-v4", "--max-cpus", "2"]);
    let text = std::fs::read_to_string(desk.0.path().join("web.rego")).unwrap();
    attest(&desk, digest(&values, 2), &text);
    desk.write("other.rego", policy("registry.example/other:1", &["/bin/web"]));
    let mut unknown = values.clone();
    unknown["group"]["image"] = json!("x");
    desk.write("unknown.json", unknown.to_string());
    let mut lying: Value =
        serde_json::from_slice(&std::fs::read(desk.0.path().join("guest/guest.json")).unwrap()).unwrap();
    let row = json!({ "vcpu_type": "EPYC-v4", "vcpus": 1, "digest": "00".repeat(48) });
    lying["tees"]["emulated-snp"]["launch_digests"] = json!([row]);
    for folder in ["lying", "group"] {
        let path = desk.0.path().join(folder);
        std::fs::create_dir(&path).unwrap();
        for entry in std::fs::read_dir(desk.0.path().join("guest")).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, path.join(from.file_name().unwrap())).unwrap();
        }
    }
    desk.write("lying/guest.json", lying.to_string());
    desk.write("group/guest.json", values.to_string());
    desk.write("group/vmlinux", "another kernel");
    desk.write("bad.rego", "no policy");
    let judge = [&["verify", "ev.json", "--cpus", "2"][..], &ALWAYS].concat();
    for (arguments, said) in [
        ([&judge[..], &["--reference", "web.json", "--policy", "other.rego"]].concat(), "give those of one group"),
        ([&judge[..], &["--reference", "unknown.json"]].concat(), "unknown.json"),
        (vec!["measure", "--group", "web.rego", "--guest", "lying"], "and the parts have"),
        (vec!["measure", "--group", "web.rego", "--guest", "group"], "holds the reference values of a group"),
        (vec!["measure", "--guest", "group"], "holds the reference values of a group"),
        (vec!["measure", "--group", "bad.rego", "--guest", "guest"], "bad.rego"),
        (vec!["measure", "--group", "web.rego", "--guest", "guest", "--cpus", "2"], "cannot be used with"),
        (vec!["measure", "--group", "web.rego", "--guest", "guest", "--max-cpus", "65"], "65 is not in 1..=64"),
        (vec!["measure", "--guest", "guest", "--max-cpus", "4"], "--group"),
        (vec!["measure", "--guest", "guest", "--cpu-type", "EPYC-v4", "--cpu-type", "EPYC"], "--group lists several"),
    ] {
        let output = desk.run(&arguments);
        let text = stderr(&output);
        assert!(output.status.code() == Some(2) && text.contains(said), "{arguments:?}: {text}");
    }
    let same = desk.run(&[&judge[..], &["--reference", "web.json", "--policy", "web.rego"]].concat());
    assert_eq!(same.status.code(), Some(0), "{}", stderr(&same));
    // Without the number of processors the policy is still expected, and only the launch digest is not.
    let half = desk.run(&[&["verify", "ev.json", "--json", "--reference", "web.json"][..], &ALWAYS].concat());
    let judged: Value = serde_json::from_slice(&half.stdout).unwrap();
    let verdict = |name: &str| {
        let mut checks = judged["checks"].as_array().unwrap().iter();
        checks.find(|check| check["name"] == name).unwrap()["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!((verdict("policy"), verdict("measurement")), ("ok".to_owned(), "skipped".to_owned()));
}

#[test]
fn missing_digests_are_told_with_the_way_to_them() {
    let desk = desk();
    let output = desk.run(&["measure", "--group", "web.rego", "--guest", "guest"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stderr(&output);
    assert!(
        text.contains("no launch digest for snp: the guest has no firmware for it; give --firmware FILE"),
        "{text}"
    );
    assert!(text.contains("no launch digest for emulated-snp: guest.json lists no processors"), "{text}");
    // The policy in a deployment's file is the same policy.
    let base64 = desk.run(&["policy", "convert", "web.rego", "--to", "base64"]).stdout;
    let encoded = String::from_utf8(base64.clone()).unwrap();
    let group = |name: &str| {
        json!({
            "type": "Microsoft.ContainerInstance/containerGroups", "name": name,
            "properties": { "confidentialComputeProperties": { "ccePolicy": encoded.trim() } }
        })
    };
    desk.write("web.base64", base64);
    desk.write("web.json", json!({ "resources": [group("web")] }).to_string());
    for file in ["web.base64", "web.json"] {
        let again = desk.run(&["measure", "--group", file, "--guest", "guest", "--quiet"]);
        assert_eq!((stderr(&again).as_str(), &again.stdout), ("", &output.stdout), "{file}");
    }
    desk.write("two.json", json!({ "resources": [group("web"), group("db")] }).to_string());
    let two = desk.run(&["measure", "--group", "two.json", "--guest", "guest"]);
    assert_eq!((two.status.code(), two.stdout.is_empty()), (Some(2), true));
    assert!(stderr(&two).contains("two.json"), "{}", stderr(&two));
}
