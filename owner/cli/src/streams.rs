//! A process's streams on this terminal: output as it comes, input, signals, the terminal's size.

use std::{
    io::{self, IsTerminal as _, Read as _},
    time::Duration,
};

use anyhow::{Context as _, Result};
use caveau_launch::{AttachEvent, Attachment, Group, Input, Status};
use caveau_protocol::{Stream, TerminalSize};
use indicatif::ProgressBar;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH},
    iterator::Signals,
};

use crate::ui;

/// How a process ended, as far as it is known.
#[derive(Debug)]
pub(crate) enum Ended {
    /// With this code.
    Exit(u8),
    /// There is no code.
    Lost(String),
}

/// Shows a process's output and feeds it until it ends. With a terminal, this one becomes raw meanwhile.
///
/// # Errors
/// Where this process's own streams fail.
pub(crate) fn attach(mut attachment: Attachment, interactive: bool) -> Result<Ended> {
    let raw = if attachment.terminal && interactive { RawTerminal::enter()? } else { None };
    forward_signals(attachment.input(), attachment.terminal)?;
    if interactive {
        let mut input = attachment.input();
        // Ends with the process: a read of a terminal cannot be called back.
        std::thread::Builder::new().name("input".into()).spawn(move || forward_input(&mut input))?;
    }
    let ended = show(&mut attachment);
    drop(raw);
    ended
}

/// Waits for a group whose streams the host does not get.
///
/// # Errors
/// Where its state cannot be read.
pub(crate) fn wait(group: &Group) -> Result<Ended> {
    loop {
        match group.status()?.0 {
            Status::Exited { code: Some(code) } => return Ok(Ended::Exit(code)),
            Status::Exited { code: None } => return Ok(Ended::Lost("it was stopped".into())),
            Status::Failed { reason } | Status::Lost { reason } => return Ok(Ended::Lost(reason)),
            Status::Running | Status::Starting | Status::Stopping | Status::Unresponsive { .. } => {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Copies output until the process ends. A reader of ours that goes away (a closed pipe) ends us, not the process.
fn show(attachment: &mut Attachment) -> Result<Ended> {
    loop {
        match attachment.next_event() {
            AttachEvent::Bytes { stream: Stream::Stdout, bytes } => write(&mut io::stdout().lock(), &bytes)?,
            AttachEvent::Bytes { stream: Stream::Stderr, bytes } => write(&mut io::stderr().lock(), &bytes)?,
            AttachEvent::Exit(exit) => {
                if exit.out_of_memory {
                    ui::note(false, "the kernel killed it for want of memory: give the VM more with --memory");
                }
                return Ok(Ended::Exit(exit.code));
            }
            AttachEvent::Lost { reason } => return Ok(Ended::Lost(reason)),
            AttachEvent::Notice { message } => ui::note(false, &message),
        }
    }
}

fn write(out: &mut impl io::Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).and_then(|()| out.flush()).context("failed to pass output on")
}

/// Hands standard input on until it ends or the process does.
fn forward_input(input: &mut Input) {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match io::stdin().lock().read(&mut buffer) {
            Ok(0) => {
                // The process may have ended before its input: then nobody minds.
                let _ = input.close();
                return;
            }
            Ok(count) => {
                if input.write(&buffer[..count]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                let _ = input.close();
                return;
            }
        }
    }
}

/// The size of this terminal, or what one is taken to have where there is none.
pub(crate) fn terminal_size() -> TerminalSize {
    tcgetwinsize(io::stdout())
        .map_or_else(|_| TerminalSize::default(), |size| TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// Hands signals on, as Docker's proxy does; with a terminal also its size, now and when it changes.
fn forward_signals(mut input: Input, terminal: bool) -> Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH])?;
    let resize = move |input: &mut Input| !terminal || input.resize(terminal_size()).is_ok();
    // It may have changed since the process was asked for.
    resize(&mut input);
    let body = move || {
        for signal in signals.forever() {
            let sent = match signal {
                SIGWINCH => resize(&mut input),
                other => u8::try_from(other).is_ok_and(|signal| input.signal(signal).is_ok()),
            };
            if !sent {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(body)?;
    Ok(())
}

/// This terminal in raw mode; as before when dropped.
pub(crate) struct RawTerminal(Termios);

impl RawTerminal {
    /// Raw mode, where standard input is a terminal.
    pub(crate) fn enter() -> Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing can be done where the terminal has gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// The steps of something that takes a while, on a terminal.
pub(crate) struct StartProgress(Option<ProgressBar>);

impl StartProgress {
    /// A line that shows the step; none where there is no terminal.
    pub(crate) fn new(quiet: bool, message: &'static str) -> Self {
        if quiet || !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        bar.set_message(message);
        Self(Some(bar))
    }

    /// A step is done.
    pub(crate) fn step(&mut self, step: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(step.to_owned());
        }
    }

    /// Leaves no trace.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.0 {
            bar.finish_and_clear();
        }
    }
}
