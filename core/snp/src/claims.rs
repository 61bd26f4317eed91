//! Claims: what an authentic report says, in types.

use serde::Serialize;

use crate::Hex;
use crate::bits::{GuestPolicy, PlatformInfo};
use crate::product::{Fms, Product};
use crate::report::{FirmwareVersion, SigningKey};
use crate::tcb::Tcb;
use crate::time::Timestamp;

/// Whether a secure processor stands behind a report, or a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeeClass {
    /// A program of the host, which gives no confidentiality.
    Emulated,
    /// A secure processor.
    Hardware,
}

/// What a report says whose signature chain holds. Made by [`crate::examine::examine`] alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Claims {
    /// Hardware or not.
    pub tee_class: TeeClass,
    /// The product line.
    pub product: Product,
    /// CPUID family, model, stepping; not in reports of version 2.
    pub fms: Option<Fms>,
    /// The report's version.
    pub report_version: u32,
    /// Who signed the report.
    pub signing_key: SigningKey,
    /// The chip; `None` where the platform masks it.
    pub chip_id: Option<Hex<64>>,
    /// The cloud provider, where a VLEK signed.
    pub provider: Option<String>,
    /// Firmware levels for which the endorsement key was made.
    pub reported_tcb: Tcb,
    /// Firmware levels that cannot be rolled back.
    pub committed_tcb: Tcb,
    /// Firmware levels that run.
    pub current_tcb: Tcb,
    /// Firmware levels when the guest was launched.
    pub launch_tcb: Tcb,
    /// Firmware that runs.
    pub current_firmware: FirmwareVersion,
    /// Firmware that cannot be rolled back.
    pub committed_firmware: FirmwareVersion,
    /// What the guest was launched with.
    pub guest_policy: GuestPolicy,
    /// How the processor is set up.
    pub platform_info: PlatformInfo,
    /// The guest's privilege level when it asked; `u32::MAX` when the host asked.
    pub vmpl: u32,
    /// The guest's own 64 bytes.
    pub report_data: Hex<64>,
    /// The launch digest.
    pub measurement: Hex<48>,
    /// The host's 32 bytes: under Caveau the policy's SHA-256.
    pub host_data: Hex<32>,
    /// Security version of the guest, from its ID block.
    pub guest_svn: u32,
    /// Family of the guest, from its ID block.
    pub family_id: Hex<16>,
    /// Image of the guest, from its ID block.
    pub image_id: Hex<16>,
    /// The key that signed its ID block; `None` without one.
    pub id_key_digest: Option<Hex<48>>,
    /// The key that vouches for the ID key; `None` without one.
    pub author_key_digest: Option<Hex<48>>,
    /// This guest instance.
    pub report_id: Hex<32>,
    /// Its migration agent; all ones without one.
    pub report_id_ma: Hex<32>,
    /// Mitigations at launch, by AMD's bulletins; from version 5 on.
    pub launch_mit_vector: Option<u64>,
    /// Mitigations now.
    pub current_mit_vector: Option<u64>,
    /// What the chain of signatures consists of.
    pub endorsement: Endorsement,
}

/// The certificates behind a report, and how long they hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Endorsement {
    /// The root.
    pub root: CertificateName,
    /// The intermediate.
    pub intermediate: CertificateName,
    /// The endorsement key.
    pub vek: CertificateName,
    /// The last second in which all of them (and the revocation list, where there is one) are in force.
    pub valid_until: Timestamp,
    /// The revocation list in which the intermediate was looked up, where there is one.
    pub revocation_list: Option<RevocationList>,
}

/// A revocation list, named without showing it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RevocationList {
    /// Its number: older lists have lower ones.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// Until when it may be used.
    pub next_update: Timestamp,
}

/// A certificate, named without showing it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CertificateName {
    /// The subject's common name.
    pub name: String,
    /// SHA-256 of the certificate's DER.
    pub sha256: Hex<32>,
}

impl Serialize for Product {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
