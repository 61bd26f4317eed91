//! Assembles a kernel (built from a distribution's sources, or shipped by it), the modules that the guest needs and the agent
//! into the measured guest, with its reference values.
//!
//! Trusts the inputs to be what their owner wants to run: this crate says what they are (versions, SHA-256, launch digests), not
//! whether they are good. Promises that the same inputs give the same bytes, whenever and wherever it is done, and that the output
//! folder is whole or not there. Refuses what could not start or would not be measured: an agent that needs libraries, modules of
//! another kernel, a missing or circular dependency, a kernel without PVH entry.
//!
//! # The guest folder
//! | file | contents |
//! |---|---|
//! | `vmlinuz` | the kernel's packed image, as it was built or as the distribution ships it; `snp` boots it |
//! | `vmlinux` | the ELF file inside it; `emulated-snp` boots it by its PVH entry |
//! | `initrd.img` | `newc` archive: `/init` is the agent, `/modules` the modules, `/modules/order` and `/modules/order.TEE` the order of loading |
//! | `cmdline.TEE` | the kernel's whole command line under that TEE, without a newline |
//! | `bios-256k.bin`, `pvh.bin` | SeaBIOS and the option ROM that enters the kernel, under `emulated-snp` |
//! | `OVMF.amdsev.fd` | where it was given: the firmware of `snp` |
//! | `agent.json` | where the agent's build recorded it: [`AgentContents`]. It is not measured |
//! | `guest.json` | [`Manifest`] |
//!
//! The initrd is not compressed: an emulated processor takes longer to decompress it than to copy it.

mod agent_record;
mod build;
mod debian;
mod decompress;
mod elf;
mod error;
mod folder;
mod initrd;
mod kernel;
mod kernel_build;
mod manifest;
mod module;
mod modules;
mod options;
mod parts;
mod predict;
mod reproduce;
mod sbom;
mod tee;

pub use agent_record::{
    AGENT_CONTENTS_FILE, AGENT_FORMAT, AgentBuild, AgentContents, AgentRecord, CrateInfo, LibraryInfo, Origin,
    RUST_TOOLCHAIN, Role, record_beside, write_record,
};
pub use build::{FirmwareFile, Inputs, MAX_EXPECTED_VCPUS, build};
pub use debian::{PackageFile, is_package};
pub use error::{GuestImageError, Result};
pub use folder::{GuestFolder, MANIFEST_FILE, TeeFiles, read_manifest, reference_info_file};
pub use kernel::{KernelPackage, PACKAGE_FILE};
pub use kernel_build::{KernelBuild, KernelSource, build_kernel};
pub use manifest::{
    Agent, ExpectedDigest, FORMAT, GroupValues, KernelInfo, Manifest, ModuleInfo, NotASha256, Part, Sha256, TeeInfo,
};
pub use options::OPTIONS;
pub use predict::Prediction;
pub use reproduce::{Comparison, Found, Ingredients, Inside, REBUILT_FILE, Rebuilt, Verdict, compare, rebuild};
pub use sbom::sbom;
pub use tee::{Tee, UnknownTee};

/// The kernel image as shipped.
pub(crate) const KERNEL_IMAGE: &str = "vmlinuz";
/// The ELF file inside it.
pub(crate) const KERNEL_ELF: &str = "vmlinux";
/// The firmware of `snp`, where the guest has it.
pub(crate) const OVMF: &str = "OVMF.amdsev.fd";
