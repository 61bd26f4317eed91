//! What this host can do, found out by doing it.

use std::{
    fs,
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use crate::{
    Accelerator, Guest, GuestFiles, KvmVerdict, Machine, MachineParts, Qemu, SNP_VERSION, SealedFile, SnpHostError,
    StateRoot, TeeParts, check_snp_host, memfd,
    secure_processor::{SecureProcessor, SecureProcessorError, Unlaunched},
};

/// Oldest QEMU that emulated-snp was run with.
const EMULATED_VERSION: (u32, u32) = (7, 2);

/// Least free memory for one small group, in MiB: a guest of 256 MiB and QEMU's own.
const LEAST_MEMORY_MIB: u64 = 512;

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was tried.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was found, for a person.
    pub found: String,
    /// How to get what is missing.
    pub remedy: Option<&'static str>,
}

/// How a trial went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It works.
    Good,
    /// It does not, but groups can run without.
    Lacking,
    /// It does not, and no group can run.
    Missing,
}

/// What this host can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// All trials, in the order in which they were made.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether a group can be run with `emulated-snp`.
    #[must_use]
    pub fn can_run(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Missing)
    }

    fn add(&mut self, name: &'static str, result: Result<String, Failed>) {
        self.checks.push(match result {
            Ok(found) => Check { name, verdict: Verdict::Good, found, remedy: None },
            Err((verdict, found, remedy)) => Check { name, verdict, found, remedy: Some(remedy) },
        });
    }
}

/// Tries everything that groups need of this host: about a second, or up to ten more where KVM does not work. What is found
/// of KVM is remembered for the starts of groups. `guest` are the parts for `emulated-snp`, `ovmf` a firmware for `snp`,
/// `scratch` a folder for scratch disks.
#[must_use]
pub fn report(guest: &GuestFiles, ovmf: Option<&Path>, scratch: &Path) -> Report {
    let mut report = Report { checks: Vec::new() };
    let root = StateRoot::open();
    report.add(
        "state folder",
        match &root {
            Ok(root) => Ok(root.path().display().to_string()),
            Err(error) => Err(missing(error, "set XDG_RUNTIME_DIR to a folder of your own with mode 700")),
        },
    );
    report.add(
        "sealed memory files",
        match SealedFile::new("doctor", b"doctor") {
            Ok(_) => Ok("made one".into()),
            Err(error) => Err(missing(&error, "use a Linux of 3.17 or newer, without a filter on memfd_create")),
        },
    );
    report.add(
        "scratch disks",
        match memfd::scratch_file(scratch, 1 << 30) {
            Ok(_) => Ok(format!("made one in {}", scratch.display())),
            Err(error) => Err(missing(&error, "name a folder on ext4, xfs, btrfs or tmpfs that you may write to")),
        },
    );
    report.add("memory", memory());
    let qemu = Qemu::find().map_err(|error| crate::chain(&error));
    report.add(
        "QEMU",
        qemu.as_ref().map_err(Clone::clone).and_then(version).map_err(|found| {
            (
                Verdict::Missing,
                found,
                "install QEMU 9.1 or newer (Debian: `apt-get install qemu-system-x86`; bookworm-backports has 10.0)",
            )
        }),
    );
    let loaded = Guest::load(guest).map_err(|error| crate::chain(&error));
    report.add(
        "guest image",
        match &loaded {
            Ok(guest) => Ok(format!("command line: {}", guest.cmdline)),
            Err(error) => Err((Verdict::Missing, error.clone(), "`caveau guest build`")),
        },
    );
    // Kept until the machine was tried: it answers on the machine's port.
    let processor = loaded.as_ref().ok().map(processor);
    let link = match processor {
        Some(Ok((processor, link))) => {
            let digest = processor.launch_digest();
            report.add("secure processor", Ok(format!("the emulated one measured the guest: launch digest {digest}")));
            Some((processor, link))
        }
        Some(Err(failed)) => {
            report.add("secure processor", Err(failed));
            None
        }
        None => None,
    };
    if let (Ok(root), Ok(qemu), Ok(guest)) = (&root, &qemu, &loaded) {
        let (_processor, link) = link.unzip();
        report.add("machine", machine(qemu, guest, link, scratch));
        report.add(
            "KVM",
            // Not what was found some time ago: since then the user may have got the device, or lost it.
            match KvmVerdict::try_anew(qemu, guest, root.path()) {
                KvmVerdict::Works => Ok("booted the guest's kernel".into()),
                KvmVerdict::Fails { reason } => Err((
                    Verdict::Lacking,
                    reason,
                    "groups run without it, more slowly; give this user /dev/kvm on a host that has it",
                )),
            },
        );
    }
    report.add("snp", snp(qemu.as_ref().ok(), ovmf));
    report
}

fn missing(error: &dyn std::error::Error, remedy: &'static str) -> Failed {
    (Verdict::Missing, crate::chain(error), remedy)
}

fn version(qemu: &Qemu) -> Result<String, String> {
    qemu.require("TEE emulated-snp", EMULATED_VERSION).map_err(|error| crate::chain(&error))?;
    let (major, minor) = qemu.version().map_err(|error| crate::chain(&error))?;
    Ok(format!("{} is {major}.{minor}", qemu.path().display()))
}

/// What a trial that failed gives: how bad it is, what was found, and the way out.
type Failed = (Verdict, String, &'static str);

/// Starts a software secure processor over this installation's state and has it measure the guest, as for a group. Its end of
/// the guest's link is for QEMU.
fn processor(guest: &Guest) -> Result<(SecureProcessor, OwnedFd), Failed> {
    let remedy = "repair its state folder as told, or move it away: a new root is made, and evidence under the old one is \
                  believed only by those who kept its certificate";
    let tried = || -> Result<_, SecureProcessorError> {
        let (unlaunched, link) = Unlaunched::start(PathBuf::from("/dev/stderr"))?;
        Ok((unlaunched.launch((1, "EPYC-v4"), guest, [0; 32])?, link))
    };
    tried().map_err(|error| missing(&error, remedy))
}

/// Starts QEMU as for a group, and ends it: its devices, its disks, its sandbox and its user networking with a published port are
/// there, or it says what is not.
fn machine(qemu: &Qemu, guest: &Guest, link: Option<OwnedFd>, scratch: &Path) -> Result<String, Failed> {
    let remedy = "install a QEMU with seccomp, user networking and virtio devices, as distributions build it";
    let without = if link.is_none() { ", but without a secure processor" } else { "" };
    let tried = || -> Result<String, Box<dyn std::error::Error>> {
        let folder = std::env::temp_dir().join(format!("caveau-doctor-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let booted = boot(qemu, guest, link, (scratch, folder.as_path()));
        fs::remove_dir_all(&folder)?;
        let machine = booted?;
        let state = machine.run_state()?;
        machine.power_off();
        let status = machine.wait(Duration::from_secs(10)).ok_or("QEMU does not end")?;
        let ended = crate::machine::describe(status);
        Ok(format!("QEMU {state} with all devices, disks and a published port{without}, then ended ({ended})"))
    };
    tried().map_err(|error| missing(error.as_ref(), remedy))
}

/// A machine with a layer, a scratch disk and a published port.
fn boot(
    qemu: &Qemu,
    guest: &Guest,
    link: Option<OwnedFd>,
    (scratch, folder): (&Path, &Path),
) -> Result<Machine, Box<dyn std::error::Error>> {
    let layer = folder.join("layer");
    fs::write(&layer, [0; 8192])?;
    let disks = vec![(memfd::open_layer(&layer)?, true), (memfd::scratch_file(scratch, 64 << 20)?, false)];
    // One that is free; should another program take it in between, QEMU says so.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let parts = MachineParts {
        name: "doctor",
        guest,
        with_initrd: true,
        tee: TeeParts::Emulated { accelerator: Accelerator::Tcg, link },
        vcpus: 1,
        memory_mib: 256,
        disks,
        ports: &[format!("{port}:80").parse()?],
        folder,
    };
    Ok(Machine::boot(qemu, parts)?)
}

fn memory() -> Result<String, Failed> {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = available_mib(&text);
    let found = format!("{available} MiB are available");
    if available >= LEAST_MEMORY_MIB {
        return Ok(found);
    }
    Err((Verdict::Missing, found, "free some: a small group takes 512 MiB"))
}

/// `MemAvailable` of /proc/meminfo, in MiB.
fn available_mib(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib / 1024)
}

/// What `snp` needs beyond the rest. It is looked at and not tried: no guest is launched.
fn snp(qemu: Option<&Qemu>, ovmf: Option<&Path>) -> Result<String, Failed> {
    let lacking = |found: String, remedy| Err((Verdict::Lacking, found, remedy));
    match check_snp_host() {
        Ok(()) => {}
        Err(error @ SnpHostError::Off { .. }) => {
            return lacking(crate::chain(&error), "use a host with an AMD EPYC 7003 or newer and SEV-SNP switched on");
        }
        Err(error @ SnpHostError::Device { .. }) => {
            return lacking(crate::chain(&error), "give this user /dev/kvm and /dev/sev");
        }
    }
    let Some(qemu) = qemu else { return lacking("there is no QEMU".into(), "install QEMU 9.1 or newer") };
    if let Err(error) = qemu.require("TEE snp", SNP_VERSION) {
        return lacking(crate::chain(&error), "install QEMU 9.1 or newer");
    }
    let remedy = "give the AmdSev build of OVMF with --firmware FILE, or put it in the guest folder";
    let Some(ovmf) = ovmf else { return lacking("no firmware was given".into(), remedy) };
    let bytes = match fs::read(ovmf) {
        Ok(bytes) => bytes,
        Err(error) => return lacking(format!("{} cannot be read: {error}", ovmf.display()), remedy),
    };
    match crate::firmware::check_enforces_hashes(&bytes) {
        Ok(()) => Ok(format!(
            "only looked at, nothing was launched: the kernel says that it is on, /dev/kvm and /dev/sev open, QEMU is new \
             enough by its version, and the code that checks the kernel's hashes is in {}",
            ovmf.display()
        )),
        Err(error) => lacking(format!("{}: {}", ovmf.display(), crate::chain(&error)), remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tee;

    #[test]
    fn available_memory_is_read_in_mib() {
        assert_eq!(available_mib("MemTotal:  100 kB\nMemAvailable:   2097152 kB\n"), 2048);
        assert_eq!(available_mib("MemTotal: 1 kB\n"), 0);
    }

    #[test]
    fn a_host_without_a_guest_image_is_told_how_to_get_one() {
        let folder = tempfile::tempdir().unwrap();
        let guest = GuestFiles::in_folder(&folder.path().join("none"), Tee::EmulatedSnp, None).unwrap();
        let report = report(&guest, None, folder.path());
        let check = |name: &str| report.checks.iter().find(|check| check.name == name).unwrap();
        assert!(!report.can_run());
        assert_eq!(check("guest image").verdict, Verdict::Missing);
        assert_eq!(check("guest image").remedy, Some("`caveau guest build`"));
        assert_eq!(check("scratch disks").verdict, Verdict::Good);
        assert!(report.checks.iter().all(|check| (check.verdict == Verdict::Good) == check.remedy.is_none()));
    }
}
