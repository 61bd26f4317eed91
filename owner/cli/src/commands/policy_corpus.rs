//! `caveau policy replay --corpus`: decisions that were recorded elsewhere, asked of this engine.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _, Seek as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use caveau_gunzip::GunzipReader;
use caveau_policy::{Corpus, Decision};

use crate::{exit::Outcome, ui};

/// Longest line in bytes.
const MAX_LINE: u64 = 64 << 20;
/// How a gzip stream begins (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// How many recorded decisions there were, and how many of them were made again.
#[derive(Default)]
struct Count {
    all: usize,
    agree: usize,
}

/// Runs it.
///
/// # Errors
/// Where a file cannot be read or is no corpus.
pub(crate) fn run(corpus: &[PathBuf]) -> Result<Outcome> {
    let mut count = Count::default();
    for file in corpus {
        replay(file, &mut count).with_context(|| format!("failed to replay {}", file.display()))?;
    }
    ui::complain(&format!("{} of {} decisions agree", count.agree, count.all));
    Ok(if count.all > 0 && count.agree == count.all { Outcome::Done } else { Outcome::Refused })
}

fn replay(path: &Path, count: &mut Count) -> Result<()> {
    let (mut lines, mut corpus) = (open(path)?, Corpus::new());
    let mut line = String::new();
    loop {
        line.clear();
        let read = lines.by_ref().take(MAX_LINE + 1).read_line(&mut line)?;
        if u64::try_from(read)? > MAX_LINE {
            bail!("a line is longer than {MAX_LINE} bytes");
        }
        if read == 0 {
            return report(&corpus.finish(), count);
        }
        report(&corpus.read(&line)?, count)?;
    }
}

/// The file's lines, unpacked.
fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let mut file = File::open(path)?;
    let mut start = Vec::new();
    file.by_ref().take(2).read_to_end(&mut start)?;
    file.rewind()?;
    if start == GZIP { Ok(Box::new(GunzipReader::new(file, 1)?)) } else { Ok(Box::new(BufReader::new(file))) }
}

/// Decisions on standard output, and on standard error what is to be said of them.
fn report(decided: &[Decision], count: &mut Count) -> Result<()> {
    let mut text = String::new();
    for decision in decided {
        text.push_str(&serde_json::to_string(&decision.to_json())?);
        text.push('\n');
        count.all += usize::from(decision.agreement.is_some());
        count.agree += usize::from(matches!(decision.agreement, Some(Ok(()))));
    }
    ui::print(&text)?;
    for decision in decided {
        let say = |what: &str| {
            let Decision { session, line, test, point, .. } = decision;
            ui::complain(&ui::harmless(&format!("session {session} ({test}), line {line}, {point}: {what}")));
        };
        if let Some(assumed) = &decision.assumed {
            say(&format!("assumed {assumed}"));
        }
        if let Some(Err(difference)) = &decision.agreement {
            say(difference);
        }
    }
    Ok(())
}
