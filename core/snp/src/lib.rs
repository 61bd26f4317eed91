//! SEV-SNP's formats, and the checks between them, without any root to trust.
//!
//! Trusts nobody: whose root is genuine is said by an [`examine::Authority`], and none is here. Promises that reports,
//! certificates and revocation lists are read strictly (what is not understood is refused), that signatures are checked
//! over the bytes as they came, and that no input makes it panic. Refuses to call anything verified: the proof
//! `Verified<Claims>` is made in `caveau-evidence` alone, which believes AMD's roots and no other; evidence of the
//! emulated processor is judged in `caveau-emulated` alone.

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

pub mod appraisal;
pub mod appraise;
pub mod binding;
pub mod bits;
pub mod build;
pub mod certificate;
pub mod certificate_table;
mod chain;
pub mod check;
pub mod claims;
pub mod crl;
pub mod der;
pub mod event_log;
pub mod examine;
mod expectations;
mod hex_bytes;
pub mod kds;
mod minima;
mod oid;
pub mod pem;
pub mod product;
mod pss;
pub mod report;
mod report_error;
pub mod software;
pub mod spki;
pub mod tcb;
pub mod time;
mod vek;

pub use hex_bytes::{Hex, NotHex};
