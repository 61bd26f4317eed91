//! The host stands between an owner and the guest: it relays, replays, makes noise, and asks for what is the owner's.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use caveau_channel::{GuestEnd, GuestIdentity, OwnerEnd};
use caveau_launch::Group;
use caveau_protocol::{AgentRequest, MAX_CHANNELS, Stream, read_frame, write_frame};
use caveau_tests::{free_port, hostile::Hostile};

const NONCE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn a_host_between_owner_and_guest_gains_nothing() {
    let Some(host) = Hostile::new() else { return };
    let port = free_port();
    let group = host
        .start(|plan| plan.owner_address = Some(([127, 0, 0, 1], port).into()))
        .expect("the honest plan starts, with a port for owners");

    // It ends the owner's session itself, and passes every word on in a session of its own with the guest.
    let relay = TcpListener::bind("127.0.0.1:0").expect("a port");
    let between = relay.local_addr().expect("an address").to_string();
    let relaying = thread::spawn(move || {
        let identity = GuestIdentity::new().expect("a key");
        let (victim, _) = relay.accept().expect("the owner comes");
        let mut victim = GuestEnd::accept(&identity, victim).expect("the owner talks to anybody");
        let guest = TcpStream::connect(("127.0.0.1", port)).expect("the guest is there");
        let mut guest = OwnerEnd::connect(None, guest).expect("the guest talks to anybody");
        let mut passed = 0;
        while let Ok(Some(frame)) = read_frame(&mut victim) {
            write_frame(&mut guest, &frame).expect("passed on");
            let reply = read_frame(&mut guest).expect("a reply").expect("a reply");
            write_frame(&mut victim, &reply).expect("passed back");
            passed += 1;
        }
        passed
    });
    let output = host.folder.path().join("evidence.json").display().to_string();
    let attest = |address: &str| host.caveau.run(&["attest", "--connect", address, "--nonce", NONCE, "-o", &output]);
    let refused = attest(&between).expect_code(2);
    assert!(refused.stderr.contains("not for this session"), "{refused:?}");
    assert!(!std::path::Path::new(&output).exists(), "no evidence is left of it");
    assert_eq!(relaying.join().expect("it relayed"), 2, "the report itself came through, and was genuine");
    let direct = format!("127.0.0.1:{port}");
    attest(&direct).success();

    // It asks over its own port for what is for owners alone.
    let call = |group: &Group, request: AgentRequest| group.call(request, Vec::new());
    for request in [
        AgentRequest::Denials { after: 0 },
        AgentRequest::Containers,
        AgentRequest::ReadLog { container: None, stream: Stream::Stdout, from: 0, max: 9, timeout_ms: 0 },
    ] {
        let refused = call(&group, request).expect_err("it is no owner").to_string();
        assert!(refused.contains("for owners"), "{refused}");
    }

    // Noise, and sessions that are begun and left: the guest goes on, and the channels are free again.
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 4096]] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port is there");
        let _ = stream.write_all(noise);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 100, "an alert and no more: {} bytes", answer.len());
    }
    for _ in 0..3 * MAX_CHANNELS {
        drop(TcpStream::connect(("127.0.0.1", port)));
    }
    caveau_tests::eventually(|| {
        let outcome = attest(&direct);
        if outcome.code == 0 { Ok(()) } else { anyhow::bail!("{outcome:?}") }
    })
    .expect("the guest answers still");
    for request in [
        AgentRequest::ReadChannel { channel: 4_000_000_000, max: 9, timeout_ms: 0 },
        AgentRequest::WriteChannel { channel: 0 },
        AgentRequest::CloseChannel { channel: 1 },
    ] {
        assert!(call(&group, request).expect_err("there is no such channel").to_string().contains("no channel"));
    }
}
