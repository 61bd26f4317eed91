//! What is asked at each enforcement point. Field names on the wire are those of the reference engine's inputs.
//!
//! What only the guest can know is not in a request and cannot come from the host: where it mounts things, what it gives
//! every container by default ([`crate::Platform`]). User, groups and the profile's hash are in a request, and must be what
//! the guest itself found in the container's verified files and computed from the profile that it will apply.

mod fragments;

use caveau_group::Limits;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::fragments::{FragmentQuestion, TrustListQuestion, Vouched};
pub use self::fragments::{LoadFragment, LoadTrustList, Receipt};
use crate::fragment::Contents;

/// Mount a layer: `mount_device`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MountDevice {
    /// Where; see [`crate::Platform::layer_target`].
    pub target: String,
    /// dm-verity root hash, lower-case hexadecimal.
    pub device_hash: String,
}

/// Unmount something: a layer (`unmount_device`), a writable disk (`rw_unmount_device`), a scratch space
/// (`scratch_unmount`), an overlay (`unmount_overlay`) or a share (`plan9_unmount`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Unmount {
    /// Where it was mounted.
    pub unmount_target: String,
}

/// Mount a writable disk: `rw_mount_device`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RwMountDevice {
    /// Where; see [`crate::Platform::scratch_target`].
    pub target: String,
    /// Whether the guest encrypts it, with integrity, under a key of its own.
    pub encrypted: bool,
    /// Whether the guest makes the file system itself.
    pub ensure_filesystem: bool,
    /// `ext4` or `xfs`.
    pub filesystem: String,
}

/// What a scratch space is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// A disk.
    #[default]
    Disk,
    /// The guest's memory. Allowed only where the policy's `caveau` object says `memory_scratch`.
    Memory,
}

/// Use a file system as scratch space: `scratch_mount`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ScratchMount {
    /// Where.
    pub target: String,
    /// Whether what is written there is encrypted; true of the guest's memory.
    pub encrypted: bool,
    /// What it is made of.
    #[serde(default, skip_serializing_if = "is_disk")]
    pub medium: Medium,
}

/// For serde: the reference engine knows disks only.
fn is_disk(medium: &Medium) -> bool {
    *medium == Medium::Disk
}

/// Put a container's root file system together: `mount_overlay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MountOverlay {
    /// The container that it is for.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Where its layers are mounted, **top layer first**, as overlayfs' `lowerdir` lists them.
    pub layer_paths: Vec<String>,
    /// Where; see [`crate::Platform::overlay_target`].
    pub target: String,
}

/// Mount a share of the host: `plan9_mount`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Plan9Mount {
    /// Where.
    pub target: String,
}

/// A user or group by number and name, as the container's own files give them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdName {
    /// Number, decimal.
    pub id: String,
    /// Name; empty where the files have none.
    pub name: String,
}

/// Capability sets, names as `CAP_CHOWN`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Ambient set.
    pub ambient: Vec<String>,
    /// Bounding set.
    pub bounding: Vec<String>,
    /// Effective set.
    pub effective: Vec<String>,
    /// Inheritable set.
    pub inheritable: Vec<String>,
    /// Permitted set.
    pub permitted: Vec<String>,
}

impl Capabilities {
    /// The five sets in a fixed order: ambient, bounding, effective, inheritable, permitted.
    pub(crate) fn sets(&self) -> [&Vec<String>; 5] {
        [&self.ambient, &self.bounding, &self.effective, &self.inheritable, &self.permitted]
    }

    /// The inverse of [`Self::sets`].
    pub(crate) fn from_sets([ambient, bounding, effective, inheritable, permitted]: [Vec<String>; 5]) -> Self {
        Self { ambient, bounding, effective, inheritable, permitted }
    }
}

/// A mount (OCI runtime specification, `mounts`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Path within the container.
    pub destination: String,
    /// Mount options; absent is none.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub options: Vec<String>,
    /// Where it comes from.
    pub source: String,
    /// File system type.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Reads a list that other tools write as `null` when it is empty.
fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Make and start a container: `create_container`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CreateContainer {
    /// Its identifier, whose overlay is mounted.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Program and arguments.
    pub arg_list: Vec<String>,
    /// Environment, `NAME=value` each.
    pub env_list: Vec<String>,
    /// Where it starts.
    pub working_dir: String,
    /// Mounts beyond those that the guest makes on its own.
    pub mounts: Vec<Mount>,
    /// Device nodes; any is denied.
    pub devices: Vec<Value>,
    /// Elevated.
    pub privileged: bool,
    /// Whether `execve` may gain no privileges.
    pub no_new_privileges: bool,
    /// The user, found in the container's own files.
    pub user: IdName,
    /// Its groups, the primary one first.
    pub groups: Vec<IdName>,
    /// Mode bits withheld from new files, octal.
    pub umask: String,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// SHA-256 of the JSON text of the OCI seccomp object, lower-case hexadecimal; empty for no filter.
    #[serde(rename = "seccompProfileSHA256")]
    pub seccomp_profile_sha256: String,
    /// Whether its root file system is read-only. Not in the reference engine: compared with a container's `caveau` object.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only_root: bool,
    /// Bounds that it gets. Not in the reference engine: compared with a container's `caveau` object.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

/// For serde: the reference engine does not know the field.
fn is_false(value: &bool) -> bool {
    !*value
}

/// Run a further process in a container: `exec_in_container`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExecInContainer {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Program and arguments.
    pub arg_list: Vec<String>,
    /// Environment, `NAME=value` each.
    pub env_list: Vec<String>,
    /// Where it starts.
    pub working_dir: String,
    /// Whether `execve` may gain no privileges.
    pub no_new_privileges: bool,
    /// The user, found in the container's own files.
    pub user: IdName,
    /// Its groups, the primary one first.
    pub groups: Vec<IdName>,
    /// Mode bits withheld from new files, octal.
    pub umask: String,
    /// Capability sets.
    pub capabilities: Capabilities,
}

/// Run a process in the guest outside any container: `exec_external`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExecExternal {
    /// Program and arguments.
    pub arg_list: Vec<String>,
    /// Environment, `NAME=value` each.
    pub env_list: Vec<String>,
    /// Where it starts.
    pub working_dir: String,
}

/// Send a signal to a process: `signal_container_process`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SignalContainerProcess {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The signal's number.
    pub signal: i64,
    /// Whether it goes to the container's first process.
    pub is_init_process: bool,
    /// The command that the process was started with, from the guest's own records.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub arg_list: Vec<String>,
}

/// End a container for good: `shutdown_container`. Its identifier cannot be used again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ShutdownContainer {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
}

/// Let the program of a container go that was made: the second half of `create_container`, which only the order of a
/// `caveau` object can deny. It is no question at a point of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartContainer {
    /// The container.
    pub start: String,
}

/// A request at any point.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request<'r> {
    CreateContainer(&'r CreateContainer),
    ExecExternal(&'r ExecExternal),
    ExecInContainer(&'r ExecInContainer),
    /// With what the fragment's text says once it is loaded.
    LoadFragment(&'r FragmentQuestion, Option<&'r Contents>),
    LoadTransparencyTrustList(&'r TrustListQuestion),
    MountDevice(&'r MountDevice),
    MountOverlay(&'r MountOverlay),
    /// Points without a request: flags, and what does not exist on Linux.
    Nothing,
    Plan9Mount(&'r Plan9Mount),
    RwMountDevice(&'r RwMountDevice),
    ScratchMount(&'r ScratchMount),
    ShutdownContainer(&'r ShutdownContainer),
    SignalContainerProcess(&'r SignalContainerProcess),
    Unmount(&'r Unmount),
}
