//! Why there is no evidence.

use std::path::PathBuf;
use std::time::Duration;

use caveau_sp_message::frame::ExitInfo;
use caveau_sp_message::{FrameError, MessageError, Status};

/// A TEE that cannot be opened, or a request that it did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum TeeError {
    /// A device or file of the kernel failed.
    #[error("failed to {act} {}", path.display())]
    Device {
        /// What was tried.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The measured command line names the emulated processor, and this machine has a real one.
    #[error(
        "this guest is made for emulated-snp, but the machine shows SEV ({signs}); a false processor is refused: \
         start a guest made for snp"
    )]
    EmulatedOnSev {
        /// What was seen.
        signs: String,
    },
    /// The request cannot be made by this way.
    #[error("{kind} cannot derive keys here: {} is absent", path.display())]
    KeysUnavailable {
        /// The TEE.
        kind: &'static str,
        /// What is needed.
        path: PathBuf,
    },
    /// The link to the emulated processor failed.
    #[error("failed to reach the emulated secure processor")]
    Link(#[source] FrameError),
    /// The processor's message was not acceptable.
    #[error("the secure processor's message is not acceptable")]
    Message(#[from] MessageError),
    /// The command line names more than one TEE.
    #[error("the kernel command line has caveau.tee= more than once")]
    NamedTwice,
    /// The command line names no TEE.
    #[error("the kernel command line has no caveau.tee=snp or caveau.tee=emulated-snp")]
    NotNamed,
    /// The measured command line names `snp`, and this machine is not a SEV-SNP guest.
    #[error("this guest is made for snp, but the machine shows no SEV-SNP: start it with a SEV-SNP capable host")]
    NoSnp,
    /// The way to the processor is not there.
    #[error("{} is not there: the kernel must be 6.7 or later, with its modules tsm and sev-guest", tsm.display())]
    NoTsm {
        /// The configfs folder.
        tsm: PathBuf,
    },
    /// A report came whose REPORT_DATA is not what was asked for.
    #[error("the report answers another request: its REPORT_DATA is not the one asked for")]
    OtherReportData,
    /// The port does not exist, or more than one has its name.
    #[error("{found} virtio-serial ports are named {name}, expected exactly one")]
    Port {
        /// The name.
        name: &'static str,
        /// How many there are.
        found: usize,
    },
    /// Firmware or hypervisor did not process the request.
    #[error("the request was not processed: {0}")]
    Refused(ExitInfo),
    /// A report of a wrong length.
    #[error("the report has {found} bytes, expected 1184")]
    ReportSize {
        /// Its bytes.
        found: usize,
    },
    /// The processor answered that it will not.
    #[error("the secure processor refused the request: {0:?}")]
    Status(Status),
    /// The configfs interface did not behave.
    #[error("the TSM report at {} is not usable: {why}", path.display())]
    Tsm {
        /// The entry.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An answer of a kind that was not asked for.
    #[error("the emulated secure processor sent {found} in answer to another request")]
    Unexpected {
        /// What came.
        found: String,
    },
    /// No TEE has this name.
    #[error("`{0}` is no TEE: expected snp or emulated-snp")]
    UnknownKind(String),
    /// The host does not answer.
    #[error("the emulated secure processor did not answer within {} s", timeout.as_secs())]
    Unresponsive {
        /// How long was waited.
        timeout: Duration,
    },
}
