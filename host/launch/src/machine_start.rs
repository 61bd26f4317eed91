//! From a plan to a running VM: measured parts, secure processor, disks, QEMU.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

use crate::{
    Accelerator, GroupFolder, Guest, GuestError, KvmVerdict, LaunchPlan, Machine, MachineError, MachineParts, Qemu,
    QemuError, SNP_VERSION, Scratch, StateRoot, Tee, TeeParts, memfd, probe_kvm,
    secure_processor::{SecureProcessor, SecureProcessorError, Unlaunched},
};

/// A running VM and what belongs to it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) machine: Arc<Machine>,
    pub(crate) accelerator: Accelerator,
    pub(crate) launch_digest: Option<String>,
    processor: Option<SecureProcessor>,
}

impl Running {
    /// Process number of the software secure processor, where there is one.
    pub(crate) fn processor_pid(&self) -> Option<u32> {
        self.processor.as_ref().map(SecureProcessor::pid)
    }

    /// Ends the software secure processor: nothing asks it any more.
    pub(crate) fn end_processor(&mut self) {
        self.processor = None;
    }
}

/// Why there is no VM.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineStartError {
    #[error(transparent)]
    Qemu(#[from] QemuError),
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("the firmware {path:?} is refused for snp")]
    Firmware {
        path: PathBuf,
        #[source]
        cause: crate::firmware::FirmwareFault,
    },
    #[error("failed to start the software secure processor")]
    Processor(#[from] SecureProcessorError),
    #[error("failed to open layer {path:?}")]
    Layer {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("failed to make a scratch disk of {bytes} bytes in {folder:?}")]
    Scratch {
        bytes: u64,
        folder: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("the thread that has the launch measured panicked")]
    Panicked,
    #[error("TEE snp cannot be used on this host")]
    SnpHost(#[from] SnpHostError),
}

/// Why a host cannot have SEV-SNP guests.
#[derive(Debug, thiserror::Error)]
pub enum SnpHostError {
    /// The kernel does not offer it.
    #[error("SEV-SNP is off: {path:?} {found}")]
    Off {
        /// The file that would say otherwise.
        path: PathBuf,
        /// What it says, or why it says nothing.
        found: String,
    },
    /// The kernel offers it, and a device that it takes is not there or not for this user.
    #[error("SEV-SNP is on, but {path:?} cannot be opened")]
    Device {
        /// The device.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Starts the VM of `plan`; `note` hears of each step. Call this from the thread that will live as long as the VM.
pub(crate) fn start(
    plan: &LaunchPlan,
    root: &StateRoot,
    folder: &GroupFolder,
    note: &dyn Fn(&str),
) -> Result<Running, MachineStartError> {
    let qemu = Qemu::find()?;
    let guest = Guest::load(&plan.guest)?;
    note("seal the guest's parts");
    let disks = disks(plan)?;
    let host_data = Sha256::digest(plan.policy.as_bytes());
    match plan.tee {
        Tee::EmulatedSnp => {
            let accelerator = match probe_kvm(&qemu, &guest, root.path()) {
                KvmVerdict::Works => Accelerator::Kvm,
                KvmVerdict::Fails { .. } => Accelerator::Tcg,
            };
            note("choose the accelerator");
            let (processor, link) = Unlaunched::start(folder.supervisor_log())?;
            let tee = TeeParts::Emulated { accelerator, link: Some(link) };
            let parts = parts(plan, &guest, tee, disks, folder);
            // At once: what is measured is sealed, and the guest hears nothing of its processor before it has measured.
            // The machine is this thread's child, with which it dies.
            let (processor, machine) = thread::scope(|scope| {
                let processor =
                    scope.spawn(|| processor.launch((plan.vcpus, plan.vcpu_type.as_str()), &guest, host_data.into()));
                let machine = Machine::boot(&qemu, parts);
                (processor.join(), machine)
            });
            let processor = processor.map_err(|_| MachineStartError::Panicked)??;
            let machine = Arc::new(machine?);
            note("measure the launch and start QEMU");
            let launch_digest = Some(processor.launch_digest().to_owned());
            Ok(Running { machine, accelerator, launch_digest, processor: Some(processor) })
        }
        Tee::Snp => {
            qemu.require("TEE snp", SNP_VERSION)?;
            check_snp_host()?;
            check_firmware(plan, &guest)?;
            let host_data = BASE64_STANDARD.encode(host_data);
            let tee = TeeParts::Snp { vcpu_type: &plan.vcpu_type, host_data: &host_data };
            let machine = Arc::new(Machine::boot(&qemu, parts(plan, &guest, tee, disks, folder))?);
            note("start QEMU");
            Ok(Running { machine, accelerator: Accelerator::Kvm, launch_digest: None, processor: None })
        }
    }
}

fn parts<'a>(
    plan: &'a LaunchPlan,
    guest: &'a Guest,
    tee: TeeParts<'a>,
    disks: Vec<(std::os::fd::OwnedFd, bool)>,
    folder: &'a GroupFolder,
) -> MachineParts<'a> {
    MachineParts {
        name: plan.name.as_str(),
        guest,
        with_initrd: true,
        tee,
        vcpus: plan.vcpus,
        memory_mib: plan.memory_mib,
        disks,
        ports: &plan.ports,
        folder: folder.path(),
    }
}

/// Opens the layers, read-only, and makes the scratch disk behind them.
fn disks(plan: &LaunchPlan) -> Result<Vec<(std::os::fd::OwnedFd, bool)>, MachineStartError> {
    let mut disks = Vec::with_capacity(plan.layers.len() + 1);
    for layer in &plan.layers {
        let file = memfd::open_layer(&layer.path)
            .map_err(|cause| MachineStartError::Layer { path: layer.path.clone(), cause })?;
        disks.push((file, true));
    }
    if let Scratch::Encrypted { bytes, folder } = &plan.scratch {
        let file = memfd::scratch_file(folder, *bytes).map_err(|cause| MachineStartError::Scratch {
            bytes: *bytes,
            folder: folder.clone(),
            cause,
        })?;
        disks.push((file, false));
    }
    Ok(disks)
}

/// Whether this machine can have SEV-SNP guests, and this user start them: the kernel has it on, and both devices that QEMU
/// takes can be opened.
///
/// # Errors
/// [`SnpHostError`].
pub fn check_snp_host() -> Result<(), SnpHostError> {
    check_snp_host_below(Path::new("/"))
}

/// The same for the host whose file system is below `root`.
fn check_snp_host_below(root: &Path) -> Result<(), SnpHostError> {
    let path = root.join("sys/module/kvm_amd/parameters/sev_snp");
    let found = match std::fs::read_to_string(&path) {
        Ok(text) if matches!(text.trim(), "Y" | "1") => None,
        Ok(text) => Some(format!("says {:?}", text.trim())),
        Err(error) => Some(format!("cannot be read: {error}")),
    };
    if let Some(found) = found {
        return Err(SnpHostError::Off { path, found });
    }
    for device in ["dev/kvm", "dev/sev"] {
        let path = root.join(device);
        if let Err(cause) = std::fs::File::options().read(true).write(true).open(&path) {
            return Err(SnpHostError::Device { path, cause });
        }
    }
    Ok(())
}

/// Refuses a firmware that would boot a kernel unchecked.
fn check_firmware(plan: &LaunchPlan, guest: &Guest) -> Result<(), MachineStartError> {
    let crate::FirmwareFiles::Ovmf { path } = &plan.guest.firmware else { return Ok(()) };
    let crate::Firmware::Ovmf(image) = &guest.firmware else { return Ok(()) };
    let refused = |cause| MachineStartError::Firmware { path: path.clone(), cause };
    let bytes = image.read().map_err(|error| refused(crate::firmware::FirmwareFault::Unreadable(error)))?;
    crate::firmware::check_enforces_hashes(&bytes).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_snp_where_it_is_on_and_both_devices_open() {
        let host = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = host.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let missing = |name: &str| match check_snp_host_below(host.path()) {
            Err(SnpHostError::Device { path, .. }) => assert!(path.ends_with(name), "{path:?}"),
            other => unreachable!("{name} is missing: {other:?}"),
        };
        let off = || assert!(matches!(check_snp_host_below(host.path()), Err(SnpHostError::Off { .. })));
        off();
        write("dev/kvm", "");
        write("dev/sev", "");
        write("sys/module/kvm_amd/parameters/sev_snp", "N\n");
        off();
        write("sys/module/kvm_amd/parameters/sev_snp", "Y\n");
        check_snp_host_below(host.path()).unwrap();
        std::fs::remove_file(host.path().join("dev/sev")).unwrap();
        missing("dev/sev");
        std::fs::remove_file(host.path().join("dev/kvm")).unwrap();
        missing("dev/kvm");
    }
}
