//! What the guest answers.

use serde::{Deserialize, Serialize};

use crate::{ContainerId, LayerId};

/// A reply with its request's number, as it crosses the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyEnvelope {
    /// [`crate::VERSION`].
    pub version: u16,
    /// The request's number; 0 where the request could not be read.
    pub id: u64,
    /// What came of it.
    pub result: Result<AgentReply, AgentError>,
}

/// What came of a request that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case", deny_unknown_fields)]
pub enum AgentReply {
    /// Number of the channel.
    Channel {
        /// For later requests.
        channel: u32,
    },
    /// The containers that there are.
    Containers {
        /// Of each.
        containers: Vec<ContainerId>,
    },
    /// What was denied: the body, a JSON object a line.
    Denials,
    /// Done; there is nothing to say.
    Done,
    /// An event, or none within the time.
    Event(Option<Event>),
    /// Number of the process that was executed.
    Exec {
        /// For [`crate::ProcessId::exec`].
        exec: u32,
    },
    /// A process's exit, or none within the time.
    Exit(Option<Exit>),
    /// Who the guest is.
    Hello(Hello),
    /// The layer's number.
    Layer {
        /// For later requests.
        layer: LayerId,
    },
    /// Sealed output: the body.
    Log(Log),
    /// Output: the body.
    Output(Output),
    /// Digest of the policy that is now in force, 64 hexadecimal digits.
    Policy {
        /// SHA-256 of its text.
        digest: String,
    },
    /// A signed report.
    Report(Report),
    /// What was asked of the policy: the body, a JSON object a line.
    Requests {
        /// How many are missing, for want of room.
        lost: u64,
    },
    /// What a container uses.
    Stats(ContainerStats),
    /// Number of bytes taken.
    Written {
        /// Bytes of the body that are in the pipe.
        bytes: u32,
    },
}

/// Who the guest is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The agent's version.
    pub agent: String,
    /// The TEE named by the measured command line: `snp` or `emulated-snp`.
    pub tee: String,
    /// Kernel release (uname(2)).
    pub kernel: String,
    /// Nanoseconds from the kernel's start to the agent's first instruction.
    pub boot_ns: u64,
    /// What the agent did since, in order; the last step is done just before the first request is read.
    #[serde(default)]
    pub steps: Vec<BootStep>,
}

/// A step of the agent's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootStep {
    /// What was done.
    pub name: String,
    /// Nanoseconds from the kernel's start to its end.
    pub done_ns: u64,
}

/// What a piece of output says beyond its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// No more will come.
    pub eof: bool,
}

/// What a piece of sealed output says beyond its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Bytes from the stream's beginning to the first one here: more than was asked for where what lies before was forgotten.
    pub from: u64,
    /// No more will come.
    pub eof: bool,
}

/// How a process ended: 128 plus the signal's number where a signal ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exit {
    /// Exit code, 0 to 255.
    pub code: u8,
    /// Whether the kernel killed it for want of memory.
    pub out_of_memory: bool,
}

/// Evidence as the TEE gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The report's bytes, base64.
    pub report: String,
    /// The TEE's certificate table (GHCB form), base64; empty where the host offered none.
    pub certificates: String,
}

/// What a container uses, read from cgroup v2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerStats {
    /// Processor time in microseconds.
    pub cpu_us: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bound on memory in bytes, where there is one.
    pub memory_limit_bytes: Option<u64>,
    /// Greatest use of memory so far, in bytes.
    pub memory_peak_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes that the guest received.
    pub network_received_bytes: u64,
    /// Bytes that the guest sent.
    pub network_sent_bytes: u64,
    /// Resident memory of the agent in bytes.
    pub agent_memory_bytes: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Counts up from 1.
    pub number: u64,
    /// What happened.
    pub event: EventKind,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EventKind {
    /// A container's init process ended.
    ContainerExited {
        /// The container.
        container: ContainerId,
        /// Its exit code.
        code: u8,
    },
    /// A block of a layer does not match its root hash: reads of it fail.
    LayerCorrupted {
        /// The layer.
        layer: LayerId,
    },
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct AgentError {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// For a person.
    pub message: String,
    /// The policy's denial, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<serde_json::Value>,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Too much is asked for at once: nothing was done, and the same request may be sent again after a pause.
    Busy,
    /// The policy does not allow it.
    Denied,
    /// The guest failed at something that was allowed.
    Failed,
    /// The request makes no sense: malformed, out of bounds, out of order.
    Invalid,
    /// The program to run does not exist (as a shell's 127).
    NotFound,
    /// The program to run cannot be executed (as a shell's 126).
    NotExecutable,
}
