//! What can go wrong with a policy that is looked at.

use caveau_policy::PolicyError;

/// A policy, or something around it, that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// A proposed change cannot be made.
    #[error("request {n}: the change that would allow it cannot be made in the text")]
    Amend {
        /// The request's number.
        n: u64,
        /// Why not.
        #[source]
        error: caveau_policy::AmendError,
    },
    /// A policy's ARM parameter that is not a policy.
    #[error(
        "{0}: `ccePolicy` is a template expression, which is not evaluated: give the deployed template or its policy"
    )]
    Expression(String),
    /// A template without a policy.
    #[error("the template has no container group with a `ccePolicy`: nothing to look at")]
    NoPolicy,
    /// The text in `ccePolicy` or in the file is base64 of something that is no text.
    #[error("{0}: base64 of bytes that are no UTF-8 text")]
    NotText(String),
    /// The text is a JSON document of another kind.
    #[error("the text is JSON, but no ARM template: expected Rego, base64 of Rego, or a template with `resources`")]
    OtherJson,
    /// The policy itself is wrong.
    #[error("{name} is no policy that can be used")]
    Policy {
        /// Which one.
        name: String,
        /// What is wrong.
        #[source]
        error: PolicyError,
    },
    /// A line of a record is wrong.
    #[error("line {line} of the requests cannot be read")]
    Record {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        #[source]
        error: caveau_policy::RecordError,
    },
    /// A recorded request is none that can be asked.
    #[error("request {n} cannot be asked")]
    Request {
        /// Its number.
        n: u64,
        /// What is wrong.
        #[source]
        error: caveau_policy::RecordError,
    },
}
