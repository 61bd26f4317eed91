//! The port: frames in, each request to where it belongs, replies out in any order.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use caveau_protocol::{
    AgentError, AgentReply, AgentRequest, Frame, KEPT_REQUESTS, MAX_BODY, MAX_CHANNELS, MAX_CHUNK, MAX_OPEN_REQUESTS,
    REQUESTS_OF_A_PROCESS, ReplyEnvelope, RequestEnvelope, VERSION, read_frame, write_frame,
};

use crate::{
    answer::{Answer, Fatal, busy, failed, fatal, invalid},
    channels::{Ask, Channels, PeerStep, Question, ask},
    live::{Live, Viewer},
};

/// Bytes that open requests may hold together: a policy, and input for every other request.
const MAX_OPEN_BYTES: usize = 16 << 20;

/// Who sees what this connection asks for.
const HOST: Viewer = Viewer::Host;

/// Stack of a thread that waits for one request's answer.
const STACK: usize = 64 * 1024;

/// What all threads share.
struct Connection {
    writer: Mutex<File>,
    /// Numbers of the requests that are not answered yet, and what each holds.
    open: Mutex<BTreeMap<u64, Open>>,
    live: Arc<Live>,
    channels: Channels,
}

/// What a request that is not answered yet holds.
struct Open {
    /// The bytes that it came with.
    bytes: usize,
    /// What it is for.
    waits_for: WaitsFor,
}

/// What a request is for: none of the kinds may take all the room from one before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum WaitsFor {
    /// A step, or news.
    Guest,
    /// A container's first process: whoever follows it must never be refused for what else runs.
    First,
    /// An executed process, or room for input.
    Other,
}

impl WaitsFor {
    fn of(request: &AgentRequest) -> Self {
        match request {
            AgentRequest::ReadOutput { process, .. } | AgentRequest::Wait { process, .. } => {
                if process.exec.is_none() {
                    Self::First
                } else {
                    Self::Other
                }
            }
            AgentRequest::WriteInput { .. } => Self::Other,
            _ => Self::Guest,
        }
    }

    /// How many requests of this kind and those after it may be open where there are so many containers.
    fn most(self, containers: usize) -> usize {
        let of_processes = MAX_OPEN_REQUESTS.saturating_sub(KEPT_REQUESTS);
        match self {
            Self::Guest => MAX_OPEN_REQUESTS,
            Self::First => of_processes,
            Self::Other => of_processes.saturating_sub(containers.saturating_mul(REQUESTS_OF_A_PROCESS)),
        }
    }
}

/// A request on its way to the gate.
enum Step {
    /// Of the host.
    Host { id: u64, request: AgentRequest, body: Vec<u8> },
    /// Of somebody at the other end of a channel.
    Peer(Question),
}

/// Asks the gate over its queue.
#[derive(Clone)]
struct Gate(SyncSender<Step>);

impl Ask for Gate {
    fn ask(&self, step: PeerStep) -> Answer {
        ask(step, |question| self.0.try_send(Step::Peer(question)).is_ok())
    }
}

/// Whatever does the steps: the gate, and in tests something that records them.
pub(crate) trait Steps: Send + 'static {
    /// Does one step.
    fn step(&mut self, request: AgentRequest, body: Vec<u8>) -> Answer;

    /// Does what somebody at the other end of a channel asks for.
    fn peer_step(&mut self, _step: PeerStep) -> Answer {
        Err(invalid("nobody answers over channels here"))
    }
}

impl<F: FnMut(AgentRequest, Vec<u8>) -> Answer + Send + 'static> Steps for F {
    fn step(&mut self, request: AgentRequest, body: Vec<u8>) -> Answer {
        self(request, body)
    }
}

/// Serves the host until it goes away or asks for the end.
///
/// # Errors
/// Where the port is out of step: then nothing that comes over it means anything any more.
pub(crate) fn serve(port: &File, steps: impl Steps, live: Arc<Live>) -> Result<(), Fatal> {
    let mut reader = port.try_clone().map_err(fatal("copy the port"))?;
    let writer = port.try_clone().map_err(fatal("copy the port"))?;
    let connection = Arc::new(Connection {
        writer: Mutex::new(writer),
        open: Mutex::default(),
        live,
        channels: Channels::default(),
    });
    let ended = Arc::new(AtomicBool::new(false));
    let queue = start_gate(steps, Arc::clone(&connection), Arc::clone(&ended)).map_err(fatal("start a thread"))?;
    loop {
        match read_frame(&mut reader) {
            Ok(Some(frame)) => connection.receive(frame, &queue),
            // The host has gone: after a shutdown, or because its supervisor died.
            Ok(None) => return Ok(()),
            Err(_) if ended.load(Ordering::Acquire) => return Ok(()),
            Err(error) => {
                connection.send(0, Err(invalid(crate::answer::chain(&error))));
                return Err(error.into());
            }
        }
    }
}

/// The thread that does the steps, one after the other.
fn start_gate(
    mut steps: impl Steps,
    connection: Arc<Connection>,
    ended: Arc<AtomicBool>,
) -> io::Result<SyncSender<Step>> {
    let (sender, receiver) = sync_channel::<Step>(MAX_OPEN_REQUESTS.saturating_add(MAX_CHANNELS));
    // Rego documents and JSON are read by recursion, and the policy's by regorus: it gets the usual stack.
    thread::Builder::new().name("gate".into()).stack_size(2 << 20).spawn(move || {
        for step in receiver {
            let (id, request, body) = match step {
                Step::Host { id, request, body } => (id, request, body),
                Step::Peer(Question { step, answer }) => {
                    // Whoever asked may have gone.
                    let _ = answer.try_send(steps.peer_step(step));
                    continue;
                }
            };
            let last = matches!(request, AgentRequest::Shutdown);
            let answer = steps.step(request, body);
            let ends = last && answer.is_ok();
            connection.reply(id, answer);
            if ends {
                ended.store(true, Ordering::Release);
                crate::end();
            }
        }
    })?;
    Ok(sender)
}

impl Connection {
    /// Takes a frame. Whatever its header says, it is whole, so that the next one can be read.
    fn receive(self: &Arc<Self>, frame: Frame, queue: &SyncSender<Step>) {
        match frame.header::<RequestEnvelope>() {
            Ok(envelope) => self.dispatch(envelope, frame, queue),
            Err(error) => self.send(0, Err(invalid(crate::answer::chain(&error)))),
        }
    }

    /// Hands a request on. It is answered exactly once.
    fn dispatch(self: &Arc<Self>, envelope: RequestEnvelope, frame: Frame, steps: &SyncSender<Step>) {
        let RequestEnvelope { version, id, request } = envelope;
        let (size, body) = (frame.size(), frame.body);
        if let Err(error) = self.admit(version, id, &request, body.len(), size) {
            // Not admitted: whoever holds the number keeps it.
            self.send(id, Err(error));
            return;
        }
        if changes_something(&request) {
            // The queue has room for as many as can be open.
            if steps.try_send(Step::Host { id, request, body }).is_err() {
                self.reply(id, Err(invalid("the guest cannot take more requests")));
            }
            return;
        }
        let (connection, gate) = (Arc::clone(self), Gate(steps.clone()));
        let wait = move || {
            let answer = connection.wait(request, &body, gate);
            connection.reply(id, answer);
        };
        let started = thread::Builder::new().name("wait".into()).stack_size(STACK).spawn(wait);
        if started.is_err() {
            self.reply(id, Err(busy("the guest cannot start more threads now".to_owned())));
        }
    }

    /// Whether a request can be taken: version, number, a body only where one belongs, and room for its `size` in bytes.
    fn admit(&self, version: u16, id: u64, request: &AgentRequest, body: usize, size: usize) -> Result<(), AgentError> {
        if version != VERSION {
            return Err(invalid(format!("invalid protocol version {version}: this guest speaks {VERSION}")));
        }
        let most = match request {
            AgentRequest::SetPolicy { .. } | AgentRequest::LoadFragment | AgentRequest::LoadTransparencyTrustList => {
                MAX_BODY
            }
            AgentRequest::WriteChannel { .. } | AgentRequest::WriteInput { .. } => MAX_CHUNK,
            _ => 0,
        };
        if body > most {
            return Err(invalid(format!("a body of {body} bytes: this request has at most {most}")));
        }
        let waits_for = WaitsFor::of(request);
        let most = waits_for.most(self.live.containers());
        let mut open = lock(&self.open);
        if id == 0 || open.contains_key(&id) {
            return Err(invalid(format!("invalid request number {id}: it must be above 0 and not in use")));
        }
        let alike = open.values().filter(|open| open.waits_for >= waits_for).count();
        if alike >= most || open.len() >= MAX_OPEN_REQUESTS {
            return Err(busy(format!(
                "{alike} requests of this kind are open, of {} in all: no more can be",
                open.len()
            )));
        }
        if open.values().fold(size, |sum, open| sum.saturating_add(open.bytes)) > MAX_OPEN_BYTES {
            return Err(busy(format!("open requests hold more than {MAX_OPEN_BYTES} bytes")));
        }
        open.insert(id, Open { bytes: size, waits_for });
        Ok(())
    }

    /// Answers a request that only waits.
    fn wait(&self, request: AgentRequest, body: &[u8], gate: Gate) -> Answer {
        let live = &self.live;
        let limit = |timeout_ms: u32| Duration::from_millis(timeout_ms.min(60_000).into());
        match request {
            AgentRequest::CloseChannel { channel } => self.channels.close(channel),
            AgentRequest::CloseInput { process } => live.close_input(&process, HOST),
            AgentRequest::NextEvent { after, timeout_ms } => {
                Ok((AgentReply::Event(live.events.next(after, limit(timeout_ms))), Vec::new()))
            }
            AgentRequest::OpenChannel => self.channels.open(Arc::clone(live), gate),
            AgentRequest::ReadChannel { channel, max, timeout_ms } => {
                self.channels.read(channel, max, limit(timeout_ms))
            }
            AgentRequest::ReadOutput { process, stream, max, timeout_ms } => {
                live.read(&process, HOST, stream, max, limit(timeout_ms))
            }
            AgentRequest::ResizeTerminal { process, size } => live.resize(&process, HOST, size),
            AgentRequest::Wait { process, timeout_ms } => live.wait(&process, HOST, limit(timeout_ms)),
            AgentRequest::WriteChannel { channel } => self.channels.write(channel, body),
            AgentRequest::WriteInput { process } => live.write(&process, HOST, body),
            _ => Err(invalid("this request is not one that waits")),
        }
    }

    /// Answers an admitted request, whose number is free again then.
    fn reply(&self, id: u64, answer: Answer) {
        lock(&self.open).remove(&id);
        self.send(id, answer);
    }

    /// Sends a reply. A host that does not take it is gone, and the reading side finds out.
    fn send(&self, id: u64, answer: Answer) {
        let framed = |answer: Answer| {
            let (result, body) = match answer {
                Ok((reply, body)) => (Ok(reply), body),
                Err(error) => (Err(error), Vec::new()),
            };
            Frame::new(&ReplyEnvelope { version: VERSION, id, result }, body)
        };
        // One that does not fit a frame is told of: whoever asked waits for an answer.
        let frame = framed(answer).or_else(|error| framed(Err(failed("frame the answer", &error))));
        if let Ok(frame) = frame {
            let _ = write_frame(&mut *lock(&self.writer), &frame);
        }
    }
}

/// Whether a request goes through the gate, in order, or only waits. A new request goes through the gate until it is said
/// here that it does not.
fn changes_something(request: &AgentRequest) -> bool {
    !matches!(
        request,
        AgentRequest::CloseChannel { .. }
            | AgentRequest::CloseInput { .. }
            | AgentRequest::NextEvent { .. }
            | AgentRequest::OpenChannel
            | AgentRequest::ReadChannel { .. }
            | AgentRequest::ReadOutput { .. }
            | AgentRequest::ResizeTerminal { .. }
            | AgentRequest::Wait { .. }
            | AgentRequest::WriteChannel { .. }
            | AgentRequest::WriteInput { .. }
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
