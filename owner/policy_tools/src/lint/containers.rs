//! What concerns one container.

use caveau_policy::{PAST_NETWORK_RULES, Step, model::Container};
use serde_json::{Map, Value, json};

use super::{
    AMBIGUOUS, CANNOT_START, CAPABILITIES, DEFAULT_CAPABILITIES, ELEVATED, EXEC, EXEC_SHELL, INCOMPLETE,
    MOUNT_OPTIONAL, MOUNT_SHARE, MOUNT_WILDCARD, NEW_PRIVILEGES, NO_LAYERS, NO_SECCOMP, SHELL_STDIO, STARTS, STDIO,
    UNKNOWN_FIELD, USER_ANY,
};
use super::{Findings, variables};
use crate::{
    PolicyDocument,
    document::{at, below, items, label, shown_command, text, texts},
};

/// Names of shells, as the last part of a program's path.
const SHELLS: [&str; 9] = ["ash", "bash", "csh", "dash", "fish", "ksh", "sh", "tcsh", "zsh"];

/// Capabilities with which a process reaches beyond its container, or past its limits.
const REACHING: [&str; 13] = [
    "CAP_BPF",
    "CAP_DAC_READ_SEARCH",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_PERFMON",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_TIME",
];

/// Fields that are compared, with the framework that brought them. Before it they have a meaning of their own.
const COMPARED: [(&str, [u32; 3]); 13] = [
    ("allow_elevated", [0, 1, 0]),
    ("allow_stdio_access", [0, 1, 0]),
    ("capabilities", [0, 2, 2]),
    ("command", [0, 1, 0]),
    ("env_rules", [0, 1, 0]),
    ("exec_processes", [0, 1, 0]),
    ("layers", [0, 1, 0]),
    ("mounts", [0, 1, 0]),
    ("no_new_privileges", [0, 2, 0]),
    ("seccomp_profile_sha256", [0, 2, 3]),
    ("signals", [0, 1, 0]),
    ("user", [0, 2, 1]),
    ("working_dir", [0, 1, 0]),
];

/// Fields for people, or for other systems.
const IGNORED: [&str; 4] = ["id", "image_name", "mounted_cim", "registry_changes"];

pub(super) fn check(document: &PolicyDocument, findings: &mut Findings<'_>) {
    for (index, container) in document.list("containers").iter().enumerate() {
        findings.container = Some(label(container, index));
        let path = at("containers", index);
        fields(document, container, &path, findings);
        variables::check(container, &path, findings);
        privileges(container, &path, findings);
        commands(container, &path, findings);
        mounts(container, &path, findings);
        cannot_start(document, container, &path, findings);
        findings.container = None;
    }
    ambiguous(document, findings);
}

fn fields(document: &PolicyDocument, container: &Value, path: &[Step], findings: &mut Findings<'_>) {
    let Ok(typed) = serde_json::from_value::<Container>(container.clone()) else { return };
    let framework = document.policy.framework_version();
    for (name, [major, minor, patch]) in COMPARED {
        let known = framework.is_none_or(|version| version >= caveau_policy::Version::new(major, minor, patch));
        if known && container.get(name).is_none() {
            findings.add(INCOMPLETE, path, format!("no `{name}`: what asks for it never matches"));
        }
    }
    for name in typed.other.keys().filter(|name| !IGNORED.contains(&name.as_str())) {
        findings.add(UNKNOWN_FIELD, &below(path, &[name.as_str().into()]), format!("nothing reads `{name}`"));
    }
    if container.get("layers").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        findings.add(NO_LAYERS, &below(path, &["layers".into()]), NO_LAYERS.about);
    }
    if typed.caveau.as_ref().is_none_or(|extension| extension.max_starts.is_none()) {
        findings.add(STARTS, path, "no `max_starts` in its `caveau` object: it can be started any number of times");
    }
}

fn privileges(container: &Value, path: &[Step], findings: &mut Findings<'_>) {
    let is = |field: &str, value: Value| container.get(field) == Some(&value);
    let field = |name: &str| below(path, &[name.into()]);
    if is("allow_elevated", json!(true)) {
        findings.add(ELEVATED, &field("allow_elevated"), "it may run privileged: it then controls the guest");
    }
    if is("no_new_privileges", json!(false)) {
        findings.add(NEW_PRIVILEGES, &field("no_new_privileges"), NEW_PRIVILEGES.about);
    }
    if is("seccomp_profile_sha256", json!("")) {
        findings.add(NO_SECCOMP, &field("seccomp_profile_sha256"), "it runs without a filter of system calls");
    }
    match container.get("capabilities") {
        Some(Value::Null) => findings.add(DEFAULT_CAPABILITIES, &field("capabilities"), DEFAULT_CAPABILITIES.about),
        Some(sets) => {
            let given: Vec<_> = REACHING
                .into_iter()
                .filter(|name| ["bounding", "effective", "permitted"].iter().any(|set| texts(sets, set).contains(name)))
                .collect();
            if !given.is_empty() {
                findings.add(CAPABILITIES, &field("capabilities"), format!("it has {}", given.join(", ")));
            }
        }
        None => {}
    }
    let user = container.get("user").and_then(|user| user.get("user_idname"));
    if user.is_some_and(|user| text(user, "strategy") == "any") {
        findings.add(USER_ANY, &field("user"), "it may run as any user that its files name, root among them");
    }
    for (name, rule) in container.get("user").and_then(Value::as_object).into_iter().flatten() {
        let rules = if rule.is_array() { rule.as_array().cloned().unwrap_or_default() } else { vec![rule.clone()] };
        for rule in rules.iter().filter(|rule| text(rule, "strategy") == "re2") {
            variables::shape(text(rule, "pattern"), &below(&field("user"), &[name.as_str().into()]), findings);
        }
    }
}

/// Whether a command is a shell, and if so, whether it only runs a script that the policy fixes.
fn shell(command: &[&str]) -> Option<bool> {
    let program = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let mut words = command.iter().copied();
    let mut first = program(words.next()?);
    while matches!(first.as_str(), "busybox" | "env" | "nsenter" | "toybox") {
        first = program(words.find(|word| !word.starts_with('-'))?);
    }
    let arguments: Vec<_> = words.collect();
    SHELLS.contains(&first.as_str()).then(|| arguments.iter().any(|word| !word.starts_with('-')))
}

fn commands(container: &Value, path: &[Step], findings: &mut Findings<'_>) {
    let stdio = container.get("allow_stdio_access") == Some(&json!(true));
    let field = |name: &str| below(path, &[name.into()]);
    if stdio {
        findings.add(STDIO, &field("allow_stdio_access"), "the host reads its output and writes its input");
    }
    if stdio && shell(&texts(container, "command")) == Some(false) {
        let message = format!("{} reads what to do from the host", shown_command(container));
        findings.add(SHELL_STDIO, &field("command"), message);
    }
    for (index, process) in items(container, "exec_processes").iter().enumerate() {
        let path = below(path, &["exec_processes".into(), index.into()]);
        let command = shown_command(process);
        let (lint, how) = match shell(&texts(process, "command")) {
            Some(false) => (EXEC_SHELL, "and types what it does"),
            Some(true) | None => (EXEC, "any number of times"),
        };
        findings.add(lint, &path, format!("the host runs {command} in it, {how}"));
    }
}

fn mounts(container: &Value, path: &[Step], findings: &mut Findings<'_>) {
    for (index, mount) in items(container, "mounts").iter().enumerate() {
        let path = below(path, &["mounts".into(), index.into()]);
        let (source, destination) = (text(mount, "source"), text(mount, "destination"));
        if !required_mounts(container).contains(&destination) {
            findings.add(MOUNT_OPTIONAL, &path, format!("the host can leave out the mount on {destination}"));
        }
        if source.starts_with("plan9://") {
            findings.add(MOUNT_SHARE, &path, format!("what is mounted on {destination} is a share of the host"));
        }
        let below_prefix = source.strip_prefix("sandbox://").or(source.strip_prefix("hugepages://"));
        if let Some(pattern) = below_prefix {
            variables::shape(pattern, &path, findings);
            if !super::patterns::is_literal(pattern) {
                findings.add(MOUNT_WILDCARD, &path, format!("the host chooses what {source:?} on {destination} is"));
            }
        }
    }
}

/// Destinations of mounts that must be there.
fn required_mounts(container: &Value) -> Vec<&str> {
    container.get("caveau").map(|extension| texts(extension, "required_mounts")).unwrap_or_default()
}

/// What the policy asks of a container and nobody can give it.
fn cannot_start(document: &PolicyDocument, container: &Value, path: &[Step], findings: &mut Findings<'_>) {
    let holders = || std::iter::once(container).chain(document.list("platform_rules"));
    let there =
        |place: &str| holders().any(|holder| items(holder, "mounts").iter().any(|m| text(m, "destination") == place));
    for place in required_mounts(container).into_iter().filter(|place| !there(place)) {
        let message = format!("`required_mounts` names {place}, where no mount of it may be");
        findings.add(CANNOT_START, &below(path, &["caveau".into(), "required_mounts".into()]), message);
    }
    if document.policy.network().is_none() || document.flag("allow_capability_dropping") {
        return;
    }
    let of_sets = |sets: &Value| -> Vec<&str> {
        let given = |name: &&str| {
            ["ambient", "bounding", "effective", "inheritable", "permitted"]
                .iter()
                .any(|set| texts(sets, set).contains(name))
        };
        PAST_NETWORK_RULES.into_iter().filter(given).collect()
    };
    let found = match container.get("capabilities") {
        Some(Value::Null) => vec!["CAP_NET_RAW"],
        Some(sets) => of_sets(sets),
        None => Vec::new(),
    };
    if !found.is_empty() {
        let message = format!("it gets round the policy's network rules with {}", found.join(", "));
        findings.add(CANNOT_START, &below(path, &["capabilities".into()]), message);
    }
}

/// Containers that are the same but for whether the host gets their streams.
fn ambiguous(document: &PolicyDocument, findings: &mut Findings<'_>) {
    let compared = |container: &Value| -> Map<String, Value> {
        COMPARED
            .iter()
            .filter(|(name, _)| *name != "allow_stdio_access")
            .filter_map(|(name, _)| Some(((*name).to_owned(), container.get(name)?.clone())))
            .collect()
    };
    let containers = document.list("containers");
    for (index, container) in containers.iter().enumerate() {
        let twin = containers.iter().take(index).position(|other| {
            compared(other) == compared(container)
                && other.get("allow_stdio_access") != container.get("allow_stdio_access")
        });
        if let Some(twin) = twin {
            findings.container = Some(label(container, index));
            let other = containers.get(twin).map(|other| label(other, twin)).unwrap_or_default();
            let message = format!("it is {other} but for `allow_stdio_access`: neither of them can be started");
            findings.add(AMBIGUOUS, &at("containers", index), message);
            findings.container = None;
        }
    }
}
