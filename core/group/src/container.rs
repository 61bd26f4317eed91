//! The group and its containers.

use std::collections::BTreeSet;

use caveau_verity::RootHash;
use serde::{Deserialize, Serialize};

use crate::{Capabilities, GroupError, Mount, NetworkRules, Owners, Seccomp, Signal, User};

/// Everything that shall run in one VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The containers.
    pub containers: Vec<Container>,
    /// What the host may do to the group as a whole.
    pub permissions: Permissions,
    /// What it may do on the network; absent is anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkRules>,
    /// Who may ask more of it than its host.
    #[serde(default, skip_serializing_if = "Owners::is_empty")]
    pub owners: Owners,
}

impl Group {
    /// A group of these containers, free on the network and without owners.
    ///
    /// # Errors
    /// [`GroupError`] if there is none, or two have one name.
    pub fn new(containers: Vec<Container>, permissions: Permissions) -> Result<Self, GroupError> {
        if containers.is_empty() {
            return Err(GroupError::Empty);
        }
        let mut names = BTreeSet::new();
        for container in &containers {
            if !names.insert(container.name.as_str()) {
                return Err(GroupError::invalid("container name", &container.name, "given once"));
            }
        }
        Ok(Self { containers, permissions, network: None, owners: Owners::default() })
    }
}

/// What the host may do to the group as a whole; by default read statistics and no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    /// May drop capabilities that the policy does not name, instead of being refused.
    pub capability_dropping: bool,
    /// May have the agent dump its stacks.
    pub dump_stacks: bool,
    /// May drop variables that the policy does not name, instead of being refused.
    pub environment_dropping: bool,
    /// May offer scratch space in the guest's memory, which the TEE encrypts as it does all memory.
    pub memory_scratch: bool,
    /// May read what containers use.
    pub properties: bool,
    /// May have the agent's log.
    pub runtime_logging: bool,
    /// May offer scratch disks that are not encrypted.
    pub unencrypted_scratch: bool,
}

impl Default for Permissions {
    fn default() -> Self {
        Self {
            capability_dropping: false,
            dump_stacks: false,
            environment_dropping: false,
            memory_scratch: false,
            properties: true,
            runtime_logging: false,
            unencrypted_scratch: false,
        }
    }
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Its name in the group; for people.
    pub name: String,
    /// Where its image came from; for people.
    pub image: String,
    /// Root hashes of its layers, base first.
    pub layers: Vec<RootHash>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment.
    pub env: Vec<EnvRule>,
    /// Where it starts, absolute.
    pub working_dir: String,
    /// Whom it runs as.
    pub user: User,
    /// Mounts beyond those that every container has.
    pub mounts: Vec<Mount>,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// System call filter; none for a privileged container.
    pub seccomp: Option<Seccomp>,
    /// Whether `execve` may gain no privileges. Docker's default, and ours, is that it may.
    pub no_new_privileges: bool,
    /// Whether it runs elevated.
    pub privileged: bool,
    /// Whether its root file system is read-only.
    pub read_only: bool,
    /// Whether the host gets its streams.
    pub stdio: bool,
    /// Further processes that the host may run in it.
    pub exec: Vec<ExecProcess>,
    /// Signals that the host may send its first process.
    pub signals: Vec<Signal>,
    /// How often it may be started in the group's life; absent is without bound.
    pub max_starts: Option<u32>,
    /// Whether there is no evidence of the group before it was started.
    #[serde(default)]
    pub must_run: bool,
    /// Names of containers that must have been started before it is.
    #[serde(default)]
    pub after: Vec<String>,
    /// Where it must have a mount: destinations of some of `mounts`.
    #[serde(default)]
    pub required_mounts: Vec<String>,
    /// Bounds on what it uses.
    #[serde(default)]
    pub limits: Limits,
}

/// Bounds on what a container uses (cgroup v2); absent is unbounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Thousandths of a processor; from [`Self::LEAST_CPU_MILLIS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

impl Limits {
    /// The kernel gives a container that much of a processor at least: 1 ms in each period of 100 ms.
    pub const LEAST_CPU_MILLIS: u32 = 10;

    /// Whether nothing is bounded.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The tighter of each two bounds.
    #[must_use]
    pub fn tightened(self, other: Self) -> Self {
        fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            one.into_iter().chain(other).min()
        }
        Self {
            memory_bytes: least(self.memory_bytes, other.memory_bytes),
            cpu_millis: least(self.cpu_millis, other.cpu_millis),
            pids: least(self.pids, other.pids),
        }
    }

    /// Whether what is bounded here is not above the other's bounds. What is not bounded here is none of them.
    #[must_use]
    pub fn within(self, most: Self) -> bool {
        fn below<T: Ord>(one: Option<T>, most: Option<T>) -> bool {
            one.zip(most).is_none_or(|(one, most)| one <= most)
        }
        below(self.memory_bytes, most.memory_bytes)
            && below(self.cpu_millis, most.cpu_millis)
            && below(self.pids, most.pids)
    }

    /// Refuses bounds that no container can keep.
    ///
    /// # Errors
    /// [`GroupError::Invalid`].
    pub fn check(self) -> Result<(), GroupError> {
        let least = |what: &'static str, value: Option<u64>, least: u64, form: &'static str| match value {
            Some(value) if value < least => Err(GroupError::invalid(what, &value.to_string(), form)),
            _ => Ok(()),
        };
        least("bound on memory", self.memory_bytes, 1, "at least 1 byte")?;
        let millis = Self::LEAST_CPU_MILLIS.into();
        least(
            "bound on processor time",
            self.cpu_millis.map(u64::from),
            millis,
            "at least 10 thousandths of a processor",
        )?;
        least("bound on processes", self.pids.map(u64::from), 1, "at least 1")
    }
}

/// What a variable may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EnvRule {
    /// Exactly this `NAME=value`.
    Exact {
        /// `NAME=value`.
        value: String,
        /// Whether the host must set it.
        required: bool,
    },
    /// Whatever this RE2 pattern matches as a whole.
    Pattern {
        /// The pattern, for `NAME=value`.
        pattern: String,
        /// Whether the host must set one that matches.
        required: bool,
    },
}

/// A process that the host may run in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecProcess {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Signals that the host may send it.
    pub signals: Vec<Signal>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_compared_each_for_itself() {
        let limits = |memory_bytes, cpu_millis, pids| Limits { memory_bytes, cpu_millis, pids };
        let (one, other) = (limits(Some(5), None, Some(7)), limits(Some(4), Some(100), None));
        assert_eq!(one.tightened(other), limits(Some(4), Some(100), Some(7)));
        assert!(!one.within(other) && other.within(one) && Limits::default().within(one));
        assert!(one.within(Limits::default()) && Limits::default().is_none() && !one.is_none());
        assert!(limits(Some(0), None, None).check().is_err() && limits(None, Some(9), None).check().is_err());
        assert!(limits(None, None, Some(0)).check().is_err() && limits(Some(1), Some(10), Some(1)).check().is_ok());
    }
}
