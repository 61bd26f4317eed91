//! `caveau verify` on really signed evidence of an emulated processor, as a shell sees it: what the owner expects, who chooses
//! the revocation list, and what is shown.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use crate::processor::{ONE, Persona, made};
use caveau_evidence::{Evidence, Use, report_data};
use caveau_group::{Container, Group, ImageParts, Overrides, Permissions};
use caveau_policy::PolicyDigest;
use caveau_snp::build::ASK_SERIAL;
use caveau_snp::product::{Fms, ProductLine};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const NONCE: &str = "6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e";
const IMAGE: &str = "registry.example/shop/web:1";
const DAY: u64 = 24 * 3600;

/// All that the owner says of the group.
const EXPECTED: [(&str, &str); 4] =
    [("--nonce", NONCE), ("--policy", "web.rego"), ("--reference", "guest.json"), ("--cpus", "2")];

/// A folder with evidence, and with what its owner has.
pub(crate) struct Desk(pub(crate) TempDir);

impl Desk {
    fn new() -> Self {
        Self::of_policy(&policy(IMAGE, &["/bin/web"]))
    }

    /// The evidence of a group with this policy.
    pub(crate) fn of_policy(policy: &str) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        desk.write("web.rego", policy);
        desk.write("guest.json", reference().to_string());
        desk.write("root.der", ONE.ark_certificate());
        let mut persona = Persona::software(5);
        persona.fields.report_data = report_data(Use::Challenge, &hex::decode(NONCE).unwrap(), b"").0;
        persona.fields.host_data = *PolicyDigest::of(policy).as_bytes();
        persona.fields.measurement = [3; 48];
        desk.hold(&persona, Some(ONE.crl(&persona)));
        desk
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), contents).unwrap();
    }

    /// Evidence of this processor, with this revocation list.
    fn hold(&self, persona: &Persona, list: Option<Vec<u8>>) {
        let mut evidence = ONE.evidence(persona);
        evidence.certificates.crl = list;
        self.write("ev.json", evidence.to_json().unwrap());
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_caveau"));
        let path = self.0.path();
        command.args(arguments).current_dir(path).env("XDG_CACHE_HOME", path.join("cache"));
        command.env("XDG_DATA_HOME", path.join("data")).env("XDG_RUNTIME_DIR", path);
        command.env_remove("CAVEAU_GUEST");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The judgement of everything that is expected but `without`.
    fn verify(&self, without: Option<&str>, more: &[&str]) -> Judged {
        let expected =
            EXPECTED.iter().filter(|(name, _)| Some(*name) != without).flat_map(|(name, value)| [*name, *value]);
        let always = ["verify", "ev.json", "--allow-emulated", "root.der", "--at", "2026-11-23T01:00:00Z"];
        let arguments: Vec<&str> = always.into_iter().chain(expected).chain(more.iter().copied()).collect();
        let json = self.run(&[&arguments[..], &["--json"]].concat());
        let text = self.run(&arguments);
        assert_eq!(json.status.code(), text.status.code());
        Judged {
            code: text.status.code(),
            json: serde_json::from_slice(&json.stdout).unwrap_or_default(),
            table: String::from_utf8(text.stdout).unwrap(),
            stderr: String::from_utf8(text.stderr).unwrap(),
        }
    }
}

struct Judged {
    code: Option<i32>,
    json: Value,
    table: String,
    stderr: String,
}

impl Judged {
    fn passes(&self) {
        assert_eq!((self.code, &self.json["outcome"]), (Some(0), &json!("passed")), "{}{}", self.table, self.stderr);
    }

    fn is_refused(&self, code: &str) {
        let checks = self.json["checks"].as_array().unwrap();
        let codes: Vec<&str> = checks.iter().filter_map(|check| check["code"].as_str()).collect();
        assert_eq!((self.code, codes), (Some(1), vec![code]), "{}", self.stderr);
    }

    fn list_number(&self) -> &Value {
        &self.json["claims"]["endorsement"]["revocation_list"]["number"]
    }
}

/// A policy of one container.
pub(crate) fn policy(image: &str, command: &[&str]) -> String {
    let parts = ImageParts {
        reference: image.to_owned(),
        layers: vec!["5c".repeat(32).parse().unwrap()],
        entrypoint: command.iter().map(|word| (*word).to_owned()).collect(),
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: String::new(),
        user: String::new(),
        stop_signal: None,
    };
    let container = Container::from_image(parts, Overrides::default()).unwrap();
    caveau_policy::generate(&Group::new(vec![container], Permissions::default()).unwrap())
}

/// A guest for both TEEs, which share the initrd.
fn reference() -> Value {
    let part = json!({ "bytes": 1, "sha256": "0".repeat(64) });
    let names = ["vmlinux", "vmlinuz", "initrd.img", "cmdline.snp", "cmdline.emulated-snp", "bios.bin", "OVMF.fd"];
    let parts: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), part.clone())).collect();
    let tee = |kernel: &str, tee: &str, firmware: &str, digest: &str| {
        json!({
            "kernel": kernel, "initrd": "initrd.img", "cmdline": format!("cmdline.{tee}"),
            "firmware": [firmware],
            "launch_digests": [{ "vcpu_type": "EPYC-v4", "vcpus": 2, "digest": digest.repeat(48) }],
        })
    };
    let tees = json!({
        "emulated-snp": tee("vmlinux", "emulated-snp", "bios.bin", "03"), "snp": tee("vmlinuz", "snp", "OVMF.fd", "04"),
    });
    json!({
        "format": caveau_guest_image::FORMAT, "svn": 1,
        "agent": { "version": "1", "sha256": "1".repeat(64) },
        "kernel": { "release": "6.12", "banner": "Linux version 6.12" },
        "modules": [
            { "name": "dm-verity", "sha256": "2".repeat(64) },
            { "name": "sev-guest", "sha256": "2".repeat(64), "tee": "snp" },
            { "name": "virtio-console", "sha256": "2".repeat(64), "tee": "emulated-snp" },
        ],
        "parts": parts,
        "tees": tees,
    })
}

#[test]
fn evidence_is_not_appraised_without_each_of_the_expectations() {
    let desk = Desk::new();
    let whole = desk.verify(None, &[]);
    whole.passes();
    assert!(whole.stderr.is_empty(), "{}", whole.stderr);
    for (name, _) in EXPECTED {
        let judged = desk.verify(Some(name), &[]);
        assert_eq!(judged.code, Some(1), "without {name}: {}", judged.stderr);
        assert_eq!(judged.json["outcome"], "authentic-not-appraised", "without {name}");
        assert!(judged.table.contains("authentic, not appraised"), "{}", judged.table);
        let halved = matches!(name, "--reference" | "--cpus");
        assert_eq!(judged.stderr.contains(&format!("{name} is missing")), halved, "without {name}: {}", judged.stderr);
        // The reference values were not what the report was held against.
        assert_eq!(judged.table.contains("Software TCB"), !halved, "without {name}");
        assert!(desk.verify(Some(name), &["--quiet"]).stderr.is_empty());
    }
}

#[test]
fn the_table_names_the_images_and_what_this_tee_starts_from() {
    let judged = Desk::new().verify(None, &[]);
    let table = &judged.table;
    for shown in [IMAGE, &"5c".repeat(32), "EMULATED TCB", "cmdline.emulated-snp", "bios.bin", "initrd.img"] {
        assert!(table.contains(shown), "{shown}: {table}");
    }
    for of_another in ["Hardware TCB", "cmdline.snp", "cmdline snp", "vmlinuz", "OVMF.fd", "sev-guest"] {
        assert!(!table.contains(of_another), "{of_another}: {table}");
    }
    assert!(table.contains("dm-verity virtio-console"), "{table}");
    assert_eq!(judged.json["policy"]["containers"][0]["image"], IMAGE);
    assert_eq!(judged.json["policy"]["containers"][0]["layers"], json!(["5c".repeat(32)]));
    let tees = judged.json["guest"]["tees"].as_object().unwrap().keys().collect::<Vec<_>>();
    assert_eq!(tees, ["emulated-snp"]);
}

/// A list that is in force for a year.
fn list(number: u64, revoked: &[u64]) -> Vec<u8> {
    ONE.list(number, made().plus_seconds(365 * DAY), revoked)
}

#[test]
fn a_list_in_the_evidence_hides_no_newer_one_in_a_file() {
    let desk = Desk::new();
    desk.write("newer.crl", list(8, &[ASK_SERIAL]));
    desk.write("older.crl", list(6, &[]));
    for option in ["--crl", "--certificates"] {
        desk.verify(None, &[option, "newer.crl"]).is_refused("intermediate-revoked");
        let judged = desk.verify(None, &[option, "older.crl"]);
        judged.passes();
        assert_eq!(judged.list_number(), 7);
    }
}

/// A service that gives out one revocation list, whatever it is asked for.
fn service(list: &Arc<Mutex<Vec<u8>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--fetch-certificates=http://{}", listener.local_addr().unwrap());
    let list = Arc::clone(list);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).for_each(drop);
            let body = list.lock().unwrap().clone();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    url
}

#[test]
fn the_newest_list_that_was_seen_is_kept_and_counts() {
    let desk = Desk::new();
    let served = Arc::new(Mutex::new(Vec::new()));
    let fetch = service(&served);
    let verify = |given: Vec<u8>| {
        *served.lock().unwrap() = given;
        desk.verify(None, &[&fetch])
    };
    verify(list(8, &[ASK_SERIAL])).is_refused("intermediate-revoked");
    // The evidence has list 7, the service a newer one.
    let newer = verify(list(9, &[]));
    newer.passes();
    assert_eq!(newer.list_number(), 9);
    // A service that goes back does not take what was seen away.
    let back = verify(list(8, &[]));
    back.passes();
    assert_eq!(back.list_number(), 9);
    // Nor does one whose newest list has run out.
    verify(ONE.list(11, made(), &[])).is_refused("crl-rollback");
    verify(list(10, &[])).is_refused("crl-rollback");
    verify(list(11, &[])).passes();
}

#[test]
fn amd_is_not_asked_about_an_emulated_processor() {
    let desk = Desk::new();
    let milan = Persona::line(ProductLine::Milan, 3, Fms { family: 0x19, model: 1, stepping: 1 }, "Milan-B0");
    for persona in [Persona::software(5), milan] {
        let mut evidence = ONE.evidence(&persona);
        evidence.certificates.vek = None;
        desk.write("ev.json", evidence.to_json().unwrap());
        for fetch in ["--fetch-certificates", "--fetch-certificates=https://KDSINTF.amd.com:443/"] {
            let judged = desk.verify(None, &[fetch]);
            judged.is_refused("certificate-missing");
            assert!(judged.stderr.contains("AMD is not asked"), "{}", judged.stderr);
        }
    }
}

/// Standard output of which nobody reads anything.
fn code_without_reader(mut command: Command) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
    output.status.code()
}

#[test]
fn a_reader_that_goes_away_changes_no_exit_code() {
    let desk = Desk::new();
    let emulated = ["verify", "ev.json", "--allow-emulated", "root.der", "--at", "2026-11-23T01:00:00Z"];
    let expected: Vec<&str> = EXPECTED.iter().flat_map(|(name, value)| [*name, *value]).collect();
    for (arguments, code) in [
        ([&emulated[..], &expected].concat(), 0),
        (emulated.to_vec(), 1),
        ([&emulated[..], &["--json"]].concat(), 1),
        (vec!["verify", "--appraisal-example"], 0),
        (vec!["verify", "nothing.json"], 2),
        (vec!["policy", "digest", "web.rego"], 0),
        (vec!["completions", "bash"], 0),
        (vec!["image", "ls"], 0),
        (vec!["doctor"], 1),
        (vec!["--help"], 0),
    ] {
        assert_eq!(code_without_reader(desk.command(&arguments)), Some(code), "{arguments:?}");
    }
}

#[test]
fn hostile_text_does_not_reach_the_terminal() {
    let desk = Desk::new();
    for evidence in [
        r#"{"format":"caveau-evidence/1\u001b[2J"}"#,
        r#"{"format":"caveau-evidence/1","tee":"\u001b[2Jsnp","report":""}"#,
        r#"{"format":"caveau-evidence/1","tee":"snp","report":"","\u001b]0;x\u0007":1}"#,
    ] {
        desk.write("ev.json", evidence);
        let output = desk.run(&["verify", "ev.json"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text.contains(r"\u{1b}") && !text.trim_end().contains(char::is_control), "{text:?}");
    }
}

/// Before anything is fetched or started, and whatever was asked to be quiet.
#[test]
fn what_is_not_protected_is_said_aloud() {
    let desk = Desk::new();
    fs::create_dir(desk.0.path().join("guest")).unwrap();
    desk.write("guest/guest.json", reference().to_string());
    let run = ["run", "-q", "--tee", "emulated-snp", "--guest", "guest", "oci:./none"];
    let said = |arguments: &[&str], code: i32| {
        let output = desk.run(arguments);
        assert_eq!(output.status.code(), Some(code), "there is no such image");
        String::from_utf8(output.stderr).unwrap()
    };
    let emulated = said(&run, 125);
    assert!(emulated.contains("caveau: WARNING: the TEE is emulated"), "{emulated}");
    assert!(!emulated.contains("-e stand in the policy") && !emulated.contains('\x1b'), "{emulated}");
    for (command, code) in [(&run[..], 125), (&["policy", "generate", "-q", "oci:./none"], 2)] {
        let variables = said(&[command, &["-e", "KEY=value"]].concat(), code);
        assert!(
            variables.contains("WARNING: values given with -e stand in the policy, which the host can read"),
            "{variables}"
        );
    }
}

#[test]
fn the_emulated_tee_has_no_other_firmware() {
    let desk = Desk::new();
    let output = desk.run(&["measure", "--tee", "emulated-snp", "--firmware", "root.der", "--guest", "guest"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--firmware is for --tee snp"));
}

#[test]
fn doctor_looks_at_the_firmware_that_is_given() {
    let desk = Desk::new();
    let output = desk.run(&["doctor", "--json", "--firmware", "root.der"]);
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let snp = findings["findings"].as_array().unwrap().iter().find(|finding| finding["name"] == "snp").unwrap();
    assert_eq!(snp["verdict"], "lacking", "{snp}");
}

/// An emulated processor whose state is damaged can launch nothing, and is not passed over.
#[test]
fn doctor_tells_of_a_damaged_emulated_processor() {
    let desk = Desk::new();
    let findings = || {
        let output = desk.run(&["doctor", "--json"]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let root = |found: &Value| {
        let all = found["findings"].as_array().unwrap();
        all.iter().find(|finding| finding["name"] == "emulated root").cloned().unwrap()
    };
    let whole = findings();
    let path = whole["emulated_root"].as_str().unwrap().to_owned();
    assert_eq!((root(&whole)["verdict"].as_str(), root(&whole)["found"].as_str()), (Some("good"), Some(path.as_str())));
    fs::write(&path, "no certificate").unwrap();
    fs::write(Path::new(&path).with_file_name("certificate.der"), "no certificate").unwrap();
    let damaged = findings();
    assert_eq!((damaged["ok"].as_bool(), &damaged["emulated_root"]), (Some(false), &Value::Null));
    let root = root(&damaged);
    assert_eq!(root["verdict"], "missing", "{root}");
    assert!(root["found"].as_str().unwrap().contains("is damaged") && root["remedy"].is_string(), "{root}");
}

/// The signer of a guest's reference values, by a key of its own.
fn signed(desk: &Desk, options: &[&str]) -> Output {
    if !desk.0.path().join("keys").exists() {
        assert_eq!(desk.run(&["fragment", "chain", "keys"]).status.code(), Some(0));
    }
    let sign =
        ["guest", "sign", "guest.json", "--key", "keys/signer.key", "--chain", "keys/chain.pem", "--feed", "guest"];
    desk.run(&[&sign[..], options].concat())
}

/// Whose reference values are taken.
fn signer<'a>(issuer: &'a str, feed: &'a str, svn: &'a str) -> [&'a str; 6] {
    ["--endorsement-issuer", issuer, "--endorsement-feed", feed, "--endorsement-least-svn", svn]
}

#[test]
fn a_signature_stands_for_reference_values() {
    let desk = Desk::new();
    let made = signed(&desk, &["--tee", "emulated-snp", "--json"]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!((&made["file"], &made["svn"]), (&json!("reference-info.emulated-snp.cose"), &json!(1)));
    let issuer = made["issuer"].as_str().unwrap();
    let file = ["--endorsement", "reference-info.emulated-snp.cose"];
    // Neither guest.json nor a number of processors is needed.
    let without: Vec<&str> = EXPECTED[..2].iter().flat_map(|(name, value)| [*name, *value]).collect();
    let verify = |more: &[&str]| {
        let always = ["verify", "ev.json", "--allow-emulated", "root.der", "--json"];
        let output = desk.run(&[&always[..], &without, &["--profile", "baseline"], more].concat());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let checks = json["checks"].as_array().cloned().unwrap_or_default();
        let codes: Vec<_> = checks.iter().filter_map(|check| check["code"].as_str().map(str::to_owned)).collect();
        (output.status.code(), codes, json, String::from_utf8(output.stderr).unwrap())
    };
    // Judged now, since it is signed now; the revocation list ends some day.
    let time = verify(&[]).1;
    assert!(time.is_empty() || time == ["crl-stale"], "{time:?}");
    let good = signer(issuer, "guest", "1");
    let expected = |codes: &[&str]| -> Vec<String> {
        let mut all: Vec<String> = time.iter().cloned().chain(codes.iter().map(|code| (*code).to_owned())).collect();
        all.sort();
        all
    };
    let (_, codes, json, stderr) = verify(&[&file[..], &good].concat());
    assert_eq!(codes, time, "{stderr}");
    if time.is_empty() {
        assert_eq!((&json["outcome"], &json["reference_info"]["issuer"]), (&json!("passed"), &json!(issuer)));
    }
    // The same where they came along in the file, as `caveau attest` puts them there.
    let bare = fs::read(desk.0.path().join("ev.json")).unwrap();
    let mut evidence = Evidence::parse(&bare).unwrap();
    evidence.endorsements.push(fs::read(desk.0.path().join(file[1])).unwrap());
    desk.write("ev.json", evidence.to_json().unwrap());
    let (_, codes, json, stderr) = verify(&good);
    assert_eq!((codes, &json["reference_info"]["issuer"]), (time.clone(), &json!(issuer)), "{stderr}");
    desk.write("ev.json", bare);
    let other = format!("did:x509:0:sha256:{}::eku:1.3.6.1.4.1.311.76.59.1.1", "A".repeat(43));
    for (options, code) in [
        (signer(issuer, "guest", "2"), "reference-info-svn"),
        (signer(issuer, "guests", "1"), "reference-info-feed"),
        (signer(&other, "guest", "1"), "reference-info-issuer"),
    ] {
        let mut codes = verify(&[&file[..], &options].concat()).1;
        codes.sort();
        assert_eq!(codes, expected(&["measurement", code]));
    }
    // Of another TEE, of another digest, edited, none.
    assert_eq!(signed(&desk, &["--tee", "snp", "-o", "snp.cose"]).status.code(), Some(0));
    assert!(verify(&[&["--endorsement", "snp.cose"][..], &good].concat()).1.contains(&"reference-info-tee".to_owned()));
    let mut bytes = fs::read(desk.0.path().join(file[1])).unwrap();
    let place = bytes.len() - 9;
    bytes[place] ^= 1;
    desk.write("edited.cose", bytes);
    let codes = verify(&[&["--endorsement", "edited.cose"][..], &good].concat()).1;
    assert!(codes.contains(&"reference-info-signature".to_owned()), "{codes:?}");
    assert!(verify(&good).1.contains(&"reference-info-missing".to_owned()));
    let mut guest = reference();
    guest["tees"]["emulated-snp"]["launch_digests"][0]["digest"] = json!("05".repeat(48));
    desk.write("guest.json", guest.to_string());
    assert_eq!(signed(&desk, &["--tee", "emulated-snp", "--form", "claims"]).status.code(), Some(0));
    assert_eq!(verify(&[&file[..], &good].concat()).1, expected(&["measurement"]));
    // What does not go together.
    let file_alone = verify(&file);
    assert!(file_alone.0 == Some(2) && file_alone.3.contains("whose signature counts"), "{}", file_alone.3);
    assert_eq!(verify(&good[..2]).0, Some(2));
    let mistaken = verify(&["--reference", file[1]]);
    assert!(mistaken.0 == Some(2) && mistaken.3.contains("for --endorsement"), "{}", mistaken.3);
    let none = signed(&desk, &["--tee", "emulated-snp", "--cpus", "3"]);
    let told = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(none.status.code() == Some(2) && told.contains("none of its"), "{told}");
}
