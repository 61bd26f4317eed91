//! What both engines decide about: a policy, and the start of its last container.

use caveau_policy::{Platform, request};
use serde_json::{Value, json};

use super::question::Question;

/// Containers of the policy, and what each has.
const CONTAINERS: usize = 10;
const LAYERS: usize = 8;
/// Rules that compare, and rules that match a pattern.
const EXACT_RULES: usize = 14;
const PATTERN_RULES: usize = 6;

/// Capabilities that each container has.
const CAPABILITIES: [&str; 5] = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"];

/// Points whose rules are the framework's.
const POINTS: [&str; 6] =
    ["create_container", "exec_in_container", "mount_device", "mount_overlay", "scratch_mount", "unmount_device"];

/// The text of the policy. All its containers are in one line, as generators write them.
pub(super) fn policy() -> String {
    with_containers(&(0..CONTAINERS).map(container).collect::<Vec<_>>())
}

/// The same with a variable of so many characters in its first container.
pub(super) fn policy_with_long_line(columns: usize) -> String {
    let mut containers: Vec<_> = (0..CONTAINERS).map(container).collect();
    if let Some(rules) = containers.first_mut().and_then(|first| first["env_rules"].as_array_mut()) {
        rules
            .push(json!({"pattern": format!("LONG={}", "x".repeat(columns)), "strategy": "string", "required": false}));
    }
    with_containers(&containers)
}

fn with_containers(containers: &[Value]) -> String {
    let mut text = format!(
        "package policy\n\napi_version := \"0.10.0\"\nframework_version := \"0.3.0\"\n\ncontainers := {}\n\n",
        json!(containers)
    );
    for flag in ["allow_environment_variable_dropping", "allow_capability_dropping", "allow_unencrypted_scratch"] {
        text += &format!("{flag} := false\n");
    }
    for point in POINTS {
        text += &format!("{point} := data.framework.{point}\n");
    }
    text
}

/// The container of this number, as the policy describes it.
fn container(number: usize) -> Value {
    let exact =
        exact_variables(number).map(|pattern| json!({"pattern": pattern, "strategy": "string", "required": true}));
    let patterns = (0..PATTERN_RULES).map(
        |rule| json!({"pattern": pattern_and_variable(number, rule).0, "strategy": "re2", "required": rule % 2 == 0}),
    );
    let mount = json!({
        "destination": "/srv/data", "options": ["rbind", "rshared", "rw"], "source": "sandbox:///volumes/data/.+", "type": "bind",
    });
    json!({
        "allow_elevated": false,
        "allow_stdio_access": true,
        "capabilities": capabilities(),
        "command": command(number),
        "env_rules": exact.chain(patterns).collect::<Vec<_>>(),
        "exec_processes": [{"command": ["/srv/bin/check", "--once"], "signals": [9]}],
        "layers": layers(number),
        "mounts": [mount],
        "no_new_privileges": true,
        "seccomp_profile_sha256": "",
        "signals": [9, 15],
        "user": {
            "group_idnames": [{"pattern": "", "strategy": "any"}],
            "umask": "0022",
            "user_idname": {"pattern": "1000", "strategy": "id"},
        },
        "working_dir": "/srv",
    })
}

fn command(number: usize) -> Vec<String> {
    vec!["/srv/bin/server".to_owned(), "--port".to_owned(), format!("{}", 8000 + number)]
}

/// Root hashes, base first.
fn layers(number: usize) -> Vec<String> {
    (0..LAYERS).map(|layer| format!("{:016x}", 1 + number * LAYERS + layer).repeat(4)).collect()
}

fn exact_variables(number: usize) -> impl Iterator<Item = String> {
    (0..EXACT_RULES).map(move |rule| format!("SETTING_{number}_{rule}=the-value-that-it-must-have-{rule}"))
}

/// A pattern, and what it takes. No two containers have one in common.
fn pattern_and_variable(number: usize, rule: usize) -> (String, String) {
    match rule % 3 {
        0 => (format!("HOST_{number}_{rule}=.+"), format!("HOST_{number}_{rule}=database.example.com")),
        1 => (format!("PORT_{number}_{rule}=[0-9]+"), format!("PORT_{number}_{rule}=5432")),
        _ => (format!("(NODE|POD)_{number}_{rule}_.+=.*"), format!("POD_{number}_{rule}_NAME=orders-7c9f")),
    }
}

fn capabilities() -> Value {
    json!({
        "ambient": [], "bounding": CAPABILITIES, "effective": CAPABILITIES, "inheritable": [], "permitted": CAPABILITIES,
    })
}

/// Everything that is asked when the last container is started and then looked at once.
pub(super) fn start() -> Vec<Question> {
    let number = CONTAINERS - 1;
    let mut questions: Vec<_> = layers(number)
        .into_iter()
        .zip(0..)
        .map(|(device_hash, place)| {
            Question::MountDevice(request::MountDevice { target: Platform::layer_target(place), device_hash })
        })
        .collect();
    let target = Platform::scratch_target(0);
    questions.push(Question::ScratchMount(request::ScratchMount {
        target,
        encrypted: true,
        medium: request::Medium::Disk,
    }));
    let create = create_container(number);
    let container_id = create.container_id.clone();
    questions.push(Question::MountOverlay(request::MountOverlay {
        target: Platform::overlay_target(&container_id),
        layer_paths: (0..).take(LAYERS).map(Platform::layer_target).collect::<Vec<_>>().into_iter().rev().collect(),
        container_id,
    }));
    let exec = request::ExecInContainer {
        container_id: create.container_id.clone(),
        arg_list: vec!["/srv/bin/check".to_owned(), "--once".to_owned()],
        env_list: create.env_list.clone(),
        working_dir: create.working_dir.clone(),
        no_new_privileges: true,
        user: create.user.clone(),
        groups: create.groups.clone(),
        umask: create.umask.clone(),
        capabilities: create.capabilities.clone(),
    };
    questions.push(Question::CreateContainer(Box::new(create)));
    questions.push(Question::ExecInContainer(Box::new(exec)));
    questions
}

/// The container of this number, as the host asks for it: a variable for each rule, in the rules' order.
fn create_container(number: usize) -> request::CreateContainer {
    let capabilities = CAPABILITIES.map(str::to_owned).to_vec();
    let owner = || request::IdName { id: "1000".to_owned(), name: "server".to_owned() };
    let patterns = (0..PATTERN_RULES).map(|rule| pattern_and_variable(number, rule).1);
    request::CreateContainer {
        container_id: "c0".repeat(32),
        arg_list: command(number),
        env_list: exact_variables(number).chain(patterns).collect(),
        working_dir: "/srv".to_owned(),
        mounts: vec![request::Mount {
            destination: "/srv/data".to_owned(),
            options: ["rbind", "rshared", "rw"].map(str::to_owned).to_vec(),
            source: "/run/caveau/sandbox/volumes/data/7".to_owned(),
            kind: "bind".to_owned(),
        }],
        devices: Vec::new(),
        privileged: false,
        no_new_privileges: true,
        user: owner(),
        groups: vec![owner()],
        umask: "0022".to_owned(),
        capabilities: request::Capabilities {
            bounding: capabilities.clone(),
            effective: capabilities.clone(),
            permitted: capabilities,
            ..request::Capabilities::default()
        },
        seccomp_profile_sha256: String::new(),
        read_only_root: false,
        limits: Default::default(),
    }
}
