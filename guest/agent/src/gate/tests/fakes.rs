//! A guest that only remembers what was done to it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use caveau_firewall::FirewallError;
use caveau_group::NetworkRules;
use caveau_policy::{
    MountDisk, MountLayer, MountOverlay, MountScratch, Permit, UnmountDisk, UnmountLayer, UnmountOverlay,
};
use caveau_runtime::{ContainerPlan, ExitStatus, ProcessPlan, RuntimeError, StdioKind, Usage};
use caveau_storage::{Result as StorageResult, StorageError};
use caveau_tee::{DerivedKey, KeyRequest, Tee, TeeError, TeeEvidence, TeeKind};

use super::ROOT;
use crate::{
    context::Space,
    gate::{Disks, Maker},
    live::{Seen, tests::Running},
    outside::{Contained, Network, Placed, Runs, Source},
};

/// What was done, and what shall fail.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) acts: Vec<String>,
    pub(super) fails: Option<&'static str>,
    pub(super) running: Vec<Arc<Running>>,
}

pub(super) type Ledger = Arc<Mutex<Memory>>;

pub(super) fn locked(ledger: &Ledger) -> MutexGuard<'_, Memory> {
    ledger.lock().unwrap()
}

/// Notes an act; `false` where it shall fail.
pub(super) fn act(ledger: &Ledger, name: &'static str, about: &str) -> bool {
    let mut memory = locked(ledger);
    memory.acts.push(format!("{name} {about}").trim_end().to_owned());
    memory.fails != Some(name)
}

pub(super) struct FakeDisks(pub(super) Ledger);

pub(super) struct At(pub(super) PathBuf);

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

pub(super) struct FakeNetwork(pub(super) Ledger);

impl Network for FakeNetwork {
    fn restrict(&mut self, rules: &NetworkRules) -> Result<(), FirewallError> {
        let listeners: Vec<String> = rules.listen.iter().map(ToString::to_string).collect();
        let done = act(&self.0, "restrict", &listeners.join(", "));
        if done { Ok(()) } else { Err(FirewallError::AlreadyThere) }
    }
}

pub(super) struct FakeMaker {
    pub(super) ledger: Ledger,
    pub(super) folder: tempfile::TempDir,
}

pub(super) struct FakeContainer {
    pub(super) ledger: Ledger,
    pub(super) init: FakeProcess,
    pub(super) started: bool,
}

pub(super) struct FakeProcess {
    pub(super) ledger: Ledger,
    pub(super) running: Arc<Running>,
}

impl FakeProcess {
    pub(super) fn new(ledger: &Ledger) -> Self {
        let running = Arc::new(Running::default());
        locked(ledger).running.push(Arc::clone(&running));
        Self { ledger: Arc::clone(ledger), running }
    }
}

/// How a container's bounds stand in the ledger.
pub(super) fn shown_limits(limits: caveau_group::Limits) -> String {
    serde_json::to_string(&limits).unwrap()
}

pub(super) fn outcome(done: bool) -> Result<(), RuntimeError> {
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
        // The one is the host's, the other an owner's.
        let permitted = plan.args == ["/bin/check"] || plan.args == ["/bin/owners"];
        assert!(permitted, "nothing else has a permit: {:?}", plan.args);
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
pub(super) struct Processor(pub(super) [u8; 32]);

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
