//! The framework: what documents call `data.framework.*`, typed. It decides and changes nothing.

mod capabilities;
mod environment;
mod fields;
mod fragments;
mod lifecycle;
mod mounts;
mod processes;
mod reason;
mod remedy;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{
    denial::{Field, Reason},
    model::Container,
    platform::Platform,
    point::Point,
    policy::Policy,
    request::{Capabilities, Request},
    state::{Change, State},
};

/// What is allowed, and how the memory changes once it is done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Changes of the memory.
    pub(crate) changes: Vec<Change>,
    /// The environment to use.
    pub(crate) env: Option<Vec<String>>,
    /// The capabilities to use.
    pub(crate) capabilities: Option<Capabilities>,
    /// Whether the host gets the streams.
    pub(crate) stdio: Option<bool>,
    /// The containers that it can be.
    pub(crate) containers: Vec<Arc<Container>>,
    /// Sets of parameters that a fragment may be loaded with.
    pub(crate) parameters: Option<Vec<Value>>,
    /// Whether a fragment's rules stay.
    pub(crate) add_module: Option<bool>,
    /// Ledgers whose keys a trust list may bring.
    pub(crate) ledgers: Option<Vec<String>>,
}

/// A verdict, or why not.
pub(crate) type Decision = Result<Verdict, Vec<Reason>>;

/// The framework over one policy, one guest and what has happened so far.
#[derive(Clone, Copy)]
pub(crate) struct Framework<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) platform: &'a Platform,
    pub(crate) state: &'a State,
}

impl Framework<'_> {
    /// Decides at a point.
    pub(crate) fn decide(&self, point: Point, request: Request<'_>) -> Decision {
        match (point, request) {
            (Point::CreateContainer, Request::CreateContainer(request)) => self.create_container(request),
            (Point::DumpStacks, _) => flag("allow_dump_stacks", self.policy.flags.dump_stacks),
            (Point::ExecExternal, Request::ExecExternal(request)) => self.exec_external(request),
            (Point::ExecInContainer, Request::ExecInContainer(request)) => self.exec_in_container(request),
            (Point::GetProperties, _) => flag("allow_properties_access", self.policy.flags.properties_access),
            (Point::HostNetwork, _) => flag("allow_host_network", self.policy.flags.host_network),
            (Point::MountDevice, Request::MountDevice(request)) => self.mount_device(request),
            (Point::MountOverlay, Request::MountOverlay(request)) => self.mount_overlay(request),
            (Point::Plan9Mount, Request::Plan9Mount(request)) => self.plan9_mount(request),
            (Point::Plan9Unmount, Request::Unmount(request)) => self.plan9_unmount(request),
            (Point::RuntimeLogging, _) => flag("allow_runtime_logging", self.policy.flags.runtime_logging),
            (Point::RwMountDevice, Request::RwMountDevice(request)) => self.rw_mount_device(request),
            (Point::RwUnmountDevice, Request::Unmount(request)) => self.rw_unmount_device(request),
            (Point::ScratchMount, Request::ScratchMount(request)) => self.scratch_mount(request),
            (Point::ScratchUnmount, Request::Unmount(request)) => self.scratch_unmount(request),
            (Point::ShutdownContainer, Request::ShutdownContainer(request)) => self.shutdown_container(request),
            (Point::SignalContainerProcess, Request::SignalContainerProcess(request)) => self.signal(request),
            (Point::UnmountDevice, Request::Unmount(request)) => self.unmount_device(request),
            (Point::UnmountOverlay, Request::Unmount(request)) => self.unmount_overlay(request),
            (Point::MountBlockdev | Point::UnmountBlockdev, _) => {
                Err(vec![Reason::new(Field::Policy, "a file system", "a raw disk, which no container may have")])
            }
            (Point::LogProvider | Point::MountCims | Point::RegistryChanges, _) => {
                Err(vec![Reason::new(Field::Policy, "a Linux operation", "a Windows operation")])
            }
            (Point::LoadFragment, Request::LoadFragment(question, None)) => self.fragment_envelope(question),
            (Point::LoadFragment, Request::LoadFragment(question, Some(contents))) => {
                self.fragment_contents(question, contents)
            }
            (Point::LoadTransparencyTrustList, Request::LoadTransparencyTrustList(question)) => {
                self.load_trust_list(question)
            }
            (point, _) => Err(vec![Reason::new(Field::Policy, format!("what {point} takes"), "another request")]),
        }
    }

    /// Checks that the memory has none of this name yet.
    fn unused(&self, field: Field, taken: bool, name: &str) -> Option<Reason> {
        taken.then(|| Reason::new(field, "one that is not in use", format!("{name:?}, which is")))
    }

    /// The containers that may run: the policy's and the fragments'.
    fn candidates(&self) -> &[Arc<Container>] {
        self.state.loaded.candidates(self.policy)
    }

    /// The containers that this identifier can be; empty where no overlay was mounted for it.
    pub(super) fn matching(&self, id: &str) -> &[Arc<Container>] {
        self.state.matches.get(id).map_or(&[], Vec::as_slice)
    }
}

/// Allowed if the policy's flag is set.
fn flag(name: &str, set: bool) -> Decision {
    if set {
        return Ok(Verdict::default());
    }
    Err(vec![Reason::new(Field::Policy, format!("{name} := true"), "false")])
}

/// Collects failed checks.
fn all<const N: usize>(checks: [Option<Reason>; N]) -> Result<(), Vec<Reason>> {
    let reasons: Vec<_> = checks.into_iter().flatten().collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// A check on its own: the reason if it does not hold.
fn check(field: Field, holds: bool, expected: impl Into<String>, got: impl Into<String>) -> Option<Reason> {
    (!holds).then(|| Reason::new(field, expected, got))
}

impl Verdict {
    /// Allowed, with these changes.
    fn changing(changes: impl IntoIterator<Item = Change>) -> Decision {
        Ok(Self { changes: changes.into_iter().collect(), ..Self::default() })
    }

    /// The verdict as a document reads it: the value of `data.framework.<point>`.
    pub(crate) fn to_json(&self) -> Value {
        let mut result = Map::new();
        result.insert("allowed".to_owned(), json!(true));
        if !self.changes.is_empty() {
            result.insert("metadata".to_owned(), self.changes.iter().map(Change::to_operation).collect());
        }
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                result.insert(name.to_owned(), value);
            }
        };
        put("env_list", self.env.as_ref().map(|env| json!(env)));
        put("caps_list", self.capabilities.as_ref().map(|capabilities| json!(capabilities)));
        put("allow_stdio_access", self.stdio.map(Value::Bool));
        put("parameters", self.parameters.as_ref().map(|parameters| json!(parameters)));
        put("add_module", self.add_module.map(Value::Bool));
        put("allowed_ledgers", self.ledgers.as_ref().map(|ledgers| json!(ledgers)));
        Value::Object(result)
    }
}
