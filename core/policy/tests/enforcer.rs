//! One container from image to end under the policy generated for it, and every lie on the way denied.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test may fail loudly")]

use caveau_group::{Container, Group, ImageParts, Overrides, Permissions, Seccomp};
use caveau_policy::{
    CreateContainer, Denial, Enforcer, Field, HostData, Outcome, Permit, Platform, Point, Policy, PolicyDigest,
    PolicyError, generate, open_points, request,
};

const LAYERS: [&str; 2] = [
    "1111111111111111111111111111111111111111111111111111111111111111",
    "2222222222222222222222222222222222222222222222222222222222222222",
];

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn image() -> ImageParts {
    ImageParts {
        reference: "docker.io/library/nginx:1".to_owned(),
        layers: LAYERS.map(|layer| layer.parse().unwrap()).to_vec(),
        entrypoint: strings(&["/docker-entrypoint.sh"]),
        cmd: strings(&["nginx", "-g", "daemon \"off\";"]),
        env: strings(&["PATH=/usr/bin", "TOKEN=swordfish"]),
        ..ImageParts::default()
    }
}

fn group(overrides: Overrides) -> Group {
    Group::new(vec![Container::from_image(image(), overrides).unwrap()], Permissions::default()).unwrap()
}

fn enforcer(text: &str) -> Enforcer {
    Enforcer::new(text, &HostData::new(*PolicyDigest::of(text).as_bytes())).unwrap()
}

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn layer(number: u32, root: &str) -> request::MountDevice {
    request::MountDevice { target: Platform::layer_target(number), device_hash: root.to_owned() }
}

fn overlay(id: &str) -> request::MountOverlay {
    request::MountOverlay {
        container_id: id.to_owned(),
        layer_paths: vec![Platform::layer_target(1), Platform::layer_target(0)],
        target: Platform::overlay_target(id),
    }
}

fn unmount(target: impl Into<String>) -> request::Unmount {
    request::Unmount { unmount_target: target.into() }
}

fn create(id: &str) -> request::CreateContainer {
    let docker: Vec<String> =
        caveau_group::Capability::docker_defaults().map(|capability| capability.name().to_owned()).collect();
    request::CreateContainer {
        container_id: id.to_owned(),
        arg_list: strings(&["/docker-entrypoint.sh", "nginx", "-g", "daemon \"off\";"]),
        env_list: strings(&["PATH=/usr/bin", "TOKEN=swordfish"]),
        working_dir: "/".to_owned(),
        mounts: Vec::new(),
        devices: Vec::new(),
        privileged: false,
        no_new_privileges: false,
        user: request::IdName { id: "0".to_owned(), name: "root".to_owned() },
        groups: vec![request::IdName { id: "0".to_owned(), name: "root".to_owned() }],
        umask: "0022".to_owned(),
        capabilities: request::Capabilities {
            bounding: docker.clone(),
            effective: docker.clone(),
            permitted: docker,
            ..request::Capabilities::default()
        },
        seccomp_profile_sha256: Seccomp::docker_default(&caveau_group::Capability::docker_defaults().collect())
            .sha256(),
        read_only_root: false,
        limits: caveau_group::Limits::default(),
    }
}

fn exec(id: &str, command: &[&str]) -> request::ExecInContainer {
    let container = create(id);
    request::ExecInContainer {
        container_id: container.container_id,
        arg_list: strings(command),
        env_list: container.env_list,
        working_dir: container.working_dir,
        no_new_privileges: false,
        user: container.user,
        groups: container.groups,
        umask: container.umask,
        capabilities: container.capabilities,
    }
}

fn signal(id: &str, signal: i64) -> request::SignalContainerProcess {
    request::SignalContainerProcess { container_id: id.to_owned(), signal, is_init_process: true, arg_list: Vec::new() }
}

macro_rules! done {
    ($enforcer:expr, $answer:expr) => {{
        let granted = $answer.unwrap();
        let permit: Permit<_> = granted.permit;
        $enforcer.settle(granted.pending, Outcome::Done);
        permit.into_inner()
    }};
}

#[track_caller]
fn denied<T: std::fmt::Debug>(answer: Result<T, Denial>, point: Point, field: Field) -> Denial {
    let denial = answer.unwrap_err();
    assert_eq!(denial.point, point, "{denial}");
    assert!(denial.reasons.iter().any(|reason| reason.field == field), "{denial:?}");
    denial
}

/// An enforcer with the layers and one overlay mounted.
fn with_overlay(overrides: Overrides, id: &str) -> Enforcer {
    let mut enforcer = enforcer(&generate(&group(overrides)));
    done!(enforcer, enforcer.mount_device(&layer(0, LAYERS[0])));
    done!(enforcer, enforcer.mount_device(&layer(1, LAYERS[1])));
    done!(enforcer, enforcer.mount_overlay(&overlay(id)));
    enforcer
}

#[test]
fn a_container_lives_from_image_to_end() {
    let id = id('a');
    let mut enforcer = with_overlay(Overrides { exec: vec![strings(&["nginx", "-t"])], ..Overrides::default() }, &id);
    let container: CreateContainer = done!(enforcer, enforcer.create_container(&create(&id)));
    assert_eq!(container.command, create(&id).arg_list);
    assert_eq!(container.env, create(&id).env_list);
    assert_eq!(container.capabilities, create(&id).capabilities);
    assert_eq!(container.names, ["main"]);
    assert_eq!(container.rootfs, Platform::overlay_target(&id));
    assert!(container.stdio && !container.read_only_root);
    let process = done!(enforcer, enforcer.exec_in_container(&exec(&id, &["nginx", "-t"])));
    assert!(process.stdio);
    enforcer.get_properties().unwrap().into_inner();
    done!(enforcer, enforcer.signal_container_process(&signal(&id, 15)));
    done!(enforcer, enforcer.shutdown_container(&request::ShutdownContainer { container_id: id.clone() }));
    done!(enforcer, enforcer.unmount_overlay(&unmount(Platform::overlay_target(&id))));
    done!(enforcer, enforcer.unmount_device(&unmount(Platform::layer_target(0))));
    done!(enforcer, enforcer.unmount_device(&unmount(Platform::layer_target(1))));
}

#[test]
fn another_policy_than_the_launchs_is_refused() {
    let text = generate(&group(Overrides::default()));
    let host_data = HostData::new(*PolicyDigest::of(&text).as_bytes());
    let error = Enforcer::new(&format!("{text}\n"), &host_data).unwrap_err();
    assert!(matches!(&error, PolicyError::Digest { expected, .. } if *expected == host_data.to_string()), "{error}");
    assert!(Enforcer::new(&text, &HostData::new([0; 32])).is_err());
    assert!(Enforcer::new("", &HostData::new(*PolicyDigest::of("").as_bytes())).is_err());
}

#[test]
fn policies_that_cannot_be_enforced_are_refused() {
    let load = |text: &str| Enforcer::new(text, &HostData::new(*PolicyDigest::of(text).as_bytes())).unwrap_err();
    let alias = "mount_device := data.framework.mount_device\n";
    assert_eq!(load(&format!("package policy\n{alias}")), PolicyError::NoVersion("api_version"));
    let api = "package policy\napi_version := \"0.12.0\"\n";
    assert_eq!(load(&format!("{api}{alias}")), PolicyError::NoVersion("framework_version"));
    let future = load(&format!("{api}framework_version := \"9.0.0\"\n{alias}"));
    assert!(matches!(future, PolicyError::FrameworkInFuture { .. }));
    let malformed = load(&format!("{api}framework_version := \"0.5.0\"\ncontainers := [{{\"command\": 7}}]\n{alias}"));
    assert!(matches!(malformed, PolicyError::Malformed { object: "containers", .. }));
    let unknown = load(&format!("{api}framework_version := \"0.5.0\"\ncaveau := {{\"sandbox\": true}}\n{alias}"));
    assert!(matches!(unknown, PolicyError::Malformed { object: "caveau", .. }));
}

#[test]
fn generated_policies_are_deterministic_and_read_as_meant() {
    let overrides = Overrides { env: strings(&["QUOTE=\"\\\n\u{1}é"]), read_only: true, ..Overrides::default() };
    let text = generate(&group(overrides.clone()));
    assert_eq!(text, generate(&group(overrides)));
    let policy = Policy::parse(&text).unwrap();
    let container = policy.containers().next().unwrap();
    assert_eq!(container.layers.as_deref().unwrap(), LAYERS);
    assert!(container.env_rules.iter().flatten().any(|rule| rule.matches("QUOTE=\"\\\n\u{1}é") && rule.is_required()));
    assert!(container.caveau.as_ref().unwrap().read_only_root);
    assert_eq!(policy.digest().to_string().len(), 64);
    for point in Point::ALL {
        assert!(text.contains(&format!("\n{point} := data.framework.{point}\n")), "{point}");
    }
}

#[test]
fn what_stays_open_is_said_in_words() {
    let open = |overrides: Overrides| open_points(&Policy::parse(&generate(&group(overrides))).unwrap()).join("\n");
    let usual = open(Overrides::default());
    assert!(usual.contains("reads its output") && usual.contains("no secret is safe there"), "{usual}");
    assert!(!usual.contains("any number of times") && !usual.contains("privileged:"), "{usual}");
    let quiet = open(Overrides { stdio: false, ..Overrides::default() });
    assert!(!quiet.contains("reads its output"), "{quiet}");
    let wide = open(Overrides { privileged: true, exec: vec![strings(&["sh"])], ..Overrides::default() });
    assert!(wide.contains("can run [\"sh\"] in it") && wide.contains("it can run privileged"), "{wide}");
}

#[test]
fn signals_and_open_variables_are_said_in_words() {
    use caveau_group::EnvRule;
    let open = |change: fn(&mut Container)| {
        let mut group = group(Overrides { exec: vec![strings(&["sh"])], ..Overrides::default() });
        change(&mut group.containers[0]);
        open_points(&Policy::parse(&generate(&group)).unwrap()).join("\n")
    };
    let usual = open(|_| ());
    let first = "the host can send its first process SIGINT, SIGKILL and SIGTERM, at any time.";
    assert!(usual.contains(first), "{usual}");
    assert!(
        usual.contains("can run [\"sh\"] in it, any number of times, and send it SIGINT, SIGKILL and SIGTERM."),
        "{usual}"
    );
    assert!(!usual.contains("variables that match") && !usual.contains("LD_PRELOAD"), "{usual}");
    let few = open(|container| {
        container.signals = vec!["RTMIN+1".parse().unwrap()];
        container.exec[0].signals.clear();
    });
    assert!(few.contains("first process 35, at any") && few.contains("and send it no signal."), "{few}");
    let named =
        open(|container| container.env.push(EnvRule::Pattern { pattern: "LEVEL=.*".to_owned(), required: false }));
    assert!(named.contains("variables that match \"LEVEL=.*\", for it and"), "{named}");
    assert!(!named.contains("LD_PRELOAD"), "{named}");
    let any = open(|container| container.env.push(EnvRule::Pattern { pattern: ".+=.*".to_owned(), required: false }));
    assert!(any.contains("\".+=.*\" matches LD_PRELOAD too"), "{any}");
}

#[test]
fn layers_are_the_policys_and_places_the_guests() {
    let mut enforcer = enforcer(&generate(&group(Overrides::default())));
    denied(enforcer.mount_device(&layer(0, &"3".repeat(64))), Point::MountDevice, Field::RootHash);
    denied(enforcer.mount_device(&layer(0, "short")), Point::MountDevice, Field::RootHash);
    let elsewhere = request::MountDevice { target: "/etc".to_owned(), device_hash: LAYERS[0].to_owned() };
    denied(enforcer.mount_device(&elsewhere), Point::MountDevice, Field::Target);
    done!(enforcer, enforcer.mount_device(&layer(0, LAYERS[0])));
    denied(enforcer.mount_device(&layer(0, LAYERS[1])), Point::MountDevice, Field::Target);
    denied(enforcer.unmount_device(&unmount(Platform::layer_target(9))), Point::UnmountDevice, Field::Target);
}

#[test]
fn overlays_have_all_layers_in_order() {
    let id = id('a');
    let mut enforcer = enforcer(&generate(&group(Overrides::default())));
    done!(enforcer, enforcer.mount_device(&layer(0, LAYERS[0])));
    denied(enforcer.mount_overlay(&overlay(&id)), Point::MountOverlay, Field::Layers);
    done!(enforcer, enforcer.mount_device(&layer(1, LAYERS[1])));
    let mut wrong = overlay(&id);
    wrong.layer_paths.reverse();
    let denial = denied(enforcer.mount_overlay(&wrong), Point::MountOverlay, Field::Layers);
    assert!(denial.to_string().contains("container main: layers: expected"), "{denial}");
    wrong.layer_paths.truncate(1);
    denied(enforcer.mount_overlay(&wrong), Point::MountOverlay, Field::Layers);
    wrong.layer_paths = vec![Platform::layer_target(1); 3];
    denied(enforcer.mount_overlay(&wrong), Point::MountOverlay, Field::Layers);
    let elsewhere = request::MountOverlay { target: "/".to_owned(), ..overlay(&id) };
    denied(enforcer.mount_overlay(&elsewhere), Point::MountOverlay, Field::Target);
    denied(enforcer.mount_overlay(&overlay("../../etc")), Point::MountOverlay, Field::ContainerId);
    done!(enforcer, enforcer.mount_overlay(&overlay(&id)));
    denied(enforcer.mount_overlay(&overlay(&id)), Point::MountOverlay, Field::ContainerId);
}

#[test]
fn every_changed_field_is_named() {
    type Edit = fn(&mut request::CreateContainer);
    let id = id('a');
    let edits: [(Field, Edit); 18] = [
        (Field::Command, |r| r.arg_list.push("-x".to_owned())),
        (Field::Command, |r| drop(r.arg_list.pop())),
        (Field::Env, |r| r.env_list.push("LD_PRELOAD=/x".to_owned())),
        (Field::Env, |r| r.env_list[1] = "TOKEN=other".to_owned()),
        (Field::Env, |r| drop(r.env_list.pop())),
        (Field::WorkingDir, |r| r.working_dir = "/tmp".to_owned()),
        (Field::User, |r| r.user.id = "1".to_owned()),
        (Field::User, |r| r.umask = "0000".to_owned()),
        (Field::Privileged, |r| r.privileged = true),
        (Field::Capabilities, |r| r.capabilities.effective.push("CAP_SYS_ADMIN".to_owned())),
        (Field::Capabilities, |r| r.capabilities.ambient.push("CAP_CHOWN".to_owned())),
        (Field::Capabilities, |r| drop(r.capabilities.bounding.pop())),
        (Field::Seccomp, |r| r.seccomp_profile_sha256.clear()),
        (Field::Seccomp, |r| r.seccomp_profile_sha256 = "0".repeat(64)),
        (Field::Devices, |r| r.devices.push(serde_json::json!({"path": "/dev/sda"}))),
        (Field::Mounts, |r| r.mounts.push(tmpfs("/etc"))),
        (Field::ContainerId, |r| r.container_id = "b".repeat(64)),
        (Field::ContainerId, |r| r.container_id = "../x".to_owned()),
    ];
    let mut enforcer = with_overlay(Overrides::default(), &id);
    for (number, (field, edit)) in edits.into_iter().enumerate() {
        let mut request = create(&id);
        edit(&mut request);
        let denial = denied(enforcer.create_container(&request), Point::CreateContainer, field);
        assert!(!format!("{denial} {}", serde_json::to_string(&denial).unwrap()).contains("swordfish"), "{number}");
    }
    done!(enforcer, enforcer.create_container(&create(&id)));
}

fn tmpfs(destination: &str) -> request::Mount {
    request::Mount {
        destination: destination.to_owned(),
        options: strings(&["nodev", "nosuid", "noexec"]),
        source: "tmpfs".to_owned(),
        kind: "tmpfs".to_owned(),
    }
}

#[test]
fn mounts_users_and_bounds_as_asked() {
    let id = id('a');
    let overrides = Overrides {
        tmpfs: vec!["/data".parse().unwrap()],
        no_new_privileges: true,
        read_only: true,
        stdio: false,
        ..Overrides::default()
    };
    let mut enforcer = with_overlay(overrides, &id);
    let mut request = create(&id);
    denied(enforcer.create_container(&request), Point::CreateContainer, Field::NoNewPrivileges);
    request.no_new_privileges = true;
    denied(enforcer.create_container(&request), Point::CreateContainer, Field::ReadOnly);
    request.read_only_root = true;
    request.mounts = vec![request::Mount { options: strings(&["nodev"]), ..tmpfs("/data") }];
    denied(enforcer.create_container(&request), Point::CreateContainer, Field::Mounts);
    request.mounts = vec![tmpfs("/data")];
    assert!(!done!(enforcer, enforcer.create_container(&request)).stdio);
}

#[test]
fn a_container_runs_once_and_its_identifier_is_used_once() {
    let (first, second) = (id('a'), id('b'));
    let mut enforcer = with_overlay(Overrides::default(), &first);
    done!(enforcer, enforcer.mount_overlay(&overlay(&second)));
    done!(enforcer, enforcer.create_container(&create(&first)));
    denied(enforcer.create_container(&create(&first)), Point::CreateContainer, Field::ContainerId);
    denied(enforcer.create_container(&create(&second)), Point::CreateContainer, Field::Starts);
    done!(enforcer, enforcer.shutdown_container(&request::ShutdownContainer { container_id: first.clone() }));
    done!(enforcer, enforcer.unmount_overlay(&unmount(Platform::overlay_target(&first))));
    denied(enforcer.mount_overlay(&overlay(&first)), Point::MountOverlay, Field::ContainerId);
    denied(enforcer.create_container(&create(&first)), Point::CreateContainer, Field::ContainerId);
}

#[test]
fn what_is_in_use_stays() {
    let id = id('a');
    let mut enforcer = with_overlay(Overrides::default(), &id);
    done!(enforcer, enforcer.create_container(&create(&id)));
    denied(enforcer.unmount_device(&unmount(Platform::layer_target(0))), Point::UnmountDevice, Field::State);
    denied(enforcer.unmount_overlay(&unmount(Platform::overlay_target(&id))), Point::UnmountOverlay, Field::State);
    denied(enforcer.rw_unmount_device(&unmount(Platform::scratch_target(0))), Point::RwUnmountDevice, Field::State);
}

#[test]
fn exec_and_signals_are_the_policys() {
    let id = id('a');
    let mut enforcer = with_overlay(Overrides { exec: vec![strings(&["ls"])], ..Overrides::default() }, &id);
    denied(enforcer.exec_in_container(&exec(&id, &["ls"])), Point::ExecInContainer, Field::ContainerId);
    done!(enforcer, enforcer.create_container(&create(&id)));
    denied(enforcer.exec_in_container(&exec(&id, &["sh"])), Point::ExecInContainer, Field::Command);
    denied(enforcer.exec_in_container(&exec(&id, &["ls", "-l"])), Point::ExecInContainer, Field::Command);
    let mut other_env = exec(&id, &["ls"]);
    other_env.env_list.push("LD_PRELOAD=/x".to_owned());
    denied(enforcer.exec_in_container(&other_env), Point::ExecInContainer, Field::Env);
    denied(enforcer.signal_container_process(&signal(&id, 10)), Point::SignalContainerProcess, Field::Signal);
    let of_exec =
        request::SignalContainerProcess { is_init_process: false, arg_list: strings(&["ls"]), ..signal(&id, 15) };
    done!(enforcer, enforcer.signal_container_process(&of_exec));
    let unknown = request::SignalContainerProcess { arg_list: strings(&["sh"]), ..of_exec };
    denied(enforcer.signal_container_process(&unknown), Point::SignalContainerProcess, Field::Signal);
    denied(enforcer.dump_stacks(), Point::DumpStacks, Field::Policy);
    denied(enforcer.runtime_logging(), Point::RuntimeLogging, Field::Policy);
}

#[test]
fn scratch_is_encrypted_unless_asked_otherwise() {
    let disk = |encrypted| request::RwMountDevice {
        target: Platform::scratch_target(0),
        encrypted,
        ensure_filesystem: true,
        filesystem: "ext4".to_owned(),
    };
    let memory =
        request::ScratchMount { target: Platform::scratch_target(1), encrypted: true, medium: request::Medium::Memory };
    let mut strict = enforcer(&generate(&group(Overrides::default())));
    denied(strict.rw_mount_device(&disk(false)), Point::RwMountDevice, Field::Encrypted);
    denied(strict.scratch_mount(&memory), Point::ScratchMount, Field::Filesystem);
    let raw = request::RwMountDevice { ensure_filesystem: false, ..disk(true) };
    denied(strict.rw_mount_device(&raw), Point::RwMountDevice, Field::Filesystem);
    done!(strict, strict.rw_mount_device(&disk(true)));
    done!(strict, strict.rw_unmount_device(&unmount(Platform::scratch_target(0))));
    let permissions = Permissions { memory_scratch: true, ..Permissions::default() };
    let mut open = enforcer(&generate(&Group { permissions, ..group(Overrides::default()) }));
    done!(open, open.scratch_mount(&memory));
}

#[test]
fn a_failed_act_changes_nothing_and_a_failed_unmount_ends_mounting() {
    let mut enforcer = enforcer(&generate(&group(Overrides::default())));
    let granted = enforcer.mount_device(&layer(0, LAYERS[0])).unwrap();
    denied(enforcer.mount_device(&layer(1, LAYERS[1])), Point::MountDevice, Field::State);
    enforcer.settle(granted.pending, Outcome::Failed);
    denied(enforcer.unmount_device(&unmount(Platform::layer_target(0))), Point::UnmountDevice, Field::Target);
    let granted = enforcer.mount_device(&layer(0, LAYERS[0])).unwrap();
    let failed: Result<(), &str> = enforcer.carry_out(granted, |_| Err("no such disk"));
    assert_eq!(failed, Err("no such disk"));
    done!(enforcer, enforcer.mount_device(&layer(0, LAYERS[0])));
    let granted = enforcer.unmount_device(&unmount(Platform::layer_target(0))).unwrap();
    enforcer.settle(granted.pending, Outcome::Failed);
    denied(enforcer.mount_device(&layer(1, LAYERS[1])), Point::MountDevice, Field::State);
}

#[test]
fn a_grant_that_is_never_settled_closes_the_gate() {
    let mut enforcer = enforcer(&generate(&group(Overrides::default())));
    drop(enforcer.mount_device(&layer(0, LAYERS[0])).unwrap());
    denied(enforcer.mount_device(&layer(0, LAYERS[0])), Point::MountDevice, Field::State);
}

#[test]
fn hand_written_rules_decide_with_the_frameworks_results() {
    let generated = generate(&group(Overrides::default()));
    let rule =
        "get_properties := {\"allowed\": data.framework.get_properties.allowed} if count(data.metadata.devices) == 1\n";
    let text = generated.replace("get_properties := data.framework.get_properties\n", rule);
    assert_ne!(text, generated);
    let mut enforcer = enforcer(&text);
    denied(enforcer.get_properties(), Point::GetProperties, Field::Policy);
    done!(enforcer, enforcer.mount_device(&layer(0, LAYERS[0])));
    enforcer.get_properties().unwrap().into_inner();
    assert!(open_points(enforcer.policy())[0].contains("get_properties"));
}

#[test]
fn hand_written_rules_can_only_take_away() {
    let id = id('a');
    let generated = generate(&group(Overrides::default()));
    let open = "create_container := {\"allowed\": true, \"allow_stdio_access\": true, \
        \"env_list\": [\"PATH=/usr/bin\", \"EVIL=1\"], \"caps_list\": {\"bounding\": [\"CAP_CHOWN\", \"CAP_BPF\"], \
        \"effective\": [], \"inheritable\": [], \"permitted\": [], \"ambient\": []}}\n";
    let mut enforcer = enforcer(&generated.replace("create_container := data.framework.create_container\n", open));
    denied(enforcer.create_container(&create(&id)), Point::CreateContainer, Field::ContainerId);
    done!(enforcer, enforcer.mount_device(&layer(0, LAYERS[0])));
    done!(enforcer, enforcer.mount_device(&layer(1, LAYERS[1])));
    done!(enforcer, enforcer.mount_overlay(&overlay(&id)));
    let container = done!(enforcer, enforcer.create_container(&create(&id)));
    assert_eq!(container.env, ["PATH=/usr/bin"]);
    assert_eq!(container.capabilities.bounding, ["CAP_CHOWN"]);
    assert!(container.capabilities.effective.is_empty());
}

#[test]
fn a_point_younger_than_the_policy_has_its_default() {
    let text = "package policy\napi_version := \"0.6.0\"\nframework_version := \"0.5.0\"\n\
        mount_device := data.framework.mount_device\n";
    let mut enforcer = enforcer(text);
    enforcer.get_properties().unwrap().into_inner();
    denied(enforcer.mount_overlay(&overlay(&id('a'))), Point::MountOverlay, Field::Policy);
    assert!(open_points(enforcer.policy()).iter().any(|point| point.contains("get_properties")));
}
