//! The launcher's side of a launch.
//!
//! Make a [`control_pair`], start the processor with one end inherited (see [`crate::serve`]), then [`launch`] over the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::channel;
use crate::message::{Answer, Firmware, LaunchSettings, Launched, MAX_OPTION_ROMS, Refusal, Request, VERSION};

/// What is launched, as sealed memory files; and the processor's end of the guest link, a stream socket.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// What runs before the kernel.
    pub firmware: FirmwareParts<'a>,
    /// The kernel.
    pub kernel: BorrowedFd<'a>,
    /// The initial RAM disk.
    pub initrd: Option<BorrowedFd<'a>>,
    /// The processor's end of the guest link; keep no copy of it, so that the guest's side sees when the processor ends.
    pub link: BorrowedFd<'a>,
}

/// What runs before the kernel.
#[derive(Clone, Debug)]
pub enum FirmwareParts<'a> {
    /// A BIOS and option ROMs: name, for messages, and file, in the order of measurement.
    Direct {
        /// The BIOS image.
        bios: BorrowedFd<'a>,
        /// The option ROMs.
        option_roms: Vec<(&'a str, BorrowedFd<'a>)>,
    },
    /// An OVMF image.
    Ovmf(BorrowedFd<'a>),
}

/// Why there is no launched guest.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The answer is not one.
    #[error("the software secure processor's answer is malformed")]
    Answer(#[source] serde_json::Error),
    /// The process ended, or closed the socket.
    #[error("the software secure processor ended without an answer")]
    Ended,
    /// The processor refuses.
    #[error("the software secure processor refuses the launch: {0}")]
    Refused(Refusal),
    /// No answer in time.
    #[error("the software secure processor did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The socket.
    #[error("failed to ask the software secure processor")]
    Socket(#[source] io::Error),
}

/// The two ends of a control socket, both closed in programs that are started unless they are made inheritable.
///
/// # Errors
/// What the kernel says.
pub fn control_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Asks the processor at the other end of `control` to measure and launch a guest. The first launch of an installation
/// makes its root, which takes seconds: give `patience` a minute or more.
///
/// # Errors
/// [`LaunchError`].
pub fn launch(
    control: BorrowedFd<'_>,
    settings: &LaunchSettings,
    parts: &Parts<'_>,
    patience: Duration,
) -> Result<Launched, LaunchError> {
    let (firmware, mut descriptors) = match &parts.firmware {
        FirmwareParts::Direct { bios, option_roms } => {
            let names = option_roms.iter().map(|(name, _)| (*name).to_owned()).collect();
            let files = [*bios].into_iter().chain(option_roms.iter().map(|(_, file)| *file));
            (Firmware::Direct { option_roms: names }, files.collect::<Vec<_>>())
        }
        FirmwareParts::Ovmf(image) => (Firmware::Ovmf, vec![*image]),
    };
    descriptors.push(parts.kernel);
    descriptors.extend(parts.initrd);
    descriptors.push(parts.link);
    let request =
        Request { version: VERSION, settings: settings.clone(), firmware, has_initrd: parts.initrd.is_some() };
    exchange(control, &request, &descriptors, patience)
}

fn exchange(
    control: BorrowedFd<'_>,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
    patience: Duration,
) -> Result<Launched, LaunchError> {
    let request = serde_json::to_vec(request).map_err(|error| LaunchError::Socket(error.into()))?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => LaunchError::Silent(patience),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => LaunchError::Ended,
        _ => LaunchError::Socket(error),
    };
    for direction in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(control.as_fd(), direction, Some(patience)).map_err(|error| failed(error.into()))?;
    }
    channel::send(control, &request, descriptors).map_err(failed)?;
    let (answer, _) = channel::receive(control).map_err(failed)?.ok_or(LaunchError::Ended)?;
    match serde_json::from_slice(&answer).map_err(LaunchError::Answer)? {
        Answer::Launched(launched) => Ok(launched),
        Answer::Refused(refusal) => Err(LaunchError::Refused(refusal)),
    }
}

const _: () = assert!(MAX_OPTION_ROMS + 4 <= channel::MAX_DESCRIPTORS, "every launch fits a packet");

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> LaunchSettings {
        LaunchSettings::new("console=ttyS0", 1, "EPYC-v4", [1; 32])
    }

    fn ask(control: &OwnedFd, patience: Duration) -> LaunchError {
        let file = tempfile::tempfile().unwrap();
        let parts = Parts {
            firmware: FirmwareParts::Ovmf(file.as_fd()),
            kernel: file.as_fd(),
            initrd: None,
            link: file.as_fd(),
        };
        launch(control.as_fd(), &settings(), &parts, patience).unwrap_err()
    }

    #[test]
    fn a_processor_that_ends_or_is_silent_is_told_apart() {
        let (ours, theirs) = control_pair().unwrap();
        assert!(matches!(ask(&ours, Duration::from_millis(20)), LaunchError::Silent(_)));
        drop(theirs);
        assert!(matches!(ask(&ours, Duration::from_secs(60)), LaunchError::Ended));
    }

    #[test]
    fn nonsense_is_no_answer() {
        let (ours, theirs) = control_pair().unwrap();
        channel::send(&theirs, b"{\"launched\":{}}", &[]).unwrap();
        assert!(matches!(ask(&ours, Duration::from_secs(60)), LaunchError::Answer(_)));
    }
}
