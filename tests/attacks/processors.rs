//! The host's processor is another than the owner accepts: groups launched on each kind, with reports that are really signed.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use caveau_tests::{Outcome, guest_folder, hostile::Hostile};

const NONCE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A group on one kind of processor, and its owner.
struct Proof<'a> {
    host: &'a Hostile,
    group: String,
    evidence: String,
    root: String,
}

impl<'a> Proof<'a> {
    /// Launches the honest plan on this processor.
    fn of(host: &'a Hostile, processor: &str) -> Self {
        let group = host.start_on(processor, |plan| plan.name = processor.parse().expect("a name"));
        let group = group.expect("the honest plan starts").folder().name().to_string();
        std::fs::write(host.folder.path().join("policy.rego"), &host.plan.policy).expect("the policy is written");
        let root = host.caveau.run(&["doctor", "--json"]).json()["emulated_root"].as_str().map(str::to_owned);
        let evidence = host.folder.path().join(format!("{processor}.json")).display().to_string();
        let proof = Self { host, group, evidence, root: root.expect("a root") };
        proof.attest(&[]);
        proof
    }

    fn attest(&self, options: &[&str]) {
        let attest = ["attest", &self.group, "--nonce", NONCE, "-o", &self.evidence];
        self.host.caveau.run(&[&attest[..], options].concat()).success();
    }

    /// What its owner says, with everything expected that there is to expect of the guest, and `options`.
    fn verify(&self, options: &[&str]) -> Outcome {
        let policy = self.host.folder.path().join("policy.rego").display().to_string();
        let reference = guest_folder().join("guest.json").display().to_string();
        let own = ["--json", "verify", &self.evidence, "--nonce", NONCE, "--policy", &policy, "--cpus", "1"];
        let more = ["--reference", &reference, "--allow-emulated", &self.root];
        self.host.caveau.run(&[&own[..], &more, options].concat())
    }

    #[track_caller]
    fn passes(&self, options: &[&str]) {
        self.verify(options).success();
    }

    /// The first check that fails does so with this code.
    #[track_caller]
    fn is_refused(&self, code: &str, options: &[&str]) {
        let judged = self.verify(options).expect_code(1).json();
        let codes: Vec<&str> =
            judged["checks"].as_array().into_iter().flatten().filter_map(|check| check["code"].as_str()).collect();
        assert_eq!(codes.first(), Some(&code), "{codes:?}");
    }

    /// An appraisal policy with these fields.
    fn appraisal(&self, fields: &str) -> String {
        let text = format!(r#"{{"format":"caveau-appraisal-policy/1",{fields}}}"#);
        self.host.forged("appraisal.json", text.as_bytes()).display().to_string()
    }
}

impl Drop for Proof<'_> {
    fn drop(&mut self) {
        let _ = self.host.caveau.run(&["rm", "--force", &self.group]);
    }
}

/// Milan passes where its owner has said which chips, and only then.
#[test]
fn a_chip_that_nobody_listed() {
    let Some(host) = Hostile::new() else { return };
    let milan = Proof::of(&host, "milan");
    milan.is_refused("chip-list-needed", &[]);
    let shown = milan.verify(&[]).json();
    let chip = shown["claims"]["chip_id"].as_str().expect("a chip").to_owned();
    milan.passes(&["--chip", &chip]);
    milan.is_refused("chip-refused", &["--chip", &chip.replace('0', "1")]);
    milan.is_refused("product-line-refused", &["--chip", &chip, "--product-line", "Genoa"]);
    let appraisal = milan.appraisal(&format!(r#""chips":{{"allow":["{chip}"]}},"product_lines":{{"Milan":{{}}}}"#));
    milan.passes(&["--appraisal", &appraisal]);
    let twice = milan.verify(&["--appraisal", &appraisal, "--chip", &chip]).expect_code(2);
    assert!(twice.stderr.contains("give one of them"), "{}", twice.stderr);
    milan.is_refused("cert-validity", &["--chip", &chip, "--at", "2001-01-01"]);
}

#[test]
fn a_provider_that_nobody_named() {
    let Some(host) = Hostile::new() else { return };
    let vlek = Proof::of(&host, "vlek");
    vlek.is_refused("provider", &[]);
    vlek.is_refused("provider", &["--provider", "CN=another.invalid"]);
    vlek.passes(&["--provider", "CN=softsp.invalid"]);
}

#[test]
fn firmware_that_can_be_rolled_back_and_a_guest_that_can_be_debugged() {
    let Some(host) = Hostile::new() else { return };
    let provisional = Proof::of(&host, "provisional");
    provisional.is_refused("provisional-firmware", &[]);
    let appraisal = provisional.appraisal(r#""firmware":{"allow_provisional":true}"#);
    provisional.passes(&["--appraisal", &appraisal]);
    drop(provisional);
    let debug = Proof::of(&host, "debug");
    debug.is_refused("debug", &[]);
    debug.is_refused("debug", &["--profile", "baseline"]);
}

/// A report as the host asks for it is no answer to the guest, which then does not go on.
#[test]
fn a_report_that_the_host_asked_for() {
    let Some(host) = Hostile::new() else { return };
    let refused = host.start_on("host-requested", |_| ()).expect_err("the guest does not go on").to_string();
    assert!(
        refused.contains("the report answers another request: its REPORT_DATA is not the one asked for"),
        "{refused}"
    );
}

/// A program that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The key distribution service of the installation's processor, and its URL.
fn service(host: &Hostile) -> (Ended, String) {
    let mut service = host.caveau.command(&["__kds"]).stdout(Stdio::piped()).spawn().expect("the service starts");
    let mut url = String::new();
    let out = service.stdout.take().expect("stdout was asked for");
    BufReader::new(out).read_line(&mut url).expect("the service says where it is");
    (Ended(service), url.trim().to_owned())
}

/// The host offers no certificates: the owner gets them elsewhere, when asked to, and keeps them.
#[test]
fn a_host_that_keeps_its_certificates_to_itself() {
    let Some(host) = Hostile::new() else { return };
    let bare = Proof::of(&host, "no-certificates");
    bare.is_refused("certificate-missing", &[]);
    let (service, url) = service(&host);
    let cache = host.folder.path().join("cache").display().to_string();
    let fetching = [&format!("--fetch-certificates={url}")[..], "--certificate-cache", &cache];
    bare.passes(&fetching);
    bare.attest(&fetching);
    bare.passes(&[]);
    // What was fetched is kept: three files, which do without the service.
    let kept: Vec<String> = walk(host.folder.path().join("cache").as_path());
    assert_eq!(kept.len(), 3, "{kept:?}");
    drop(service);
    bare.attest(&[]);
    bare.is_refused("certificate-missing", &[]);
    let files: Vec<&str> = kept.iter().flat_map(|file| ["--certificates", file.as_str()]).collect();
    bare.passes(&files);
    // The service that is gone is an error, not a pass without its revocation list.
    let gone = bare.verify(&fetching).expect_code(2);
    assert!(gone.stderr.contains("/crl"), "{}", gone.stderr);
    let list: Vec<&str> = files.iter().filter(|file| file.ends_with("-crl")).copied().collect();
    assert_eq!(list.len(), 1);
    bare.is_refused("certificate-missing", &["--crl", list[0]]);
}

/// The files in a folder and the folders in it.
fn walk(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path.display().to_string()] }).collect()
}

#[test]
fn a_processor_that_there_is_not() {
    let Some(host) = Hostile::new() else { return };
    let error = host.start_on("rome", |_| ()).expect_err("there is no such processor");
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains("secure processor"), "{text}");
}
