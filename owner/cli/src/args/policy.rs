//! `caveau policy` on the command line.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::{ContainerOptions, Source, examples};

/// `caveau policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Write the policy that `caveau run` would use with the same options.
    #[command(after_help = examples::POLICY_GENERATE)]
    Generate {
        #[command(flatten)]
        source: Box<Source>,
        #[command(flatten)]
        options: Box<ContainerOptions>,
    },
    /// Print a policy's digest, which the TEE carries as HOST_DATA.
    #[command(after_help = examples::POLICY_DIGEST)]
    Digest {
        /// Policy file; `-` is standard input.
        file: PathBuf,
    },
    /// Look for what a policy leaves to the host, and for what its author did not mean.
    #[command(after_help = examples::POLICY_CHECK)]
    Check {
        /// Policy: Rego, base64 of it, or an ARM template; `-` is standard input.
        #[arg(required_unless_present = "list")]
        file: Option<PathBuf>,
        /// Least severity of a finding that is refused.
        #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = SeverityChoice::Error)]
        deny: SeverityChoice,
        /// Leave out what this lint finds. Repeatable.
        #[arg(long, value_name = "LINT")]
        allow: Vec<String>,
        /// List every lint, with its severity and what it means, and do nothing else.
        #[arg(long, conflicts_with_all = ["file", "deny", "allow"])]
        list: bool,
    },
    /// Say in words what a policy allows.
    #[command(after_help = examples::POLICY_EXPLAIN)]
    Explain {
        /// Policy: Rego, base64 of it, or an ARM template; `-` is standard input.
        file: PathBuf,
    },
    /// Say how two policies differ in what they allow.
    #[command(after_help = examples::POLICY_DIFF)]
    Diff {
        /// Policy: Rego, base64 of it, or an ARM template; `-` is standard input.
        a: PathBuf,
        /// The same of the other one.
        b: PathBuf,
    },
    /// Write a policy in another form.
    #[command(after_help = examples::POLICY_CONVERT)]
    Convert {
        /// Policy: Rego, base64 of it, or an ARM template with one group; `-` is standard input.
        file: PathBuf,
        /// The form.
        #[arg(long, value_enum)]
        to: ConvertTo,
    },
    /// Ask recorded requests of a policy and say what would have to change, or ask what another engine decided again.
    #[command(after_help = examples::POLICY_REPLAY)]
    Replay {
        /// Policy: Rego, base64 of it, or an ARM template with one group.
        #[arg(required_unless_present = "corpus")]
        file: Option<PathBuf>,
        /// Requests, as `run --record` keeps them; `-` is standard input.
        #[arg(required_unless_present = "corpus")]
        requests: Option<PathBuf>,
        /// Recorded decisions of the reference engine, with their policies: JSON Lines, with gzip or without. Each query of a
        /// `data.policy.<enforcement point>` becomes one JSON line.
        #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["file", "requests", "amend"])]
        corpus: Vec<PathBuf>,
        /// Write the policy here with the smallest changes made, as many as it takes to allow the requests. Look at them first:
        /// what was denied may have been somebody's lie.
        #[arg(long, value_name = "FILE")]
        amend: Option<PathBuf>,
        /// Change the policy only for the request of this number. Repeatable.
        #[arg(long, value_name = "N", requires = "amend")]
        only: Vec<u64>,
    },
}

/// A severity, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum SeverityChoice {
    /// Good to know.
    Note,
    /// Leaves the host something small.
    Low,
    /// Leaves the host something that can matter.
    Medium,
    /// Lets the host read or change what the policy is there to protect.
    High,
    /// The policy cannot be enforced as it is written.
    Error,
    /// Refuse nothing.
    Never,
}

/// A form of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConvertTo {
    /// As `ccePolicy` of an ARM template holds it.
    Base64,
    /// SHA-256 of the text: HOST_DATA.
    Digest,
    /// Laid out, keys sorted. It decides the same and has another digest.
    Pretty,
    /// The text, byte for byte.
    Raw,
}
