//! What launcher and processor say to each other: one request and one answer, each one packet of JSON.
//!
//! With the request come descriptors (SCM_RIGHTS), in this order: firmware (BIOS or OVMF), the option ROMs as the request
//! names them, kernel, initrd where the request says so, and last the processor's end of the guest link, a stream socket.
//! All but the last are sealed memory files.

use caveau_measure::{ID_AUTH_BYTES, ID_BLOCK_BYTES, LaunchDigest};
use caveau_snp::Hex;
use caveau_snp::bits::GuestPolicy;
use serde::{Deserialize, Serialize};

use crate::Persona;

/// Version of the request's form.
pub(crate) const VERSION: u16 = 1;

/// Most option ROMs of a machine.
pub(crate) const MAX_OPTION_ROMS: usize = 16;

/// What is launched besides the parts that come as files (SNP_LAUNCH_START and SNP_LAUNCH_FINISH).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchSettings {
    /// The kernel's command line.
    pub cmdline: String,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Type of each vCPU: QEMU's name, or `0x` and a CPUID signature.
    pub vcpu_type: String,
    /// SEV_FEATURES of each vCPU.
    pub guest_features: u64,
    /// POLICY of the guest.
    pub guest_policy: u64,
    /// HOST_DATA: SHA-256 of the policy that the guest shall enforce.
    pub host_data: Hex<32>,
    /// The processor that is played.
    pub persona: Persona,
    /// What the guest's owner signed, to be checked at launch.
    pub identity: Option<SignedIdentity>,
}

/// An ID block and the signatures over it (SEV-SNP firmware ABI, tables "ID_BLOCK" and "ID_AUTH_INFO").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedIdentity {
    /// The ID block.
    pub block: Hex<ID_BLOCK_BYTES>,
    /// The ID authentication information.
    pub auth: Box<Hex<ID_AUTH_BYTES>>,
}

impl LaunchSettings {
    /// The usual guest: SEV_FEATURES 1, the usual guest policy, the processor as itself, no ID block.
    #[must_use]
    pub fn new(cmdline: &str, vcpus: u32, vcpu_type: &str, host_data: [u8; 32]) -> Self {
        Self {
            cmdline: cmdline.to_owned(),
            vcpus,
            vcpu_type: vcpu_type.to_owned(),
            guest_features: 1,
            guest_policy: GuestPolicy::USUAL.0,
            host_data: Hex(host_data),
            persona: Persona::default(),
            identity: None,
        }
    }
}

/// The request: settings, and what the descriptors are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) version: u16,
    pub(crate) settings: LaunchSettings,
    pub(crate) firmware: Firmware,
    pub(crate) has_initrd: bool,
}

/// Which firmware comes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Firmware {
    /// A BIOS, and option ROMs with these names.
    Direct { option_roms: Vec<String> },
    /// An OVMF image.
    Ovmf,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Launched(Launched),
    Refused(Refusal),
}

/// A launch that is finished: the context is frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launched {
    /// MEASUREMENT of the guest's reports.
    pub launch_digest: LaunchDigest,
    /// REPORT_ID of the guest.
    pub report_id: Hex<32>,
}

/// Why the processor does not launch a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// What the firmware would answer.
    pub status: RefusalStatus,
    /// The same in words.
    pub reason: String,
}

/// Statuses of a refused launch (SEV-SNP firmware ABI, "Status Codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalStatus {
    /// POLICY_FAILURE (7): the platform or the ID block does not go with the guest policy.
    PolicyFailure,
    /// BAD_SIGNATURE (0xa): the ID block's signatures.
    BadSignature,
    /// BAD_MEASUREMENT (0xb): the ID block expects another launch digest.
    BadMeasurement,
    /// INVALID_PARAM (0x16): a value or part that cannot be launched.
    InvalidParameter,
    /// HWERROR_PLATFORM (0x13): the processor itself failed, for example its state folder.
    Platform,
}

impl Refusal {
    pub(crate) fn new(status: RefusalStatus, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// A refusal for an error, with its causes on one line.
    pub(crate) fn of(status: RefusalStatus, error: &dyn std::error::Error) -> Self {
        Self { status, reason: chain(error) }
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
