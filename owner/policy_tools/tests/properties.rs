//! Whatever a group is: its policy converts without loss, differs from itself in nothing, and from another group's in
//! something; and no text brings the tools down.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test may fail loudly")]

#[path = "../../../core/policy/tests/any_container/mod.rs"]
mod any_container;

use any_container::container;
use caveau_group::{Container, Group, Permissions};
use caveau_policy::{Asked, Outcome, Platform, Point, Session, generate};
use caveau_policy_tools::{PolicyDocument, base64, check, diff, digest, explain, pretty, read, requests};
use proptest::{collection::vec, prelude::*};
use serde_json::json;

fn policy_of(containers: &[Container], dropping: bool) -> String {
    let named = containers.iter().cloned().enumerate().map(|(number, mut container)| {
        container.name = format!("c{number}");
        container
    });
    let permissions = Permissions { environment_dropping: dropping, ..Permissions::default() };
    generate(&Group::new(named.collect(), permissions).unwrap())
}

/// The policy's text written by somebody else: on few lines, with comments, the containers' keys in another order.
fn scrawled(text: &str) -> String {
    let joined: Vec<_> = text.lines().map(str::trim_start).collect();
    let mut out = String::from("# by hand\n");
    for line in joined {
        out.push_str(line);
        out.push_str(if line.ends_with(',') || line.ends_with('{') || line.ends_with('[') { " " } else { "\n\n" });
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn conversions_lose_nothing(containers in vec(container(), 1..3), dropping in any::<bool>()) {
        let text = policy_of(&containers, dropping);
        let found = read("x", &base64(&text)).unwrap();
        prop_assert_eq!(&found[0].text, &text);
        let document = PolicyDocument::parse("x", &text).unwrap();
        let messy = scrawled(&text);
        let laid_out = pretty("x", &messy).unwrap();
        prop_assert_ne!(digest(&messy), digest(&laid_out));
        prop_assert_eq!(pretty("x", &laid_out).unwrap(), laid_out.clone());
        prop_assert_eq!(diff(&document, &PolicyDocument::parse("x", &laid_out).unwrap()), []);
        // The same decisions: what each container is mounted from is allowed by both, and what is not by neither.
        for policy in [&text, &laid_out] {
            let mut session = Session::new(policy).unwrap();
            for (number, layer) in (0..).zip(&containers[0].layers) {
                let input = json!({"target": Platform::layer_target(number), "deviceHash": layer});
                let asked = Asked { point: Point::MountDevice, input };
                prop_assert!(session.ask(&asked, Outcome::Done).unwrap().is_ok());
            }
            let input = json!({"target": Platform::layer_target(99), "deviceHash": "0g".repeat(32)});
            let asked = Asked { point: Point::MountDevice, input };
            prop_assert!(session.ask(&asked, Outcome::Done).unwrap().is_err());
        }
    }

    #[test]
    fn a_policy_differs_from_itself_in_nothing(containers in vec(container(), 1..4)) {
        let document = PolicyDocument::parse("x", &policy_of(&containers, false)).unwrap();
        prop_assert_eq!(diff(&document, &document), []);
        let turned: Vec<_> = containers.iter().rev().cloned().collect();
        // Names follow the order here, and are no difference.
        let turned = PolicyDocument::parse("x", &policy_of(&turned, false)).unwrap();
        prop_assert_eq!(diff(&document, &turned), []);
    }

    #[test]
    fn another_policy_is_another(container in container(), extra in "[a-z]{1,5}") {
        let document = |container: &Container| PolicyDocument::parse("x", &policy_of(std::slice::from_ref(container), false)).unwrap();
        let mut other = container.clone();
        other.command.push(extra);
        let found = diff(&document(&container), &document(&other));
        prop_assert_eq!(found.len(), 1);
        prop_assert_eq!(found[0].field.as_deref(), Some("command"));
        prop_assert!(!check("x", &policy_of(&[other], true)).unwrap().is_empty());
        prop_assert!(!explain(&document(&container)).is_empty());
    }

    #[test]
    fn no_text_brings_the_tools_down(text in "\\PC{0,80}", rule in "[a-z_:=\\[\\]{}\"., \n|()*+\\\\]{0,60}") {
        for text in [&text, &format!("package policy\n{rule}"), &format!("{{\"resources\": [{rule}]}}")] {
            if let Ok(found) = read("x", text) {
                for found in found {
                    let _ = check("x", &found.text);
                    let _ = pretty("x", &found.text);
                }
            }
            let _ = requests(text.as_bytes());
        }
        let pattern = json!(rule);
        let rules = format!("[{{\"pattern\": {pattern}, \"strategy\": \"re2\", \"required\": true}}]");
        let text = format!("package policy\ncontainers := [{{\"env_rules\": {rules}}}]\n");
        prop_assert!(check("x", &text).is_ok());
    }
}
