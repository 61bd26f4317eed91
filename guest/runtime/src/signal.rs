//! Signals by number.

use std::os::fd::BorrowedFd;

use rustix::process::{Signal, pidfd_send_signal};

use crate::RuntimeError;

/// Sends signal `number`, 1 to 64, to a process.
pub(crate) fn send(process: BorrowedFd<'_>, number: u8) -> Result<(), RuntimeError> {
    if !(1..=64).contains(&number) {
        return Err(crate::plan::invalid("signal", &number.to_string(), "a number from 1 to 64"));
    }
    #[expect(unsafe_code, reason = "rustix names no real-time signals, and systemd images are stopped by one")]
    // SAFETY: the number is a signal's; it is sent to another process, so this one's C library is not concerned.
    let signal = unsafe { Signal::from_raw_unchecked(i32::from(number)) };
    match pidfd_send_signal(process, signal) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::SRCH) => Err(RuntimeError::Ended),
        Err(error) => Err(RuntimeError::Signal { signal: number, source: error.into() }),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd as _, process::Command};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;
    use crate::reaper::tests::{ended, shared};

    #[test]
    fn a_signal_reaches_its_process_and_no_number_is_invented() {
        let (pid, exit) = shared().spawn(Command::new("sleep").arg("60")).unwrap();
        let fd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        assert!(matches!(send(fd.as_fd(), 0), Err(RuntimeError::Invalid { .. })));
        assert!(matches!(send(fd.as_fd(), 65), Err(RuntimeError::Invalid { .. })));
        send(fd.as_fd(), 37).unwrap();
        assert_eq!(ended(&exit).code, 128 + 37);
        assert!(matches!(send(fd.as_fd(), 15), Err(RuntimeError::Ended)));
    }
}
