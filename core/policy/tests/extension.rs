//! What the `caveau` objects of a policy ask for, and that everything else is refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test may fail loudly"
)]

use caveau_group::{Container, Group, ImageParts, Limits, NetworkRules, Overrides, Permissions};
use caveau_policy::{
    Asked, CreateContainer, Denial, Enforcer, Field, HostData, Outcome, Platform, Point, Policy, PolicyDigest,
    PolicyError, Session, generate, open_points, request,
};
use serde_json::{Value, json};

/// The layer of a container, by the first letter of its name.
fn layer(name: &str) -> String {
    hex::encode([name.as_bytes()[0]; 32])
}

/// The identifier of the container that is to be this one.
fn id(name: &str) -> String {
    layer(name)
}

fn container(name: &str, overrides: Overrides) -> Container {
    let image = ImageParts {
        reference: name.to_owned(),
        layers: vec![layer(name).parse().unwrap()],
        cmd: vec![format!("/bin/{name}")],
        env: vec!["PATH=/bin".to_owned()],
        ..ImageParts::default()
    };
    let without = vec!["NET_RAW".parse().unwrap()];
    let cap_drop = if overrides.cap_drop.is_empty() { without } else { overrides.cap_drop.clone() };
    Container::from_image(image, Overrides { name: name.to_owned(), cap_drop, ..overrides }).unwrap()
}

fn enforcer(text: &str) -> Enforcer {
    Enforcer::new(text, &HostData::new(*PolicyDigest::of(text).as_bytes())).unwrap()
}

/// A policy of these containers.
fn policy(containers: &[Container]) -> String {
    generate(&Group::new(containers.to_vec(), Permissions::default()).unwrap())
}

/// The request for exactly this container.
fn create(container: &Container) -> request::CreateContainer {
    let names = |set: &std::collections::BTreeSet<caveau_group::Capability>| {
        set.iter().map(|capability| capability.name().to_owned()).collect()
    };
    let mount = |mount: &caveau_group::Mount| request::Mount {
        destination: mount.destination.clone(),
        options: mount.options.clone(),
        source: mount.source.clone(),
        kind: mount.kind.clone(),
    };
    let sets = &container.capabilities;
    request::CreateContainer {
        container_id: id(&container.name),
        arg_list: container.command.clone(),
        env_list: vec!["PATH=/bin".to_owned()],
        working_dir: "/".to_owned(),
        mounts: container.mounts.iter().map(mount).collect(),
        devices: Vec::new(),
        privileged: container.privileged,
        no_new_privileges: false,
        user: request::IdName { id: "0".to_owned(), name: "root".to_owned() },
        groups: vec![request::IdName { id: "0".to_owned(), name: "root".to_owned() }],
        umask: "0022".to_owned(),
        capabilities: request::Capabilities {
            ambient: Vec::new(),
            bounding: names(&sets.bounding),
            effective: names(&sets.effective),
            inheritable: Vec::new(),
            permitted: names(&sets.permitted),
        },
        seccomp_profile_sha256: container.seccomp.as_ref().map_or_else(String::new, |profile| profile.sha256()),
        read_only_root: false,
        limits: Limits::default(),
    }
}

/// Mounts the container's layer, unless it is mounted, and its overlay.
fn mount(enforcer: &mut Enforcer, number: u32, name: &str, id: &str) {
    let target = Platform::layer_target(number);
    let device = request::MountDevice { target: target.clone(), device_hash: layer(name) };
    if let Ok(granted) = enforcer.mount_device(&device) {
        enforcer.settle(granted.pending, Outcome::Done);
    }
    let overlay = request::MountOverlay {
        container_id: id.to_owned(),
        layer_paths: vec![target],
        target: Platform::overlay_target(id),
    };
    let granted = enforcer.mount_overlay(&overlay).unwrap();
    enforcer.settle(granted.pending, Outcome::Done);
}

fn made(enforcer: &mut Enforcer, request: &request::CreateContainer) -> Result<CreateContainer, Denial> {
    let granted = enforcer.create_container(request)?;
    enforcer.settle(granted.pending, Outcome::Done);
    Ok(granted.permit.into_inner())
}

fn started(enforcer: &mut Enforcer, id: &str, outcome: Outcome) -> Result<(), Denial> {
    let granted = enforcer.start_container(id)?;
    enforcer.settle(granted.pending, outcome);
    Ok(())
}

/// An enforcer with the overlay of the one container mounted.
fn with_overlay(container: &Container) -> Enforcer {
    let mut enforcer = enforcer(&policy(std::slice::from_ref(container)));
    mount(&mut enforcer, 0, &container.name, &id(&container.name));
    enforcer
}

#[track_caller]
fn is_denied<T: std::fmt::Debug>(answer: Result<T, Denial>, field: Field, words: &[&str]) {
    let denial = answer.unwrap_err();
    assert_eq!(denial.point, Point::CreateContainer);
    assert!(denial.reasons.iter().all(|reason| reason.field == field), "{denial:?}");
    let text = denial.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

/// A database, and a web server that comes after it.
fn ordered() -> [Container; 2] {
    let mut web = container("web", Overrides::default());
    web.after = vec!["db".to_owned()];
    [web, container("db", Overrides::default())]
}

#[test]
fn containers_are_started_in_their_order() {
    let [web, db] = ordered();
    let mut enforcer = enforcer(&policy(&[web.clone(), db.clone()]));
    for (number, container) in [&web, &db].into_iter().enumerate() {
        mount(&mut enforcer, u32::try_from(number).unwrap(), &container.name, &id(&container.name));
        made(&mut enforcer, &create(container)).unwrap();
    }
    is_denied(started(&mut enforcer, &id("web"), Outcome::Done), Field::Order, &["container web", "\"db\""]);
    // A start that failed is none.
    started(&mut enforcer, &id("db"), Outcome::Failed).unwrap();
    is_denied(started(&mut enforcer, &id("web"), Outcome::Done), Field::Order, &["\"db\""]);
    started(&mut enforcer, &id("db"), Outcome::Done).unwrap();
    started(&mut enforcer, &id("web"), Outcome::Done).unwrap();
    is_denied(started(&mut enforcer, &"0".repeat(64), Outcome::Done), Field::ContainerId, &[]);
}

#[test]
fn starts_are_recorded_and_asked_again() {
    let [web, db] = ordered();
    let text = policy(&[web.clone(), db.clone()]);
    let mut enforcer = enforcer(&text);
    enforcer.keep_requests();
    for (number, container) in [&web, &db].into_iter().enumerate() {
        mount(&mut enforcer, u32::try_from(number).unwrap(), &container.name, &id(&container.name));
        made(&mut enforcer, &create(container)).unwrap();
    }
    started(&mut enforcer, &id("web"), Outcome::Done).unwrap_err();
    started(&mut enforcer, &id("db"), Outcome::Done).unwrap();
    started(&mut enforcer, &id("web"), Outcome::Done).unwrap();
    let kept = enforcer.take_requests().requests;
    let starts = kept.iter().filter(|request| request.asked.input.get("start").is_some());
    let shown: Vec<_> = starts.map(|start| (start.allowed, start.done, start.denial.is_some())).collect();
    assert_eq!(shown, [(false, false, true), (true, true, false), (true, true, false)]);
    // The same policy says the same again; one without the order allows all.
    let unordered = policy(&[Container { after: Vec::new(), ..web }, db]);
    for (text, ordered) in [(text, true), (unordered, false)] {
        let mut session = Session::new(&text).unwrap();
        for request in &kept {
            let outcome = if request.done { Outcome::Done } else { Outcome::Failed };
            let answer = session.ask(&request.asked, outcome).unwrap();
            assert_eq!(answer.is_ok(), request.allowed || !ordered, "{request:?}");
        }
    }
}

#[test]
fn another_container_does_not_count_for_the_one_that_is_waited_for() {
    let [web, db] = ordered();
    // It has the name of nobody, and the database's layer and command.
    let mut twin = db.clone();
    twin.name = "decoy".to_owned();
    twin.required_mounts = vec!["/absent".to_owned()];
    let other = container("other", Overrides::default());
    let mut enforcer = enforcer(&policy(&[web.clone(), db.clone(), twin, other.clone()]));
    for (number, container) in [&web, &other, &db].into_iter().enumerate() {
        mount(&mut enforcer, u32::try_from(number).unwrap(), &container.name, &id(&container.name));
        made(&mut enforcer, &create(container)).unwrap();
    }
    started(&mut enforcer, &id("other"), Outcome::Done).unwrap();
    is_denied(started(&mut enforcer, &id("web"), Outcome::Done), Field::Order, &["\"db\""]);
    started(&mut enforcer, &id("db"), Outcome::Done).unwrap();
    started(&mut enforcer, &id("web"), Outcome::Done).unwrap();
}

#[test]
fn an_order_holds_under_rules_of_the_policys_own() {
    let [web, db] = ordered();
    let text = policy(&[web.clone(), db.clone()]).replace(
        "create_container := data.framework.create_container",
        "create_container := data.framework.create_container if input.workingDir == \"/\"",
    );
    let mut enforcer = enforcer(&text);
    for (number, container) in [&web, &db].into_iter().enumerate() {
        mount(&mut enforcer, u32::try_from(number).unwrap(), &container.name, &id(&container.name));
        made(&mut enforcer, &create(container)).unwrap();
    }
    is_denied(started(&mut enforcer, &id("web"), Outcome::Done), Field::Order, &["\"db\""]);
    started(&mut enforcer, &id("db"), Outcome::Done).unwrap();
    started(&mut enforcer, &id("web"), Outcome::Done).unwrap();
}

#[test]
fn an_order_that_nobody_can_keep_is_no_policy() {
    let [mut web, db] = ordered();
    let bad = |containers: &[Container]| match Policy::parse(&policy(containers)) {
        Err(PolicyError::Malformed { object: "containers", error }) => error,
        other => panic!("{other:?}"),
    };
    assert!(bad(&[web.clone()]).contains("\"db\" must be the name of one container"));
    let mut waiting = db;
    waiting.after = vec!["web".to_owned()];
    assert!(bad(&[web.clone(), waiting]).contains("wait for each other"));
    web.after = vec!["web".to_owned()];
    assert!(bad(&[web]).contains("wait for each other"));
}

#[test]
fn there_is_no_evidence_before_the_required_containers_were_started() {
    let web = container("web", Overrides { must_run: true, ..Overrides::default() });
    let db = container("db", Overrides { must_run: true, ..Overrides::default() });
    let log = container("log", Overrides::default());
    let mut enforcer = enforcer(&policy(&[web.clone(), db.clone(), log]));
    for (number, container) in [&web, &db].into_iter().enumerate() {
        mount(&mut enforcer, u32::try_from(number).unwrap(), &container.name, &id(&container.name));
        made(&mut enforcer, &create(container)).unwrap();
    }
    assert_eq!(enforcer.attest().unwrap_err().containers, ["web", "db"]);
    started(&mut enforcer, &id("web"), Outcome::Done).unwrap();
    started(&mut enforcer, &id("db"), Outcome::Failed).unwrap();
    assert_eq!(enforcer.attest().unwrap_err().containers, ["db"], "made, and not started");
    started(&mut enforcer, &id("db"), Outcome::Done).unwrap();
    assert!(enforcer.attest().is_ok());
    // It was started, and that is all that is promised.
    let granted = enforcer.shutdown_container(&request::ShutdownContainer { container_id: id("db") }).unwrap();
    enforcer.settle(granted.pending, Outcome::Done);
    assert!(enforcer.attest().is_ok());
}

#[test]
fn required_mounts_are_there() {
    let tmpfs = vec!["/data:size=1m".parse().unwrap(), "/tmp".parse().unwrap()];
    let mut web = container("web", Overrides { tmpfs, ..Overrides::default() });
    web.required_mounts = vec!["/data".to_owned()];
    let mut enforcer = with_overlay(&web);
    let mut asked = create(&web);
    let place = asked.mounts.iter().position(|mount| mount.destination == "/data").unwrap();
    let data = asked.mounts.remove(place);
    is_denied(made(&mut enforcer, &asked), Field::Mounts, &["none on [\"/data\"]"]);
    // Another mount in the same place is not it.
    asked.mounts.push(request::Mount { options: vec!["size=2m".to_owned()], ..data.clone() });
    is_denied(made(&mut enforcer, &asked), Field::Mounts, &["size=2m"]);
    asked.mounts = vec![data];
    made(&mut enforcer, &asked).unwrap();
}

#[test]
fn bounds_are_upper_ones_and_set_where_nothing_is_asked() {
    let limits = Limits { memory_bytes: Some(64 << 20), cpu_millis: Some(500), pids: Some(10) };
    let web = container("web", Overrides { limits, ..Overrides::default() });
    let above = [
        Limits { memory_bytes: Some((64 << 20) + 1), ..Limits::default() },
        Limits { cpu_millis: Some(501), ..limits },
        Limits { pids: Some(11), ..limits },
    ];
    for limits in above {
        let asked = request::CreateContainer { limits, ..create(&web) };
        is_denied(made(&mut with_overlay(&web), &asked), Field::Limits, &["memory of 67108864 bytes"]);
    }
    let lower = Limits { pids: Some(3), ..Limits::default() };
    for (asked, set) in [(Limits::default(), limits), (limits, limits), (lower, Limits { pids: Some(3), ..limits })] {
        let asked = request::CreateContainer { limits: asked, ..create(&web) };
        assert_eq!(made(&mut with_overlay(&web), &asked).unwrap().limits, set);
    }
    // Without bounds in the policy, the request's count.
    let free = container("web", Overrides::default());
    let asked = request::CreateContainer { limits: lower, ..create(&free) };
    assert_eq!(made(&mut with_overlay(&free), &asked).unwrap().limits, lower);
}

#[test]
fn bounds_hold_under_rules_of_the_policys_own() {
    let limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let web = container("web", Overrides { limits, ..Overrides::default() });
    let alias = "create_container := data.framework.create_container";
    for rule in [
        "create_container := data.framework.create_container if input.workingDir == \"/\"",
        "create_container := {\"allowed\": true}",
    ] {
        let mut enforcer = enforcer(&policy(std::slice::from_ref(&web)).replace(alias, rule));
        mount(&mut enforcer, 0, "web", &id("web"));
        assert_eq!(made(&mut enforcer, &create(&web)).unwrap().limits, limits, "{rule}");
    }
}

/// A policy of one container in a group with a restricted network.
fn restricted(container: &Container) -> String {
    let rules: NetworkRules = serde_json::from_value(json!({
        "listen": [{"protocol": "tcp", "port": 80}], "connect": [{"to": "10.0.2.3/32", "protocol": "udp", "port": 53}],
    }))
    .unwrap();
    let containers = vec![container.clone()];
    generate(&Group { network: Some(rules), ..Group::new(containers, Permissions::default()).unwrap() })
}

#[test]
fn nothing_gets_round_the_networks_rules() {
    for (capability, field) in [("NET_RAW", Field::Capabilities), ("NET_ADMIN", Field::Capabilities)] {
        let cap_drop = vec!["CHOWN".parse().unwrap()];
        let cap_add = vec![capability.parse().unwrap()];
        let web = container("web", Overrides { cap_add, cap_drop, ..Overrides::default() });
        for (text, allowed) in [(restricted(&web), false), (policy(std::slice::from_ref(&web)), true)] {
            let mut enforcer = enforcer(&text);
            mount(&mut enforcer, 0, "web", &id("web"));
            let answer = made(&mut enforcer, &create(&web));
            if allowed { drop(answer.unwrap()) } else { is_denied(answer, field, &[&format!("CAP_{capability}")]) }
        }
    }
    let privileged = container("web", Overrides { privileged: true, ..Overrides::default() });
    let mut enforcer = enforcer(&restricted(&privileged));
    mount(&mut enforcer, 0, "web", &id("web"));
    let mut asked = create(&privileged);
    asked.capabilities.inheritable = asked.capabilities.bounding.clone();
    let denial = made(&mut enforcer, &asked).unwrap_err();
    assert!(denial.reasons.iter().any(|reason| reason.field == Field::Privileged), "{denial:?}");
    // Whoever has none of them runs, and executes what has none of them.
    let mut web = container("web", Overrides::default());
    web.exec = vec![caveau_group::ExecProcess { command: vec!["/bin/probe".to_owned()], signals: Vec::new() }];
    let mut enforcer =
        self::enforcer(&restricted(&web).replace(
            "exec_in_container := data.framework.exec_in_container",
            "exec_in_container := {\"allowed\": true}",
        ));
    assert_eq!(enforcer.policy().network().unwrap().listen.len(), 1);
    mount(&mut enforcer, 0, "web", &id("web"));
    let asked = create(&web);
    made(&mut enforcer, &asked).unwrap();
    let mut exec = request::ExecInContainer {
        container_id: id("web"),
        arg_list: vec!["/bin/probe".to_owned()],
        env_list: asked.env_list,
        working_dir: asked.working_dir,
        no_new_privileges: false,
        user: asked.user,
        groups: asked.groups,
        umask: asked.umask,
        capabilities: asked.capabilities,
    };
    for spelled in ["CAP_NET_RAW", "cap_net_raw", "NET_RAW"] {
        let honest = exec.capabilities.clone();
        exec.capabilities.ambient.push(spelled.to_owned());
        let denial = enforcer.exec_in_container(&exec).unwrap_err();
        assert_eq!(denial.reasons[0].field, Field::Capabilities, "{spelled}");
        exec.capabilities = honest;
    }
    assert!(enforcer.exec_in_container(&exec).is_ok());
}

#[test]
fn unknown_fields_are_errors_and_older_policies_have_none() {
    let web = container("web", Overrides::default());
    let text = policy(std::slice::from_ref(&web));
    for (from, to) in [
        ("\"memory_scratch\": false", "\"memory_scratch\": false, \"network\": {\"listen\": [{\"port\": 80}]}"),
        ("\"memory_scratch\": false", "\"netwrk\": {}"),
        ("\"max_starts\": 1", "\"max_starts\": 1, \"memory\": 5"),
        ("\"max_starts\": 1", "\"max_starts\": 1, \"memory_bytes\": 0"),
    ] {
        assert!(text.contains(from), "{text}");
        assert!(matches!(Policy::parse(&text.replace(from, to)), Err(PolicyError::Malformed { .. })), "{to}");
    }
    // What nobody asked for is not written.
    for name in ["must_run", "after", "required_mounts", "memory_bytes", "cpu_millis", "pids", "network"] {
        assert!(!text.contains(&format!("\"{name}\"")), "{name}: {text}");
    }
    assert!(!serde_json::to_string(&create(&web)).unwrap().contains("limits"));
}

#[test]
fn what_the_objects_say_is_no_longer_open() {
    let limits = Limits { memory_bytes: Some(1 << 20), ..Limits::default() };
    let tmpfs = vec!["/data".parse().unwrap()];
    let web = Overrides { tmpfs, must_run: true, require_mounts: true, limits, ..Overrides::default() };
    let open = |text: &str| open_points(&Policy::parse(text).unwrap()).join("\n");
    let said = open(&restricted(&container("web", web)));
    for part in ["tcp port 80", "10.0.2.3/32 udp port 53", "1048576 bytes at most", "decides when it is started"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("leave out its mounts"), "{said}");
    let tmpfs = vec!["/data".parse().unwrap()];
    let said = open(&policy(&[container("web", Overrides { tmpfs, ..Overrides::default() })]));
    assert!(said.contains("leave out its mounts (/data)") && said.contains("whether and when"), "{said}");
    assert!(!said.contains("On the network"), "{said}");
}

#[test]
fn a_denial_by_the_objects_is_mended_and_recorded() {
    let limits = Limits { memory_bytes: Some(1 << 20), pids: Some(5), ..Limits::default() };
    let tmpfs = vec!["/data".parse().unwrap()];
    let web = container("web", Overrides { tmpfs, require_mounts: true, limits, ..Overrides::default() });
    let mut asked = create(&web);
    asked.mounts.clear();
    asked.limits = Limits { memory_bytes: Some(1 << 21), pids: Some(5), ..Limits::default() };
    let asks: Vec<Asked> = [
        (Point::MountDevice, json!({"target": Platform::layer_target(0), "deviceHash": layer("web")})),
        (
            Point::MountOverlay,
            json!({
                "containerID": id("web"), "layerPaths": [Platform::layer_target(0)],
                "target": Platform::overlay_target(&id("web")),
            }),
        ),
        (Point::CreateContainer, serde_json::to_value(&asked).unwrap()),
    ]
    .into_iter()
    .map(|(point, input): (Point, Value)| Asked { point, input })
    .collect();
    let denial = |text: &str| {
        let mut session = Session::new(text).unwrap();
        asks.iter().find_map(|ask| session.ask(ask, Outcome::Done).unwrap().err())
    };
    let text = policy(&[web]);
    let denied = denial(&text).unwrap();
    let fields: Vec<_> = denied.reasons.iter().map(|reason| reason.field).collect();
    assert_eq!(fields, [Field::Mounts, Field::Limits]);
    let change = denied.change.unwrap();
    assert_eq!(change.edits.len(), 2, "{change}");
    assert_eq!(denial(&change.apply(&text).unwrap()), None);
}
