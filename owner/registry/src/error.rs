//! What can go wrong with fetching and keeping images.

use std::io;
use std::path::PathBuf;

use caveau_oci::{Digest, OciError};

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A document, reference or digest is wrong, or content does not have its digest.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// A file or folder of the store or of a local image cannot be used.
    #[error("failed to {action} {}", path.display())]
    File {
        /// What was tried: a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The name of an image's source is not one.
    #[error("bad image {text:?}: {reason}")]
    BadSource {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An archive breaks a rule that protects its reader.
    #[error("archive {} is refused: {reason}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The rule and the entry that breaks it.
        reason: String,
    },
    /// The stored image is not of the size that its descriptor says.
    #[error("{what} has {found} bytes, expected {expected}: the content was changed or cut off")]
    WrongSize {
        /// The thing that was read.
        what: String,
        /// The size in its descriptor.
        expected: u64,
        /// The size found; one more than expected if reading stopped there.
        found: u64,
    },
    /// Something is larger than a limit of [`Limits`](crate::Limits).
    #[error("{what} is more than the limit of {limit} bytes")]
    TooLarge {
        /// The thing that was measured.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A compressed layer that cannot be unpacked.
    #[error("failed to unpack layer {layer}: {reason}")]
    Unpack {
        /// The layer's diff ID.
        layer: Digest,
        /// What the decompressor said.
        reason: String,
    },
    /// A layer's tar that cannot be made into a file system.
    #[error("failed to convert layer {layer}")]
    Convert {
        /// The layer's diff ID.
        layer: Digest,
        /// What the converter said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A local source cannot be read.
    #[error("failed to read {what}")]
    Read {
        /// The thing that was read.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The image's parts contradict each other.
    #[error("image {image} is not valid: {reason}")]
    Inconsistent {
        /// The image.
        image: String,
        /// What does not fit.
        reason: String,
    },
    /// The image is made for another platform than the one asked for.
    #[error("image {image} is made for {found}, not for {wanted}; choose another image or --platform {found}")]
    WrongPlatform {
        /// The image.
        image: String,
        /// The platform asked for.
        wanted: String,
        /// The platform that its configuration names.
        found: String,
    },
    /// Nothing may be fetched and something is missing.
    #[error("{what} is not in the local store and --pull never forbids fetching it; use --pull missing")]
    NotStored {
        /// What is missing.
        what: String,
    },
    /// No connection, or it broke and did not come back.
    #[error("failed to reach {url}: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What the network said.
        reason: String,
    },
    /// The server answered with an error.
    #[error("{url} answered with status {status}{detail}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server said about it, after a colon, or nothing.
        detail: String,
    },
    /// The registry wants a login that was not given or that it does not take.
    #[error(
        "access to {what} was denied by {registry}: {reason}; check the image's name, or log in (~/.docker/config.json)"
    )]
    Denied {
        /// What was asked for.
        what: String,
        /// The registry.
        registry: String,
        /// The server's reason.
        reason: String,
    },
    /// The server broke the protocol.
    #[error("{url} broke the protocol: {reason}")]
    Protocol {
        /// What was asked for.
        url: String,
        /// What was wrong with the answer.
        reason: String,
    },
    /// The login configuration cannot be used.
    #[error("failed to read credentials from {}: {reason}", place.display())]
    Credentials {
        /// The file or helper program.
        place: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Certificates to trust cannot be used.
    #[error("failed to read certificates from {}: {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no such image in the store.
    #[error("there is no image {name:?} in the local store; see caveau image ls")]
    NoSuchImage {
        /// What was asked for.
        name: String,
    },
    /// Work on a layer was given up because another layer of the image failed; that one's error is the one to tell.
    #[error("given up because another layer failed")]
    Stopped,
    /// A layer is wrong, of which some bytes came from an earlier run: they may be what is wrong with it.
    #[error("a layer is wrong of which {bytes} bytes were kept from an earlier run; they are removed now: try again")]
    KeptPart {
        /// The number of those bytes.
        bytes: u64,
        /// What is wrong with the layer.
        #[source]
        source: Box<RegistryError>,
    },
    /// Several images have an ID that begins so.
    #[error("several images have an ID that begins with {id}; give more of it, see caveau image ls")]
    SeveralImages {
        /// What was given.
        id: String,
    },
    /// A thread that did part of the work ended early.
    #[error("a worker ended unexpectedly while {doing}")]
    Worker {
        /// What it did.
        doing: &'static str,
    },
}

impl RegistryError {
    /// Whether a layer was good as far as it came: the rest of it was not to be had, or not wanted any more.
    pub(crate) fn is_broken_off(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Status { .. } | Self::Denied { .. } | Self::Stopped)
    }
}

/// Adds to an I/O error what was tried on which path.
pub(crate) trait At<T> {
    /// The result with `action` and `path` in its error.
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, RegistryError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, RegistryError> {
        self.map_err(|source| RegistryError::File { action, path: path.to_owned(), source })
    }
}

impl<T> At<T> for Result<T, rustix::io::Errno> {
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, RegistryError> {
        self.map_err(io::Error::from).at(action, path)
    }
}

/// Takes the error of this crate out of an I/O error that carries it through a reader; others get `wrap`.
pub(crate) fn unwrap_io(error: io::Error, wrap: impl FnOnce(io::Error) -> RegistryError) -> RegistryError {
    error.downcast::<RegistryError>().unwrap_or_else(wrap)
}
