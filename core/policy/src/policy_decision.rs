//! A denial as the reference engine words it for the host (reference: hcsshim `pkg/securitypolicy`, "policyDecision").
//!
//! ```text
//!   policyDecision< base64 of {"input": …, "decision": "deny", "reason": {"errors": […], "error_objects": …},
//!                              "policyError": …, "truncated": ["error_objects", "input", "reason"]} >policyDecision
//! ```
//!
//! What is longer than [`MAX_POLICY_DECISION`] loses, one after another until it fits, the objects that were compared, the
//! request, and the reason; `truncated` then names what is missing. Values of variables never stand in it; lists of
//! capabilities that are the engine's defaults are replaced by `[privileged]` or `[unprivileged]`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{platform::Platform, point::Point, request::Capabilities};

/// Greatest length in bytes, markers included.
pub const MAX_POLICY_DECISION: usize = 3 * 1024;

const BEFORE: &str = "policyDecision<";
const AFTER: &str = ">policyDecision";

/// What stands for a value that the host must not see.
pub(crate) const REDACTED: &str = "<<redacted>>";

/// What a policy that says nothing at all is said to say.
const NO_REASON: &str = "the policy gives no reason for the denial";

/// A denial in the reference's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDecision {
    fields: Map<String, Value>,
}

impl PolicyDecision {
    /// A denial at a point: the request, and what the policy says of it (`null`: nothing). Both are redacted here.
    #[must_use]
    pub fn new(point: Point, mut input: Value, mut reason: Value) -> Self {
        if let Some(input) = input.as_object_mut() {
            input.insert("rule".to_owned(), json!(point.name()));
        }
        redact(&mut input);
        redact(&mut reason);
        if reason.is_null() {
            reason = json!(NO_REASON);
        }
        let mut fields = Map::new();
        fields.insert("input".to_owned(), input);
        fields.insert("decision".to_owned(), json!("deny"));
        fields.insert("reason".to_owned(), reason);
        Self { fields }
    }

    /// The same, with what kept the policy from being evaluated.
    #[must_use]
    pub fn with_error(mut self, error: &str) -> Self {
        self.fields.insert("policyError".to_owned(), json!(error));
        self
    }

    /// The lists of the engine's defaults replaced by their names.
    pub(crate) fn with_placeholders(mut self, platform: &Platform) -> Self {
        if let Some(input) = self.fields.get_mut("input") {
            replace_capabilities(input, platform);
        }
        let objects = self.fields.get_mut("reason").and_then(|reason| reason.get_mut("error_objects"));
        for object in objects.and_then(Value::as_array_mut).into_iter().flatten() {
            replace_capabilities(object, platform);
        }
        self
    }

    /// The text for the host.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut fields = self.fields.clone();
        let mut text = wrap(&fields);
        let mut truncated = Vec::new();
        for part in ["error_objects", "input", "reason"] {
            if text.len() <= MAX_POLICY_DECISION {
                break;
            }
            let removed = match part {
                "error_objects" => {
                    fields.get_mut("reason").and_then(Value::as_object_mut).and_then(|reason| reason.remove(part))
                }
                _ => fields.remove(part),
            };
            if removed.is_some() {
                truncated.push(part);
            }
            fields.insert("truncated".to_owned(), json!(truncated));
            text = wrap(&fields);
        }
        if text.len() > MAX_POLICY_DECISION {
            // Only what the policy itself says of its fault is left that could be long.
            fields.remove("policyError");
            text = wrap(&fields);
        }
        text
    }

    /// Finds and reads one in a text that others wrote.
    #[must_use]
    pub fn find(text: &str) -> Option<Value> {
        let (_, rest) = text.split_once(BEFORE)?;
        let (encoded, _) = rest.split_once(AFTER)?;
        serde_json::from_slice(&STANDARD.decode(encoded).ok()?).ok()
    }
}

fn wrap(fields: &Map<String, Value>) -> String {
    // Maps with texts for keys always serialise.
    let json = serde_json::to_string(fields).unwrap_or_default();
    format!("{BEFORE}{}{AFTER}", STANDARD.encode(json))
}

/// Hides the values of variables, wherever requests and policies have them. Names stay.
pub(crate) fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), field) {
                    ("envList" | "env_list", Value::Array(variables)) => variables.iter_mut().for_each(redact_variable),
                    ("env_rules", Value::Array(rules)) => rules.iter_mut().for_each(redact_rule),
                    (_, field) => redact(field),
                }
            }
        }
        _ => {}
    }
}

/// Hides the value of `NAME=value`.
fn redact_variable(variable: &mut Value) {
    let name = variable.as_str().and_then(|text| text.split_once('=')).map(|(name, _)| name);
    *variable = json!(name.map_or_else(|| REDACTED.to_owned(), |name| format!("{name}={REDACTED}")));
}

/// Hides the value of a rule for a variable, in both of its forms.
pub(crate) fn redact_rule(rule: &mut Value) {
    if let Some(pattern) = rule.get_mut("pattern") {
        redact_variable(pattern);
    }
    if let Some(value) = rule.get_mut("value") {
        *value = json!(REDACTED);
    }
}

/// Replaces an object's `capabilities` where they are the engine's defaults.
fn replace_capabilities(object: &mut Value, platform: &Platform) {
    let Some(found) = object.get_mut("capabilities") else { return };
    let all = &platform.privileged_capabilities;
    let usual = &platform.default_capabilities;
    let privileged = Capabilities::from_sets([vec![], all.clone(), all.clone(), all.clone(), all.clone()]);
    let unprivileged = Capabilities::from_sets([vec![], usual.clone(), usual.clone(), vec![], usual.clone()]);
    if *found == json!(privileged) {
        *found = json!("[privileged]");
    } else if *found == json!(unprivileged) {
        *found = json!("[unprivileged]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(objects: usize, input: usize, errors: usize) -> PolicyDecision {
        let objects: Vec<_> = (0..objects).map(|number| json!({"command": [format!("program{number}")]})).collect();
        let errors: Vec<_> = (0..errors).map(|number| format!("error {number}")).collect();
        let reason = json!({"errors": errors, "error_objects": objects});
        PolicyDecision::new(Point::CreateContainer, json!({"argList": vec!["x"; input]}), reason)
    }

    #[test]
    fn what_is_too_long_is_cut_in_the_references_order() {
        for (parts, truncated) in [
            ((1, 1, 1), None),
            ((200, 1, 1), Some(json!(["error_objects"]))),
            ((200, 1000, 1), Some(json!(["error_objects", "input"]))),
            ((200, 1000, 1000), Some(json!(["error_objects", "input", "reason"]))),
        ] {
            let text = decision(parts.0, parts.1, parts.2).encode();
            assert!(text.len() <= MAX_POLICY_DECISION, "{parts:?}: {}", text.len());
            let found = PolicyDecision::find(&format!("failed: {text}: denied")).unwrap();
            assert_eq!(found.get("truncated"), truncated.as_ref(), "{parts:?}");
            assert_eq!(found["decision"], "deny");
        }
    }

    #[test]
    fn no_value_of_a_variable_is_in_it() {
        let input = json!({"envList": ["TOKEN=swordfish=x", "swordfish"]});
        let rules = json!([{"pattern": "TOKEN=swordfish", "strategy": "string"}, {"name": "A", "value": "swordfish"}]);
        let reason = json!({"errors": [], "error_objects": [{"env_rules": rules}]});
        let found = PolicyDecision::find(&PolicyDecision::new(Point::CreateContainer, input, reason).encode()).unwrap();
        assert!(!found.to_string().contains("swordfish"), "{found}");
        assert_eq!(found["input"]["envList"], json!(["TOKEN=<<redacted>>", "<<redacted>>"]));
        assert_eq!(found["reason"]["error_objects"][0]["env_rules"][0]["pattern"], "TOKEN=<<redacted>>");
    }

    #[test]
    fn default_capabilities_have_a_name() {
        let platform = Platform::guest();
        let all = platform.privileged_capabilities.clone();
        let sets = Capabilities::from_sets([vec![], all.clone(), all.clone(), all.clone(), all]);
        let reason = json!({"errors": [], "error_objects": [{"capabilities": sets}, 7]});
        let decision = PolicyDecision::new(Point::CreateContainer, json!({"capabilities": sets}), reason);
        let found = PolicyDecision::find(&decision.with_placeholders(&platform).encode()).unwrap();
        assert_eq!(found["input"]["capabilities"], "[privileged]");
        assert_eq!(found["reason"]["error_objects"][0]["capabilities"], "[privileged]");
    }

    #[test]
    fn a_policy_without_a_reason_and_one_with_an_error() {
        let found = |decision: &PolicyDecision| PolicyDecision::find(&decision.encode()).unwrap();
        let silent = PolicyDecision::new(Point::MountDevice, json!({}), Value::Null);
        assert_eq!(found(&silent)["reason"], NO_REASON);
        let broken = silent.with_error(&"x".repeat(9000));
        assert!(broken.encode().len() <= MAX_POLICY_DECISION);
        assert_eq!(PolicyDecision::find("policyDecision<?>policyDecision"), None);
    }
}
