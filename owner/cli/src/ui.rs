//! What people see: tables, colours, progress. Colours and progress appear on a terminal only.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Prints text on standard output. A reader that has gone away needs no more of it: that is no failure, and the exit code is
/// what it would have been.
///
/// # Errors
/// Where it cannot be written.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("failed to write the result"),
        _ => Ok(()),
    }
}

/// Prints a line, as [`print`] does.
///
/// # Errors
/// Where it cannot be written.
pub(crate) fn line(line: impl Display) -> Result<()> {
    print(&format!("{line}\n"))
}

/// Prints a value as JSON on standard output.
///
/// # Errors
/// Where it cannot be written.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(value)?)
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
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    print(&text)
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
    coloured_on(io::stdout().is_terminal(), text, colour)
}

fn coloured_on(terminal: bool, text: &str, colour: Colour) -> String {
    if !terminal || std::env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
        Colour::Yellow => 33,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// The text with its control characters written out, but for the ends of lines, and with those that no one sees or that turn
/// text around: what comes from elsewhere must neither steer what it is shown on nor read as something else.
pub(crate) fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() && c != '\n') || is_unseen(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters without a form of their own: of direction (Unicode Standard Annex 9), joiners, separators of lines, fillers, tags.
const fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// A line to the person on standard error, whatever has become of that.
pub(crate) fn complain(text: &str) {
    // Whom could it be told that standard error is gone?
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A word to the person on standard error, apart from results.
pub(crate) fn note(quiet: bool, text: &str) {
    if !quiet {
        complain(&format!("caveau: {}", harmless(text)));
    }
}

/// What the person must know even where they asked for quiet.
pub(crate) fn warning(text: &str) {
    let word = coloured_on(io::stderr().is_terminal(), "WARNING", Colour::Red);
    complain(&format!("caveau: {word}: {}", harmless(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(harmless("a\x1b[2Jb\r\nc\u{9b}d\u{7f}é"), "a\\u{1b}[2Jb\\r\nc\\u{9b}d\\u{7f}é");
    }

    #[test]
    fn what_no_one_sees_is_written_out() {
        assert_eq!(harmless("a\u{202e}b\u{2066}c\u{200b}d\u{feff}"), "a\\u{202e}b\\u{2066}c\\u{200b}d\\u{feff}");
        assert_eq!(harmless("עברית, 中文, naïve"), "עברית, 中文, naïve");
    }
}
