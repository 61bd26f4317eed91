//! Envelopes, issuers and receipts: genuine ones, made ones, and ones that must be refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

mod chains;
mod envelopes;
mod genuine;
mod issuers;
mod oracle;
mod properties;
mod receipts;
mod refused;
mod support;
