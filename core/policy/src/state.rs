//! What has happened so far: the engine's memory, which documents and other tools call `data.metadata`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Map, Value, json};

use crate::{
    fragment::Module,
    model::{Container, Included},
};

mod loaded;

pub(crate) use loaded::{Feeds, Loaded};

/// The engine's memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// Mounted layers: target to root hash.
    pub(crate) devices: BTreeMap<String, String>,
    /// Mounted writable disks.
    pub(crate) rw_devices: BTreeSet<String>,
    /// Mounted overlays.
    pub(crate) overlay_targets: BTreeSet<String>,
    /// For each container identifier, which of the policy's containers it can still be.
    pub(crate) matches: BTreeMap<String, Vec<Arc<Container>>>,
    /// Container identifiers that were ever started, and whether privileged.
    pub(crate) started: BTreeMap<String, bool>,
    /// Mounted shares: target to container identifier.
    pub(crate) p9mounts: BTreeMap<String, String>,
    /// Scratch spaces: target to whether encrypted.
    pub(crate) scratch_mounts: BTreeMap<String, bool>,
    /// How often each of the policy's containers was started.
    pub(crate) starts: BTreeMap<usize, u32>,
    /// What fragments have brought.
    pub(crate) loaded: Loaded,
    /// Fragments whose rules stay.
    pub(crate) modules: Vec<Arc<Module>>,
    /// Sets: `fragment_parameters`, and those of hand-written rules.
    pub(crate) sets: BTreeMap<String, Vec<Value>>,
    /// What hand-written rules remember under names of their own.
    pub(crate) other: BTreeMap<String, Map<String, Value>>,
}

/// Set of the parameters that loaded fragments give to further ones: `{issuer, feed, parameters}` each.
pub(crate) const FRAGMENT_PARAMETERS: &str = "fragment_parameters";

/// One change of the memory.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    AddDevice {
        target: String,
        hash: String,
    },
    RemoveDevice {
        target: String,
    },
    AddRwDevice {
        target: String,
    },
    RemoveRwDevice {
        target: String,
    },
    AddOverlay {
        target: String,
    },
    RemoveOverlay {
        target: String,
    },
    /// The containers that an identifier can be; `known` tells "update" from "add".
    SetMatches {
        id: String,
        containers: Vec<Arc<Container>>,
        known: bool,
    },
    RemoveMatches {
        id: String,
    },
    /// `ordinal`: the policy's container that it counts for.
    AddStarted {
        id: String,
        privileged: bool,
        ordinal: Option<usize>,
    },
    AddShare {
        target: String,
        id: String,
    },
    RemoveShare {
        target: String,
    },
    AddScratch {
        target: String,
        encrypted: bool,
    },
    RemoveScratch {
        target: String,
    },
    /// All that fragments of an issuer have brought.
    SetIssuer {
        issuer: String,
        feeds: Feeds,
    },
    RemoveIssuer {
        issuer: String,
    },
    /// A fragment's rules stay, in the place of an earlier one's of the same issuer and feed.
    AddModule {
        module: Arc<Module>,
    },
    AddToSet {
        name: String,
        value: Value,
    },
    RemoveFromSet {
        name: String,
        value: Value,
    },
    /// A hand-written rule's own.
    SetOther {
        name: String,
        key: String,
        value: Value,
    },
    RemoveOther {
        name: String,
        key: String,
    },
}

/// A change that a hand-written rule asks for and that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy's rule asks for an impossible change of state: {0}")]
pub(crate) struct BadChange(String);

impl State {
    /// Makes a change.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::AddDevice { target, hash } => {
                self.devices.insert(target, hash);
            }
            Change::RemoveDevice { target } => {
                self.devices.remove(&target);
            }
            Change::AddRwDevice { target } => {
                self.rw_devices.insert(target);
            }
            Change::RemoveRwDevice { target } => {
                self.rw_devices.remove(&target);
            }
            Change::AddOverlay { target } => {
                self.overlay_targets.insert(target);
            }
            Change::RemoveOverlay { target } => {
                self.overlay_targets.remove(&target);
            }
            Change::SetMatches { id, containers, .. } => {
                self.matches.insert(id, containers);
            }
            Change::RemoveMatches { id } => {
                self.matches.remove(&id);
            }
            Change::AddStarted { id, privileged, ordinal } => self.start(id, privileged, ordinal),
            Change::AddShare { target, id } => {
                self.p9mounts.insert(target, id);
            }
            Change::RemoveShare { target } => {
                self.p9mounts.remove(&target);
            }
            Change::AddScratch { target, encrypted } => {
                self.scratch_mounts.insert(target, encrypted);
            }
            Change::RemoveScratch { target } => {
                self.scratch_mounts.remove(&target);
            }
            Change::SetIssuer { issuer, feeds } => self.loaded.set(issuer, feeds),
            Change::RemoveIssuer { issuer } => self.loaded.remove(&issuer),
            Change::AddModule { module } => {
                self.modules.retain(|known| !known.is_of(&module.issuer, &module.feed));
                self.modules.push(module);
            }
            Change::AddToSet { name, value } => {
                let set = self.sets.entry(name).or_default();
                if !set.contains(&value) {
                    set.push(value);
                }
            }
            Change::RemoveFromSet { name, value } => {
                self.sets.entry(name).or_default().retain(|known| *known != value);
            }
            Change::SetOther { name, key, value } => {
                self.other.entry(name).or_default().insert(key, value);
            }
            Change::RemoveOther { name, key } => {
                self.other.entry(name).or_default().remove(&key);
            }
        }
    }

    fn start(&mut self, id: String, privileged: bool, ordinal: Option<usize>) {
        self.started.insert(id, privileged);
        if let Some(ordinal) = ordinal {
            let starts = self.starts.entry(ordinal).or_default();
            *starts = starts.saturating_add(1);
        }
    }

    /// The memory as hand-written rules read it: `data.metadata`.
    pub(crate) fn to_metadata(&self) -> Value {
        let mut metadata: Map<String, Value> =
            self.other.iter().map(|(name, map)| (name.clone(), Value::Object(map.clone()))).collect();
        metadata.insert("operatingsystem".to_owned(), json!({"ostype": "linux"}));
        metadata.extend(self.sets.iter().map(|(name, set)| (name.clone(), json!(set))));
        let mut put = |name: &str, value: Value| {
            if value.as_object().is_some_and(|map| !map.is_empty()) {
                metadata.insert(name.to_owned(), value);
            }
        };
        let all_true = |set: &BTreeSet<String>| set.iter().map(|key| (key.clone(), Value::Bool(true))).collect();
        put("devices", json!(self.devices));
        put("rw_devices", Value::Object(all_true(&self.rw_devices)));
        put("overlayTargets", Value::Object(all_true(&self.overlay_targets)));
        put("matches", self.matches.iter().map(|(id, list)| (id.clone(), containers_json(list))).collect());
        put("started", self.started.iter().map(|(id, p)| (id.clone(), json!({"privileged": p}))).collect());
        put("issuers", self.loaded.to_json());
        put("p9mounts", json!(self.p9mounts));
        put("scratch_mounts", self.scratch_mounts.iter().map(|(t, e)| (t.clone(), json!({"encrypted": e}))).collect());
        Value::Object(metadata)
    }

    /// The inverse of [`Self::to_metadata`].
    pub(crate) fn from_metadata(metadata: &Value) -> Result<Self, BadChange> {
        let mut state = Self::default();
        for (name, entries) in metadata.as_object().into_iter().flatten() {
            if name == "operatingsystem" {
                continue;
            }
            for (key, value) in entries.as_object().into_iter().flatten() {
                state.apply(Change::set(name, key, value, false)?);
            }
            for value in entries.as_array().into_iter().flatten() {
                state.apply(Change::AddToSet { name: name.clone(), value: value.clone() });
            }
        }
        Ok(state)
    }
}

/// Containers as documents write them.
pub(crate) fn containers_json(containers: &[Arc<Container>]) -> Value {
    // A container came from JSON and goes back to it.
    containers.iter().map(|container| serde_json::to_value(&**container).unwrap_or_default()).collect()
}

impl Change {
    /// Reads an operation of a rule's `metadata` list: `{name, action: add|update|remove, key, value}`, or, with `type` as
    /// `set`, `{name, action: add|remove, value}`.
    pub(crate) fn from_operation(operation: &Value) -> Result<Self, BadChange> {
        let text = |field: &str| {
            operation
                .get(field)
                .and_then(Value::as_str)
                .ok_or_else(|| BadChange(format!("`{field}` is not text in {operation}")))
        };
        let name = text("name")?;
        let value = || operation.get("value").ok_or_else(|| BadChange(format!("no value in {operation}")));
        if operation.get("type").is_some() && text("type")? != "map" {
            return Self::of_set(name, text("type")?, text("action")?, value()?);
        }
        let key = text("key")?;
        match text("action")? {
            action @ ("add" | "update") => Self::set(name, key, value()?, action == "update"),
            "remove" => Ok(Self::remove(name, key)),
            other => Err(BadChange(format!("unknown action {other:?}"))),
        }
    }

    /// The change of a set.
    fn of_set(name: &str, kind: &str, action: &str, value: &Value) -> Result<Self, BadChange> {
        let (name, value) = (name.to_owned(), value.clone());
        match (kind, action) {
            ("set", "add") => Ok(Self::AddToSet { name, value }),
            ("set", "remove") => Ok(Self::RemoveFromSet { name, value }),
            _ => Err(BadChange(format!("unknown action {action:?} of a {kind:?}"))),
        }
    }

    /// The change that sets an entry.
    fn set(name: &str, key: &str, value: &Value, known: bool) -> Result<Self, BadChange> {
        let target = key.to_owned();
        let bad = || BadChange(format!("{name}[{key:?}] cannot be {value}"));
        let text = || value.as_str().map(str::to_owned).ok_or_else(bad);
        let flag = |field: &str| value.get(field).and_then(Value::as_bool).ok_or_else(bad);
        Ok(match name {
            "devices" => Self::AddDevice { target, hash: text()? },
            "rw_devices" => Self::AddRwDevice { target },
            "overlayTargets" => Self::AddOverlay { target },
            "matches" => {
                let containers: Vec<Container> = serde_json::from_value(value.clone()).map_err(|_| bad())?;
                Self::SetMatches { id: target, containers: containers.into_iter().map(Arc::new).collect(), known }
            }
            "started" => Self::AddStarted { id: target, privileged: flag("privileged")?, ordinal: None },
            "issuers" => Self::SetIssuer { issuer: target, feeds: loaded::read_feeds(value).ok_or_else(bad)? },
            "p9mounts" => Self::AddShare { target, id: text()? },
            "scratch_mounts" => Self::AddScratch { target, encrypted: flag("encrypted")? },
            _ => Self::SetOther { name: name.to_owned(), key: target, value: value.clone() },
        })
    }

    /// The change that removes an entry.
    fn remove(name: &str, key: &str) -> Self {
        let target = key.to_owned();
        match name {
            "devices" => Self::RemoveDevice { target },
            "rw_devices" => Self::RemoveRwDevice { target },
            "overlayTargets" => Self::RemoveOverlay { target },
            "matches" => Self::RemoveMatches { id: target },
            "issuers" => Self::RemoveIssuer { issuer: target },
            "p9mounts" => Self::RemoveShare { target },
            "scratch_mounts" => Self::RemoveScratch { target },
            _ => Self::RemoveOther { name: name.to_owned(), key: target },
        }
    }

    /// The change as an operation of a `metadata` list.
    pub(crate) fn to_operation(&self) -> Value {
        let set = |name: &str, action: &str, value: &Value| json!({"name": name, "type": "set", "action": action, "value": value});
        let add =
            |name: &str, key: &str, value: Value| json!({"name": name, "action": "add", "key": key, "value": value});
        let remove = |name: &str, key: &str| json!({"name": name, "action": "remove", "key": key});
        match self {
            Self::AddDevice { target, hash } => add("devices", target, json!(hash)),
            Self::RemoveDevice { target } => remove("devices", target),
            Self::AddRwDevice { target } => add("rw_devices", target, json!(true)),
            Self::RemoveRwDevice { target } => remove("rw_devices", target),
            Self::AddOverlay { target } => add("overlayTargets", target, json!(true)),
            Self::RemoveOverlay { target } => remove("overlayTargets", target),
            Self::SetMatches { id, containers, known } => {
                let action = if *known { "update" } else { "add" };
                json!({"name": "matches", "action": action, "key": id, "value": containers_json(containers)})
            }
            Self::RemoveMatches { id } => remove("matches", id),
            Self::AddStarted { id, privileged, .. } => add("started", id, json!({"privileged": privileged})),
            Self::AddShare { target, id } => add("p9mounts", target, json!(id)),
            Self::RemoveShare { target } => remove("p9mounts", target),
            Self::AddScratch { target, encrypted } => add("scratch_mounts", target, json!({"encrypted": encrypted})),
            Self::RemoveScratch { target } => remove("scratch_mounts", target),
            Self::SetIssuer { issuer, feeds } => {
                json!({"name": "issuers", "action": "update", "key": issuer, "value": loaded::write_feeds(feeds)})
            }
            Self::RemoveIssuer { issuer } => remove("issuers", issuer),
            // Not in the metadata: a document reaches the module by its name.
            Self::AddModule { .. } => Value::Null,
            Self::AddToSet { name, value } => set(name, "add", value),
            Self::RemoveFromSet { name, value } => set(name, "remove", value),
            Self::SetOther { name, key, value } => add(name, key, value.clone()),
            Self::RemoveOther { name, key } => remove(name, key),
        }
    }
}
