//! Whether two engines answered the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Everything of an answer that its caller acts on.
pub(super) const FIELDS: [&str; 8] = [
    "allowed",
    "env_list",
    "caps_list",
    "allow_stdio_access",
    "add_module",
    "parameters",
    "allowed_ledgers",
    "metadata",
];

/// Compares an answer with the recorded one.
///
/// # Errors
/// The first difference, in words.
pub(super) fn answers(expected: &Value, found: &Value) -> Result<(), String> {
    FIELDS.iter().try_for_each(|field| {
        let [expected, found] = [expected, found].map(|answer| answer.get(field).unwrap_or(&Value::Null));
        if Plain::of(expected) == Plain::of(found) {
            return Ok(());
        }
        Err(format!("{field}: recorded {}, here {}", shortened(expected), shortened(found)))
    })
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    let short: String = text.chars().take(300).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

/// A value whose lists are compared as sets: their order carries no meaning.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Plain {
    List(BTreeSet<Plain>),
    Object(BTreeMap<String, Plain>),
    Scalar(String),
}

impl Plain {
    fn of(value: &Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Object(fields) => {
                Self::Object(fields.iter().map(|(name, field)| (name.clone(), Self::of(field))).collect())
            }
            scalar => Self::Scalar(scalar.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_sets_and_all_else_counts() {
        let recorded = json!({"allowed": true, "env_list": ["a", "b"], "metadata": [{"key": "k", "value": [1, 2]}]});
        let same =
            json!({"metadata": [{"value": [2, 1], "key": "k"}], "env_list": ["b", "a"], "allowed": true, "x": 1});
        assert_eq!(answers(&recorded, &same), Ok(()));
        for (field, value) in [("allowed", json!(false)), ("env_list", json!(["a"])), ("metadata", json!([]))] {
            let mut other = same.clone();
            other[field] = value;
            assert!(answers(&recorded, &other).unwrap_err().starts_with(field), "{field}");
        }
        assert!(answers(&json!({"add_module": true}), &json!({})).is_err());
        assert_eq!(answers(&Value::Null, &Value::Null), Ok(()));
    }
}
