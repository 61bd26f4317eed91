//! Policy texts, which the host hands to the agent, and the requests that it is then asked; and what images become in them.

use std::hint::black_box;

use caveau_group::{Container, Group, ImageParts, Overrides, Permissions};
use caveau_oci::ImageConfig;
use caveau_policy::{Denial, Enforcer, Granted, HostData, Outcome, Platform, Policy, PolicyDigest, generate};
use serde_json::{Value, json};

use crate::Target;

/// A text is a policy or is refused; only the text that HOST_DATA names is enforced.
pub(crate) const POLICY_TEXT: Target =
    Target { name: "policy_text", run: policy_text, seeds: policies, fixtures: &[], rounds: 150 };

/// Requests in any order to an enforcer: a point, an outcome and the request's JSON a line.
pub(crate) const POLICY_REQUESTS: Target =
    Target { name: "policy_requests", run: |data| _ = granted(data), seeds: request_lines, fixtures: &[], rounds: 300 };

/// An image's configuration becomes a policy that says just that.
pub(crate) const IMAGE_POLICY: Target =
    Target { name: "image_policy", run: image_policy, seeds: crate::images::image_configs, fixtures: &[], rounds: 200 };

const ROOT: &str = "16b514057a06ad665f92c02863aca074fd5976c755d26bff16365299169e8415";
const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Most bytes of a denial for the host, as the agent bounds it.
const MAX_DENIAL: usize = 64 * 1024;

fn policy_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let digest = PolicyDigest::of(text);
    if let Ok(policy) = Policy::parse(text) {
        assert_eq!(policy.digest(), digest);
        black_box((policy.api_version(), policy.framework_version(), policy.flags(), policy.containers().count()));
    }
    let mut host_data = *digest.as_bytes();
    drop(Enforcer::new(text, &HostData::new(host_data)));
    host_data[31] ^= 1;
    let other = Enforcer::new(text, &HostData::new(host_data));
    assert!(other.is_err(), "a policy is in force that HOST_DATA does not name");
}

fn container() -> Container {
    let image = ImageParts {
        reference: "docker.io/library/nginx:1".to_owned(),
        layers: vec![ROOT.parse().expect("a root hash")],
        entrypoint: vec!["/entry".to_owned()],
        cmd: vec!["-g".to_owned()],
        env: vec!["PATH=/bin".to_owned()],
        working_dir: "/".to_owned(),
        user: "101".to_owned(),
        stop_signal: Some("SIGQUIT".to_owned()),
    };
    let overrides = Overrides { exec: vec![vec!["ls".to_owned(), "-l".to_owned()]], ..Overrides::default() };
    Container::from_image(image, overrides).expect("the seed's image is well-formed")
}

pub(crate) fn policies() -> Vec<Vec<u8>> {
    let group = Group::new(vec![container()], Permissions::default()).expect("the seed's group is well-formed");
    let by_hand = "package policy\n\nimport future.keywords.every\nimport future.keywords.in\n\n\
        api_version := \"0.10.0\"\nframework_version := \"0.2.3\"\n\nfragments := []\ncontainers := []\n\n\
        allow_properties_access := true\n\nmount_device := {\"allowed\": input.deviceHash == \"00\"}\n\
        mount_overlay := data.framework.mount_overlay\nreason := {\"errors\": data.framework.errors}\n";
    vec![generate(&group).into_bytes(), by_hand.as_bytes().to_vec()]
}

/// How many requests are granted. The engine answers for a generated policy; for every third length, a document's own rules do.
fn granted(data: &[u8]) -> usize {
    let (texts, mut granted) = (policies(), 0);
    let text = &texts[usize::from(data.len() % 3 == 2)];
    let text = std::str::from_utf8(text).expect("policies are text");
    let mut enforcer = Enforcer::new(text, &HostData::new(*PolicyDigest::of(text).as_bytes())).expect("a policy");
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let Some((point, rest)) = line.split_once(' ') else { continue };
        let Some((outcome, request)) = rest.split_once(' ') else { continue };
        let outcome = match outcome {
            "done" => Some(Outcome::Done),
            "failed" => Some(Outcome::Failed),
            // Not settled: the gate stays closed.
            _ => None,
        };
        granted += usize::from(ask(&mut enforcer, point, request, outcome));
    }
    granted
}

/// Whether it is granted.
fn ask(enforcer: &mut Enforcer, point: &str, request: &str, outcome: Option<Outcome>) -> bool {
    /// Reads the request of this point, checks what is granted and settles it.
    macro_rules! ask {
        ($method:ident $(, $request:ident, $granted:ident => $check:expr)?) => {{
            let Ok(request) = serde_json::from_str(request) else { return false };
            match enforcer.$method(&request) {
                Ok(granted) => {
                    $(let ($request, $granted) = (&request, &granted);
                    $check;)?
                    settle(enforcer, granted, outcome)
                }
                Err(denial) => check_denial(&denial),
            }
        }};
    }
    match point {
        "mount_device" => ask!(mount_device, request, granted => {
            assert!(matches!(request.device_hash.as_str(), ROOT | "00"), "a layer that no container has");
            assert_eq!(granted.permit.root.to_string(), request.device_hash, "another layer than was asked for");
        }),
        "create_container" => ask!(create_container, request, granted => {
            assert_eq!(granted.permit.command, request.arg_list, "another command than was asked for");
            assert_eq!(granted.permit.command, ["/entry", "-g"], "a command that no container has");
            assert!(!granted.permit.privileged, "more than the container has");
        }),
        "exec_in_container" => ask!(exec_in_container, _request, granted => {
            assert_eq!(granted.permit.command, ["ls", "-l"], "a command that no container has");
        }),
        "mount_overlay" => ask!(mount_overlay),
        "rw_mount_device" => {
            ask!(rw_mount_device, _request, granted => assert!(granted.permit.encrypted, "a plain disk"))
        }
        "rw_unmount_device" => ask!(rw_unmount_device),
        "scratch_mount" => {
            ask!(scratch_mount, _request, granted => assert!(granted.permit.encrypted, "a plain scratch"))
        }
        "scratch_unmount" => ask!(scratch_unmount),
        "shutdown_container" => ask!(shutdown_container),
        "signal_container_process" => ask!(signal_container_process),
        "unmount_device" => ask!(unmount_device),
        "unmount_overlay" => ask!(unmount_overlay),
        "get_properties" => enforcer.get_properties().is_ok(),
        "dump_stacks" => enforcer.dump_stacks().is_ok(),
        "runtime_logging" => enforcer.runtime_logging().is_ok(),
        _ => false,
    }
}

fn settle<T>(enforcer: &mut Enforcer, granted: Granted<T>, outcome: Option<Outcome>) -> bool {
    if let Some(outcome) = outcome {
        enforcer.settle(granted.pending, outcome);
    }
    true
}

fn check_denial(denial: &Denial) -> bool {
    let shown = denial.host_json(MAX_DENIAL);
    assert!(shown.len() <= 2 * MAX_DENIAL, "a denial of {} bytes", shown.len());
    assert!(serde_json::from_str::<Value>(&shown).is_ok(), "a denial that is no JSON: {shown}");
    drop(denial.to_string());
    false
}

/// A container's life, step by step, as the policy allows it.
fn request_lines() -> Vec<Vec<u8>> {
    let container = container();
    let capabilities = serde_json::to_value(&container.capabilities).expect("capabilities can be written");
    let user = json!({"id": "101", "name": ""});
    let groups = json!([{"id": "0", "name": ""}]);
    let process = json!({"containerID": ID, "envList": ["PATH=/bin"], "workingDir": "/", "noNewPrivileges": false,
        "user": user, "groups": groups, "umask": container.user.umask, "capabilities": capabilities});
    let with = |more: Value| {
        let mut all = process.clone();
        let (all_fields, more) =
            (all.as_object_mut().expect("an object"), more.as_object().expect("an object").clone());
        all_fields.extend(more);
        all
    };
    let seccomp = container.seccomp.as_ref().map(|profile| profile.sha256()).unwrap_or_default();
    let create = with(json!({"argList": ["/entry", "-g"], "mounts": container.mounts, "devices": [],
        "privileged": false, "seccompProfileSHA256": seccomp, "readOnlyRoot": false}));
    let exec = with(json!({"argList": ["ls", "-l"]}));
    let (layer, overlay, scratch) =
        (Platform::layer_target(1), Platform::overlay_target(ID), Platform::scratch_target(0));
    let signal = json!({"containerID": ID, "signal": 15, "isInitProcess": true, "argList": ["/entry", "-g"]});
    let steps = [
        ("mount_device", json!({"target": layer, "deviceHash": ROOT})),
        (
            "rw_mount_device",
            json!({"target": scratch, "encrypted": true, "ensureFilesystem": true, "filesystem": "ext4"}),
        ),
        ("scratch_mount", json!({"target": scratch, "encrypted": true})),
        ("mount_overlay", json!({"containerID": ID, "layerPaths": [layer], "target": overlay})),
        ("create_container", create),
        ("exec_in_container", exec),
        ("signal_container_process", signal),
        ("get_properties", json!({})),
        ("shutdown_container", json!({"containerID": ID})),
        ("unmount_overlay", json!({"unmountTarget": overlay})),
        ("scratch_unmount", json!({"unmountTarget": scratch})),
        ("rw_unmount_device", json!({"unmountTarget": scratch})),
        ("unmount_device", json!({"unmountTarget": layer})),
    ];
    let lines = |outcome: &str| {
        let lines: Vec<_> = steps.iter().map(|(point, request)| format!("{point} {outcome} {request}")).collect();
        lines.join("\n").into_bytes()
    };
    vec![lines("done"), lines("failed"), lines("open")]
}

fn image_policy(data: &[u8]) {
    let Ok(config) = ImageConfig::parse(data) else { return };
    let image = ImageParts {
        reference: "docker.io/library/image:1".to_owned(),
        layers: vec![ROOT.parse().expect("a root hash")],
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        env: config.env,
        working_dir: config.working_dir,
        user: config.user,
        stop_signal: config.stop_signal,
    };
    let Ok(container) = Container::from_image(image, Overrides::default()) else { return };
    let Ok(group) = Group::new(vec![container.clone()], Permissions::default()) else { return };
    let text = generate(&group);
    assert_eq!(generate(&group), text, "a group has two policies");
    let policy = Policy::parse(&text).expect("what was generated is a policy");
    let containers: Vec<_> = policy.containers().collect();
    let [found] = containers.as_slice() else { panic!("one container became {}", containers.len()) };
    assert_eq!(found.command.as_ref(), Some(&container.command), "a text broke out of its place");
    assert_eq!(found.working_dir.as_ref(), Some(&container.working_dir), "a text broke out of its place");
    assert!(!policy.flags().dump_stacks, "an image switched a flag");
}

#[cfg(test)]
mod tests {
    use super::{granted, request_lines};

    #[test]
    fn a_containers_life_is_granted_step_by_step() {
        let [done, failed, open] = <[Vec<u8>; 3]>::try_from(request_lines()).expect("three seeds");
        assert_eq!(granted(&done), 13);
        // Nothing that needs the step before; statistics are for everybody.
        assert!(granted(&failed) < 6 && granted(&open) < 4);
    }
}
