//! Denials: what they say is what the reference says, and what they propose works.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::allow_attributes,
    reason = "a test may fail loudly"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
};

use caveau_group::{Container, EnvRule, ExecProcess, Group, IdName, ImageParts, Overrides, Permissions};
use caveau_policy::{
    Asked, Denial, MAX_POLICY_DECISION, Outcome, Platform, Point, PolicyDecision, Replay, Session, generate,
};
use flate2::read::GzDecoder;
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A container of the image with these layers.
fn container(name: &str, layers: &[String], command: &[String], env: &[String], flags: [bool; 4]) -> Container {
    let [privileged, no_new_privileges, read_only, stdio] = flags;
    let image = ImageParts {
        reference: format!("registry.example/{name}:1"),
        layers: layers.iter().map(|root| root.parse().unwrap()).collect(),
        cmd: command.to_vec(),
        env: env.to_vec(),
        user: "1000:1000".to_owned(),
        ..ImageParts::default()
    };
    let overrides = Overrides { privileged, no_new_privileges, read_only, stdio, ..Overrides::default() };
    let mut container = Container::from_image(image, overrides).unwrap();
    container.name = name.to_owned();
    container.exec = vec![ExecProcess { command: vec!["/bin/probe".to_owned()], signals: vec!["15".parse().unwrap()] }];
    container
}

fn id_name(rule: &IdName) -> Value {
    match rule {
        IdName::Any => json!({"id": "7", "name": "seven"}),
        IdName::Id(number) => json!({"id": number.to_string(), "name": ""}),
        IdName::Name(name) => json!({"id": "9", "name": name}),
    }
}

/// What asks for exactly this container.
fn request_for(container: &Container) -> Value {
    let variable = |rule: &EnvRule| match rule {
        EnvRule::Exact { value, .. } => value.clone(),
        EnvRule::Pattern { pattern, .. } => pattern.clone(),
    };
    json!({
        "containerID": ID,
        "argList": container.command,
        "envList": container.env.iter().map(variable).collect::<Vec<_>>(),
        "workingDir": container.working_dir,
        "mounts": container.mounts,
        "devices": [],
        "privileged": container.privileged,
        "noNewPrivileges": container.no_new_privileges,
        "user": id_name(&container.user.user),
        "groups": container.user.groups.iter().map(id_name).collect::<Vec<_>>(),
        "umask": container.user.umask,
        "capabilities": container.capabilities,
        "seccompProfileSHA256": container.seccomp.as_ref().map_or_else(String::new, |profile| profile.sha256()),
        "readOnlyRoot": container.read_only,
    })
}

fn asked(point: Point, input: Value) -> Asked {
    Asked { point, input }
}

/// Mounts of a container's layers and overlay.
fn mounts(layers: &[String]) -> Vec<Asked> {
    let mut asks = Vec::new();
    let mut targets = Vec::new();
    for (number, root) in (0..).zip(layers) {
        let target = Platform::layer_target(number);
        targets.insert(0, target.clone());
        asks.push(asked(Point::MountDevice, json!({"target": target, "deviceHash": root})));
    }
    let overlay = json!({"containerID": ID, "layerPaths": targets, "target": Platform::overlay_target(ID)});
    asks.push(asked(Point::MountOverlay, overlay));
    asks
}

/// Asks all of a policy; the first denial, with its place.
fn first_denial(text: &str, asks: &[Asked]) -> Option<(usize, Denial)> {
    let mut session = Session::new(text).unwrap();
    asks.iter().enumerate().find_map(|(n, ask)| Some((n, session.ask(ask, Outcome::Done).unwrap().err()?)))
}

/// Asks all of a policy, making each proposed change, until nothing is denied. Every change must allow the request that it
/// was proposed for, and nothing that was allowed before may be denied after. Gives the number of changes.
fn amend_until_allowed(mut text: String, asks: &[Asked]) -> Result<usize, String> {
    let mut changes = 0;
    let mut reached = 0;
    while let Some((n, denial)) = first_denial(&text, asks) {
        if changes > 0 && n <= reached {
            return Err(format!("request {n} is denied after a change: {denial}\n{text}"));
        }
        reached = n;
        let change = denial.change.clone().ok_or_else(|| format!("no change is proposed: {denial:#?}"))?;
        for candidate in &denial.candidates {
            let Some(change) = &candidate.change else { continue };
            let amended = change.apply(&text).map_err(|error| format!("{change}: {error}"))?;
            if let Some((m, denial)) = first_denial(&amended, &asks[..=n]) {
                return Err(format!("{}: {change}: request {m} of {n}: {denial}", candidate.container));
            }
        }
        text = change.apply(&text).map_err(|error| format!("{change}: {error}"))?;
        changes += 1;
    }
    Ok(changes)
}

prop_compose! {
    /// Changes of a request: which fields, and to what.
    fn lies()(
        fields in vec(0usize..13, 1..5),
        word in "[a-z]{1,6}",
        tricky in "[a-z\"\\\\{}\\[\\]\n$`é]{1,6}",
    ) -> (Vec<usize>, String, String) {
        (fields, word, tricky)
    }
}

fn lie(request: &mut Value, field: usize, word: &str, tricky: &str) {
    match field {
        0 => request["argList"] = json!([tricky, word]),
        1 => request["workingDir"] = json!(format!("/{tricky}")),
        2 => request["envList"].as_array_mut().unwrap().push(json!(format!("XTRA_{word}={tricky}"))),
        3 => request["envList"] = json!([]),
        4 => request["privileged"] = json!(true),
        5 => request["noNewPrivileges"] = json!(false),
        6 => request["user"] = json!({"id": "77", "name": word}),
        7 => request["groups"] = json!([{"id": "78", "name": ""}, {"id": "79", "name": word}]),
        8 => request["umask"] = json!("0077"),
        9 => request["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN", "CAP_CHOWN"]),
        10 => request["seccompProfileSHA256"] = json!("ab".repeat(32)),
        11 => request["readOnlyRoot"] = json!(false),
        _ => {
            let mount = json!({"destination": format!("/{word}"), "options": ["rw"], "source": tricky, "type": "bind"});
            request["mounts"].as_array_mut().unwrap().push(mount);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked of however many containers that are alike: each denial's smallest change, made in the text,
    /// allows the request, and everything that was allowed before.
    #[test]
    fn every_proposed_change_allows_the_request(
        lies in lies(),
        commands in vec(vec("[a-z]{1,4}", 1..3), 1..4),
        env in vec("[A-Z]{1,3}=[a-z]{0,3}", 0..3),
        flags in vec(any::<[bool; 4]>(), 3),
        dropping in any::<[bool; 2]>(),
        starts in 0usize..2,
    ) {
        let layers = vec!["ab".repeat(32), "cd".repeat(32)];
        let containers: Vec<_> = commands.iter().zip(flags).enumerate()
            .map(|(n, (command, flags))| container(&format!("c{n}"), &layers, command, &env, flags))
            .collect();
        // With dropping, what an earlier container keeps can depend on what a later one of the same image is given.
        let [environment_dropping, capability_dropping] = dropping.map(|dropping| dropping && starts == 0);
        let permissions = Permissions { environment_dropping, capability_dropping, ..Permissions::default() };
        let mut asks = mounts(&layers);
        let mut request = request_for(&containers[0]);
        let text = generate(&Group::new(containers, permissions).unwrap());
        let (fields, word, tricky) = &lies;
        fields.iter().for_each(|field| lie(&mut request, *field, word, tricky));
        asks.push(asked(Point::CreateContainer, request.clone()));
        if starts > 0 {
            // A second container under the first one's policy.
            let other = "b".repeat(64);
            let mut overlay = asks[asks.len() - 2].clone();
            overlay.input["containerID"] = json!(other);
            overlay.input["target"] = json!(Platform::overlay_target(&other));
            request["containerID"] = json!(other);
            asks.extend([overlay, asked(Point::CreateContainer, request)]);
        }
        if let Err(error) = amend_until_allowed(text, &asks) {
            return Err(TestCaseError::fail(error));
        }
    }
}

/// A policy of one container, and what asks for it.
fn simple() -> (String, Vec<Asked>, Value) {
    let layers = vec!["ab".repeat(32), "cd".repeat(32)];
    let container = container("web", &layers, &["/bin/web".to_owned()], &["TOKEN=swordfish".to_owned()], [false; 4]);
    let request = request_for(&container);
    let mut asks = mounts(&layers);
    asks.push(asked(Point::CreateContainer, request.clone()));
    (generate(&Group::new(vec![container], Permissions::default()).unwrap()), asks, request)
}

#[test]
fn an_image_of_other_layers_is_a_change_for_each() {
    let (text, mut asks, _) = simple();
    asks[0].input["deviceHash"] = json!("12".repeat(32));
    asks[1].input["deviceHash"] = json!("34".repeat(32));
    assert_eq!(amend_until_allowed(text, &asks).unwrap(), 2);
}

#[test]
fn layers_in_another_order_are_a_change() {
    let (text, mut asks, _) = simple();
    asks[2].input["layerPaths"].as_array_mut().unwrap().reverse();
    assert_eq!(amend_until_allowed(text, &asks).unwrap(), 1);
}

#[test]
fn further_processes_signals_and_flags_are_changes() {
    let (text, mut asks, request) = simple();
    let text = text.replace("allow_properties_access := true", "allow_properties_access := false");
    let text = text.replace("scratch_mount := data.framework.scratch_mount\n", "");
    let exec = |edit: &dyn Fn(&mut Value)| {
        let mut exec = request.clone();
        for field in ["mounts", "devices", "privileged", "seccompProfileSHA256", "readOnlyRoot"] {
            exec.as_object_mut().unwrap().remove(field);
        }
        exec["argList"] = json!(["/bin/probe"]);
        edit(&mut exec);
        asked(Point::ExecInContainer, exec)
    };
    let signal = |init: bool, command: &str| json!({"containerID": ID, "signal": 37, "isInitProcess": init, "argList": [command]});
    asks.extend([
        exec(&|_| {}),
        exec(&|exec| exec["argList"] = json!(["sh", "-c", "echo \"$HOME\""])),
        exec(&|exec| exec["envList"].as_array_mut().unwrap().push(json!("DEBUG=1"))),
        exec(&|exec| exec["envList"] = json!([])),
        exec(&|exec| exec["user"] = json!({"id": "0", "name": "root"})),
        exec(&|exec| exec["groups"] = json!([{"id": "12", "name": "x"}])),
        asked(Point::SignalContainerProcess, signal(true, "/bin/web")),
        asked(Point::SignalContainerProcess, signal(false, "/bin/probe")),
        asked(Point::GetProperties, json!({})),
        asked(Point::DumpStacks, json!({})),
        asked(Point::RuntimeLogging, json!({})),
        asked(
            Point::RwMountDevice,
            json!({"target": Platform::scratch_target(0), "encrypted": false, "ensureFilesystem": true, "filesystem": "xfs"}),
        ),
        asked(
            Point::ScratchMount,
            json!({"target": Platform::scratch_target(0), "encrypted": true, "medium": "memory"}),
        ),
    ]);
    assert_eq!(amend_until_allowed(text, &asks).unwrap(), 12);
}

#[test]
fn what_no_policy_allows_has_no_change() {
    let (text, asks, request) = simple();
    let with = |field: &str, value: Value| {
        let mut request = request.clone();
        request[field] = value;
        let mut asks = asks[..asks.len() - 1].to_vec();
        asks.push(asked(Point::CreateContainer, request));
        first_denial(&text, &asks).unwrap().1
    };
    for (field, value) in [
        ("devices", json!([{"path": "/dev/sda"}])),
        ("mounts", json!([{"destination": "", "options": [], "source": "a", "type": "bind"}])),
        ("containerID", json!("..")),
    ] {
        let denial = with(field, value);
        assert!(denial.change.is_none() && denial.candidates.iter().all(|c| c.change.is_none()), "{denial:#?}");
    }
    let twice = [&asks[..], &asks[..1]].concat();
    assert!(first_denial(&text, &twice).unwrap().1.change.is_none(), "a place that is taken");
    let mut mine =
        text.replace("create_container := data.framework.create_container", "create_container := {\"allowed\": false}");
    mine.push('\n');
    assert!(first_denial(&mine, &asks).unwrap().1.change.is_none(), "a rule of the policy's own");
}

#[test]
fn neither_form_has_values_of_variables() {
    let (text, mut asks, mut request) = simple();
    request["envList"] = json!(["TOKEN=other-secret", "NAME=hidden=x"]);
    *asks.last_mut().unwrap() = asked(Point::CreateContainer, request);
    let (_, denial) = first_denial(&text, &asks).unwrap();
    let decision = denial.policy_decision();
    assert!(decision.len() <= MAX_POLICY_DECISION);
    let decoded = PolicyDecision::find(&decision).unwrap();
    let complete = serde_json::to_string(&denial).unwrap();
    let shown = format!("{complete}{decoded}{denial}{}", denial.host_json(65536));
    for secret in ["swordfish", "other-secret", "hidden"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    assert_eq!(decoded["decision"], "deny");
    assert_eq!(decoded["input"]["rule"], "create_container");
    assert_eq!(decoded["input"]["envList"], json!(["TOKEN=<<redacted>>", "NAME=<<redacted>>"]));
    let errors = &decoded["reason"]["errors"];
    assert_eq!(*errors, json!(["invalid env list: TOKEN,NAME", "missing required environment variable"]));
    assert!(complete.contains("\"candidates\"") && complete.contains("/containers/0/env_rules/-"));
    let host: Value = serde_json::from_str(&denial.host_json(65536)).unwrap();
    assert_eq!(host["policy_decision"], json!(decision));
    assert!(host.get("candidates").is_none(), "what to change is the owner's matter");
}

/// Errors that the reference finds in every further process, whatever it is: it compares fields that no policy has.
const ALWAYS: [&str; 2] = ["invalid noNewPrivileges", "invalid user"];

fn set(values: &Value) -> BTreeSet<String> {
    values.as_array().into_iter().flatten().map(canonical).collect()
}

/// A value with the order taken out of its lists.
fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Array(items) => {
                let mut items: Vec<_> = items.iter().map(sorted).collect();
                items.sort_by_key(ToString::to_string);
                Value::Array(items)
            }
            Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), sorted(field))).collect(),
            plain => plain.clone(),
        }
    }
    sorted(value).to_string()
}

#[test]
fn recorded_reasons_are_ours() {
    let root = std::env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"), PathBuf::from);
    let folder = root.join("policy-decisions");
    if !folder.is_dir() {
        println!("skipped: no fixtures");
        return;
    }
    // For each file, how many reasons of the framework are compared. Reasons of policies' own are theirs.
    for (name, least) in [("container", 172), ("exec", 36), ("mount", 104), ("other", 24)] {
        let mut engines = BTreeMap::new();
        let mut count = 0;
        for line in BufReader::new(GzDecoder::new(File::open(folder.join(format!("{name}.jsonl.gz"))).unwrap())).lines()
        {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if line["t"] == "session" {
                let engine = Replay::new(line["policy"].as_str().unwrap(), &line["data"]).ok();
                engines.insert(line["s"].to_string(), (line["test"].to_string(), engine));
            }
            if line["rule"] != "data.policy.reason" || line["result"]["errors"].is_null() {
                continue;
            }
            let (test, engine) = &engines[&line["s"].to_string()];
            let point = Point::from_name(line["input"]["rule"].as_str().unwrap()).unwrap();
            let ours = engine.as_ref().unwrap().reason(point, &line["input"], &line["metadata_before"]).unwrap();
            let mut theirs = set(&line["result"]["errors"]);
            let mut found = set(&ours["errors"]);
            if point == Point::ExecInContainer {
                ALWAYS.iter().for_each(|error| {
                    theirs.insert(json!(error).to_string());
                    found.insert(json!(error).to_string());
                });
            }
            assert_eq!(found, theirs, "{name} {test} {}", line["input"]);
            if line["result"].get("error_objects").is_some() {
                assert_eq!(set(&ours["error_objects"]), set(&line["result"]["error_objects"]), "{name} {test}");
            }
            count += 1;
        }
        println!("{name}: {count} reasons agree");
        assert!(count >= least, "{name}: {count}");
    }
}
