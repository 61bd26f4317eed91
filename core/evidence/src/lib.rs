//! Evidence of SEV-SNP, of Intel's TDX and SGX, and of Azure's confidential VMs: read it, verify it to the makers' roots, appraise
//! it against what its owner expects.
//!
//! Trusts AMD's three root keys and Intel's one, by the SHA-256 of their certificates, and the caller's clock. Promises that a
//! [`Verified<Claims>`] exists only where every check of [`caveau_snp::examine`] (or [`caveau_dcap::examine`]) passed under one
//! of those roots, and that no input makes it panic. Refuses every other root: there is no function, option or feature here that takes one, and
//! evidence of the emulated processor is refused by name.
//!
//! ```text
//! file ── Evidence::parse ──> Evidence ── verify ──> checks, Verified<Claims> ── appraise ──> checks
//!                                     └── judge ───────────────────────────────────────────> Appraisal
//! any file, and what goes with it ── Request::judge_file ──────────────────────────────────> Judgement
//! ```

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
        reason = "tests stop at the first surprise"
    )
)]

mod amd;
mod appraisal_policy;
pub mod azure;
mod causes;
mod certificates;
mod coco;
pub mod corim;
mod file;
mod intel;
mod judgement;
mod names;
mod pem;
mod recognise;
mod reference_info;
mod request;
mod revocation;
pub mod token;
mod verified;

pub use appraisal_policy::{
    AppraisalPolicy, AppraisalPolicyError, EXAMPLE as APPRAISAL_POLICY_EXAMPLE, MAX_APPRAISAL_POLICY_BYTES, chip_id,
};
pub use azure::{AzureEvidence, AzureExpectations, judge_azure, verify_azure};
pub use causes::with_causes;
pub use caveau_dcap as dcap;
pub use caveau_snp::Hex;
pub use caveau_snp::appraisal::{Appraisal, Kind, Outcome};
pub use caveau_snp::appraise::{
    Attached, Expectations, ExpectedBits, ExpectedGuestPolicy, ExpectedReportData, Minimum, Profile,
};
pub use caveau_snp::binding::{Use, report_data};
pub use caveau_snp::check::{Check, Verdict};
pub use caveau_snp::claims::{Claims, TeeClass};
pub use caveau_snp::event_log::{Event, EventLog, Outcome as EventOutcome};
pub use caveau_snp::examine::sha256;
pub use caveau_snp::kds;
pub use caveau_snp::product::{Product, ProductLine};
pub use caveau_snp::report::FirmwareVersion;
pub use caveau_snp::report::Report;
pub use caveau_snp::tcb::Tcb;
pub use caveau_snp::time::Timestamp;
pub use certificates::{Certificates, CertificatesError};
pub use file::{Evidence, EvidenceError, MAX_EVIDENCE_BYTES, Tee};
pub use intel::{QuoteVerification, judge_quote, quote_rules, verify_quote};
pub use judgement::{Judgement, Subject, snp_judgement};
pub use names::{azure_claims, ear};
pub use pem::certificates as certificates_from_pem;
pub use recognise::{AnyEvidence, NotRecognised, SnpBundle, recognise};
pub use reference_info::{
    Accepted, Endorser, MAX_MEASUREMENTS, MAX_REFERENCE_INFO_BYTES, REFERENCE_INFO_TYPE, ReferenceInfo,
    ReferenceInfoError, SignedValues, judge_signed_values,
};
pub use request::{MAX_ATTACHMENTS, Request, RequestError};
pub use revocation::OwnLists;
pub use verified::{Verification, Verified, judge, verify};
