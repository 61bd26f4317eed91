//! What can go wrong with a container.

use std::{io, path::PathBuf};

/// Why a container or a process could not be made, started or asked something.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The container's cgroup could not be used.
    #[error("failed to use the container's cgroup at {path}")]
    Cgroup {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The device program could not be loaded or attached.
    #[error("failed to confine the container's devices")]
    Devices(#[source] io::Error),
    /// The process had ended when it was needed.
    #[error("the process has ended")]
    Ended,
    /// A file that the container needs could not be made.
    #[error("failed to prepare {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The helper could not be talked to, or did not answer in time.
    #[error("failed to talk to the container helper")]
    Helper(#[source] io::Error),
    /// libcontainer or the kernel refused.
    #[error("failed to set up the process: {reason}")]
    SetUp {
        /// What was said.
        reason: String,
    },
    /// The plan makes no sense.
    #[error("invalid {what} {value:?}: it must be {form}")]
    Invalid {
        /// Which part.
        what: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        form: &'static str,
    },
    /// The program to run is not there (as a shell's 127).
    #[error("program {program:?} was not found in the container")]
    NotFound {
        /// As asked for.
        program: String,
    },
    /// The program to run cannot be executed (as a shell's 126).
    #[error("program {program:?} cannot be executed")]
    NotExecutable {
        /// As asked for.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The process was made, and did not come as far as executing its program. It was killed.
    #[error("program {program:?} was not executed within {seconds} s: the process was held up and killed")]
    Stalled {
        /// As asked for.
        program: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A container is not in the state that the step needs.
    #[error("the container {state}")]
    State {
        /// How it is.
        state: &'static str,
    },
    /// A signal could not be sent.
    #[error("failed to send signal {signal}")]
    Signal {
        /// Its number.
        signal: u8,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl RuntimeError {
    /// For `map_err`: a file that could not be made.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
