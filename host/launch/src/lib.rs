//! Launches one group's VM and supervises it for its life.
//!
//! ```text
//!  caveau run ──start()──▶ caveau __supervise ──▶ caveau __softsp      one of each a group
//!       │                     │      │  └──QMP──▶ QEMU ──▶ guest
//!       │  control.sock       │      └──── agent port ───▶ agent
//!       └─────────────────────┘
//!  caveau ps, logs, exec, stop … ──▶ lock, record, log files, control.sock
//! ```
//!
//! Trusts the user's own files and nothing that comes from the guest: frames are bounded, waits have ends, text from
//! the guest is cleaned before it is shown. Nobody needs to trust this crate: it may refuse service, but what it starts
//! is measured, and the guest checks every request against the policy.
//!
//! Promises that a group's state is true whatever is killed (a lock says who lives, a record how it ended), that QEMU and
//! the software secure processor die with their supervisor, and that nothing is left over when a group has ended: its
//! folder remains until it is removed, and holds the log.
//!
//! Refuses to measure one file and run another: all that a guest executes is copied into sealed memory first.

mod agent;
mod attachment;
mod bring_up;
mod client;
mod control;
mod doctor;
mod firmware;
mod guest;
mod logs;
mod machine;
mod machine_start;
mod memfd;
mod name;
mod piece;
mod plan;
mod ports;
mod request_log;
mod secure_processor;
mod start;
mod state;
mod supervisor;

pub use agent::{AgentClient, Answer, CallError};
pub use attachment::{AttachEvent, Attachment, Input};
pub use bring_up::StepError;
pub use client::{Group, GroupError, Listed, list};
pub use control::StopReport;
pub use doctor::{Check, Report, Verdict, report};
pub use guest::{Firmware, Guest, GuestError, OptionRom};
pub use logs::{Follow, LogEntry, LogError, LogReader};
pub use machine::{
    Board, Disk, Hardware, KvmVerdict, Machine, MachineError, MachineParts, Process, Qemu, QemuError, Qmp, QmpError,
    SNP_VERSION, TeeParts, compose, probe_kvm,
};
pub use machine_start::{SnpHostError, check_snp_host};
pub use memfd::{SealError, SealedFile};
pub use name::{GroupName, InvalidName};
pub use piece::{PieceKind, PolicyPiece};
pub use plan::{
    ContainerPlan, FirmwareFiles, GuestFiles, InvalidPlan, LaunchPlan, LayerFile, LogLimits, MAX_MEMORY_MIB,
    MAX_SCRATCH_BYTES, MAX_VCPUS, MIN_MEMORY_MIB, MIN_SCRATCH_BYTES, PLAN_VERSION, Scratch, Tee, check_machine,
};
pub use ports::{PortError, PortForward, Transport, check_free};
pub use start::{StartError, Started, start, start_with};
pub use state::{
    Accelerator, Cause, ContainerRecord, GroupFolder, GroupLock, Phase, Record, Stage, StateError, StateRoot, Status,
};
pub use supervisor::{Failure, supervise};

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // A transparent error repeats its cause's words.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
