//! What can go wrong while a guest is assembled or read.

use std::path::{Path, PathBuf};

/// Why a guest could not be built or opened.
#[derive(Debug, thiserror::Error)]
pub enum GuestImageError {
    /// The agent is not a program that can be PID 1 of an initrd without libraries.
    #[error("{path} cannot be the guest's agent: {reason}; build it with `-C target-feature=+crt-static`")]
    Agent {
        /// The file given.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What a build says of its agent cannot be used.
    #[error(
        "{path} does not say what the agent is made of: {reason}; build the agent by `cargo xtask setup` or `cargo xtask guest`, which write it anew"
    )]
    AgentRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Compressed data that does not decompress.
    #[error("failed to decompress {what} ({format})")]
    Decompress {
        /// Which file or part.
        what: String,
        /// The format its first bytes show.
        format: &'static str,
        /// The decoder's reason.
        #[source]
        source: std::io::Error,
    },
    /// guest.json lists a launch digest that is not that of the parts beside it.
    #[error(
        "guest.json in {folder} lists the launch digest {expected} for {tee} with {machine}, and the parts have {found}; build the guest again"
    )]
    Digest {
        /// The guest's folder.
        folder: PathBuf,
        /// Which TEE.
        tee: crate::Tee,
        /// Number and type of processors.
        machine: String,
        /// What guest.json lists.
        expected: Box<caveau_measure::LaunchDigest>,
        /// What was computed.
        found: Box<caveau_measure::LaunchDigest>,
    },
    /// The output folder holds something that is not a guest.
    #[error("{0} exists and is not a guest folder (it has no guest.json): name another folder, or remove it")]
    Destination(PathBuf),
    /// A file could not be read or written.
    #[error("failed to {act} {path}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The kernel file is not one that this guest can start from.
    #[error("{path} is not a kernel that the guest can use: {reason}")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },
    /// The folder for a kernel holds something else.
    #[error("{0} exists and is not a kernel folder (it has no package.json): name another folder, or remove it")]
    KernelDestination(PathBuf),
    /// The kernel folder lacks something.
    #[error("{folder} is not an extracted kernel package: {reason}")]
    KernelFolder {
        /// The folder given.
        folder: PathBuf,
        /// What was expected.
        reason: String,
    },
    /// Kconfig dropped options that the guest asks for, or added what it does not want.
    #[error("the kernel's sources do not take the guest's options: {0}")]
    KernelOptions(String),
    /// A step of a kernel's build failed.
    #[error("failed to {step}: {output}")]
    KernelStep {
        /// What was tried.
        step: String,
        /// The end of what it printed.
        output: String,
    },
    /// Programs that build a kernel are missing.
    #[error("to build a kernel, {missing} must be there: install {packages}")]
    KernelTools {
        /// Programs and headers.
        missing: String,
        /// Debian's packages that have them.
        packages: String,
    },
    /// guest.json cannot be understood.
    #[error("failed to read {path}: it is not a guest description of format {format}", format = crate::FORMAT)]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// guest.json is of another format.
    #[error("{path} has format {found}, this program reads format {expected}: build the guest again", expected = crate::FORMAT)]
    ManifestFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The launch digest of the guest could not be computed.
    #[error("failed to compute the launch digest for {tee}")]
    Measure {
        /// Which TEE.
        tee: crate::Tee,
        /// Why.
        #[source]
        source: caveau_measure::MeasureError,
    },
    /// A kernel module is malformed, missing, or for another kernel.
    #[error("kernel module {module}: {reason}")]
    Module {
        /// Its name.
        module: String,
        /// What is wrong.
        reason: String,
    },
    /// A file of the guest is not the one that guest.json describes.
    #[error("{path} is damaged: its SHA-256 is {found}, guest.json says {expected}; build the guest again")]
    Part {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: crate::Sha256,
        /// What was found.
        found: crate::Sha256,
    },
    /// A folder whose guest.json is of a group: it cannot be started from.
    #[error(
        "{0} holds the reference values of a group, which are for `caveau verify --reference`; a guest's folder has the guest.json that `caveau guest build` wrote"
    )]
    OfGroup(PathBuf),
    /// The guest has no such TEE.
    #[error("the guest in {folder} was not built for {tee}")]
    Tee {
        /// The guest's folder.
        folder: PathBuf,
        /// The TEE asked for.
        tee: crate::Tee,
    },
    /// guest.json names a type of processor that is not known.
    #[error("failed to use guest.json in {folder}")]
    VcpuType {
        /// The guest's folder.
        folder: PathBuf,
        /// Which, and which are known.
        #[source]
        source: caveau_measure::UnknownVcpuType,
    },
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, GuestImageError>;

/// Adds what was tried on which file to a system error.
pub(crate) trait IoContext<T> {
    /// The error becomes [`GuestImageError::Io`].
    fn context(self, act: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn context(self, act: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| GuestImageError::Io { act, path: path.to_path_buf(), source: error.into() })
    }
}
