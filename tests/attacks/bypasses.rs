//! Ways around a policy that were open in the reference implementation once, each tried at the agent's port.
//!
//! Where the design has no such interface, the test shows that the request does not exist. Those that have tests of their own:
//!
//! | lie | test |
//! |---|---|
//! | a privileged container that the policy does not allow | `process::a_privileged_container` |
//! | a host name with a line break | `process::a_host_name_with_a_line_for_the_hosts_file` |
//! | another enforcer than the measured one | `frames::steps_without_a_policy_and_with_another_one` |
//! | a device node of the host's | `devices::device_nodes_lead_nowhere`, beside what is here |
//! | a fragment that takes the framework's name | `end_to_end`, `fragments::containers_of_a_signed_fragment_run_and_no_others`; `core/policy`, `module::names_are_plain_and_not_taken` |
//! | a path out of an image's archive | `owner/registry`, `layouts::hostile_outer_archives_are_refused`, `layouts::paths_in_a_docker_manifest_stay_inside` |

use caveau_protocol::{
    AgentReply, AgentRequest, ContainerId, CreateContainer, LayerId, MountLayer, MountOverlay, MountScratch, ProcessId,
    RequestEnvelope, TmpfsMount, VERSION,
};
use caveau_tests::{
    hostile::Hostile,
    raw::{RawGuest, is_refused},
};
use serde_json::{Value, json};

/// A guest with its policy in force.
pub(super) fn with_policy(host: &Hostile, policy: &str) -> RawGuest {
    let mut guest = RawGuest::boot(host, policy);
    let taken = guest.ask(AgentRequest::SetPolicy { host_certificates: None, reference_info: None }, policy.as_bytes());
    assert!(matches!(taken, Ok(AgentReply::Policy { .. })), "{taken:?}");
    guest
}

/// The request, as JSON that can be given more than a request has.
fn written(id: u64, request: AgentRequest) -> Value {
    serde_json::to_value(RequestEnvelope { version: VERSION, id, request }).expect("a request is JSON")
}

/// Asserts that this is no request at all.
#[track_caller]
fn does_not_exist(guest: &mut RawGuest, request: &Value) {
    guest.send(request, b"");
    let error = guest.reply().result.expect_err("no such request");
    assert!(error.message.starts_with("failed to decode the frame's header: "), "{request}: {}", error.message);
}

/// Mounts the honest layer and puts the honest container's root file system together; gives the request for the container.
pub(super) fn up_to_the_overlay(host: &Hostile, guest: &mut RawGuest) -> (LayerId, CreateContainer) {
    let mounted = guest.ask(layer_of(host), b"").expect("the layer is the policy's");
    let AgentReply::Layer { layer } = mounted else { panic!("{mounted:?}") };
    let create = host.plan.containers[0].create.clone();
    let scratch = AgentRequest::MountScratch(MountScratch::Memory { bytes: 16 << 20 });
    guest.ask(scratch, b"").expect("the policy allows scratch in memory");
    let overlay = MountOverlay { container: create.container.clone(), layers: vec![layer] };
    guest.ask(AgentRequest::MountOverlay(overlay), b"").expect("the overlay is the policy's");
    (layer, create)
}

fn layer_of(host: &Hostile) -> AgentRequest {
    AgentRequest::MountLayer(MountLayer { lun: 0, root: host.plan.layers[0].root.clone() })
}

/// The honest policy, but for scratch space, which may be in memory: these machines have no disk for it.
pub(super) fn memory_policy(host: &Hostile) -> String {
    let policy = host.plan.policy.replacen("\"memory_scratch\": false", "\"memory_scratch\": true", 1);
    assert_ne!(policy, host.plan.policy, "the policy says where scratch may be");
    policy
}

#[test]
fn what_a_request_cannot_say() {
    let Some(host) = Hostile::new() else { return };
    let mut guest = with_policy(&host, &host.plan.policy);
    let create = || AgentRequest::CreateContainer(Box::new(host.plan.containers[0].create.clone()));

    // Hooks, device nodes, and paths of the host's choice for root file system, bundle and scratch; a pod of the host's.
    for (field, value) in [
        ("hooks", json!({"createRuntime": [{"path": "/bin/sh"}]})),
        ("devices", json!([{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}])),
        ("root", json!({"path": "/"})),
        ("rootfs", json!("/run/caveau/../..")),
        ("bundle", json!("/run/caveau/containers")),
        ("scratch", json!("/run/caveau/scratch/0")),
        ("annotations", json!({"io.kubernetes.cri.sandbox-id": "../.."})),
        ("virtual_pod", json!("../..")),
    ] {
        let mut request = written(10, create());
        request["request"]["args"][field] = value;
        does_not_exist(&mut guest, &request);
    }
    // Mount options and targets for a layer, and a device by its path, which might be a link around dm-crypt.
    for (field, value) in [
        ("options", json!(["rw", "exec"])),
        ("target", json!("/etc")),
        ("path", json!("/dev/sda")),
        ("lun", json!("../../sda")),
        ("lun", json!(-1)),
    ] {
        let mut request = written(11, layer_of(&host));
        request["request"]["args"][field] = value;
        does_not_exist(&mut guest, &request);
    }
    let mut scratch = written(12, AgentRequest::MountScratch(MountScratch::Encrypted { lun: 1 }));
    scratch["request"]["args"]["path"] = json!("/dev/mapper/../sda");
    does_not_exist(&mut guest, &scratch);
    // Another enforcer, or none.
    let mut policy = written(13, AgentRequest::SetPolicy { host_certificates: None, reference_info: None });
    policy["request"]["args"]["enforcer"] = json!("open_door");
    does_not_exist(&mut guest, &policy);
    // Identifiers that are paths.
    for id in ["../../etc/passwd", "", "/", &"A".repeat(64), &format!("{}/", "a".repeat(63)), &"a".repeat(65)] {
        does_not_exist(
            &mut guest,
            &json!({"version": VERSION, "id": 14, "request": {"op": "delete_container", "args": {"container": id}}}),
        );
    }
    // Files copied into the guest, and shares of the host mounted there: no such steps.
    for op in [
        "copy_file",
        "plan9_mount",
        "mount_share",
        "add_swap",
        "set_guest_date_time",
        "exec_external",
        "modify_settings",
    ] {
        does_not_exist(
            &mut guest,
            &json!({"version": VERSION, "id": 15, "request": {"op": op, "args": {"path": "/etc/resolv.conf", "data": ""}}}),
        );
    }
    assert!(guest.ask(AgentRequest::Hello, b"").is_ok(), "the guest is well");
}

#[test]
fn steps_beside_each_other_are_done_one_after_the_other() {
    let Some(host) = Hostile::new() else { return };
    let policy = memory_policy(&host);
    let mut guest = with_policy(&host, &policy);

    // A mount that fails is not remembered as one that was done: the same layer can be mounted afterwards.
    let absent = AgentRequest::MountLayer(MountLayer { lun: 77, root: host.plan.layers[0].root.clone() });
    is_refused(guest.ask(absent, b""), "Failed: failed to mount the layer of disk 77");
    let (layer, create) = up_to_the_overlay(&host, &mut guest);
    let container = create.container.clone();

    // All at once, before the first is answered: the layers taken away or mounted once more while the container is made.
    let steps = [
        AgentRequest::UnmountLayer { layer },
        AgentRequest::CreateContainer(Box::new(create.clone())),
        AgentRequest::UnmountOverlay { container: container.clone() },
        AgentRequest::UnmountLayer { layer },
        AgentRequest::CreateContainer(Box::new(create.clone())),
        AgentRequest::StartContainer { container: container.clone() },
    ];
    for (id, step) in (1000..).zip(steps) {
        guest.send(&RequestEnvelope { version: VERSION, id, request: step }, b"");
    }
    let expected = [
        Some("Denied: unmount_device denied"),
        None,
        Some("Denied: unmount_overlay denied"),
        Some("Denied: unmount_device denied"),
        Some("Denied: create_container denied"),
        None,
    ];
    for (id, expected) in (1000..).zip(expected) {
        let reply = guest.reply();
        assert_eq!(reply.id, id, "answered in their order: {reply:?}");
        let answer = reply.result.map_err(|error| format!("{:?}: {error}", error.kind));
        match expected {
            Some(reason) => drop(is_refused(answer, reason)),
            None => drop(answer.expect("an honest step")),
        }
    }

    // It runs: its state stays, it cannot be started again, and signals go to its processes alone, as the policy says.
    is_refused(guest.ask(AgentRequest::DeleteContainer { container: container.clone() }, b""), "Invalid: ");
    is_refused(guest.ask(AgentRequest::StartContainer { container: container.clone() }, b""), "Invalid: ");
    let init = ProcessId::init(container.clone());
    is_refused(
        guest.ask(AgentRequest::Signal { process: init.clone(), signal: 19 }, b""),
        "Denied: signal_container_process denied",
    );
    let other = ProcessId::init(ContainerId::from_bytes([9; 32]));
    is_refused(guest.ask(AgentRequest::Signal { process: other, signal: 15 }, b""), "Invalid: there is no container");
    // A shutdown is not a signal: what ends a container at the host's word is named by the policy.
    guest.ask(AgentRequest::Signal { process: init.clone(), signal: 9 }, b"").expect("the policy names this signal");
    let ended = guest.ask(AgentRequest::Wait { process: init, timeout_ms: 60_000 }, b"");
    assert!(ended.is_ok(), "{ended:?}");
    guest.ask(AgentRequest::DeleteContainer { container: container.clone() }, b"").expect("it has ended");

    // An identifier is used once: neither the container nor its root file system comes again.
    is_refused(guest.ask(AgentRequest::CreateContainer(Box::new(create)), b""), "Denied: create_container denied");
    guest.ask(AgentRequest::UnmountOverlay { container: container.clone() }, b"").expect("nothing uses it");
    let again = MountOverlay { container, layers: vec![layer] };
    is_refused(guest.ask(AgentRequest::MountOverlay(again), b""), "Denied: mount_overlay denied");
}

#[test]
fn patterns_users_and_secrets() {
    let Some(host) = Hostile::new() else { return };
    // The owner allows any value that begins with `h` and ends with `t`, as a pattern without anchors.
    let policy = memory_policy(&host);
    let (before, rule) = policy.split_once("\"KIND=honest\"").expect("the rule of the variable");
    let policy = format!("{before}\"KIND=h[a-z]*t\"{}", rule.replacen("\"string\"", "\"re2\"", 1));
    let mut guest = with_policy(&host, &policy);
    let (_, create) = up_to_the_overlay(&host, &mut guest);
    let with = |change: &dyn Fn(&mut CreateContainer)| {
        let mut create = create.clone();
        change(&mut create);
        AgentRequest::CreateContainer(Box::new(create))
    };
    let kind = |value: &str| {
        with(&|create| {
            create.process.env.retain(|variable| !variable.starts_with("KIND="));
            create.process.env.push(value.to_owned());
        })
    };
    // What only contains a match is none, and what the host hides in a value is not told on.
    for value in ["KIND=hat; rm -rf /", "XKIND=hat", "KIND=ht\nLD_PRELOAD=/data/evil.so", "KIND=HAT-s3cr3t-value"] {
        let refused = is_refused(guest.ask(kind(value), b""), "Denied: create_container denied by policy");
        assert!(!refused.contains("s3cr3t"), "values of variables are secrets: {refused}");
    }
    // The user is found once, in the guest, and what is found is what the policy is asked about and what runs.
    for user in ["root:root:root", "0:0\n", " 0", "+0", "0x0", "-1", "4294967296", "root\0", "nobody:"] {
        let refused = guest.ask(with(&|create| user.clone_into(&mut create.process.user)), b"");
        let refused = refused.expect_err(user);
        assert!(
            refused.starts_with("Invalid: ") || refused.starts_with("Denied: create_container"),
            "{user:?}: {refused}"
        );
    }
    // A file of the guest's own is no place for a mount of the host's.
    for place in ["/etc/resolv.conf", "/etc/hosts", "/dev", "/proc", "/sys", "/security-context"] {
        let mount = TmpfsMount { destination: place.to_owned(), options: vec![] };
        let refused = guest.ask(with(&|create| create.tmpfs.push(mount.clone())), b"");
        is_refused(refused, "Denied: create_container denied by policy");
    }
    let made = guest.ask(kind("KIND=hat"), b"");
    assert!(made.is_ok(), "what the pattern allows is made: {made:?}");
}
