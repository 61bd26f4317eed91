//! The host sends the agent's port what no honest host would send.

use caveau_protocol::{
    AgentReply, AgentRequest, ContainerId, LayerId, MountLayer, MountOverlay, MountScratch, ProcessId, RequestEnvelope,
    Stream,
};
use caveau_tests::{hostile::Hostile, raw::RawGuest};
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
        let refused = guest.ask(step, b"").expect_err("no policy is in force");
        assert!(refused.contains("no policy is in force"), "{refused}");
    }
    // Replaced, edited, not text: refused, and still nothing is done.
    let edited = host.plan.policy.replacen("allow_stdio_access", "allow_stdio_acces", 1);
    for policy in
        ["package policy\n".as_bytes(), edited.as_bytes(), b"", b"\xff\xfe", &host.plan.policy.as_bytes()[1..]]
    {
        let refused =
            guest.ask(AgentRequest::SetPolicy { host_certificates: None }, policy).expect_err("another policy");
        assert!(refused.contains("policy"), "{refused}");
    }
    guest.ask(layer(), b"").expect_err("still no policy is in force");

    // The policy itself: taken, once.
    let set = guest.ask(AgentRequest::SetPolicy { host_certificates: None }, host.plan.policy.as_bytes());
    assert!(matches!(set, Ok(AgentReply::Policy { .. })), "{set:?}");
    let again = guest.ask(AgentRequest::SetPolicy { host_certificates: None }, host.plan.policy.as_bytes());
    assert!(again.expect_err("once").contains("cannot be replaced"));

    // Out of order and out of bounds.
    let layers = |layers| AgentRequest::MountOverlay(MountOverlay { container: container.clone(), layers });
    assert!(guest.ask(layers(vec![LayerId(1)]), b"").expect_err("no scratch").contains("scratch"));
    guest
        .ask(AgentRequest::MountScratch(MountScratch::Memory { bytes: 1 << 20 }), b"")
        .expect_err("the policy has none");
    guest.ask(AgentRequest::UnmountLayer { layer: LayerId(9) }, b"").expect_err("no such layer");
    guest.ask(AgentRequest::StartContainer { container: container.clone() }, b"").expect_err("no such container");
    guest
        .ask(AgentRequest::MountLayer(MountLayer { lun: 77, root: host.plan.layers[0].root.clone() }), b"")
        .expect_err("no disk");
    let process = ProcessId::init(container);
    let read = AgentRequest::ReadOutput {
        process: process.clone(),
        stream: Stream::Stdout,
        max: u32::MAX,
        timeout_ms: u32::MAX,
    };
    guest.ask(read, b"").expect_err("no such process");
    guest.ask(AgentRequest::Signal { process, signal: 255 }, b"").expect_err("no such process");
    guest.ask(AgentRequest::Hello, b"a body where none belongs").expect_err("no body");
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
        let reply = guest.reply();
        assert!(reply.id == 0 && reply.result.is_err(), "{header}: {reply:?}");
    }
    guest.send(&RequestEnvelope { version: 2, id: 903, request: AgentRequest::Hello }, b"");
    assert!(guest.reply().result.is_err(), "another version");
    assert!(guest.ask(AgentRequest::Hello, b"").is_ok(), "the guest is well");

    // A length beyond the bounds: the port is out of step, and the guest ends rather than guess.
    guest.send_bytes(&u32::MAX.to_le_bytes());
    guest.send_bytes(&[0; 64]);
    assert!(guest.ends(), "the guest ends");
}

#[test]
fn garbage_ends_the_guest() {
    let Some(host) = Hostile::new() else { return };
    let mut guest = RawGuest::boot(&host, &host.plan.policy);
    assert!(guest.ask(AgentRequest::Hello, b"").is_ok());
    let noise: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    guest.send_bytes(&noise);
    assert!(guest.ends(), "the guest ends");
}

#[test]
fn a_frame_that_is_cut_short_holds_nobody_up() {
    let Some(host) = Hostile::new() else { return };
    let mut guest = RawGuest::boot(&host, &host.plan.policy);
    assert!(guest.ask(AgentRequest::Hello, b"").is_ok());
    // A header is announced and half of it sent: the guest waits for the rest, and does nothing by guessing.
    let header = br#"{"version":1,"id":7,"request":{"op":"hello"}}"#;
    let announced = u32::try_from(header.len()).expect("a short header").to_le_bytes();
    guest.send_bytes(&announced);
    guest.send_bytes(&0u32.to_le_bytes());
    guest.send_bytes(&header[..20]);
    assert!(guest.is_silent(), "no answer to half a request");
    guest.send_bytes(&header[20..]);
    let reply = guest.reply();
    assert!(reply.id == 7 && reply.result.is_ok(), "{reply:?}");
}
