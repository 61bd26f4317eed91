//! A process's streams: three pipes, a terminal, or nothing.
//!
//! The agent's ends do not block. What a container writes waits in its own pipe (64 KiB, the kernel's) until the host
//! reads it: a container that nobody reads stalls itself and nobody else.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{Gid, Mode, OFlags, Uid},
    pipe::{PipeFlags, pipe_with},
    pty::{OpenptFlags, ioctl_tiocgptpeer},
    termios::Winsize,
};

use crate::user::Ids;

/// What streams a process shall have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StdioKind {
    /// Whether the host gets them at all; without, they lead nowhere.
    pub attached: bool,
    /// Whether standard input can be written to.
    pub input: bool,
    /// A terminal of this size instead of pipes.
    pub terminal: Option<TerminalSize>,
}

/// How much a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

impl From<TerminalSize> for Winsize {
    fn from(size: TerminalSize) -> Self {
        Self { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// The agent's ends.
#[derive(Debug, Default)]
pub struct Stdio {
    input: Mutex<Option<OwnedFd>>,
    output: Option<OwnedFd>,
    error: Option<OwnedFd>,
    terminal: bool,
}

impl Stdio {
    /// The agent's ends, and the process's: standard input, output, error. With a terminal the process makes its own
    /// streams, so its ends lead nowhere at first.
    ///
    /// # Errors
    /// Where the kernel gives no pipes.
    pub fn new(kind: StdioKind, ids: &Ids) -> io::Result<(Self, [OwnedFd; 3])> {
        let terminal = kind.terminal.is_some();
        if !kind.attached || terminal {
            return Ok((Self { terminal, ..Self::default() }, [nowhere()?, nowhere()?, nowhere()?]));
        }
        let (input, input_end) = if kind.input {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&writer, true)?;
            (Some(writer), reader)
        } else {
            (None, nowhere()?)
        };
        let (output, output_end) = output_pipe()?;
        let (error, error_end) = output_pipe()?;
        for end in [&input_end, &output_end, &error_end] {
            own(end, ids)?;
        }
        let ours = Self { input: Mutex::new(input), output: Some(output), error: Some(error), terminal: false };
        Ok((ours, [input_end, output_end, error_end]))
    }

    /// Takes the terminal that the process made, gives it its size, and the process's user the other end.
    pub(crate) fn set_terminal(&mut self, master: OwnedFd, kind: StdioKind, ids: &Ids) -> io::Result<()> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let user_end = ioctl_tiocgptpeer(&master, flags)?;
        rustix::fs::fchown(&user_end, Some(Uid::from_raw(ids.uid)), None)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        if let Some(size) = kind.terminal {
            rustix::termios::tcsetwinsize(&master, size.into())?;
        }
        if kind.attached {
            *self.input_slot() = if kind.input { Some(master.try_clone()?) } else { None };
            self.output = Some(master);
        }
        Ok(())
    }

    /// Standard output, or the terminal; absent where it leads nowhere.
    #[must_use]
    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(|fd| fd.as_fd())
    }

    /// Standard error; absent with a terminal.
    #[must_use]
    pub fn error(&self) -> Option<BorrowedFd<'_>> {
        self.error.as_ref().map(|fd| fd.as_fd())
    }

    /// Whether there is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes what standard input takes now; absent where it is closed.
    ///
    /// # Errors
    /// `WouldBlock` where it is full, `BrokenPipe` where nobody reads it any more.
    pub fn write_input(&self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let slot = self.input_slot();
        slot.as_ref().map(|fd| rustix::io::write(fd, bytes).map_err(Into::into))
    }

    /// A descriptor to wait for room in standard input with.
    ///
    /// # Errors
    /// As dup(2).
    pub fn input_to_poll(&self) -> Option<io::Result<OwnedFd>> {
        self.input_slot().as_ref().map(OwnedFd::try_clone)
    }

    /// Closes standard input. On a terminal that is the end-of-file character.
    pub fn close_input(&self) {
        if let Some(fd) = self.input_slot().take()
            && self.terminal
        {
            // Nobody can be told if the terminal is full: closing is all that is left then.
            let _ = rustix::io::write(&fd, b"\x04");
        }
    }

    /// Sets a terminal's size.
    ///
    /// # Errors
    /// `Unsupported` where there is none.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let Some(output) = self.output.as_ref().filter(|_| self.terminal) else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the process has no terminal"));
        };
        Ok(rustix::termios::tcsetwinsize(output, size.into())?)
    }

    fn input_slot(&self) -> std::sync::MutexGuard<'_, Option<OwnedFd>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pipe whose reading end does not block.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((reader, writer))
}

/// `/dev/null` of the guest; a container's init changes it for its own.
fn nowhere() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// Gives a stream to the process's user: programs open `/dev/stdout` anew, which asks for permission.
fn own(fd: &OwnedFd, ids: &Ids) -> io::Result<()> {
    let null = rustix::fs::stat("/dev/null")?;
    if rustix::fs::fstat(fd)?.st_rdev == null.st_rdev {
        return Ok(());
    }
    Ok(rustix::fs::fchown(fd, Some(Uid::from_raw(ids.uid)), Some(Gid::from_raw(ids.gid)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: TerminalSize = TerminalSize { rows: 3, columns: 7 };

    fn ids() -> Ids {
        Ids { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw(), ..Ids::default() }
    }

    #[test]
    fn pipes_carry_both_ways_and_never_block() {
        let kind = StdioKind { attached: true, input: true, terminal: None };
        let (ours, [input, output, _error]) = Stdio::new(kind, &ids()).unwrap();
        let mut bytes = [0u8; 8];
        assert_eq!(rustix::io::read(ours.output().unwrap(), &mut bytes).unwrap_err(), rustix::io::Errno::AGAIN);
        rustix::io::write(&output, b"out").unwrap();
        assert_eq!(rustix::io::read(ours.output().unwrap(), &mut bytes).unwrap(), 3);
        let full = loop {
            match ours.write_input(&[0; 4096]).unwrap() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        ours.close_input();
        assert!(ours.write_input(b"x").is_none());
        drop(input);
    }

    #[test]
    fn without_stdio_the_streams_lead_nowhere() {
        let kind = StdioKind { attached: false, input: true, terminal: None };
        let (ours, ends) = Stdio::new(kind, &ids()).unwrap();
        assert!(ours.output().is_none() && ours.error().is_none() && ours.write_input(b"x").is_none());
        let null = rustix::fs::stat("/dev/null").unwrap().st_rdev;
        for end in ends {
            assert_eq!(rustix::fs::fstat(&end).unwrap().st_rdev, null);
        }
        assert_eq!(ours.resize(SMALL).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn a_terminal_has_a_size_from_its_start() {
        let kind = StdioKind { attached: true, input: true, terminal: Some(SMALL) };
        let (mut ours, _ends) = Stdio::new(kind, &ids()).unwrap();
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        ours.set_terminal(master, kind, &ids()).unwrap();
        let size = |ours: &Stdio| {
            let size = rustix::termios::tcgetwinsize(ours.output().unwrap()).unwrap();
            TerminalSize { rows: size.ws_row, columns: size.ws_col }
        };
        assert_eq!(size(&ours), SMALL);
        let larger = TerminalSize { rows: 30, columns: 100 };
        ours.resize(larger).unwrap();
        assert_eq!(size(&ours), larger);
    }
}
