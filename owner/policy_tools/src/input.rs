//! A policy as people have it: Rego, base64 of it, or within an ARM template. Detected by content.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::ToolError;

/// What a policy was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// An ARM template's `ccePolicy`.
    Arm,
    /// Base64, as `ccePolicy` holds it.
    Base64,
    /// The text itself.
    Rego,
}

/// A policy that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The container group's name in a template; the given name otherwise.
    pub name: String,
    /// The policy's text, byte for byte.
    pub text: String,
    /// What it was found in.
    pub kind: InputKind,
}

/// Deepest nesting of deployments within deployments that is looked into.
const MAX_DEPTH: usize = 16;

/// Every policy of a text, at least one; `name` is what to call it where it has no name of its own.
///
/// # Errors
/// [`ToolError`] where the text is none of the forms. Whether the Rego is a policy is not looked at here.
pub fn read(name: &str, text: &str) -> Result<Vec<Found>, ToolError> {
    let trimmed = text.trim_start_matches('\u{feff}').trim();
    if trimmed.starts_with('{') {
        let template: Value = serde_json::from_str(trimmed).map_err(|_| ToolError::OtherJson)?;
        return of_template(&template);
    }
    let one = |text: String, kind| vec![Found { name: name.to_owned(), text, kind }];
    match decode(trimmed) {
        Some(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| ToolError::NotText(name.to_owned()))?;
            Ok(one(text, InputKind::Base64))
        }
        None => Ok(one(text.to_owned(), InputKind::Rego)),
    }
}

/// The bytes, if the text is base64, over however many lines. Rego never is: it has a blank after `package`.
fn decode(text: &str) -> Option<Vec<u8>> {
    let joined: String = text.split(['\r', '\n']).map(str::trim).collect();
    if joined.is_empty() {
        return None;
    }
    STANDARD.decode(joined).ok()
}

fn of_template(template: &Value) -> Result<Vec<Found>, ToolError> {
    if template.get("resources").is_none() {
        return Err(ToolError::OtherJson);
    }
    let mut found = Vec::new();
    of_resources(template.get("resources"), &mut found, 0)?;
    if found.is_empty() { Err(ToolError::NoPolicy) } else { Ok(found) }
}

/// Resources are a list, or (language version 2.0) an object by symbolic name; deployments nest templates.
fn of_resources(resources: Option<&Value>, found: &mut Vec<Found>, depth: usize) -> Result<(), ToolError> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    let resources: Vec<&Value> = match resources {
        Some(Value::Array(items)) => items.iter().collect(),
        Some(Value::Object(items)) => items.values().collect(),
        _ => Vec::new(),
    };
    for resource in resources {
        let properties = resource.get("properties");
        let policy = properties.and_then(|properties| properties.pointer("/confidentialComputeProperties/ccePolicy"));
        if let Some(encoded) = policy.and_then(Value::as_str) {
            let position = format!("group {}", found.len().saturating_add(1));
            let name = resource.get("name").and_then(Value::as_str).map_or(position, str::to_owned);
            found.push(of_field(name, encoded)?);
        }
        of_resources(
            properties.and_then(|properties| properties.pointer("/template/resources")),
            found,
            depth.saturating_add(1),
        )?;
        of_resources(resource.get("resources"), found, depth.saturating_add(1))?;
    }
    Ok(())
}

fn of_field(name: String, encoded: &str) -> Result<Found, ToolError> {
    if encoded.trim_start().starts_with('[') {
        return Err(ToolError::Expression(name));
    }
    let Some(bytes) = decode(encoded) else { return Err(ToolError::NotText(name)) };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Found { name, text, kind: InputKind::Arm }),
        Err(_) => Err(ToolError::NotText(name)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "package policy\r\n\napi_version := \"0.12.0\"\n";

    #[test]
    fn a_policy_is_found_in_each_form_byte_for_byte() {
        assert_eq!(read("x", TEXT).unwrap()[0], Found { name: "x".into(), text: TEXT.into(), kind: InputKind::Rego });
        let encoded = STANDARD.encode(TEXT);
        let wrapped = format!("{}\n{}\n", &encoded[..20], &encoded[20..]);
        for base64 in [encoded.as_str(), wrapped.as_str()] {
            assert_eq!(read("x", base64).unwrap()[0].text, TEXT);
        }
        let group = |name: &str| {
            json!({"type": "Microsoft.ContainerInstance/containerGroups", "name": name,
                "properties": {"confidentialComputeProperties": {"ccePolicy": encoded}}})
        };
        let nested = json!({"properties": {"template": {"resources": [group("c")]}}});
        let template = json!({"resources": [group("a"), {"name": "no"}, group("b"), nested]}).to_string();
        let found = read("x", &template).unwrap();
        assert_eq!(found.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(found.iter().all(|found| found.text == TEXT && found.kind == InputKind::Arm));
        let symbolic = json!({"resources": {"one": group("a")}}).to_string();
        assert_eq!(read("x", &symbolic).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_policy_is_said_to_be_none() {
        let of = |policy: &str| {
            let properties = json!({"confidentialComputeProperties": {"ccePolicy": policy}});
            read("x", &json!({"resources": [{"name": "a", "properties": properties}]}).to_string())
        };
        assert!(matches!(read("x", "{\"resources\": []}"), Err(ToolError::NoPolicy)));
        assert!(matches!(read("x", "{\"a\": 1}"), Err(ToolError::OtherJson)));
        assert!(matches!(read("x", "{"), Err(ToolError::OtherJson)));
        assert!(matches!(of("[parameters('policy')]"), Err(ToolError::Expression(_))));
        assert!(matches!(of("not base64!"), Err(ToolError::NotText(_))));
        assert!(matches!(of(&STANDARD.encode([0xff, 0xfe])), Err(ToolError::NotText(_))));
        assert!(matches!(read("x", &STANDARD.encode([0xff])), Err(ToolError::NotText(_))));
    }
}
