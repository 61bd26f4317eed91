//! `caveau policy replay --corpus`.

use std::path::PathBuf;

use clap::Args;

/// Recorded decisions of the reference engine, asked again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PolicyCorpus {
    /// Recorded decisions: JSON Lines, with gzip or without. Each query of a `data.policy.<enforcement point>` becomes one
    /// JSON line.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub(crate) corpus: Vec<PathBuf>,
}

/// Examples and what the output means.
const EXAMPLES: &str = "Examples:
  caveau policy replay --corpus mount.jsonl.gz container.jsonl.gz > decisions.jsonl

Standard output has a line for each decision, in the files' order:
  {\"s\":…,\"n\":…,\"rule\":…,\"allowed\":…,\"env_list\":…,\"caps_list\":…,\"allow_stdio_access\":…,\"metadata\":…}
  s is the session, n the line within it: the line that starts the session is 0, and every line of the session counts.
  A field is null where the rule does not say it. add_module, parameters and allowed_ledgers are there where the rule
  says them, and error where it cannot be evaluated.
Standard error has each decision that differs from the recorded one, what was assumed because the record lacks it,
and last \"N of M decisions agree\", M being the lines that hold a result.
Exit code: 0 where M is not 0 and all agree, 1 where one differs or no line holds a result, 2 where a file cannot be read.";
