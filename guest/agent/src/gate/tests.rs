//! The gate over disks and containers that only remember what was done to them.

use std::sync::Arc;

use caveau_group::{
    Capability, Container as GroupContainer, Group, ImageParts, NetworkRules, Overrides, Permissions, Seccomp,
};
use caveau_policy::{PolicyDigest, generate};
use caveau_protocol::{
    AgentReply, AgentRequest, Capabilities, ContainerId, CreateContainer, ErrorKind, Exec, LayerId, Limits, ProcessId,
    ProcessSpec, Stream, TerminalSize,
};
use proptest::prelude::*;

use super::*;
use crate::live::{Seen as _, Viewer};
use fakes::{FakeDisks, FakeMaker, FakeNetwork, Ledger, Processor, locked};

mod extension;
mod fakes;
mod owners;

const ROOT: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const OTHER_ROOT: &str = "2222222222222222222222222222222222222222222222222222222222222222";

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

/// The policy of one container, which may execute one command.
fn policy() -> String {
    policy_with(Overrides::default(), None)
}

/// The same with more in it.
fn policy_with(overrides: Overrides, network: Option<NetworkRules>) -> String {
    let image = ImageParts {
        reference: "example.org/serve:1".to_owned(),
        layers: vec![ROOT.parse().unwrap()],
        entrypoint: strings(&["/bin/serve"]),
        env: strings(&["PATH=/bin"]),
        ..ImageParts::default()
    };
    let overrides = Overrides { exec: vec![strings(&["/bin/check"])], ..overrides };
    let containers = vec![GroupContainer::from_image(image, overrides).unwrap()];
    generate(&Group { network, ..Group::new(containers, Permissions::default()).unwrap() })
}

struct Bench {
    gate: Gate<FakeDisks, FakeMaker>,
    ledger: Ledger,
    live: Arc<Live>,
}

impl Bench {
    /// A guest that was launched with [`policy`].
    fn new() -> Self {
        Self::launched_with(&policy())
    }

    /// One that was launched with this policy.
    fn launched_with(policy: &str) -> Self {
        let ledger = Ledger::default();
        let live = Arc::new(Live::default());
        let maker = FakeMaker { ledger: Arc::clone(&ledger), folder: tempfile::tempdir().unwrap() };
        let guest = Guest {
            tee: Box::new(Processor(*PolicyDigest::of(policy).as_bytes())),
            disks: FakeDisks(Arc::clone(&ledger)),
            maker,
            network: Box::new(FakeNetwork(Arc::clone(&ledger))),
        };
        Self { gate: Gate::new(guest, Arc::clone(&live)), ledger, live }
    }

    /// One whose policy is in force.
    fn governed() -> Self {
        let mut bench = Self::new();
        bench.set_policy(&policy()).unwrap();
        bench
    }

    fn set_policy(&mut self, policy: &str) -> Result<AgentReply, ErrorKind> {
        let set = AgentRequest::SetPolicy { host_certificates: None, reference_info: None };
        self.gate.step(set, policy.as_bytes().to_vec()).map(|(reply, _)| reply).map_err(|error| error.kind)
    }

    /// One whose container runs.
    fn running() -> Self {
        let mut bench = Self::governed();
        for request in start() {
            bench.ask(request).unwrap();
        }
        bench
    }

    fn ask(&mut self, request: AgentRequest) -> Result<AgentReply, ErrorKind> {
        self.gate.step(request, Vec::new()).map(|(reply, _)| reply).map_err(|error| error.kind)
    }

    fn acts(&self) -> Vec<String> {
        locked(&self.ledger).acts.clone()
    }
}

fn container() -> ContainerId {
    ContainerId::from_bytes([7; 32])
}

fn layer(root: &str) -> AgentRequest {
    AgentRequest::MountLayer(caveau_protocol::MountLayer { lun: 0, root: root.to_owned() })
}

fn scratch() -> AgentRequest {
    AgentRequest::MountScratch(MountScratch::Encrypted { lun: 1 })
}

fn overlay(layers: &[u32]) -> AgentRequest {
    let layers = layers.iter().copied().map(LayerId).collect();
    AgentRequest::MountOverlay(caveau_protocol::MountOverlay { container: container(), layers })
}

fn process(args: &[&str]) -> ProcessSpec {
    let docker: Vec<String> = Capability::docker_defaults().map(|capability| capability.name().to_owned()).collect();
    ProcessSpec {
        args: strings(args),
        env: strings(&["PATH=/bin"]),
        cwd: "/".to_owned(),
        user: String::new(),
        capabilities: Capabilities {
            bounding: docker.clone(),
            effective: docker.clone(),
            permitted: docker,
            ..Capabilities::default()
        },
        no_new_privileges: false,
        terminal: None,
        stdin: false,
        stdio: true,
    }
}

fn create(change: impl FnOnce(&mut CreateContainer)) -> AgentRequest {
    let mut create = CreateContainer {
        container: container(),
        process: process(&["/bin/serve"]),
        hostname: "web".to_owned(),
        privileged: false,
        read_only: false,
        tmpfs: Vec::new(),
        seccomp: Some(Seccomp::docker_default(&Capability::docker_defaults().collect()).to_json()),
        limits: Limits::default(),
    };
    change(&mut create);
    AgentRequest::CreateContainer(Box::new(create))
}

fn exec(args: &[&str]) -> AgentRequest {
    AgentRequest::Exec(Box::new(Exec { container: container(), process: process(args) }))
}

fn signal(exec: Option<u32>, signal: u8) -> AgentRequest {
    AgentRequest::Signal { process: ProcessId { container: container(), exec }, signal }
}

/// From a policy to a container that runs.
fn start() -> [AgentRequest; 5] {
    [layer(ROOT), scratch(), overlay(&[1]), create(|_| {}), AgentRequest::StartContainer { container: container() }]
}

/// From a container that has ended to nothing.
fn end() -> [AgentRequest; 3] {
    [
        AgentRequest::DeleteContainer { container: container() },
        AgentRequest::UnmountOverlay { container: container() },
        AgentRequest::UnmountLayer { layer: LayerId(1) },
    ]
}

#[test]
fn nothing_is_done_without_a_policy() {
    let mut bench = Bench::new();
    for request in start().into_iter().chain(end()).chain([exec(&["/bin/check"]), signal(None, 15)]) {
        assert_eq!(bench.ask(request), Err(ErrorKind::Invalid));
    }
    assert!(matches!(bench.ask(AgentRequest::Hello), Ok(AgentReply::Hello(_))));
    for text in [format!("{}\n", policy()), String::new()] {
        let set = AgentRequest::SetPolicy { host_certificates: None, reference_info: None };
        assert!(bench.gate.step(set, text.into_bytes()).is_err());
    }
    let set = AgentRequest::SetPolicy { host_certificates: None, reference_info: Some("not base64".to_owned()) };
    assert!(bench.gate.step(set, policy().into_bytes()).is_err(), "reference values that are not base64");
    assert_eq!(bench.ask(layer(ROOT)), Err(ErrorKind::Invalid));
    assert_eq!(bench.acts(), [""; 0]);
}

#[test]
fn a_group_lives_from_its_policy_to_its_end() {
    let mut bench = Bench::running();
    assert_eq!(bench.ask(exec(&["/bin/check"])), Ok(AgentReply::Exec { exec: 1 }));
    bench.ask(signal(None, 15)).unwrap();
    assert_eq!(bench.ask(end()[0].clone()), Err(ErrorKind::Invalid), "it runs");
    locked(&bench.ledger).running[0].end(&bench.live, 0);
    for request in end() {
        bench.ask(request).unwrap();
    }
    let expected = [
        "mount_layer",
        "mount_disk",
        "mount_scratch",
        "mount_overlay",
        "create",
        "start",
        "execute",
        "signal 15",
        "delete",
        "unmount_overlay",
        "unmount_layer",
    ];
    assert_eq!(bench.acts(), expected);
    let read = bench.live.read(&ProcessId::init(container()), Viewer::Host, Stream::Stdout, 1, Duration::ZERO);
    assert!(read.is_err(), "it is forgotten");
    let again = AgentRequest::SetPolicy { host_certificates: None, reference_info: None };
    assert!(bench.gate.step(again, policy().into_bytes()).is_err(), "one policy for ever");
}

#[test]
fn what_is_asked_of_the_policy_is_kept_where_the_host_wants_it() {
    let mut bench = Bench::governed();
    bench.ask(layer(ROOT)).unwrap();
    assert_eq!(
        bench.gate.step(AgentRequest::TakeRequests, vec![]).unwrap(),
        (AgentReply::Requests { lost: 0 }, vec![])
    );
    bench.ask(AgentRequest::KeepRequests).unwrap();
    assert_eq!(bench.ask(layer(OTHER_ROOT)), Err(ErrorKind::Denied));
    bench.ask(scratch()).unwrap();
    let (_, body) = bench.gate.step(AgentRequest::TakeRequests, vec![]).unwrap();
    let text = String::from_utf8(body).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<_> = lines.iter().map(|line| (line["point"].as_str().unwrap(), line["allowed"] == true)).collect();
    assert_eq!(shown, [("mount_device", false), ("rw_mount_device", true), ("scratch_mount", true)]);
    assert!(lines[0]["denial"]["policy_decision"].as_str().unwrap().starts_with("policyDecision<"));
    assert_eq!(lines[0]["input"]["deviceHash"], OTHER_ROOT);
}

#[test]
fn what_has_no_permit_is_not_done() {
    let mut bench = Bench::governed();
    assert_eq!(bench.ask(layer(OTHER_ROOT)), Err(ErrorKind::Denied));
    assert_eq!(bench.ask(overlay(&[])), Err(ErrorKind::Invalid), "there is no scratch");
    bench.ask(layer(ROOT)).unwrap();
    bench.ask(scratch()).unwrap();
    assert_eq!(bench.ask(scratch()), Err(ErrorKind::Invalid), "there is one");
    assert_eq!(bench.ask(overlay(&[])), Err(ErrorKind::Denied));
    assert_eq!(bench.ask(overlay(&[2])), Err(ErrorKind::Invalid));
    assert_eq!(bench.ask(create(|_| {})), Err(ErrorKind::Invalid), "there is no overlay");
    bench.ask(overlay(&[1])).unwrap();
    assert_eq!(bench.ask(end()[2].clone()), Err(ErrorKind::Denied), "the layer is in use");
    let lies: [fn(&mut CreateContainer); 6] = [
        |create| create.privileged = true,
        |create| create.process.args.push("more".to_owned()),
        |create| create.process.env.push("LD_PRELOAD=/x".to_owned()),
        |create| create.process.cwd = "/tmp".to_owned(),
        |create| create.process.capabilities.effective.push("CAP_SYS_ADMIN".to_owned()),
        |create| create.seccomp = None,
    ];
    for lie in lies {
        assert_eq!(bench.ask(create(lie)), Err(ErrorKind::Denied));
    }
    assert_eq!(bench.ask(create(|create| create.hostname = "a\nb".to_owned())), Err(ErrorKind::Invalid));
    bench.ask(create(|_| {})).unwrap();
    bench.ask(start()[4].clone()).unwrap();
    assert_eq!(bench.ask(exec(&["/bin/sh"])), Err(ErrorKind::Denied));
    assert_eq!(bench.ask(signal(None, 19)), Err(ErrorKind::Denied));
    assert_eq!(bench.ask(signal(Some(9), 15)), Err(ErrorKind::Invalid), "there is no such process");
    assert_eq!(bench.acts().len(), 6, "{:?}", bench.acts());
}

#[test]
fn a_disk_without_scratch_space_is_given_up() {
    let mut bench = Bench::governed();
    bench.ask(layer(ROOT)).unwrap();
    locked(&bench.ledger).fails = Some("mount_scratch");
    assert_eq!(bench.ask(scratch()), Err(ErrorKind::Failed));
    assert_eq!(bench.acts()[1..], ["mount_disk", "mount_scratch", "unmount_disk"]);
    locked(&bench.ledger).fails = None;
    bench.ask(scratch()).unwrap();
    bench.ask(overlay(&[1])).unwrap();
}

#[test]
fn a_step_that_fails_can_be_tried_again() {
    let mut bench = Bench::governed();
    // The layer that failed has had its number.
    let requests = [layer(ROOT), scratch(), overlay(&[2]), create(|_| {})];
    for (request, name) in requests.into_iter().zip(["mount_layer", "mount_disk", "mount_overlay", "create"]) {
        locked(&bench.ledger).fails = Some(name);
        assert_eq!(bench.ask(request.clone()), Err(ErrorKind::Failed), "{name}");
        locked(&bench.ledger).fails = None;
        bench.ask(request).unwrap();
    }
}

#[test]
fn a_terminal_needs_somebody_at_its_other_end() {
    for (stdio, made) in [(true, "create with a terminal"), (false, "create")] {
        let mut bench = Bench::governed();
        let with_terminal = create(|create| {
            create.process.terminal = Some(TerminalSize::default());
            create.process.stdio = stdio;
        });
        for request in start().into_iter().take(3).chain([with_terminal]) {
            bench.ask(request).unwrap();
        }
        assert_eq!(bench.acts().last().unwrap(), made);
    }
}

/// Any request that is more or less sensible.
fn request() -> impl Strategy<Value = AgentRequest> {
    prop_oneof![
        (0usize..5).prop_map(|index| start()[index].clone()),
        (0usize..3).prop_map(|index| end()[index].clone()),
        proptest::collection::vec(0u32..4, 0..3).prop_map(|layers| overlay(&layers)),
        Just(layer(OTHER_ROOT)),
        Just(create(|create| create.privileged = true)),
        Just(exec(&["/bin/check"])),
        Just(exec(&["/bin/sh"])),
        (0u8..70, proptest::option::of(0u32..3)).prop_map(|(number, exec)| signal(exec, number)),
        Just(AgentRequest::Stats { container: container() }),
        Just(AgentRequest::SetPolicy { host_certificates: None, reference_info: None }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What stands in for the guest checks each permit; here, that nothing is done which is not answered so.
    #[test]
    fn in_any_order_only_what_is_granted_is_done(
        requests in proptest::collection::vec((request(), any::<bool>()), 0..40),
    ) {
        let mut bench = Bench::governed();
        for (request, ends) in requests {
            let before = bench.acts().len();
            let looks = matches!(request, AgentRequest::Stats { .. });
            match bench.ask(request) {
                Ok(_) => prop_assert!(looks || bench.acts().len() > before),
                Err(kind) => {
                    prop_assert_ne!(kind, ErrorKind::Failed);
                    prop_assert_eq!(bench.acts().len(), before);
                }
            }
            let running = locked(&bench.ledger).running.first().cloned();
            if let Some(first) = running.filter(|first| ends && first.exit().is_none()) {
                first.end(&bench.live, 0);
            }
        }
        let count = |name: &str| bench.acts().iter().filter(|act| act.starts_with(name)).count();
        prop_assert!(count("create") <= 1, "the policy has one container, and its identifier is used once");
        prop_assert!(count("mount_disk") <= 1);
    }
}
