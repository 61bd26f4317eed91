//! The gate over disks and containers that only remember what was done to them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use caveau_firewall::FirewallError;
use caveau_group::{
    Capability, Container as GroupContainer, Group, ImageParts, NetworkRules, Overrides, Permissions, Seccomp,
};
use caveau_policy::{
    MountDisk, MountLayer, MountOverlay, MountScratch, Permit, PolicyDigest, UnmountDisk, UnmountLayer, UnmountOverlay,
    generate,
};
use caveau_protocol::{
    AgentReply, AgentRequest, Capabilities, ContainerId, CreateContainer, ErrorKind, Exec, LayerId, Limits, ProcessId,
    ProcessSpec, Stream, TerminalSize,
};
use caveau_runtime::{ContainerPlan, ExitStatus, ProcessPlan, RuntimeError, StdioKind, Usage};
use caveau_storage::{Result as StorageResult, StorageError};
use caveau_tee::{DerivedKey, KeyRequest, Tee, TeeError, TeeEvidence, TeeKind};
use proptest::prelude::*;

use super::*;
use crate::{
    context::Space,
    live::{Seen, tests::Running},
    outside::{Contained, Network, Placed, Runs, Source},
};

mod extension;

const ROOT: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const OTHER_ROOT: &str = "2222222222222222222222222222222222222222222222222222222222222222";

/// What was done, and what shall fail.
#[derive(Debug, Default)]
struct Memory {
    acts: Vec<String>,
    fails: Option<&'static str>,
    running: Vec<Arc<Running>>,
}

type Ledger = Arc<Mutex<Memory>>;

fn locked(ledger: &Ledger) -> MutexGuard<'_, Memory> {
    ledger.lock().unwrap()
}

/// Notes an act; `false` where it shall fail.
fn act(ledger: &Ledger, name: &'static str, about: &str) -> bool {
    let mut memory = locked(ledger);
    memory.acts.push(format!("{name} {about}").trim_end().to_owned());
    memory.fails != Some(name)
}

struct FakeDisks(Ledger);

struct At(PathBuf);

impl Placed for At {
    fn target(&self) -> &Path {
        &self.0
    }
}

impl FakeDisks {
    fn act(&self, name: &'static str, target: String) -> StorageResult<At> {
        if act(&self.0, name, "") { Ok(At(target.into())) } else { Err(StorageError::Unsupported(name.to_owned())) }
    }
}

impl Disks for FakeDisks {
    type Layer = At;
    type Disk = At;
    type Scratch = At;
    type Overlay = At;

    fn mount_layer(&self, permit: Permit<MountLayer>, _: u16) -> StorageResult<At> {
        let permitted = permit.into_inner();
        assert_eq!(permitted.root.to_string(), ROOT, "no other layer has a permit");
        self.act("mount_layer", permitted.target)
    }

    fn unmount_layer(&self, permit: Permit<UnmountLayer>, layer: &At) -> StorageResult<()> {
        assert_eq!(Path::new(&permit.into_inner().target), layer.0);
        self.act("unmount_layer", String::new()).map(drop)
    }

    fn mount_disk(&self, permit: Permit<MountDisk>, _: u16) -> StorageResult<At> {
        self.act("mount_disk", permit.into_inner().target)
    }

    fn unmount_disk(&self, permit: Permit<UnmountDisk>, disk: &At) -> StorageResult<()> {
        assert_eq!(Path::new(&permit.into_inner().target), disk.0);
        self.act("unmount_disk", String::new()).map(drop)
    }

    fn mount_scratch(&self, permit: Permit<MountScratch>, _: Source<'_, At>) -> StorageResult<At> {
        self.act("mount_scratch", permit.into_inner().target)
    }

    fn mount_overlay(&self, permit: Permit<MountOverlay>, _: &At) -> StorageResult<At> {
        self.act("mount_overlay", permit.into_inner().target)
    }

    fn unmount_overlay(&self, permit: Permit<UnmountOverlay>, overlay: &At) -> StorageResult<()> {
        assert_eq!(Path::new(&permit.into_inner().target), overlay.0);
        self.act("unmount_overlay", String::new()).map(drop)
    }

    fn device_name(layer: &At) -> String {
        layer.0.display().to_string()
    }
}

struct FakeNetwork(Ledger);

impl Network for FakeNetwork {
    fn restrict(&mut self, rules: &NetworkRules) -> Result<(), FirewallError> {
        let listeners: Vec<String> = rules.listen.iter().map(ToString::to_string).collect();
        let done = act(&self.0, "restrict", &listeners.join(", "));
        if done { Ok(()) } else { Err(FirewallError::AlreadyThere) }
    }
}

struct FakeMaker {
    ledger: Ledger,
    folder: tempfile::TempDir,
}

struct FakeContainer {
    ledger: Ledger,
    init: FakeProcess,
    started: bool,
}

struct FakeProcess {
    ledger: Ledger,
    running: Arc<Running>,
}

impl FakeProcess {
    fn new(ledger: &Ledger) -> Self {
        let running = Arc::new(Running::default());
        locked(ledger).running.push(Arc::clone(&running));
        Self { ledger: Arc::clone(ledger), running }
    }
}

/// How a container's bounds stand in the ledger.
fn shown_limits(limits: caveau_group::Limits) -> String {
    serde_json::to_string(&limits).unwrap()
}

fn outcome(done: bool) -> Result<(), RuntimeError> {
    if done { Ok(()) } else { Err(RuntimeError::SetUp { reason: "as told".to_owned() }) }
}

impl Maker for FakeMaker {
    type Container = FakeContainer;

    fn create(&mut self, plan: &ContainerPlan, stdio: StdioKind) -> Result<FakeContainer, RuntimeError> {
        assert!(!plan.privileged && plan.process.args == ["/bin/serve"], "nothing else has a permit: {plan:?}");
        assert_eq!(plan.terminal, stdio.terminal.is_some());
        let terminal = if stdio.terminal.is_some() { "with a terminal" } else { "" };
        let about = if plan.limits.is_none() { terminal.to_owned() } else { shown_limits(plan.limits) };
        outcome(act(&self.ledger, "create", &about))?;
        Ok(FakeContainer { ledger: Arc::clone(&self.ledger), init: FakeProcess::new(&self.ledger), started: false })
    }

    fn space(&self) -> (PathBuf, Space) {
        (self.folder.path().to_owned(), Space::Folder)
    }
}

impl Contained for FakeContainer {
    type Process = FakeProcess;

    fn init(&self) -> &FakeProcess {
        &self.init
    }

    fn start(&mut self) -> Result<(), RuntimeError> {
        self.started = true;
        outcome(act(&self.ledger, "start", ""))
    }

    fn execute(&mut self, plan: &ProcessPlan, _: StdioKind) -> Result<FakeProcess, RuntimeError> {
        assert_eq!(plan.args, ["/bin/check"], "nothing else has a permit");
        outcome(act(&self.ledger, "execute", ""))?;
        Ok(FakeProcess::new(&self.ledger))
    }

    fn usage(&self) -> Result<Usage, RuntimeError> {
        Ok(Usage::default())
    }

    fn is_started(&self) -> bool {
        self.started
    }

    fn kill(&self) -> Result<(), RuntimeError> {
        outcome(act(&self.ledger, "kill", ""))
    }

    fn delete(&mut self) -> Result<(), RuntimeError> {
        outcome(act(&self.ledger, "delete", ""))
    }
}

impl Runs for FakeProcess {
    fn seen(&self) -> Arc<dyn Seen> {
        self.running.clone()
    }

    fn exit(&self) -> Option<ExitStatus> {
        self.running.exit()
    }

    fn signal(&self, number: u8) -> Result<(), RuntimeError> {
        outcome(act(&self.ledger, "signal", &number.to_string()))
    }
}

/// A processor whose launch had this HOST_DATA.
struct Processor([u8; 32]);

impl Tee for Processor {
    fn kind(&self) -> TeeKind {
        TeeKind::EmulatedSnp
    }

    fn report(&mut self, report_data: &[u8; 64]) -> Result<TeeEvidence, TeeError> {
        let report = [&[0u8; 0x50][..], report_data, &[0; 0x30], &self.0].concat();
        Ok(TeeEvidence { report, certificates: Vec::new() })
    }

    fn derived_key(&mut self, _: &KeyRequest) -> Result<DerivedKey, TeeError> {
        Err(TeeError::NotNamed)
    }
}

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
    generate(&Group { containers, permissions: Permissions::default(), network })
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
    AgentRequest::MountScratch(caveau_protocol::MountScratch::Encrypted { lun: 1 })
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
    let read = bench.live.read(&ProcessId::init(container()), Stream::Stdout, 1, Duration::ZERO);
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
