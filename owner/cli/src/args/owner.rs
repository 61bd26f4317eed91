//! `caveau owner`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Expected, examples};
use crate::channel::Address;

/// `caveau owner`.
#[derive(Debug, Subcommand)]
pub(crate) enum Owner {
    /// Print by what policies know a key.
    #[command(after_help = examples::OWNER_KEY)]
    Key {
        /// The key, private or public, in PEM.
        file: PathBuf,
    },
    /// Print what the policy refused the host, complete.
    #[command(after_help = examples::OWNER_DENIALS)]
    Denials(Box<Session>),
    /// Print what a container wrote whose streams the host does not get.
    #[command(after_help = examples::OWNER_LOGS)]
    Logs(Box<OwnerLogs>),
    /// Run a program in a container, unseen by the host.
    #[command(after_help = examples::OWNER_EXEC)]
    Exec(Box<OwnerExec>),
    /// Copy files into a container or out of it, unseen by the host.
    #[command(after_help = examples::OWNER_CP)]
    Cp(Box<OwnerCopy>),
}

/// A session with a guest that was found to be what is expected.
#[derive(Debug, Args)]
pub(crate) struct Session {
    /// Where the group's host lets others talk to the guest: its --owner-port.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: Address,
    /// The owner's private key, in PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    #[command(flatten)]
    pub(crate) expected: Expected,
}

/// `caveau owner logs`.
#[derive(Debug, Args)]
pub(crate) struct OwnerLogs {
    /// Go on until the container ends.
    #[arg(long, short)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) session: Session,
}

/// `caveau owner exec`.
#[derive(Debug, Args)]
pub(crate) struct OwnerExec {
    /// Pass standard input on.
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Give the process a terminal.
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Environment variable; may be repeated.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// User and group, names or numbers of the container's.
    #[arg(long, short, value_name = "USER[:GROUP]", default_value = "")]
    pub(crate) user: String,
    /// Working directory.
    #[arg(long, short, value_name = "PATH", default_value = "/")]
    pub(crate) workdir: String,
    #[command(flatten)]
    pub(crate) session: Session,
    /// Program and arguments.
    #[arg(required = true, last = true)]
    pub(crate) command: Vec<String>,
}

/// `caveau owner cp`.
#[derive(Debug, Args)]
pub(crate) struct OwnerCopy {
    #[command(flatten)]
    pub(crate) session: Session,
    /// What to copy: a path here, or :PATH in the container.
    pub(crate) source: String,
    /// Where to: :PATH in the container, or a path here. With a slash at the end, into that folder.
    pub(crate) target: String,
}
