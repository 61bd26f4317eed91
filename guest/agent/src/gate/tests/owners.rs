//! What owners get of the gate, and what it writes down.

use caveau_group::{KeyDigest, Owners};
use caveau_snp::event_log::EventLog;

use super::*;

fn key() -> KeyDigest {
    KeyDigest::of(b"owner")
}

/// A guest whose container runs, under a policy with owners.
fn owned(may: &str) -> Bench {
    let owners = format!("[{{\"key\": \"{}\", \"may\": {may}}}]", key());
    let _: Owners = serde_json::from_str(&owners).unwrap();
    let text =
        policy().replace("\"memory_scratch\": false", &format!("\"memory_scratch\": false, \"owners\": {owners}"));
    let mut bench = Bench::launched_with(&text);
    bench.set_policy(&text).unwrap();
    for request in start() {
        bench.ask(request).unwrap();
    }
    bench
}

fn program(args: &[&str]) -> Box<Exec> {
    Box::new(Exec { container: container(), process: process(args) })
}

#[test]
fn an_owner_runs_what_the_host_may_not() {
    let mut bench = owned("[\"exec\"]");
    assert_eq!(bench.ask(exec(&["/bin/owners"])), Err(ErrorKind::Denied));
    let asked = PeerStep::Exec { key: key(), exec: program(&["/bin/owners"]) };
    let (reply, _) = bench.gate.peer_step(asked).unwrap();
    assert_eq!(reply, AgentReply::Exec { exec: 1 });
    let process = ProcessId { container: container(), exec: Some(1) };
    assert!(bench.live.wait(&process, Viewer::Host, Duration::ZERO).is_err(), "it is not the host's");
    assert!(bench.live.wait(&process, Viewer::Owner(key()), Duration::ZERO).is_ok());
    let other = PeerStep::Exec { key: KeyDigest::of(b"other"), exec: program(&["/bin/owners"]) };
    assert_eq!(bench.gate.peer_step(other).unwrap_err().kind, ErrorKind::Denied);
    assert_eq!(bench.acts().iter().filter(|act| *act == "execute").count(), 1);
}

#[test]
fn denials_are_kept_for_who_may_read_them() {
    let mut bench = owned("[\"denials\"]");
    assert_eq!(bench.ask(exec(&["/bin/owners"])), Err(ErrorKind::Denied));
    assert_eq!(bench.ask(layer(OTHER_ROOT)), Err(ErrorKind::Denied));
    let mut denials = |key, after| bench.gate.peer_step(PeerStep::Denials { key, after });
    let (_, lines) = denials(Some(key()), 0).unwrap();
    let text = String::from_utf8(lines).unwrap();
    let points: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["point"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(points, ["exec_in_container", "mount_device"]);
    assert_eq!(denials(Some(key()), 1).unwrap().1.iter().filter(|byte| **byte == b'\n').count(), 1);
    for nobody in [None, Some(KeyDigest::of(b"other"))] {
        assert_eq!(denials(nobody, 0).unwrap_err().kind, ErrorKind::Denied);
    }
    let logs = PeerStep::Logs { key: Some(key()) };
    assert_eq!(bench.gate.peer_step(logs).unwrap_err().kind, ErrorKind::Denied);
}

#[test]
fn a_reply_has_as_many_lines_as_it_has_room_for() {
    let long = "x".repeat(MAX_LINES / 2);
    let count = |values: &[&String]| some_lines(values).iter().filter(|byte| **byte == b'\n').count();
    assert_eq!((count(&[&long; 3]), count(&[&long]), count(&[])), (1, 1, 0));
    let longer = "x".repeat(2 * MAX_LINES);
    assert_eq!((count(&[&longer]), count(&[&longer; 2])), (1, 1));
    assert_eq!(count(&[&"short".to_owned(); 40]), 40);
}

#[test]
fn nobody_is_told_anything_before_a_policy_is_in_force() {
    let mut bench = Bench::new();
    for step in [PeerStep::Hello, PeerStep::Denials { key: Some(key()), after: 0 }, PeerStep::Logs { key: None }] {
        assert_eq!(bench.gate.peer_step(step).unwrap_err().kind, ErrorKind::Invalid);
    }
}

#[test]
fn the_log_has_all_that_was_asked_and_its_head_is_bound() {
    let mut bench = owned("[\"exec\"]");
    assert_eq!(bench.ask(exec(&["/bin/owners"])), Err(ErrorKind::Denied));
    bench.gate.peer_step(PeerStep::Exec { key: key(), exec: program(&["/bin/owners"]) }).unwrap();
    let nonce = || vec![7; 32].try_into().unwrap();
    let (reply, text) = bench.gate.step(AgentRequest::AttestLog { nonce: nonce() }, vec![]).unwrap();
    assert!(matches!(reply, AgentReply::Report(_)));
    let log = EventLog::parse(&text).unwrap();
    let shown: Vec<_> = log.events.iter().map(|event| (event.op.as_str(), format!("{:?}", event.outcome))).collect();
    let expected = [
        ("mount_layer", "Done"),
        ("mount_scratch", "Done"),
        ("mount_overlay", "Done"),
        ("create_container", "Done"),
        ("start_container", "Done"),
        ("exec", "Denied"),
        ("owner_exec", "Done"),
    ];
    assert_eq!(shown, expected.map(|(op, outcome)| (op, outcome.to_owned())));
    let (_, again) = bench.gate.step(AgentRequest::AttestLog { nonce: nonce() }, vec![]).unwrap();
    assert_eq!(again, text, "asking for it is no event");
}
