//! The group and its containers.

use std::collections::BTreeSet;

use caveau_verity::RootHash;
use serde::{Deserialize, Serialize};

use crate::{Capabilities, GroupError, Mount, Seccomp, Signal, User};

/// Everything that shall run in one VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The containers.
    pub containers: Vec<Container>,
    /// What the host may do to the group as a whole.
    pub permissions: Permissions,
}

impl Group {
    /// A group of these containers.
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
        Ok(Self { containers, permissions })
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
