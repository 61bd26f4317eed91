//! What can be wrong with a policy.

use crate::{digest::PolicyDigest, version::Version};

/// A text that is no policy, or one that this engine cannot enforce.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The policy is another one than the launch was bound to.
    #[error(
        "the policy's SHA-256 is {found}, but the TEE's HOST_DATA is {expected}: start the group with this policy, or give it the policy that it was started with"
    )]
    Digest {
        /// HOST_DATA.
        expected: String,
        /// The text's digest.
        found: PolicyDigest,
    },
    /// A rule of the document could not be evaluated.
    #[error("failed to evaluate the policy's rule `{rule}`: {error}")]
    Evaluation {
        /// The rule.
        rule: String,
        /// What regorus says.
        error: String,
    },
    /// The document needs a framework that is newer than this engine.
    #[error(
        "the policy's framework_version {found} is newer than this engine's {}: update the guest",
        crate::point::FRAMEWORK_VERSION
    )]
    FrameworkInFuture {
        /// The document's.
        found: Version,
    },
    /// A field has another type than the policy language gives it.
    #[error("the policy's `{object}` is malformed: {error}")]
    Malformed {
        /// The top-level object.
        object: &'static str,
        /// What was expected where.
        error: String,
    },
    /// A version that the document must declare is missing.
    #[error("the policy declares no {0}: add `{0} := \"…\"`")]
    NoVersion(&'static str),
    /// The document is not `package policy`.
    #[error("the policy must be `package policy`, not {0:?}")]
    Package(String),
    /// The text is no Rego of version 1 or 0.
    #[error("failed to parse the policy: {0}")]
    Syntax(String),
    /// An expression goes deeper than is accepted.
    #[error(
        "line {line} of the policy piles up too many brackets and operators in one expression: say it in several rules"
    )]
    TooDeep {
        /// Where, counted from 1.
        line: usize,
    },
    /// The text is longer than is accepted.
    #[error("the policy is {found} bytes long, and at most {most} are accepted")]
    TooLong {
        /// Its length in bytes.
        found: usize,
        /// What is accepted.
        most: usize,
    },
}
