//! Starting one VM and ending it.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError, TryLockError},
    time::Duration,
};

use serde_json::json;

use super::{Board, BoundedFile, Disk, Hardware, Process, Qemu, Qmp, QmpError, Tail, compose, descriptor, roms};
use crate::{
    Accelerator, PortForward,
    guest::{Firmware, Guest, OptionRom},
};

/// Bytes of the serial console, of QEMU's messages and of the supervisor's that are kept on disk.
pub(crate) const LOG_BYTES: u64 = 256 * 1024;

/// How long QEMU may take to answer on its control connection.
const QMP_LIMIT: Duration = Duration::from_secs(60);

/// How long QEMU may take to leave when it is asked to.
const QUIT_LIMIT: Duration = Duration::from_secs(3);

/// Everything a VM is started from.
#[derive(Debug)]
pub struct MachineParts<'a> {
    /// Shown in QEMU's messages.
    pub name: &'a str,
    /// Kernel, firmware and command line.
    pub guest: &'a Guest,
    /// Whether the initial RAM disk is given to the kernel; a probe boots without.
    pub with_initrd: bool,
    /// What measures the guest.
    pub tee: TeeParts<'a>,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Disks; a disk's index is its logical unit number. The flag says whether the guest may only read it.
    pub disks: Vec<(OwnedFd, bool)>,
    /// Published ports.
    pub ports: &'a [PortForward],
    /// Folder for logs and, while QEMU starts, option ROMs.
    pub folder: &'a Path,
}

/// What measures the guest.
#[derive(Debug)]
pub enum TeeParts<'a> {
    /// The software secure processor.
    Emulated {
        /// KVM or TCG.
        accelerator: Accelerator,
        /// The QEMU end of the guest's link to it.
        link: Option<OwnedFd>,
    },
    /// AMD SEV-SNP.
    Snp {
        /// Processor model.
        vcpu_type: &'a str,
        /// SHA-256 of the policy, as base64.
        host_data: &'a str,
    },
}

/// Why there is no VM.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// QEMU ended before the guest ran.
    #[error("QEMU ended at once ({status}): {messages}")]
    Ended {
        /// How it ended.
        status: String,
        /// What it said.
        messages: String,
    },
    /// The firmware does not suit the TEE.
    #[error("the firmware does not suit the TEE: emulated-snp takes a BIOS and option ROMs, snp takes OVMF")]
    Firmware,
    /// QEMU's control connection failed.
    #[error("failed to take control of QEMU")]
    Control(#[source] QmpError),
    /// Something on the host's side failed.
    #[error("failed to {act}")]
    Host {
        /// What was tried.
        act: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The guest would execute other bytes than those that are measured.
    #[error(
        "{difference}: the guest would run what was not measured; build the guest for this QEMU with `caveau guest build`"
    )]
    Unmeasured {
        /// What was loaded, or was not.
        difference: String,
    },
}

/// A running VM. Dropped, it is killed.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    qmp: Mutex<Qmp>,
    agent: UnixStream,
    console: Tail,
    messages: Tail,
}

/// Our ends and QEMU's ends of the connections between us.
struct Links {
    qmp: (UnixStream, UnixStream),
    console: (UnixStream, UnixStream),
    agent: (UnixStream, UnixStream),
}

impl Machine {
    /// Starts QEMU and takes control of it. Where the guest would execute what it was not given, it is ended at once; under
    /// `snp` the processor measures what QEMU has loaded instead. Call this from a thread that lives as long as the VM should.
    ///
    /// # Errors
    /// [`MachineError`]; nothing of the VM is left then.
    pub fn boot(qemu: &Qemu, parts: MachineParts<'_>) -> Result<Self, MachineError> {
        let roms = parts.folder.join("roms");
        lay_out_roms(&roms, &parts.guest.firmware).map_err(host("lay out the option ROMs"))?;
        let links = Links::new().map_err(host("make QEMU's connections"))?;
        let booted = Self::start(qemu, &parts, &roms, links);
        fs::remove_dir_all(&roms).map_err(host("clear the option ROMs away"))?;
        booted
    }

    fn start(qemu: &Qemu, parts: &MachineParts<'_>, roms: &Path, links: Links) -> Result<Self, MachineError> {
        let folder = parts.folder;
        let console_file =
            BoundedFile::create(&folder.join("console.log"), LOG_BYTES).map_err(host("make console.log"))?;
        let messages_file = BoundedFile::create(&folder.join("qemu.log"), LOG_BYTES).map_err(host("make qemu.log"))?;
        let (reader, writer) = io::pipe().map_err(host("make a pipe"))?;
        let mut command = Command::new(qemu.path());
        command.args(compose(&board(parts, roms, &links)?)).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(writer));
        let process = Process::start(&mut command, &inherited(parts, &links)).map_err(host("start QEMU"))?;
        // Our copies of QEMU's ends must go, else the end of QEMU would not be the end of the connections.
        drop(command);
        let Links { qmp, console, agent } = links;
        drop((qmp.1, console.1, agent.1));
        let console = Tail::of("console", console.0, console_file).map_err(host("start a thread"))?;
        let messages = Tail::of("qemu-log", reader, messages_file).map_err(host("start a thread"))?;
        let qmp = Qmp::connect(qmp.0, QMP_LIMIT).map_err(|error| why_no_control(error, &process, &messages))?;
        let machine = Self { process, qmp: Mutex::new(qmp), agent: agent.0, console, messages };
        machine.runs_only_what_was_given(parts.guest)?;
        Ok(machine)
    }

    fn runs_only_what_was_given(&self, guest: &Guest) -> Result<(), MachineError> {
        let Firmware::Direct { bios, option_roms } = &guest.firmware else { return Ok(()) };
        let given = roms::Given {
            bios: descriptor(bios.as_raw_fd()),
            kernel: descriptor(guest.kernel.as_raw_fd()),
            option_roms: option_roms.iter().map(|rom| rom.name.as_str()).collect(),
        };
        match self.roms() {
            Ok(listed) => match roms::difference(&listed, &given) {
                Some(difference) => Err(MachineError::Unmeasured { difference }),
                None => Ok(()),
            },
            // It has ended by itself meanwhile: nothing runs.
            Err(QmpError::Closed) if self.wait(QUIT_LIMIT).is_some() => Ok(()),
            Err(error) => Err(MachineError::Control(error)),
        }
    }

    /// The host's end of the agent's port.
    ///
    /// # Errors
    /// Where the descriptor cannot be copied.
    pub fn agent(&self) -> io::Result<UnixStream> {
        self.agent.try_clone()
    }

    /// QEMU's process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How QEMU ended; `None` where it still runs after `limit`.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        self.process.wait(limit)
    }

    /// QEMU's run state.
    ///
    /// # Errors
    /// Where QEMU does not answer.
    pub fn run_state(&self) -> Result<String, QmpError> {
        self.qmp.lock().unwrap_or_else(PoisonError::into_inner).run_state()
    }

    /// The option ROMs and firmware that the guest executes, as QEMU lists them.
    ///
    /// # Errors
    /// Where QEMU does not answer.
    pub fn roms(&self) -> Result<String, QmpError> {
        let mut qmp = self.qmp.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = qmp.execute("human-monitor-command", &json!({"command-line": "info roms"}))?;
        Ok(listed.as_str().unwrap_or_default().to_owned())
    }

    /// The last lines of the guest's console, then of QEMU's messages.
    #[must_use]
    pub fn last_words(&self) -> String {
        let said = |who, text: String| if text.is_empty() { String::new() } else { format!("{who}: {text}") };
        let parts = [said("console", self.console.last_lines(6)), said("QEMU", self.messages.last_lines(4))];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    }

    /// The guest's console: its last lines.
    #[must_use]
    pub fn console_lines(&self, lines: usize) -> String {
        self.console.last_lines(lines)
    }

    /// Ends the VM at once: asks QEMU to leave, kills it where it does not, or where somebody waits for its answer already.
    pub fn power_off(&self) {
        let asked = match self.qmp.try_lock() {
            Ok(mut qmp) => qmp.quit().is_ok(),
            Err(TryLockError::Poisoned(qmp)) => qmp.into_inner().quit().is_ok(),
            Err(TryLockError::WouldBlock) => false,
        };
        // One that cannot be asked may be on its way out: the signal then changes nothing.
        if !asked || self.process.wait(QUIT_LIMIT).is_none() {
            self.process.kill();
        }
        let _ = self.process.wait(QUIT_LIMIT);
    }

    /// Kills QEMU at once.
    pub fn kill(&self) {
        self.process.kill();
    }
}

impl Links {
    fn new() -> io::Result<Self> {
        Ok(Self { qmp: UnixStream::pair()?, console: UnixStream::pair()?, agent: UnixStream::pair()? })
    }
}

/// Names each option ROM's descriptor in a folder where QEMU looks for option ROMs by name.
fn lay_out_roms(folder: &Path, firmware: &Firmware) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir(folder)?,
    }
    let roms: &[OptionRom] = match firmware {
        Firmware::Direct { option_roms, .. } => option_roms,
        Firmware::Ovmf(_) => &[],
    };
    roms.iter().try_for_each(|rom| {
        std::os::unix::fs::symlink(format!("/proc/self/fd/{}", rom.file.as_raw_fd()), folder.join(&rom.name))
    })
}

fn board<'a>(parts: &'a MachineParts<'_>, roms: &'a Path, links: &Links) -> Result<Board<'a>, MachineError> {
    let (hardware, secure_processor) = match (&parts.tee, &parts.guest.firmware) {
        (TeeParts::Emulated { accelerator, link }, Firmware::Direct { bios, .. }) => {
            let hardware = Hardware::Emulated { accelerator: *accelerator, bios: bios.as_raw_fd(), roms };
            (hardware, link.as_ref().map(AsRawFd::as_raw_fd))
        }
        (TeeParts::Snp { vcpu_type, host_data }, Firmware::Ovmf(firmware)) => {
            (Hardware::Snp { firmware: firmware.as_raw_fd(), vcpu_type, host_data }, None)
        }
        _ => return Err(MachineError::Firmware),
    };
    Ok(Board {
        name: parts.name,
        hardware,
        vcpus: parts.vcpus,
        memory_mib: parts.memory_mib,
        kernel: parts.guest.kernel.as_raw_fd(),
        initrd: parts.with_initrd.then(|| parts.guest.initrd.as_raw_fd()),
        cmdline: &parts.guest.cmdline,
        qmp: links.qmp.1.as_raw_fd(),
        console: links.console.1.as_raw_fd(),
        agent: links.agent.1.as_raw_fd(),
        secure_processor,
        disks: parts
            .disks
            .iter()
            .map(|(file, read_only)| Disk { file: file.as_raw_fd(), read_only: *read_only })
            .collect(),
        ports: parts.ports,
    })
}

/// All descriptors that QEMU inherits.
fn inherited<'a>(parts: &'a MachineParts<'_>, links: &'a Links) -> Vec<BorrowedFd<'a>> {
    let mut all = vec![parts.guest.kernel.as_fd(), links.qmp.1.as_fd(), links.console.1.as_fd(), links.agent.1.as_fd()];
    if parts.with_initrd {
        all.push(parts.guest.initrd.as_fd());
    }
    match &parts.guest.firmware {
        Firmware::Direct { bios, option_roms } => {
            all.push(bios.as_fd());
            all.extend(option_roms.iter().map(|rom| rom.file.as_fd()));
        }
        Firmware::Ovmf(firmware) => all.push(firmware.as_fd()),
    }
    if let TeeParts::Emulated { link: Some(link), .. } = &parts.tee {
        all.push(link.as_fd());
    }
    all.extend(parts.disks.iter().map(|(file, _)| file.as_fd()));
    all
}

/// QEMU says on its standard error why it left.
fn why_no_control(error: QmpError, process: &Process, messages: &Tail) -> MachineError {
    match (&error, process.wait(QUIT_LIMIT)) {
        (QmpError::Closed, Some(status)) => {
            // The message may still be on its way through the pipe.
            std::thread::sleep(Duration::from_millis(50));
            MachineError::Ended { status: describe(status), messages: messages.last_lines(6) }
        }
        _ => MachineError::Control(error),
    }
}

/// How a process ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "in an unknown way".into(),
    }
}

fn host(act: &'static str) -> impl FnOnce(io::Error) -> MachineError {
    move |cause| MachineError::Host { act, cause }
}
