//! Ours and another verifier, given the same evidence.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

mod dcap;
#[path = "../../../core/evidence/tests/fixtures/mod.rs"]
mod fixtures;
#[path = "../../../core/emulated/tests/processor/mod.rs"]
mod processor;
mod snp;
