//! What is to be launched: one group, complete, as a value that can be written down.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use caveau_group::MAX_LAYERS;
use caveau_protocol::{CreateContainer, MAX_CONTAINERS};
use serde::{Deserialize, Serialize};

use crate::{GroupName, PolicyPiece, PortForward};

/// Version of the plan's form.
pub const PLAN_VERSION: u16 = 1;

/// Most processors of a VM.
pub const MAX_VCPUS: u32 = 64;

/// Least memory of a VM in MiB: below, the guest's kernel and agent do not fit.
pub const MIN_MEMORY_MIB: u32 = 128;

/// Most memory of a VM in MiB.
pub const MAX_MEMORY_MIB: u32 = 1024 * 1024;

/// Least size of a scratch disk in bytes: what the guest takes for its file system and the tags that authenticate it.
pub const MIN_SCRATCH_BYTES: u64 = 20 << 20;

/// Largest scratch disk in bytes.
pub const MAX_SCRATCH_BYTES: u64 = 8 << 40;

/// Which TEE runs the group. It is named on the guest's measured command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tee {
    /// The software secure processor: no confidentiality.
    EmulatedSnp,
    /// AMD SEV-SNP.
    Snp,
}

impl std::fmt::Display for Tee {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::EmulatedSnp => "emulated-snp",
            Self::Snp => "snp",
        })
    }
}

/// A group to launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchPlan {
    /// [`PLAN_VERSION`].
    pub version: u16,
    /// The group's name, unique among the user's groups.
    pub name: GroupName,
    /// The guest's measured parts.
    pub guest: GuestFiles,
    /// The TEE.
    pub tee: Tee,
    /// Virtual processors.
    pub vcpus: u32,
    /// The processors' model by QEMU's name, such as `EPYC-v4`. It is measured; under [`Tee::EmulatedSnp`] it is only
    /// measured, and the guest gets all that the host can offer.
    pub vcpu_type: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Layers of all containers, each once; a layer's index is its disk's LUN.
    pub layers: Vec<LayerFile>,
    /// Where overlays are written to.
    pub scratch: Scratch,
    /// Published ports.
    pub ports: Vec<PortForward>,
    /// Where whoever wants to talk to the guest itself may connect to; absent is nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_address: Option<SocketAddr>,
    /// The policy's text; SHA-256 of it becomes HOST_DATA.
    pub policy: String,
    /// Signed pieces of policy that the guest loads after it, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<PolicyPiece>,
    /// Host certificates for `UVM_SECURITY_CONTEXT_DIR`, handed on unread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_certificates: Option<String>,
    /// The guest's signed reference values (COSE_Sign1) in base64, for the same folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_info: Option<String>,
    /// The guest's description (`guest.json`) as it was when the group was started, for evidence. For people: no verifier
    /// takes it from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_values: Option<serde_json::Value>,
    /// The containers, in the order of their start. The group ends when all have ended.
    pub containers: Vec<ContainerPlan>,
    /// Bounds on each container's log.
    #[serde(default)]
    pub log: LogLimits,
    /// Whether to write down what is asked of the policy: [`crate::GroupFolder::requests`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub record: bool,
    /// Seconds until the guest must have started the containers.
    pub start_timeout_s: u32,
    /// Seconds after which a guest that does not answer counts as unresponsive.
    #[serde(default = "default_answer_timeout")]
    pub answer_timeout_s: u32,
}

/// For serde: most groups keep no record.
fn is_false(value: &bool) -> bool {
    !*value
}

/// The guest's measured parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestFiles {
    /// The kernel: for [`Tee::EmulatedSnp`] an ELF with a PVH entry or a bzImage, for [`Tee::Snp`] a bzImage.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
    /// File that holds the kernel's command line, byte for byte.
    pub cmdline: PathBuf,
    /// What runs before the kernel.
    pub firmware: FirmwareFiles,
}

/// What runs before the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FirmwareFiles {
    /// A BIOS and the option ROM that boots the kernel, for [`Tee::EmulatedSnp`].
    Direct {
        /// The BIOS image.
        bios: PathBuf,
        /// Option ROMs, under the file names by which QEMU looks for them.
        option_roms: Vec<PathBuf>,
    },
    /// An AmdSev build of OVMF, for [`Tee::Snp`].
    Ovmf {
        /// The image.
        path: PathBuf,
    },
}

impl GuestFiles {
    /// The parts under their usual names in a guest image's folder; `ovmf` for [`Tee::Snp`].
    ///
    /// # Errors
    /// [`InvalidPlan::Firmware`] for `snp` without a firmware and for `emulated-snp` with one.
    pub fn in_folder(folder: &Path, tee: Tee, ovmf: Option<PathBuf>) -> Result<Self, InvalidPlan> {
        let (kernel, firmware) = match (tee, ovmf) {
            (Tee::EmulatedSnp, None) => {
                let option_roms = vec![folder.join("pvh.bin")];
                ("vmlinux", FirmwareFiles::Direct { bios: folder.join("bios-256k.bin"), option_roms })
            }
            (Tee::Snp, Some(path)) => ("vmlinuz", FirmwareFiles::Ovmf { path }),
            _ => return Err(InvalidPlan::Firmware { tee }),
        };
        Ok(Self {
            kernel: folder.join(kernel),
            initrd: folder.join("initrd.img"),
            cmdline: folder.join(format!("cmdline.{tee}")),
            firmware,
        })
    }
}

/// A layer: an ext4 image with its hash tree behind it, in the host's cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerFile {
    /// The file.
    pub path: PathBuf,
    /// dm-verity root hash, 64 lower-case hexadecimal digits: what the host claims and the policy decides.
    pub root: String,
}

/// The group's scratch space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Scratch {
    /// A disk that the guest encrypts under a key of its own: a sparse file without a name.
    Encrypted {
        /// Size in bytes, a multiple of 4096.
        bytes: u64,
        /// Folder on whose file system the file lives.
        folder: PathBuf,
    },
    /// The guest's memory.
    Memory {
        /// Size in bytes.
        bytes: u64,
    },
}

/// One container of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerPlan {
    /// Name within the group, for people.
    pub name: String,
    /// Image reference, for people.
    pub image: String,
    /// Indices into [`LaunchPlan::layers`], base first.
    pub layers: Vec<u16>,
    /// The request that makes it.
    pub create: CreateContainer,
    /// Signal that asks it to stop, 1 to 64.
    pub stop_signal: u8,
}

/// Bounds on a container's log: rotated files of JSON lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLimits {
    /// Bytes after which a new file is begun.
    pub file_bytes: u64,
    /// Files that are kept.
    pub files: u32,
}

/// Long enough for a guest that shares a busy machine with others.
fn default_answer_timeout() -> u32 {
    20
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { file_bytes: 8 * 1024 * 1024, files: 4 }
    }
}

/// A plan that cannot be launched, before anything was tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlan {
    /// A piece of the policy is not base64.
    #[error("a signed piece of the policy is not base64")]
    Piece,
    /// A number is out of its range.
    #[error("{what} is {value}, but must be from {least} to {most}")]
    Range {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Least.
        least: u64,
        /// Most.
        most: u64,
    },
    /// A container names a layer that the plan does not have.
    #[error("container {container:?} uses layer {index}, but the plan has {count} layers")]
    Layer {
        /// The container.
        container: String,
        /// The index.
        index: u16,
        /// How many there are.
        count: usize,
    },
    /// A layer's root hash is not one.
    #[error("layer {path:?} has the root hash {root:?}, which is not 64 lower-case hexadecimal digits")]
    Root {
        /// The layer's file.
        path: PathBuf,
        /// The text.
        root: String,
    },
    /// The processor model is not a name.
    #[error("processor model {0:?} is not a name such as EPYC-v4")]
    Model(String),
    /// Two containers have the same name or identifier.
    #[error("two containers are called {0:?}")]
    Twice(String),
    /// The scratch disk's size does not suit a disk.
    #[error("the scratch disk has {bytes} bytes, but must be a multiple of 4096 from 20 MiB to 8 TiB")]
    Scratch {
        /// Its size.
        bytes: u64,
    },
    /// `snp` without a firmware, or `emulated-snp` with one.
    #[error("TEE {tee} {}", match tee {
        Tee::Snp => "needs an AmdSev build of OVMF: give its path",
        Tee::EmulatedSnp => "takes its firmware from the guest folder: give no other",
    })]
    Firmware {
        /// The TEE.
        tee: Tee,
    },
    /// Another version of the form.
    #[error("the plan has version {found}, this program writes and reads {PLAN_VERSION}")]
    Version {
        /// What it says.
        found: u16,
    },
}

impl LaunchPlan {
    /// Checks everything that can be checked without looking at the machine.
    ///
    /// # Errors
    /// [`InvalidPlan`] for the first thing at fault.
    pub fn validate(&self) -> Result<(), InvalidPlan> {
        if self.version != PLAN_VERSION {
            return Err(InvalidPlan::Version { found: self.version });
        }
        check_machine(self.vcpus, self.memory_mib)?;
        range("the number of layers", self.layers.len() as u64, 1, MAX_LAYERS as u64)?;
        range("the number of containers", self.containers.len() as u64, 1, MAX_CONTAINERS as u64)?;
        range("the start's time limit in seconds", self.start_timeout_s.into(), 1, 3600)?;
        range("the answers' time limit in seconds", self.answer_timeout_s.into(), 1, 3600)?;
        range("the size of a log file in bytes", self.log.file_bytes, 64 * 1024, 1 << 40)?;
        range("the number of log files", self.log.files.into(), 2, 1000)?;
        if matches!(self.guest.firmware, FirmwareFiles::Ovmf { .. }) != (self.tee == Tee::Snp) {
            return Err(InvalidPlan::Firmware { tee: self.tee });
        }
        if !is_model(&self.vcpu_type) {
            return Err(InvalidPlan::Model(self.vcpu_type.chars().take(80).collect()));
        }
        self.scratch.validate(self.memory_mib)?;
        self.layers.iter().try_for_each(validate_root)?;
        self.pieces.iter().try_for_each(|piece| piece.bytes().map(drop))?;
        self.containers.iter().enumerate().try_for_each(|(index, container)| self.validate_container(index, container))
    }

    fn validate_container(&self, index: usize, container: &ContainerPlan) -> Result<(), InvalidPlan> {
        let same = |other: &ContainerPlan| {
            other.name == container.name || other.create.container == container.create.container
        };
        if self.containers.iter().take(index).any(same) {
            return Err(InvalidPlan::Twice(container.name.clone()));
        }
        range("a stop signal", container.stop_signal.into(), 1, 64)?;
        range("the number of a container's layers", container.layers.len() as u64, 1, MAX_LAYERS as u64)?;
        let count = self.layers.len();
        match container.layers.iter().find(|layer| usize::from(**layer) >= count) {
            Some(index) => Err(InvalidPlan::Layer { container: container.name.clone(), index: *index, count }),
            None => Ok(()),
        }
    }
}

/// Checks the size of a machine.
///
/// # Errors
/// [`InvalidPlan::Range`].
pub fn check_machine(vcpus: u32, memory_mib: u32) -> Result<(), InvalidPlan> {
    range("the number of processors", vcpus.into(), 1, MAX_VCPUS.into())?;
    range("the memory in MiB", memory_mib.into(), MIN_MEMORY_MIB.into(), MAX_MEMORY_MIB.into())
}

impl Scratch {
    /// Checks that a guest of `memory_mib` can make a file system of this size.
    ///
    /// # Errors
    /// [`InvalidPlan::Scratch`] for a disk, [`InvalidPlan::Range`] for memory.
    pub fn validate(&self, memory_mib: u32) -> Result<(), InvalidPlan> {
        match self {
            Self::Encrypted { bytes, .. } => {
                let good = bytes % 4096 == 0 && (MIN_SCRATCH_BYTES..=MAX_SCRATCH_BYTES).contains(bytes);
                if good { Ok(()) } else { Err(InvalidPlan::Scratch { bytes: *bytes }) }
            }
            Self::Memory { bytes } => {
                range("the scratch space in memory, in bytes,", *bytes, 1 << 20, u64::from(memory_mib) << 20)
            }
        }
    }
}

/// Whether a text can be a processor model and nothing more on a command line.
fn is_model(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(good)
}

/// Checks that a number is within its bounds.
fn range(what: &'static str, value: u64, least: u64, most: u64) -> Result<(), InvalidPlan> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(InvalidPlan::Range { what, value, least, most }) }
}

/// Checks the form of a layer's root hash.
fn validate_root(layer: &LayerFile) -> Result<(), InvalidPlan> {
    let good = layer.root.len() == 64 && layer.root.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if good {
        return Ok(());
    }
    Err(InvalidPlan::Root { path: layer.path.clone(), root: layer.root.chars().take(80).collect() })
}

#[cfg(test)]
pub(crate) mod tests {
    use caveau_protocol::{Capabilities, ContainerId, Limits, ProcessSpec};

    use super::*;

    /// A plan of one container, good in itself; its paths lead nowhere.
    pub(crate) fn sample() -> LaunchPlan {
        let process = ProcessSpec {
            args: vec!["/bin/true".into()],
            env: vec![],
            cwd: "/".into(),
            user: String::new(),
            capabilities: Capabilities::default(),
            no_new_privileges: true,
            terminal: None,
            stdin: true,
            stdio: true,
        };
        let create = CreateContainer {
            container: ContainerId::from_bytes([7; 32]),
            process,
            hostname: "web".into(),
            privileged: false,
            read_only: false,
            tmpfs: vec![],
            seccomp: None,
            limits: Limits::default(),
        };
        LaunchPlan {
            version: PLAN_VERSION,
            name: "web".parse().unwrap(),
            guest: GuestFiles::in_folder(Path::new("/guest"), Tee::EmulatedSnp, None).unwrap(),
            tee: Tee::EmulatedSnp,
            vcpus: 1,
            vcpu_type: "EPYC-v4".into(),
            memory_mib: 256,
            layers: vec![LayerFile { path: "/cache/layer".into(), root: "ab".repeat(32) }],
            scratch: Scratch::Encrypted { bytes: 64 << 20, folder: "/var/tmp".into() },
            ports: vec!["8080:80".parse().unwrap()],
            owner_address: None,
            policy: "package policy\n".into(),
            pieces: vec![],
            host_certificates: None,
            reference_info: None,
            reference_values: None,
            containers: vec![ContainerPlan {
                name: "web".into(),
                image: "docker.io/library/nginx:1".into(),
                layers: vec![0],
                create,
                stop_signal: 15,
            }],
            log: LogLimits::default(),
            record: false,
            start_timeout_s: 120,
            answer_timeout_s: 20,
        }
    }

    #[test]
    fn a_plan_survives_being_written_down() {
        let plan = sample();
        plan.validate().unwrap();
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<LaunchPlan>(&text).unwrap(), plan);
    }

    #[test]
    fn plans_that_make_no_sense_are_refused() {
        type Fault = fn(&mut LaunchPlan);
        let faults: [(&str, Fault); 15] = [
            ("model \"max,x=y\"", |plan| plan.vcpu_type = "max,x=y".into()),
            ("processors is 0", |plan| plan.vcpus = 0),
            ("memory in MiB is 64", |plan| plan.memory_mib = 64),
            ("number of layers is 0", |plan| plan.layers.clear()),
            ("uses layer 1", |plan| plan.containers[0].layers.push(1)),
            ("not 64 lower-case", |plan| plan.layers[0].root = "AB".repeat(32)),
            ("multiple of 4096", |plan| plan.scratch = Scratch::Encrypted { bytes: 1 << 20, folder: "/".into() }),
            ("from 20 MiB", |plan| plan.scratch = Scratch::Encrypted { bytes: 16 << 20, folder: "/".into() }),
            ("scratch space in memory", |plan| plan.scratch = Scratch::Memory { bytes: 257 << 20 }),
            ("give no other", |plan| plan.guest.firmware = FirmwareFiles::Ovmf { path: "/ovmf".into() }),
            ("give its path", |plan| plan.tee = Tee::Snp),
            ("called \"web\"", |plan| plan.containers.push(plan.containers[0].clone())),
            ("number of containers is 0", |plan| plan.containers.clear()),
            ("stop signal is 65", |plan| plan.containers[0].stop_signal = 65),
            ("version 9", |plan| plan.version = 9),
        ];
        for (words, fault) in faults {
            let mut plan = sample();
            fault(&mut plan);
            let error = plan.validate().unwrap_err().to_string();
            assert!(error.contains(words), "{error:?} does not contain {words:?}");
        }
    }
}
