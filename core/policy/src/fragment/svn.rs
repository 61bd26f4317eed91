//! Security versions: a number, a number as text, or, as old documents have it, `MAJOR.MINOR.PATCH`.

use std::cmp::Ordering;

use semver::Version;
use serde_json::Value;

/// Whether a version is the least one or a later one. Versions of different kinds cannot be compared.
pub(crate) fn at_least(found: &Value, least: &Value) -> bool {
    let semantic = semantic(found)
        .zip(semantic(least))
        .is_some_and(|(found, least)| found.cmp_precedence(&least) != Ordering::Less);
    semantic || compare(found, least).is_some_and(Ordering::is_ge)
}

/// Whether two are the same number.
pub(crate) fn same_number(one: &Value, other: &Value) -> bool {
    compare(one, other) == Some(Ordering::Equal)
}

/// The version for people.
pub(crate) fn shown(version: &Value) -> String {
    match version {
        Value::String(text) => text.chars().take(80).collect(),
        other => other.to_string(),
    }
}

fn semantic(value: &Value) -> Option<Version> {
    value.as_str()?.parse().ok()
}

fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    match (Number::of(one)?, Number::of(other)?) {
        (Number::Whole(one), Number::Whole(other)) => Some(one.cmp(&other)),
        (one, other) => one.as_float().partial_cmp(&other.as_float()),
    }
}

/// A number in the form that can be compared exactly, if there is one.
#[derive(Clone, Copy)]
enum Number {
    Whole(i128),
    Other(f64),
}

impl Number {
    /// What Rego's `to_number` makes of a value.
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Whole(0)),
            Value::Bool(value) => Some(Self::Whole(i128::from(*value))),
            Value::Number(number) => Self::parse(&number.to_string()),
            Value::String(text) => Self::parse(text),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        // Rust reads "inf" and "nan" as numbers, too.
        if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
            return None;
        }
        if let Ok(whole) = text.parse() {
            return Some(Self::Whole(whole));
        }
        text.parse().ok().filter(|number: &f64| number.is_finite()).map(Self::Other)
    }

    fn as_float(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "compared with a number that is no more exact")]
            Self::Whole(whole) => whole as f64,
            Self::Other(number) => number,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_of_each_kind_compare_with_their_own() {
        for (found, least, expected) in [
            (json!(2), json!(1), true),
            (json!("2"), json!(2), true),
            (json!(0), json!("0"), true),
            (json!("10"), json!("9"), true),
            (json!("1"), json!("2"), false),
            (json!("1.5"), json!(1), true),
            (json!("1e1"), json!(9), true),
            (json!("9223372036854775808"), json!("9223372036854775807"), true),
            (json!("0.10.0"), json!("0.9.9"), true),
            (json!("1.0.0-rc1"), json!("1.0.0"), false),
            (json!("1.0.0"), json!("1.0.0+build"), true),
            (json!("1.0.0"), json!(1), false),
            (json!(1), json!("1.0.0"), false),
            (json!("infinity"), json!(1), false),
            (json!("nan"), json!("nan"), false),
            (json!(""), json!(0), false),
            (json!([1]), json!(1), false),
        ] {
            assert_eq!(at_least(&found, &least), expected, "{found} >= {least}");
        }
        assert!(same_number(&json!("10"), &json!(10)) && !same_number(&json!("1.0.0"), &json!("1.0.0")));
    }
}
