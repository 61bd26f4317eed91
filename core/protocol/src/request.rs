//! What the host may ask of the guest: one step a request. Each is asked of the policy before it is done.

use serde::{Deserialize, Serialize};

use crate::{ContainerId, LayerId, Nonce, ProcessId};

/// A request with its number, as it crosses the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestEnvelope {
    /// [`crate::VERSION`].
    pub version: u16,
    /// Chosen by the host, repeated in the reply; a number still open must not be used again.
    pub id: u64,
    /// The step.
    pub request: AgentRequest,
}

/// The steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", content = "args", rename_all = "snake_case", deny_unknown_fields)]
pub enum AgentRequest {
    /// A report over the caller's nonce, with the certificates that the TEE offers; not before all was started that must run.
    Attest {
        /// Fresh bytes of whoever wants the proof.
        nonce: Nonce,
    },
    /// As [`AgentRequest::Attest`], and what was asked of the guest so far: the reply's body is its event log, which the report
    /// binds.
    AttestLog {
        /// Fresh bytes of whoever wants the proof.
        nonce: Nonce,
    },
    /// Ends a channel.
    CloseChannel {
        /// Its number.
        channel: u32,
    },
    /// Closes a process's standard input.
    CloseInput {
        /// The process.
        process: ProcessId,
    },
    /// The containers that there are. For owners alone: the host has given them their names.
    Containers,
    /// Makes a container; it does not run yet.
    CreateContainer(Box<CreateContainer>),
    /// Removes a container that has ended, and frees what it held.
    DeleteContainer {
        /// The container.
        container: ContainerId,
    },
    /// What the policy refused the host, complete: the reply's body, JSON Lines. For owners alone.
    Denials {
        /// Number of the last one that the caller has; 0 for none.
        after: u64,
    },
    /// Runs one more process in a running container. Replied to with its number.
    Exec(Box<Exec>),
    /// Who are you: answered before any policy is set.
    Hello,
    /// From now on keep what is asked of the policy, for [`AgentRequest::TakeRequests`].
    KeepRequests,
    /// Loads a fragment of policy: its signed envelope (COSE_Sign1) is the body.
    LoadFragment,
    /// Loads a list of transparency ledgers whose receipts count: its signed envelope is the body.
    LoadTransparencyTrustList,
    /// Maps and mounts one layer through dm-verity.
    MountLayer(MountLayer),
    /// Puts a container's root file system together.
    MountOverlay(MountOverlay),
    /// Makes the scratch file system that overlays write to.
    MountScratch(MountScratch),
    /// The next event after a given one; waits at most `timeout_ms`.
    NextEvent {
        /// Number of the last event that the caller has; 0 for none.
        after: u64,
        /// Milliseconds to wait, at most 60,000.
        timeout_ms: u32,
    },
    /// Opens a channel: bytes between somebody outside, whom the host lets in, and the guest itself. They are TLS, and the
    /// host only carries them. Replied to with its number.
    OpenChannel,
    /// Bytes that the guest sends over a channel; answered when there are some, at its end, or after `timeout_ms`.
    ReadChannel {
        /// Its number.
        channel: u32,
        /// Most bytes wanted, at most [`crate::MAX_CHUNK`].
        max: u32,
        /// Milliseconds to wait, at most 60,000.
        timeout_ms: u32,
    },
    /// Output of a container whose streams the host does not get, from a place on. For owners alone.
    ReadLog {
        /// The container; the group's only one where none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<ContainerId>,
        /// Which of its streams.
        stream: Stream,
        /// Bytes from the stream's beginning to the first that is wanted.
        from: u64,
        /// Most bytes wanted, at most [`crate::MAX_CHUNK`].
        max: u32,
        /// Milliseconds to wait, at most 60,000.
        timeout_ms: u32,
    },
    /// Output of a process; answered when there is some, at its end, or after `timeout_ms`.
    ReadOutput {
        /// The process.
        process: ProcessId,
        /// Which of its streams.
        stream: Stream,
        /// Most bytes wanted, at most [`crate::MAX_CHUNK`].
        max: u32,
        /// Milliseconds to wait, at most 60,000.
        timeout_ms: u32,
    },
    /// Tells a process's terminal its size.
    ResizeTerminal {
        /// The process.
        process: ProcessId,
        /// Its new size.
        size: TerminalSize,
    },
    /// The policy: its text is the body. Accepted once, and only if its SHA-256 is the TEE's HOST_DATA.
    SetPolicy {
        /// JSON text with the host's AMD certificates (`vcekCert`, `tcbm`, `certificateChain`), handed on to containers
        /// as `host-amd-cert-base64` unread.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_certificates: Option<String>,
        /// Base64 of the guest's signed reference values (COSE_Sign1), handed on to containers as `reference-info-base64`
        /// without a look at whose they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference_info: Option<String>,
    },
    /// Ends every container and powers the guest off.
    Shutdown,
    /// Sends a signal to a process.
    Signal {
        /// The process.
        process: ProcessId,
        /// The signal's number, 1 to 64.
        signal: u8,
    },
    /// Starts a created container, unless the policy wants others started first.
    StartContainer {
        /// The container.
        container: ContainerId,
    },
    /// What a container uses.
    Stats {
        /// The container.
        container: ContainerId,
    },
    /// What was asked of the policy since the last time, and what it said: the reply's body, JSON Lines.
    TakeRequests,
    /// Unmounts a layer that nothing uses.
    UnmountLayer {
        /// The layer.
        layer: LayerId,
    },
    /// Takes a container's root file system apart.
    UnmountOverlay {
        /// The container.
        container: ContainerId,
    },
    /// The exit of a process; answered when it ends or after `timeout_ms`.
    Wait {
        /// The process.
        process: ProcessId,
        /// Milliseconds to wait, at most 60,000.
        timeout_ms: u32,
    },
    /// Bytes for the guest over a channel: the body. Answered when they are taken.
    WriteChannel {
        /// Its number.
        channel: u32,
    },
    /// Bytes for a process's standard input: the body. Answered when they are in its pipe.
    WriteInput {
        /// The process.
        process: ProcessId,
    },
}

/// One of a process's output streams. With a terminal there is only standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
}

/// A layer: the disk that holds it and the root that the host claims for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountLayer {
    /// The disk's logical unit number.
    pub lun: u16,
    /// dm-verity root hash, 64 lower-case hexadecimal digits.
    pub root: String,
}

/// The group's scratch space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum MountScratch {
    /// A disk, encrypted and authenticated with a key that never leaves the guest.
    Encrypted {
        /// The disk's logical unit number.
        lun: u16,
    },
    /// The guest's memory, at most `bytes`.
    Memory {
        /// Size in bytes.
        bytes: u64,
    },
}

/// A container's root file system: its layers below, a fresh writable directory of the scratch above.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountOverlay {
    /// The container that will use it; the identifier can be used once.
    pub container: ContainerId,
    /// Mounted layers, base first.
    pub layers: Vec<LayerId>,
}

/// What every process is started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Absolute path within the container.
    pub cwd: String,
    /// `user[:group]` as in an image's configuration: names or numbers; empty is root.
    pub user: String,
    /// Capability sets; names as `CAP_CHOWN`.
    pub capabilities: Capabilities,
    /// Whether `execve` may gain privileges.
    pub no_new_privileges: bool,
    /// The size of the terminal that it gets instead of three pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// Whether its standard input stays open for [`AgentRequest::WriteInput`].
    pub stdin: bool,
    /// Whether the host gets its streams at all; without, they lead nowhere.
    pub stdio: bool,
}

/// How much a terminal shows. It has it before its process runs: a program may ask once, at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// What a terminal that nobody looks at is taken to show: as much as the ones that programs were first written for.
impl Default for TerminalSize {
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// The five capability sets of a process (capabilities(7)).
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

/// A new container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateContainer {
    /// Its identifier, whose overlay is mounted.
    pub container: ContainerId,
    /// Its init process.
    pub process: ProcessSpec,
    /// Host name: letters, digits, `-` and `.`.
    pub hostname: String,
    /// Elevated: all capabilities and devices.
    pub privileged: bool,
    /// Whether its root file system is read-only.
    pub read_only: bool,
    /// Memory file systems of its own.
    pub tmpfs: Vec<TmpfsMount>,
    /// OCI `linux.seccomp` object as JSON text; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<String>,
    /// Bounds on what it uses. A policy may have some that must not be exceeded; the tighter ones are set.
    pub limits: Limits,
}

/// A memory file system in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TmpfsMount {
    /// Absolute path within the container.
    pub destination: String,
    /// Mount options, such as `size=64m`, `mode=1777`, `noexec`.
    pub options: Vec<String>,
}

/// Bounds on a container (cgroup v2); absent is unbounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Thousandths of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

/// One more process in a running container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The container.
    pub container: ContainerId,
    /// The process.
    pub process: ProcessSpec,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_written() {
        let container = ContainerId::from_bytes([7; 32]);
        let requests = [
            AgentRequest::Hello,
            AgentRequest::MountLayer(MountLayer { lun: 3, root: "ab".repeat(32) }),
            AgentRequest::MountScratch(MountScratch::Encrypted { lun: 9 }),
            AgentRequest::Signal { process: ProcessId::init(container), signal: 15 },
        ];
        for request in requests {
            let envelope = RequestEnvelope { version: 1, id: 5, request };
            let text = serde_json::to_string(&envelope).unwrap();
            assert_eq!(serde_json::from_str::<RequestEnvelope>(&text).unwrap(), envelope);
        }
    }

    #[test]
    fn unknown_fields_and_operations_are_refused() {
        for bad in [
            r#"{"version":1,"id":1,"request":{"op":"hello"},"more":1}"#,
            r#"{"version":1,"id":1,"request":{"op":"format_disk"}}"#,
            r#"{"version":1,"id":1,"request":{"op":"mount_layer","args":{"lun":1,"root":"00","path":"/etc"}}}"#,
            r#"{"version":1,"id":1,"request":{"op":"mount_layer","args":{"lun":-1,"root":"00"}}}"#,
            r#"{"version":1,"id":1,"request":{"op":"start_container","args":{"container":"../../etc"}}}"#,
        ] {
            assert!(serde_json::from_str::<RequestEnvelope>(bad).is_err(), "{bad}");
        }
    }
}
