//! The supervisor's socket: one thread a conversation.

use std::{
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use caveau_protocol::{AgentReply, AgentRequest, Exec, Frame, ProcessId, max_followed, read_frame, write_frame};

use super::{
    group::{Container, Group, Happening, Shared},
    hub::Client,
    streams,
};
use crate::{
    CallError, ContainerPlan,
    agent::unexpected,
    control::{ControlReply, ControlRequest, ServerFrame, StopReport},
    state::Phase,
};

/// Most conversations at once; one more is refused.
const MAX_CONVERSATIONS: usize = 128;

/// How many of them are kept for those that soon end: a group can be looked at and stopped however many are attached.
const KEPT_CONVERSATIONS: usize = 16;

/// How long a client may take for its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// How long the guest may take for one request that is handed on: the longest that a request itself may ask for, and more.
const CALL: Duration = Duration::from_secs(100);

/// How long a container has after SIGKILL.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// Accepts conversations for the rest of the process's life.
pub(super) fn listen(group: &Shared, listener: UnixListener) -> std::io::Result<()> {
    let group = Shared::clone(group);
    let open = Arc::new(AtomicUsize::new(0));
    thread::Builder::new().name("control".into()).spawn(move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => converse(&group, stream, &open),
                Err(error) => {
                    eprintln!("a control connection failed: {error}");
                    // Such as no descriptors left: others may be given back in the meantime.
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    })?;
    Ok(())
}

/// Starts one conversation's thread.
fn converse(group: &Shared, mut stream: UnixStream, open: &Arc<AtomicUsize>) {
    if open.fetch_add(1, Ordering::SeqCst) >= MAX_CONVERSATIONS {
        open.fetch_sub(1, Ordering::SeqCst);
        let reason = format!("the supervisor serves {MAX_CONVERSATIONS} connections already");
        return answer(&mut stream, &ControlReply::Failed { reason }, Vec::new());
    }
    let (for_thread, open_there) = (Shared::clone(group), Arc::clone(open));
    let started = thread::Builder::new().name("conversation".into()).spawn(move || {
        serve(&for_thread, stream, &open_there);
        open_there.fetch_sub(1, Ordering::SeqCst);
    });
    if started.is_err() {
        open.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serve(group: &Shared, mut stream: UnixStream, open: &AtomicUsize) {
    let first = stream.set_read_timeout(Some(FIRST_FRAME)).map_err(|error| error.to_string()).and_then(|()| {
        let frame = read_frame(&mut stream).map_err(|error| crate::chain(&error))?.ok_or("the client left")?;
        let request = frame.header::<ControlRequest>().map_err(|error| crate::chain(&error))?;
        stream.set_read_timeout(None).map_err(|error| error.to_string())?;
        Ok((request, frame.body))
    });
    match first {
        Ok((ControlRequest::Attach { .. } | ControlRequest::Exec(_), _))
            if open.load(Ordering::SeqCst) > MAX_CONVERSATIONS - KEPT_CONVERSATIONS =>
        {
            let reason = "too many are attached to the group already".to_owned();
            answer(&mut stream, &ControlReply::Failed { reason }, Vec::new());
        }
        Ok((request, body)) => respond(group, stream, request, body),
        Err(reason) => answer(&mut stream, &ControlReply::Failed { reason }, Vec::new()),
    }
}

fn respond(group: &Shared, mut stream: UnixStream, request: ControlRequest, body: Vec<u8>) {
    let (reply, body) = match request {
        ControlRequest::Attach { container } => return attach(group, stream, container.as_deref()),
        ControlRequest::Exec(exec) => return execute(group, stream, *exec),
        ControlRequest::Call(request) => call(group, request, body),
        ControlRequest::Status => (ControlReply::Status { silent: group.liveness.complaint() }, Vec::new()),
        ControlRequest::Stop { timeout_ms } => {
            (ControlReply::Stopping(stop(group, Duration::from_millis(timeout_ms.into()))), Vec::new())
        }
    };
    answer(&mut stream, &reply, body);
}

/// Sends an answer; a client that has gone does not need it.
fn answer(stream: &mut UnixStream, reply: &ControlReply, body: Vec<u8>) {
    if let Ok(frame) = Frame::new(reply, body) {
        let _ = write_frame(stream, &frame);
    }
}

fn failed(error: &dyn std::error::Error) -> ControlReply {
    ControlReply::Failed { reason: crate::chain(error) }
}

/// Hands a request on to the agent.
fn call(group: &Group, request: AgentRequest, body: Vec<u8>) -> (ControlReply, Vec<u8>) {
    if reads_init(&request) {
        let reason = "the supervisor reads this stream: attach to the container, or read its log".to_owned();
        return (ControlReply::Failed { reason }, Vec::new());
    }
    match group.client.call(request, body, Some(CALL)) {
        Ok((reply, body)) => (ControlReply::Called(Ok(reply)), body),
        Err(CallError::Agent(error)) => (ControlReply::Called(Err(error)), Vec::new()),
        Err(error) => (failed(&error), Vec::new()),
    }
}

/// Whether a request would take a part of what the supervisor itself reads.
fn reads_init(request: &AgentRequest) -> bool {
    matches!(request, AgentRequest::ReadOutput { process: ProcessId { exec: None, .. }, .. })
}

/// Attaches a client to a container's init; the thread takes the client's input until it leaves.
fn attach(group: &Group, mut stream: UnixStream, name: Option<&str>) {
    let Some((plan, container)) = group.container(name) else {
        let reason = format!("the group has no container called {:?}", name.unwrap_or_default());
        return answer(&mut stream, &ControlReply::Failed { reason }, Vec::new());
    };
    let client = match Client::new(&stream) {
        Ok(client) => Arc::new(client),
        Err(error) => return answer(&mut stream, &failed(&error), Vec::new()),
    };
    let id = plan.create.container.clone();
    let terminal = plan.create.process.terminal.is_some();
    answer(&mut stream, &ControlReply::Attached { terminal, container: id, exec: None }, Vec::new());
    container.hub.attach(Arc::clone(&client));
    take_input(group, plan, container, stream, &client);
}

/// Takes a client's input for a container's init for as long as the client stays.
pub(super) fn take_input(
    group: &Group,
    plan: &ContainerPlan,
    container: &Container,
    stream: UnixStream,
    client: &Client,
) {
    let (process, limit) = (Group::init(plan), group.answer_limit());
    streams::serve_input(&group.client, &process, stream, client, limit, &container.turn);
}

/// Counts an executed process for as long as it is followed.
struct Followed<'g>(&'g AtomicUsize);

impl<'g> Followed<'g> {
    /// One more, where there is room: each takes some of the requests that the guest lets be open.
    fn enter(group: &'g Group) -> Result<Self, String> {
        let most = max_followed(group.containers.len());
        let one = Self(&group.executed);
        if group.executed.fetch_add(1, Ordering::SeqCst) < most {
            return Ok(one);
        }
        Err(format!("{most} executed commands run in the group already: wait until one of them has ended"))
    }
}

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs one more process for a client. When the client leaves, the process's input is closed and its output is read on
/// into nothing: it must not stall because nobody looks.
fn execute(group: &Group, mut stream: UnixStream, exec: Exec) {
    let _followed = match Followed::enter(group) {
        Ok(followed) => followed,
        Err(reason) => return answer(&mut stream, &ControlReply::Failed { reason }, Vec::new()),
    };
    let (container, terminal) = (exec.container.clone(), exec.process.terminal.is_some());
    let stdio = exec.process.stdio;
    let number = match group.client.call(AgentRequest::Exec(Box::new(exec)), Vec::new(), Some(CALL)) {
        Ok((AgentReply::Exec { exec }, _)) => exec,
        Ok((other, _)) => return answer(&mut stream, &failed(&unexpected(&other)), Vec::new()),
        Err(CallError::Agent(error)) => return answer(&mut stream, &ControlReply::Called(Err(error)), Vec::new()),
        Err(error) => return answer(&mut stream, &failed(&error), Vec::new()),
    };
    let process = ProcessId { container: container.clone(), exec: Some(number) };
    let client = match Client::new(&stream) {
        Ok(client) => client,
        Err(error) => return answer(&mut stream, &failed(&error), Vec::new()),
    };
    answer(&mut stream, &ControlReply::Attached { terminal, container, exec: Some(number) }, Vec::new());
    let (agent, client, process, limit) = (&group.client, &client, &process, group.answer_limit());
    let turn = Mutex::default();
    thread::scope(|scope| {
        let turn = &turn;
        scope.spawn(move || {
            streams::serve_input(agent, process, stream, client, limit, turn);
            // Refused where it has ended or has no input, which is just as well.
            let _ = agent.done(AgentRequest::CloseInput { process: process.clone() }, limit);
        });
        let pumps: Vec<_> = streams::streams(terminal)
            .iter()
            .filter(|_| stdio)
            .map(|stream| {
                scope.spawn(move || {
                    streams::pump(agent, process, *stream, |bytes| {
                        client.send(&ServerFrame::Bytes { stream: *stream }, bytes);
                    })
                })
            })
            .collect();
        let exit = streams::wait_exit(agent, process);
        let read = pumps.into_iter().map(|pump| pump.join().unwrap_or(Err(CallError::Closed(None))));
        let read = read.fold(Ok(()), Result::and);
        let end = match (exit, read) {
            (Ok(exit), Ok(())) => ServerFrame::Exit(exit),
            (Err(error), _) => ServerFrame::Lost { reason: crate::chain(&error) },
            // An exit code would say that this was all.
            (Ok(_), Err(error)) => {
                ServerFrame::Lost { reason: format!("its output was not read to the end: {}", crate::chain(&error)) }
            }
        };
        client.send(&end, &[]);
        client.cut();
    });
}

/// Asks the containers to end, then makes them. Whatever the policy or the guest says, the VM goes down afterwards.
fn stop(group: &Group, patience: Duration) -> StopReport {
    let mut report = StopReport::default();
    if group.stopping.swap(true, Ordering::SeqCst) {
        report.notes.push("the group was being stopped already".into());
        return report;
    }
    if let Err(error) = group.recorder.update(|record| record.phase = Phase::Stopping) {
        eprintln!("{}", crate::chain(&error));
    }
    let all: Vec<_> = group.plan.containers.iter().zip(&group.containers).collect();
    let mut silent = false;
    for (wanted, patience) in [(None, patience), (Some(9), AFTER_KILL)] {
        let mut heard = Vec::new();
        for (plan, container) in all.iter().filter(|(_, container)| container.exit().is_none()) {
            // Each question takes the guest's whole time where it does not answer: one is enough.
            if !silent {
                match signal(group, plan, container, wanted, &mut report) {
                    Signaled::Heard => heard.push(container),
                    Signaled::Refused => {}
                    Signaled::Silent => silent = true,
                }
            }
        }
        // A container whose signal was refused does not know that it should end: there is nothing to wait for.
        let end = Instant::now() + patience;
        for container in heard {
            container.wait_exit(end.saturating_duration_since(Instant::now()));
        }
    }
    report.forced = all.iter().any(|(_, container)| container.exit().is_none());
    group.tell(Happening::Stop);
    report
}

/// What became of a signal.
enum Signaled {
    Heard,
    Refused,
    Silent,
}

/// Sends a container's init a signal, its stop signal where `wanted` names none. With a note where the guest refused it or did
/// not answer.
fn signal(
    group: &Group,
    plan: &ContainerPlan,
    container: &Container,
    wanted: Option<u8>,
    report: &mut StopReport,
) -> Signaled {
    let signal = wanted.unwrap_or(plan.stop_signal);
    let request = AgentRequest::Signal { process: Group::init(plan), signal };
    match group.client.done(request, group.answer_limit()) {
        Ok(()) => Signaled::Heard,
        // It may have ended just before.
        Err(_) if container.exit().is_some() => Signaled::Heard,
        Err(error) => {
            report.notes.push(format!("signal {signal} to {}: {}", plan.name, crate::chain(&error)));
            if matches!(error, CallError::Silent(_)) { Signaled::Silent } else { Signaled::Refused }
        }
    }
}
