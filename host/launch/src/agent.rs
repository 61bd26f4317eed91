//! The connection to the guest's agent: many requests at once over one byte stream, each with its own answer.
//!
//! ```text
//!   call ──▶ queue ──▶ writing thread ──▶ port ──▶ guest
//!   call ◀── slot  ◀── reading thread ◀── port ◀── guest
//! ```
//!
//! The guest is not trusted to answer, nor to answer well: frames are bounded, answers to nothing are dropped, and a
//! call that has a limit ends at it. Calls that move output or input have none, since an answer thrown away would be
//! output lost: they end when the connection does.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use caveau_protocol::{
    AgentError, AgentReply, AgentRequest, ErrorKind, Frame, FrameError, ReplyEnvelope, RequestEnvelope, VERSION,
    read_frame, write_frame,
};

use crate::request_log::RequestLog;

/// Most frames that wait for the port. A guest that does not read stalls its callers, not the supervisor's memory.
const MAX_QUEUED: usize = 64;

/// How long to wait before a busy guest is asked again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long the guest may take to tell what was asked of its policy.
const REQUESTS_LIMIT: Duration = Duration::from_secs(10);

/// Whether the guest asks its policy about a request.
fn is_asked_of_the_policy(request: &AgentRequest) -> bool {
    matches!(
        request,
        AgentRequest::CreateContainer(_)
            | AgentRequest::DeleteContainer { .. }
            | AgentRequest::Exec(_)
            | AgentRequest::LoadFragment
            | AgentRequest::LoadTransparencyTrustList
            | AgentRequest::MountLayer(_)
            | AgentRequest::MountOverlay(_)
            | AgentRequest::MountScratch(_)
            | AgentRequest::Signal { .. }
            | AgentRequest::Stats { .. }
            | AgentRequest::UnmountLayer { .. }
            | AgentRequest::UnmountOverlay { .. }
    )
}

/// What can become of a call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The guest's answer: no.
    #[error(transparent)]
    Agent(AgentError),
    /// The connection has ended.
    #[error("the guest's connection has ended{}", reason(.0.as_deref()))]
    Closed(Option<String>),
    /// The request is too long for a frame.
    #[error("the request cannot be sent")]
    Frame(#[source] FrameError),
    /// No answer within the limit.
    #[error("the guest did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// An answer of another kind than was asked for.
    #[error("the guest answered something else than was asked: {0}")]
    Unexpected(String),
}

fn reason(text: Option<&str>) -> String {
    text.map(|text| format!(": {text}")).unwrap_or_default()
}

/// What a call brings: the answer and its bytes.
pub type Answer = (AgentReply, Vec<u8>);

/// The connection. Cloned, it is the same connection.
#[derive(Clone, Debug)]
pub struct AgentClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stream: UnixStream,
    next: AtomicU64,
    state: Mutex<State>,
    /// Told when the queue has something for the writing thread, or the end has come.
    filled: Condvar,
    /// Told when the queue has room, or the end has come.
    emptied: Condvar,
    /// Where what is asked of the policy is written down.
    requests: OnceLock<RequestLog>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Frame>,
    open: HashMap<u64, SyncSender<Result<Answer, AgentError>>>,
    closed: bool,
    fault: Option<String>,
}

impl AgentClient {
    /// Takes the host's end of the port.
    ///
    /// # Errors
    /// Where the stream cannot be copied or threads cannot be started.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        let (reader, writer) = (stream.try_clone()?, stream.try_clone()?);
        let shared = Arc::new(Shared {
            stream,
            next: AtomicU64::new(1),
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            requests: OnceLock::new(),
        });
        let (for_reader, for_writer) = (Arc::clone(&shared), Arc::clone(&shared));
        std::thread::Builder::new().name("agent-read".into()).spawn(move || for_reader.read_all(reader))?;
        std::thread::Builder::new().name("agent-write".into()).spawn(move || for_writer.write_all(writer))?;
        Ok(Self { shared })
    }

    /// Asks for one step. With a `limit`, an answer that comes later is thrown away. A guest that is busy is asked again
    /// after a pause, until the limit is over.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call(&self, request: AgentRequest, body: Vec<u8>, limit: Option<Duration>) -> Result<Answer, CallError> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
            let answer = self.call_once(request.clone(), body.clone(), left).map_err(|error| match error {
                // What the caller knows of is the whole time.
                CallError::Silent(left) => CallError::Silent(limit.unwrap_or(left)),
                other => other,
            });
            match answer {
                Err(CallError::Agent(error)) if error.kind == ErrorKind::Busy => {
                    if limit.is_some_and(|limit| start.elapsed() + pause >= limit) {
                        return Err(CallError::Agent(error));
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                answer => {
                    if is_asked_of_the_policy(&request) {
                        self.write_requests();
                    }
                    return answer;
                }
            }
        }
    }

    /// Has what is asked of the policy written down from now on.
    ///
    /// # Errors
    /// [`CallError`]: the guest does not do that.
    pub(crate) fn keep_requests(&self, log: RequestLog, limit: Duration) -> Result<(), CallError> {
        self.done(AgentRequest::KeepRequests, limit)?;
        // Set once, at the start.
        let _ = self.shared.requests.set(log);
        Ok(())
    }

    /// Fetches what was asked of the policy and writes it down, where that is wanted. A group does not end for want of it.
    fn write_requests(&self) {
        let Some(log) = self.shared.requests.get() else { return };
        let _ = log.add(|| match self.call_once(AgentRequest::TakeRequests, Vec::new(), Some(REQUESTS_LIMIT)) {
            Ok((AgentReply::Requests { .. }, lines)) => Ok(lines),
            Ok((other, _)) => Err(unexpected(&other)),
            Err(error) => Err(error),
        });
    }

    fn call_once(&self, request: AgentRequest, body: Vec<u8>, limit: Option<Duration>) -> Result<Answer, CallError> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let frame = Frame::new(&RequestEnvelope { version: VERSION, id, request }, body).map_err(CallError::Frame)?;
        let answer = self.shared.enqueue(id, frame, limit)?;
        let received = match limit {
            None => answer.recv().map_err(|_| None),
            Some(limit) => answer.recv_timeout(limit).map_err(|error| match error {
                RecvTimeoutError::Timeout => Some(CallError::Silent(limit)),
                RecvTimeoutError::Disconnected => None,
            }),
        };
        match received {
            Ok(result) => result.map_err(CallError::Agent),
            Err(silent) => {
                let mut state = self.shared.state();
                state.open.remove(&id);
                Err(silent.unwrap_or_else(|| CallError::Closed(state.fault.clone())))
            }
        }
    }

    /// Asks for a step whose answer is only that it is done.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn done(&self, request: AgentRequest, limit: Duration) -> Result<(), CallError> {
        match self.call(request, Vec::new(), Some(limit))? {
            (AgentReply::Done, _) => Ok(()),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Ends the connection: every open call ends with it.
    pub fn close(&self) {
        self.shared.close(None);
    }
}

/// An answer of the wrong kind.
pub(crate) fn unexpected(reply: &AgentReply) -> CallError {
    CallError::Unexpected(serde_json::to_string(reply).unwrap_or_default().chars().take(200).collect())
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame into the queue and gives where its answer will come.
    fn enqueue(
        &self,
        id: u64,
        frame: Frame,
        limit: Option<Duration>,
    ) -> Result<Receiver<Result<Answer, AgentError>>, CallError> {
        let full = |state: &mut State| state.queue.len() >= MAX_QUEUED && !state.closed;
        let state = self.state();
        let mut state = match limit {
            None => self.emptied.wait_while(state, full).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                let (state, waited) =
                    self.emptied.wait_timeout_while(state, limit, full).unwrap_or_else(PoisonError::into_inner);
                if waited.timed_out() {
                    return Err(CallError::Silent(limit));
                }
                state
            }
        };
        if state.closed {
            return Err(CallError::Closed(state.fault.clone()));
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        state.open.insert(id, sender);
        state.queue.push_back(frame);
        self.filled.notify_one();
        Ok(receiver)
    }

    fn write_all(&self, mut stream: UnixStream) {
        loop {
            let state = self.state();
            let mut state = self
                .filled
                .wait_while(state, |state| state.queue.is_empty() && !state.closed)
                .unwrap_or_else(PoisonError::into_inner);
            let Some(frame) = state.queue.pop_front().filter(|_| !state.closed) else { return };
            self.emptied.notify_one();
            drop(state);
            if let Err(error) = write_frame(&mut stream, &frame) {
                return self.close(fault(&error));
            }
        }
    }

    fn read_all(&self, mut stream: UnixStream) {
        loop {
            let frame = match read_frame(&mut stream) {
                Ok(Some(frame)) => frame,
                Ok(None) => return self.close(None),
                Err(error) => return self.close(fault(&error)),
            };
            match frame.header::<ReplyEnvelope>() {
                Ok(reply) if reply.version == VERSION => self.deliver(reply, frame.body),
                Ok(reply) => return self.close(Some(format!("it speaks version {}, not {VERSION}", reply.version))),
                Err(error) => return self.close(Some(crate::chain(&error))),
            }
        }
    }

    /// Gives an answer to whoever waits for it; one that nobody waits for any more is dropped.
    fn deliver(&self, reply: ReplyEnvelope, body: Vec<u8>) {
        let waiting = self.state().open.remove(&reply.id);
        if let Some(waiting) = waiting {
            // The caller may have given up between the two lines; that is the same as having been late.
            let _ = waiting.try_send(reply.result.map(|reply| (reply, body)));
        }
    }

    fn close(&self, fault: Option<String>) {
        let mut state = self.state();
        if !state.closed {
            state.closed = true;
            state.fault = fault;
        }
        state.open.clear();
        state.queue.clear();
        self.filled.notify_all();
        self.emptied.notify_all();
        // Wakes the threads; a connection that is down already is as good.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// What is wrong where a frame could not be moved. A QEMU that is killed with something unread in its connection resets it:
/// that is its end, as the end of the stream is, and no fault of what it said.
fn fault(error: &FrameError) -> Option<String> {
    let ended = |kind| matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
    match error {
        FrameError::Stream(cause) if ended(cause.kind()) => None,
        other => Some(crate::chain(other)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::thread;

    use caveau_protocol::{ErrorKind, Hello};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// What a fake guest does with a request: answer it, or not at all.
    pub(crate) type Behaviour = dyn FnMut(&AgentRequest, &[u8]) -> Option<Result<Answer, AgentError>> + Send;

    /// A fake guest on the other end of a socket pair.
    pub(crate) fn fake(mut behaviour: Box<Behaviour>) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            while let Ok(Some(frame)) = read_frame(&mut theirs) {
                let request: RequestEnvelope = frame.header().unwrap();
                if let Some(result) = behaviour(&request.request, &frame.body) {
                    reply(&mut theirs, request.id, result);
                }
            }
        });
        ours
    }

    pub(crate) fn reply(stream: &mut UnixStream, id: u64, result: Result<Answer, AgentError>) {
        let (result, body) = match result {
            Ok((reply, body)) => (Ok(reply), body),
            Err(error) => (Err(error), Vec::new()),
        };
        // The client may be gone already.
        let _ = write_frame(stream, &Frame::new(&ReplyEnvelope { version: VERSION, id, result }, body).unwrap());
    }

    pub(crate) fn hello() -> Hello {
        Hello {
            agent: "0.1.0".into(),
            tee: "emulated-snp".into(),
            kernel: "6.12".into(),
            boot_ns: 1,
            steps: Vec::new(),
        }
    }

    #[test]
    fn answers_in_any_order_find_their_callers() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let client = AgentClient::new(ours).unwrap();
        let slow = client.clone();
        let first = thread::spawn(move || slow.call(AgentRequest::Hello, vec![], None).unwrap());
        let one: RequestEnvelope = read_frame(&mut theirs).unwrap().unwrap().header().unwrap();
        let second = thread::spawn(move || client.done(AgentRequest::Shutdown, LIMIT));
        let two: RequestEnvelope = read_frame(&mut theirs).unwrap().unwrap().header().unwrap();
        assert_ne!(one.id, two.id);
        reply(&mut theirs, two.id, Ok((AgentReply::Done, vec![])));
        second.join().unwrap().unwrap();
        reply(&mut theirs, one.id, Ok((AgentReply::Hello(hello()), b"bytes".to_vec())));
        assert_eq!(first.join().unwrap().1, b"bytes");
    }

    #[test]
    fn refusals_come_through_whole() {
        let denial = Some(serde_json::json!({"field": "command"}));
        let refusal = AgentError { kind: ErrorKind::Denied, message: "no".into(), denial };
        let expected = refusal.clone();
        let client = AgentClient::new(fake(Box::new(move |_, _| Some(Err(refusal.clone()))))).unwrap();
        let Err(CallError::Agent(error)) = client.done(AgentRequest::Shutdown, LIMIT) else { panic!("not refused") };
        assert_eq!(error, expected);
    }

    #[test]
    fn a_busy_guest_is_asked_again() {
        let mut left = 3;
        let client = AgentClient::new(fake(Box::new(move |_, body| {
            assert_eq!(body, b"once");
            left -= 1;
            let busy = AgentError { kind: ErrorKind::Busy, message: "busy".into(), denial: None };
            Some(if left == 0 { Ok((AgentReply::Done, vec![])) } else { Err(busy) })
        })));
        assert_eq!(client.unwrap().call(AgentRequest::Hello, b"once".to_vec(), None).unwrap().0, AgentReply::Done);
        let busy = AgentError { kind: ErrorKind::Busy, message: "busy".into(), denial: None };
        let client = AgentClient::new(fake(Box::new(move |_, _| Some(Err(busy.clone())))));
        let outcome = client.unwrap().done(AgentRequest::Hello, Duration::from_millis(50));
        assert!(matches!(outcome, Err(CallError::Agent(error)) if error.kind == ErrorKind::Busy));
    }

    #[test]
    fn silence_ends_at_the_limit_and_late_answers_harm_nobody() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let client = AgentClient::new(ours).unwrap();
        let limit = Duration::from_millis(20);
        assert!(matches!(client.done(AgentRequest::Hello, limit), Err(CallError::Silent(_))));
        let late: RequestEnvelope = read_frame(&mut theirs).unwrap().unwrap().header().unwrap();
        reply(&mut theirs, late.id, Ok((AgentReply::Done, vec![])));
        reply(&mut theirs, 999, Ok((AgentReply::Done, vec![])));
        let next = thread::spawn(move || client.done(AgentRequest::Shutdown, LIMIT));
        let request: RequestEnvelope = read_frame(&mut theirs).unwrap().unwrap().header().unwrap();
        reply(&mut theirs, request.id, Ok((AgentReply::Done, vec![])));
        next.join().unwrap().unwrap();
    }

    #[test]
    fn a_guest_that_does_not_read_stalls_its_callers_only() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let client = AgentClient::new(ours).unwrap();
        let process = caveau_protocol::ProcessId::init(caveau_protocol::ContainerId::from_bytes([1; 32]));
        let write = AgentRequest::WriteInput { process };
        let mut refused = 0;
        for _ in 0..MAX_QUEUED + 16 {
            let result = client.call(write.clone(), vec![0; 64 * 1024], Some(Duration::from_millis(1)));
            assert!(matches!(result, Err(CallError::Silent(_))));
            refused += 1;
        }
        assert_eq!(refused, MAX_QUEUED + 16);
        assert!(client.shared.state().queue.len() <= MAX_QUEUED);
        drop(theirs);
        assert!(matches!(client.call(AgentRequest::Hello, vec![], None), Err(CallError::Closed(_))));
    }

    #[test]
    fn the_end_of_the_guest_ends_every_call() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let client = AgentClient::new(ours).unwrap();
        let waiting = client.clone();
        let call = thread::spawn(move || waiting.call(AgentRequest::Hello, vec![], None));
        read_frame(&mut theirs).unwrap().unwrap();
        drop(theirs);
        assert!(matches!(call.join().unwrap(), Err(CallError::Closed(None))));
        assert!(matches!(client.done(AgentRequest::Hello, LIMIT), Err(CallError::Closed(None))));
    }

    #[test]
    fn a_connection_that_is_reset_has_ended() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let client = AgentClient::new(ours).unwrap();
        let waiting = client.clone();
        let call = thread::spawn(move || waiting.call(AgentRequest::Hello, vec![], None));
        // Closed with the request unread: the kernel resets the connection instead of ending it.
        rustix::event::poll(&mut [rustix::event::PollFd::new(&theirs, rustix::event::PollFlags::IN)], None).unwrap();
        drop(theirs);
        assert!(matches!(call.join().unwrap(), Err(CallError::Closed(None))));
    }

    #[test]
    fn garbage_and_other_versions_end_the_connection_with_the_reason() {
        use std::io::Write;
        for bytes in [&b"\xff\xff\xff\xff\0\0\0\0"[..], b"\x02\0\0\0\0\0\0\0{}"] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(bytes).unwrap();
            let client = AgentClient::new(ours).unwrap();
            let Err(CallError::Closed(Some(_))) = client.call(AgentRequest::Hello, vec![], None) else { panic!() };
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let other = ReplyEnvelope { version: 2, id: 1, result: Ok(AgentReply::Done) };
        write_frame(&mut theirs, &Frame::new(&other, vec![]).unwrap()).unwrap();
        let client = AgentClient::new(ours).unwrap();
        let error = client.call(AgentRequest::Hello, vec![], None).unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
    }
}
