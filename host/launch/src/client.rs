//! What everybody but the supervisor does with a group: look at it, talk to it, end it, take it away.

use std::{
    io,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use caveau_protocol::{
    AgentError, AgentReply, AgentRequest, ContainerId, ContainerStats, Exec, Frame, FrameError, Nonce, ProcessId,
    Report, read_frame, write_frame,
};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::{
    Attachment, GroupFolder, GroupName, LaunchPlan, LogReader, Phase, Record, StateError, StateRoot, Status,
    StopReport,
    control::{self, ControlReply, ControlRequest},
    state::derive,
};

/// How long a supervisor may take to say whether its guest answers.
const STATUS: Duration = Duration::from_secs(2);

/// How long a supervisor may take for everything else: the agent's time, and some.
const ANSWER: Duration = Duration::from_secs(120);

/// How long a VM may take to be switched off.
const TAKE_DOWN: Duration = Duration::from_secs(20);

/// Why a group does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The agent says no.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The connection to the supervisor failed.
    #[error("failed to talk to the supervisor of group {name}")]
    Connection {
        /// The group.
        name: GroupName,
        /// Why.
        #[source]
        cause: FrameError,
    },
    /// The group does not run.
    #[error("group {name} is not running: it is {status}")]
    NotRunning {
        /// The group.
        name: GroupName,
        /// What it is instead.
        status: Status,
    },
    /// The supervisor could not do it.
    #[error("group {name}: {reason}")]
    Refused {
        /// The group.
        name: GroupName,
        /// Its words.
        reason: String,
    },
    /// The state on disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// It does not go down.
    #[error("group {name} still runs {seconds} s after it was told to end")]
    Stubborn {
        /// The group.
        name: GroupName,
        /// How long was waited.
        seconds: u64,
    },
    /// An answer that does not fit the question.
    #[error(
        "the supervisor of group {0} answered something else than was asked: it is of another version of this program"
    )]
    Unexpected(GroupName),
}

/// One group.
#[derive(Clone, Debug)]
pub struct Group {
    root: StateRoot,
    folder: GroupFolder,
}

/// A group as a listing shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its name.
    pub name: GroupName,
    /// Its status.
    pub status: Status,
    /// Its record, where it can be read.
    pub record: Option<Record>,
}

/// The groups of one user, by name. One whose folder is damaged is listed as lost, with the reason.
///
/// # Errors
/// Where the state folder cannot be read.
pub fn list(root: &StateRoot) -> Result<Vec<Listed>, StateError> {
    let mut listed = Vec::new();
    for folder in root.groups()? {
        let group = Group::of(root, folder);
        match group.status() {
            Ok((status, record)) => listed.push(Listed { name: record.name.clone(), status, record: Some(record) }),
            // Removed between the two looks.
            Err(StateError::Unknown(_)) => {}
            Err(error) => {
                let status = Status::Lost { reason: crate::chain(&error) };
                listed.push(Listed { name: group.folder.name().clone(), status, record: None });
            }
        }
    }
    Ok(listed)
}

impl Group {
    /// The group of that name.
    ///
    /// # Errors
    /// [`StateError::Unknown`] where there is none.
    pub fn open(root: &StateRoot, name: &GroupName) -> Result<Self, StateError> {
        Ok(Self::of(root, root.group(name)?))
    }

    pub(crate) fn of(root: &StateRoot, folder: GroupFolder) -> Self {
        Self { root: root.clone(), folder }
    }

    /// Its folder: paths of its logs.
    #[must_use]
    pub fn folder(&self) -> &GroupFolder {
        &self.folder
    }

    /// What it was launched from.
    ///
    /// # Errors
    /// Where the plan cannot be read.
    pub fn plan(&self) -> Result<LaunchPlan, StateError> {
        self.folder.plan()
    }

    /// Its status and its record. Where a supervisor lives it is asked, for at most 2 s.
    ///
    /// # Errors
    /// Where lock or record cannot be read.
    pub fn status(&self) -> Result<(Status, Record), StateError> {
        // First the lock: a supervisor that ends in between has written its record before it lets go.
        let held = self.folder.is_held()?;
        let record = self.folder.record()?;
        let silent = if held && matches!(record.phase, Phase::Running) { self.complaint() } else { None };
        Ok((derive(&record, held, silent), record))
    }

    /// Who does not answer, where somebody does not.
    fn complaint(&self) -> Option<String> {
        match self.ask(&ControlRequest::Status, Vec::new(), STATUS) {
            Ok((ControlReply::Status { silent }, _, _)) => silent,
            Ok(_) => Some("the supervisor is of another version of this program".into()),
            // It may have just ended: then the lock tells, at the next look.
            Err(_) if !self.folder.is_held().unwrap_or(false) => None,
            Err(error) => Some(format!("the supervisor does not answer ({})", crate::chain(&error))),
        }
    }

    /// Attaches to a container's init, the first container's where no name is given: output from now on, and input.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn attach(&self, container: Option<&str>) -> Result<Attachment, GroupError> {
        let request = ControlRequest::Attach { container: container.map(str::to_owned) };
        self.attachment(&request)
    }

    /// Runs one more process in a container and attaches to it.
    ///
    /// # Errors
    /// [`GroupError::Agent`] with the policy's denial, among others.
    pub fn exec(&self, exec: Exec) -> Result<Attachment, GroupError> {
        self.attachment(&ControlRequest::Exec(Box::new(exec)))
    }

    fn attachment(&self, request: &ControlRequest) -> Result<Attachment, GroupError> {
        match self.ask(request, Vec::new(), ANSWER)? {
            (ControlReply::Attached { terminal, container, exec }, _, stream) => {
                stream.set_read_timeout(None).map_err(|cause| self.broken(FrameError::Stream(cause)))?;
                let process = ProcessId { container, exec };
                Attachment::new(stream, process, terminal).map_err(|cause| self.broken(FrameError::Stream(cause)))
            }
            (other, _, _) => Err(self.unwelcome(other)),
        }
    }

    /// Hands a request to the agent as it is, with `body`, and gives its answer with its bytes.
    ///
    /// # Errors
    /// [`GroupError::Agent`] where the agent refuses, among others.
    pub fn call(&self, request: AgentRequest, body: Vec<u8>) -> Result<(AgentReply, Vec<u8>), GroupError> {
        match self.ask(&ControlRequest::Call(request), body, ANSWER)? {
            (ControlReply::Called(Ok(reply)), body, _) => Ok((reply, body)),
            (other, _, _) => Err(self.unwelcome(other)),
        }
    }

    /// Sends a signal to a container's init, the first container's where no name is given.
    ///
    /// # Errors
    /// [`GroupError::Agent`] with the policy's denial, among others.
    pub fn signal(&self, container: Option<&str>, signal: u8) -> Result<(), GroupError> {
        let process = ProcessId::init(self.container(container)?);
        match self.call(AgentRequest::Signal { process, signal }, Vec::new())? {
            (AgentReply::Done, _) => Ok(()),
            _ => Err(GroupError::Unexpected(self.folder.name().clone())),
        }
    }

    /// What a container uses, the first one where no name is given.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn stats(&self, container: Option<&str>) -> Result<ContainerStats, GroupError> {
        match self.call(AgentRequest::Stats { container: self.container(container)? }, Vec::new())? {
            (AgentReply::Stats(stats), _) => Ok(stats),
            _ => Err(GroupError::Unexpected(self.folder.name().clone())),
        }
    }

    /// A report over `nonce`, as the guest's TEE gave it.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn attest(&self, nonce: Nonce) -> Result<Report, GroupError> {
        Ok(self.report(AgentRequest::Attest { nonce })?.0)
    }

    /// A report over `nonce` and what the guest did so far, and the log of that.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn attest_log(&self, nonce: Nonce) -> Result<(Report, Vec<u8>), GroupError> {
        self.report(AgentRequest::AttestLog { nonce })
    }

    fn report(&self, request: AgentRequest) -> Result<(Report, Vec<u8>), GroupError> {
        match self.call(request, Vec::new())? {
            (AgentReply::Report(report), body) => Ok((report, body)),
            _ => Err(GroupError::Unexpected(self.folder.name().clone())),
        }
    }

    /// A container's identifier, the first one's where no name is given.
    ///
    /// # Errors
    /// [`GroupError::Refused`] where there is none of that name.
    pub fn container(&self, name: Option<&str>) -> Result<ContainerId, GroupError> {
        let record = self.folder.record()?;
        let found = record.containers.into_iter().find(|container| name.is_none_or(|name| container.name == name));
        found.map(|container| container.container).ok_or_else(|| GroupError::Refused {
            name: self.folder.name().clone(),
            reason: format!("it has no container called {:?}", name.unwrap_or_default()),
        })
    }

    /// The log, from its oldest entry on. It can be read whether the group runs or not.
    #[must_use]
    pub fn log(&self) -> LogReader {
        LogReader::open(&self.folder.log())
    }

    /// Whether a supervisor lives, so that more may come into the log.
    ///
    /// # Errors
    /// Where the lock cannot be looked at.
    pub fn is_live(&self) -> Result<bool, StateError> {
        self.folder.is_held()
    }

    /// Ends the group: the containers' stop signals, after `patience` SIGKILL, then the VM's end. Returns when nothing of
    /// it runs any more. A group that does not run is left as it is.
    ///
    /// # Errors
    /// [`GroupError::Stubborn`] where it still runs then: [`Group::kill`] ends it in any case.
    pub fn stop(&self, patience: Duration) -> Result<StopReport, GroupError> {
        if !self.folder.is_held()? {
            return Ok(StopReport::default());
        }
        let timeout_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let limit = patience + ANSWER;
        let report = match self.ask(&ControlRequest::Stop { timeout_ms }, Vec::new(), limit) {
            Ok((ControlReply::Stopping(report), _, _)) => report,
            Ok((other, _, _)) => return Err(self.unwelcome(other)),
            // It ended by itself while it was asked.
            Err(_) if !self.folder.is_held()? => return Ok(StopReport::default()),
            // There is no container yet that could be asked.
            Err(GroupError::NotRunning { status: Status::Starting, .. }) => {
                self.kill()?;
                return Ok(StopReport { forced: true, notes: vec!["the group was still being started".into()] });
            }
            // Nothing runs in it: its guest stays for owners, until now.
            Err(GroupError::NotRunning { status: Status::Failed { .. }, .. }) => {
                self.kill()?;
                return Ok(StopReport::default());
            }
            Err(error) => return Err(error),
        };
        self.wait_down(TAKE_DOWN)?;
        Ok(report)
    }

    /// Kills the supervisor, and with it QEMU and the software secure processor. Returns when it has gone.
    ///
    /// # Errors
    /// [`GroupError::Stubborn`] where it is still there, among others.
    pub fn kill(&self) -> Result<(), GroupError> {
        let start = Instant::now();
        while self.folder.is_held()? && start.elapsed() < TAKE_DOWN {
            // A supervisor that has only just been started has not written its number yet.
            if let Some(supervisor) = self.supervisor()? {
                let _ = rustix::process::pidfd_send_signal(supervisor, Signal::KILL);
            }
            self.folder.wait_until_free(Duration::from_millis(50))?;
        }
        self.wait_down(Duration::ZERO)
    }

    /// The supervisor's handle. The lock is looked at again once the handle is open: as long as it is held its holder
    /// lives, and the number is its own.
    fn supervisor(&self) -> Result<Option<std::os::fd::OwnedFd>, GroupError> {
        let number = self.folder.record()?.supervisor_pid;
        let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
        let handle = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(handle.filter(|_| self.folder.is_held().unwrap_or(false)))
    }

    /// Waits until nothing of the group runs any more.
    ///
    /// # Errors
    /// [`GroupError::Stubborn`] after `limit`.
    pub fn wait_down(&self, limit: Duration) -> Result<(), GroupError> {
        if self.folder.wait_until_free(limit)? {
            return Ok(());
        }
        Err(GroupError::Stubborn { name: self.folder.name().clone(), seconds: limit.as_secs() })
    }

    /// Takes the group's folder away, with its logs. A guest that is only there for its owners to ask why its start was
    /// denied ends.
    ///
    /// # Errors
    /// [`StateError::Running`] where it runs.
    pub fn remove(self) -> Result<(), GroupError> {
        if matches!(self.folder.record().map(|record| record.phase), Ok(Phase::Denied { .. })) {
            self.kill()?;
        }
        Ok(self.root.remove(&self.folder)?)
    }

    /// Asks the supervisor; gives its answer, that one's bytes, and the connection.
    fn ask(
        &self,
        request: &ControlRequest,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<(ControlReply, Vec<u8>, UnixStream), GroupError> {
        let mut stream = control::connect(&self.folder.socket()).map_err(|error| self.unreachable(error))?;
        let (reply, body) = converse(&mut stream, request, body, limit).map_err(|cause| self.broken(cause))?;
        Ok((reply, body, stream))
    }

    /// Why there is nobody to talk to.
    fn unreachable(&self, error: io::Error) -> GroupError {
        let held = self.folder.is_held();
        match (held, self.folder.record()) {
            (Ok(held), Ok(record)) => match derive(&record, held, None) {
                Status::Running => self.broken(FrameError::Stream(error)),
                status => GroupError::NotRunning { name: self.folder.name().clone(), status },
            },
            (Err(error), _) | (_, Err(error)) => error.into(),
        }
    }

    fn broken(&self, cause: FrameError) -> GroupError {
        GroupError::Connection { name: self.folder.name().clone(), cause }
    }

    /// An answer that is not the one hoped for.
    fn unwelcome(&self, reply: ControlReply) -> GroupError {
        let name = self.folder.name().clone();
        match reply {
            ControlReply::Called(Err(error)) => error.into(),
            ControlReply::Failed { reason } => GroupError::Refused { name, reason },
            _ => GroupError::Unexpected(name),
        }
    }
}

/// One question and its answer, each within `limit`.
fn converse(
    stream: &mut UnixStream,
    request: &ControlRequest,
    body: Vec<u8>,
    limit: Duration,
) -> Result<(ControlReply, Vec<u8>), FrameError> {
    stream.set_read_timeout(Some(limit)).map_err(FrameError::Stream)?;
    stream.set_write_timeout(Some(limit)).map_err(FrameError::Stream)?;
    write_frame(stream, &Frame::new(request, body)?)?;
    stream.set_write_timeout(None).map_err(FrameError::Stream)?;
    let frame = read_frame(stream)?.ok_or_else(|| FrameError::Stream(io::ErrorKind::UnexpectedEof.into()))?;
    Ok((frame.header()?, frame.body))
}
