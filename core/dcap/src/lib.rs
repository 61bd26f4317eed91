//! Intel's DCAP: quotes of SGX (version 3) and TDX (versions 4 and 5) with their collateral, and the checks between them,
//! without any root to trust.
//!
//! Trusts nobody: which root is Intel's is said by an [`Authority`], and none is here. Promises that quotes, certificates
//! and collateral are read strictly, that signatures are checked over the bytes as they came (of JSON too), and that no input
//! makes it panic. Refuses to call anything verified: that proof is made in `caveau-evidence` alone.
//!
//! ```text
//! Intel's root ─┬─ TCB signer ──── TCB info (levels of the platform), QE identity (levels of the quoting enclave)
//!               └─ PCK authority ─ PCK certificate ─ QE report ─ attestation key ─ quote: enclave or TD
//!                  each with its revocation list
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

mod appraise;
mod body;
mod bytes;
mod certificates;
mod chain;
mod claims;
mod collateral;
mod examine;
mod expectations;
mod identity;
mod levels;
mod pck;
mod quote;
mod status;
mod tcb_info;

pub use appraise::{APPRAISAL, appraise, not_appraised};
pub use body::{Body, EnclaveReport, TdReport, TdReport15, TdReport15Ex};
pub use chain::Authority;
pub use claims::{Claims, CollateralClaims, PlatformClaims, QeClaims};
pub use collateral::{Collateral, CollateralError, MAX_COLLATERAL_BYTES};
pub use examine::{Examination, Rules, examine};
pub use expectations::{EnclaveIdentity, Expectations, TdIdentity};
pub use identity::{QeIdentity, QeLevel};
pub use pck::PckExtensions;
pub use quote::{Certification, Header, MAX_QUOTE_BYTES, Quote, QuoteError, TeeType};
pub use status::TcbStatus;
pub use tcb_info::{ModuleIdentity, ModuleLevel, TcbInfo, TcbLevel, TdxModule};
