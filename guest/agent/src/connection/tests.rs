//! Requests as a host may send them, in order or not.

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::mpsc::{Receiver, channel},
};

use caveau_protocol::{ContainerId, ErrorKind, ProcessId, Stream};

use super::*;
use crate::live::tests::Running;

/// Records steps in their order; a `Stats` waits until it is let go.
struct Recorder {
    seen: std::sync::mpsc::Sender<AgentRequest>,
    go: Receiver<()>,
}

impl Steps for Recorder {
    fn step(&mut self, request: AgentRequest, _: Vec<u8>) -> Answer {
        if matches!(request, AgentRequest::Stats { .. }) {
            self.go.recv().unwrap();
        }
        // What is too much for a frame.
        let much = matches!(request, AgentRequest::UnmountLayer { .. });
        self.seen.send(request).unwrap();
        if much { Err(invalid("x".repeat(caveau_protocol::MAX_HEADER))) } else { crate::answer::done() }
    }
}

/// A host with a guest on the other side.
struct Host {
    port: UnixStream,
    seen: Receiver<AgentRequest>,
    go: std::sync::mpsc::Sender<()>,
    served: thread::JoinHandle<bool>,
}

impl Host {
    fn new() -> Self {
        Self::serving(Live::default())
    }

    fn serving(live: Live) -> Self {
        let (port, guest) = UnixStream::pair().unwrap();
        let ((seen_in, seen), (go, go_out)) = (channel(), channel());
        let guest = File::from(OwnedFd::from(guest));
        let recorder = Recorder { seen: seen_in, go: go_out };
        let served = thread::spawn(move || serve(&guest, recorder, Arc::new(live)).is_ok());
        Self { port, seen, go, served }
    }

    fn send(&mut self, id: u64, request: AgentRequest, body: &[u8]) {
        let envelope = RequestEnvelope { version: VERSION, id, request };
        write_frame(&mut self.port, &Frame::new(&envelope, body.to_vec()).unwrap()).unwrap();
    }

    fn reply(&mut self) -> ReplyEnvelope {
        read_frame(&mut self.port).unwrap().unwrap().header().unwrap()
    }

    fn refusal(&mut self) -> (u64, String) {
        self.refusal_of(ErrorKind::Invalid)
    }

    fn refusal_of(&mut self, kind: ErrorKind) -> (u64, String) {
        let ReplyEnvelope { id, result, .. } = self.reply();
        let error = result.unwrap_err();
        assert_eq!(error.kind, kind);
        (id, error.message)
    }
}

fn container() -> ContainerId {
    ContainerId::from_bytes([7; 32])
}

#[test]
fn steps_are_done_in_order_and_waiting_goes_on_beside_them() {
    let mut host = Host::new();
    host.send(1, AgentRequest::Stats { container: container() }, &[]);
    host.send(2, AgentRequest::Hello, &[]);
    host.send(3, AgentRequest::NextEvent { after: 0, timeout_ms: 1 }, &[]);
    let first = host.reply();
    assert_eq!((first.id, first.result), (3, Ok(AgentReply::Event(None))), "a wait does not stand in the queue");
    host.go.send(()).unwrap();
    assert_eq!([host.reply().id, host.reply().id], [1, 2]);
    assert!(matches!(host.seen.recv().unwrap(), AgentRequest::Stats { .. }));
    assert!(matches!(host.seen.recv().unwrap(), AgentRequest::Hello));
    drop(host.port);
    assert!(host.served.join().unwrap(), "a host that goes away is no error");
}

#[test]
fn whole_frames_of_nonsense_are_answered_and_the_next_one_is_read() {
    let mut host = Host::new();
    for header in ["null", "{}", r#"{"version":1,"id":1,"request":{"op":"open_door"}}"#] {
        let value: serde_json::Value = serde_json::from_str(header).unwrap();
        write_frame(&mut host.port, &Frame::new(&value, vec![]).unwrap()).unwrap();
        assert_eq!(host.refusal().0, 0);
    }
    let envelope = RequestEnvelope { version: 2, id: 9, request: AgentRequest::Hello };
    write_frame(&mut host.port, &Frame::new(&envelope, vec![]).unwrap()).unwrap();
    let (id, message) = host.refusal();
    assert!(id == 9 && message.contains("invalid protocol version 2"), "{message}");
    host.send(4, AgentRequest::Hello, &[]);
    assert_eq!(host.reply().id, 4);
}

#[test]
fn a_length_over_the_limit_is_told_and_ends_the_guest() {
    let mut host = Host::new();
    io::Write::write_all(&mut host.port, &[0xff; 8]).unwrap();
    let (id, message) = host.refusal();
    assert!(id == 0 && message.contains("4294967295"), "{message}");
    assert!(!host.served.join().unwrap());
}

#[test]
fn a_frame_cut_short_ends_the_guest() {
    let mut host = Host::new();
    io::Write::write_all(&mut host.port, &[9, 0, 0, 0, 0]).unwrap();
    host.port.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(host.refusal().0, 0);
    assert!(!host.served.join().unwrap());
}

#[test]
fn numbers_in_use_bodies_out_of_place_and_too_many_requests_are_refused() {
    let mut host = Host::new();
    let slow = || AgentRequest::Stats { container: container() };
    host.send(1, slow(), &[]);
    host.send(1, slow(), &[]);
    assert!(host.refusal().1.contains("invalid request number 1"));
    host.send(0, slow(), &[]);
    assert!(host.refusal().1.contains("invalid request number 0"));
    host.send(2, slow(), b"x");
    assert!(host.refusal().1.contains("at most 0"));
    let input = AgentRequest::WriteInput { process: ProcessId::init(container()) };
    host.send(3, input, &vec![0; MAX_CHUNK + 1]);
    assert!(host.refusal().1.contains("at most 65536"));
    for id in 2..=MAX_OPEN_REQUESTS as u64 {
        host.send(id, slow(), &[]);
    }
    host.send(1000, slow(), &[]);
    let (id, message) = host.refusal_of(ErrorKind::Busy);
    assert!(id == 1000 && message.contains("of 128 in all"), "{message}");
    for _ in 0..MAX_OPEN_REQUESTS {
        host.go.send(()).unwrap();
    }
    for id in 1..=MAX_OPEN_REQUESTS as u64 {
        assert_eq!(host.reply().id, id);
    }
}

#[test]
fn executed_processes_leave_room_for_containers_and_these_for_steps() {
    let first = ProcessId::init(container());
    let live = Live::default();
    live.insert(first.clone(), Arc::new(Running::default()), HOST);
    let executed = ProcessId { container: container(), exec: Some(1) };
    live.insert(executed.clone(), Arc::new(Running::default()), HOST);
    let mut host = Host::serving(live);
    let wait = |process: &ProcessId| AgentRequest::Wait { process: process.clone(), timeout_ms: 60_000 };
    let others = (MAX_OPEN_REQUESTS - KEPT_REQUESTS - REQUESTS_OF_A_PROCESS) as u64;
    for id in 1..=others {
        host.send(id, wait(&executed), &[]);
    }
    host.send(1000, wait(&executed), &[]);
    assert_eq!(host.refusal_of(ErrorKind::Busy).0, 1000);
    host.send(1000, AgentRequest::WriteInput { process: first.clone() }, b"x");
    assert_eq!(host.refusal_of(ErrorKind::Busy).0, 1000);
    for id in 0..REQUESTS_OF_A_PROCESS as u64 {
        host.send(200 + id, wait(&first), &[]);
    }
    host.send(1000, wait(&first), &[]);
    assert_eq!(host.refusal_of(ErrorKind::Busy).0, 1000);
    for id in 0..KEPT_REQUESTS as u64 {
        host.send(300 + id, AgentRequest::Hello, &[]);
        assert_eq!(host.reply().id, 300 + id);
    }
}

#[test]
fn what_waits_is_bounded_in_bytes() {
    let mut host = Host::new();
    host.send(1, AgentRequest::Stats { container: container() }, &[]);
    let policy = || AgentRequest::SetPolicy { host_certificates: None, reference_info: None };
    let body = vec![0; MAX_BODY];
    for id in 2..=4 {
        host.send(id, policy(), &body);
    }
    host.send(5, policy(), &body);
    let (id, message) = host.refusal_of(ErrorKind::Busy);
    assert!(id == 5 && message.contains("16777216 bytes"), "{message}");
    host.send(6, AgentRequest::Hello, &[]);
    host.go.send(()).unwrap();
    for id in [1, 2, 3, 4, 6] {
        assert_eq!(host.reply().id, id);
    }
    host.send(5, policy(), &body);
    assert_eq!(host.reply().id, 5, "answered requests hold nothing");
}

#[test]
fn an_answer_that_fits_no_frame_is_an_error() {
    let mut host = Host::new();
    host.send(1, AgentRequest::UnmountLayer { layer: caveau_protocol::LayerId(1) }, &[]);
    let ReplyEnvelope { id, result, .. } = host.reply();
    let error = result.unwrap_err();
    assert!(id == 1 && error.kind == ErrorKind::Failed, "{error:?}");
    assert!(error.message.contains("not within 1 and"), "{error:?}");
}

#[test]
fn processes_that_are_not_there_are_said_so() {
    let mut host = Host::new();
    let process = ProcessId { container: container(), exec: Some(5) };
    let read = AgentRequest::ReadOutput { process: process.clone(), stream: Stream::Stdout, max: 1, timeout_ms: 1 };
    host.send(1, read, &[]);
    assert!(host.refusal().1.contains("no process 5"));
    host.send(2, AgentRequest::Wait { process, timeout_ms: u32::MAX }, &[]);
    assert!(host.refusal().1.contains("no process 5"));
}
