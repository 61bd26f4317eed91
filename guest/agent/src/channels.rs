//! Channels: people outside talk to the guest itself. The host carries bytes both ways and sees none of what they mean.
//!
//! ```text
//!   host ──open, read, write, close──▶ one end ═ socket pair ═ other end ──▶ a thread: TLS, frames, requests
//!                                                                               │ what changes or tells something
//!                                                                               ▼
//!                                                                             gate, asked of the policy's owners
//! ```

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc::sync_channel},
    thread,
    time::{Duration, Instant},
};

use caveau_channel::{ChannelError, Exporter, GuestEnd, GuestIdentity};
use caveau_group::KeyDigest;
use caveau_protocol::{
    AgentError, AgentReply, AgentRequest, Exec, Frame, MAX_CHANNELS, MAX_CHUNK, Nonce, Output, ReplyEnvelope,
    RequestEnvelope, VERSION, read_frame_within, write_frame,
};
use rustix::event::PollFlags;

use crate::{
    answer::{Answer, busy, chain, done, failed, invalid},
    live::{Live, Viewer, chunk, read_within, wait_for},
};

/// How long the handshake may take, step by step.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// How long a channel may be silent.
const IDLE: Duration = Duration::from_secs(600);

/// Stack of a channel's thread: the handshake's arithmetic needs more than waiting does.
const STACK: usize = 256 << 10;

/// How long the host's bytes may wait for room before it is told how many were taken.
const ROOM: Duration = Duration::from_secs(10);

/// What whoever is at the other end of a channel asks of the gate.
#[derive(Debug)]
pub(crate) enum PeerStep {
    /// Who are you?
    Hello,
    /// Evidence for this very session.
    Attest { nonce: Nonce, exporter: Exporter },
    /// What was denied, after a number.
    Denials { key: Option<KeyDigest>, after: u64 },
    /// One more process.
    Exec { key: KeyDigest, exec: Box<Exec> },
    /// Whether sealed output may be read.
    Logs { key: Option<KeyDigest> },
}

/// How the gate is asked.
pub(crate) trait Ask: Clone + Send + 'static {
    /// Asks, and waits for the answer.
    fn ask(&self, step: PeerStep) -> Answer;
}

/// The channels that are open.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    open: Mutex<Open>,
    /// Made when the first one is opened: most guests have none.
    identity: OnceLock<GuestIdentity>,
}

#[derive(Debug, Default)]
struct Open {
    channels: BTreeMap<u32, Arc<UnixStream>>,
    last: u32,
}

impl Channels {
    /// Opens one.
    pub(crate) fn open(&self, live: Arc<Live>, gate: impl Ask) -> Answer {
        let identity = match self.identity.get() {
            Some(identity) => identity.clone(),
            None => {
                let made = GuestIdentity::new().map_err(|error| failed("make the channels' key", &error))?;
                self.identity.get_or_init(|| made).clone()
            }
        };
        let mut open = self.lock();
        if open.channels.len() >= MAX_CHANNELS {
            return Err(busy(format!("{MAX_CHANNELS} channels are open: no more can be")));
        }
        let number = open.last.checked_add(1).ok_or_else(|| invalid("too many channels were opened"))?;
        let (outside, inside) = UnixStream::pair().map_err(|error| failed("make a channel", &error))?;
        outside.set_nonblocking(true).map_err(|error| failed("make a channel", &error))?;
        let body = move || {
            // Whoever is at the other end sees that it ended, and nobody else is to know why.
            let _ = serve(inside, &identity, &live, &gate);
        };
        thread::Builder::new()
            .name("channel".into())
            .stack_size(STACK)
            .spawn(body)
            .map_err(|error| failed("start a thread", &error))?;
        open.last = number;
        open.channels.insert(number, Arc::new(outside));
        Ok((AgentReply::Channel { channel: number }, Vec::new()))
    }

    /// Bytes for the host to carry away.
    pub(crate) fn read(&self, channel: u32, max: u32, limit: Duration) -> Answer {
        let max = chunk(max)?;
        let stream = self.find(channel)?;
        let mut bytes = vec![0; max];
        // A channel whose thread broke it off has ended.
        let count = read_within(stream.as_fd(), &mut bytes, limit).unwrap_or(Some(0));
        bytes.truncate(count.unwrap_or(0));
        Ok((AgentReply::Output(Output { eof: count == Some(0) }), bytes))
    }

    /// Bytes that the host brings: as many as are taken within a while.
    pub(crate) fn write(&self, channel: u32, bytes: &[u8]) -> Answer {
        let stream = self.find(channel)?;
        let end = Instant::now().checked_add(ROOM);
        let mut written = 0usize;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match (&*stream).write(rest) {
                Ok(count) => written = written.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = end.and_then(|end| end.checked_duration_since(Instant::now()));
                    let Some(left) = left.filter(|left| !left.is_zero()) else { break };
                    wait_for(stream.as_fd(), PollFlags::OUT, left).map_err(|error| failed("wait for room", &error))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(invalid(format!("channel {channel} has ended"))),
            }
        }
        // At most MAX_CHUNK, which fits.
        Ok((AgentReply::Written { bytes: u32::try_from(written).unwrap_or(u32::MAX) }, Vec::new()))
    }

    /// Ends one. Its thread finds out.
    pub(crate) fn close(&self, channel: u32) -> Answer {
        let stream = self.find(channel)?;
        // One that has ended by itself is as good.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        self.lock().channels.remove(&channel);
        done()
    }

    fn find(&self, channel: u32) -> Result<Arc<UnixStream>, AgentError> {
        let open = self.lock();
        open.channels.get(&channel).cloned().ok_or_else(|| invalid(format!("there is no channel {channel}")))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one channel to its end, with these answers in place of the gate's.
pub(crate) fn serve_with(inside: UnixStream, answer: impl Fn() -> Answer + Clone + Send + 'static) {
    #[derive(Clone)]
    struct Always<F>(F);

    impl<F: Fn() -> Answer + Clone + Send + 'static> Ask for Always<F> {
        fn ask(&self, _: PeerStep) -> Answer {
            (self.0)()
        }
    }

    if let Ok(identity) = GuestIdentity::new() {
        // How it ended is for the other end to see.
        let _ = serve(inside, &identity, &Live::default(), &Always(answer));
    }
}

/// Serves one channel to its end.
fn serve(inside: UnixStream, identity: &GuestIdentity, live: &Live, gate: &impl Ask) -> Result<(), ChannelError> {
    let timed = inside.try_clone().map_err(ChannelError::Stream)?;
    let wait = |limit| {
        let set = timed.set_read_timeout(Some(limit)).and_then(|()| timed.set_write_timeout(Some(limit)));
        set.map_err(ChannelError::Stream)
    };
    wait(HANDSHAKE)?;
    let mut channel = GuestEnd::accept(identity, inside)?;
    wait(IDLE)?;
    // What one frame may hold in memory is bounded by what a request here can need.
    while let Ok(Some(frame)) = read_frame_within(&mut channel, MAX_CHUNK) {
        let (id, answer) = match frame.header::<RequestEnvelope>() {
            Ok(envelope) if envelope.version == VERSION => {
                let id = envelope.id;
                (id, answer(envelope.request, &frame.body, &channel, live, gate))
            }
            Ok(envelope) => (envelope.id, Err(invalid(format!("this guest speaks version {VERSION}")))),
            Err(error) => (0, Err(invalid(chain(&error)))),
        };
        let (result, body) = match answer {
            Ok((reply, body)) => (Ok(reply), body),
            Err(error) => (Err(error), Vec::new()),
        };
        let Ok(reply) = Frame::new(&ReplyEnvelope { version: VERSION, id, result }, body) else { break };
        if write_frame(&mut channel, &reply).is_err() {
            break;
        }
    }
    channel.close();
    Ok(())
}

/// Answers one request.
fn answer(request: AgentRequest, body: &[u8], channel: &GuestEnd<UnixStream>, live: &Live, gate: &impl Ask) -> Answer {
    let key = channel.peer();
    let limit = |timeout_ms: u32| Duration::from_millis(timeout_ms.min(60_000).into());
    if !body.is_empty() && !matches!(request, AgentRequest::WriteInput { .. }) {
        return Err(invalid("this request has no body"));
    }
    match request {
        AgentRequest::Hello => gate.ask(PeerStep::Hello),
        AgentRequest::Attest { nonce } => {
            let exporter = channel.exporter(nonce.as_bytes()).map_err(|error| failed("bind the session", &error))?;
            gate.ask(PeerStep::Attest { nonce, exporter })
        }
        AgentRequest::Denials { after } => gate.ask(PeerStep::Denials { key, after }),
        AgentRequest::ReadLog { container, stream, from, max, timeout_ms } => {
            gate.ask(PeerStep::Logs { key })?;
            live.sealed.read(container.as_ref(), stream, from, max, limit(timeout_ms))
        }
        other => {
            // All that is left concerns processes, each its owner's.
            let key = key.ok_or_else(|| invalid("this is for owners: show the key of one"))?;
            let viewer = Viewer::Owner(key);
            match other {
                AgentRequest::Exec(exec) => gate.ask(PeerStep::Exec { key, exec }),
                AgentRequest::CloseInput { process } => live.close_input(&process, viewer),
                AgentRequest::Containers => {
                    Ok((AgentReply::Containers { containers: live.container_ids() }, Vec::new()))
                }
                AgentRequest::ReadOutput { process, stream, max, timeout_ms } => {
                    live.read(&process, viewer, stream, max, limit(timeout_ms))
                }
                AgentRequest::ResizeTerminal { process, size } => live.resize(&process, viewer, size),
                AgentRequest::Wait { process, timeout_ms } => live.wait(&process, viewer, limit(timeout_ms)),
                AgentRequest::WriteInput { process } => live.write(&process, viewer, body),
                _ => Err(invalid("this request is the host's, and not for a channel")),
            }
        }
    }
}

/// A question to the gate that waits for its answer.
pub(crate) struct Question {
    pub(crate) step: PeerStep,
    pub(crate) answer: std::sync::mpsc::SyncSender<Answer>,
}

/// Asks over a queue.
pub(crate) fn ask(step: PeerStep, send: impl FnOnce(Question) -> bool) -> Answer {
    let (answer, answered) = sync_channel(1);
    if !send(Question { step, answer }) {
        return Err(busy("the guest cannot take more requests now".to_owned()));
    }
    answered.recv().unwrap_or_else(|_| Err(invalid("the guest ends")))
}

#[cfg(test)]
mod tests;
