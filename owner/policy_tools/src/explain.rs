//! A policy in words.

use caveau_policy::{Answering, Point};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    PolicyDocument,
    document::{items, label, shown_command, shown_rule, text, texts},
};

/// What a policy says, in sentences, by what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// What it is about.
    pub title: String,
    /// What is said of it.
    pub sentences: Vec<String>,
}

/// A policy in words: versions and rules, flags, each container, external processes, platform rules, fragments. Values of
/// variables are not told.
#[must_use]
pub fn explain(document: &PolicyDocument) -> Vec<Section> {
    let mut sections = vec![of_policy(document), of_flags(document)];
    let containers = document.list("containers").iter().enumerate();
    sections.extend(containers.map(|(index, container)| of_container(container, index)));
    let processes = document.list("external_processes").iter();
    sections.extend(processes.map(|process| {
        Section {
            title: format!("External process {}", shown_command(process)),
            sentences: [
                vec![format!(
                    "The host may run it in the guest, outside any container, in {}.",
                    text(process, "working_dir")
                )],
                variables(process),
                vec![stdio(process)],
            ]
            .concat(),
        }
    }));
    for (index, rule) in document.list("platform_rules").iter().enumerate() {
        let mounts = items(rule, "mounts").iter().map(mount);
        sections.push(Section {
            title: format!("Platform rule #{index}: added to every container"),
            sentences: variables(rule).into_iter().chain(mounts).collect(),
        });
    }
    sections.extend(document.list("fragments").iter().map(of_fragment));
    sections
}

fn section(title: &str, sentences: Vec<String>) -> Section {
    Section { title: title.to_owned(), sentences }
}

fn of_policy(document: &PolicyDocument) -> Section {
    let version = |index: usize| document.version(index).unwrap_or("(missing)");
    let mut sentences =
        vec![format!("Digest {}; policy API {}, framework {}.", document.policy.digest(), version(0), version(1))];
    let named = |wanted: &dyn Fn(Point) -> bool| {
        let names: Vec<_> = Point::ALL.iter().filter(|point| wanted(**point)).map(|point| point.name()).collect();
        names.join(", ")
    };
    let mut say = |before: &str, names: String| {
        if !names.is_empty() {
            sentences.push(format!("{before}: {names}."));
        }
    };
    let answering = |point: Point| document.source.answering(point);
    say("Decided by the framework", named(&|point| answering(point) == Some(Answering::Framework)));
    say("Always allowed", named(&|point| document.is_open(point)));
    say(
        "Decided by rules of the policy's own",
        named(&|point| answering(point) == Some(Answering::Document) && !document.is_open(point)),
    );
    let older = |point: Point| document.policy.api_version().is_some_and(|version| version < point.introduced());
    say(
        "Always allowed, since the policy is older",
        named(&|point| answering(point).is_none() && older(point) && point.is_allowed_by_older()),
    );
    say(
        "Always denied, for want of a rule",
        named(&|point| answering(point).is_none() && !(older(point) && point.is_allowed_by_older())),
    );
    section("Policy", sentences)
}

fn of_flags(document: &PolicyDocument) -> Section {
    let may = |name: &str| if document.flag(name) { "may" } else { "may not" };
    let dropped = |name: &str, what: &str| {
        let fate = if document.flag(name) { "dropped" } else { "refused" };
        format!("{what} that are not allowed are {fate}.")
    };
    let memory = document.values.get("caveau").and_then(|value| value.get("memory_scratch")) == Some(&json!(true));
    let listed = |items: Vec<String>| if items.is_empty() { "nothing".to_owned() } else { items.join(", ") };
    let network = document.policy.network().map_or_else(
        || "The network is not restricted.".to_owned(),
        |rules| {
            format!(
                "On the network others can connect to {}, and containers to {}; everything else is dropped.",
                listed(rules.listen.iter().map(ToString::to_string).collect()),
                listed(rules.connect.iter().map(ToString::to_string).collect())
            )
        },
    );
    let scratch = if document.flag("allow_unencrypted_scratch") { "need not" } else { "must" };
    let owners = document.policy.owners().iter().map(|owner| {
        let rights: Vec<_> = owner.may.iter().map(|right| right.name()).collect();
        format!("Whoever has the key {} is an owner, with the rights: {}.", owner.key, rights.join(", "))
    });
    let mut sentences = vec![
        format!("The host {} read what containers use.", may("allow_properties_access")),
        format!("The host {} have the agent dump its stacks.", may("allow_dump_stacks")),
        format!("The host {} have the agent's log.", may("allow_runtime_logging")),
        dropped("allow_environment_variable_dropping", "Variables"),
        dropped("allow_capability_dropping", "Capabilities"),
        format!("Scratch disks {scratch} be encrypted."),
        format!("Scratch space {} be the guest's memory.", if memory { "may" } else { "may not" }),
        format!("Containers {} share the guest's network namespace.", may("allow_host_network")),
        network,
    ];
    sentences.extend(owners);
    section("Group", sentences)
}

fn of_container(container: &Value, index: usize) -> Section {
    let is = |field: &str| container.get(field) == Some(&json!(true));
    let mut sentences =
        vec![format!("Runs {} in {}.", shown_command(container), text(container, "working_dir")), layers(container)];
    sentences.extend(container.get("user").map(user));
    sentences.extend(variables(container));
    sentences.extend(items(container, "mounts").iter().map(mount));
    sentences.push(capabilities(container.get("capabilities")));
    sentences.push(match text(container, "seccomp_profile_sha256") {
        "" => "System calls are not filtered.".to_owned(),
        hash => format!("System calls are filtered by the profile {hash}."),
    });
    sentences.push(if is("allow_elevated") {
        "May run privileged, and then controls the guest.".to_owned()
    } else {
        "May not run privileged.".to_owned()
    });
    sentences.push(if is("no_new_privileges") {
        "Its processes cannot gain privileges.".to_owned()
    } else {
        "Its processes may gain privileges from set-user-ID programs.".to_owned()
    });
    sentences.push(stdio(container));
    sentences.push(signals("It", container));
    for process in items(container, "exec_processes") {
        let command = shown_command(process);
        sentences.push(format!("The host may run {command} in it. {}", signals("That process", process)));
    }
    let extension = container.get("caveau");
    let starts = extension.and_then(|extension| extension.get("max_starts")).and_then(Value::as_u64);
    sentences.push(match starts {
        Some(starts) => format!("May be started at most {starts} times."),
        None => "May be started any number of times.".to_owned(),
    });
    if extension.and_then(|extension| extension.get("read_only_root")) == Some(&json!(true)) {
        sentences.push("Its root file system must be read-only.".to_owned());
    }
    sentences.extend(extension.iter().flat_map(|extension| bounds(extension)));
    let id = match text(container, "id") {
        "" => String::new(),
        id => format!(" ({id})"),
    };
    Section { title: format!("Container {}{id}", label(container, index)), sentences }
}

/// What the container's `caveau` object says of its start, its mounts and what it may use.
fn bounds(extension: &Value) -> Vec<String> {
    let mut sentences = Vec::new();
    if extension.get("must_run") == Some(&json!(true)) {
        sentences.push("The guest makes no evidence before it was started.".to_owned());
    }
    let mut listed = |before: &str, names: Vec<&str>| {
        if !names.is_empty() {
            sentences.push(format!("{before} {}.", names.join(", ")));
        }
    };
    listed("Is started after", texts(extension, "after"));
    listed("Must have mounts on", texts(extension, "required_mounts"));
    for (name, unit) in
        [("memory_bytes", "bytes of memory"), ("cpu_millis", "thousandths of a processor"), ("pids", "processes")]
    {
        if let Some(most) = extension.get(name) {
            sentences.push(format!("Gets at most {most} {unit}."));
        }
    }
    sentences
}

fn layers(container: &Value) -> String {
    let layers = texts(container, "layers");
    match (layers.first(), layers.last()) {
        (Some(base), Some(top)) if layers.len() > 1 => {
            format!("Its files are {} layers, from {base} up to {top}.", layers.len())
        }
        (Some(only), _) => format!("Its files are the layer {only}."),
        _ => "Has no layers.".to_owned(),
    }
}

fn user(user: &Value) -> String {
    let rule = |rule: &Value| match (text(rule, "strategy"), text(rule, "pattern")) {
        ("any", _) => "anybody".to_owned(),
        (strategy, pattern) => format!("{strategy} {pattern:?}"),
    };
    let who = user.get("user_idname").map(rule).unwrap_or_else(|| "nobody".to_owned());
    let groups: Vec<_> = items(user, "group_idnames").iter().map(rule).collect();
    let groups = if groups.is_empty() { "none".to_owned() } else { groups.join(" or ") };
    format!("Runs as user {who}, each group being {groups}, with umask {}.", text(user, "umask"))
}

fn variables(holder: &Value) -> Vec<String> {
    let rules = items(holder, "env_rules");
    let (required, optional): (Vec<_>, Vec<_>) =
        rules.iter().partition(|rule| rule.get("required") == Some(&json!(true)));
    let list = |rules: &[&Value]| rules.iter().map(|rule| shown_rule(rule)).collect::<Vec<_>>().join(", ");
    let mut sentences = Vec::new();
    if !required.is_empty() {
        sentences.push(format!("Must have the variables {}.", list(&required)));
    }
    if !optional.is_empty() {
        sentences.push(format!("May have the variables {}.", list(&optional)));
    }
    if rules.is_empty() {
        sentences.push("Has no variables.".to_owned());
    }
    sentences
}

fn mount(mount: &Value) -> String {
    let options = texts(mount, "options").join(",");
    let (source, destination, kind) = (text(mount, "source"), text(mount, "destination"), text(mount, "type"));
    format!("May have {source} mounted on {destination} ({kind}; {options}).")
}

fn capabilities(sets: Option<&Value>) -> String {
    match sets {
        None => "The policy does not say what capabilities it has.".to_owned(),
        Some(Value::Null) => "Has the engine's usual capabilities, or all of them when it runs privileged.".to_owned(),
        Some(sets) => {
            let count = |set: &str| texts(sets, set).len();
            format!(
                "Has {} capabilities ({} bounding, {} permitted, {} inheritable, {} ambient): {}.",
                count("effective"),
                count("bounding"),
                count("permitted"),
                count("inheritable"),
                count("ambient"),
                match texts(sets, "bounding").join(", ") {
                    names if names.is_empty() => "none".to_owned(),
                    names => names,
                }
            )
        }
    }
}

fn stdio(holder: &Value) -> String {
    if holder.get("allow_stdio_access") == Some(&json!(true)) {
        "The host reads its output and writes its input.".to_owned()
    } else {
        "The host has none of its streams.".to_owned()
    }
}

fn signals(who: &str, holder: &Value) -> String {
    let signals: Vec<_> = items(holder, "signals").iter().map(ToString::to_string).collect();
    if signals.is_empty() {
        return format!("{who} can be sent no signal.");
    }
    format!("{who} can be sent the signals {}.", signals.join(", "))
}

fn of_fragment(fragment: &Value) -> Section {
    let least = fragment
        .get("minimum_svn")
        .map_or_else(|| "any version".to_owned(), |least| format!("version {least} or later"));
    let mut sentences = vec![
        format!("Signed by {}.", text(fragment, "issuer")),
        format!("Accepted from {least}."),
        format!(
            "May bring {}.",
            match texts(fragment, "includes").join(", ") {
                includes if includes.is_empty() => "nothing".to_owned(),
                includes => includes,
            }
        ),
    ];
    let receipts = texts(fragment, "required_receipts");
    if !receipts.is_empty() {
        sentences.push(format!("Needs a receipt from each of {}.", receipts.join(", ")));
    }
    Section { title: format!("Fragment {}", text(fragment, "feed")), sentences }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_told_without_values_of_variables() {
        let text = r#"package policy
api_version := "0.12.0"
framework_version := "0.5.0"
containers := [{
  "name": "web", "id": "nginx:1", "command": ["nginx"], "working_dir": "/srv", "layers": ["aa", "bb"],
  "env_rules": [{"pattern": "TOKEN=swordfish", "strategy": "string", "required": true}, {"pattern": "A=.+", "strategy": "re2", "required": false}],
  "mounts": [{"source": "tmpfs", "destination": "/tmp", "type": "tmpfs", "options": ["rw"]}],
  "exec_processes": [{"command": ["sh"], "signals": []}], "signals": [15], "allow_elevated": false,
  "user": {"user_idname": {"pattern": "", "strategy": "any"}, "group_idnames": [], "umask": "0022"},
  "capabilities": null, "seccomp_profile_sha256": "", "allow_stdio_access": true, "no_new_privileges": true,
  "caveau": {"max_starts": 1, "must_run": true, "after": ["db"], "required_mounts": ["/tmp"], "memory_bytes": 4096},
}, {"name": "db"}]
caveau := {"network": {"listen": [{"protocol": "tcp", "port": 80}]}}
external_processes := [{"command": ["probe"], "env_rules": [], "working_dir": "/", "allow_stdio_access": false}]
fragments := [{"issuer": "did:x509:0:x", "feed": "f", "minimum_svn": "2", "includes": ["containers"], "required_receipts": ["*"]}]
allow_dump_stacks := true
create_container := data.framework.create_container
mount_device := {"allowed": true}
mount_overlay := {"allowed": input.x == 1}
"#;
        let sections = explain(&PolicyDocument::parse("x", text).unwrap());
        let all = serde_json::to_string(&sections).unwrap();
        assert!(!all.contains("swordfish"));
        for part in [
            "Always allowed: mount_device.",
            "Decided by rules of the policy's own: mount_overlay.",
            "may have the agent dump its stacks",
            "Container web (nginx:1)",
            "2 layers, from aa up to bb",
            "Must have the variables TOKEN (one value).",
            "May have the variables matching",
            "user anybody",
            "The host may run [\\\"sh\\\"] in it.",
            "at most 1 times",
            "makes no evidence before it was started",
            "Is started after db.",
            "Must have mounts on /tmp.",
            "at most 4096 bytes of memory",
            "others can connect to tcp port 80, and containers to nothing",
            "External process [\\\"probe\\\"]",
            "Fragment f",
            "Needs a receipt from each of *.",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
    }
}
