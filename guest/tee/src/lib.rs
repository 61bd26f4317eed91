//! Report data in, evidence out: the TEE as the guest sees it.
//!
//! Which TEE a guest talks to is *measured*: its kernel command line names it ([`TeeKind::from_cmdline`]), and
//! [`open`] opens that one or fails. There is no falling back from hardware to the emulated processor: a host on real
//! SEV-SNP could otherwise offer a false processor, have its own policy enforced and show genuine reports outside.
//!
//! Trusts: the kernel, and for `snp` the secure processor behind it. The emulated processor belongs to the host and
//! proves nothing; what it says has the hardware's shape, not its worth.
//! Promises: every call ends, with an error where the host stops answering; an answer is to the question asked.
//! Refuses: the emulated processor on a machine that shows any sign of SEV, `snp` on one that shows none.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes,
        reason = "tests fail by panicking and compute with known small numbers"
    )
)]

mod detect;
mod emulated;
mod error;
mod kind;
mod port;
mod sev_guest;
mod snp;
mod tsm;

use std::path::Path;

pub use caveau_sp_message::key::{KEY_SIZE, KeyFields, KeyRequest, RootKey};
pub use detect::{SevSigns, sev_signs};
pub use emulated::{EMULATED_TIMEOUT, EmulatedTee};
pub use error::TeeError;
pub use kind::TeeKind;
pub use snp::SnpTee;
use zeroize::Zeroizing;

/// What a TEE gives a relying party to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeeEvidence {
    /// The attestation report: 1184 bytes (AMD 56860, table "ATTESTATION_REPORT").
    pub report: Vec<u8>,
    /// The certificate table that the host offers (GHCB form); empty where it offers none. Not trusted: it saves a
    /// verifier the way to the manufacturer's server.
    pub certificates: Vec<u8>,
}

/// A key that the processor derived; wiped when dropped.
pub type DerivedKey = Zeroizing<[u8; KEY_SIZE]>;

/// The guest's link to its secure processor.
pub trait Tee: Send {
    /// Which TEE this is.
    fn kind(&self) -> TeeKind;

    /// A fresh report over `report_data`, at the guest's own privilege level.
    ///
    /// # Errors
    /// When the processor refuses, the host does not carry the request, or the answer is not to this question.
    fn report(&mut self, report_data: &[u8; 64]) -> Result<TeeEvidence, TeeError>;

    /// A key derived from the processor's secret and the facts that `request` names.
    ///
    /// # Errors
    /// When the processor refuses, or the host does not carry the request.
    fn derived_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, TeeError>;
}

/// Opens the TEE that the measured command line names.
///
/// # Errors
/// When `kind` is the emulated processor and the machine shows any sign of SEV, when it is `snp` and there is none,
/// or when the TEE's device or port is absent.
pub fn open(kind: TeeKind) -> Result<Box<dyn Tee>, TeeError> {
    let root = Path::new("/");
    let signs = sev_signs();
    match kind {
        TeeKind::EmulatedSnp => Ok(Box::new(EmulatedTee::open(root, &signs)?)),
        TeeKind::Snp => {
            tsm::TsmReports::mount(root)?;
            Ok(Box::new(SnpTee::open(root, &signs)?))
        }
    }
}

/// Where REPORT_DATA lies in a report.
const REPORT_DATA: std::ops::Range<usize> = 0x50..0x90;

/// Refuses a report that answers another question than the one asked.
fn check_report(report: &[u8], report_data: &[u8; 64]) -> Result<(), TeeError> {
    if report.len() != caveau_sp_message::report::REPORT_SIZE {
        return Err(TeeError::ReportSize { found: report.len() });
    }
    if report.get(REPORT_DATA) != Some(report_data.as_slice()) {
        return Err(TeeError::OtherReportData);
    }
    Ok(())
}
