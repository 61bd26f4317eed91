//! What is wrong with a description of a group.

use crate::NetworkError;

/// A description that does not make a whole group. Each names the thing, the value and what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// A group without containers.
    #[error("the group has no containers, so there is nothing to run")]
    Empty,
    /// A value is not of its form.
    #[error("invalid {what} {value:?}: it must be {form}")]
    Invalid {
        /// The thing.
        what: &'static str,
        /// The value, cut to 80 characters.
        value: String,
        /// What is wanted.
        form: &'static str,
    },
    /// A network is none.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Neither image nor overrides name a program.
    #[error("the image names no program to run (no Entrypoint and no Cmd); give one after the image")]
    NoCommand,
    /// An image without layers.
    #[error("the image has no layers, so there is nothing to run")]
    NoLayers,
    /// More of something than a container may have.
    #[error("too much: {what} is {found}, and at most {most} is accepted")]
    TooMuch {
        /// The thing.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much is accepted.
        most: usize,
    },
}

impl GroupError {
    /// An [`GroupError::Invalid`] that shows at most the first 80 characters of the value.
    pub(crate) fn invalid(what: &'static str, value: &str, form: &'static str) -> Self {
        Self::Invalid { what, value: value.chars().take(80).collect(), form }
    }
}
