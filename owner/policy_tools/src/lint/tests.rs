use super::*;

/// A policy in which nothing is found, and where each lint's cause can be put in.
fn policy(container: &[(&str, &str)], replace: &[(&str, &str)], more: &str) -> String {
    let mut fields = vec![
        ("name", "\"web\""),
        ("command", "[\"/bin/web\"]"),
        ("env_rules", "[{\"pattern\": \"A=1\", \"strategy\": \"string\", \"required\": true}]"),
        ("layers", "[\"aa\"]"),
        ("mounts", "[]"),
        ("allow_elevated", "false"),
        ("working_dir", "\"/\""),
        ("exec_processes", "[]"),
        ("signals", "[15]"),
        (
            "user",
            "{\"user_idname\": {\"pattern\": \"1000\", \"strategy\": \"id\"}, \"group_idnames\": [], \"umask\": \"0022\"}",
        ),
        (
            "capabilities",
            "{\"bounding\": [], \"effective\": [], \"permitted\": [], \"inheritable\": [], \"ambient\": []}",
        ),
        ("seccomp_profile_sha256", "\"ab\""),
        ("allow_stdio_access", "false"),
        ("no_new_privileges", "true"),
        ("caveau", "{\"max_starts\": 1}"),
    ];
    for (name, value) in container {
        fields.retain(|(known, _)| known != name);
        if !value.is_empty() {
            fields.push((name, value));
        }
    }
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("    \"{name}\": {value},\n")).collect();
    let mut text = format!(
        "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\ncontainers := [\n  {{\n{}  }},\n]\n",
        fields.concat()
    );
    for point in caveau_policy::Point::ALL {
        text.push_str(&format!("{point} := data.framework.{point}\n"));
    }
    text.push_str("reason := data.framework.reason\n");
    for (from, to) in replace {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    format!("{text}{more}")
}

fn found(text: &str) -> Vec<Finding> {
    check("x", text).unwrap()
}

#[test]
fn a_policy_that_leaves_nothing_has_no_findings() {
    assert_eq!(found(&policy(&[], &[], "")), []);
}

#[test]
fn each_lint_finds_its_cause_and_only_that() {
    let env = |rule: &str| format!("[{{{rule}}}]");
    let re2 = |pattern: &str| env(&format!("\"pattern\": {pattern:?}, \"strategy\": \"re2\", \"required\": true"));
    let halves = |name: &str, how: &str| {
        env(&format!("\"name\": {name:?}, \"name_strategy\": {how:?}, \"value\": \".*\", \"value_strategy\": \"re2\""))
    };
    let mount = |source: &str| {
        format!("[{{\"source\": {source:?}, \"destination\": \"/data\", \"type\": \"bind\", \"options\": []}}]")
    };
    let exec = |command: &str| format!("[{{\"command\": {command}, \"signals\": []}}]");
    let fragment = |includes: &str, more: &str| {
        format!("fragments := [{{\"issuer\": \"i\", \"feed\": \"f\", \"includes\": {includes}{more}}}]\n")
    };
    let bound = ", \"minimum_svn\": \"3\", \"required_receipts\": [\"*\"]";
    let flag = |name: &str| policy(&[], &[], &format!("{name} := true\n"));
    let rule = "get_properties := data.framework.get_properties";
    let one = |field: &str, value: &str| policy(&[(field, value)], &[], "");
    let none: &[(&str, &str)] = &[];
    let cases = [
        ("capability-dropping", flag("allow_capability_dropping")),
        (
            "capabilities",
            one(
                "capabilities",
                "{\"bounding\": [\"CAP_SYS_ADMIN\"], \"effective\": [], \"permitted\": [], \"inheritable\": [], \"ambient\": []}",
            ),
        ),
        ("cannot-start", one("caveau", "{\"max_starts\": 1, \"required_mounts\": [\"/data\"]}")),
        ("default-capabilities", one("capabilities", "null")),
        ("dump-stacks", flag("allow_dump_stacks")),
        ("elevated", one("allow_elevated", "true")),
        ("env-any", one("env_rules", &re2(".*=.*"))),
        ("env-any", one("env_rules", &re2(".+"))),
        ("env-any", one("env_rules", &halves(".*", "re2"))),
        ("env-dropping", flag("allow_environment_variable_dropping")),
        ("env-optional", one("env_rules", &env("\"pattern\": \"A=1\", \"strategy\": \"string\", \"required\": false"))),
        ("env-pattern", one("env_rules", &re2("A=[0-9]+"))),
        ("env-pattern", one("env_rules", &re2("FABRIC_.+"))),
        (
            "env-secret",
            one("env_rules", &env("\"pattern\": \"DB_PASSWORD=x\", \"strategy\": \"string\", \"required\": true")),
        ),
        ("env-wildcard", one("env_rules", &re2("A=.*"))),
        ("env-wildcard", one("env_rules", &halves("A", "string"))),
        ("exec", one("exec_processes", &exec("[\"probe\"]"))),
        ("exec", one("exec_processes", &exec("[\"sh\", \"-c\", \"true\"]"))),
        ("exec-shell", one("exec_processes", &exec("[\"/bin/bash\"]"))),
        ("exec-shell", one("exec_processes", &exec("[\"/bin/busybox\", \"sh\"]"))),
        ("exec-shell", one("exec_processes", &exec("[\"/usr/bin/env\", \"zsh\", \"-i\"]"))),
        ("external-process", policy(&[], none, "external_processes := [{\"command\": [\"p\"]}]\n")),
        ("fragment-includes", policy(&[], none, &fragment("[\"containers\"]", bound))),
        ("fragment-namespace", policy(&[], none, &fragment("[\"namespace\"]", bound))),
        ("fragment-namespace", policy(&[], none, &fragment("[\"fragments\"]", bound))),
        (
            "fragment-unbound",
            policy(&[], none, &fragment("[]", ", \"minimum_svn\": \"0\", \"required_receipts\": [\"*\"]")),
        ),
        ("fragment-unbound", policy(&[], none, &fragment("[]", ", \"minimum_svn\": \"1\""))),
        ("hand-written", policy(&[], &[(rule, "get_properties := {\"allowed\": input.x}")], "")),
        ("host-network", flag("allow_host_network")),
        ("incomplete-container", one("signals", "")),
        ("memory-scratch", policy(&[], none, "caveau := {\"memory_scratch\": true}\n")),
        ("mount-optional", one("mounts", &mount("tmpfs"))),
        (
            "network-anywhere",
            policy(&[], none, "caveau := {\"network\": {\"connect\": [{\"to\": \"0.0.0.0/0\", \"port\": 443}]}}\n"),
        ),
        ("new-privileges", one("no_new_privileges", "false")),
        ("no-layers", one("layers", "[]")),
        ("no-rule", policy(&[], &[(rule, "")], "")),
        ("no-seccomp", one("seccomp_profile_sha256", "\"\"")),
        (
            "old-policy",
            policy(
                &[],
                &[
                    ("\"0.12.0\"", "\"0.11.0\""),
                    ("scratch_mount := data.framework.scratch_mount\n", ""),
                    ("\"0.11.0\"", "\"0.9.0\""),
                ],
                "",
            ),
        ),
        ("open-door", policy(&[], &[(rule, "get_properties := {\"allowed\": true}")], "")),
        (
            "owner-exec",
            policy(
                &[],
                none,
                &format!("caveau := {{\"owners\": [{{\"key\": \"{}\", \"may\": [\"exec\"]}}]}}\n", "0b".repeat(32)),
            ),
        ),
        ("pattern-invalid", one("env_rules", &re2("A=(1"))),
        ("properties-access", flag("allow_properties_access")),
        ("runtime-logging", flag("allow_runtime_logging")),
        ("starts-unbounded", one("caveau", "")),
        ("stdio", one("allow_stdio_access", "true")),
        ("unencrypted-scratch", flag("allow_unencrypted_scratch")),
        ("unknown-field", one("allow_eleveted", "true")),
        ("unknown-name", flag("allow_dump_stack")),
        (
            "user-any",
            one(
                "user",
                "{\"user_idname\": {\"pattern\": \"\", \"strategy\": \"any\"}, \"group_idnames\": [], \"umask\": \"0022\"}",
            ),
        ),
        ("version", policy(&[], &[("framework_version := \"0.5.0\"", "framework_version := \"0.6.0\"")], "")),
        ("version", policy(&[], &[("api_version := \"0.12.0\"", "api_version := \"0.13.0\"")], "")),
        ("version", policy(&[], &[("framework_version := \"0.5.0\"\n", "")], "")),
    ];
    for (name, text) in &cases {
        let found = found(text);
        let names: Vec<_> = found.iter().map(|finding| finding.lint).collect();
        assert_eq!(names, [*name], "{found:#?}\n{text}");
    }
    // These come together with others.
    let pairs = [
        ("pattern-unanchored", one("env_rules", &re2("A=1|B=2"))),
        ("pattern-unanchored", one("env_rules", &re2("A=(?m)x"))),
        ("pattern-expensive", one("env_rules", &re2("A=(a+)+"))),
        ("mount-share", one("mounts", &mount("plan9://x"))),
        ("mount-wildcard", one("mounts", &mount("sandbox:///tmp/.+"))),
        ("shell-with-stdio", policy(&[("command", "[\"sh\"]"), ("allow_stdio_access", "true")], none, "")),
    ];
    for (name, text) in &pairs {
        assert!(found(text).iter().any(|finding| finding.lint == *name), "{name}: {:#?}", found(text));
    }
    let of_cases = cases.iter().chain(&pairs).map(|(name, _)| *name).chain(["ambiguous-containers"]);
    let tested: std::collections::BTreeSet<_> = of_cases.collect();
    assert_eq!(tested, LINTS.iter().map(|lint| lint.name).collect(), "every lint is tested");
}

#[test]
fn what_gets_round_the_networks_rules_is_found_and_required_mounts_are_not_optional() {
    let network = "caveau := {\"network\": {}}\n";
    let sets = "{\"bounding\": [\"CAP_CHOWN\", \"CAP_NET_RAW\"], \"effective\": [], \"permitted\": [], \"inheritable\": [], \"ambient\": []}";
    let lints = |text: &str| found(text).iter().map(|finding| finding.lint).collect::<Vec<_>>();
    assert_eq!(lints(&policy(&[("capabilities", sets)], &[], network)), ["cannot-start"]);
    assert_eq!(lints(&policy(&[("capabilities", sets)], &[], "")), [""; 0]);
    assert!(lints(&policy(&[("capabilities", "null")], &[], network)).contains(&"cannot-start"));
    assert_eq!(lints(&policy(&[], &[], network)), [""; 0]);
    let mounts = "[{\"source\": \"tmpfs\", \"destination\": \"/data\", \"type\": \"tmpfs\", \"options\": []}]";
    let required = "{\"max_starts\": 1, \"required_mounts\": [\"/data\"]}";
    assert_eq!(lints(&policy(&[("mounts", mounts), ("caveau", required)], &[], "")), [""; 0]);
}

#[test]
fn twins_that_differ_in_their_streams_are_found() {
    let text = policy(&[], &[], "");
    let (start, end) = (text.find("  {\n").unwrap(), text.find("]\ncreate").unwrap());
    let twin = text[start..end]
        .replace("\"allow_stdio_access\": false", "\"allow_stdio_access\": true")
        .replace("\"web\"", "\"web2\"");
    let text = format!("{}{twin}{}", &text[..end], &text[end..]);
    let found = found(&text);
    let finding = found.iter().find(|finding| finding.lint == "ambiguous-containers").unwrap();
    assert_eq!(finding.container.as_deref(), Some("web2"));
}

#[test]
fn findings_name_the_line() {
    let text = policy(&[("allow_elevated", "true")], &[], "allow_dump_stacks := true\n");
    for finding in found(&text) {
        let line = text.lines().nth(usize::try_from(finding.line.unwrap()).unwrap() - 1).unwrap();
        let word = if finding.lint == "elevated" { "allow_elevated" } else { "allow_dump_stacks" };
        assert!(line.contains(word), "{finding:?}: {line}");
    }
}

#[test]
fn values_of_variables_are_not_told() {
    let rule = "[{\"pattern\": \"TOKEN=swordfish\", \"strategy\": \"string\", \"required\": false}]";
    let found = found(&policy(&[("env_rules", rule)], &[], ""));
    assert!(found.len() == 2 && !format!("{found:?}").contains("swordfish"), "{found:#?}");
}

#[test]
fn what_is_no_policy_is_an_error() {
    for bad in ["", "package other\n", "package policy\nx := [", "package policy\ncontainers := 7\n"] {
        assert!(matches!(check("x", bad), Err(ToolError::Policy { .. })), "{bad}");
    }
}
