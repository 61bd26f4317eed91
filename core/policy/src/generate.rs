//! A group's policy text.

use std::fmt::Write as _;

use caveau_group::{Container, EnvRule, Group, IdName, Mount, Permissions, User};
use serde_json::{Map, Value, json};

use crate::{
    model::ContainerExtension,
    point::{API_VERSION, FRAMEWORK_VERSION, Point},
};

/// The policy that admits exactly this group: `package policy`, versions, containers, flags, and a rule for every
/// enforcement point that leaves it to the framework. Equal groups give equal texts.
#[must_use]
pub fn generate(group: &Group) -> String {
    let mut text = String::from("package policy\n\n");
    define(&mut text, "api_version", &json!(API_VERSION));
    define(&mut text, "framework_version", &json!(FRAMEWORK_VERSION));
    text.push('\n');
    define(&mut text, "containers", &group.containers.iter().map(container).collect());
    text.push('\n');
    flags(&mut text, group);
    text.push('\n');
    for point in Point::ALL {
        line(&mut text, &format!("{point} := data.framework.{point}"));
    }
    line(&mut text, "reason := data.framework.reason");
    text
}

fn flags(text: &mut String, Group { permissions, network, owners, .. }: &Group) {
    let Permissions {
        capability_dropping,
        dump_stacks,
        environment_dropping,
        memory_scratch,
        properties,
        runtime_logging,
        unencrypted_scratch,
    } = permissions;
    for (name, value) in [
        ("allow_properties_access", properties),
        ("allow_dump_stacks", dump_stacks),
        ("allow_runtime_logging", runtime_logging),
        ("allow_environment_variable_dropping", environment_dropping),
        ("allow_unencrypted_scratch", unencrypted_scratch),
        ("allow_capability_dropping", capability_dropping),
        ("allow_host_network", &false),
    ] {
        define(text, name, &json!(value));
    }
    let mut extension = Map::new();
    extension.insert("memory_scratch".to_owned(), json!(memory_scratch));
    extension.extend(network.as_ref().map(|rules| ("network".to_owned(), json!(rules))));
    extension.extend((!owners.is_empty()).then(|| ("owners".to_owned(), json!(owners))));
    define(text, "caveau", &Value::Object(extension));
}

fn container(container: &Container) -> Value {
    let sets = &container.capabilities;
    let exec = container.exec.iter().map(|exec| json!({"command": exec.command, "signals": exec.signals}));
    json!({
        "allow_elevated": container.privileged,
        "allow_stdio_access": container.stdio,
        "capabilities": {
            "ambient": sets.ambient,
            "bounding": sets.bounding,
            "effective": sets.effective,
            "inheritable": sets.inheritable,
            "permitted": sets.permitted,
        },
        "caveau": extension(container),
        "command": container.command,
        "env_rules": container.env.iter().map(env_rule).collect::<Vec<_>>(),
        "exec_processes": exec.collect::<Vec<_>>(),
        "id": container.image,
        "layers": container.layers,
        "mounts": container.mounts.iter().map(mount).collect::<Vec<_>>(),
        "name": container.name,
        "no_new_privileges": container.no_new_privileges,
        "seccomp_profile_sha256": container.seccomp.as_ref().map_or_else(String::new, |profile| profile.sha256()),
        "signals": container.signals,
        "user": user(&container.user),
        "working_dir": container.working_dir,
    })
}

/// What Caveau adds to it.
fn extension(container: &Container) -> ContainerExtension {
    ContainerExtension {
        max_starts: container.max_starts,
        read_only_root: container.read_only,
        must_run: container.must_run,
        after: container.after.clone(),
        required_mounts: container.required_mounts.clone(),
        memory_bytes: container.limits.memory_bytes,
        cpu_millis: container.limits.cpu_millis,
        pids: container.limits.pids,
    }
}

fn env_rule(rule: &EnvRule) -> Value {
    match rule {
        EnvRule::Exact { value, required } => json!({"pattern": value, "required": required, "strategy": "string"}),
        EnvRule::Pattern { pattern, required } => json!({"pattern": pattern, "required": required, "strategy": "re2"}),
    }
}

fn mount(mount: &Mount) -> Value {
    json!({
        "destination": mount.destination,
        "options": mount.options,
        "source": mount.source,
        "type": mount.kind,
    })
}

fn user(user: &User) -> Value {
    let id_name = |rule: &IdName| match rule {
        IdName::Any => json!({"pattern": "", "strategy": "any"}),
        IdName::Id(number) => json!({"pattern": number.to_string(), "strategy": "id"}),
        IdName::Name(name) => json!({"pattern": name, "strategy": "name"}),
    };
    json!({
        "group_idnames": user.groups.iter().map(id_name).collect::<Vec<_>>(),
        "umask": user.umask,
        "user_idname": id_name(&user.user),
    })
}

/// Writes `name := value`.
fn define(text: &mut String, name: &str, value: &Value) {
    let _ = write!(text, "{name} := ");
    write_value(text, value, 0);
    text.push('\n');
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// A value as generated policies write it, for `depth` brackets around it: an item a line, keys sorted.
#[must_use]
pub fn value_text(value: &Value, depth: usize) -> String {
    let mut text = String::new();
    write_value(&mut text, value, depth);
    text
}

/// Writes a value with one item a line, keys sorted, so that no line is longer than its longest string: other engines
/// refuse lines of more than 1,024 columns. JSON values are Rego terms.
fn write_value(text: &mut String, value: &Value, depth: usize) {
    let (open, close, items): (char, char, Vec<(String, &Value)>) = match value {
        Value::Array(items) if !items.is_empty() => {
            ('[', ']', items.iter().map(|item| (String::new(), item)).collect())
        }
        Value::Object(fields) if !fields.is_empty() => {
            let key = |key: &String| format!("{}: ", Value::String(key.clone()));
            ('{', '}', fields.iter().map(|(name, field)| (key(name), field)).collect())
        }
        plain => {
            let _ = write!(text, "{plain}");
            return;
        }
    };
    let inner = depth.saturating_add(1);
    text.push(open);
    text.push('\n');
    for (key, item) in items {
        text.push_str(&"  ".repeat(inner));
        text.push_str(&key);
        write_value(text, item, inner);
        text.push_str(",\n");
    }
    text.push_str(&"  ".repeat(depth));
    text.push(close);
}
