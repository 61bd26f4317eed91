//! Exit codes, in one place.

use std::process::ExitCode;

/// How a command ended, where it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done: 0.
    Done,
    /// Refused by verification, or not able: 1.
    Refused,
    /// A container's own code.
    Container(u8),
}

/// A failure whose exit code is not the usual 2.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CodedError {
    /// What to say.
    pub(crate) message: String,
    /// What to exit with.
    pub(crate) code: u8,
}

/// Wrong usage or failure.
pub(crate) const FAILURE: u8 = 2;

/// Docker's codes for `run` and `exec`: the engine failed, the program cannot be executed, it was not found.
pub(crate) const ENGINE_FAILED: u8 = 125;
/// See [`ENGINE_FAILED`].
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// See [`ENGINE_FAILED`].
pub(crate) const NOT_FOUND: u8 = 127;

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Refused => Self::from(1),
            Outcome::Container(code) => Self::from(code),
        }
    }
}
