//! `caveau measure`: the launch digest, predicted from the parts; and reference values of a whole group.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use caveau_guest_image::{GroupValues, GuestFolder, Manifest, Prediction, Tee, TeeFiles};
use caveau_measure::{Firmware, GuestFeatures, KernelHashes, LaunchSpec, Sha256Digest, Vmm, launch_digest, sha256};
use caveau_policy::{Policy, PolicyDigest};

use crate::{args, commands::policy_tools, exit::Outcome, files, tee, ui};

/// The processors' type where none is given.
const VCPU_TYPE: &str = "EPYC-v4";

/// Runs it.
///
/// # Errors
/// Where a part cannot be read, or the parts cannot be launched together.
pub(crate) fn run(command: &args::Measure, json: bool, quiet: bool) -> Result<Outcome> {
    if let Some(file) = &command.of_group.group {
        return group(command, file, quiet);
    }
    let cpu_type = match command.cpu_type.as_slice() {
        [] => VCPU_TYPE.parse()?,
        [one] => *one,
        more => {
            bail!("--cpu-type was given {} times: one launch digest is of one type; --group lists several", more.len())
        }
    };
    let tee = tee::in_guest(command.tee.into());
    if tee == Tee::EmulatedSnp && command.firmware.is_some() {
        bail!("--firmware is for --tee snp; the emulated TEE boots the guest's own, with its option ROMs");
    }
    let complete = command.kernel.is_some() && command.initrd.is_some() && command.append.is_some();
    let complete = complete && command.firmware.is_some();
    let folder = if complete { None } else { Some(GuestFolder::open(&command.guest.path()?)?.tee(tee)?) };
    let part = |given: &Option<PathBuf>, own: fn(&TeeFiles) -> &Path| match (given, &folder) {
        (Some(path), _) => digest(path),
        (None, Some(files)) => digest(own(files)),
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
        kernel: Some(KernelHashes::new(kernel, Some(initrd), &cmdline)),
        vcpus: command.cpus,
        vcpu_type: cpu_type,
        guest_features: GuestFeatures(features(&command.guest_features)?),
        vmm: Vmm::Qemu,
    })?;
    if json {
        ui::json(&serde_json::json!({
            "tee": tee, "cpus": command.cpus, "cpu_type": cpu_type.to_string(), "launch_digest": digest.to_string(),
        }))?;
    } else {
        ui::line(digest)?;
    }
    Ok(Outcome::Done)
}

/// The reference values of the group whose policy is in that file, in the guest's folder: all that tells its reports from others,
/// with nothing from a host.
fn group(command: &args::Measure, file: &Path, quiet: bool) -> Result<Outcome> {
    let policy = policy_tools::read_one(file)?;
    // Whatever it was found in, what comes out is a policy.
    Policy::parse(&policy.text).with_context(|| format!("{} holds no policy", file.display()))?;
    let digest = PolicyDigest::of(&policy.text);
    let folder = GuestFolder::open(&command.guest.path()?)?;
    let values = folder.predict(&Prediction {
        group: Some(GroupValues { policy_sha256: (*digest.as_bytes()).into() }),
        vcpu_types: command.cpu_type.clone(),
        vcpus: command.of_group.max_cpus,
        ovmf: command.firmware.clone(),
    })?;
    say(&values, quiet);
    match &command.of_group.output {
        Some(output) => files::write(output, values.to_json().as_bytes())?,
        None => ui::print(&values.to_json())?,
    }
    ui::note(quiet, &format!("the policy has the digest {digest}"));
    Ok(Outcome::Done)
}

/// Says how many launch digests there are for each TEE, and how to get those that are missing.
fn say(values: &Manifest, quiet: bool) {
    for (tee, info) in &values.tees {
        let count = info.launch_digests.len();
        let text = match count {
            0 if info.firmware.is_empty() => {
                format!("no launch digest for {tee}: the guest has no firmware for it; give --firmware FILE")
            }
            0 => format!("no launch digest for {tee}: guest.json lists no processors; give --cpu-type and --max-cpus"),
            count => format!("{count} launch digests for {tee}"),
        };
        ui::note(quiet, &text);
    }
}

/// Names and bytes of what runs before the kernel.
fn firmware(command: &args::Measure, tee: Tee, folder: Option<&TeeFiles>) -> Result<Vec<(String, Vec<u8>)>> {
    let paths = match (&command.firmware, folder) {
        (Some(path), _) => vec![path.clone()],
        (None, Some(files)) if !files.firmware.is_empty() => files.firmware.clone(),
        _ => bail!("the guest has no firmware for {tee}: give --firmware FILE (the AmdSev build of OVMF)"),
    };
    let named = |path: &PathBuf| Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), read(path)?));
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

/// SHA-256 of a file, which is never whole in memory.
fn digest(path: &Path) -> Result<Sha256Digest> {
    let digest = File::open(path).and_then(sha256);
    digest.with_context(|| format!("failed to read {}", path.display()))
}

/// A file's bytes.
fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("failed to read {}", path.display()))
}
