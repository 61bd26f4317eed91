//! The host sends the agent's port what no honest host would send.

use caveau_protocol::{
    AgentReply, AgentRequest, ContainerId, ErrorKind, LayerId, MAX_BODY, MountLayer, MountOverlay, MountScratch,
    ProcessId, RequestEnvelope, Stream,
};
use caveau_tests::{
    hostile::Hostile,
    raw::{RawGuest, is_refused},
};
use serde_json::json;

#[test]
fn steps_without_a_policy_and_with_another_one() {
    let Some(host) = Hostile::new() else { return };
    let mut guest = RawGuest::boot(&host, &host.plan.policy);
    assert!(matches!(guest.ask(AgentRequest::Hello, b""), Ok(AgentReply::Hello(_))));
    let layer = || AgentRequest::MountLayer(MountLayer { lun: 0, root: host.plan.layers[0].root.clone() });
    let container = ContainerId::from_bytes([1; 32]);

    // Absent: nothing is done.
    for step in [
        layer(),
        AgentRequest::MountScratch(MountScratch::Memory { bytes: 1 << 20 }),
        AgentRequest::Attest { nonce: vec![7; 32].try_into().expect("a nonce") },
        AgentRequest::StartContainer { container: container.clone() },
    ] {
        is_refused(guest.ask(step, b""), "Invalid: no policy is in force");
    }
    // Replaced, edited, empty, cut: HOST_DATA is another text's. Not text: no policy at all. Still nothing is done.
    let set = |guest: &mut RawGuest, policy: &[u8]| {
        guest.ask(AgentRequest::SetPolicy { host_certificates: None, reference_info: None }, policy)
    };
    let edited = host.plan.policy.replacen("allow_stdio_access", "allow_stdio_acces", 1);
    assert_ne!(edited, host.plan.policy, "it is edited");
    for policy in ["package policy\n", &edited, "", &host.plan.policy[1..], &format!("{}\n", host.plan.policy)] {
        is_refused(set(&mut guest, policy.as_bytes()), "Invalid: the policy is refused: the policy's SHA-256 is ");
        let refused = set(&mut guest, policy.as_bytes()).expect_err("another policy");
        assert!(refused.contains(", but the TEE's HOST_DATA is "), "{refused}");
    }
    is_refused(set(&mut guest, b"\xff\xfe"), "Invalid: the policy is not UTF-8 text");
    is_refused(guest.ask(layer(), b""), "Invalid: no policy is in force");

    // The policy itself: taken, once.
    let taken = set(&mut guest, host.plan.policy.as_bytes());
    assert!(matches!(taken, Ok(AgentReply::Policy { .. })), "{taken:?}");
    is_refused(set(&mut guest, host.plan.policy.as_bytes()), "Invalid: a policy is in force: it cannot be replaced");

    // Out of order and out of bounds.
    let overlay = MountOverlay { container: container.clone(), layers: vec![LayerId(1)] };
    let memory = MountScratch::Memory { bytes: 1 << 20 };
    let process = ProcessId::init(container.clone());
    let stdout = Stream::Stdout;
    let no_disk = MountLayer { lun: 77, root: host.plan.layers[0].root.clone() };
    let no_container = format!("Invalid: there is no container {container}");
    for (step, reason) in [
        (AgentRequest::MountOverlay(overlay), "Invalid: there is no scratch space"),
        (AgentRequest::MountScratch(memory), "Denied: scratch_mount denied by policy: file system: "),
        (AgentRequest::UnmountLayer { layer: LayerId(9) }, "Invalid: there is no layer 9"),
        (AgentRequest::StartContainer { container }, &no_container),
        (AgentRequest::MountLayer(no_disk), "Failed: failed to mount the layer of disk 77: disk 77 did not appear"),
        (
            AgentRequest::ReadOutput { process: process.clone(), stream: stdout, max: u32::MAX, timeout_ms: u32::MAX },
            &no_container,
        ),
        (AgentRequest::Signal { process, signal: 255 }, &no_container),
    ] {
        is_refused(guest.ask(step, b""), reason);
    }
    let with_body = guest.ask(AgentRequest::Hello, b"a body where none belongs");
    is_refused(with_body, "Invalid: a body of 25 bytes: this request has at most 0");
    // After all that the honest step is still done.
    assert!(matches!(guest.ask(layer(), b""), Ok(AgentReply::Layer { .. })));

    // Headers that are no requests: each is answered, and the next is read.
    for header in [
        json!({}),
        json!([1, 2, 3]),
        json!({"version": 1, "id": 900, "request": {"op": "format_disk"}}),
        json!({"version": 1, "id": 901, "request": {"op": "start_container", "args": {"container": "../../etc/passwd"}}}),
        json!({"version": 1, "id": 902, "request": {"op": "hello"}, "more": true}),
        json!({"version": 1, "id": -1, "request": {"op": "hello"}}),
    ] {
        guest.send(&header, b"");
        is_refused_unread(&mut guest, "failed to decode the frame's header: ");
    }
    guest.send(&RequestEnvelope { version: 2, id: 903, request: AgentRequest::Hello }, b"");
    let reply = guest.reply();
    assert_eq!(reply.id, 903, "{reply:?}");
    assert!(reply.result.expect_err("another version").message.starts_with("invalid protocol version 2"));
    assert!(guest.ask(AgentRequest::Hello, b"").is_ok(), "the guest is well");

    // A body beyond the bounds, and all of it: it is not waited for, and the guest ends rather than guess.
    let header = br#"{"version":1,"id":904,"request":{"op":"set_policy","args":{"host_certificates":null}}}"#;
    let lengths =
        |body: usize| [header.len(), body].map(|length| u32::try_from(length).expect("it fits").to_le_bytes());
    guest.send_bytes(&lengths(MAX_BODY + 1).concat());
    guest.send_bytes(header);
    guest.send_bytes(&vec![b'#'; MAX_BODY + 1]);
    is_refused_unread(&mut guest, "frame body of 4194305 bytes is over the limit of 4194304");
    assert!(guest.ends(), "the guest ends");
}

#[test]
fn garbage_ends_the_guest() {
    let Some(host) = Hostile::new() else { return };
    let mut guest = RawGuest::boot(&host, &host.plan.policy);
    assert!(guest.ask(AgentRequest::Hello, b"").is_ok());
    let noise: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    guest.send_bytes(&noise);
    // Its first four bytes are a length that no header has.
    is_refused_unread(&mut guest, "frame header of ");
    assert!(guest.ends(), "the guest ends");
}

#[test]
fn a_frame_that_is_cut_short_holds_nobody_up() {
    let Some(host) = Hostile::new() else { return };
    let mut guest = RawGuest::boot(&host, &host.plan.policy);
    assert!(guest.ask(AgentRequest::Hello, b"").is_ok());
    // A header is announced and half of it sent: the guest waits for the rest, and does nothing by guessing.
    let header = |id: u8| format!(r#"{{"version":1,"id":{id},"request":{{"op":"hello"}}}}"#).into_bytes();
    let frame = |id: u8| {
        let length = u32::try_from(header(id).len()).expect("a short header").to_le_bytes();
        [&length[..], &[0; 4], &header(id)].concat()
    };
    let cut = 8 + 20;
    guest.send_bytes(&frame(7)[..cut]);
    assert!(guest.is_silent(), "no answer to half a request");
    guest.send_bytes(&frame(7)[cut..]);
    let reply = guest.reply();
    assert!(reply.id == 7 && reply.result.is_ok(), "{reply:?}");

    // After half a frame a whole one is only the other half: no request, and then no frame either.
    guest.send_bytes(&frame(8)[..cut]);
    guest.send_bytes(&frame(9));
    is_refused_unread(&mut guest, "failed to decode the frame's header: ");
    is_refused_unread(&mut guest, "frame header of ");
    assert!(guest.ends(), "the guest ends");
}

/// Asserts that the next reply is to nobody's request, since none could be read, for a reason that begins like this.
#[track_caller]
fn is_refused_unread(guest: &mut RawGuest, reason: &str) {
    let reply = guest.reply();
    let error = reply.result.expect_err(reason);
    assert!(reply.id == 0 && error.kind == ErrorKind::Invalid, "{}: {error:?}", reply.id);
    assert!(error.message.starts_with(reason), "not {reason:?}: {}", error.message);
}
