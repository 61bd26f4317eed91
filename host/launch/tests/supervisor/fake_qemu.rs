//! A QEMU that boots nothing: it answers on its control connection, and plays the agent on the agent's port.
//!
//! What its guest does is written in the plan: the policy's text and the container's first argument name a behaviour.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader, Write},
    os::{fd::FromRawFd, unix::net::UnixStream},
    process::{ExitCode, exit},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use caveau_protocol::{
    AgentError, AgentReply, AgentRequest, ContainerId, ContainerStats, ErrorKind, Event, EventKind, Exit, Frame, Hello,
    LayerId, Output, ReplyEnvelope, Report, RequestEnvelope, Stream, VERSION, read_frame, write_frame,
};

use caveau_tee::{EmulatedTee, Tee};

/// What the flood writes in all.
pub(crate) const FLOOD: usize = 3_000_000;

/// Numbers of executed processes: one whose output cannot be read, and one that never ends.
const CUT_OFF: u32 = 6;
const STAYS: u32 = 7;

/// Plays QEMU until it is told to quit.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let memory = words.iter().position(|word| *word == "-m").map(|at| words[at + 1]);
    if words.iter().any(|word| word.ends_with("accel=kvm")) {
        // The probe learns at once that it should not use KVM here.
        return ExitCode::FAILURE;
    }
    if memory == Some("666M") {
        eprintln!("qemu: Could not set up host forwarding rule");
        return ExitCode::FAILURE;
    }
    let [qmp, console, agent, processor] = ["qmp", "console", "agent", "sp"].map(|id| stream(&words, id));
    let mut console = console;
    writeln!(console, "fake guest\r").unwrap();
    thread::spawn(move || guest(agent, processor));
    answer_control(qmp, &roms(&words));
    ExitCode::SUCCESS
}

/// The inherited end of a connection.
#[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
fn stream(words: &[&str], id: &str) -> UnixStream {
    let prefix = format!("socket,id={id},fd=");
    let number = words.iter().find_map(|word| word.strip_prefix(&prefix)).unwrap().parse().unwrap();
    // SAFETY: the launcher gave this number to this process, and each is taken once.
    unsafe { UnixStream::from_raw_fd(number) }
}

/// What `info roms` lists: the firmware, and each ROM in the folder of `-L`.
fn roms(words: &[&str]) -> String {
    let after = |flag: &str| words.iter().position(|word| *word == flag).map_or("", |at| words[at + 1]);
    let mut lines = format!("addr=00000000fffc0000 size=0x040000 mem=rom name=\"{}\"\r\n", after("-bios"));
    for rom in std::fs::read_dir(after("-L")).into_iter().flatten().filter_map(Result::ok) {
        lines += &format!("fw=genroms/{} size=0x000600 name=\"x\"\r\n", rom.file_name().display());
    }
    lines
}

fn answer_control(mut qmp: UnixStream, roms: &str) {
    writeln!(qmp, r#"{{"QMP": {{"version": {{}}, "capabilities": []}}}}"#).unwrap();
    for line in BufReader::new(qmp.try_clone().unwrap()).lines().map_while(Result::ok) {
        if line.contains("\"quit\"") {
            exit(0);
        }
        let value = match () {
            () if line.contains("query-status") => serde_json::json!({"status": "running"}),
            () if line.contains("info roms") => roms.into(),
            () => serde_json::json!({}),
        };
        writeln!(qmp, r#"{{"return": {value}}}"#).unwrap();
    }
}

/// The guest's state, shared by its requests.
struct Guest {
    container: Mutex<Container>,
    changed: Condvar,
    tee: Mutex<EmulatedTee>,
}

#[derive(Default)]
struct Container {
    behaviour: String,
    exit: Option<Exit>,
    output: HashMap<(Option<u32>, bool), Vec<u8>>,
    closed: bool,
    silent: bool,
    refused: bool,
    events: Vec<EventKind>,
}

type Answer = Option<Result<(AgentReply, Vec<u8>), AgentError>>;

fn guest(agent: UnixStream, processor: UnixStream) {
    processor.set_nonblocking(true).unwrap();
    let tee = EmulatedTee::over(processor.into(), Duration::from_secs(60)).unwrap();
    let guest = Arc::new(Guest { container: Mutex::default(), changed: Condvar::new(), tee: Mutex::new(tee) });
    let writer = Arc::new(Mutex::new(agent.try_clone().unwrap()));
    let mut reader = agent;
    while let Ok(Some(frame)) = read_frame(&mut reader) {
        let envelope: RequestEnvelope = frame.header().unwrap();
        let (guest, writer) = (Arc::clone(&guest), Arc::clone(&writer));
        thread::spawn(move || {
            let Some(result) = guest.answer(envelope.request, frame.body) else { return };
            let (result, body) = match result {
                Ok((reply, body)) => (Ok(reply), body),
                Err(error) => (Err(error), vec![]),
            };
            let reply = ReplyEnvelope { version: VERSION, id: envelope.id, result };
            write_frame(&mut *writer.lock().unwrap(), &Frame::new(&reply, body).unwrap()).unwrap();
        });
    }
}

fn denied(message: &str) -> Answer {
    let denial = Some(serde_json::json!({"reasons": [message]}));
    Some(Err(AgentError { kind: ErrorKind::Denied, message: message.into(), denial }))
}

impl Guest {
    fn answer(&self, request: AgentRequest, body: Vec<u8>) -> Answer {
        let done = Some(Ok((AgentReply::Done, vec![])));
        if self.container.lock().unwrap().silent {
            return None;
        }
        if self.is_busy() {
            return Some(Err(AgentError { kind: ErrorKind::Busy, message: "busy".into(), denial: None }));
        }
        match request {
            AgentRequest::Hello => {
                let hello = Hello {
                    agent: "fake".into(),
                    tee: "emulated-snp".into(),
                    kernel: "0".into(),
                    boot_ns: 1,
                    steps: Vec::new(),
                };
                Some(Ok((AgentReply::Hello(hello), vec![])))
            }
            AgentRequest::SetPolicy { .. } => match body.as_slice() {
                b"deny" => denied("the policy's digest is not HOST_DATA"),
                b"hang" => None,
                b"die" => exit(3),
                _ => Some(Ok((AgentReply::Policy { digest: "00".repeat(32) }, vec![]))),
            },
            AgentRequest::MountLayer(layer) => {
                // The launcher's disks are descriptors in this process: the layer's content must be reachable.
                let listed = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
                let names = listed.filter_map(|entry| std::fs::read_link(entry.path()).ok());
                assert!(names.into_iter().any(|name| name.ends_with("layer.img")));
                Some(Ok((AgentReply::Layer { layer: LayerId(layer.lun.into()) }, vec![])))
            }
            AgentRequest::CreateContainer(create) => {
                self.container.lock().unwrap().behaviour = create.process.args.join(" ");
                done
            }
            AgentRequest::TakeRequests => Some(Ok((AgentReply::Requests { lost: 0 }, b"{\"asked\":true}\n".to_vec()))),
            AgentRequest::StartContainer { .. } => self.start(),
            AgentRequest::ReadOutput { process, .. } if process.exec == Some(CUT_OFF) => {
                let message = "no such process".to_owned();
                Some(Err(AgentError { kind: ErrorKind::Invalid, message, denial: None }))
            }
            AgentRequest::ReadOutput { process, .. } if process.exec == Some(STAYS) => {
                thread::sleep(Duration::from_millis(500));
                Some(Ok((AgentReply::Output(Output { eof: false }), vec![])))
            }
            AgentRequest::Wait { process, .. } if process.exec == Some(STAYS) => {
                thread::sleep(Duration::from_millis(500));
                Some(Ok((AgentReply::Exit(None), vec![])))
            }
            AgentRequest::ReadOutput { process, stream, timeout_ms, .. } => {
                Some(Ok(self.read(process.exec, stream, timeout_ms)))
            }
            AgentRequest::WriteInput { process } => {
                let written = AgentReply::Written { bytes: u32::try_from(body.len()).unwrap() };
                self.change(|container| {
                    container.output.entry((process.exec, true)).or_default().extend(body);
                });
                Some(Ok((written, vec![])))
            }
            AgentRequest::CloseInput { .. } => {
                self.end(0);
                done
            }
            AgentRequest::Exec(exec) if exec.process.args[0] == "ok" => {
                self.change(|container| {
                    container.output.insert((Some(5), true), b"from exec".to_vec());
                });
                Some(Ok((AgentReply::Exec { exec: 5 }, vec![])))
            }
            AgentRequest::Exec(exec) if exec.process.args[0] == "cut off" => {
                Some(Ok((AgentReply::Exec { exec: CUT_OFF }, vec![])))
            }
            AgentRequest::Exec(exec) if exec.process.args[0] == "stay" => {
                Some(Ok((AgentReply::Exec { exec: STAYS }, vec![])))
            }
            AgentRequest::Exec(exec) if exec.process.args[0] == "vanish" => exit(9),
            AgentRequest::Exec(_) => denied("exec is not in the policy"),
            AgentRequest::Wait { process, .. } if process.exec.is_some() => {
                Some(Ok((AgentReply::Exit(Some(Exit { code: 42, out_of_memory: false })), vec![])))
            }
            AgentRequest::Wait { timeout_ms, .. } => {
                let exit = self.wait(timeout_ms, |container| container.exit.is_some()).exit;
                Some(Ok((AgentReply::Exit(exit), vec![])))
            }
            AgentRequest::Signal { signal, .. } => self.signal(signal),
            AgentRequest::NextEvent { after, timeout_ms } => {
                let after = usize::try_from(after).unwrap();
                let container = self.wait(timeout_ms, |container| container.events.len() > after);
                let event = container
                    .events
                    .get(after)
                    .map(|event| Event { number: u64::try_from(after + 1).unwrap(), event: event.clone() });
                Some(Ok((AgentReply::Event(event), vec![])))
            }
            AgentRequest::Attest { nonce } => {
                let evidence = self.tee.lock().unwrap().report(nonce.as_bytes().try_into().unwrap()).unwrap();
                let report = BASE64_STANDARD.encode(evidence.report);
                Some(Ok((AgentReply::Report(Report { report, certificates: String::new() }), vec![])))
            }
            AgentRequest::Stats { .. } => {
                let stats = ContainerStats { pids: 3, ..ContainerStats::default() };
                Some(Ok((AgentReply::Stats(stats), vec![])))
            }
            _ => done,
        }
    }

    /// Whether this one is refused, as a guest does of which too much is asked at once.
    fn is_busy(&self) -> bool {
        let mut container = self.container.lock().unwrap();
        if container.behaviour != "busy" {
            return false;
        }
        container.refused = !container.refused;
        container.refused
    }

    fn start(&self) -> Answer {
        let behaviour = self.container.lock().unwrap().behaviour.clone();
        let (out, err, code): (&[u8], &[u8], Option<u8>) = match behaviour.as_str() {
            "greet" => (b"hello\n", b"warning\n", Some(7)),
            "flood" => (&[b'x'; FLOOD], b"", Some(0)),
            "missing" => {
                let message = "no such program".to_owned();
                return Some(Err(AgentError { kind: ErrorKind::NotFound, message, denial: None }));
            }
            _ => (b"", b"", None),
        };
        self.change(|container| {
            container.output.insert((None, true), out.to_vec());
            container.output.insert((None, false), err.to_vec());
            container.silent = behaviour == "fall silent";
            if behaviour == "corrupt" {
                container.events.push(EventKind::LayerCorrupted { layer: LayerId(0) });
                container
                    .events
                    .push(EventKind::ContainerExited { container: ContainerId::from_bytes([1; 32]), code: 0 });
            }
        });
        code.into_iter().for_each(|code| self.end(code));
        Some(Ok((AgentReply::Done, vec![])))
    }

    fn signal(&self, signal: u8) -> Answer {
        match (self.container.lock().unwrap().behaviour.as_str(), signal) {
            ("no signals", _) => return denied("signals are not in the policy"),
            ("stubborn", 15) => return Some(Ok((AgentReply::Done, vec![]))),
            _ => {}
        }
        self.end(128 + signal);
        Some(Ok((AgentReply::Done, vec![])))
    }

    fn read(&self, exec: Option<u32>, stream: Stream, timeout_ms: u32) -> (AgentReply, Vec<u8>) {
        let key = (exec, stream == Stream::Stdout);
        let ready = |container: &Container| {
            exec.is_some() || container.closed || container.output.get(&key).is_some_and(|bytes| !bytes.is_empty())
        };
        let mut container = self.wait(timeout_ms, ready);
        let closed = exec.is_some() || container.closed;
        let bytes = container.output.entry(key).or_default();
        let part: Vec<u8> = bytes.drain(..bytes.len().min(65_536)).collect();
        let eof = bytes.is_empty() && closed;
        (AgentReply::Output(Output { eof }), part)
    }

    fn end(&self, code: u8) {
        self.change(|container| {
            container.exit.get_or_insert(Exit { code, out_of_memory: false });
            container.closed = true;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Container)) {
        change(&mut self.container.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait(&self, timeout_ms: u32, ready: impl Fn(&Container) -> bool) -> std::sync::MutexGuard<'_, Container> {
        let guard = self.container.lock().unwrap();
        let limit = Duration::from_millis(timeout_ms.into());
        self.changed.wait_timeout_while(guard, limit, |container| !ready(container)).unwrap().0
    }
}

/// Makes a program that runs this test program as QEMU.
pub(crate) fn install(path: &std::path::Path) {
    let own = std::env::current_exe().unwrap();
    let mut file = File::create(path).unwrap();
    write!(file, "#!/bin/sh\nexec '{}' \"$@\"\n", own.display()).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}
