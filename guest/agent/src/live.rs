//! Processes as everybody who waits for them sees them: output, input, exits. None of it changes what runs.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use caveau_protocol::{AgentReply, ContainerId, EventKind, Exit, MAX_CHUNK, Output, ProcessId, Stream};
use caveau_runtime::{Process, Watch};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{
    answer::{Answer, failed, invalid},
    events::Events,
};

/// Longest wait of one request.
const LONGEST: Duration = Duration::from_secs(60);

/// How long input may wait for room before the host is told how much was taken.
const INPUT: Duration = Duration::from_secs(10);

/// Ended processes of one container, its first not counted, whose streams and exits are kept for a host that comes late.
const KEPT_ENDED: usize = 32;

/// A process that somebody may wait for.
#[derive(Clone, Debug)]
struct Watched {
    watch: Watch,
    announced: bool,
}

/// All processes since their start, until their container is deleted.
#[derive(Debug, Default)]
pub(crate) struct Live {
    processes: Mutex<BTreeMap<ProcessId, Watched>>,
    ended: Condvar,
    /// What happened.
    pub(crate) events: Events,
}

impl Live {
    /// A process was made. Of those that ended in its container the oldest are forgotten, with what they wrote: a container
    /// in which something is executed every second must not fill the guest.
    pub(crate) fn insert(&self, id: ProcessId, process: &Process) {
        let mut processes = self.lock();
        let ended = processes.iter().filter(|(other, process)| {
            other.container == id.container && other.exec.is_some() && process.watch.exit().is_some()
        });
        let ended: Vec<ProcessId> = ended.map(|(other, _)| other.clone()).collect();
        for oldest in ended.iter().take((ended.len().saturating_add(1)).saturating_sub(KEPT_ENDED)) {
            processes.remove(oldest);
        }
        processes.insert(id, Watched { watch: process.watch(), announced: false });
        drop(processes);
        // It may have ended before it was known here.
        self.exited();
    }

    /// A container and all its processes are gone.
    pub(crate) fn remove(&self, container: &ContainerId) {
        self.lock().retain(|id, _| id.container != *container);
        self.ended.notify_all();
    }

    /// Some process ended: wakes who waits, and tells of containers that are over.
    pub(crate) fn exited(&self) {
        let mut processes = self.lock();
        let over = processes.iter_mut().filter(|(id, process)| id.exec.is_none() && !process.announced);
        for (id, process) in over {
            if let Some(status) = process.watch.exit() {
                process.announced = true;
                self.events.push(EventKind::ContainerExited { container: id.container.clone(), code: status.code });
            }
        }
        self.ended.notify_all();
    }

    /// Output of a process: what there is, or the end, or nothing within the time.
    pub(crate) fn read(&self, id: &ProcessId, stream: Stream, max: u32, limit: Duration) -> Answer {
        let process = self.find(id)?;
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        if !(1..=MAX_CHUNK).contains(&max) {
            return Err(invalid(format!("invalid number of bytes {max}: ask for 1 to {MAX_CHUNK}")));
        }
        let source = match stream {
            Stream::Stdout => process.watch.stdio().output(),
            Stream::Stderr => process.watch.stdio().error(),
        };
        let Some(source) = source else { return Ok((AgentReply::Output(Output { eof: true }), Vec::new())) };
        let mut bytes = vec![0; max];
        let count =
            read_within(source, &mut bytes, limit.min(LONGEST)).map_err(|error| failed("read output", &error))?;
        bytes.truncate(count.unwrap_or(0));
        Ok((AgentReply::Output(Output { eof: count == Some(0) }), bytes))
    }

    /// Hands input to a process, as much as it takes within a while.
    pub(crate) fn write(&self, id: &ProcessId, bytes: &[u8]) -> Answer {
        let process = self.find(id)?;
        if bytes.len() > MAX_CHUNK {
            return Err(invalid(format!("input of {} bytes: send at most {MAX_CHUNK}", bytes.len())));
        }
        let end = Instant::now().checked_add(INPUT);
        let mut written = 0usize;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match process.watch.stdio().write_input(rest) {
                None => return Err(invalid("the process's standard input is closed")),
                Some(Ok(count)) => written = written.saturating_add(count),
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = end.and_then(|end| end.checked_duration_since(Instant::now()));
                    let Some(left) = left.filter(|left| !left.is_zero()) else { break };
                    let Some(Ok(descriptor)) = process.watch.stdio().input_to_poll() else { break };
                    wait_for(descriptor.as_fd(), PollFlags::OUT, left)
                        .map_err(|error| failed("wait for input", &error))?;
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(error)) => return Err(failed("write input", &error)),
            }
        }
        // At most MAX_CHUNK, which fits.
        Ok((AgentReply::Written { bytes: u32::try_from(written).unwrap_or(u32::MAX) }, Vec::new()))
    }

    /// Closes a process's input.
    pub(crate) fn close_input(&self, id: &ProcessId) -> Answer {
        self.find(id)?.watch.stdio().close_input();
        crate::answer::done()
    }

    /// Tells a process's terminal its size.
    pub(crate) fn resize(&self, id: &ProcessId, rows: u16, columns: u16) -> Answer {
        self.find(id)?.watch.stdio().resize(rows, columns).map_err(|error| failed("resize the terminal", &error))?;
        crate::answer::done()
    }

    /// How a process ended, waited for until `limit` is over.
    pub(crate) fn wait(&self, id: &ProcessId, limit: Duration) -> Answer {
        let end = Instant::now().checked_add(limit.min(LONGEST)).ok_or_else(|| invalid("the time is too long"))?;
        let mut processes = self.lock();
        loop {
            let process = processes.get(id).ok_or_else(|| unknown(id))?;
            if let Some(status) = process.watch.exit() {
                let exit = Exit { code: status.code, out_of_memory: process.watch.out_of_memory() };
                return Ok((AgentReply::Exit(Some(exit)), Vec::new()));
            }
            let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
            let Some(left) = left else { return Ok((AgentReply::Exit(None), Vec::new())) };
            processes = self.ended.wait_timeout(processes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn find(&self, id: &ProcessId) -> Result<Watched, caveau_protocol::AgentError> {
        self.lock().get(id).cloned().ok_or_else(|| unknown(id))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Watched>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(id: &ProcessId) -> caveau_protocol::AgentError {
    match id.exec {
        Some(exec) => invalid(format!("container {} has no process {exec}", id.container)),
        None => invalid(format!("there is no container {}", id.container)),
    }
}

/// What can be read within the time: the count, 0 for the end; absent where there is nothing.
fn read_within(source: BorrowedFd<'_>, bytes: &mut [u8], limit: Duration) -> io::Result<Option<usize>> {
    let end = Instant::now().checked_add(limit);
    loop {
        match rustix::io::read(source, &mut *bytes) {
            Ok(count) => return Ok(Some(count)),
            // The other side of a terminal has gone: that is its end.
            Err(Errno::IO) => return Ok(Some(0)),
            Err(Errno::AGAIN) => {
                let left = end.and_then(|end| end.checked_duration_since(Instant::now()));
                let Some(left) = left.filter(|left| !left.is_zero()) else { return Ok(None) };
                wait_for(source, PollFlags::IN, left)?;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until a descriptor is ready, or the time is over.
fn wait_for(descriptor: BorrowedFd<'_>, what: PollFlags, limit: Duration) -> io::Result<()> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(&mut [PollFd::from_borrowed_fd(descriptor, what)], Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
