//! Choosing the trusted execution environment.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use caveau_launch::{SnpHostError, Tee, check_snp_host};

use crate::args::{TeeChoice, Vm};

/// The AmdSev build of OVMF that a guest folder may hold.
const GUEST_OVMF: &str = "OVMF.amdsev.fd";

/// The TEE and, for `snp`, its firmware.
///
/// # Errors
/// Where what was asked for cannot be: `snp` without a firmware or access to its devices, a firmware without `snp`.
pub(crate) fn choose(vm: &Vm) -> Result<(Tee, Option<PathBuf>)> {
    // Absolute, since the group's supervisor works in another folder.
    let given = vm.firmware.as_ref().map(std::path::absolute).transpose().context("--firmware")?;
    let firmware = given.or(guest_ovmf(&vm.guest.path()?));
    match (vm.tee, firmware) {
        (TeeChoice::Snp, Some(firmware)) => Ok((Tee::Snp, Some(firmware))),
        (TeeChoice::Snp, None) => {
            bail!(
                "--tee snp needs a firmware that checks the kernel: give the AmdSev build of OVMF with --firmware FILE"
            )
        }
        (TeeChoice::Auto, Some(firmware)) if host_has_snp()? => Ok((Tee::Snp, Some(firmware))),
        (TeeChoice::Auto, None) if host_has_snp()? => {
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

/// Whether this host can launch SEV-SNP guests.
///
/// # Errors
/// Where it could and does not let this user: going on without protection would not be what was asked for.
fn host_has_snp() -> Result<bool> {
    match check_snp_host() {
        Ok(()) => Ok(true),
        Err(SnpHostError::Off { .. }) => Ok(false),
        Err(error @ SnpHostError::Device { .. }) => Err(error).context(
            "this machine has SEV-SNP, but this user cannot use it: give it /dev/kvm and /dev/sev, \
             or ask for the emulated TEE with --tee emulated-snp",
        ),
    }
}
