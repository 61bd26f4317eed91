//! `caveau measure`: the launch digest, predicted from the parts.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use caveau_guest_image::{GuestFolder, Tee};
use caveau_measure::{Firmware, GuestFeatures, KernelHashes, LaunchSpec, Vmm, launch_digest};

use crate::{args, exit::Outcome, tee, ui};

/// Runs it.
///
/// # Errors
/// Where a part cannot be read, or the parts cannot be launched together.
pub(crate) fn run(command: &args::Measure, json: bool) -> Result<Outcome> {
    let tee = tee::in_guest(command.tee.into());
    if tee == Tee::EmulatedSnp && command.firmware.is_some() {
        bail!("--firmware is for --tee snp; the emulated TEE boots the guest's own, with its option ROMs");
    }
    let complete = command.kernel.is_some() && command.initrd.is_some() && command.append.is_some();
    let complete = complete && command.firmware.is_some();
    let folder = if complete { None } else { Some(GuestFolder::open(&command.guest.path()?)?.tee(tee)?) };
    let part =
        |given: &Option<std::path::PathBuf>, own: fn(&caveau_guest_image::TeeFiles) -> &Path| match (given, &folder) {
            (Some(path), _) => read(path),
            (None, Some(files)) => read(own(files)),
            (None, None) => bail!("a part is missing"),
        };
    let kernel = part(&command.kernel, |files| &files.kernel)?;
    let initrd = part(&command.initrd, |files| &files.initrd)?;
    let cmdline = match (&command.append, &folder) {
        (Some(text), _) => text.clone(),
        (None, Some(files)) => String::from_utf8(read(&files.cmdline)?).context("the command line is not text")?,
        (None, None) => bail!("a command line is missing: give --append"),
    };
    let firmware = firmware(command, tee, folder.as_ref())?;
    let roms: Vec<(&str, &[u8])> =
        firmware.iter().skip(1).map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let (_, first) = firmware.first().context("no firmware: give --firmware")?;
    let digest = launch_digest(&LaunchSpec {
        firmware: match tee {
            Tee::Snp => Firmware::Ovmf(first),
            Tee::EmulatedSnp => Firmware::Direct { bios: first, option_roms: &roms },
        },
        kernel: Some(KernelHashes::from_bytes(&kernel, Some(&initrd), &cmdline)),
        vcpus: command.cpus,
        vcpu_type: command.cpu_type.parse()?,
        guest_features: GuestFeatures(features(&command.guest_features)?),
        vmm: Vmm::Qemu,
    })?;
    if json {
        let (cpus, cpu_type) = (command.cpus, &command.cpu_type);
        ui::json(&serde_json::json!({
            "tee": tee, "cpus": cpus, "cpu_type": cpu_type, "launch_digest": digest.to_string(),
        }))?;
    } else {
        ui::line(digest)?;
    }
    Ok(Outcome::Done)
}

/// Names and bytes of what runs before the kernel.
fn firmware(
    command: &args::Measure,
    tee: Tee,
    folder: Option<&caveau_guest_image::TeeFiles>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let paths = match (&command.firmware, folder) {
        (Some(path), _) => vec![path.clone()],
        (None, Some(files)) if !files.firmware.is_empty() => files.firmware.clone(),
        _ => bail!("the guest has no firmware for {tee}: give --firmware FILE (the AmdSev build of OVMF)"),
    };
    let named = |path: &std::path::PathBuf| {
        Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), read(path)?))
    };
    paths.iter().map(named).collect()
}

/// Reads a number written as `0x21` or `33`.
fn features(text: &str) -> Result<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.with_context(|| format!("invalid --guest-features {text:?}: write it as 0x1"))
}

/// A file's bytes.
fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("failed to read {}", path.display()))
}
