//! Changes of a policy, small ones: what to say differently so that a request is allowed.
//!
//! An amendment is written like a JSON Patch (RFC 6902) over the document's top-level objects, and can be made in the text
//! itself: where the document writes a value out, only that value is replaced and all the rest stays as it is.

use std::{fmt, ops::Range};

use serde::{Serialize, Serializer, ser::SerializeSeq as _};
use serde_json::{Value, json};

use crate::{error::PolicyError, generate::value_text, point::Point, policy_decision::redact_rule, source::Source};

/// One step of the way to a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Into an object, or the document itself.
    Key(String),
    /// Into a list.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// One change. Displayed and serialised, the values of variables are hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Puts a value at the end of a list.
    Append {
        /// The list.
        path: Vec<Step>,
        /// What is put there.
        value: Value,
    },
    /// Leaves the decision at a point to the framework: a new rule.
    Define(Point),
    /// Sets a value, whether it is there or not.
    Set {
        /// Where.
        path: Vec<Step>,
        /// To what.
        value: Value,
    },
}

impl Edit {
    pub(crate) fn set(path: &[Step], value: Value) -> Self {
        Self::Set { path: path.to_vec(), value }
    }

    pub(crate) fn append(path: &[Step], value: Value) -> Self {
        Self::Append { path: path.to_vec(), value }
    }

    /// The value as anybody may see it.
    fn shown_value(path: &[Step], value: &Value) -> Value {
        let mut value = value.clone();
        if path.iter().any(|step| *step == Step::from("env_rules")) {
            redact_rule(&mut value);
        }
        value
    }
}

/// `containers[0].env_rules`.
fn shown_path(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.push_str(&format!(".{key}")),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// `/containers/0/env_rules` (RFC 6901).
fn pointer(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        text.push('/');
        match step {
            Step::Key(key) => text.push_str(&key.replace('~', "~0").replace('/', "~1")),
            Step::Index(index) => text.push_str(&index.to_string()),
        }
    }
    text
}

impl fmt::Display for Edit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append { path, value } => {
                write!(formatter, "add to {}: {}", shown_path(path), Self::shown_value(path, value))
            }
            Self::Define(point) => write!(formatter, "add the rule {point} := data.framework.{point}"),
            Self::Set { path, value } => {
                write!(formatter, "set {} := {}", shown_path(path), Self::shown_value(path, value))
            }
        }
    }
}

impl Serialize for Edit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Append { path, value } => {
                json!({"op": "add", "path": format!("{}/-", pointer(path)), "value": Self::shown_value(path, value)})
            }
            Self::Define(point) => json!({"op": "define", "rule": point, "value": format!("data.framework.{point}")}),
            Self::Set { path, value } => {
                // In RFC 6902, "add" sets an object's member, but makes room in a list.
                let op = if matches!(path.last(), Some(Step::Index(_))) { "replace" } else { "add" };
                json!({"op": op, "path": pointer(path), "value": Self::shown_value(path, value)})
            }
        }
        .serialize(serializer)
    }
}

/// Changes that belong together. Serialised: a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amendment {
    /// In their order.
    pub edits: Vec<Edit>,
}

impl Serialize for Amendment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.edits.len()))?;
        for edit in &self.edits {
            list.serialize_element(edit)?;
        }
        list.end()
    }
}

impl fmt::Display for Amendment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, edit) in self.edits.iter().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(formatter, "{separator}{edit}")?;
        }
        Ok(())
    }
}

/// Why a change cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmendError {
    /// The document computes what would have to be changed.
    #[error("{0:?} is computed by the policy: it has to be changed by hand")]
    Computed(String),
    /// There is nothing of that name in the document.
    #[error("there is no {0:?} in the policy")]
    Missing(String),
    /// The text is no policy, before or after.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl Amendment {
    /// The text with the changes made in it. Its digest is another one.
    ///
    /// # Errors
    /// [`AmendError`].
    pub fn apply(&self, text: &str) -> Result<String, AmendError> {
        let mut text = text.to_owned();
        for edit in &self.edits {
            text = apply(edit, &text)?;
        }
        Source::parse(&text)?;
        Ok(text)
    }
}

/// Makes one change in a text.
fn apply(edit: &Edit, text: &str) -> Result<String, AmendError> {
    let source = Source::parse(text)?;
    match edit {
        Edit::Define(point) => Ok(appended(text, &format!("{point} := data.framework.{point}"))),
        Edit::Set { path, value } => set(&source, text, path, value),
        Edit::Append { path, value } => {
            let Some(place) = source.find(path) else {
                return set(&source, text, path, &json!([value]));
            };
            let inner = depth(path).saturating_add(1);
            let new = value_text(value, inner);
            match (place.list, place.last) {
                (false, _) => Err(AmendError::Computed(shown_path(path))),
                (true, Some(last)) => Ok(replaced(text, last.end..last.end, &format!(",\n{}{new}", indent(inner)))),
                (true, None) => Ok(replaced(text, place.range, &value_text(&json!([value]), depth(path)))),
            }
        }
    }
}

/// Sets a value: in its place, or as a new member of what should hold it.
fn set(source: &Source, text: &str, path: &[Step], value: &Value) -> Result<String, AmendError> {
    if let Some(place) = source.find(path) {
        return Ok(replaced(text, place.range, &value_text(value, depth(path))));
    }
    match path.split_last() {
        Some((Step::Key(name), [])) if !source.has(name) => {
            Ok(appended(text, &format!("{name} := {}", value_text(value, 0))))
        }
        Some((Step::Key(name), parent)) if !parent.is_empty() => {
            let Some(place) = source.find(parent) else {
                // The holder may be missing as well.
                return set(source, text, parent, &json!({ name: value }));
            };
            let member = format!("{}: {}", json!(name), value_text(value, depth(path)));
            match (place.object, place.last) {
                (false, _) => Err(AmendError::Computed(shown_path(parent))),
                (true, Some(last)) => {
                    let new = format!(",\n{}{member}", indent(depth(path)));
                    Ok(replaced(text, last.end..last.end, &new))
                }
                (true, None) => Ok(replaced(text, place.range, &format!("{{{member}}}"))),
            }
        }
        Some((Step::Key(name), _)) => Err(AmendError::Computed(name.clone())),
        _ => Err(AmendError::Missing(shown_path(path))),
    }
}

/// How deep a value is written.
fn depth(path: &[Step]) -> usize {
    path.len().saturating_sub(1)
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}

fn replaced(text: &str, range: Range<usize>, new: &str) -> String {
    let (before, after) = (text.get(..range.start).unwrap_or_default(), text.get(range.end..).unwrap_or_default());
    format!("{before}{new}{after}")
}

fn appended(text: &str, line: &str) -> String {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{line}\n")
}

/// Makes the changes below `root` in a JSON value, such as a container's; absent if one of them does not fit.
pub(crate) fn apply_to_value(value: &mut Value, path: &[Step], edit: &Edit) -> Option<()> {
    let mut at = value;
    let (steps, last) = match edit {
        Edit::Append { .. } => (path, None),
        _ => path.split_last().map(|(last, steps)| (steps, Some(last)))?,
    };
    for step in steps {
        at = match step {
            Step::Key(key) => at
                .as_object_mut()?
                .entry(key.clone())
                .or_insert_with(|| if last.is_some() { json!({}) } else { json!([]) }),
            Step::Index(index) => at.as_array_mut()?.get_mut(*index)?,
        };
    }
    match (edit, last) {
        (Edit::Append { value, .. }, _) => at.as_array_mut()?.push(value.clone()),
        (Edit::Set { value, .. }, Some(Step::Key(key))) => {
            at.as_object_mut()?.insert(key.clone(), value.clone());
        }
        (Edit::Set { value, .. }, Some(Step::Index(index))) => *at.as_array_mut()?.get_mut(*index)? = value.clone(),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    const TEXT: &str = r#"package policy
api_version := "0.12.0"
framework_version := "0.5.0"
# The first one.
containers := [
  {
    "name": "a", # what it is called
    "env_rules": [
      {"pattern": "A=1", "strategy": "string", "required": true}, # the only one
    ],
    "mounts": [],
    "signals": [9],
  },
]
computed := [x | x := 1]
"#;

    fn path(steps: &[&str]) -> Vec<Step> {
        steps.iter().map(|step| step.parse::<usize>().map_or_else(|_| Step::from(*step), Step::from)).collect()
    }

    fn amended(edits: Vec<Edit>) -> String {
        Amendment { edits }.apply(TEXT).unwrap()
    }

    #[test]
    fn values_are_changed_in_their_place_and_the_rest_stays() {
        let rule = json!({"pattern": "B=2", "strategy": "string", "required": false});
        let text = amended(vec![
            Edit::append(&path(&["containers", "0", "env_rules"]), rule),
            Edit::append(&path(&["containers", "0", "mounts"]), json!({"destination": "/x"})),
            Edit::append(&path(&["containers", "0", "groups"]), json!("new")),
            Edit::set(&path(&["containers", "0", "env_rules", "0", "required"]), json!(false)),
            Edit::set(&path(&["containers", "0", "caveau", "max_starts"]), json!(2)),
            Edit::set(&path(&["containers", "0", "signals", "0"]), json!(15)),
            Edit::set(&path(&["allow_dump_stacks"]), json!(true)),
            Edit::set(&path(&["caveau", "memory_scratch"]), json!(true)),
            Edit::Define(Point::MountDevice),
        ]);
        for kept in ["# The first one.", "# what it is called", "# the only one", "computed := [x | x := 1]"] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        let policy = Policy::parse(&text).unwrap();
        assert!(policy.flags().dump_stacks && policy.extension.memory_scratch);
        let container = policy.containers().next().unwrap();
        let rules = container.env_rules.as_ref().unwrap();
        assert!(rules[1].matches("B=2") && !rules[0].is_required());
        assert_eq!(container.mounts.as_ref().unwrap()[0].destination.as_deref(), Some("/x"));
        assert_eq!(container.signals.as_deref(), Some(&[15][..]));
        assert_eq!(container.caveau.as_ref().unwrap().max_starts, Some(2));
        assert_eq!(container.other["groups"], json!(["new"]));
        assert!(policy.rules.contains_key(&Point::MountDevice));
    }

    #[test]
    fn what_is_computed_or_missing_is_refused() {
        let apply = |edit: Edit| Amendment { edits: vec![edit] }.apply(TEXT).unwrap_err();
        assert!(matches!(apply(Edit::append(&path(&["computed"]), json!(2))), AmendError::Computed(_)));
        assert!(matches!(apply(Edit::set(&path(&["computed", "0"]), json!(2))), AmendError::Missing(_)));
        assert!(matches!(apply(Edit::set(&path(&["containers", "7"]), json!({}))), AmendError::Missing(_)));
        assert!(matches!(apply(Edit::set(&path(&["containers", "7", "name"]), json!(1))), AmendError::Missing(_)));
        let nothing = Amendment { edits: vec![Edit::Define(Point::MountDevice)] };
        assert!(matches!(nothing.apply("package other\n"), Err(AmendError::Policy(_))));
    }

    #[test]
    fn amendments_are_shown_without_values_of_variables() {
        let rule = json!({"pattern": "TOKEN=swordfish", "strategy": "string"});
        let edits = vec![
            Edit::append(&path(&["containers", "0", "env_rules"]), rule),
            Edit::set(&path(&["containers", "0", "layers", "1"]), json!("ab")),
            Edit::Define(Point::MountDevice),
        ];
        let amendment = Amendment { edits };
        let json = serde_json::to_string(&amendment).unwrap();
        assert!(!format!("{json} {amendment}").contains("swordfish"));
        for part in ["/containers/0/env_rules/-", "TOKEN=<<redacted>>", "\"replace\"", "\"define\""] {
            assert!(json.contains(part), "{json}");
        }
        assert!(amendment.to_string().contains("set containers[0].layers[1] := \"ab\"; add the rule mount_device := "));
    }
}
