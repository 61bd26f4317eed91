//! The software secure processor of one group: a child process that measures the launch and answers the guest.

use std::{
    env, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use caveau_softsp::{
    LaunchSettings, StateError,
    client::{FirmwareParts, LaunchError, Parts, control_pair, launch},
};

use crate::{Guest, Process, guest::Firmware, machine::describe};

/// How long a launch may take: the first of an installation makes RSA keys.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running software secure processor. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct SecureProcessor {
    process: Process,
    launch_digest: String,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecureProcessorError {
    #[error("it ended ({status}); its messages are in {log:?}")]
    Ended { status: String, log: PathBuf },
    #[error("failed to {act}")]
    Host {
        act: &'static str,
        #[source]
        cause: io::Error,
    },
    #[error(transparent)]
    Launch(LaunchError),
    #[error("failed to find its state folder")]
    State(#[source] StateError),
}

/// A processor that was started and has launched nothing yet.
pub(crate) struct Unlaunched {
    process: Process,
    control: OwnedFd,
    /// Its end of the guest's link.
    link: UnixStream,
    log: PathBuf,
}

impl Unlaunched {
    /// Starts the process; gives it and the QEMU end of the guest's link. It is the running program with the hidden
    /// subcommand `__softsp`. Call this from the thread that lives as long as it should.
    pub(crate) fn start(log: PathBuf) -> Result<(Self, OwnedFd), SecureProcessorError> {
        let state = caveau_softsp::state_folder().map_err(SecureProcessorError::State)?;
        let program = env::current_exe().map_err(host("find the running program"))?;
        let (control, theirs) = control_pair().map_err(host("make a socket pair"))?;
        let (for_qemu, link) = UnixStream::pair().map_err(host("make a socket pair"))?;
        let mut command = Command::new(program);
        command.arg("__softsp").arg(state).arg(theirs.as_raw_fd().to_string());
        // Its messages go where the supervisor's own go.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).current_dir("/");
        let process = Process::start(&mut command, &[theirs.as_fd()]).map_err(host("start it"))?;
        Ok((Self { process, control, link, log }, for_qemu.into()))
    }

    /// Has it measure `guest`, with that many processors of that type. Until that is done it answers no guest.
    pub(crate) fn launch(
        self,
        (vcpus, vcpu_type): (u32, &str),
        guest: &Guest,
        host_data: [u8; 32],
    ) -> Result<SecureProcessor, SecureProcessorError> {
        let settings = LaunchSettings::new(&guest.cmdline, vcpus, vcpu_type, host_data);
        let launched = launch(self.control.as_fd(), &settings, &parts(guest, &self.link), PATIENCE);
        let launched = launched.map_err(|error| why(error, &self.process, self.log))?;
        Ok(SecureProcessor { process: self.process, launch_digest: launched.launch_digest.to_string() })
    }
}

impl SecureProcessor {
    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The launch digest, hexadecimal.
    pub(crate) fn launch_digest(&self) -> &str {
        &self.launch_digest
    }
}

/// The sealed parts, as they are measured; the process gets its own copies of the descriptors.
fn parts<'a>(guest: &'a Guest, link: &'a UnixStream) -> Parts<'a> {
    let firmware = match &guest.firmware {
        Firmware::Direct { bios, option_roms } => FirmwareParts::Direct {
            bios: bios.as_fd(),
            option_roms: option_roms.iter().map(|rom| (rom.name.as_str(), rom.file.as_fd())).collect(),
        },
        Firmware::Ovmf(image) => FirmwareParts::Ovmf(image.as_fd()),
    };
    Parts { firmware, kernel: guest.kernel.as_fd(), initrd: Some(guest.initrd.as_fd()), link: link.as_fd() }
}

/// Where it ended without an answer, how it ended says more.
fn why(error: LaunchError, process: &Process, log: PathBuf) -> SecureProcessorError {
    match (&error, process.wait(Duration::from_secs(1))) {
        (LaunchError::Ended, Some(status)) => SecureProcessorError::Ended { status: describe(status), log },
        _ => SecureProcessorError::Launch(error),
    }
}

fn host(act: &'static str) -> impl FnOnce(io::Error) -> SecureProcessorError {
    move |cause| SecureProcessorError::Host { act, cause }
}
