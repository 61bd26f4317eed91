//! Claims: what an authentic quote says, and how its platform stands, in types.

use caveau_snp::Hex;
use caveau_snp::time::Timestamp;
use serde::Serialize;

use crate::body::Body;
use crate::pck::PckExtensions;
use crate::quote::TeeType;
use crate::status::TcbStatus;

/// What a quote says whose chain of signatures holds. Made by [`crate::examine`] alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Claims {
    /// An enclave or a trust domain.
    pub tee_type: TeeType,
    /// The quote's version.
    pub quote_version: u16,
    /// How platform, TDX module and quoting enclave stand together.
    pub tcb_status: TcbStatus,
    /// Intel's advisories that concern them.
    pub advisories: Vec<String>,
    /// The date up to which all known holes are closed.
    pub tcb_date: Timestamp,
    /// The platform.
    pub platform: PlatformClaims,
    /// The enclave that made the quote.
    pub quoting_enclave: QeClaims,
    /// By what it was judged.
    pub collateral: CollateralClaims,
    /// Bytes after the quote, which nobody signed.
    pub trailing_bytes: usize,
    /// The report.
    pub body: Body,
}

/// What the certificate of the platform's key says, and how the platform stands without its quoting enclave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlatformClaims {
    /// How it stands.
    pub status: TcbStatus,
    /// What its certificate says.
    #[serde(flatten)]
    pub pck: PckExtensions,
}

/// The enclave that made the quote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QeClaims {
    /// MRENCLAVE.
    pub mr_enclave: Hex<32>,
    /// MRSIGNER.
    pub mr_signer: Hex<32>,
    /// ISVSVN.
    pub isv_svn: u16,
    /// How it stands.
    pub status: TcbStatus,
}

/// By what collateral a quote was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CollateralClaims {
    /// tcbEvaluationDataNumber, the lower of the two.
    pub evaluation_number: u32,
    /// When the older of the two was made.
    pub issued: Timestamp,
    /// The last second in which all of it is in force.
    pub valid_until: Timestamp,
    /// Whether all certificates were looked up in revocation lists.
    pub has_revocation_lists: bool,
}
