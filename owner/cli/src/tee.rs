//! Choosing the trusted execution environment.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use caveau_launch::{SnpHostError, Tee, check_snp_host};

use crate::args::{MeasuredTee, TeeChoice, Vm};

/// The AmdSev build of OVMF that a guest folder may hold.
const GUEST_OVMF: &str = "OVMF.amdsev.fd";

/// The TEE and, for `snp`, its firmware.
///
/// # Errors
/// Where what was asked for cannot be: `snp` without a firmware or access to its devices, a firmware without `snp`.
pub(crate) fn choose(vm: &Vm) -> Result<(Tee, Option<PathBuf>)> {
    choose_on(check_snp_host, vm)
}

/// As [`choose`], on a host that says of SEV-SNP what `host` gives. It is asked only where the choice depends on it.
fn choose_on(host: impl Fn() -> Result<(), SnpHostError>, vm: &Vm) -> Result<(Tee, Option<PathBuf>)> {
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
        (TeeChoice::Auto, Some(firmware)) if has_snp(host())? => Ok((Tee::Snp, Some(firmware))),
        (TeeChoice::Auto, None) if has_snp(host())? => {
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

/// The TEE of a group, as evidence names it.
pub(crate) fn in_evidence(tee: Tee) -> caveau_evidence::Tee {
    match tee {
        Tee::EmulatedSnp => caveau_evidence::Tee::EmulatedSnp,
        Tee::Snp => caveau_evidence::Tee::Snp,
    }
}

/// The TEE of evidence, as a guest's description names it.
pub(crate) fn in_guest(tee: caveau_evidence::Tee) -> caveau_guest_image::Tee {
    match tee {
        caveau_evidence::Tee::EmulatedSnp => caveau_guest_image::Tee::EmulatedSnp,
        caveau_evidence::Tee::Snp => caveau_guest_image::Tee::Snp,
    }
}

impl From<MeasuredTee> for caveau_evidence::Tee {
    fn from(choice: MeasuredTee) -> Self {
        match choice {
            MeasuredTee::Snp => Self::Snp,
            MeasuredTee::EmulatedSnp => Self::EmulatedSnp,
        }
    }
}

/// The firmware for `snp` in a guest's folder, where it has one.
pub(crate) fn guest_ovmf(folder: &Path) -> Option<PathBuf> {
    Some(folder.join(GUEST_OVMF)).filter(|path| path.exists())
}

/// Whether a host that says this of itself can launch SEV-SNP guests.
///
/// # Errors
/// Where it could and does not let this user: going on without protection would not be what was asked for.
fn has_snp(host: Result<(), SnpHostError>) -> Result<bool> {
    match host {
        Ok(()) => Ok(true),
        Err(SnpHostError::Off { .. }) => Ok(false),
        Err(error @ SnpHostError::Device { .. }) => Err(error).context(
            "this machine has SEV-SNP, but this user cannot use it: give it /dev/kvm and /dev/sev, \
             or ask for the emulated TEE with --tee emulated-snp",
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn on() -> Result<(), SnpHostError> {
        Ok(())
    }

    fn off() -> Result<(), SnpHostError> {
        Err(SnpHostError::Off { path: "/sys/module/kvm_amd/parameters/sev_snp".into(), found: "says N".into() })
    }

    fn denied() -> Result<(), SnpHostError> {
        let cause = std::io::ErrorKind::PermissionDenied.into();
        Err(SnpHostError::Device { path: "/dev/sev".into(), cause })
    }

    fn never() -> Result<(), SnpHostError> {
        panic!("a TEE that was named is not looked for");
    }

    /// What `caveau run` with these options chooses, in words; `FIRMWARE` stands for the firmware of the guest's folder.
    fn chosen(host: impl Fn() -> Result<(), SnpHostError>, own_firmware: bool, options: &[&str]) -> String {
        let guest = tempfile::tempdir().unwrap();
        let own = guest.path().join(GUEST_OVMF);
        if own_firmware {
            std::fs::write(&own, "OVMF").unwrap();
        }
        let folder = guest.path().to_str().unwrap();
        let words = [&["caveau", "run", "--guest", folder][..], options, &["image"]].concat();
        let Command::Run(run) = Cli::try_parse_from(words).unwrap().command else { panic!("another command") };
        match choose_on(host, &run.vm) {
            Ok((tee, None)) => tee.to_string(),
            Ok((tee, Some(path))) => {
                let path = path.display().to_string();
                format!("{tee} with {}", path.replace(own.to_str().unwrap(), "FIRMWARE"))
            }
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn auto_takes_hardware_where_there_is_all_that_it_needs() {
        assert_eq!(chosen(on, true, &[]), "snp with FIRMWARE");
        assert_eq!(chosen(on, true, &["--firmware", "/other.fd"]), "snp with /other.fd");
        assert_eq!(chosen(on, false, &["--tee", "auto", "--firmware", "/given.fd"]), "snp with /given.fd");
        let relative = chosen(on, false, &["--firmware", "given.fd"]);
        assert!(relative.starts_with("snp with /") && relative.ends_with("/given.fd"), "{relative}");
        assert_eq!(chosen(off, false, &[]), "emulated-snp");
        assert_eq!(chosen(off, true, &[]), "emulated-snp");
    }

    #[test]
    fn auto_never_goes_on_without_protection_that_the_machine_has() {
        let without = chosen(on, false, &[]);
        assert!(without.contains("no firmware") && without.contains("--tee emulated-snp"), "{without}");
        for own_firmware in [false, true] {
            let denied = chosen(denied, own_firmware, &[]);
            assert!(denied.contains("/dev/sev") && denied.contains("--tee emulated-snp"), "{denied}");
        }
    }

    #[test]
    fn a_tee_that_is_named_is_that_or_nothing() {
        assert_eq!(chosen(never, true, &["--tee", "snp"]), "snp with FIRMWARE");
        assert!(chosen(never, false, &["--tee", "snp"]).contains("--firmware FILE"));
        assert_eq!(chosen(never, true, &["--tee", "emulated-snp"]), "emulated-snp");
        assert_eq!(chosen(never, false, &["--tee", "emulated-snp"]), "emulated-snp");
        let words = "--firmware is for --tee snp";
        assert!(chosen(never, false, &["--tee", "emulated-snp", "--firmware", "/given.fd"]).contains(words));
        assert!(chosen(off, false, &["--firmware", "/given.fd"]).contains(words));
    }
}
