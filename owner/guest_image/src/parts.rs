//! The parts of a guest: made of what there is, and measured.

use std::collections::BTreeMap;
use std::path::Path;

use caveau_measure::{Firmware, GuestFeatures, KernelHashes, Launch, VcpuType, Vmm};

use crate::agent_record::read_record;
use crate::elf::Elf;
use crate::error::IoContext as _;
use crate::kernel::Kernel;
use crate::module::module_error;
use crate::modules::{Module, select};
use crate::{
    AGENT_CONTENTS_FILE, AgentRecord, ExpectedDigest, GuestImageError, KERNEL_ELF, KERNEL_IMAGE, KernelInfo,
    ModuleInfo, Result, Sha256, Tee, TeeInfo, initrd,
};

/// Name of the part with the initial RAM disk.
pub(crate) const INITRD: &str = "initrd.img";

/// What the parts of a guest can be made of; a part whose inputs are not there is not made.
#[derive(Default)]
pub(crate) struct Sources<'a> {
    pub(crate) kernel: Option<&'a Path>,
    pub(crate) agent: Option<&'a Path>,
    pub(crate) agent_record: Option<&'a Path>,
    pub(crate) firmware: BTreeMap<&'a str, &'a Path>,
}

/// The parts of a guest, by name, and what they were made of.
pub(crate) struct Made {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) kernel: Option<(KernelInfo, Vec<ModuleInfo>)>,
    pub(crate) agent: Option<(Vec<u8>, Option<AgentRecord>)>,
}

impl Made {
    /// Makes what can be made.
    pub(crate) fn of(sources: &Sources<'_>) -> Result<Self> {
        let mut files = BTreeMap::new();
        // First, so that none can stand in for another part.
        for (name, path) in &sources.firmware {
            files.insert((*name).to_owned(), std::fs::read(path).context("read", path)?);
        }
        let agent = sources.agent.map(read_agent).transpose()?;
        let opened = match sources.kernel {
            Some(folder) => {
                let kernel = Kernel::open(folder)?;
                let modules = select(&kernel.modules, &kernel.release)?;
                Some((kernel, modules))
            }
            None => None,
        };
        if let (Some(agent), Some((_, modules))) = (&agent, &opened) {
            let initrd = initrd::archive(agent, modules).map_err(|error| module_error(INITRD, error.to_string()))?;
            files.insert(INITRD.to_owned(), initrd);
        }
        let kernel = opened.map(|(kernel, modules)| {
            files.insert(KERNEL_IMAGE.to_owned(), kernel.bz_image);
            files.insert(KERNEL_ELF.to_owned(), kernel.elf);
            let info = KernelInfo { release: kernel.release, banner: kernel.banner, package: kernel.package };
            (info, modules.iter().map(module_info).collect())
        });
        let agent = match agent {
            Some(agent) => {
                let record = read_record(sources.agent_record, &agent)?;
                let contents = record.iter().map(|record| record.contents.to_json().into_bytes());
                files.extend(contents.map(|text| (AGENT_CONTENTS_FILE.to_owned(), text)));
                Some((agent, record))
            }
            None => None,
        };
        files.extend(Tee::ALL.map(|tee| (tee.cmdline_file().to_owned(), tee.cmdline().into())));
        Ok(Self { files, kernel, agent })
    }
}

/// The agent's bytes, if they are a program that the kernel can start in an initrd without libraries.
fn read_agent(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).context("read", path)?;
    let reason = match Elf::parse(&bytes) {
        None => Some("it is not an x86-64 ELF file"),
        Some(elf) if elf.has_interpreter() => Some("it needs a dynamic loader, which the guest has not"),
        Some(_) => None,
    };
    match reason {
        Some(reason) => Err(GuestImageError::Agent { path: path.to_path_buf(), reason }),
        None => Ok(bytes),
    }
}

fn module_info(module: &Module) -> ModuleInfo {
    ModuleInfo { name: module.name.clone(), sha256: Sha256::of(&module.bytes), tee: module.tee }
}

/// The launch digests of a TEE that starts as `info` says, from `files`; none where it has no firmware.
///
/// # Errors
/// [`GuestImageError::Measure`] where the firmware cannot be measured.
pub(crate) fn launch_digests(
    tee: Tee,
    info: &TeeInfo,
    files: &BTreeMap<String, Vec<u8>>,
    machines: impl Iterator<Item = (VcpuType, u32)>,
) -> Result<Vec<ExpectedDigest>> {
    let file = |name: &String| files.get(name).map(Vec::as_slice).unwrap_or_default();
    let named: Vec<_> = info.firmware.iter().map(|name| (name.as_str(), file(name))).collect();
    let firmware = match (tee, named.as_slice()) {
        (_, []) => return Ok(Vec::new()),
        (Tee::EmulatedSnp, [(_, bios), option_roms @ ..]) => Firmware::Direct { bios, option_roms },
        (Tee::Snp, [(_, ovmf), ..]) => Firmware::Ovmf(ovmf),
    };
    let cmdline = String::from_utf8_lossy(file(&info.cmdline));
    let hashes = KernelHashes::from_bytes(file(&info.kernel), Some(file(&info.initrd)), &cmdline);
    let refuse = |source| GuestImageError::Measure { tee, source };
    let launch = Launch::before_vcpus(firmware, Some(hashes), Vmm::Qemu).map_err(refuse)?;
    let digests = machines.map(|(vcpu_type, vcpus)| {
        let digest = launch.digest(vcpus, vcpu_type, GuestFeatures::SNP).map_err(refuse)?;
        Ok(ExpectedDigest { vcpu_type: vcpu_type.to_string(), vcpus, digest })
    });
    digests.collect()
}
