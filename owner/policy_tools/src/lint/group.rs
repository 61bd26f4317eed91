//! What concerns the group: rules, flags, external processes, fragments.

use caveau_group::Right;
use caveau_policy::{Answering, Point};
use serde_json::{Value, json};

use super::{
    CAPABILITY_DROPPING, DUMP_STACKS, ENV_DROPPING, EXTERNAL_PROCESS, FRAGMENT_INCLUDES, FRAGMENT_NAMESPACE,
    FRAGMENT_UNBOUND, HAND_WRITTEN, HOST_NETWORK, MEMORY_SCRATCH, NETWORK_ANYWHERE, NO_RULE, OLD_POINT, OPEN_DOOR,
    OWNER_EXEC, PROPERTIES, RUNTIME_LOGGING, UNENCRYPTED, UNKNOWN_NAME,
};
use super::{Findings, Lint, variables};
use crate::{
    PolicyDocument,
    document::{FLAGS, OBJECTS, VERSIONS, at, below, shown_command, text, texts},
};

const OF_FLAGS: [(&str, Lint); 7] = [
    ("allow_capability_dropping", CAPABILITY_DROPPING),
    ("allow_dump_stacks", DUMP_STACKS),
    ("allow_environment_variable_dropping", ENV_DROPPING),
    ("allow_host_network", HOST_NETWORK),
    ("allow_properties_access", PROPERTIES),
    ("allow_runtime_logging", RUNTIME_LOGGING),
    ("allow_unencrypted_scratch", UNENCRYPTED),
];

/// Points that exist under Windows, or that nothing asks here: without a rule nothing is missing.
const NOT_MISSED: [Point; 6] = [
    Point::LogProvider,
    Point::MountBlockdev,
    Point::MountCims,
    Point::Plan9Mount,
    Point::RegistryChanges,
    Point::UnmountBlockdev,
];

pub(super) fn check(document: &PolicyDocument, findings: &mut Findings<'_>) {
    rules(document, findings);
    for (name, lint) in OF_FLAGS {
        if document.flag(name) {
            findings.add(lint, &[name.into()], format!("`{name}` is set: {}", lint.about));
        }
    }
    if document.values.get("caveau").and_then(|value| value.get("memory_scratch")) == Some(&json!(true)) {
        findings.add(MEMORY_SCRATCH, &["caveau".into()], format!("`memory_scratch` is set: {}", MEMORY_SCRATCH.about));
    }
    let destinations = document.policy.network().into_iter().flat_map(|rules| &rules.connect);
    for to in destinations.filter(|to| to.network.prefix() == 0) {
        let path = ["caveau".into(), "network".into(), "connect".into()];
        findings.add(NETWORK_ANYWHERE, &path, format!("containers may connect to {to}, which is every address"));
    }
    for owner in document.policy.owners().iter().filter(|owner| owner.may.contains(&Right::Exec)) {
        let path = ["caveau".into(), "owners".into()];
        findings.add(OWNER_EXEC, &path, format!("the holder of key {} may run any program", owner.key));
    }
    for (index, process) in document.list("external_processes").iter().enumerate() {
        let command = shown_command(process);
        findings.add(
            EXTERNAL_PROCESS,
            &at("external_processes", index),
            format!("the host runs {command} in the guest"),
        );
        variables::check(process, &at("external_processes", index), findings);
    }
    for (index, rule) in document.list("platform_rules").iter().enumerate() {
        variables::check(rule, &at("platform_rules", index), findings);
    }
    for (index, fragment) in document.list("fragments").iter().enumerate() {
        check_fragment(fragment, index, findings);
    }
    unknown_names(document, findings);
}

fn rules(document: &PolicyDocument, findings: &mut Findings<'_>) {
    for point in Point::ALL.iter().copied() {
        let path = [point.name().into()];
        match document.source.answering(point) {
            Some(Answering::Framework) => {}
            Some(Answering::Document) if document.is_open(point) => {
                findings.add(OPEN_DOOR, &path, format!("`{point}` allows whatever is asked"));
            }
            Some(Answering::Document) => {
                findings.add(HAND_WRITTEN, &path, format!("`{point}` is decided by a rule of the policy's own"));
            }
            None if document.policy.api_version().is_some_and(|version| version < point.introduced()) => {
                if point.is_allowed_by_older() {
                    let message = format!("`{point}` is younger than the policy's `api_version`: always allowed");
                    findings.add(OLD_POINT, &["api_version".into()], message);
                }
            }
            None if NOT_MISSED.contains(&point) => {}
            None => findings.add(NO_RULE, &path, format!("no rule `{point}`: whatever it asks is denied")),
        }
    }
}

fn check_fragment(fragment: &Value, index: usize, findings: &mut Findings<'_>) {
    let path = at("fragments", index);
    let who = format!("feed {:?} of {:?}", text(fragment, "feed"), text(fragment, "issuer"));
    let includes = texts(fragment, "includes");
    let includes_path = below(&path, &["includes".into()]);
    for (wide, what) in [
        ("namespace", "stays loaded as code that the policy's rules can call"),
        ("fragments", "lets further signers in"),
    ] {
        if includes.contains(&wide) {
            findings.add(FRAGMENT_NAMESPACE, &includes_path, format!("{who} {what}"));
        }
    }
    let added: Vec<_> =
        includes.iter().copied().filter(|include| !matches!(*include, "namespace" | "fragments")).collect();
    if !added.is_empty() {
        findings.add(FRAGMENT_INCLUDES, &includes_path, format!("{who} adds {}", added.join(", ")));
    }
    let least = fragment.get("minimum_svn");
    if least.is_none_or(|least| matches!(least.as_str(), Some("" | "0")) || least.as_u64() == Some(0)) {
        findings.add(FRAGMENT_UNBOUND, &path, format!("{who}: any version is taken, old ones with known faults too"));
    }
    if fragment.get("required_receipts").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        findings.add(FRAGMENT_UNBOUND, &path, format!("{who}: no receipt of a ledger is required"));
    }
}

fn unknown_names(document: &PolicyDocument, findings: &mut Findings<'_>) {
    // Rules of the policy's own may use any name.
    let written = Point::ALL.iter().any(|point| document.source.answering(*point) == Some(Answering::Document));
    if written {
        return;
    }
    const OTHERS: [&str; 5] =
        ["reason", "allow_log_provider_dropping", "allowed_log_providers", "svn", "parameters_api"];
    for name in document.source.names() {
        let known = OBJECTS.contains(&name.as_str())
            || FLAGS.contains(&name.as_str())
            || OTHERS.contains(&name.as_str())
            || VERSIONS.iter().any(|(new, old)| name == *new || name == *old)
            || Point::from_name(&name).is_some();
        if !known {
            findings.add(UNKNOWN_NAME, &[name.as_str().into()], format!("nothing reads `{name}`"));
        }
    }
}
