//! `caveau policy …` on files, as a shell sees it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::{fs, process::Command};

use caveau_group::{Container, Group, ImageParts, Overrides, Permissions};
use caveau_policy::{Platform, PolicyDigest, generate};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a policy, and what the program says there.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        desk.write("web.rego", &policy());
        desk
    }

    fn write(&self, name: &str, contents: &str) {
        fs::write(self.0.path().join(name), contents).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    /// Standard output, standard error and exit code of `caveau policy …`.
    fn policy(&self, arguments: &[&str]) -> (String, String, Option<i32>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_caveau"));
        let output = command.arg("policy").args(arguments).current_dir(self.0.path()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code())
    }

    fn json(&self, arguments: &[&str]) -> (Value, Option<i32>) {
        let (out, error, code) = self.policy(&[arguments, &["--json"]].concat());
        (serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}")), code)
    }
}

fn policy() -> String {
    let image = ImageParts {
        reference: "registry.example/shop/web:1".to_owned(),
        layers: vec!["ab".repeat(32).parse().unwrap()],
        cmd: vec!["/bin/web".to_owned()],
        env: vec!["TOKEN=swordfish".to_owned()],
        user: "1000:1000".to_owned(),
        ..ImageParts::default()
    };
    let container = Container::from_image(image, Overrides { stdio: true, ..Overrides::default() }).unwrap();
    generate(&Group::new(vec![container], Permissions::default()).unwrap())
}

/// A template of groups with these policies.
fn template(groups: &[(&str, &str)]) -> String {
    let encoded = |text: &str| {
        // By the program's own hand elsewhere; here by the library's.
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let groups: Vec<_> = groups
        .iter()
        .map(|(name, text)| {
            json!({"type": "Microsoft.ContainerInstance/containerGroups", "name": name,
                "properties": {"confidentialComputeProperties": {"ccePolicy": encoded(text)}}})
        })
        .collect();
    json!({"resources": groups}).to_string()
}

#[test]
fn check_finds_and_refuses_by_severity() {
    let desk = Desk::new();
    let (out, _, code) = desk.policy(&["check", "web.rego"]);
    assert_eq!(code, Some(0), "{out}");
    let line = out.lines().find(|line| line.contains("[stdio]")).unwrap();
    let number: usize = line.split(':').nth(1).unwrap().parse().unwrap();
    assert!(policy().lines().nth(number - 1).unwrap().contains("allow_stdio_access"), "{line}");
    assert!(!out.contains("swordfish"));
    assert_eq!(desk.policy(&["check", "web.rego", "--deny", "low"]).2, Some(1));
    assert_eq!(desk.policy(&["check", "web.rego", "--deny", "high"]).2, Some(0));
    desk.write(
        "open.rego",
        &policy().replace("allow_unencrypted_scratch := false", "allow_unencrypted_scratch := true"),
    );
    assert_eq!(desk.policy(&["check", "open.rego", "--deny", "high"]).2, Some(1));
    assert_eq!(desk.policy(&["check", "open.rego", "--deny", "high", "--allow", "unencrypted-scratch"]).2, Some(0));
    desk.write("new.rego", &policy().replace("\"0.5.0\"", "\"9.0.0\""));
    assert_eq!(desk.policy(&["check", "new.rego"]).2, Some(1));
    assert_eq!(desk.policy(&["check", "new.rego", "--deny", "never"]).2, Some(0));
    let (found, code) = desk.json(&["check", "open.rego"]);
    assert_eq!(code, Some(0));
    assert_eq!(found[0]["digest"], PolicyDigest::of(&desk.read("open.rego")).to_string());
    assert!(
        found[0]["findings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["lint"] == "unencrypted-scratch" && f["severity"] == "high")
    );
    for wrong in [&["check", "web.rego", "--allow", "nothing"][..], &["check", "missing"], &["check"]] {
        assert_eq!(desk.policy(wrong).2, Some(2), "{wrong:?}");
    }
    desk.write("bad.rego", "package policy\nx := [\n");
    let (_, error, code) = desk.policy(&["check", "bad.rego"]);
    assert!(code == Some(2) && error.contains("bad.rego"), "{error}");
    let (lints, code) = desk.json(&["check", "--list"]);
    assert!(code == Some(0) && lints.as_array().unwrap().len() > 40);
}

#[test]
fn explain_tells_without_values() {
    let desk = Desk::new();
    let (out, _, code) = desk.policy(&["explain", "web.rego"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("[\"/bin/web\"]") && out.contains("TOKEN (one value)") && !out.contains("swordfish"), "{out}");
    desk.write("template.json", &template(&[("a", &policy()), ("b", &policy())]));
    let (groups, _) = desk.json(&["explain", "template.json"]);
    assert_eq!((groups[0]["policy"].as_str(), groups[1]["policy"].as_str()), (Some("a"), Some("b")));
}

#[test]
fn diff_ends_with_whether_they_differ() {
    let desk = Desk::new();
    let other = policy().replace("/bin/web", "/bin/other");
    desk.write("other.rego", &other);
    desk.write("web.b64", &desk.policy(&["convert", "web.rego", "--to", "base64"]).0);
    desk.write("one.json", &template(&[("group", &policy())]));
    desk.write("two.json", &template(&[("b", &other), ("a", &policy())]));
    desk.write("both.json", &template(&[("a", &policy()), ("b", &policy())]));
    for same in ["web.rego", "web.b64", "one.json"] {
        let (out, _, code) = desk.policy(&["diff", "web.rego", same]);
        assert_eq!((out.as_str(), code), ("", Some(0)), "{same}");
    }
    let (out, _, code) = desk.policy(&["diff", "web.b64", "other.rego"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("- [\"/bin/web\"]") && out.contains("+ [\"/bin/other\"]"), "{out}");
    let (found, code) = desk.json(&["diff", "both.json", "two.json"]);
    assert_eq!(code, Some(1));
    assert_eq!(found[0]["differences"], json!([]));
    assert_eq!(found[1]["differences"][0]["field"], "command");
    let (found, _) = desk.json(&["diff", "both.json", "web.rego"]);
    assert_eq!(found[0]["missing"], "only in the first");
    desk.write("bad", "package other\n");
    assert_eq!(desk.policy(&["diff", "web.rego", "bad"]).2, Some(2));
    assert_eq!(desk.policy(&["diff", "-", "-"]).2, Some(2));
}

#[test]
fn convert_gives_each_form() {
    let desk = Desk::new();
    let convert = |file: &str, to: &str| desk.policy(&["convert", file, "--to", to]);
    let (encoded, _, code) = convert("web.rego", "base64");
    assert_eq!(code, Some(0));
    desk.write("web.b64", &encoded);
    assert_eq!(convert("web.b64", "raw").0, policy());
    assert_eq!(convert("web.b64", "digest").0.trim_end(), PolicyDigest::of(&policy()).to_string());
    desk.write("messy.rego", &format!("# mine\n{}", policy()));
    let (laid_out, said, _) = convert("messy.rego", "pretty");
    assert!(!laid_out.contains("# mine") && said.contains("its digest is"), "{said}");
    desk.write("laid-out.rego", &laid_out);
    assert_eq!(desk.policy(&["diff", "web.rego", "laid-out.rego"]).2, Some(0));
    let own = format!("{}\nhelper if input.x\n", policy());
    desk.write("own.rego", &own);
    let (same, said, _) = convert("own.rego", "pretty");
    assert!(same == own && said.contains("as it was"), "{said}");
    desk.write("two.json", &template(&[("a", &policy()), ("b", &policy())]));
    assert_eq!(convert("two.json", "raw").2, Some(2));
    assert_eq!(convert("web.rego", "yaml").2, Some(2));
}

#[test]
fn replay_says_what_to_change_and_changes_it() {
    let desk = Desk::new();
    let id = "c".repeat(64);
    let layer = |hash: &str| json!({"target": Platform::layer_target(1), "deviceHash": hash});
    let overlay =
        json!({"containerID": id, "layerPaths": [Platform::layer_target(1)], "target": Platform::overlay_target(&id)});
    let requests = [
        json!({"t": "record", "version": 1, "policy_digest": ""}),
        json!({"t": "request", "n": 1, "point": "mount_device", "input": layer(&"cd".repeat(32)), "allowed": false}),
        json!({"t": "request", "n": 2, "point": "mount_overlay", "input": overlay, "allowed": false}),
        json!({"t": "request", "n": 3, "point": "dump_stacks", "input": {}, "allowed": false}),
    ];
    desk.write("requests.jsonl", &requests.map(|line| line.to_string() + "\n").concat());
    let (out, _, code) = desk.policy(&["replay", "web.rego", "requests.jsonl"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("to allow it: set containers[0].layers[0]") && out.contains("0 of 3 requests"), "{out}");
    let (_, said, code) =
        desk.policy(&["replay", "web.rego", "requests.jsonl", "--amend", "new.rego", "--only", "1", "--only", "2"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("changed for request 1") && !said.contains("request 3"), "{said}");
    let (out, _, code) = desk.policy(&["replay", "new.rego", "requests.jsonl", "--json"]);
    let allowed: Vec<_> =
        out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["allowed"].clone()).collect();
    assert_eq!((allowed, code), (vec![json!(true), json!(true), json!(false)], Some(1)));
    let (found, _) = desk.json(&["diff", "web.rego", "new.rego"]);
    assert_eq!(found[0]["differences"][0]["field"], "layers");
    desk.write("bad.jsonl", "{}\n");
    let (_, error, code) = desk.policy(&["replay", "web.rego", "bad.jsonl"]);
    assert!(code == Some(2) && error.contains("line 1"), "{error}");
}
