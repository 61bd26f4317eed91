//! Both ends of the agent's port, as they are when the other one lies: whole conversations instead of single frames.

use std::fs::File;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use caveau_launch::{AgentClient, CallError};
use caveau_protocol::{
    AgentReply, AgentRequest, Frame, ProcessId, ReplyEnvelope, RequestEnvelope, Stream, VERSION, read_frame,
    write_frame,
};

use crate::Target;
use crate::sections::{join, sections};

/// The agent's request loop: requests in any order, well framed or not.
pub(crate) const AGENT_REQUESTS: Target =
    Target { name: "agent_requests", run: agent_requests, seeds: request_sequences, fixtures: &[], rounds: 400 };

/// The host's side of the same port: answers in any order.
pub(crate) const AGENT_REPLIES: Target =
    Target { name: "agent_replies", run: agent_replies, seeds: reply_sequences, fixtures: &[], rounds: 300 };

/// What a first section says when the bytes after it are sent as they are.
const RAW: &[u8] = b"raw";

/// Longest wait that a request may ask for here: an input must not take long because it asks to.
const LONGEST_WAIT_MS: u32 = 3;

fn agent_requests(data: &[u8]) {
    let parts = sections(data);
    let raw = parts.first() == Some(&RAW);
    let sent = if raw { data.get(RAW.len() + 4..).unwrap_or_default().to_vec() } else { framed(parts) };
    let mut requests = Vec::new();
    let mut rest = sent.as_slice();
    while let Ok(Some(frame)) = read_frame(&mut rest) {
        requests.push(frame.header::<RequestEnvelope>().ok().map(|envelope| envelope.request));
    }
    if requests.iter().flatten().any(waits_long) {
        return;
    }
    let replies = serve(&sent);
    assert!(replies.len() >= requests.len(), "{} replies to {} requests", replies.len(), requests.len());
    // Each frame is answered once, and one that breaks off once more.
    assert!(replies.len() <= requests.len() + 1, "{} replies to {} requests", replies.len(), requests.len());
    let steps = replies.iter().filter_map(|reply| match reply.result {
        Ok(AgentReply::Exec { exec }) => Some(exec),
        _ => None,
    });
    assert!(steps.is_sorted(), "steps were answered out of order");
}

/// Each section as one frame: its first line is the header, the rest the body.
fn framed(parts: Vec<&[u8]>) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut all = Vec::new();
    for part in parts {
        let end = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        let (header, body) = part.split_at(end);
        let body = body.get(1..).unwrap_or_default();
        all.extend([&length(header)[..], &length(body), header, body].concat());
    }
    all
}

fn waits_long(request: &AgentRequest) -> bool {
    matches!(
        request,
        AgentRequest::NextEvent { timeout_ms, .. } | AgentRequest::ReadChannel { timeout_ms, .. }
            if *timeout_ms > LONGEST_WAIT_MS
    )
}

/// What the agent's loop replies, with steps that count.
fn serve(sent: &[u8]) -> Vec<ReplyEnvelope> {
    let (host, guest) = UnixStream::pair().expect("a socket pair");
    let guest = File::from(OwnedFd::from(guest));
    let mut steps = 0;
    let step = move |_: AgentRequest, _: Vec<u8>| {
        steps += 1;
        Ok((AgentReply::Exec { exec: steps }, Vec::new()))
    };
    thread::scope(|scope| {
        scope.spawn(move || drop(caveau_agent::serve_with(&guest, step)));
        scope.spawn(|| {
            // A guest that gave up takes no more.
            drop((&host).write_all(sent));
            drop(host.shutdown(Shutdown::Write));
        });
        let mut replies = Vec::new();
        while let Ok(Some(frame)) = read_frame(&mut &host) {
            replies.push(frame.header::<ReplyEnvelope>().expect("the agent writes replies"));
        }
        replies
    })
}

fn request_sequences() -> Vec<Vec<u8>> {
    let container = "ab".repeat(32);
    let process = format!(r#"{{"container":"{container}","exec":0}}"#);
    let spec = r#"{"args":["/bin/sh"],"env":["A=b"],"cwd":"/","user":"1:2","capabilities":{"ambient":[],"bounding":
        [],"effective":[],"inheritable":[],"permitted":["CAP_CHOWN"]},"no_new_privileges":true,"terminal":{"rows":24,"columns":80},
        "stdin":true,"stdio":true}"#
        .replace('\n', "");
    let requests = [
        r#""op":"hello""#.to_owned(),
        r#""op":"set_policy","args":{}"#.to_owned(),
        r#""op":"attest","args":{"nonce":"000102030405060708090a0b0c0d0e0f"}"#.to_owned(),
        format!(r#""op":"mount_layer","args":{{"lun":1,"root":"{container}"}}"#),
        r#""op":"mount_scratch","args":{"kind":"encrypted","lun":2}"#.to_owned(),
        format!(r#""op":"mount_overlay","args":{{"container":"{container}","layers":[1]}}"#),
        format!(
            r#""op":"create_container","args":{{"container":"{container}","process":{spec},"hostname":"h","privileged":false,"read_only":false,"tmpfs":[{{"destination":"/t","options":["size=1m"]}}],"seccomp":null,"limits":{{"pids":9}}}}"#
        ),
        format!(r#""op":"start_container","args":{{"container":"{container}"}}"#),
        format!(r#""op":"exec","args":{{"container":"{container}","process":{spec}}}"#),
        r#""op":"next_event","args":{"after":1,"timeout_ms":1}"#.to_owned(),
        format!(r#""op":"read_output","args":{{"process":{process},"stream":"stdout","max":9,"timeout_ms":1}}"#),
        format!(r#""op":"wait","args":{{"process":{process},"timeout_ms":1}}"#),
        format!(r#""op":"write_input","args":{{"process":{process}}}"#),
        format!(r#""op":"resize_terminal","args":{{"process":{process},"size":{{"rows":1,"columns":2}}}}"#),
        format!(r#""op":"close_input","args":{{"process":{process}}}"#),
        format!(r#""op":"signal","args":{{"process":{process},"signal":15}}"#),
        format!(r#""op":"stats","args":{{"container":"{container}"}}"#),
        format!(r#""op":"delete_container","args":{{"container":"{container}"}}"#),
        format!(r#""op":"unmount_overlay","args":{{"container":"{container}"}}"#),
        r#""op":"unmount_layer","args":{"layer":1}"#.to_owned(),
        r#""op":"shutdown""#.to_owned(),
    ];
    let lines = requests.iter().zip(1..).map(|(request, id)| {
        let header = format!(r#"{{"version":{VERSION},"id":{id},"request":{{{request}}}}}"#);
        assert!(serde_json::from_str::<RequestEnvelope>(&header).is_ok(), "a seed is a request: {header}");
        header
    });
    let lines: Vec<_> = lines.map(|header| format!("{header}\n").into_bytes()).collect();
    let mut with_bodies = lines.clone();
    with_bodies[1].extend_from_slice(b"package policy\n");
    with_bodies[12].extend_from_slice(&[b'x'; 300]);
    let raw = framed(lines.iter().map(Vec::as_slice).collect());
    vec![join(&with_bodies), join(&[RAW.to_vec(), raw]), join(&lines[..3]), join(&lines[9..12])]
}

fn agent_replies(data: &[u8]) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let answers: Vec<Vec<u8>> = sections(data).into_iter().map(<[u8]>::to_vec).collect();
    thread::scope(|scope| {
        scope.spawn(move || guest(&theirs, &answers));
        let client = AgentClient::new(ours).expect("two threads");
        let process = ProcessId::init("ab".repeat(32).parse().expect("an identifier"));
        let output = AgentRequest::ReadOutput { process, stream: Stream::Stdout, max: 10, timeout_ms: 1 };
        for request in [AgentRequest::Hello, output, AgentRequest::Shutdown] {
            // The guest hangs up at its last answer, so that no call is left to wait for its limit.
            let answer = client.call(request, Vec::new(), Some(Duration::from_secs(600)));
            assert!(!matches!(answer, Err(CallError::Silent(_))), "a call outlived its connection");
        }
        client.close();
    });
}

/// A guest that sends section after section until the request at hand is answered, then hears the next one: a header and a
/// body each, or bytes as they are after `raw`.
fn guest(mut port: &UnixStream, answers: &[Vec<u8>]) {
    let (mut answers, mut sent) = (answers.iter(), Vec::new());
    'requests: while let Ok(Some(frame)) = read_frame(&mut port) {
        let id = frame.header::<RequestEnvelope>().expect("the host writes requests").id;
        let before = replies(&sent).len();
        // What came before its request was asked is no answer to it.
        while !replies(&sent).iter().skip(before).any(|reply| *reply == Some(id)) {
            let Some(answer) = answers.next() else { break 'requests };
            let bytes = answer.strip_prefix(RAW).map_or_else(|| framed(vec![answer]), <[u8]>::to_vec);
            if port.write_all(&bytes).is_err() {
                break 'requests;
            }
            sent.extend(bytes);
        }
    }
    // The other side may have hung up.
    drop(port.shutdown(Shutdown::Both));
}

/// What each whole frame in a stream answers.
fn replies(mut stream: &[u8]) -> Vec<Option<u64>> {
    let mut found = Vec::new();
    while let Ok(Some(frame)) = read_frame(&mut stream) {
        found.push(frame.header::<ReplyEnvelope>().ok().map(|reply| reply.id));
    }
    found
}

fn reply_sequences() -> Vec<Vec<u8>> {
    let hello = r#"{"kind":"hello","value":{"agent":"0.1.0","tee":"snp","kernel":"6.12","boot_ns":5}}"#;
    let reply = |id: u64, result: &str| format!(r#"{{"version":{VERSION},"id":{id},"result":{result}}}"#).into_bytes();
    let refusal = r#"{"Err":{"kind":"denied","message":"no","denial":{"point":"x"}}}"#;
    let answers = [
        reply(1, &format!(r#"{{"Ok":{hello}}}"#)),
        [reply(2, r#"{"Ok":{"kind":"output","value":{"eof":true}}}"#), b"\noutput".to_vec()].concat(),
        reply(3, refusal),
    ];
    for answer in &answers {
        let header = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
        assert!(serde_json::from_slice::<ReplyEnvelope>(header).is_ok(), "a seed is a reply");
    }
    let done = ReplyEnvelope { version: VERSION, id: 1, result: Ok(AgentReply::Done) };
    let mut raw = RAW.to_vec();
    write_frame(&mut raw, &Frame::new(&done, vec![1; 20]).expect("a seed is small")).expect("memory takes it");
    vec![join(&answers), join(&[raw, reply(9, r#"{"Ok":{"kind":"done"}}"#)]), b"raw\xff\xff\xff\xff".to_vec()]
}
