//! An owner at the other end of a channel, and a host that carries its bytes.

use std::io::Write as _;

use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
use caveau_channel::{OwnerEnd, OwnerKey};
use caveau_protocol::{ContainerId, ErrorKind, ProcessId, Report, Stream, read_frame};

use super::*;
use crate::live::tests::Running;

/// A gate that only remembers what it was asked, and gives a report for evidence.
#[derive(Clone, Default)]
struct Remembers(Arc<Mutex<Vec<PeerStep>>>);

impl Ask for Remembers {
    fn ask(&self, step: PeerStep) -> Answer {
        let evidence = matches!(step, PeerStep::Attest { .. });
        self.0.lock().unwrap().push(step);
        let report = Report { report: "AA==".to_owned(), certificates: String::new() };
        if evidence { Ok((AgentReply::Report(report), Vec::new())) } else { done() }
    }
}

/// A guest, and a host that opened one channel to it and carries bytes.
struct Setting {
    channels: Arc<Channels>,
    live: Arc<Live>,
    gate: Remembers,
}

impl Setting {
    fn new() -> Self {
        Self { channels: Arc::default(), live: Arc::default(), gate: Remembers::default() }
    }

    fn open(&self) -> Result<u32, AgentError> {
        match self.channels.open(Arc::clone(&self.live), self.gate.clone())? {
            (AgentReply::Channel { channel }, _) => Ok(channel),
            other => panic!("{other:?}"),
        }
    }

    /// The owner's end of a new channel, and the channel's number.
    fn carried(&self) -> (UnixStream, u32) {
        let number = self.open().unwrap();
        let (owner, host) = UnixStream::pair().unwrap();
        let (mut from, mut to) = (host.try_clone().unwrap(), host);
        let channels = Arc::clone(&self.channels);
        thread::spawn(move || {
            let mut bytes = [0; 1000];
            while let Ok(count @ 1..) = io::Read::read(&mut from, &mut bytes) {
                if channels.write(number, &bytes[..count]).is_err() {
                    return;
                }
            }
            let _ = channels.close(number);
        });
        let channels = Arc::clone(&self.channels);
        thread::spawn(move || {
            while let Ok((AgentReply::Output(output), bytes)) = channels.read(number, 1000, Duration::from_secs(20)) {
                if to.write_all(&bytes).is_err() || output.eof {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
        (owner, number)
    }

    fn owner(&self, key: Option<&OwnerKey>) -> Owner {
        Owner { end: OwnerEnd::connect(key, self.carried().0).unwrap() }
    }
}

struct Owner {
    end: OwnerEnd<UnixStream>,
}

impl Owner {
    fn call(&mut self, request: AgentRequest, body: &[u8]) -> Answer {
        let envelope = RequestEnvelope { version: VERSION, id: 7, request };
        write_frame(&mut self.end, &Frame::new(&envelope, body.to_vec()).unwrap()).unwrap();
        let frame = read_frame(&mut self.end).unwrap().unwrap();
        let reply: ReplyEnvelope = frame.header().unwrap();
        assert_eq!(reply.id, 7);
        reply.result.map(|reply| (reply, frame.body))
    }
}

fn key() -> OwnerKey {
    OwnerKey::from_der(Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap().as_ref()).unwrap()
}

fn executed() -> ProcessId {
    ProcessId { container: ContainerId::from_bytes([7; 32]), exec: Some(1) }
}

#[test]
fn evidence_is_asked_for_this_very_session() {
    let setting = Setting::new();
    let nonce = Nonce::try_from(vec![3; 32]).unwrap();
    let (mut one, mut two) = (setting.owner(None), setting.owner(Some(&key())));
    for owner in [&mut one, &mut two] {
        let answer = owner.call(AgentRequest::Attest { nonce: nonce.clone() }, &[]).unwrap();
        assert!(matches!(answer.0, AgentReply::Report(_)));
    }
    let asked = setting.gate.0.lock().unwrap();
    let exporters: Vec<Exporter> = asked
        .iter()
        .map(|step| match step {
            PeerStep::Attest { nonce: asked, exporter } if *asked == nonce => *exporter,
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [one, two].map(|owner| owner.end.exporter(nonce.as_bytes()).unwrap());
    assert_eq!(exporters, expected);
    assert_ne!(expected[0], expected[1]);
}

#[test]
fn whoever_shows_no_key_has_no_process() {
    let setting = Setting::new();
    let (process, _ends) = Running::attached();
    setting.live.insert(executed(), process, Viewer::Host);
    let mut stranger = setting.owner(None);
    let read = AgentRequest::ReadOutput { process: executed(), stream: Stream::Stdout, max: 9, timeout_ms: 1 };
    for request in [read.clone(), AgentRequest::WriteInput { process: executed() }] {
        let refused = stranger.call(request, &[]).unwrap_err();
        assert!(refused.message.contains("for owners"), "{refused}");
    }
    // Nor has an owner the host's.
    let refused = setting.owner(Some(&key())).call(read, &[]).unwrap_err();
    assert!(refused.message.contains("has no process 1"), "{refused}");
    assert!(setting.gate.0.lock().unwrap().is_empty());
}

#[test]
fn an_owner_has_its_own_processes() {
    let setting = Setting::new();
    let key = key();
    let (process, [input, output, _error]) = Running::attached();
    setting.live.insert(executed(), process, Viewer::Owner(key.digest()));
    let mut owner = setting.owner(Some(&key));
    let written = owner.call(AgentRequest::WriteInput { process: executed() }, b"typed").unwrap();
    assert_eq!(written.0, AgentReply::Written { bytes: 5 });
    let mut typed = [0; 9];
    assert_eq!(rustix::io::read(&input, &mut typed).unwrap(), 5);
    std::fs::File::from(output).write_all(b"shown").unwrap();
    let read = AgentRequest::ReadOutput { process: executed(), stream: Stream::Stdout, max: 9, timeout_ms: 9000 };
    assert_eq!(owner.call(read, &[]).unwrap().1, b"shown");
}

#[test]
fn what_the_host_may_ask_nobody_else_may() {
    let setting = Setting::new();
    let mut owner = setting.owner(Some(&key()));
    for request in [
        AgentRequest::Shutdown,
        AgentRequest::KeepRequests,
        AgentRequest::TakeRequests,
        AgentRequest::OpenChannel,
        AgentRequest::LoadFragment,
        AgentRequest::NextEvent { after: 0, timeout_ms: 1 },
        AgentRequest::SetPolicy { host_certificates: None, reference_info: None },
        AgentRequest::StartContainer { container: ContainerId::from_bytes([7; 32]) },
    ] {
        let refused = owner.call(request.clone(), &[]).unwrap_err();
        assert!(refused.kind == ErrorKind::Invalid && refused.message.contains("the host's"), "{request:?}: {refused}");
    }
    assert!(owner.call(AgentRequest::Hello, b"body").unwrap_err().message.contains("no body"));
    assert!(setting.gate.0.lock().unwrap().is_empty());
}

#[test]
fn sealed_output_is_read_with_the_policys_leave_each_time() {
    let setting = Setting::new();
    let (process, [_input, output, _error]) = Running::attached();
    setting.live.insert_sealed(ProcessId::init(ContainerId::from_bytes([7; 32])), process).unwrap();
    std::fs::File::from(output).write_all(b"secret").unwrap();
    let key = key();
    let mut owner = setting.owner(Some(&key));
    let read = AgentRequest::ReadLog { container: None, stream: Stream::Stdout, from: 2, max: 9, timeout_ms: 9000 };
    assert_eq!(owner.call(read, &[]).unwrap().1, b"cret");
    let asked = setting.gate.0.lock().unwrap();
    assert!(matches!(asked.as_slice(), [PeerStep::Logs { key: Some(asked) }] if *asked == key.digest()));
}

#[test]
fn what_is_no_handshake_and_what_is_no_frame_end_a_channel() {
    let setting = Setting::new();
    let (mut stream, number) = setting.carried();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(io::Read::read_to_end(&mut stream, &mut Vec::new()).is_ok(), "it ends");
    drop(stream);
    let mut owner = setting.owner(None);
    // A frame whose body is longer than anything that is asked here.
    owner.end.write_all(&[2u32.to_le_bytes(), (1u32 << 20).to_le_bytes()].concat()).unwrap();
    assert_eq!(io::Read::read(&mut owner.end, &mut [0; 9]).unwrap(), 0);
    assert!(setting.channels.write(number.wrapping_add(9), b"x").is_err(), "there is no such channel");
}

#[test]
fn channels_are_few_and_their_numbers_used_once() {
    let setting = Setting::new();
    let numbers: Vec<_> = (0..MAX_CHANNELS).map(|_| setting.open().unwrap()).collect();
    assert_eq!(setting.open().unwrap_err().kind, ErrorKind::Busy);
    setting.channels.close(numbers[0]).unwrap();
    let next = setting.open().unwrap();
    assert!(!numbers.contains(&next));
    for gone in [numbers[0], 99] {
        assert!(setting.channels.close(gone).is_err());
        assert!(setting.channels.read(gone, 9, Duration::ZERO).is_err());
        assert!(setting.channels.write(gone, b"x").is_err());
    }
    assert!(setting.channels.read(next, 0, Duration::ZERO).is_err());
}
