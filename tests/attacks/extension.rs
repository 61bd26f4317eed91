//! A host that does less, or in another order, than the policy's `caveau` objects ask for, or connects where it may not.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use caveau_launch::{StateRoot, start_with};
use caveau_protocol::{AgentReply, AgentRequest, ContainerId, CreateContainer, LayerId, Limits, MountOverlay};
use caveau_tests::{
    Caveau, free_port,
    hostile::{Hostile, group},
    http_get, image,
    raw::{RawGuest, is_refused},
};

use crate::bypasses::{memory_policy, up_to_the_overlay, with_policy};

/// The honest policy with a second container `db`, which says so; the first one comes after it, must run, must have its
/// mount, and has a bound on its memory.
fn ordered(host: &Hostile) -> String {
    let policy = memory_policy(host);
    let (before, rest) = policy.split_once("containers := [\n").expect("containers");
    let (main, after) = rest.split_once("\n]\n").expect("their end");
    let change = |text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from} in {text}");
        text.replacen(from, to, 1)
    };
    let db = change(&change(main, "\"name\": \"main\"", "\"name\": \"db\""), "echo up", "echo db");
    let bounds =
        "\"after\": [\"db\"], \"must_run\": true, \"required_mounts\": [\"/data\"], \"memory_bytes\": 33554432";
    let main = change(main, "\"max_starts\": 1", &format!("\"max_starts\": 1, {bounds}"));
    format!("{before}containers := [\n{main}\n{db}\n]\n{after}")
}

fn make(create: &CreateContainer) -> AgentRequest {
    AgentRequest::CreateContainer(Box::new(create.clone()))
}

fn start(container: &ContainerId) -> AgentRequest {
    AgentRequest::StartContainer { container: container.clone() }
}

/// A second container's root file system of the same layer, and the request that makes it.
fn database(guest: &mut RawGuest, layer: LayerId, main: &CreateContainer) -> CreateContainer {
    let mut db = main.clone();
    db.container = ContainerId::from_bytes([0xdb; 32]);
    db.process.args.iter_mut().for_each(|argument| *argument = argument.replace("echo up", "echo db"));
    let overlay = MountOverlay { container: db.container.clone(), layers: vec![layer] };
    guest.ask(AgentRequest::MountOverlay(overlay), b"").expect("the overlay is the policy's");
    db
}

#[test]
fn another_order_a_mount_left_out_and_more_memory() {
    let Some(host) = Hostile::new() else { return };
    let mut guest = with_policy(&host, &ordered(&host));
    let attest = || AgentRequest::Attest { nonce: vec![7; 32].try_into().expect("a nonce") };
    let no_evidence = "Denied: attestation denied by policy: the policy wants no evidence before these containers were \
                       started: [\"main\"]";
    is_refused(guest.ask(attest(), b""), no_evidence);
    let (layer, main) = up_to_the_overlay(&host, &mut guest);
    let db = database(&mut guest, layer, &main);

    let mut without = main.clone();
    without.tmpfs.clear();
    let refused =
        is_refused(guest.ask(make(&without), b""), "Denied: create_container denied by policy: container main");
    assert!(refused.contains("mounts: expected mounts on [\"/data\"], got none on [\"/data\"]"), "{refused}");
    let mut hungry = main.clone();
    hungry.limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let refused =
        is_refused(guest.ask(make(&hungry), b""), "Denied: create_container denied by policy: container main");
    assert!(refused.contains("limits: expected memory of 33554432 bytes"), "{refused}");

    // It may be made, but its program does not run before the database's does.
    guest.ask(make(&main), b"").expect("the container is the policy's");
    let too_early = "Denied: create_container denied by policy: container main: order: expected \"db\" to be started";
    is_refused(guest.ask(start(&main.container), b""), too_early);
    guest.ask(make(&db), b"").expect("the container is the policy's");
    is_refused(guest.ask(start(&main.container), b""), too_early);
    is_refused(guest.ask(attest(), b""), no_evidence);
    guest.ask(start(&db.container), b"").expect("it comes after none");
    is_refused(guest.ask(attest(), b""), no_evidence);
    guest.ask(start(&main.container), b"").expect("its turn has come");
    assert!(matches!(guest.ask(attest(), b""), Ok(AgentReply::Report(_))));
    let stats = guest.ask(AgentRequest::Stats { container: main.container }, b"");
    let Ok(AgentReply::Stats(stats)) = stats else { panic!("{stats:?}") };
    assert_eq!(stats.memory_limit_bytes, Some(32 << 20), "the policy's bound, which the host did not ask for");
}

#[test]
fn a_connection_to_a_port_that_the_policy_does_not_list() {
    let Some(caveau) = Caveau::new() else { return };
    let publish = format!("{}:8080", free_port());
    let script = "httpd -p 8081 -h /etc; exec httpd -f -p 8080 -h /etc";
    let options = ["run", "-d", "--name", "honest", "-p", &publish, "--restrict-network"];
    caveau.run(&[&options[..], &[&image("busybox"), "--", "sh", "-c", script]].concat()).success();
    let mut plan = group(&caveau, "honest").plan().expect("the honest group has a plan");
    caveau.run(&["rm", "--force", "honest"]).success();

    // The same group on a host that forwards a port more. What the first had may be another's by now.
    plan.name = "lie".parse().expect("a name");
    let (listed, unlisted) = (free_port(), free_port());
    plan.ports =
        [format!("{listed}:8080"), format!("{unlisted}:8081")].map(|port| port.parse().expect("a port")).into();
    let root = StateRoot::at(&caveau.state()).expect("a state folder");
    start_with(&mut caveau.command(&["__supervise"]), &root, &plan, false, &mut |_| {})
        .expect("the group is the policy's");
    http_get(listed, "/hostname").expect("the listed port is let through");
    // QEMU takes the connection; the guest never answers it.
    let mut stream = TcpStream::connect(("127.0.0.1", unlisted)).expect("the host listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
    let asked = write!(stream, "GET /hostname HTTP/1.0\r\n\r\n");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    assert!(answer.is_empty(), "{asked:?} {read:?}: {answer}");
    http_get(listed, "/hostname").expect("the listed port is let through all the while");
    caveau.run(&["rm", "--force", "lie"]).success();
}
