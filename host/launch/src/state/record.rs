//! What happened to a group so far, and the status that follows from it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use caveau_protocol::{ContainerId, Event, Exit, Hello};
use serde::{Deserialize, Serialize};

use super::{GroupFolder, StateError};
use crate::{GroupName, LaunchPlan, PortForward, Tee};

/// Events that are kept: the newest.
const MAX_EVENTS: usize = 64;

/// How QEMU executes the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The kernel's virtualization.
    Kvm,
    /// QEMU's own translation of the guest's instructions.
    Tcg,
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// A group's record: facts, written by its supervisor alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The group.
    pub name: GroupName,
    /// The TEE.
    pub tee: Tee,
    /// How the guest is executed, once that is known.
    pub accelerator: Option<Accelerator>,
    /// When the start was asked for: nanoseconds since 1970.
    pub created_ns: u64,
    /// The supervisor's process number.
    pub supervisor_pid: u32,
    /// QEMU's process number, once it runs.
    pub qemu_pid: Option<u32>,
    /// The software secure processor's process number, once it runs.
    pub processor_pid: Option<u32>,
    /// How far the group is.
    pub phase: Phase,
    /// What the guest said about itself. It is the guest's word, not a proof.
    pub guest: Option<Hello>,
    /// Digest of the policy in force as the guest said it, hexadecimal.
    pub policy_digest: Option<String>,
    /// Launch digest of the software secure processor, hexadecimal.
    pub launch_digest: Option<String>,
    /// Published ports.
    pub ports: Vec<PortForward>,
    /// The containers.
    pub containers: Vec<ContainerRecord>,
    /// What the start spent its time on, in order.
    pub stages: Vec<Stage>,
    /// The newest events that the guest reported.
    pub events: Vec<Event>,
}

/// How far a group is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case", deny_unknown_fields)]
pub enum Phase {
    /// Being started.
    Starting,
    /// All containers were started.
    Running,
    /// The policy denied its start. Nothing of it runs, but the guest stays for a while: its owners may ask it why.
    Denied {
        /// For a person.
        reason: String,
        /// The denial.
        denial: Option<serde_json::Value>,
    },
    /// Being shut down.
    Stopping,
    /// Over.
    Ended {
        /// When: nanoseconds since 1970.
        at_ns: u64,
        /// Why.
        cause: Cause,
    },
}

/// Why a group ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case", deny_unknown_fields)]
pub enum Cause {
    /// The containers ended by themselves.
    Exited,
    /// It could not be started.
    Failed {
        /// For a person.
        reason: String,
        /// The policy's denial, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        denial: Option<serde_json::Value>,
    },
    /// The VM went away while the group ran.
    Lost {
        /// For a person.
        reason: String,
    },
    /// The user stopped it.
    Stopped,
}

/// One container's part of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerRecord {
    /// Its name.
    pub name: String,
    /// Its identifier.
    pub container: ContainerId,
    /// Its image reference.
    pub image: String,
    /// When it was started: nanoseconds since 1970.
    pub started_ns: Option<u64>,
    /// How it ended.
    pub exit: Option<Exit>,
}

/// One step of the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// What was done.
    pub name: String,
    /// Microseconds from the supervisor's start to the step's end.
    pub done_us: u64,
}

/// A group's status: derived from lock, record and, where the supervisor lives, its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// It could not be started.
    Failed {
        /// For a person.
        reason: String,
    },
    /// Its containers have ended.
    Exited {
        /// Exit code of the first container.
        code: Option<u8>,
    },
    /// Its VM or its supervisor went away.
    Lost {
        /// For a person.
        reason: String,
    },
    /// It runs.
    Running,
    /// Being started.
    Starting,
    /// Being shut down.
    Stopping,
    /// It exists, but the guest or the supervisor does not answer.
    Unresponsive {
        /// Who does not answer, since when.
        reason: String,
    },
}

impl std::fmt::Display for Status {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed { reason } => write!(formatter, "failed: {reason}"),
            Self::Exited { code: Some(code) } => write!(formatter, "exited ({code})"),
            Self::Exited { code: None } => formatter.write_str("stopped"),
            Self::Lost { reason } => write!(formatter, "lost: {reason}"),
            Self::Running => formatter.write_str("running"),
            Self::Starting => formatter.write_str("starting"),
            Self::Stopping => formatter.write_str("stopping"),
            Self::Unresponsive { reason } => write!(formatter, "unresponsive: {reason}"),
        }
    }
}

impl Record {
    /// The record of a group whose start is only asked for.
    pub(crate) fn new(plan: &LaunchPlan) -> Self {
        let container = |container: &crate::ContainerPlan| ContainerRecord {
            name: container.name.clone(),
            container: container.create.container.clone(),
            image: container.image.clone(),
            started_ns: None,
            exit: None,
        };
        Self {
            name: plan.name.clone(),
            tee: plan.tee,
            accelerator: None,
            created_ns: now_ns(),
            supervisor_pid: 0,
            qemu_pid: None,
            processor_pid: None,
            phase: Phase::Starting,
            guest: None,
            policy_digest: None,
            launch_digest: None,
            ports: plan.ports.clone(),
            containers: plan.containers.iter().map(container).collect(),
            stages: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(crate) fn push_event(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS {
            self.events.remove(0);
        }
        self.events.push(event);
    }
}

/// The status that follows from a record, from whether the supervisor lives, and from who is known not to answer.
pub(crate) fn derive(record: &Record, held: bool, silent: Option<String>) -> Status {
    let first = record.containers.first().and_then(|container| container.exit).map(|exit| exit.code);
    match (&record.phase, held) {
        (Phase::Ended { cause: Cause::Exited | Cause::Stopped, .. }, _) => Status::Exited { code: first },
        (Phase::Ended { cause: Cause::Failed { reason, .. }, .. } | Phase::Denied { reason, .. }, _) => {
            Status::Failed { reason: reason.clone() }
        }
        (Phase::Ended { cause: Cause::Lost { reason }, .. }, _) => Status::Lost { reason: reason.clone() },
        (phase, false) => Status::Lost { reason: format!("the supervisor was killed while {}", doing(phase)) },
        (Phase::Starting, true) => silent.map_or(Status::Starting, |reason| Status::Unresponsive { reason }),
        (Phase::Running, true) => silent.map_or(Status::Running, |reason| Status::Unresponsive { reason }),
        (Phase::Stopping, true) => Status::Stopping,
    }
}

/// A phase as a verb.
fn doing(phase: &Phase) -> &'static str {
    match phase {
        Phase::Starting => "the group was being started",
        Phase::Running => "the group ran",
        Phase::Denied { .. } => "the guest stayed for its owners",
        Phase::Stopping | Phase::Ended { .. } => "the group was being stopped",
    }
}

/// The supervisor's hand on the record: each change is on disk before the call returns. Cloned, it is the same record.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    folder: GroupFolder,
    start: Instant,
    record: Arc<Mutex<Record>>,
}

impl Recorder {
    pub(crate) fn new(folder: GroupFolder, record: Record) -> Self {
        Self { folder, start: Instant::now(), record: Arc::new(Mutex::new(record)) }
    }

    /// A copy of the record.
    #[cfg(test)]
    pub(crate) fn snapshot(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the record.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Record)) -> Result<(), StateError> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut record);
        self.folder.write_record(&record)
    }

    /// Notes that a step of the start is done. It reaches the disk with the next change: a start has many steps.
    pub(crate) fn stage(&self, name: impl Into<String>) {
        let done_us = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.stages.push(Stage { name: name.into(), done_us });
    }
}

/// Nanoseconds since 1970 by the machine's clock.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::sample;

    #[test]
    fn the_lock_overrules_a_record_that_says_running() {
        let mut record = Record::new(&sample());
        record.phase = Phase::Running;
        assert_eq!(derive(&record, true, None), Status::Running);
        let silent = Some("the guest has not answered for 30 s".to_owned());
        assert!(matches!(derive(&record, true, silent), Status::Unresponsive { .. }));
        assert!(
            matches!(derive(&record, false, None), Status::Lost { reason } if reason.contains("killed while the group ran"))
        );
    }

    #[test]
    fn an_end_once_recorded_stays() {
        let mut record = Record::new(&sample());
        record.containers[0].exit = Some(Exit { code: 7, out_of_memory: false });
        record.phase = Phase::Ended { at_ns: 1, cause: Cause::Exited };
        assert_eq!(derive(&record, true, None), Status::Exited { code: Some(7) });
        assert_eq!(derive(&record, false, None), Status::Exited { code: Some(7) });
        record.phase = Phase::Ended { at_ns: 1, cause: Cause::Failed { reason: "why".into(), denial: None } };
        assert_eq!(derive(&record, false, None), Status::Failed { reason: "why".into() });
        record.phase = Phase::Denied { reason: "no".into(), denial: None };
        assert_eq!(derive(&record, true, None), Status::Failed { reason: "no".into() });
        assert_eq!(derive(&record, false, None), Status::Failed { reason: "no".into() });
    }

    #[test]
    fn records_survive_being_written_down() {
        let keep = tempfile::tempdir().unwrap();
        let root = crate::StateRoot::at(&keep.path().join("caveau")).unwrap();
        let (folder, _lock) = root.create(&"web".parse().unwrap(), |_| Ok(())).unwrap();
        let recorder = Recorder::new(folder.clone(), Record::new(&sample()));
        recorder.stage("hello");
        recorder.update(|record| record.phase = Phase::Ended { at_ns: 5, cause: Cause::Stopped }).unwrap();
        assert_eq!(folder.record().unwrap(), recorder.snapshot());
        assert_eq!(folder.record().unwrap().stages[0].name, "hello");
    }
}
