//! Containers and processes as the agent holds them.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::Write as _;

use crate::{
    ContainerPlan, ExitStatus, Ids, ProcessPlan, Reaper, RuntimeError, Stdio, StdioKind,
    cgroup::{Cgroup, PARENT, Usage},
    channel::{Adopted, Answer, Channel, Order, borrow},
    device, execute,
    files::complete,
    helper::HELPER_NAME,
    reaper::Exit,
    signal,
    spec::specification,
};

/// How long a helper may take for an answer.
const HELPER_LIMIT: Duration = Duration::from_secs(60);

/// How long a process that was let go may take until its program runs.
const EXECUTION_LIMIT: Duration = Duration::from_secs(10);

/// The same for a container's first process: nothing in the container could hold that up, but the host is slow at times.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Makes containers. One at a time: whoever has it is the only one who makes any.
#[derive(Debug)]
pub struct Runtime {
    folder: PathBuf,
    reaper: Arc<Reaper>,
    made: u32,
}

impl Runtime {
    /// Keeps containers' files below `folder`, a folder in memory that nothing else uses.
    #[must_use]
    pub fn new(folder: PathBuf, reaper: Arc<Reaper>) -> Self {
        Self { folder, reaper, made: 0 }
    }

    /// Makes a container, and what its image lacks for it; its init is confined and waits for [`Container::start`].
    ///
    /// # Errors
    /// [`RuntimeError`]; nothing of it is left then.
    pub fn create(&mut self, plan: &ContainerPlan, stdio: StdioKind) -> Result<Container, RuntimeError> {
        self.made = self.made.saturating_add(1);
        let name = format!("c{}", self.made);
        let bundle = self.folder.join(&name);
        let cgroup = Cgroup::new(&format!("{PARENT}/{name}"));
        let made = self.create_in(plan, stdio, &name, &bundle, &cgroup);
        made.inspect_err(|_| {
            // The cause is told; what is left of the attempt goes with the guest at the latest.
            let _ = cgroup.kill().and_then(|()| cgroup.remove());
            let _ = fs::remove_dir_all(&bundle);
        })
    }

    fn create_in(
        &self,
        plan: &ContainerPlan,
        stdio: StdioKind,
        name: &str,
        bundle: &Path,
        cgroup: &Cgroup,
    ) -> Result<Container, RuntimeError> {
        complete(plan)?;
        let specification = specification(plan, &format!("/{PARENT}/{name}"))?;
        fs::create_dir_all(bundle).map_err(RuntimeError::file(bundle))?;
        let plan_file = bundle.join("process.json");
        write_json(&bundle.join("config.json"), &specification)?;
        write_json(&plan_file, &plan.process)?;
        let state = bundle.join("state");
        let order =
            Order::Create { name: name.to_owned(), bundle: bundle.to_owned(), state: state.clone(), plan: plan_file };
        let (ours, theirs) = Stdio::new(stdio, &plan.process.ids).map_err(RuntimeError::Helper)?;
        let sent = if plan.terminal { Vec::new() } else { theirs.into() };
        let init = Making {
            reaper: &self.reaper,
            order,
            stdio,
            ours,
            program: program(&plan.process),
            ids: &plan.process.ids,
            cgroup,
        }
        .make(sent)?;
        if !plan.privileged {
            device::confine(cgroup.open()?.as_fd()).map_err(RuntimeError::Devices)?;
        }
        Ok(Container {
            init,
            cgroup: cgroup.clone(),
            bundle: bundle.to_owned(),
            socket: state.join(name).join("notify.sock"),
            reaper: Arc::clone(&self.reaper),
            executed: 0,
        })
    }
}

/// A container.
#[derive(Debug)]
pub struct Container {
    init: Process,
    cgroup: Cgroup,
    bundle: PathBuf,
    socket: PathBuf,
    reaper: Arc<Reaper>,
    executed: u32,
}

impl Container {
    /// Its first process.
    #[must_use]
    pub fn init(&self) -> &Process {
        &self.init
    }

    /// Lets its first process go, and waits until its program runs.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] or [`RuntimeError::NotExecutable`] where it cannot; [`RuntimeError::State`] where it
    /// was let go before.
    pub fn start(&mut self) -> Result<(), RuntimeError> {
        let status = self.init.status.take().ok_or(RuntimeError::State { state: "has been started before" })?;
        let mut socket = UnixStream::connect(&self.socket).map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => RuntimeError::Ended,
            _ => RuntimeError::Helper(error),
        })?;
        socket.write_all(b"start container").map_err(RuntimeError::Helper)?;
        drop(socket);
        self.init.await_execution(status, START_LIMIT)
    }

    /// Runs one more process, and waits until its program runs.
    ///
    /// # Errors
    /// [`RuntimeError`]; no process is left then.
    pub fn execute(&mut self, plan: &ProcessPlan, stdio: StdioKind) -> Result<Process, RuntimeError> {
        plan.check()?;
        if self.init.status.is_some() {
            return Err(RuntimeError::State { state: "has not been started" });
        }
        if self.init.exit().is_some() {
            return Err(RuntimeError::Ended);
        }
        self.executed = self.executed.saturating_add(1);
        let plan_file = self.bundle.join(format!("exec-{}.json", self.executed));
        write_json(&plan_file, plan)?;
        let made = self.enter(plan, stdio, &plan_file);
        fs::remove_file(&plan_file).map_err(RuntimeError::file(&plan_file))?;
        let mut process = made?;
        let status = process.status.take().ok_or(RuntimeError::Ended)?;
        process.await_execution(status, EXECUTION_LIMIT)?;
        Ok(process)
    }

    fn enter(&self, plan: &ProcessPlan, stdio: StdioKind, plan_file: &Path) -> Result<Process, RuntimeError> {
        let order = Order::Enter {
            plan: plan_file.to_owned(),
            cgroup: self.cgroup.path().to_owned(),
            terminal: stdio.terminal.is_some(),
        };
        let (ours, theirs) = Stdio::new(stdio, &plan.ids).map_err(RuntimeError::Helper)?;
        let init = self.init.handle.try_clone().map_err(RuntimeError::Helper)?;
        let sent =
            [init].into_iter().chain(if stdio.terminal.is_some() { Vec::new() } else { theirs.into() }).collect();
        Making {
            reaper: &self.reaper,
            order,
            stdio,
            ours,
            program: program(plan),
            ids: &plan.ids,
            cgroup: &self.cgroup,
        }
        .make(sent)
    }

    /// What it uses.
    ///
    /// # Errors
    /// Where its cgroup is gone.
    pub fn usage(&self) -> Result<Usage, RuntimeError> {
        self.cgroup.usage()
    }

    /// Whether its first process was let go.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.init.status.is_none()
    }

    /// Kills whatever runs in it.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn kill(&self) -> Result<(), RuntimeError> {
        self.cgroup.kill()
    }

    /// Kills whatever runs in it and frees what it held, but for its root file system.
    ///
    /// # Errors
    /// Where the kernel keeps something of it; it can be tried again.
    pub fn delete(&mut self) -> Result<(), RuntimeError> {
        self.cgroup.kill()?;
        self.cgroup.remove()?;
        match fs::remove_dir_all(&self.bundle) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RuntimeError::file(&self.bundle)(error)),
            _ => Ok(()),
        }
    }
}

/// A process of a container.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    handle: OwnedFd,
    exit: Arc<Exit>,
    stdio: Arc<Stdio>,
    program: String,
    status: Option<OwnedFd>,
    cgroup: Cgroup,
}

impl Process {
    /// Its number as the agent sees it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its streams.
    #[must_use]
    pub fn stdio(&self) -> &Stdio {
        &self.stdio
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<ExitStatus> {
        self.exit.status()
    }

    /// Its streams and its end, for whoever waits for them.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch { stdio: Arc::clone(&self.stdio), exit: Arc::clone(&self.exit), cgroup: self.cgroup.clone() }
    }

    /// Waits until its program runs; one that does not come as far within `limit` is killed.
    fn await_execution(&self, status: OwnedFd, limit: Duration) -> Result<(), RuntimeError> {
        execute::await_execution(status, &self.program, limit).inspect_err(|error| {
            if matches!(error, RuntimeError::Stalled { .. }) {
                // One that has ended in the meantime needs no signal. A stopped process does not escape this one.
                let _ = self.signal(9);
            }
        })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`RuntimeError::Ended`] where it has ended.
    pub fn signal(&self, number: u8) -> Result<(), RuntimeError> {
        signal::send(self.handle.as_fd(), number)
    }
}

/// What there is to see of a process without a hold on it.
#[derive(Clone, Debug)]
pub struct Watch {
    stdio: Arc<Stdio>,
    exit: Arc<Exit>,
    cgroup: Cgroup,
}

impl Watch {
    /// Its streams.
    #[must_use]
    pub fn stdio(&self) -> &Stdio {
        &self.stdio
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<ExitStatus> {
        self.exit.status()
    }

    /// Whether a signal ended it in a container of which the kernel killed something for want of memory.
    #[must_use]
    pub fn out_of_memory(&self) -> bool {
        self.exit().is_some_and(|status| status.signaled) && self.cgroup.out_of_memory()
    }
}

/// A process that a helper is to make.
struct Making<'r> {
    reaper: &'r Reaper,
    order: Order,
    stdio: StdioKind,
    ours: Stdio,
    program: String,
    ids: &'r Ids,
    cgroup: &'r Cgroup,
}

impl Making<'_> {
    /// Starts a helper, gives it the order, and adopts what it made before it ends.
    fn make(mut self, sent: Vec<OwnedFd>) -> Result<Process, RuntimeError> {
        let (channel, theirs) = Channel::pair(HELPER_LIMIT).map_err(RuntimeError::Helper)?;
        let helper = Helper::start(self.reaper, theirs)?;
        channel.send(&self.order, &borrow(&sent)).map_err(RuntimeError::Helper)?;
        drop(sent);
        let (pid, descriptors) = match channel.receive::<Answer>().map_err(RuntimeError::Helper)? {
            (Answer::Made { pid }, descriptors) => (pid, descriptors),
            (Answer::Failed { reason }, _) => return Err(RuntimeError::SetUp { reason }),
        };
        let gone = || RuntimeError::Helper(io::ErrorKind::InvalidData.into());
        let handle = Pid::from_raw(pid).ok_or_else(gone)?;
        let handle = pidfd_open(handle, PidfdFlags::empty()).map_err(|error| RuntimeError::Helper(error.into()))?;
        let exit = self.reaper.adopt(pid);
        let mut descriptors = descriptors.into_iter();
        let status = descriptors.next().ok_or_else(gone)?;
        if self.stdio.terminal.is_some() {
            let master = descriptors.next().ok_or_else(gone)?;
            self.ours.set_terminal(master, self.stdio, self.ids).map_err(RuntimeError::Helper)?;
        }
        channel.send(&Adopted, &[]).map_err(RuntimeError::Helper)?;
        helper.done();
        Ok(Process {
            pid,
            handle,
            exit,
            stdio: Arc::new(self.ours),
            program: self.program,
            status: Some(status),
            cgroup: self.cgroup.clone(),
        })
    }
}

/// A running helper; killed where it is not done.
struct Helper {
    handle: OwnedFd,
    done: bool,
}

impl Helper {
    fn start(reaper: &Reaper, channel: OwnedFd) -> Result<Self, RuntimeError> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(HELPER_NAME).env_clear().current_dir("/").stdin(channel);
        let (pid, _) = reaper.spawn(&mut command).map_err(RuntimeError::Helper)?;
        let pid = Pid::from_raw(pid).ok_or(RuntimeError::Ended)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| RuntimeError::Helper(error.into()))?;
        Ok(Self { handle, done: false })
    }

    /// It ends by itself now.
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if !self.done {
            // It may have ended already.
            let _ = signal::send(self.handle.as_fd(), 9);
        }
    }
}

fn program(plan: &ProcessPlan) -> String {
    plan.args.first().cloned().unwrap_or_default()
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), RuntimeError> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::from);
    bytes.and_then(|bytes| fs::write(path, bytes)).map_err(RuntimeError::file(path))
}
