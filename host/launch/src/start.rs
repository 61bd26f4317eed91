//! Starting a group: checks, folder, supervisor, and waiting for its word.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    process::{Command, Stdio},
};

use crate::{
    Attachment, Failure, Group, GroupFolder, GroupLock, InvalidPlan, LaunchPlan, PortError, Record, StateError,
    StateRoot,
    machine::{close_all, keep_open, prepare},
    ports,
    supervisor::Announcement,
};

/// Longest line that a supervisor announces.
const MAX_LINE: u64 = 4 * 1024 * 1024;

/// Why a group was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The supervisor ended without a word.
    #[error("the supervisor of group {name} ended before the group was started; its last words: {words}")]
    Died {
        /// The group.
        name: crate::GroupName,
        /// What it said.
        words: String,
    },
    /// A step of the start failed; the group's folder holds the record and the logs.
    #[error("{}", .0.reason)]
    Failed(Failure),
    /// The supervisor cannot be started.
    #[error("failed to {act}")]
    Host {
        /// What was tried.
        act: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The plan makes no sense.
    #[error(transparent)]
    Plan(#[from] InvalidPlan),
    /// A port cannot be published.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The state on disk is in the way.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A group that runs.
#[derive(Debug)]
pub struct Started {
    /// The group.
    pub group: Group,
    /// Its first container's streams from their first byte on, where that was asked for.
    pub attachment: Option<Attachment>,
}

/// Starts a group and returns when its containers run. The group's supervisor is a process of its own that outlives the
/// caller: the running program, called with the hidden subcommand `__supervise` (see [`crate::supervise`]).
///
/// `attach` asks for the first container's streams, without a gap. `progress` hears of each step of the start.
///
/// # Errors
/// [`StartError`]. After [`StartError::Failed`] and [`StartError::Died`] the group's folder is still there, for its logs:
/// [`Group::remove`] takes it away. After any other error nothing is left.
pub fn start(
    root: &StateRoot,
    plan: &LaunchPlan,
    attach: bool,
    progress: &mut dyn FnMut(&str),
) -> Result<Started, StartError> {
    let program = std::env::current_exe().map_err(host("find the running program"))?;
    start_with(Command::new(program).arg("__supervise"), root, plan, attach, progress)
}

/// As [`start`], with the `supervisor` command given: its further arguments are added here.
///
/// # Errors
/// As [`start`].
pub fn start_with(
    supervisor: &mut Command,
    root: &StateRoot,
    plan: &LaunchPlan,
    attach: bool,
    progress: &mut dyn FnMut(&str),
) -> Result<Started, StartError> {
    plan.validate()?;
    ports::check_free(&plan.ports)?;
    let (folder, lock) = root.create(&plan.name, |folder| {
        folder.write_plan(plan)?;
        folder.write_record(&Record::new(plan))
    })?;
    let attached = if attach { Some(UnixStream::pair().map_err(host("make a socket pair"))?) } else { None };
    let (ours, theirs) = attached.map_or((None, None), |(ours, theirs)| (Some(ours), Some(theirs)));
    match spawn(supervisor, root, &folder, lock, theirs) {
        Ok(announcements) => {
            listen(&folder, announcements, progress)?;
            let first = ours.zip(plan.containers.first());
            let attachment = first.map(|(stream, container)| Attachment::first(stream, &container.create));
            let attachment = attachment.transpose().map_err(host("copy a descriptor"))?;
            Ok(Started { group: Group::of(root, folder), attachment })
        }
        Err(error) => {
            root.remove(&folder)?;
            Err(error)
        }
    }
}

/// Starts the supervisor in a session of its own and gives the announcements' reading end. This process's copies of what
/// the supervisor inherits are closed on return: the lock is then the supervisor's alone.
fn spawn(
    command: &mut Command,
    root: &StateRoot,
    folder: &GroupFolder,
    lock: GroupLock,
    attached: Option<UnixStream>,
) -> Result<io::PipeReader, StartError> {
    let log = File::options().append(true).create(true).mode(0o600).open(folder.supervisor_log());
    // The supervisor bounds it as soon as it runs (`Messages`); what it says before that is a line.
    let log = log.map_err(host("make supervisor.log"))?;
    let (reader, writer) = io::pipe().map_err(host("make a pipe"))?;
    let writer = OwnedFd::from(writer);
    let inherited: Vec<_> = [Some(lock.as_fd()), Some(writer.as_fd()), attached.as_ref().map(AsFd::as_fd)]
        .into_iter()
        .flatten()
        .map(|descriptor| descriptor.as_raw_fd())
        .collect();
    command.arg(root.path()).arg(folder.name().as_str()).args(inherited.iter().map(ToString::to_string));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/");
    prepare(command, move || {
        rustix::process::setsid()?;
        close_all()?;
        inherited.iter().try_for_each(|descriptor| keep_open(*descriptor))
    });
    let mut child = command.spawn().map_err(host("start the supervisor"))?;
    // It outlives this process; while this one lives, somebody must take note of its end.
    let reaper = std::thread::Builder::new().name("reap-supervisor".into()).spawn(move || child.wait());
    reaper.map_err(host("start a thread"))?;
    Ok(reader)
}

/// Waits for the supervisor's last announcement.
fn listen(
    folder: &GroupFolder,
    announcements: io::PipeReader,
    progress: &mut dyn FnMut(&str),
) -> Result<(), StartError> {
    let mut reader = BufReader::new(io::Read::take(announcements, MAX_LINE));
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        match serde_json::from_slice::<Announcement>(&line) {
            Ok(Announcement::Step { name }) => progress(&name),
            Ok(Announcement::Started) => return Ok(()),
            Ok(Announcement::Failed(failure)) => return Err(StartError::Failed(failure)),
            Err(_) => break,
        }
        line.clear();
    }
    let words = std::fs::read_to_string(folder.supervisor_log()).unwrap_or_default();
    let words = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("none").to_owned();
    Err(StartError::Died { name: folder.name().clone(), words })
}

fn host(act: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |cause| StartError::Host { act, cause }
}
