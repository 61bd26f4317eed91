//! The process that owns one group: QEMU's parent, the agent's peer, the keeper of the record.
//!
//! ```text
//!   starting ── containers run ──▶ running ── all exited ──▶ ended: exited
//!      │                              │ ├──── stop ────▶ stopping ──▶ ended: stopped
//!      └── a step fails ──▶ ended:    │ └──── QEMU ends ──▶ ended: lost
//!             │            failed     └── killed: nothing is written, but the lock is free and QEMU dead
//!             └─ the policy denied it, and owners can come ──▶ denied ── an hour, or killed ──▶ ended: failed
//! ```

mod announce;
mod channels;
mod group;
mod hub;
mod messages;
mod serve;
mod streams;
mod watch;

pub(crate) use announce::Announcement;
pub use announce::Failure;

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    net::TcpListener,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use announce::Announcer;
use caveau_protocol::AgentRequest;
use group::{Container, Group, Happening, Liveness, Shared};
use hub::Client;
use messages::Messages;

use crate::{
    AgentClient, Cause, GroupLock, LaunchPlan, Machine, Phase, StateError, StateRoot, StepError,
    bring_up::BringUp,
    control,
    logs::LogWriter,
    machine_start::{self, MachineStartError, Running},
    request_log::RequestLog,
    state::{Recorder, now_ns},
};

/// How long the guest has to power itself off.
const POWER_OFF: Duration = Duration::from_secs(2);

/// How long output may still be on its way to clients after a group was stopped.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// How long a guest whose start was denied stays for its owners to ask it why.
const KEPT_DENIED: Duration = Duration::from_secs(3600);

/// What the process that starts a supervisor hands down, in the order of the arguments.
#[derive(Debug)]
struct Heritage {
    root: PathBuf,
    name: crate::GroupName,
    lock: OwnedFd,
    announcements: OwnedFd,
    attached: Option<OwnedFd>,
}

/// Why a group did not come up.
#[derive(Debug, thiserror::Error)]
enum UpError {
    #[error("failed to keep the group's state")]
    State(#[from] StateError),
    #[error(transparent)]
    Machine(#[from] MachineStartError),
    #[error("{error}{said}")]
    Step {
        #[source]
        error: StepError,
        /// What QEMU and the guest said, where they went away.
        said: String,
    },
    #[error("failed to {act}")]
    Host {
        act: &'static str,
        #[source]
        cause: io::Error,
    },
    #[error("failed to write the containers' log")]
    Log(#[from] crate::logs::LogError),
}

/// The hidden subcommand `__supervise`: runs one group to its end. `arguments` are what [`crate::start`] gives it.
#[must_use]
pub fn supervise(arguments: &[OsString]) -> ExitCode {
    let outcome = inherit(arguments).and_then(|heritage| {
        let root = StateRoot::at(&heritage.root).map_err(|error| crate::chain(&error))?;
        let folder = root.group(&heritage.name).map_err(|error| crate::chain(&error))?;
        let messages = Messages::bound(&folder.supervisor_log())
            .map_err(|error| format!("failed to bound supervisor.log: {error}"))?;
        let plan = folder.plan().map_err(|error| crate::chain(&error))?;
        let record = folder.record().map_err(|error| crate::chain(&error))?;
        Ok((messages, heritage, root, folder, plan, record))
    });
    match outcome {
        Ok((messages, heritage, root, folder, plan, record)) => {
            let _lock = GroupLock::inherited(heritage.lock);
            // Dropped before the lock: whoever sees that this has ended finds its last words.
            let _messages = messages;
            let supervisor = Supervisor {
                root,
                plan,
                recorder: Recorder::new(folder.clone(), record),
                folder,
                announcer: Announcer::new(heritage.announcements.into()),
            };
            supervisor.run(heritage.attached.map(UnixStream::from))
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// A supervisor before its guest is there.
struct Supervisor {
    root: StateRoot,
    folder: crate::GroupFolder,
    plan: LaunchPlan,
    recorder: Recorder,
    announcer: Announcer,
}

impl Supervisor {
    /// Runs the group to its end, and writes that down.
    fn run(self, attached: Option<UnixStream>) -> ExitCode {
        let (sender, happenings) = mpsc::channel();
        match self.bring_up(attached, sender, &happenings) {
            Ok((mut running, group)) => {
                self.announcer.say(&Announcement::Started);
                let cause = until_end(&group, &happenings);
                self.take_down(&mut running, &group, cause)
            }
            Err(error) => self.give_up(&error),
        }
    }

    /// From nothing to running containers; where that fails, nothing of it runs any more on return.
    fn bring_up(
        &self,
        attached: Option<UnixStream>,
        sender: Sender<Happening>,
        happenings: &Receiver<Happening>,
    ) -> Result<(Running, Shared), UpError> {
        self.recorder.update(|record| record.supervisor_pid = std::process::id())?;
        // Before anything is started for it: the address may be taken.
        let outside = self.plan.owner_address.map(TcpListener::bind).transpose();
        let outside = outside.map_err(host("listen on the owners' address"))?;
        let (pipe, done) = self.announcer.watched().map_err(host("watch the program that started this"))?;
        watch::starter(pipe, done, self.recorder.clone()).map_err(host("start a thread"))?;
        let mut running = machine_start::start(&self.plan, &self.root, &self.folder, &|step: &str| self.note(step))?;
        let note = |step: &str| self.note(step);
        let brought = self.connect(&running, sender.clone()).and_then(|client| {
            let bring_up = BringUp::new(&client, &self.plan, &note);
            match self.prepare(&running, &bring_up) {
                Ok(()) => self.set_off(&running, &client, &bring_up, attached, outside, sender),
                Err(error) => {
                    if let Some(outside) = outside {
                        self.keep_denied(&client, &error, outside, happenings)?;
                    }
                    Err(error)
                }
            }
        });
        match brought {
            Ok(group) => Ok((running, group)),
            Err(error) => {
                running.machine.power_off();
                running.end_processor();
                Err(error)
            }
        }
    }

    /// To the agent of a VM that boots.
    fn connect(&self, running: &Running, happenings: Sender<Happening>) -> Result<AgentClient, UpError> {
        self.recorder.update(|record| {
            record.accelerator = Some(running.accelerator);
            record.qemu_pid = Some(running.machine.pid());
            record.processor_pid = running.processor_pid();
            record.launch_digest.clone_from(&running.launch_digest);
        })?;
        let stream = running.machine.agent().map_err(host("connect to the agent's port"))?;
        let client = AgentClient::new(stream).map_err(host("connect to the agent's port"))?;
        watch::machine(&running.machine, &client, happenings).map_err(host("start a thread"))?;
        Ok(client)
    }

    /// From a VM that boots to containers that only have to be started.
    fn prepare(&self, running: &Running, bring_up: &BringUp<'_>) -> Result<(), UpError> {
        let step = |error| UpError::Step { error, said: gone(&running.machine) };
        let hello = bring_up.hello().map_err(step)?;
        self.recorder.update(|record| record.guest = Some(hello))?;
        let digest = bring_up.set_policy().map_err(step)?;
        if self.plan.record {
            let log =
                RequestLog::create(&self.folder.requests(), &digest).map_err(host("make the record of requests"))?;
            bring_up.keep_requests(log).map_err(step)?;
        }
        self.recorder.update(|record| record.policy_digest = Some(digest))?;
        bring_up.load_pieces().map_err(step)?;
        let layers = bring_up.mount().map_err(step)?;
        self.plan.containers.iter().try_for_each(|container| bring_up.create(container, &layers)).map_err(step)
    }

    /// From containers that were made to a group that runs, and is served.
    fn set_off(
        &self,
        running: &Running,
        client: &AgentClient,
        bring_up: &BringUp<'_>,
        attached: Option<UnixStream>,
        outside: Option<TcpListener>,
        happenings: Sender<Happening>,
    ) -> Result<Shared, UpError> {
        let group = self.share(client, happenings)?;
        self.attach(&group, attached)?;
        for (index, container) in self.plan.containers.iter().enumerate() {
            bring_up.start(container).map_err(|error| UpError::Step { error, said: gone(&running.machine) })?;
            self.started(&group, index)?;
        }
        watch::guest(&group).map_err(host("start a thread"))?;
        // Before the record says that it runs: whoever reads that asks here.
        let listener = control::listen(&self.folder.socket()).map_err(host("listen on the control socket"))?;
        serve::listen(&group, listener).map_err(host("start a thread"))?;
        if let Some(outside) = outside {
            channels::listen(client, outside).map_err(host("start a thread"))?;
        }
        group.recorder.update(|record| record.phase = Phase::Running)?;
        Ok(group)
    }

    /// Where the policy denied a step, the guest alone has the denial complete. It stays for owners, with nothing that runs.
    fn keep_denied(
        &self,
        client: &AgentClient,
        error: &UpError,
        outside: TcpListener,
        happenings: &Receiver<Happening>,
    ) -> Result<(), UpError> {
        let mut failure = failure(error);
        if failure.denial.is_none() {
            return Ok(());
        }
        let (reason, denial) = (failure.reason.clone(), failure.denial.clone());
        self.recorder.update(|record| record.phase = Phase::Denied { reason, denial })?;
        channels::listen(client, outside).map_err(host("start a thread"))?;
        failure.kept_s = Some(KEPT_DENIED.as_secs());
        self.announcer.say(&Announcement::Failed(failure));
        // The VM may end before; there is nothing else to wait for.
        let _ = happenings.recv_timeout(KEPT_DENIED);
        Ok(())
    }

    /// Tells the user, and the record, of a step that is done.
    fn note(&self, step: &str) {
        self.recorder.stage(step);
        self.announcer.say(&Announcement::Step { name: step.to_owned() });
    }

    /// What the threads share from now on: the record is theirs.
    fn share(&self, client: &AgentClient, happenings: Sender<Happening>) -> Result<Shared, UpError> {
        Ok(Arc::new(Group {
            log: LogWriter::create(&self.folder.log(), self.plan.log)?,
            recorder: self.recorder.clone(),
            plan: self.plan.clone(),
            client: client.clone(),
            containers: self.plan.containers.iter().map(|_| Container::default()).collect(),
            liveness: Liveness::default(),
            stopping: AtomicBool::new(false),
            executed: AtomicUsize::new(0),
            happenings,
        }))
    }

    /// Attaches the client that was there from the beginning, before there is any output.
    fn attach(&self, group: &Shared, attached: Option<UnixStream>) -> Result<(), UpError> {
        let Some(stream) = attached else { return Ok(()) };
        let client = Arc::new(Client::new(&stream).map_err(host("attach the first client"))?);
        if let Some((_, container)) = group.container(None) {
            // Here and not in the thread: the container's first byte may come at any time after this.
            container.hub.attach(Arc::clone(&client));
        }
        let group = Shared::clone(group);
        let spawned = thread::Builder::new().name("first-client".into()).spawn(move || {
            if let Some((plan, container)) = group.container(None) {
                serve::take_input(&group, plan, container, stream, &client);
            }
        });
        spawned.map(drop).map_err(host("start a thread"))
    }

    /// Follows a container that was just started.
    fn started(&self, group: &Shared, index: usize) -> Result<(), UpError> {
        self.recorder.update(|record| {
            if let Some(container) = record.containers.get_mut(index) {
                container.started_ns = Some(now_ns());
            }
        })?;
        streams::follow(group, index).map_err(host("start a thread"))
    }

    /// Ends the VM, then writes down that and why it ended.
    fn take_down(&self, running: &mut Running, group: &Group, cause: Cause) -> ExitCode {
        if !matches!(cause, Cause::Lost { .. }) {
            // The guest may refuse or fail: it is switched off in any case.
            let _ = group.client.done(AgentRequest::Shutdown, POWER_OFF);
            let _ = running.machine.wait(POWER_OFF);
        }
        running.machine.power_off();
        running.end_processor();
        group.client.close();
        for container in &group.containers {
            let reason = crate::chain(&crate::CallError::Closed(None));
            container.hub.finish(control::ServerFrame::Lost { reason });
        }
        self.end(cause)
    }

    /// Writes down that the group could not be started, and tells whoever asked for it.
    fn give_up(&self, error: &UpError) -> ExitCode {
        let failure = failure(error);
        let code = self.end(Cause::Failed { reason: failure.reason.clone(), denial: failure.denial.clone() });
        self.announcer.say(&Announcement::Failed(failure));
        code
    }

    fn end(&self, cause: Cause) -> ExitCode {
        // Nobody can be served any more; a socket that was never made need not go.
        let _ = fs::remove_file(self.folder.socket());
        match self.recorder.update(|record| record.phase = Phase::Ended { at_ns: now_ns(), cause }) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}", crate::chain(&error));
                ExitCode::from(2)
            }
        }
    }
}

/// What whoever asked for the start is told.
fn failure(error: &UpError) -> Failure {
    let (kind, denial) = match error {
        UpError::Step { error, .. } => (error.kind(), error.denial().cloned()),
        _ => (None, None),
    };
    Failure { reason: crate::chain(error), kind, denial, kept_s: None }
}

/// Waits for the end and says why it came.
fn until_end(group: &Group, happenings: &Receiver<Happening>) -> Cause {
    match happenings.recv() {
        Ok(Happening::AllExited) if group.stopping.load(std::sync::atomic::Ordering::SeqCst) => Cause::Stopped,
        Ok(Happening::AllExited) if group.containers.iter().all(|container| container.exit().is_some()) => {
            Cause::Exited
        }
        Ok(Happening::AllExited) => lost_reason(group, happenings),
        Ok(Happening::Stop) => {
            // Output is on its way to clients; one that does not read must not keep the group alive.
            let _ = happenings.recv_timeout(LAST_OUTPUT);
            group.containers.iter().for_each(|container| container.hub.cut());
            Cause::Stopped
        }
        Ok(Happening::VmLost(reason)) => Cause::Lost { reason },
        Err(_) => Cause::Lost { reason: "the supervisor's threads have ended".into() },
    }
}

/// A container can be followed no longer and has no exit code: QEMU's end is the reason, or what the agent said.
fn lost_reason(group: &Group, happenings: &Receiver<Happening>) -> Cause {
    match happenings.recv_timeout(LAST_OUTPUT) {
        Ok(Happening::VmLost(reason)) => Cause::Lost { reason },
        _ => {
            let said = group.containers.iter().find_map(Container::lost);
            Cause::Lost { reason: said.unwrap_or_else(|| "the agent in the guest closed its connection".into()) }
        }
    }
}

/// What is to be said where QEMU has ended while the guest was asked for something.
fn gone(machine: &Machine) -> String {
    if machine.wait(Duration::from_millis(200)).is_none() {
        let words = machine.console_lines(6);
        return if words.is_empty() { String::new() } else { format!("; the guest's console ends with: {words}") };
    }
    format!("; QEMU has ended{}", watch::said(machine))
}

fn host(act: &'static str) -> impl FnOnce(io::Error) -> UpError {
    move |cause| UpError::Host { act, cause }
}

/// Reads the arguments `ROOT NAME LOCK ANNOUNCEMENTS [ATTACHED]`, the last ones numbers of inherited descriptors.
fn inherit(arguments: &[OsString]) -> Result<Heritage, String> {
    let usage = || "__supervise is started by `caveau run`, not by hand".to_owned();
    let (root, name, lock, announcements, attached) = match arguments {
        [root, name, lock, announcements] => (root, name, lock, announcements, None),
        [root, name, lock, announcements, attached] => (root, name, lock, announcements, Some(attached)),
        _ => return Err(usage()),
    };
    let name = name.to_str().ok_or_else(usage)?.parse().map_err(|error| format!("{error}"))?;
    Ok(Heritage {
        root: root.into(),
        name,
        lock: inherited(lock).ok_or_else(usage)?,
        announcements: inherited(announcements).ok_or_else(usage)?,
        attached: attached.map(|text| inherited(text).ok_or_else(usage)).transpose()?,
    })
}

/// Takes over an inherited descriptor, so that this process's own children do not inherit it again.
#[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
fn inherited(text: &OsString) -> Option<OwnedFd> {
    let number: RawFd = text.to_str()?.parse().ok().filter(|number| *number > 2)?;
    fs::symlink_metadata(format!("/proc/self/fd/{number}")).ok()?;
    // SAFETY: the descriptor is open, as was just seen; this runs first thing in a process that has one thread, each
    // number stands once in the arguments, and nothing else in this process knows them.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(File::from(descriptor).into())
}
