//! What Caveau adds to policies: the objects `caveau` of the document and of its containers.
//!
//! Other engines read neither: the document's is a name that no rule of theirs asks for, a container's a field that they do
//! not compare. So each field here only takes away of what they allow; but for the owners, whom other engines do not know.

use std::collections::{BTreeMap, BTreeSet};

use caveau_group::{Limits, NetworkRules, Owners};
use serde::{Deserialize, Serialize};

use super::Container;

/// What Caveau adds to a container: bounds only, so that an engine that ignores them allows more, never something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerExtension {
    /// How often it may be started in the group's life; absent is without bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_starts: Option<u32>,
    /// Whether its root file system must be read-only.
    #[serde(default)]
    pub read_only_root: bool,
    /// Whether the guest makes no evidence before it was started.
    #[serde(default, skip_serializing_if = "is_false")]
    pub must_run: bool,
    /// Names of the policy document's containers whose programs must have been started before its own is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Where it must have a mount: destinations, exactly as its mounts say them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_mounts: Vec<String>,
    /// Most bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Most thousandths of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Most processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

impl ContainerExtension {
    /// Bounds on what it uses.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { memory_bytes: self.memory_bytes, cpu_millis: self.cpu_millis, pids: self.pids }
    }
}

/// What Caveau adds to a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyExtension {
    /// Whether scratch space may be in the guest's memory.
    #[serde(default)]
    pub memory_scratch: bool,
    /// What the group may do on the network; absent is anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkRules>,
    /// Who may ask more of the group than its host.
    #[serde(default, skip_serializing_if = "Owners::is_empty")]
    pub owners: Owners,
}

/// For serde.
fn is_false(value: &bool) -> bool {
    !*value
}

impl Container {
    /// Bounds on what it uses; none where the policy says nothing of them.
    pub(crate) fn limits(&self) -> Limits {
        self.caveau.as_ref().map(ContainerExtension::limits).unwrap_or_default()
    }

    /// Containers that it comes after.
    pub(crate) fn after(&self) -> &[String] {
        self.caveau.as_ref().map_or(&[], |extension| &extension.after)
    }

    /// Where it must have a mount.
    pub(crate) fn required_mounts(&self) -> &[String] {
        self.caveau.as_ref().map_or(&[], |extension| &extension.required_mounts)
    }

    /// Whether there is no evidence before it was started.
    pub(crate) fn must_run(&self) -> bool {
        self.caveau.as_ref().is_some_and(|extension| extension.must_run)
    }
}

/// The places of the document's containers by their names, but for names that more than one has.
///
/// # Errors
/// In words: bounds that no container can keep, a name to come after that is not one container's, containers that wait for
/// each other.
pub(crate) fn check(containers: &[Container]) -> Result<BTreeMap<String, usize>, String> {
    let mut places = BTreeMap::new();
    let mut twice = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        container.limits().check().map_err(|error| format!("[{index}].caveau: {error}"))?;
        let Some(name) = &container.name else { continue };
        if places.insert(name.clone(), index).is_some() {
            twice.insert(name);
        }
    }
    places.retain(|name, _| !twice.contains(name));
    for (index, container) in containers.iter().enumerate() {
        if let Some(name) = container.after().iter().find(|name| !places.contains_key(*name)) {
            return Err(format!("[{index}].caveau.after: {name:?} must be the name of one container"));
        }
    }
    let mut left: BTreeSet<usize> = (0..containers.len()).collect();
    loop {
        let waits = |index: &usize| {
            let after = containers.get(*index).map_or(&[][..], Container::after);
            after.iter().filter_map(|name| places.get(name)).any(|place| left.contains(place))
        };
        let waiting: BTreeSet<usize> = left.iter().copied().filter(waits).collect();
        if waiting.len() == left.len() {
            break;
        }
        left = waiting;
    }
    match left.first() {
        Some(index) => {
            Err(format!("[{index}].caveau.after: containers wait for each other, so that none can be started"))
        }
        None => Ok(places),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(containers: Value) -> Result<BTreeMap<String, usize>, String> {
        check(&serde_json::from_value::<Vec<Container>>(containers).unwrap())
    }

    #[test]
    fn an_order_is_one_that_can_be_kept() {
        let after = |names: &[&str]| json!({"after": names});
        let places = checked(json!([
            {"name": "web", "caveau": after(&["db", "log"])}, {"name": "log"}, {"name": "db", "caveau": after(&["log"])},
        ]));
        assert_eq!(places.unwrap(), [("db".to_owned(), 2), ("log".to_owned(), 1), ("web".to_owned(), 0)].into());
        for (bad, why) in [
            (json!([{"name": "a", "caveau": after(&["b"])}]), "\"b\" must be the name of one container"),
            (json!([{"name": "b"}, {"name": "b"}, {"name": "a", "caveau": after(&["b"])}]), "must be the name of one"),
            (json!([{"name": "a", "caveau": after(&["a"])}]), "wait for each other"),
            (
                json!([{"name": "a", "caveau": after(&["b"])}, {"name": "b", "caveau": after(&["a"])}, {"name": "c"}]),
                "[0].caveau.after: containers wait for each other",
            ),
        ] {
            let error = checked(bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn bounds_are_ones_that_can_be_kept() {
        for bad in [json!({"memory_bytes": 0}), json!({"cpu_millis": 9}), json!({"pids": 0})] {
            let error = checked(json!([{}, {"caveau": bad}])).unwrap_err();
            assert!(error.starts_with("[1].caveau: invalid bound on"), "{error}");
        }
        assert!(checked(json!([{"caveau": {"memory_bytes": 1, "cpu_millis": 10, "pids": 1}}])).is_ok());
    }

    #[test]
    fn what_is_unknown_is_an_error() {
        for bad in
            [json!({"must_runs": true}), json!({"after": "db"}), json!({"memory_bytes": -1}), json!({"order": []})]
        {
            assert!(serde_json::from_value::<ContainerExtension>(bad.clone()).is_err(), "{bad}");
        }
        for bad in [json!({"network": {"listens": []}}), json!({"network": true}), json!({"networks": {}})] {
            assert!(serde_json::from_value::<PolicyExtension>(bad.clone()).is_err(), "{bad}");
        }
    }
}
