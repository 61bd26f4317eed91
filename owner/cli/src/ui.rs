//! What people see: tables, colours, progress. Colours and progress appear on a terminal only.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Result;
use serde::Serialize;

/// Prints a value as JSON on standard output.
///
/// # Errors
/// Where it cannot be written.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(())
}

/// Prints rows in columns as wide as their widest cell, under a head.
///
/// # Errors
/// Where it cannot be written.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = io::stdout().lock();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| -> io::Result<()> {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", padded.join("  ").trim_end())
    };
    line(&mut head.iter().copied())?;
    for row in rows {
        line(&mut row.iter().map(String::as_str))?;
    }
    Ok(())
}

/// A colour of text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    /// Good.
    Green,
    /// Bad.
    Red,
    /// Look here.
    Yellow,
}

/// The text in that colour where standard output is a terminal and `NO_COLOR` is not set.
pub(crate) fn coloured(text: &str, colour: Colour) -> String {
    if !io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
        Colour::Yellow => 33,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// A word to the person on standard error, apart from results.
pub(crate) fn note(quiet: bool, text: &str) {
    if !quiet {
        eprintln!("caveau: {text}");
    }
}
