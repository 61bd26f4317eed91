//! What comes over a channel to the guest, from whoever is at its other end; and the log that it hands out.

use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;
use std::thread;

use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
use caveau_channel::{OwnerEnd, OwnerKey};
use caveau_protocol::{AgentReply, ReplyEnvelope, read_frame};
use caveau_snp::event_log::{EventLog, EventLogWriter, Outcome};

use crate::Target;
use crate::messages::framed;

/// Requests over an established channel, well framed or not.
pub(crate) const OWNER_REQUESTS: Target =
    Target { name: "owner_requests", run: owner_requests, seeds: request_frames, fixtures: &[], rounds: 150 };

/// A guest's event log.
pub(crate) const EVENT_LOG: Target =
    Target { name: "event_log", run: event_log, seeds: event_logs, fixtures: &[], rounds: 2000 };

static KEY: LazyLock<OwnerKey> = LazyLock::new(|| {
    let made = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).expect("a key");
    OwnerKey::from_der(made.as_ref()).expect("a key is one")
});

fn owner_requests(data: &[u8]) {
    let (owner, guest) = UnixStream::pair().expect("a socket pair");
    let serving = thread::spawn(move || caveau_agent::serve_channel_with(guest, || Ok((AgentReply::Done, Vec::new()))));
    let mut end = OwnerEnd::connect(Some(&KEY), owner.try_clone().expect("a copy")).expect("the guest shakes hands");
    // A guest that gave up takes no more.
    drop(end.write_all(data).and_then(|()| end.flush()));
    drop(owner.shutdown(Shutdown::Write));
    while let Ok(Some(frame)) = read_frame(&mut end) {
        frame.header::<ReplyEnvelope>().expect("the agent writes replies");
    }
    drop(owner.shutdown(Shutdown::Both));
    serving.join().expect("a channel ends, whatever came over it");
}

fn request_frames() -> Vec<Vec<u8>> {
    let container = "ab".repeat(32);
    let process = format!(r#"{{"container":"{container}","exec":1}}"#);
    let requests = [
        r#""op":"hello""#.to_owned(),
        r#""op":"containers""#.to_owned(),
        r#""op":"attest","args":{"nonce":"000102030405060708090a0b0c0d0e0f"}"#.to_owned(),
        r#""op":"denials","args":{"after":3}"#.to_owned(),
        r#""op":"read_log","args":{"stream":"stderr","from":9,"max":100,"timeout_ms":0}"#.to_owned(),
        format!(r#""op":"wait","args":{{"process":{process},"timeout_ms":0}}"#),
        format!(r#""op":"write_input","args":{{"process":{process}}}"#),
        format!(r#""op":"start_container","args":{{"container":"{container}"}}"#),
    ];
    let one = |request: &String| framed(format!(r#"{{"version":1,"id":5,"request":{{{request}}}}}"#).as_bytes(), b"");
    let mut seeds: Vec<Vec<u8>> = requests.iter().map(one).collect();
    seeds.push(seeds.concat());
    seeds
}

fn event_log(data: &[u8]) {
    let Ok(log) = EventLog::parse(data) else { return };
    assert_eq!(EventLog::parse(data).expect("it was read before"), log);
    // Whatever is put behind it, or taken away, is another log.
    let end = data.strip_suffix(b"\n").and_then(|text| text.iter().rposition(|byte| *byte == b'\n'));
    if let Some(Ok(other)) = end.and_then(|end| data.get(..=end)).map(EventLog::parse) {
        assert_ne!(other.head, log.head);
    }
    let more = [data, b"{\"n\":1,\"op\":\"\",\"args\":null,\"outcome\":\"done\"}\n"].concat();
    if let Ok(other) = EventLog::parse(&more) {
        assert_ne!(other.head, log.head);
    }
}

fn event_logs() -> Vec<Vec<u8>> {
    let mut log = EventLogWriter::new([7; 32]);
    let empty = log.text();
    log.add("mount_layer", serde_json::json!({"lun": 0, "root": "ab".repeat(32)}), Outcome::Done);
    log.add("exec", serde_json::json!({"process": {"args": ["sh"], "env": ["PATH"]}}), Outcome::Denied);
    vec![empty, log.text()]
}
