//! What the gate acts on: the guest's disks and containers, and in tests something that only remembers.
//!
//! Every act on a disk takes its permit by value, here as there: what stands in for the guest cannot be asked to do without
//! either. Containers know no permits: [`crate::containers`] fills their plans from what a permit holds, and starts, signals,
//! tells of and deletes them with one in hand.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use caveau_firewall::{FirewallError, InForce};
use caveau_group::NetworkRules;
use caveau_policy::{
    MountDisk, MountLayer, MountOverlay, MountScratch, Permit, UnmountDisk, UnmountLayer, UnmountOverlay,
};
use caveau_runtime::{
    Container, ContainerPlan, ExitStatus, Process, ProcessPlan, Runtime, RuntimeError, StdioKind, Usage,
};
use caveau_storage::{EncryptedDisk, Layer, Overlay, Result, Scratch, ScratchSource, Storage};

use crate::{context::Space, live::Seen};

/// Something that is mounted.
pub(crate) trait Placed: Send {
    /// Where.
    fn target(&self) -> &Path;
}

/// Disks and file systems: see [`Storage`] for what each does.
pub(crate) trait Disks: Send + 'static {
    type Layer: Placed;
    type Disk: Placed;
    type Scratch: Send;
    type Overlay: Placed;

    fn mount_layer(&self, permit: Permit<MountLayer>, lun: u16) -> Result<Self::Layer>;
    fn unmount_layer(&self, permit: Permit<UnmountLayer>, layer: &Self::Layer) -> Result<()>;
    fn mount_disk(&self, permit: Permit<MountDisk>, lun: u16) -> Result<Self::Disk>;
    fn unmount_disk(&self, permit: Permit<UnmountDisk>, disk: &Self::Disk) -> Result<()>;
    fn mount_scratch(&self, permit: Permit<MountScratch>, source: Source<'_, Self::Disk>) -> Result<Self::Scratch>;
    fn mount_overlay(&self, permit: Permit<MountOverlay>, scratch: &Self::Scratch) -> Result<Self::Overlay>;
    fn unmount_overlay(&self, permit: Permit<UnmountOverlay>, overlay: &Self::Overlay) -> Result<()>;

    /// The kernel's name of a layer's device.
    fn device_name(layer: &Self::Layer) -> String;
}

/// What a scratch space is made of.
#[derive(Debug)]
pub(crate) enum Source<'a, Disk> {
    Disk(&'a Disk),
    Memory { bytes: u64 },
}

/// What makes containers.
pub(crate) trait Maker: Send + 'static {
    type Container: Contained;

    /// Makes one, and what its image lacks for it.
    fn create(&mut self, plan: &ContainerPlan, stdio: StdioKind) -> std::result::Result<Self::Container, RuntimeError>;

    /// Where the guest keeps what containers see of its own.
    fn space(&self) -> (PathBuf, Space);
}

/// The guest's network.
pub(crate) trait Network: Send {
    /// Puts rules in force for as long as the guest lives.
    fn restrict(&mut self, rules: &NetworkRules) -> std::result::Result<(), FirewallError>;
}

/// The network of this process.
#[derive(Debug, Default)]
pub(crate) struct OwnNetwork {
    /// What keeps others from changing the rules.
    _in_force: Option<InForce>,
}

impl Network for OwnNetwork {
    fn restrict(&mut self, rules: &NetworkRules) -> std::result::Result<(), FirewallError> {
        self._in_force = Some(caveau_firewall::enforce(rules)?);
        Ok(())
    }
}

/// A container: see [`Container`].
pub(crate) trait Contained: Send {
    type Process: Runs;

    fn init(&self) -> &Self::Process;
    fn start(&mut self) -> std::result::Result<(), RuntimeError>;
    fn execute(&mut self, plan: &ProcessPlan, stdio: StdioKind) -> std::result::Result<Self::Process, RuntimeError>;
    fn usage(&self) -> std::result::Result<Usage, RuntimeError>;
    fn is_started(&self) -> bool;
    fn kill(&self) -> std::result::Result<(), RuntimeError>;
    fn delete(&mut self) -> std::result::Result<(), RuntimeError>;
}

/// A process: see [`Process`].
pub(crate) trait Runs: Send {
    fn seen(&self) -> Arc<dyn Seen>;
    fn exit(&self) -> Option<ExitStatus>;
    fn signal(&self, number: u8) -> std::result::Result<(), RuntimeError>;
}

impl Placed for Layer {
    fn target(&self) -> &Path {
        self.target()
    }
}

impl Placed for EncryptedDisk {
    fn target(&self) -> &Path {
        self.target()
    }
}

impl Placed for Overlay {
    fn target(&self) -> &Path {
        self.target()
    }
}

impl Disks for Storage {
    type Layer = Layer;
    type Disk = EncryptedDisk;
    type Scratch = Scratch;
    type Overlay = Overlay;

    fn mount_layer(&self, permit: Permit<MountLayer>, lun: u16) -> Result<Layer> {
        self.mount_layer(permit, lun)
    }

    fn unmount_layer(&self, permit: Permit<UnmountLayer>, layer: &Layer) -> Result<()> {
        self.unmount_layer(permit, layer)
    }

    fn mount_disk(&self, permit: Permit<MountDisk>, lun: u16) -> Result<EncryptedDisk> {
        self.mount_disk(permit, lun)
    }

    fn unmount_disk(&self, permit: Permit<UnmountDisk>, disk: &EncryptedDisk) -> Result<()> {
        self.unmount_disk(permit, disk)
    }

    fn mount_scratch(&self, permit: Permit<MountScratch>, source: Source<'_, EncryptedDisk>) -> Result<Scratch> {
        let source = match source {
            Source::Disk(disk) => ScratchSource::Disk(disk),
            Source::Memory { bytes } => ScratchSource::Memory { bytes },
        };
        self.mount_scratch(permit, &source)
    }

    fn mount_overlay(&self, permit: Permit<MountOverlay>, scratch: &Scratch) -> Result<Overlay> {
        self.mount_overlay(permit, scratch)
    }

    fn unmount_overlay(&self, permit: Permit<UnmountOverlay>, overlay: &Overlay) -> Result<()> {
        self.unmount_overlay(permit, overlay)
    }

    fn device_name(layer: &Layer) -> String {
        layer.device_name()
    }
}

impl Maker for Runtime {
    type Container = Container;

    fn create(&mut self, plan: &ContainerPlan, stdio: StdioKind) -> std::result::Result<Container, RuntimeError> {
        self.create(plan, stdio)
    }

    fn space(&self) -> (PathBuf, Space) {
        (PathBuf::from("/run/caveau/context"), Space::Memory)
    }
}

impl Contained for Container {
    type Process = Process;

    fn init(&self) -> &Process {
        self.init()
    }

    fn start(&mut self) -> std::result::Result<(), RuntimeError> {
        self.start()
    }

    fn execute(&mut self, plan: &ProcessPlan, stdio: StdioKind) -> std::result::Result<Process, RuntimeError> {
        self.execute(plan, stdio)
    }

    fn usage(&self) -> std::result::Result<Usage, RuntimeError> {
        self.usage()
    }

    fn is_started(&self) -> bool {
        self.is_started()
    }

    fn kill(&self) -> std::result::Result<(), RuntimeError> {
        self.kill()
    }

    fn delete(&mut self) -> std::result::Result<(), RuntimeError> {
        self.delete()
    }
}

impl Runs for Process {
    fn seen(&self) -> Arc<dyn Seen> {
        Arc::new(self.watch())
    }

    fn exit(&self) -> Option<ExitStatus> {
        self.exit()
    }

    fn signal(&self, number: u8) -> std::result::Result<(), RuntimeError> {
        self.signal(number)
    }
}
