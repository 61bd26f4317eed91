//! How two policies differ in what they mean. Neither order nor layout is a difference: containers are told apart by their
//! layers, command and name, lists that are sets are compared as sets, and what old versions leave out has its default.

use std::collections::BTreeSet;

use caveau_policy::{Answering, Point};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    PolicyDocument,
    document::{FLAGS, VERSIONS, label, text},
};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What it is in: the policy, a container, a fragment …
    pub within: String,
    /// The field; absent where the whole thing is on one side only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What the first policy says; absent where it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Value>,
    /// What the second policy says; absent where it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Value>,
}

/// Fields of containers and processes that are for people only.
const FOR_PEOPLE: [&str; 3] = ["id", "image_name", "name"];

/// Lists whose order means something.
const ORDERED: [&str; 2] = ["command", "layers"];

/// Every difference between two policies; none where they decide alike. Values of variables are not hidden: both policies
/// are their owner's.
#[must_use]
pub fn diff(a: &PolicyDocument, b: &PolicyDocument) -> Vec<Difference> {
    let mut found = Vec::new();
    for index in 0..VERSIONS.len() {
        let name = VERSIONS.get(index).map_or("", |(name, _)| *name);
        compare("policy", name, a.version(index).map(Value::from), b.version(index).map(Value::from), &mut found);
    }
    for name in FLAGS {
        compare("policy", name, Some(json!(a.flag(name))), Some(json!(b.flag(name))), &mut found);
    }
    let extension = |document: &PolicyDocument| {
        let memory = document.values.get("caveau").and_then(|value| value.get("memory_scratch")).cloned();
        memory.unwrap_or(json!(false))
    };
    compare("policy", "caveau.memory_scratch", Some(extension(a)), Some(extension(b)), &mut found);
    let network = |document: &PolicyDocument| document.policy.network().map(|rules| canonical(&json!(rules)));
    compare("policy", "caveau.network", network(a), network(b), &mut found);
    let owners = |document: &PolicyDocument| Some(json!(document.policy.owners()));
    compare("policy", "caveau.owners", owners(a), owners(b), &mut found);
    for point in Point::ALL.iter().copied() {
        compare("rules", point.name(), rule(a, point), rule(b, point), &mut found);
    }
    objects("container", (a.list("containers"), b.list("containers")), container_keys(), &mut found);
    let command: &[Key] = &[&|process| json!([process.get("command"), process.get("working_dir")]), &|process| {
        json!(process.get("command"))
    }];
    objects("external process", (a.list("external_processes"), b.list("external_processes")), command, &mut found);
    let feed: &[Key] = &[&|fragment| json!([fragment.get("issuer"), fragment.get("feed")])];
    objects("fragment", (a.list("fragments"), b.list("fragments")), feed, &mut found);
    let whole: &[Key] = &[&canonical];
    objects("platform rule", (a.list("platform_rules"), b.list("platform_rules")), whole, &mut found);
    let subject: &[Key] = &[&|list| json!([list.get("issuer"), list.get("subject")])];
    let lists = (a.list("transparency_trust_lists"), b.list("transparency_trust_lists"));
    objects("transparency trust list", lists, subject, &mut found);
    found
}

/// What tells an object from others; the first keys are the surest.
type Key<'k> = &'k dyn Fn(&Value) -> Value;

fn container_keys() -> &'static [Key<'static>] {
    &[
        &|c| canonical(&Value::Object(compared(c))),
        &|c| json!([c.get("layers"), c.get("command"), c.get("name")]),
        &|c| json!([c.get("layers"), c.get("command")]),
        &|c| json!([c.get("name"), c.get("command")]),
        &|c| if c.get("name").is_some() { json!([c.get("name")]) } else { json!([c.get("layers")]) },
        &|c| json!([c.get("layers")]),
    ]
}

/// What answers at a point.
fn rule(document: &PolicyDocument, point: Point) -> Option<Value> {
    match document.source.answering(point)? {
        Answering::Framework => Some(json!("framework")),
        Answering::Document if document.is_open(point) => Some(json!("always allowed")),
        // Its meaning is compared by its words.
        Answering::Document => Some(json!(document.source.text(point.name()))),
    }
}

fn compare(within: &str, field: &str, a: Option<Value>, b: Option<Value>, found: &mut Vec<Difference>) {
    if a != b {
        found.push(Difference { within: within.to_owned(), field: Some(field.to_owned()), a, b });
    }
}

/// Compares two lists of objects: pairs are those alike under the first key that pairs them.
fn objects(kind: &str, (a, b): (&[Value], &[Value]), keys: &[Key<'_>], found: &mut Vec<Difference>) {
    let (mut left, mut right): (Vec<_>, Vec<_>) = (a.iter().enumerate().collect(), b.iter().enumerate().collect());
    let mut pairs = Vec::new();
    for key in keys {
        left.retain(|one| {
            let Some(at) = right.iter().position(|(_, other)| key(other) == key(one.1)) else { return true };
            pairs.push((*one, right.remove(at)));
            false
        });
    }
    pairs.sort_by_key(|((index, _), _)| *index);
    for ((index, one), (_, other)) in pairs {
        fields(&format!("{kind} {}", shown(kind, one, index)), one, other, found);
    }
    for (index, one) in left {
        let within = format!("{kind} {}", shown(kind, one, index));
        found.push(Difference { within, field: None, a: Some(one.clone()), b: None });
    }
    for (index, other) in right {
        let within = format!("{kind} {}", shown(kind, other, index));
        found.push(Difference { within, field: None, a: None, b: Some(other.clone()) });
    }
}

/// What to call an object.
fn shown(kind: &str, object: &Value, index: usize) -> String {
    match kind {
        "container" => label(object, index),
        "external process" => crate::document::shown_command(object),
        "fragment" => text(object, "feed").to_owned(),
        "transparency trust list" => text(object, "subject").to_owned(),
        _ => format!("#{index}"),
    }
}

/// Compares two objects field by field.
fn fields(within: &str, a: &Value, b: &Value, found: &mut Vec<Difference>) {
    let (a, b) = (compared(a), compared(b));
    let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for name in names {
        let (one, other) = (a.get(name), b.get(name));
        let same = match ORDERED.contains(&name.as_str()) {
            true => one == other,
            false => one.map(canonical) == other.map(canonical),
        };
        if !same {
            compare(within, name, one.cloned(), other.cloned(), found);
        }
    }
}

/// The fields of an object that mean something.
fn compared(object: &Value) -> Map<String, Value> {
    let fields = object.as_object().into_iter().flatten();
    fields.filter(|(name, _)| !FOR_PEOPLE.contains(&name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// A value with the order taken out of the lists in which it means nothing.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(canonical).collect();
            items.sort_by_key(ToString::to_string);
            Value::Array(items)
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| {
                let ordered = ORDERED.contains(&name.as_str());
                (name.clone(), if ordered { field.clone() } else { canonical(field) })
            })
            .collect(),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(containers: &[Value], more: &str) -> PolicyDocument {
        let text = format!(
            "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\ncontainers := {}\n{more}\n",
            json!(containers)
        );
        PolicyDocument::parse("x", &text).unwrap()
    }

    fn container(name: &str, layer: &str, command: &str) -> Value {
        json!({"name": name, "layers": [layer], "command": [command], "signals": [9, 15], "working_dir": "/"})
    }

    #[test]
    fn order_and_layout_are_no_difference() {
        let (one, two) = (container("a", "11", "x"), container("b", "22", "y"));
        let mut turned = one.clone();
        turned["signals"] = json!([15, 9]);
        turned["id"] = json!("image:2");
        let a = policy(&[one, two.clone()], "allow_dump_stacks := false");
        let b = policy(&[two, turned], "# nothing");
        assert_eq!(diff(&a, &b), []);
    }

    #[test]
    fn containers_are_matched_by_what_they_are() {
        let a = policy(&[container("a", "11", "x"), container("b", "22", "y")], "");
        let b = policy(&[container("b", "33", "y"), container("a", "11", "z"), container("c", "44", "w")], "");
        let found = diff(&a, &b);
        let shown: Vec<_> = found.iter().map(|d| (d.within.as_str(), d.field.as_deref().unwrap_or("whole"))).collect();
        assert_eq!(shown, [("container a", "command"), ("container b", "layers"), ("container c", "whole")]);
        assert_eq!(found[1].b, Some(json!(["33"])));
        assert!(found[2].a.is_none());
    }

    #[test]
    fn what_caveau_adds_is_a_difference_and_its_order_is_none() {
        let listen = |ports: [u16; 2]| {
            let [one, other] = ports.map(|port| json!({"protocol": "tcp", "port": port}));
            format!("caveau := {}", json!({"network": {"listen": [one, other]}}))
        };
        let mut bounded = container("a", "11", "x");
        bounded["caveau"] = json!({"memory_bytes": 4096});
        let plain = policy(&[container("a", "11", "x")], "");
        assert_eq!(diff(&policy(&[], &listen([80, 443])), &policy(&[], &listen([443, 80]))), []);
        let found = diff(&policy(&[bounded], &listen([80, 443])), &plain);
        let shown: Vec<_> = found.iter().map(|d| (d.within.as_str(), d.field.as_deref().unwrap_or("whole"))).collect();
        assert_eq!(shown, [("policy", "caveau.network"), ("container a", "caveau")]);
    }

    #[test]
    fn flags_rules_and_fragments_are_differences() {
        let more = "allow_dump_stacks := true\nmount_device := data.framework.mount_device\n\
            fragments := [{\"issuer\": \"i\", \"feed\": \"f\", \"minimum_svn\": \"1\", \"includes\": [\"containers\"]}]";
        let other = "caveau := {\"memory_scratch\": true}\nmount_device := {\"allowed\": true}\n\
            fragments := [{\"issuer\": \"i\", \"feed\": \"f\", \"minimum_svn\": \"2\", \"includes\": [\"containers\"]}]\n\
            external_processes := [{\"command\": [\"p\"]}]";
        let found = diff(&policy(&[], more), &policy(&[], other));
        let shown: Vec<_> =
            found.iter().map(|d| format!("{}/{}", d.within, d.field.as_deref().unwrap_or("whole"))).collect();
        let expected = [
            "policy/allow_dump_stacks",
            "policy/caveau.memory_scratch",
            "rules/mount_device",
            "external process [\"p\"]/whole",
            "fragment f/minimum_svn",
        ];
        assert_eq!(shown, expected);
    }
}
