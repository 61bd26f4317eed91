//! `caveau` at a terminal: a pseudo terminal of the test's own, whose other side the test plays.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{Caveau, PATIENCE};

/// A `caveau` whose standard streams are a terminal, which is also its controlling terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    master: File,
    /// Kept open, so that its settings can be looked at when the program has ended.
    slave: OwnedFd,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts `caveau` with these arguments at a terminal of `rows` and `columns`.
    ///
    /// # Panics
    /// Where the machine gives no pseudo terminal, or `caveau` does not start.
    #[must_use]
    pub fn start(caveau: &Caveau, arguments: &[&str], rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other side");
        let wanted = caveau.command(arguments);
        // A session of its own, with the terminal in control: that is how it hears of a new size.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(wanted.get_program()).args(wanted.get_args());
        for (variable, value) in wanted.get_envs() {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let (input, output, errors) = (end(), end(), end());
        let mut terminal = Self {
            master: File::from(master),
            child: {
                resize(&slave, rows, columns);
                command.stdin(input).stdout(output).stderr(errors).spawn().expect("setsid starts")
            },
            slave,
            seen: Arc::default(),
        };
        terminal.read();
        terminal
    }

    /// Keeps reading what is printed, on a thread of its own.
    fn read(&mut self) {
        let mut master = self.master.try_clone().expect("a descriptor");
        let seen = Arc::clone(&self.seen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = master.read(&mut buffer)
                && count > 0
            {
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                seen.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
    }

    /// Types.
    ///
    /// # Panics
    /// Where the terminal takes nothing.
    pub fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal takes it");
    }

    /// Changes the size, as dragging a window's corner does.
    ///
    /// # Panics
    /// Where the terminal refuses.
    pub fn resize(&self, rows: u16, columns: u16) {
        resize(&self.slave, rows, columns);
    }

    /// Waits until `text` was printed.
    ///
    /// # Panics
    /// Where it is not, in the end.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        let start = Instant::now();
        while !self.printed().contains(text) {
            assert!(start.elapsed() < PATIENCE, "{text:?} was not printed:\n{}", self.printed());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that was printed so far, and typed as far as it is echoed.
    #[must_use]
    pub fn printed(&self) -> String {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether what is typed is edited by this side's terminal, as it is unless a program has made it raw.
    ///
    /// # Panics
    /// Where the terminal does not say.
    #[must_use]
    pub fn is_cooked(&self) -> bool {
        tcgetattr(&self.slave).expect("settings").local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits for the end and gives the exit code.
    ///
    /// # Panics
    /// Where it does not end.
    #[track_caller]
    pub fn ends(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status.code().expect("it exits");
            }
            assert!(start.elapsed() < PATIENCE, "it does not end:\n{}", self.printed());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Where the test has failed; otherwise it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("a size");
}
