//! What a [`crate::Permit`] can be for. Having one of these means nothing; having a permit for it does.

use caveau_group::{Limits, RootHash};

use crate::request::{Capabilities, IdName, Medium, Mount};

/// Mount a layer with this root hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountLayer {
    /// Where.
    pub target: String,
    /// The root hash that every block must lead to.
    pub root: RootHash,
}

/// Unmount a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmountLayer {
    /// Where it is mounted.
    pub target: String,
}

/// Make and mount a file system on a writable disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountDisk {
    /// Where.
    pub target: String,
    /// Whether it must be encrypted, with integrity, under a key that never leaves the guest.
    pub encrypted: bool,
    /// `ext4` or `xfs`.
    pub filesystem: String,
}

/// Unmount a writable disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmountDisk {
    /// Where it is mounted.
    pub target: String,
}

/// Use a file system as scratch space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountScratch {
    /// Where.
    pub target: String,
    /// Whether what is written there must be encrypted.
    pub encrypted: bool,
    /// What it is made of.
    pub medium: Medium,
}

/// Give up a scratch space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmountScratch {
    /// Where it is.
    pub target: String,
}

/// Put a container's root file system together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOverlay {
    /// The container.
    pub container_id: String,
    /// Where its layers are mounted, top first.
    pub layer_paths: Vec<String>,
    /// Where the whole goes.
    pub target: String,
}

/// Take a container's root file system apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmountOverlay {
    /// Where it is mounted.
    pub target: String,
}

/// Make and start a container, exactly so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateContainer {
    /// Its identifier.
    pub container_id: String,
    /// Names of the policy's containers that it can be; usually one.
    pub names: Vec<String>,
    /// Where its root file system is mounted.
    pub rootfs: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment: what of the request the policy keeps, in the request's order.
    pub env: Vec<String>,
    /// Where it starts.
    pub working_dir: String,
    /// Mounts beyond those that the guest makes on its own.
    pub mounts: Vec<Mount>,
    /// Elevated.
    pub privileged: bool,
    /// Whether `execve` may gain no privileges.
    pub no_new_privileges: bool,
    /// The user.
    pub user: IdName,
    /// Its groups, the primary one first.
    pub groups: Vec<IdName>,
    /// Mode bits withheld from new files, octal.
    pub umask: String,
    /// Capability sets: what of the request the policy keeps.
    pub capabilities: Capabilities,
    /// SHA-256 of the OCI seccomp object to apply; empty for none.
    pub seccomp_profile_sha256: String,
    /// Whether its root file system must be read-only.
    pub read_only_root: bool,
    /// Bounds to set: of request and policy the tighter ones.
    pub limits: Limits,
    /// Whether the host gets the streams; without, they lead nowhere.
    pub stdio: bool,
}

/// Let a container's program go, which was made before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartContainer {
    /// The container.
    pub container_id: String,
}

/// Make evidence of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attest;

/// Read what the policy refused the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadDenials;

/// Read what containers write whose streams the host does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadSealedOutput;

/// Run a further process in a container, exactly so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecProcess {
    /// The container.
    pub container_id: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment: what of the request the policy keeps, in the request's order.
    pub env: Vec<String>,
    /// Where it starts.
    pub working_dir: String,
    /// Whether `execve` may gain no privileges.
    pub no_new_privileges: bool,
    /// The user.
    pub user: IdName,
    /// Its groups, the primary one first.
    pub groups: Vec<IdName>,
    /// Mode bits withheld from new files, octal.
    pub umask: String,
    /// Capability sets: what of the request the policy keeps.
    pub capabilities: Capabilities,
    /// Whether the host gets the streams: as for the container.
    pub stdio: bool,
}

/// Send a signal to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalProcess {
    /// The container.
    pub container_id: String,
    /// The signal's number.
    pub signal: i64,
    /// Whether it goes to the container's first process.
    pub is_init_process: bool,
    /// Else, the command that the process was started with.
    pub command: Vec<String>,
}

/// End a container for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownContainer {
    /// The container.
    pub container_id: String,
}

/// Load a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadFragment {
    /// Who signed it.
    pub issuer: String,
    /// What it is called.
    pub feed: String,
    /// The name of its module.
    pub namespace: String,
}

/// Load a transparency trust list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadTrustList {
    /// Its ledgers whose keys count.
    pub ledgers: Vec<String>,
}

/// Tell the host what containers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadProperties;

/// Tell the host what the agent logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeLogging;

/// Tell the host the agent's stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpStacks;
