//! Moving a process's output and input between guest, log and clients.

use std::{
    os::unix::net::UnixStream,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use caveau_protocol::{AgentReply, AgentRequest, Exit, MAX_CHUNK, ProcessId, Stream, read_frame};

use super::{
    group::{Container, Group, Shared},
    hub::Client,
};
use crate::{
    AgentClient, CallError,
    agent::unexpected,
    control::{ClientFrame, INPUT_WINDOW, ServerFrame},
    state::now_ns,
};

/// Longest time that one request may wait in the guest, in milliseconds.
const POLL_MS: u32 = 60_000;

/// Pause before input that found no room is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// The streams that a process has.
pub(super) fn streams(terminal: bool) -> &'static [Stream] {
    if terminal { &[Stream::Stdout] } else { &[Stream::Stdout, Stream::Stderr] }
}

/// Reads one stream to its end. The next piece is asked for only when `deliver` has returned: that is the back-pressure.
pub(super) fn pump(
    client: &AgentClient,
    process: &ProcessId,
    stream: Stream,
    mut deliver: impl FnMut(&[u8]),
) -> Result<(), CallError> {
    let max = u32::try_from(MAX_CHUNK).unwrap_or(u32::MAX);
    loop {
        let request = AgentRequest::ReadOutput { process: process.clone(), stream, max, timeout_ms: POLL_MS };
        match client.call(request, Vec::new(), None)? {
            (AgentReply::Output(output), bytes) => {
                if !bytes.is_empty() {
                    deliver(&bytes);
                }
                if output.eof {
                    return Ok(());
                }
            }
            (other, _) => return Err(unexpected(&other)),
        }
    }
}

/// Waits for a process's end.
pub(super) fn wait_exit(client: &AgentClient, process: &ProcessId) -> Result<Exit, CallError> {
    loop {
        let request = AgentRequest::Wait { process: process.clone(), timeout_ms: POLL_MS };
        match client.call(request, Vec::new(), None)? {
            (AgentReply::Exit(Some(exit)), _) => return Ok(exit),
            (AgentReply::Exit(None), _) => {}
            (other, _) => return Err(unexpected(&other)),
        }
    }
}

/// Follows a container to its end: output into log and hub, then the exit. Returns at once; the work is done by threads.
pub(super) fn follow(group: &Shared, index: usize) -> std::io::Result<()> {
    let group = Shared::clone(group);
    thread::Builder::new().name(format!("container-{index}")).spawn(move || {
        let (Some(plan), Some(container)) = (group.plan.containers.get(index), group.containers.get(index)) else {
            return;
        };
        let process = Group::init(plan);
        let outcome = thread::scope(|scope| {
            for stream in streams(plan.create.process.terminal.is_some()) {
                let (group, process) = (&group, &process);
                scope.spawn(move || pump_init(group, &plan.name, container, process, *stream));
            }
            let outcome = wait_exit(&group.client, &process);
            if let Ok(exit) = outcome {
                note_exit(&group, index, container, exit);
            }
            outcome
        });
        match outcome {
            Ok(exit) => container.hub.finish(ServerFrame::Exit(exit)),
            Err(error) => {
                let reason = crate::chain(&error);
                container.set_lost(format!("{} can be followed no longer: {reason}", plan.name));
                container.hub.finish(ServerFrame::Lost { reason });
            }
        }
        group.delivered(container);
    })?;
    Ok(())
}

/// Writes an exit down before anything waits for the last of the output.
fn note_exit(group: &Group, index: usize, container: &Container, exit: Exit) {
    let noted = group.recorder.update(|record| {
        if let Some(container) = record.containers.get_mut(index) {
            container.exit = Some(exit);
        }
    });
    if let Err(error) = noted {
        eprintln!("{}", crate::chain(&error));
    }
    container.set_exit(exit);
}

/// One stream of a container's init.
fn pump_init(group: &Group, name: &str, container: &Container, process: &ProcessId, stream: Stream) {
    let mut lines = group.log.lines(name, stream);
    let mut fault = None;
    let result = pump(&group.client, process, stream, |bytes| {
        // A full disk must not hold the container up; its first complaint is kept.
        fault = fault.take().or(lines.push(bytes).err());
        container.hub.output(stream, bytes);
    });
    if let Some(error) = fault.or(lines.flush().err()) {
        eprintln!("{stream:?} of {name} is not in the log as a whole: {}", crate::chain(&error));
    }
    match result {
        Ok(()) | Err(CallError::Closed(None)) => {}
        Err(error) => {
            let message = format!("{stream:?} of {name} could not be read to its end: {}", crate::chain(&error));
            eprintln!("{} {message}", now_ns());
            container.hub.notice(&message);
        }
    }
}

/// What a client does with a process's input, in its order.
enum Piece {
    Bytes(Vec<u8>),
    Close,
}

/// Takes an attached client's frames until it leaves. Input waits in a thread of its own until the guest has taken it, so
/// that a signal or the terminal's size never waits behind it; those may take at most `limit`. `turn` is held while a piece
/// is written: a process takes the pieces of several clients one after the other.
pub(super) fn serve_input(
    agent: &AgentClient,
    process: &ProcessId,
    mut stream: UnixStream,
    client: &Client,
    limit: Duration,
    turn: &Mutex<()>,
) {
    // A client sends no more than its window, and the end.
    let (pieces, waiting) = mpsc::sync_channel(INPUT_WINDOW + 1);
    thread::scope(|scope| {
        scope.spawn(move || {
            for piece in waiting {
                let done = match &piece {
                    Piece::Bytes(bytes) => write_input(agent, process, bytes, client, turn),
                    Piece::Close => {
                        agent.done(AgentRequest::CloseInput { process: process.clone() }, limit).map(|()| true)
                    }
                };
                match done {
                    Ok(true) => {}
                    // What is left of this client's input nobody will take either.
                    Ok(false) => return,
                    Err(error) => {
                        client.send(&ServerFrame::Notice { message: crate::chain(&error) }, &[]);
                    }
                }
                if matches!(piece, Piece::Bytes(_)) {
                    client.send(&ServerFrame::Taken, &[]);
                }
            }
        });
        while let Ok(Some(frame)) = read_frame(&mut stream) {
            let done = match frame.header::<ClientFrame>() {
                Ok(ClientFrame::Bytes) => pieces.send(Piece::Bytes(frame.body)).map_err(|_| CallError::Closed(None)),
                Ok(ClientFrame::Close) => pieces.send(Piece::Close).map_err(|_| CallError::Closed(None)),
                Ok(ClientFrame::Resize { size }) => {
                    agent.done(AgentRequest::ResizeTerminal { process: process.clone(), size }, limit)
                }
                Ok(ClientFrame::Signal { signal }) => {
                    agent.done(AgentRequest::Signal { process: process.clone(), signal }, limit)
                }
                Err(error) => {
                    client.send(&ServerFrame::Notice { message: crate::chain(&error) }, &[]);
                    break;
                }
            };
            if let Err(error) = done {
                client.send(&ServerFrame::Notice { message: crate::chain(&error) }, &[]);
            }
        }
        drop(pieces);
    });
}

/// Writes all of `bytes` to a process's input, however long the process takes. `false` where it takes nothing and the client
/// has left, or was let go because the process has ended.
fn write_input(
    agent: &AgentClient,
    process: &ProcessId,
    bytes: &[u8],
    client: &Client,
    turn: &Mutex<()>,
) -> Result<bool, CallError> {
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    for chunk in bytes.chunks(MAX_CHUNK) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let request = AgentRequest::WriteInput { process: process.clone() };
            match agent.call(request, rest.to_vec(), None)? {
                (AgentReply::Written { bytes: 0 }, _) => {
                    if client.has_left() {
                        return Ok(false);
                    }
                    // The guest has waited already; one that did not must not be asked at once again.
                    thread::sleep(FULL_PAUSE);
                }
                (AgentReply::Written { bytes: taken }, _) => {
                    rest = rest.get(usize::try_from(taken).unwrap_or(usize::MAX)..).unwrap_or_default();
                }
                (other, _) => return Err(unexpected(&other)),
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use caveau_protocol::{ContainerId, Frame, Output, write_frame};

    use super::*;
    use crate::{AttachEvent, Attachment, agent::tests::fake};

    fn process() -> ProcessId {
        ProcessId::init(ContainerId::from_bytes([1; 32]))
    }

    #[test]
    fn output_comes_whole_and_in_order() {
        let mut left = 5u8;
        let guest = fake(Box::new(move |request, _| {
            assert!(matches!(request, AgentRequest::ReadOutput { max: 65_536, .. }));
            left -= 1;
            let bytes = if left.is_multiple_of(2) { vec![left; 3] } else { vec![] };
            Some(Ok((AgentReply::Output(Output { eof: left == 0 }), bytes)))
        }));
        let mut seen = Vec::new();
        pump(&AgentClient::new(guest).unwrap(), &process(), Stream::Stdout, |bytes| seen.extend_from_slice(bytes))
            .unwrap();
        assert_eq!(seen, [4, 4, 4, 2, 2, 2, 0, 0, 0]);
    }

    #[test]
    fn waiting_goes_on_until_there_is_an_exit() {
        let mut asked = 0;
        let guest = fake(Box::new(move |_, _| {
            asked += 1;
            let exit = (asked == 3).then_some(Exit { code: 9, out_of_memory: true });
            Some(Ok((AgentReply::Exit(exit), vec![])))
        }));
        assert_eq!(wait_exit(&AgentClient::new(guest).unwrap(), &process()).unwrap().code, 9);
    }

    #[test]
    fn input_is_written_until_all_is_taken() {
        let taken: Arc<Mutex<Vec<u8>>> = Arc::default();
        let pipe = Arc::clone(&taken);
        let guest = fake(Box::new(move |request, body| {
            let reply = match request {
                AgentRequest::WriteInput { .. } => {
                    let part = body.len().min(1000);
                    pipe.lock().unwrap().extend_from_slice(&body[..part]);
                    AgentReply::Written { bytes: u32::try_from(part).unwrap() }
                }
                _ => AgentReply::Done,
            };
            Some(Ok((reply, vec![])))
        }));
        let agent = AgentClient::new(guest).unwrap();
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let input: Vec<u8> = (0..100_000u32).map(|number| number.to_le_bytes()[1]).collect();
        write_frame(&mut theirs, &Frame::new(&ClientFrame::Bytes, input.clone()).unwrap()).unwrap();
        write_frame(&mut theirs, &Frame::new(&ClientFrame::Close, vec![]).unwrap()).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let client = Client::new(&ours).unwrap();
        serve_input(&agent, &process(), ours, &client, Duration::from_secs(60), &Mutex::default());
        assert_eq!(*taken.lock().unwrap(), input);
    }

    /// A guest whose process takes input only after a signal.
    fn sleepy(taken: &Arc<Mutex<Vec<u8>>>) -> AgentClient {
        let (pipe, mut awake) = (Arc::clone(taken), false);
        let guest = fake(Box::new(move |request, body| {
            let reply = match request {
                AgentRequest::Signal { .. } => {
                    awake = true;
                    AgentReply::Done
                }
                AgentRequest::WriteInput { .. } if !awake => AgentReply::Written { bytes: 0 },
                AgentRequest::WriteInput { .. } => {
                    pipe.lock().unwrap().extend_from_slice(body);
                    AgentReply::Written { bytes: u32::try_from(body.len()).unwrap() }
                }
                _ => AgentReply::Done,
            };
            Some(Ok((reply, vec![])))
        }));
        AgentClient::new(guest).unwrap()
    }

    #[test]
    fn a_signal_overtakes_input_and_none_of_that_is_lost() {
        let taken: Arc<Mutex<Vec<u8>>> = Arc::default();
        let agent = sleepy(&taken);
        let (theirs, ours) = UnixStream::pair().unwrap();
        let leave = theirs.try_clone().unwrap();
        let mut attachment = Attachment::new(theirs, process(), false).unwrap();
        let input: Vec<u8> = (0..400_000u32).map(|number| number.to_le_bytes()[1]).collect();
        let (mut writer, mut other) = (attachment.input(), attachment.input());
        let client = Client::new(&ours).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| serve_input(&agent, &process(), ours, &client, Duration::from_secs(60), &Mutex::default()));
            let heard = scope.spawn(move || attachment.next_event());
            for (number, piece) in input.chunks(10_000).enumerate() {
                if number == INPUT_WINDOW {
                    // The window is full: only the signal makes room.
                    other.signal(15).unwrap();
                }
                writer.write(piece).unwrap();
            }
            while taken.lock().unwrap().len() < input.len() {
                thread::sleep(Duration::from_millis(1));
            }
            leave.shutdown(std::net::Shutdown::Both).unwrap();
            assert!(matches!(heard.join().unwrap(), AttachEvent::Lost { .. }));
            assert!(writer.write(b"more").is_err());
        });
        assert_eq!(*taken.lock().unwrap(), input);
    }

    #[test]
    fn input_for_a_process_that_never_reads_ends_with_the_client() {
        let taken: Arc<Mutex<Vec<u8>>> = Arc::default();
        let agent = sleepy(&taken);
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        write_frame(&mut theirs, &Frame::new(&ClientFrame::Bytes, b"never".to_vec()).unwrap()).unwrap();
        drop(theirs);
        let client = Client::new(&ours).unwrap();
        serve_input(&agent, &process(), ours, &client, Duration::from_secs(60), &Mutex::default());
        assert_eq!(*taken.lock().unwrap(), b"");
    }
}
