//! Processes as everybody who waits for them sees them: output, input, exits. None of it changes what runs.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use caveau_group::KeyDigest;
use caveau_protocol::{AgentReply, ContainerId, EventKind, Exit, MAX_CHUNK, Output, ProcessId, Stream, TerminalSize};
use caveau_runtime::{ExitStatus, Stdio, Watch};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{
    answer::{Answer, failed, invalid},
    containers::terminal_size,
    events::Events,
    sealed::Sealed,
};

/// Longest wait of one request.
const LONGEST: Duration = Duration::from_secs(60);

/// How long input may wait for room before the host is told how much was taken.
const INPUT: Duration = Duration::from_secs(10);

/// The same for an owner.
const OWNERS_INPUT: Duration = Duration::from_millis(50);

/// Ended processes of one container, its first not counted, whose exits are kept although the host has heard all of them.
const KEPT_HEARD: usize = 32;

/// Ended processes of one container that the host may leave unheard: each holds what it wrote.
const MAX_UNHEARD: usize = 512;

/// What there is to see of a process.
pub(crate) trait Seen: std::fmt::Debug + Send + Sync {
    /// Its streams.
    fn stdio(&self) -> &Stdio;

    /// How it ended, if it has.
    fn exit(&self) -> Option<ExitStatus>;

    /// Whether it was killed for want of memory.
    fn out_of_memory(&self) -> bool;
}

impl Seen for Watch {
    fn stdio(&self) -> &Stdio {
        self.stdio()
    }

    fn exit(&self) -> Option<ExitStatus> {
        self.exit()
    }

    fn out_of_memory(&self) -> bool {
        self.out_of_memory()
    }
}

/// Who sees a process's streams and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Viewer {
    /// The host.
    Host,
    /// The owner who had it run.
    Owner(KeyDigest),
}

/// A process that somebody may wait for.
#[derive(Clone, Debug)]
struct Watched {
    watch: Arc<dyn Seen>,
    viewer: Viewer,
    /// Whether its output is kept from its viewer: see [`Sealed`].
    is_sealed: bool,
    announced: bool,
    heard: Heard,
}

/// What the host has heard of a process.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    output: bool,
    error: bool,
    exit: bool,
}

impl Watched {
    /// Whether the host has heard all there ever will be: then nothing is lost where the process is forgotten.
    fn is_heard(&self) -> bool {
        self.heard.exit
            && (self.heard.output || self.output(Stream::Stdout).is_none())
            && (self.heard.error || self.output(Stream::Stderr).is_none())
    }

    /// A stream that its viewer may read.
    fn output(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        let stdio = self.watch.stdio();
        match stream {
            _ if self.is_sealed => None,
            Stream::Stdout => stdio.output(),
            Stream::Stderr => stdio.error(),
        }
    }
}

/// All processes since their start, until their container is deleted.
#[derive(Debug)]
pub(crate) struct Live {
    processes: Mutex<BTreeMap<ProcessId, Watched>>,
    ended: Condvar,
    /// How long input may wait for room.
    patience: Duration,
    /// What happened.
    pub(crate) events: Events,
    /// Output that the host does not get.
    pub(crate) sealed: Arc<Sealed>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            processes: Mutex::default(),
            ended: Condvar::new(),
            patience: INPUT,
            events: Events::default(),
            sealed: Arc::default(),
        }
    }
}

impl Live {
    /// A process was made. Of those in its container that have ended, and of which the host has heard everything, the
    /// oldest are forgotten: a container in which something is executed every second must not fill the guest.
    pub(crate) fn insert(&self, id: ProcessId, watch: Arc<dyn Seen>, viewer: Viewer) {
        self.add(id, Watched { watch, viewer, is_sealed: false, announced: false, heard: Heard::default() });
    }

    /// A process was made whose output the host does not get, and owners may read.
    ///
    /// # Errors
    /// Where threads that read it cannot be started.
    pub(crate) fn insert_sealed(&self, id: ProcessId, watch: Arc<dyn Seen>) -> io::Result<()> {
        self.sealed.keep(&id.container, &watch)?;
        let viewer = Viewer::Host;
        self.add(id, Watched { watch, viewer, is_sealed: true, announced: false, heard: Heard::default() });
        Ok(())
    }

    fn add(&self, id: ProcessId, watched: Watched) {
        let mut processes = self.lock();
        let executed = processes.iter().filter(|(other, _)| other.container == id.container && other.exec.is_some());
        let heard: Vec<ProcessId> =
            executed.filter(|(_, process)| process.is_heard()).map(|(other, _)| other.clone()).collect();
        for oldest in heard.iter().take((heard.len().saturating_add(1)).saturating_sub(KEPT_HEARD)) {
            processes.remove(oldest);
        }
        processes.insert(id, watched);
        drop(processes);
        // It may have ended before it was known here.
        self.exited();
    }

    /// Whether one more process may be executed in a container: not where the host leaves unheard what so many wrote.
    pub(crate) fn has_room(&self, container: &ContainerId) -> bool {
        let processes = self.lock();
        let executed = processes.iter().filter(|(id, _)| id.container == *container && id.exec.is_some());
        let unheard = executed.filter(|(_, process)| process.watch.exit().is_some() && !process.is_heard());
        unheard.count() < MAX_UNHEARD
    }

    /// How many containers there are.
    pub(crate) fn containers(&self) -> usize {
        self.container_ids().len()
    }

    /// The containers that there are.
    pub(crate) fn container_ids(&self) -> Vec<ContainerId> {
        let processes = self.lock();
        processes.keys().filter(|id| id.exec.is_none()).map(|id| id.container.clone()).collect()
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
    pub(crate) fn read(&self, id: &ProcessId, viewer: Viewer, stream: Stream, max: u32, limit: Duration) -> Answer {
        let process = self.find(id, viewer)?;
        let max = chunk(max)?;
        let Some(source) = process.output(stream) else {
            return Ok((AgentReply::Output(Output { eof: true }), Vec::new()));
        };
        let mut bytes = vec![0; max];
        let count =
            read_within(source, &mut bytes, limit.min(LONGEST)).map_err(|error| failed("read output", &error))?;
        bytes.truncate(count.unwrap_or(0));
        let eof = count == Some(0);
        if eof {
            self.hear(id, |heard| match stream {
                Stream::Stdout => heard.output = true,
                Stream::Stderr => heard.error = true,
            });
        }
        Ok((AgentReply::Output(Output { eof }), bytes))
    }

    /// Hands input to a process, as much as it takes within a while.
    pub(crate) fn write(&self, id: &ProcessId, viewer: Viewer, bytes: &[u8]) -> Answer {
        let process = self.find(id, viewer)?;
        if bytes.len() > MAX_CHUNK {
            return Err(invalid(format!("input of {} bytes: send at most {MAX_CHUNK}", bytes.len())));
        }
        // An owner's requests are answered one after the other: the next may be what makes room.
        let patience = if viewer == Viewer::Host { self.patience } else { self.patience.min(OWNERS_INPUT) };
        let end = Instant::now().checked_add(patience);
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
    pub(crate) fn close_input(&self, id: &ProcessId, viewer: Viewer) -> Answer {
        self.find(id, viewer)?.watch.stdio().close_input();
        crate::answer::done()
    }

    /// Tells a process's terminal its size.
    pub(crate) fn resize(&self, id: &ProcessId, viewer: Viewer, size: TerminalSize) -> Answer {
        self.find(id, viewer)?
            .watch
            .stdio()
            .resize(terminal_size(size))
            .map_err(|error| failed("resize the terminal", &error))?;
        crate::answer::done()
    }

    /// How a process ended, waited for until `limit` is over.
    pub(crate) fn wait(&self, id: &ProcessId, viewer: Viewer, limit: Duration) -> Answer {
        let end = Instant::now().checked_add(limit.min(LONGEST)).ok_or_else(|| invalid("the time is too long"))?;
        let mut processes = self.lock();
        loop {
            let process = processes.get_mut(id).filter(|process| process.viewer == viewer);
            let process = process.ok_or_else(|| unknown(id))?;
            if let Some(status) = process.watch.exit() {
                process.heard.exit = true;
                let exit = Exit { code: status.code, out_of_memory: process.watch.out_of_memory() };
                return Ok((AgentReply::Exit(Some(exit)), Vec::new()));
            }
            let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
            let Some(left) = left else { return Ok((AgentReply::Exit(None), Vec::new())) };
            processes = self.ended.wait_timeout(processes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn hear(&self, id: &ProcessId, note: impl FnOnce(&mut Heard)) {
        if let Some(process) = self.lock().get_mut(id) {
            note(&mut process.heard);
        }
    }

    /// The process, where it is this one's to see: of others' it is not told that there are any.
    fn find(&self, id: &ProcessId, viewer: Viewer) -> Result<Watched, caveau_protocol::AgentError> {
        let processes = self.lock();
        processes.get(id).filter(|process| process.viewer == viewer).cloned().ok_or_else(|| unknown(id))
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

/// How many bytes a request asks for, where a reply has room for so many.
pub(crate) fn chunk(max: u32) -> Result<usize, caveau_protocol::AgentError> {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    if (1..=MAX_CHUNK).contains(&max) {
        return Ok(max);
    }
    Err(invalid(format!("invalid number of bytes {max}: ask for 1 to {MAX_CHUNK}")))
}

/// What can be read within the time: the count, 0 for the end; absent where there is nothing.
pub(crate) fn read_within(source: BorrowedFd<'_>, bytes: &mut [u8], limit: Duration) -> io::Result<Option<usize>> {
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
pub(crate) fn wait_for(descriptor: BorrowedFd<'_>, what: PollFlags, limit: Duration) -> io::Result<()> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(&mut [PollFd::from_borrowed_fd(descriptor, what)], Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{io::Write as _, os::fd::OwnedFd, sync::OnceLock};

    use caveau_protocol::ErrorKind;
    use caveau_runtime::{Ids, StdioKind};

    use super::*;

    /// A process that is not there: its streams, and an end when the test says so.
    #[derive(Debug, Default)]
    pub(crate) struct Running {
        stdio: Stdio,
        exit: OnceLock<ExitStatus>,
    }

    impl Seen for Running {
        fn stdio(&self) -> &Stdio {
            &self.stdio
        }

        fn exit(&self) -> Option<ExitStatus> {
            self.exit.get().copied()
        }

        fn out_of_memory(&self) -> bool {
            false
        }
    }

    impl Running {
        /// With pipes: itself, and its own ends.
        pub(crate) fn attached() -> (Arc<Self>, [OwnedFd; 3]) {
            let user = rustix::process::getuid().as_raw();
            let ids = Ids { uid: user, gid: rustix::process::getgid().as_raw(), ..Ids::default() };
            let kind = StdioKind { attached: true, input: true, terminal: None };
            let (stdio, ends) = Stdio::new(kind, &ids).unwrap();
            (Arc::new(Self { stdio, exit: OnceLock::new() }), ends)
        }

        pub(crate) fn end(&self, live: &Live, code: u8) {
            self.exit.set(ExitStatus { code, signaled: false }).unwrap();
            live.exited();
        }
    }

    const HOST: Viewer = Viewer::Host;
    const SHORT: Duration = Duration::from_millis(1);

    fn container() -> ContainerId {
        ContainerId::from_bytes([7; 32])
    }

    fn executed(number: u32) -> ProcessId {
        ProcessId { container: container(), exec: Some(number) }
    }

    fn output(live: &Live, id: &ProcessId, stream: Stream) -> Result<(Vec<u8>, bool), ErrorKind> {
        match live.read(id, HOST, stream, 100, SHORT) {
            Ok((AgentReply::Output(output), bytes)) => Ok((bytes, output.eof)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.kind),
        }
    }

    /// One that has written `text` and ended.
    fn ended(live: &Live, number: u32, text: &str) {
        let (process, ends) = Running::attached();
        std::fs::File::from(ends.map(Some)[1].take().unwrap()).write_all(text.as_bytes()).unwrap();
        live.insert(executed(number), process.clone(), HOST);
        process.end(live, 3);
    }

    #[test]
    fn what_an_ended_process_wrote_is_kept_until_it_is_read() {
        let live = Live::default();
        for number in 0..2 * KEPT_HEARD as u32 {
            ended(&live, number, "words");
        }
        assert_eq!(output(&live, &executed(0), Stream::Stdout), Ok((b"words".to_vec(), false)));
        assert!(live.wait(&executed(0), HOST, SHORT).is_ok());
    }

    #[test]
    fn ended_processes_are_forgotten_once_all_of_them_was_heard() {
        let live = Live::default();
        for number in 0..2 * KEPT_HEARD as u32 {
            ended(&live, number, "");
            assert_eq!(output(&live, &executed(number), Stream::Stdout), Ok((vec![], true)));
            assert_eq!(output(&live, &executed(number), Stream::Stderr), Ok((vec![], true)));
            assert!(live.wait(&executed(number), HOST, SHORT).is_ok());
        }
        assert_eq!(output(&live, &executed(0), Stream::Stdout), Err(ErrorKind::Invalid));
        assert_eq!(live.lock().len(), KEPT_HEARD);
    }

    #[test]
    fn a_host_that_hears_nothing_gets_no_more_processes() {
        let live = Live::default();
        for number in 0..MAX_UNHEARD as u32 {
            assert!(live.has_room(&container()));
            let process = Arc::new(Running::default());
            live.insert(executed(number), process.clone(), HOST);
            process.end(&live, 0);
        }
        assert!(!live.has_room(&container()));
        assert!(live.has_room(&ContainerId::from_bytes([8; 32])));
        live.wait(&executed(0), HOST, SHORT).unwrap();
        assert!(live.has_room(&container()));
    }

    #[test]
    fn input_without_room_is_counted_and_comes_whole_afterwards() {
        let live = Live { patience: SHORT, ..Live::default() };
        let (process, [input, ..]) = Running::attached();
        live.insert(executed(1), process, HOST);
        let written = |bytes: &[u8]| match live.write(&executed(1), HOST, bytes) {
            Ok((AgentReply::Written { bytes }, _)) => bytes as usize,
            other => panic!("{other:?}"),
        };
        let chunk = [b'x'; MAX_CHUNK];
        let mut sum = 0;
        loop {
            match written(&chunk) {
                0 => break,
                some => sum += some,
            }
        }
        assert_eq!(written(b"y"), 0, "nothing is taken, and nothing is an error");
        let mut buffer = [0; 4096];
        let mut seen = 0;
        while seen < sum {
            seen += rustix::io::read(&input, &mut buffer).unwrap();
        }
        assert_eq!((seen, written(b"y")), (sum, 1));
        drop(input);
        assert_eq!(live.write(&executed(1), HOST, b"z").unwrap_err().kind, ErrorKind::Failed);
        live.close_input(&executed(1), HOST).unwrap();
        assert_eq!(live.write(&executed(1), HOST, b"z").unwrap_err().kind, ErrorKind::Invalid);
    }

    #[test]
    fn what_is_anothers_is_not_there() {
        let live = Live::default();
        let (process, ends) = Running::attached();
        let owner = Viewer::Owner(KeyDigest::of(b"one"));
        live.insert(executed(1), process.clone(), owner);
        std::fs::File::from(ends.map(Some)[1].take().unwrap()).write_all(b"secret").unwrap();
        process.end(&live, 0);
        for other in [HOST, Viewer::Owner(KeyDigest::of(b"two"))] {
            assert!(live.read(&executed(1), other, Stream::Stdout, 9, SHORT).is_err());
            assert!(live.wait(&executed(1), other, SHORT).is_err());
            assert!(live.write(&executed(1), other, b"x").is_err());
            assert!(live.close_input(&executed(1), other).is_err());
            assert!(live.resize(&executed(1), other, TerminalSize::default()).is_err());
        }
        assert_eq!(live.read(&executed(1), owner, Stream::Stdout, 9, SHORT).unwrap().1, b"secret");
        assert!(live.wait(&executed(1), owner, SHORT).is_ok());
    }

    #[test]
    fn sealed_output_is_at_its_end_for_the_host() {
        let live = Live::default();
        let (process, ends) = Running::attached();
        let init = ProcessId::init(container());
        live.insert_sealed(init.clone(), process.clone()).unwrap();
        std::fs::File::from(ends.map(Some)[1].take().unwrap()).write_all(b"secret").unwrap();
        let (reply, bytes) = live.read(&init, HOST, Stream::Stdout, 9, SHORT).unwrap();
        assert_eq!((reply, bytes), (AgentReply::Output(Output { eof: true }), vec![]));
        assert_eq!(live.sealed.read(None, Stream::Stdout, 0, 9, LONGEST).unwrap().1, b"secret");
        process.end(&live, 4);
        let exit = Exit { code: 4, out_of_memory: false };
        assert_eq!(live.wait(&init, HOST, SHORT).unwrap().0, AgentReply::Exit(Some(exit)));
    }

    #[test]
    fn an_end_is_waited_for_and_told_once() {
        let live = Live::default();
        let first = ProcessId::init(container());
        let process = Arc::new(Running::default());
        live.insert(first.clone(), process.clone(), HOST);
        assert_eq!(live.containers(), 1);
        assert_eq!(live.wait(&first, HOST, SHORT).unwrap().0, AgentReply::Exit(None));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| live.wait(&first, HOST, LONGEST).unwrap().0);
            process.end(&live, 9);
            let exit = Exit { code: 9, out_of_memory: false };
            assert_eq!(waiting.join().unwrap(), AgentReply::Exit(Some(exit)));
        });
        live.exited();
        assert_eq!(live.events.next(0, SHORT).unwrap().number, 1);
        assert_eq!(live.events.next(1, SHORT), None);
        live.remove(&container());
        assert_eq!(live.wait(&first, HOST, SHORT).unwrap_err().kind, ErrorKind::Invalid);
    }
}
