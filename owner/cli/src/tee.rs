//! Choosing the trusted execution environment.

use std::{fs, path::Path, path::PathBuf};

use anyhow::{Result, bail};
use caveau_launch::Tee;

use crate::args::{TeeChoice, Vm};

/// The AmdSev build of OVMF that a guest folder may hold.
const GUEST_OVMF: &str = "OVMF.amdsev.fd";

/// The TEE and, for `snp`, its firmware.
///
/// # Errors
/// Where what was asked for cannot be: `snp` without a firmware, a firmware without `snp`.
pub(crate) fn choose(vm: &Vm) -> Result<(Tee, Option<PathBuf>)> {
    let firmware = vm.firmware.clone().or(guest_ovmf(&vm.guest.path()?));
    match (vm.tee, firmware) {
        (TeeChoice::Snp, Some(firmware)) => Ok((Tee::Snp, Some(firmware))),
        (TeeChoice::Snp, None) => {
            bail!(
                "--tee snp needs a firmware that checks the kernel: give the AmdSev build of OVMF with --firmware FILE"
            )
        }
        (TeeChoice::Auto, Some(firmware)) if host_has_snp() => Ok((Tee::Snp, Some(firmware))),
        (TeeChoice::Auto, None) if host_has_snp() => {
            bail!(
                "this machine has SEV-SNP, but no firmware for it was given: add --firmware FILE (the AmdSev build of OVMF), \
                 or ask for the emulated TEE with --tee emulated-snp"
            )
        }
        (TeeChoice::EmulatedSnp | TeeChoice::Auto, _) if vm.firmware.is_some() => {
            bail!("--firmware is for --tee snp; the emulated TEE boots the guest's own")
        }
        (TeeChoice::EmulatedSnp | TeeChoice::Auto, _) => Ok((Tee::EmulatedSnp, None)),
    }
}

/// The firmware for `snp` in a guest's folder, where it has one.
pub(crate) fn guest_ovmf(folder: &Path) -> Option<PathBuf> {
    Some(folder.join(GUEST_OVMF)).filter(|path| path.exists())
}

/// Whether this host can launch SEV-SNP guests: KVM says so and the device is there.
fn host_has_snp() -> bool {
    let enabled = fs::read_to_string("/sys/module/kvm_amd/parameters/sev_snp").unwrap_or_default();
    matches!(enabled.trim(), "Y" | "1") && Path::new("/dev/sev").exists()
}
