//! Launch digests, against `sev-snp-measure`: the reference values of a guest, one digest by one command, and the computation alone.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use caveau_measure::{Firmware, GuestFeatures, KernelHashes, LaunchSpec, Vmm, launch_digest};
use serde_json::Value;

use super::{
    Bed,
    measure::{Pairs, Sample, TURN, repeated, self_timed, timed},
    report::Report,
    verify::fixtures,
};
use crate::{guest, setup};

/// How many times as fast as the anchor the reference values of a guest must be.
const BAR: f64 = 50.0;

/// Bytes of OVMF's AmdSev build. The recorded firmware is small, and what counts in it stands at its end.
const FIRMWARE_BYTES: usize = 4 << 20;
const FIRMWARE: &str = "attestation/measurement/synthetic/fw-a.bin";

/// The processors.
const CPU_TYPE: &str = "EPYC-v4";
const MOST_CPUS: u32 = 64;

/// Any policy: what it says is not part of a launch digest.
const POLICY: &str = "package policy\n\napi_version := \"0.10.0\"\nframework_version := \"0.2.3\"\n";

/// What is launched.
struct Parts {
    guest: PathBuf,
    firmware: PathBuf,
    cmdline: String,
    anchor: PathBuf,
    python: PathBuf,
}

impl Parts {
    fn file(&self, name: &str) -> PathBuf {
        self.guest.join(name)
    }

    /// One digest by our command.
    fn ours(&self, bed: &Bed<'_>, cpus: u32) -> Result<(Sample, String)> {
        let mut command = Command::new(&bed.caveau);
        command.args(["measure", "--tee", "snp", "--cpu-type", CPU_TYPE, "--cpus"]).arg(cpus.to_string());
        command.arg("--firmware").arg(&self.firmware).arg("--kernel").arg(self.file("vmlinuz"));
        command.arg("--initrd").arg(self.file("initrd.img")).arg("--append").arg(&self.cmdline);
        timed(&mut command)
    }

    /// One by the anchor.
    fn anchor(&self, cpus: u32) -> Result<(Sample, String)> {
        let mut command = Command::new(&self.anchor);
        command.args(["--mode", "snp", "--vcpu-type", CPU_TYPE, "--vcpus"]).arg(cpus.to_string());
        command.arg("--ovmf").arg(&self.firmware).arg("--kernel").arg(self.file("vmlinuz"));
        command.arg("--initrd").arg(self.file("initrd.img")).arg("--append").arg(&self.cmdline);
        timed(&mut command)
    }

    /// The computation in the anchor's own process, files read anew each time as it does.
    fn within_anchor(&self, cpus: u32) -> Result<Sample> {
        const PROGRAM: &str = "\
import sys, time
from sevsnpmeasure import guest, vcpu_types
from sevsnpmeasure.sev_mode import SevMode
turn, cpus, kind, ovmf, kernel, initrd, append = sys.argv[1:]
count, start = 0, time.perf_counter()
while count == 0 or time.perf_counter() - start < float(turn):
    guest.calc_launch_digest(SevMode.SEV_SNP, int(cpus), vcpu_types.CPU_SIGS[kind], ovmf, kernel, initrd, append, 1)
    count += 1
print((time.perf_counter() - start) / count)
";
        let mut command = Command::new(&self.python);
        command.args(["-c", PROGRAM]).arg(TURN.as_secs_f64().to_string()).arg(cpus.to_string()).arg(CPU_TYPE);
        command.arg(&self.firmware).arg(self.file("vmlinuz")).arg(self.file("initrd.img")).arg(&self.cmdline);
        self_timed(&mut command)
    }

    /// The computation in this process, files read anew each time.
    fn within_ours(&self, cpus: u32) -> Result<Sample> {
        let vcpu_type = CPU_TYPE.parse()?;
        repeated(|| {
            let firmware = fs::read(&self.firmware)?;
            let (kernel, initrd) = (fs::read(self.file("vmlinuz"))?, fs::read(self.file("initrd.img"))?);
            let spec = LaunchSpec {
                firmware: Firmware::Ovmf(&firmware),
                kernel: Some(KernelHashes::from_bytes(&kernel, Some(&initrd), &self.cmdline)),
                vcpus: cpus,
                vcpu_type,
                guest_features: GuestFeatures::SNP,
                vmm: Vmm::Qemu,
            };
            std::hint::black_box(launch_digest(&spec)?);
            Ok(())
        })
    }

    /// The reference values of the guest for 1 to [`MOST_CPUS`] processors, on each TEE.
    fn reference_values(&self, bed: &Bed<'_>) -> Result<(Sample, Vec<String>)> {
        let (policy, output) = (bed.work.join("policy.rego"), bed.work.join("values.json"));
        fs::write(&policy, POLICY)?;
        let mut command = Command::new(&bed.caveau);
        command.args(["--quiet", "measure", "--cpu-type", CPU_TYPE, "--max-cpus"]).arg(MOST_CPUS.to_string());
        command.arg("--group").arg(&policy).arg("--guest").arg(&self.guest).arg("--firmware").arg(&self.firmware);
        let (sample, _) = timed(command.arg("--output").arg(&output))?;
        let values: Value = serde_json::from_slice(&fs::read(&output)?)?;
        let digests = values["tees"]["snp"]["launch_digests"].as_array().context("no launch digests")?;
        let text = |entry: &Value| entry["digest"].as_str().map(str::to_owned);
        Ok((sample, digests.iter().map(text).collect::<Option<_>>().context("no digest")?))
    }
}

/// The bench.
///
/// # Errors
/// Where a part cannot be made, or the two find different digests.
pub(super) fn bench(bed: &Bed<'_>) -> Result<Report> {
    let mut report = Report::new(
        "launch",
        format!("the reference values of a guest for 1 to {MOST_CPUS} processors"),
        format!("{MOST_CPUS} times sev-snp-measure"),
    );
    let Some(parts) = parts(bed)? else {
        return Ok(report.skipped("no recorded firmware: name the folder of recorded data with CAVEAU_FIXTURES"));
    };
    let (mut ours, mut anchor) = (Vec::new(), Vec::new());
    let pairs = Pairs::take(
        bed.pairs,
        || {
            let (sample, digests) = parts.reference_values(bed)?;
            ours = digests;
            Ok(sample)
        },
        || {
            let runs = (1..=MOST_CPUS).map(|cpus| parts.anchor(cpus)).collect::<Result<Vec<_>>>()?;
            anchor = runs.iter().map(|(_, digest)| digest.trim().to_owned()).collect();
            Ok(Sample::one_after_the_other(&runs.into_iter().map(|(sample, _)| sample).collect::<Vec<_>>()))
        },
    )?;
    ensure!(ours == anchor, "the two find different launch digests: {ours:?} and {anchor:?}");
    report.pairs(pairs);
    report.bar_ratio(BAR);
    report.fact("digests that are equal", format!("{MOST_CPUS} of {MOST_CPUS}"));
    let one = Pairs::take(bed.pairs, || Ok(parts.ours(bed, 1)?.0), || Ok(parts.anchor(1)?.0))?;
    report.compared("one digest, command against command", &one);
    let within = Pairs::take(bed.pairs, || parts.within_ours(1), || parts.within_anchor(1))?;
    report.compared("one digest, function against function, files read anew", &within);
    Ok(report)
}

/// What is launched; nothing where there is no recorded firmware.
fn parts(bed: &Bed<'_>) -> Result<Option<Parts>> {
    let recorded = fixtures(bed.root).join(FIRMWARE);
    if !recorded.is_file() {
        return Ok(None);
    }
    let guest = guest::build_once(bed.root, bed.setup)?;
    let oracles = setup::oracles(bed.root)?;
    let cmdline = fs::read_to_string(guest.join("cmdline.snp"))?;
    let firmware = bed.work.join("firmware.bin");
    fs::write(&firmware, padded(&fs::read(&recorded)?)?)?;
    Ok(Some(Parts { guest, firmware, cmdline, anchor: oracles.snp_measure, python: oracles.python }))
}

/// Firmware as large as OVMF: the same bytes at the end, others before them.
fn padded(firmware: &[u8]) -> Result<Vec<u8>> {
    let Some(room) = FIRMWARE_BYTES.checked_sub(firmware.len()) else {
        bail!("the recorded firmware has {} bytes, more than {FIRMWARE_BYTES}", firmware.len());
    };
    let filling = firmware.iter().map(|byte| byte ^ 0x5a).cycle().take(room);
    Ok(filling.chain(firmware.iter().copied()).collect())
}
