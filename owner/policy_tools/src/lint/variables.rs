//! Rules for variables, wherever they stand.

use caveau_policy::{Step, model::EnvRule};
use serde_json::{Value, json};

use super::{
    ENV_ANY, ENV_OPTIONAL, ENV_PATTERN, ENV_SECRET, ENV_WILDCARD, Findings, PATTERN_EXPENSIVE, PATTERN_INVALID,
    PATTERN_UNANCHORED, patterns,
};
use crate::document::{below, items, shown_rule, text};

/// Words in the names of variables whose values are not for the host.
const SECRETS: [&str; 8] = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "CREDENTIAL"];

/// Looks at the `env_rules` of something.
pub(super) fn check(holder: &Value, path: &[Step], findings: &mut Findings<'_>) {
    for (index, rule) in items(holder, "env_rules").iter().enumerate() {
        let path = below(path, &["env_rules".into(), index.into()]);
        check_rule(rule, &path, findings);
    }
}

fn check_rule(rule: &Value, path: &[Step], findings: &mut Findings<'_>) {
    let shown = shown_rule(rule);
    if let Ok(typed) = serde_json::from_value::<EnvRule>(rule.clone())
        && let Some(error) = typed.pattern_error()
    {
        findings.add(PATTERN_INVALID, path, format!("the rule {shown} matches nothing: {error}"));
        return;
    }
    let (name, value) = halves(rule);
    for half in [&name, &value].into_iter().flatten().filter(|half| half.pattern) {
        shape(half.text, path, findings);
    }
    let whole_pattern = value.is_none() && name.as_ref().is_some_and(|name| name.pattern);
    let name_open = name.as_ref().is_some_and(|name| name.pattern && patterns::is_wildcard(name.text));
    let value_half = value.as_ref().filter(|value| value.pattern);
    if name_open {
        findings.add(ENV_ANY, path, format!("the rule {shown} takes variables of any name"));
    } else if value_half.is_some_and(|value| patterns::is_wildcard(value.text)) {
        findings.add(ENV_WILDCARD, path, format!("the rule {shown} takes any value"));
    } else if whole_pattern || value_half.is_some() || name.as_ref().is_some_and(|name| name.pattern) {
        findings.add(ENV_PATTERN, path, format!("the host chooses within the rule {shown}"));
    } else if rule.get("required") != Some(&json!(true)) {
        findings.add(ENV_OPTIONAL, path, format!("the host can leave out {shown}"));
    }
    let exact = value.as_ref().filter(|value| !value.pattern && !value.text.is_empty());
    let upper = name.as_ref().map(|name| name.text.to_uppercase()).unwrap_or_default();
    if exact.is_some() && SECRETS.iter().any(|word| upper.contains(word)) {
        findings.add(ENV_SECRET, path, format!("the value of {upper} stands in the policy, which the host reads"));
    }
}

/// What is wrong with a pattern's form.
pub(super) fn shape(pattern: &str, path: &[Step], findings: &mut Findings<'_>) {
    if let Some(why) = patterns::unanchored(pattern) {
        findings.add(PATTERN_UNANCHORED, path, format!("the pattern {pattern:?} {why}"));
    }
    if patterns::is_expensive(pattern) {
        findings.add(PATTERN_EXPENSIVE, path, format!("the pattern {pattern:?} repeats repetitions"));
    }
}

/// A half of a rule: its text, and whether that is a pattern.
struct Half<'r> {
    text: &'r str,
    pattern: bool,
}

/// Name and value of a rule. A whole pattern is cut at its first plain `=`, if there is one.
fn halves(rule: &Value) -> (Option<Half<'_>>, Option<Half<'_>>) {
    if let Some(whole) = rule.get("pattern").and_then(Value::as_str) {
        let is_pattern = text(rule, "strategy") == "re2";
        // Of `A=.*|B` no half says anything.
        let cut = if is_pattern && patterns::unanchored(whole).is_some() { None } else { whole.split_once('=') };
        return match cut {
            Some((name, value)) => {
                let named = is_pattern && !patterns::is_literal(name.strip_prefix('^').unwrap_or(name));
                let name = Half { text: name, pattern: named };
                (
                    Some(name),
                    Some(Half {
                        text: value,
                        pattern: is_pattern && !patterns::is_literal(value.strip_suffix('$').unwrap_or(value)),
                    }),
                )
            }
            None => (Some(Half { text: whole, pattern: is_pattern }), None),
        };
    }
    let half = |field: &str, strategy: &str| {
        let found = rule.get(field).and_then(Value::as_str)?;
        Some(Half { text: found, pattern: text(rule, strategy) == "re2" })
    };
    (half("name", "name_strategy"), half("value", "value_strategy"))
}
