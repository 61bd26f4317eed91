//! What is asked for is what is admitted, whatever it is; and no text brings the parser down.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test may fail loudly")]

use crate::any_container::container;
use caveau_group::{Container, EnvRule, Group, IdName, Permissions};
use caveau_policy::{
    Enforcer, Field, HostData, Outcome, Platform, Policy, PolicyDigest, PolicyError, generate, request,
};
use proptest::prelude::*;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The request that asks for exactly this container.
fn request_for(container: &Container) -> request::CreateContainer {
    let variable = |rule: &EnvRule| match rule {
        EnvRule::Exact { value, .. } => value.clone(),
        EnvRule::Pattern { pattern, .. } => pattern.clone(),
    };
    let id_name = |rule: &IdName| match rule {
        IdName::Any => request::IdName { id: "7".to_owned(), name: "seven".to_owned() },
        IdName::Id(number) => request::IdName { id: number.to_string(), name: String::new() },
        IdName::Name(name) => request::IdName { id: "9".to_owned(), name: name.clone() },
    };
    let capabilities = serde_json::to_value(&container.capabilities).unwrap();
    let mounts = serde_json::to_value(&container.mounts).unwrap();
    request::CreateContainer {
        container_id: ID.to_owned(),
        arg_list: container.command.clone(),
        env_list: container.env.iter().map(variable).collect(),
        working_dir: container.working_dir.clone(),
        mounts: serde_json::from_value(mounts).unwrap(),
        devices: Vec::new(),
        privileged: container.privileged,
        no_new_privileges: container.no_new_privileges,
        user: id_name(&container.user.user),
        groups: container.user.groups.iter().map(id_name).collect(),
        umask: container.user.umask.clone(),
        capabilities: serde_json::from_value(capabilities).unwrap(),
        seccomp_profile_sha256: container.seccomp.as_ref().map_or_else(String::new, |profile| profile.sha256()),
        read_only_root: container.read_only,
        limits: container.limits,
    }
}

/// An enforcer of the container's policy, its layers and overlay mounted.
fn enforcer_for(container: &Container) -> Enforcer {
    let group = Group::new(vec![container.clone()], Permissions::default()).unwrap();
    let text = generate(&group);
    let mut enforcer = Enforcer::new(&text, &HostData::new(*PolicyDigest::of(&text).as_bytes())).unwrap();
    let mut targets = Vec::new();
    for (number, root) in (0..).zip(&container.layers) {
        let target = Platform::layer_target(number);
        let layer = request::MountDevice { target: target.clone(), device_hash: root.to_string() };
        let granted = enforcer.mount_device(&layer).unwrap();
        enforcer.settle(granted.pending, Outcome::Done);
        targets.insert(0, target);
    }
    let target = Platform::overlay_target(ID);
    let overlay = request::MountOverlay { container_id: ID.to_owned(), layer_paths: targets, target };
    let granted = enforcer.mount_overlay(&overlay).unwrap();
    enforcer.settle(granted.pending, Outcome::Done);
    enforcer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_asked_is_admitted_and_nothing_else(container in container(), extra in "\\PC{1,5}") {
        let mut enforcer = enforcer_for(&container);
        let request = request_for(&container);
        let mut other = request.clone();
        other.arg_list.push(extra.clone());
        let denial = enforcer.create_container(&other).unwrap_err();
        prop_assert!(denial.reasons.iter().any(|reason| reason.field == Field::Command));
        let mut other = request.clone();
        other.env_list.push(format!("XTRA_={extra}"));
        let denial = enforcer.create_container(&other).unwrap_err();
        prop_assert!(denial.reasons.iter().all(|reason| reason.field == Field::Env));
        let granted = enforcer.create_container(&request).unwrap();
        prop_assert_eq!(&granted.permit.command, &request.arg_list);
        prop_assert_eq!(&granted.permit.env, &request.env_list);
        prop_assert_eq!(granted.permit.stdio, container.stdio);
    }

    #[test]
    fn no_text_brings_the_parser_down(text in "\\PC{0,80}", rule in "[a-z_:=\\[\\]{}\"., \n]{0,60}") {
        let _ = Policy::parse(&text);
        let _ = Policy::parse(&format!("package policy\n{rule}"));
        let _ = Policy::parse(&format!("package policy\ncontainers := [{rule}]"));
    }
}

/// A policy that lets the fragment `f` of `i` bring containers.
fn policy_with_fragment(parameters: &serde_json::Value) -> Enforcer {
    let rule = serde_json::json!([{"issuer": "i", "feed": "f", "minimum_svn": 3, "includes": ["containers"],
        "parameters": parameters}]);
    let text = format!(
        "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\nfragments := {rule}\n\
         load_fragment := data.framework.load_fragment\nmount_device := data.framework.mount_device\n"
    );
    Enforcer::new(&text, &HostData::new(*PolicyDigest::of(&text).as_bytes())).unwrap()
}

fn fragment(text: String, header_svn: Option<i64>) -> request::LoadFragment {
    let [issuer, feed] = ["i", "f"].map(str::to_owned);
    request::LoadFragment { issuer, feed, header_svn, receipts: Vec::new(), text }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a parameter's value is, it arrives as it is and stays in its place.
    #[test]
    fn parameters_arrive_as_they_are(hash in "[0-9a-f]{64}", other in "\\PC{0,20}|[\"\\\\\n\t\u{1}-\u{1f}{}$%`]{0,9}") {
        let mut enforcer = policy_with_fragment(&serde_json::json!({"hash": hash, "other": other}));
        let text = format!(
            "package x\nframework_version := \"0.5.0\"\nsvn := 3\n\
             containers := [{{\"layers\": [parameter(\"hash\")]}} | parameter(\"other\") == {}]\n",
            serde_json::json!(other)
        );
        let granted = enforcer.load_fragment(&fragment(text, None)).unwrap();
        enforcer.settle(granted.pending, Outcome::Done);
        let layer = request::MountDevice { target: Platform::layer_target(0), device_hash: hash };
        prop_assert!(enforcer.mount_device(&layer).is_ok());
    }

    /// Versions count as numbers, wherever they stand.
    #[test]
    fn a_fragment_is_loaded_from_its_least_version_on(own in proptest::option::of(0_i64..7), header in proptest::option::of(0_i64..7), text in any::<bool>()) {
        let svn = own.map(|own| if text { format!("svn := \"{own}\"") } else { format!("svn := {own}") });
        let text = format!("package x\nframework_version := \"0.5.0\"\n{}\n", svn.unwrap_or_default());
        let allowed = match (own, header) {
            (Some(own), Some(header)) => own == header && own >= 3,
            (Some(version), None) | (None, Some(version)) => version >= 3,
            (None, None) => false,
        };
        let answer = policy_with_fragment(&serde_json::json!({})).load_fragment(&fragment(text, header));
        prop_assert_eq!(answer.is_ok(), allowed);
        prop_assert!(answer.err().is_none_or(|denial| denial.reasons.iter().all(|reason| reason.field == Field::Svn)));
    }

    #[test]
    fn no_fragment_brings_the_engine_down(text in "\\PC{0,60}", rule in "[a-z_:=\\[\\]{}\"., \n()]{0,60}") {
        let mut enforcer = policy_with_fragment(&serde_json::json!({}));
        for text in [text, format!("package x\nframework_version := \"0.5.0\"\nsvn := 3\ncontainers := [{rule}]")] {
            if let Ok(granted) = enforcer.load_fragment(&fragment(text, None)) {
                enforcer.settle(granted.pending, Outcome::Done);
            }
        }
        let layer = request::MountDevice { target: Platform::layer_target(0), device_hash: "0".repeat(64) };
        prop_assert!(enforcer.mount_device(&layer).is_err());
    }
}

/// The parser recurses; what would exhaust its stack is refused before, and what is not refused fits.
#[test]
fn piled_up_expressions_are_refused_or_fit() {
    let piles = [
        "[",
        "{\"a\": ",
        "(",
        "-",
        "1 + ",
        "1 == ",
        "1 | ",
        "[x | x := ",
        "f(",
        "data[",
        "not ",
        "1 in ",
        "{x | x := -",
    ];
    for pile in piles {
        for times in [30, 60, 100, 127, 50_000] {
            let closing: String = pile
                .chars()
                .rev()
                .filter_map(|c| match c {
                    '[' => Some(']'),
                    '{' => Some('}'),
                    '(' => Some(')'),
                    _ => None,
                })
                .collect();
            let text = format!("package policy\nx := {}1{}\n", pile.repeat(times), closing.repeat(times));
            let result = Policy::parse(&text);
            assert!(times <= 127 || matches!(result, Err(PolicyError::TooDeep { .. })), "{pile} {times}: {result:?}");
        }
    }
    for tail in ["[0]", ".a", " + 1", "\n+ 1", "[0].a"] {
        for times in [100, 50_000] {
            let text = format!("package policy\nx := data.a{}\n", tail.repeat(times));
            let result = Policy::parse(&text);
            assert!(times == 100 || matches!(result, Err(PolicyError::TooDeep { .. })), "{tail} {times}");
        }
    }
}
