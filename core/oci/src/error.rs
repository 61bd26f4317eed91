//! What can be wrong with an image's documents.

use crate::Digest;

/// A document, reference or digest that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// The text of a digest is not `sha256:` and 64 lower-case hexadecimal digits.
    #[error("bad digest {text:?}: expected sha256: and 64 lower-case hexadecimal digits")]
    BadDigest {
        /// What was given.
        text: String,
    },
    /// Content does not have the digest by which it was asked for.
    #[error("{what} has digest {found}, expected {expected}: the content was changed or damaged")]
    DigestMismatch {
        /// The thing that was checked.
        what: String,
        /// The digest by which it was asked for.
        expected: Digest,
        /// The digest of the bytes that came.
        found: Digest,
    },
    /// A reference that the grammar does not allow.
    #[error("bad image reference {text:?}: {reason}")]
    BadReference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A platform that is not `os/architecture[/variant]`.
    #[error("bad platform {text:?}: expected os/architecture or os/architecture/variant, as in linux/amd64")]
    BadPlatform {
        /// What was given.
        text: String,
    },
    /// Something is larger than its limit.
    #[error("{what} is {found}, more than the limit of {limit}")]
    TooLarge {
        /// The thing that was measured, with its unit.
        what: &'static str,
        /// Its size or count.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Bytes that are not the JSON that the format asks for.
    #[error("failed to parse {what}: {reason}")]
    Malformed {
        /// The kind of document.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// A document that is well formed and breaks a rule of its format.
    #[error("{what} is not valid: {reason}")]
    Invalid {
        /// The kind of document.
        what: &'static str,
        /// The rule that it breaks.
        reason: String,
    },
    /// A media type that Caveau does not run.
    #[error("{what} has media type {media_type:?}: {reason}")]
    Unsupported {
        /// The kind of thing that has the type.
        what: &'static str,
        /// The type.
        media_type: String,
        /// Why it cannot be used and what to do.
        reason: &'static str,
    },
    /// An index has nothing for the platform.
    #[error("the image has no variant for platform {wanted}; it has {available}")]
    NoPlatform {
        /// The platform asked for.
        wanted: String,
        /// The platforms in the index.
        available: String,
    },
    /// A layout or an archive has no image of the name, or several and no name was given.
    #[error("{reason}; images there: {available}")]
    NoSuchImage {
        /// What was looked for.
        reason: String,
        /// The names there are.
        available: String,
    },
}
