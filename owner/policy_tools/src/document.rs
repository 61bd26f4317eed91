//! A policy taken apart: what it defines, as values, with the places in its text.

use std::collections::BTreeMap;

use caveau_policy::{Answering, Point, Policy, Source, Step};
use serde_json::{Value, json};

use crate::ToolError;

/// Names that hold data in the policy language, in alphabetical order.
pub(crate) const OBJECTS: [&str; 6] =
    ["caveau", "containers", "external_processes", "fragments", "platform_rules", "transparency_trust_lists"];

/// Flags of the policy language, in alphabetical order. What is absent is off.
pub(crate) const FLAGS: [&str; 7] = [
    "allow_capability_dropping",
    "allow_dump_stacks",
    "allow_environment_variable_dropping",
    "allow_host_network",
    "allow_properties_access",
    "allow_runtime_logging",
    "allow_unencrypted_scratch",
];

/// Names of versions, the present one and that of old policies.
pub(crate) const VERSIONS: [(&str, &str); 2] = [("api_version", "api_svn"), ("framework_version", "framework_svn")];

/// A policy, understood.
#[derive(Debug)]
pub struct PolicyDocument {
    /// Its typed form.
    pub policy: Policy,
    pub(crate) source: Source,
    pub(crate) values: BTreeMap<String, Value>,
}

impl PolicyDocument {
    /// Understands a policy; `name` is for messages.
    ///
    /// # Errors
    /// [`ToolError::Policy`] where it is no policy, or its objects are malformed.
    pub fn parse(name: &str, text: &str) -> Result<Self, ToolError> {
        let failed = |error| ToolError::Policy { name: name.to_owned(), error };
        let policy = Policy::parse(text).map_err(failed)?;
        let mut source = Source::parse(text).map_err(failed)?;
        let mut values = BTreeMap::new();
        let points = Point::ALL.iter().map(|point| point.name());
        let versions = VERSIONS.iter().flat_map(|(name, old)| [*name, *old]);
        for name in OBJECTS.into_iter().chain(FLAGS).chain(versions).chain(points) {
            // What cannot be evaluated without a request has no value of its own.
            if let Ok(Some(value)) = source.value(name) {
                values.insert(name.to_owned(), value);
            }
        }
        Ok(Self { policy, source, values })
    }

    /// The items of a list; none where there is no such list.
    pub(crate) fn list(&self, name: &str) -> &[Value] {
        self.values.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Whether a flag is set.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.values.get(name) == Some(&Value::Bool(true))
    }

    /// A version under its name or its old one.
    pub(crate) fn version(&self, index: usize) -> Option<&str> {
        let (name, old) = VERSIONS.get(index)?;
        self.values.get(*name).or_else(|| self.values.get(*old)).and_then(Value::as_str)
    }

    /// The line of a value, or of the nearest thing that holds it.
    pub(crate) fn line(&self, path: &[Step]) -> Option<u32> {
        self.source.nearest_line(path)
    }

    /// Whether a point is open whatever is asked: its rule is a plain `{"allowed": true}`.
    pub(crate) fn is_open(&self, point: Point) -> bool {
        self.source.answering(point) == Some(Answering::Document)
            && self.values.get(point.name()).and_then(|value| value.get("allowed")) == Some(&json!(true))
    }
}

/// The texts of a list in a field; none where it is not one.
pub(crate) fn texts<'v>(value: &'v Value, field: &str) -> Vec<&'v str> {
    value.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The items of a list in a field; none where it is not one.
pub(crate) fn items<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text in a field; empty where it is not one.
pub(crate) fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A container's name for people: its own, or its place.
pub(crate) fn label(container: &Value, index: usize) -> String {
    match text(container, "name") {
        "" => format!("#{index}"),
        name => name.to_owned(),
    }
}

/// A command as people read it.
pub(crate) fn shown_command(value: &Value) -> String {
    format!("{:?}", texts(value, "command"))
}

/// What a rule for a variable takes, its value hidden unless it is a pattern: name, and how the value is compared.
pub(crate) fn shown_rule(rule: &Value) -> String {
    let pattern = rule.get("pattern").and_then(Value::as_str);
    match pattern {
        Some(pattern) if text(rule, "strategy") == "re2" => format!("matching {pattern:?}"),
        Some(pattern) => match pattern.split_once('=') {
            Some((name, _)) => format!("{name} (one value)"),
            None => "<<redacted>> (no NAME=)".to_owned(),
        },
        None => {
            let how = |value: &str| match text(rule, value) {
                "re2" => "matching",
                _ => "of one",
            };
            let value = if text(rule, "value_strategy") == "re2" {
                format!(" {:?}", text(rule, "value"))
            } else {
                " value".to_owned()
            };
            format!(
                "{:?} ({} value{})",
                text(rule, "name"),
                how("value_strategy"),
                if value == " value" { "" } else { &value }
            )
        }
    }
}

/// The way to an item.
pub(crate) fn at(list: &str, index: usize) -> Vec<Step> {
    vec![list.into(), index.into()]
}

/// The way further down.
pub(crate) fn below(path: &[Step], steps: &[Step]) -> Vec<Step> {
    [path, steps].concat()
}
