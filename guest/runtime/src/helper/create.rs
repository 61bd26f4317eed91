//! A new container, by libcontainer.

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::Arc,
};

use libcontainer::{
    container::builder::ContainerBuilder,
    oci_spec::runtime::Spec,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use rustix::fs::{Mode, OFlags};

use super::{Failure, Made, status_pipe};
use crate::{ProcessPlan, channel::Channel, execute};

/// Name of the socket over which a container's init hands out its terminal.
const CONSOLE: &str = "console.sock";

/// Makes the container of `bundle`; its init waits to be started.
pub(super) fn create(
    name: &str,
    bundle: &Path,
    state: &Path,
    plan: &ProcessPlan,
    streams: Vec<OwnedFd>,
) -> Result<Made, Failure> {
    let (status, status_writer) = status_pipe()?;
    let executor = PlannedExecutor {
        args: plan.args.clone(),
        env: plan.env.clone(),
        status: Arc::new(OwnedFd::from(status_writer)),
    };
    let mut builder = ContainerBuilder::new(name.to_owned(), SyscallType::default())
        .with_root_path(state)?
        .with_executor(executor)
        .validate_id()?;
    let mut descriptors = vec![OwnedFd::from(status)];
    let console = if streams.is_empty() { Some(UnixListener::bind(bundle.join(CONSOLE))?) } else { None };
    if console.is_some() {
        builder = builder.with_console_socket(Some(bundle.join(CONSOLE)));
    }
    let mut streams = streams.into_iter();
    if let (Some(input), Some(output), Some(error)) = (streams.next(), streams.next(), streams.next()) {
        builder = builder.with_stdin(input).with_stdout(output).with_stderr(error);
    }
    let container = builder.as_init(bundle).with_systemd(false).with_detach(true).build()?;
    let pid = container.pid().ok_or("libcontainer made no process")?.as_raw();
    if let Some(console) = console {
        descriptors.push(terminal(&console)?);
    }
    Ok(Made { pid, descriptors, go: None })
}

/// The terminal that init sent while it was set up.
fn terminal(console: &UnixListener) -> Result<OwnedFd, Failure> {
    // Init has sent it before libcontainer returned: nothing is waited for.
    console.set_nonblocking(true)?;
    let (stream, _) = console.accept()?;
    receive_terminal(stream)
}

fn receive_terminal(stream: UnixStream) -> Result<OwnedFd, Failure> {
    stream.set_nonblocking(true)?;
    let mut descriptors = Channel::from_fd(stream.into()).receive_descriptors()?;
    if descriptors.len() != 1 {
        return Err("the container made no terminal".into());
    }
    descriptors.pop().ok_or_else(|| "the container made no terminal".into())
}

/// libcontainer gives a stream that leads nowhere the container's own `/dev/null`, but only for reading: a program that
/// writes to it would be told of a bad descriptor.
fn open_for_writing() -> io::Result<()> {
    if let Some(null) = writable(rustix::stdio::stdout())? {
        rustix::stdio::dup2_stdout(&null)?;
    }
    if let Some(null) = writable(rustix::stdio::stderr())? {
        rustix::stdio::dup2_stderr(&null)?;
    }
    Ok(())
}

/// `/dev/null` for reading and writing, where `stream` is it and can only be read.
fn writable(stream: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    if rustix::fs::fcntl_getfl(stream)? & OFlags::ACCMODE != OFlags::RDONLY {
        return Ok(None);
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty())?;
    let same = rustix::fs::fstat(stream)?.st_rdev == rustix::fs::fstat(&null)?.st_rdev;
    Ok(same.then_some(null))
}

/// Executes exactly the plan's arguments with exactly its environment.
#[derive(Clone)]
struct PlannedExecutor {
    args: Vec<String>,
    env: Vec<String>,
    status: Arc<OwnedFd>,
}

impl Executor for PlannedExecutor {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let error = match open_for_writing() {
            Ok(()) => execute::execute(&self.args, &self.env),
            Err(error) => error,
        };
        execute::report_failure(&self.status, &error);
        Err(ExecutorError::Other(error.to_string()))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// libcontainer's environment is not used: see [`Self::exec`].
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, os::fd::AsFd as _};

    use super::*;

    #[test]
    fn a_stream_to_nowhere_can_be_written_to() {
        let read_only = File::open("/dev/null").unwrap();
        let null = writable(read_only.as_fd()).unwrap().unwrap();
        File::from(null).write_all(b"x").unwrap();
        let both = File::options().read(true).write(true).open("/dev/null").unwrap();
        let other = File::open("/dev/zero").unwrap();
        assert!(writable(both.as_fd()).unwrap().is_none() && writable(other.as_fd()).unwrap().is_none());
    }
}
