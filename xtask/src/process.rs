//! Running programs: what is run is said, and a failure names it.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, IsTerminal as _},
    path::Path,
    process::{Command, Stdio},
    sync::LazyLock,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

/// A command that runs in the workspace's root.
pub(crate) fn command(
    root: &Path,
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root);
    command
}

/// Runs it with its output on ours.
///
/// # Errors
/// Where it cannot be started or does not end with success.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("failed to start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Runs it and hands each line of its standard output to `line` as it comes; returns whether it succeeded.
///
/// # Errors
/// Where it cannot be started or its output cannot be read.
pub(crate) fn run_lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("failed to start {command:?}"))?;
    let output = child.stdout.take().context("the child's output was asked for")?;
    for text in BufReader::new(output).split(b'\n') {
        line(&String::from_utf8_lossy(&text?));
    }
    Ok(child.wait()?.success())
}

/// Runs it and returns its standard output.
///
/// # Errors
/// Where it cannot be started or does not end with success.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("failed to start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// When the first headline was written, which is when the work began.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A headline on standard error, with the minutes and seconds since the first one; bold where that is a terminal.
pub(crate) fn headline(text: &str) {
    let (on, off) = if std::io::stderr().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let seconds = BEGUN.elapsed().as_secs();
    eprintln!("{on}== [{:02}:{:02}] {text}{off}", seconds / 60, seconds % 60);
}

/// What a long step is at: its last line where standard error is a terminal, else only the steps' names.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    lines: u64,
}

impl Progress {
    /// Takes one line of `step`; an empty one begins it.
    pub(crate) fn line(&mut self, step: &str, line: &str) {
        let terminal = std::io::stderr().is_terminal();
        match (line.is_empty(), terminal) {
            (true, _) => {
                self.clear();
                headline(step);
                self.lines = 0;
            }
            (false, true) => {
                self.lines += 1;
                eprint!("\r\x1b[K   {:>5} {:.100}", self.lines, line);
            }
            (false, false) => {}
        }
    }

    /// Takes the last line away.
    fn clear(&self) {
        if self.lines > 0 && std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
