//! The port: frames in, each request to where it belongs, replies out in any order.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use caveau_protocol::{
    AgentError, AgentReply, AgentRequest, Frame, ReplyEnvelope, RequestEnvelope, VERSION, read_frame, write_frame,
};
use caveau_runtime::Reaper;

use crate::{
    answer::{Answer, Fatal, fatal, invalid},
    gate::{Gate, Guest, watch_layers},
    live::Live,
};

/// Requests that may be open at once: enough for every stream of many processes, and bounded.
const MAX_OPEN: usize = 128;

/// Stack of a thread that waits for one request's answer.
const STACK: usize = 64 * 1024;

/// What all threads share.
struct Connection {
    writer: Mutex<File>,
    open: Mutex<BTreeSet<u64>>,
    live: Arc<Live>,
}

/// A request on its way to the gate.
struct Step {
    id: u64,
    request: AgentRequest,
    body: Vec<u8>,
}

/// Serves the host until it goes away or asks for the end.
///
/// # Errors
/// Where the port is out of step: then nothing that comes over it means anything any more.
pub(crate) fn serve(port: &File, guest: Guest, boot_ns: u64) -> Result<(), Fatal> {
    let mut reader = port.try_clone().map_err(fatal("copy the port"))?;
    let writer = port.try_clone().map_err(fatal("copy the port"))?;
    let live = Arc::new(Live::default());
    let notified = Arc::clone(&live);
    let reaper = Reaper::start(move |_| notified.exited()).map_err(fatal("start the reaper"))?;
    let connection =
        Arc::new(Connection { writer: Mutex::new(writer), open: Mutex::new(BTreeSet::new()), live: Arc::clone(&live) });
    let gate = Gate::new(guest, reaper, Arc::clone(&live), boot_ns)?;
    watch_layers(gate.layers(), live)?;
    let steps = start_gate(gate, Arc::clone(&connection)).map_err(fatal("start a thread"))?;
    while let Some(frame) = read_frame(&mut reader)? {
        match frame.header::<RequestEnvelope>() {
            Ok(envelope) => connection.dispatch(envelope, frame.body, &steps),
            // The frame is whole, so that the next one can be read.
            Err(error) => connection.reply(0, Err(invalid(crate::answer::chain(&error)))),
        }
    }
    Ok(())
}

/// The thread that does the steps, one after the other.
fn start_gate(mut gate: Gate, connection: Arc<Connection>) -> io::Result<SyncSender<Step>> {
    let (sender, receiver) = sync_channel::<Step>(MAX_OPEN);
    // Rego documents and JSON are read by recursion, and the policy's by regorus: it gets the usual stack.
    thread::Builder::new().name("gate".into()).stack_size(2 << 20).spawn(move || {
        for Step { id, request, body } in receiver {
            let last = matches!(request, AgentRequest::Shutdown);
            let answer = gate.step(request, body);
            let ends = last && answer.is_ok();
            connection.reply(id, answer);
            if ends {
                crate::power_off();
            }
        }
    })?;
    Ok(sender)
}

impl Connection {
    /// Hands a request on. It is answered exactly once.
    fn dispatch(self: &Arc<Self>, envelope: RequestEnvelope, body: Vec<u8>, steps: &SyncSender<Step>) {
        let RequestEnvelope { version, id, request } = envelope;
        if let Err(error) = self.admit(version, id, &request, &body) {
            // Not admitted: whoever holds the number keeps it.
            self.send(id, Err(error));
            return;
        }
        if changes_something(&request) {
            // The queue has room for as many as can be open.
            if steps.try_send(Step { id, request, body }).is_err() {
                self.reply(id, Err(invalid("the guest cannot take more requests")));
            }
            return;
        }
        let connection = Arc::clone(self);
        let wait = move || {
            let answer = connection.wait(request, &body);
            connection.reply(id, answer);
        };
        let started = thread::Builder::new().name("wait".into()).stack_size(STACK).spawn(wait);
        if started.is_err() {
            self.reply(id, Err(invalid("the guest cannot start more threads")));
        }
    }

    /// Whether a request can be taken: version, number, and a body only where one belongs.
    fn admit(&self, version: u16, id: u64, request: &AgentRequest, body: &[u8]) -> Result<(), AgentError> {
        if version != VERSION {
            return Err(invalid(format!("invalid protocol version {version}: this guest speaks {VERSION}")));
        }
        let has_body = matches!(request, AgentRequest::SetPolicy { .. } | AgentRequest::WriteInput { .. });
        if !body.is_empty() && !has_body {
            return Err(invalid("this request has no body"));
        }
        let mut open = lock(&self.open);
        if open.len() >= MAX_OPEN {
            return Err(invalid(format!("more than {MAX_OPEN} requests are open")));
        }
        if id == 0 || !open.insert(id) {
            return Err(invalid(format!("invalid request number {id}: it must be above 0 and not in use")));
        }
        Ok(())
    }

    /// Answers a request that only waits.
    fn wait(&self, request: AgentRequest, body: &[u8]) -> Answer {
        let live = &self.live;
        let limit = |timeout_ms: u32| Duration::from_millis(timeout_ms.min(60_000).into());
        match request {
            AgentRequest::CloseInput { process } => live.close_input(&process),
            AgentRequest::NextEvent { after, timeout_ms } => {
                Ok((AgentReply::Event(live.events.next(after, limit(timeout_ms))), Vec::new()))
            }
            AgentRequest::ReadOutput { process, stream, max, timeout_ms } => {
                live.read(&process, stream, max, limit(timeout_ms))
            }
            AgentRequest::ResizeTerminal { process, rows, columns } => live.resize(&process, rows, columns),
            AgentRequest::Wait { process, timeout_ms } => live.wait(&process, limit(timeout_ms)),
            AgentRequest::WriteInput { process } => live.write(&process, body),
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
        let (result, body) = match answer {
            Ok((reply, body)) => (Ok(reply), body),
            Err(error) => (Err(error), Vec::new()),
        };
        let frame = Frame::new(&ReplyEnvelope { version: VERSION, id, result }, body);
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
        AgentRequest::CloseInput { .. }
            | AgentRequest::NextEvent { .. }
            | AgentRequest::ReadOutput { .. }
            | AgentRequest::ResizeTerminal { .. }
            | AgentRequest::Wait { .. }
            | AgentRequest::WriteInput { .. }
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
