//! What can go wrong between a disk and a mounted file system.

use std::io;
use std::path::PathBuf;

/// Why a step of storage failed. Nothing of the step is left then.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Two controllers have a disk of that number: the host offers a choice, and the guest does not choose.
    #[error("disk {lun} is there {count} times: expected once")]
    AmbiguousDisk {
        /// Logical unit number.
        lun: u16,
        /// How many there are.
        count: usize,
    },
    /// The integrity target claims more data than its disk has sectors.
    #[error("the integrity target on disk {lun} provides {provided} sectors, but the disk has {sectors}")]
    BadIntegrity {
        /// Logical unit number.
        lun: u16,
        /// Sectors it says it provides.
        provided: u64,
        /// Sectors of the disk.
        sectors: u64,
    },
    /// A device-mapper command failed.
    #[error("failed to {command} mapped device {device}")]
    DeviceMapper {
        /// The command.
        command: &'static str,
        /// The device's name.
        device: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The disk has a size that a layer or scratch disk cannot have.
    #[error("disk {lun} has {bytes} bytes: expected {expected}")]
    DiskSize {
        /// Logical unit number.
        lun: u16,
        /// Its size.
        bytes: u64,
        /// What is possible.
        expected: &'static str,
    },
    /// The scratch disk cannot hold a file system.
    #[error("failed to lay out the scratch file system on disk {lun}")]
    Format {
        /// Logical unit number.
        lun: u16,
        /// Why.
        #[source]
        source: crate::FormatError,
    },
    /// A file or device could not be read, written or made.
    #[error("failed to {act} {path}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// What the kernel wrote to a file of its own is not what is expected there.
    #[error("{path} holds {found:?}: expected {expected}")]
    KernelFile {
        /// The file.
        path: PathBuf,
        /// Its text.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The disk with a layer is not laid out as a layer.
    #[error("disk {lun} holds no layer")]
    NotALayer {
        /// Logical unit number.
        lun: u16,
        /// Where it is wrong.
        #[source]
        source: LayoutError,
    },
    /// No disk of that number appeared.
    #[error("disk {lun} did not appear within {waited_ms} ms")]
    NoDisk {
        /// Logical unit number.
        lun: u16,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// What is to be given up is not what the permit is for.
    #[error("the permit is for {permitted}, not for {found}")]
    OtherTarget {
        /// The permit's.
        permitted: PathBuf,
        /// That of the thing given.
        found: PathBuf,
    },
    /// A permit's target leaves the folder where the guest mounts.
    #[error("{0} is no place for a mount: expected a plain path below /run/caveau")]
    Target(PathBuf),
    /// Something that the policy may allow and the guest does not do.
    #[error("{0} is not supported by this guest")]
    Unsupported(String),
}

/// Where a layer's layout is wrong.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Its size fits no layer.
    #[error(transparent)]
    Geometry(#[from] caveau_verity::GeometryError),
    /// Its superblock is malformed.
    #[error(transparent)]
    Superblock(#[from] caveau_verity::SuperblockError),
    /// Superblock and size tell different layouts.
    #[error("its superblock tells {told} data blocks, its size {sized}")]
    Mismatch {
        /// By the superblock.
        told: u64,
        /// By the size.
        sized: u64,
    },
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, StorageError>;

/// Adds what was tried on which path to a system error.
pub(crate) trait IoContext<T> {
    /// The error becomes [`StorageError::Io`].
    fn context(self, act: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn context(self, act: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|error| StorageError::Io { act, path: path.into(), source: error.into() })
    }
}
