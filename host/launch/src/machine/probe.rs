//! Whether KVM works here: tried with the guest's own kernel, not guessed from the presence of `/dev/kvm`.
//!
//! Some machines offer `/dev/kvm` without being able to execute a stock kernel. The probe boots the kernel without a
//! root file system: where KVM works, that ends within a second or two with the kernel's own complaint and a reset.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Machine, MachineParts, Qemu, TeeParts};
use crate::{Accelerator, guest::Guest};

/// Longest time that a probe may take where the processor has virtualization: a busy host must not be taken for a bad one.
const LIMIT: Duration = Duration::from_secs(10);

/// Longest time where it has none: whatever stands behind `/dev/kvm` there is worth using only if it is quick.
const SHORT_LIMIT: Duration = Duration::from_secs(2);

/// Time between two looks at the probe's VM.
const PAUSE: Duration = Duration::from_millis(20);

/// What the kernel says where it came as far as looking for its root file system.
const ARRIVED: &str = "Unable to mount root fs";

/// The file of what was found.
const MEMORY: &str = ".kvm-probe.json";

/// Most verdicts that are remembered: some guests and QEMUs are used in turns.
const MOST: usize = 16;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case", deny_unknown_fields)]
pub enum KvmVerdict {
    /// It cannot be used.
    Fails {
        /// Why.
        reason: String,
    },
    /// It booted the kernel.
    Works,
}

/// A verdict as it is remembered: for one QEMU, one kernel, and until the host is booted again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    key: String,
    verdict: KvmVerdict,
}

/// Whether KVM can boot `guest`'s kernel here. The answer is remembered in `folder` until QEMU, the kernel or the host's
/// boot is another. Takes at most 10 s (2 s without hardware virtualization), and a moment where it is remembered.
#[must_use]
pub fn probe_kvm(qemu: &Qemu, guest: &Guest, folder: &Path) -> KvmVerdict {
    if let Err(verdict) = open_device() {
        return verdict;
    }
    let key = key(qemu, guest);
    let known = key.and_then(|key| remembered(&folder.join(MEMORY), &key));
    known.unwrap_or_else(|| KvmVerdict::try_anew(qemu, guest, folder))
}

/// A device that cannot be opened is told at once, and never remembered.
fn open_device() -> Result<(), KvmVerdict> {
    let opened = File::options().read(true).write(true).open("/dev/kvm");
    opened.map(drop).map_err(|error| KvmVerdict::Fails { reason: format!("/dev/kvm cannot be opened: {error}") })
}

impl KvmVerdict {
    /// As [`probe_kvm`], by booting the kernel whatever is remembered; what is found is remembered instead.
    #[must_use]
    pub fn try_anew(qemu: &Qemu, guest: &Guest, folder: &Path) -> Self {
        if let Err(verdict) = open_device() {
            return verdict;
        }
        let verdict = tried(qemu, guest, folder);
        if let Some(key) = key(qemu, guest) {
            remember(&folder.join(MEMORY), Remembered { key, verdict: verdict.clone() });
        }
        verdict
    }
}

/// Boots the kernel under KVM, without disks, in a folder of its own that goes away again.
fn tried(qemu: &Qemu, guest: &Guest, folder: &Path) -> KvmVerdict {
    let fails = |reason: String| KvmVerdict::Fails { reason };
    // A folder of this form is cleared by the next listing of groups, should this process be killed.
    let scratch = folder.join(format!(".unfinished-{}-kvm-probe", std::process::id()));
    if let Err(error) = fs::create_dir(&scratch) {
        return fails(format!("{} cannot be made: {error}", scratch.display()));
    }
    let parts = MachineParts {
        name: "kvm-probe",
        guest,
        with_initrd: false,
        tee: TeeParts::Emulated { accelerator: Accelerator::Kvm, link: None },
        vcpus: 1,
        memory_mib: 256,
        disks: Vec::new(),
        ports: &[],
        folder: &scratch,
    };
    let verdict = match Machine::boot(qemu, parts) {
        Ok(machine) => watched(&machine),
        Err(error) => fails(crate::chain(&error)),
    };
    // What stays here is cleared by the next listing of groups.
    let _ = fs::remove_dir_all(&scratch);
    verdict
}

/// Watches the probe's VM until it ends, breaks or has had its time.
fn watched(machine: &Machine) -> KvmVerdict {
    let fails = |reason: &str| KvmVerdict::Fails { reason: reason.to_owned() };
    let start = Instant::now();
    let limit = if has_virtualization() { LIMIT } else { SHORT_LIMIT };
    while start.elapsed() < limit {
        if machine.wait(PAUSE).is_some() {
            // The console's last bytes may still be on their way.
            std::thread::sleep(PAUSE);
            let arrived = machine.console_lines(60).contains(ARRIVED);
            return if arrived { KvmVerdict::Works } else { fails("the kernel reset the machine while it booted") };
        }
        match machine.run_state().as_deref() {
            Ok("running") | Err(_) => {}
            Ok(state) => return KvmVerdict::Fails { reason: format!("QEMU stopped in state {state}") },
        }
    }
    fails(&format!("the kernel did not boot within {} s", limit.as_secs()))
}

/// Whether the processor says that it has hardware virtualization.
fn has_virtualization() -> bool {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| matches!(flag, "svm" | "vmx"))
}

/// QEMU, the guest's parts, and the host's boot.
fn key(qemu: &Qemu, guest: &Guest) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{} {} {}", qemu.fingerprint().ok()?, guest.origin, boot.trim()))
}

fn remembered(memory: &Path, key: &str) -> Option<KvmVerdict> {
    all_remembered(memory).into_iter().find(|known| known.key == key).map(|known| known.verdict)
}

/// Every verdict that is remembered, the newest first; none where the file is not there or is something else.
fn all_remembered(memory: &Path) -> Vec<Remembered> {
    fs::read(memory).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Writes the verdict down before the others. Where that fails, or another process writes one at the same time, the next
/// start may probe again, which costs time and nothing else.
fn remember(memory: &Path, found: Remembered) {
    let others = all_remembered(memory).into_iter().filter(|known| known.key != found.key).collect::<Vec<_>>();
    let all: Vec<_> = [found].into_iter().chain(others).take(MOST).collect();
    let fresh: PathBuf = memory.with_extension(format!("new-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(&all)?)?;
        file.sync_all()?;
        fs::rename(&fresh, memory)
    };
    if write().is_err() {
        let _ = fs::remove_file(&fresh);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_remembered_for_their_keys() {
        let folder = tempfile::tempdir().unwrap();
        let memory = folder.path().join(".kvm-probe.json");
        assert_eq!(remembered(&memory, "a"), None);
        let verdict = KvmVerdict::Fails { reason: "QEMU stopped in state internal-error".into() };
        remember(&memory, Remembered { key: "a".into(), verdict: verdict.clone() });
        assert_eq!(remembered(&memory, "a"), Some(verdict.clone()));
        assert_eq!(remembered(&memory, "b"), None);
        remember(&memory, Remembered { key: "b".into(), verdict: KvmVerdict::Works });
        assert_eq!(remembered(&memory, "b"), Some(KvmVerdict::Works));
        assert_eq!(remembered(&memory, "a"), Some(verdict), "guests that are used in turns are not tried each time");
        for number in 0..MOST {
            remember(&memory, Remembered { key: number.to_string(), verdict: KvmVerdict::Works });
        }
        assert_eq!(remembered(&memory, "a"), None, "the oldest are forgotten");
        assert_eq!(all_remembered(&memory).len(), MOST);
        fs::write(&memory, "garbage").unwrap();
        assert_eq!(remembered(&memory, "b"), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
