//! Evidence that the emulated processor really signed, and every branch of its appraisal.

mod azure;
mod chains;
mod expectations;
#[path = "../../evidence/tests/fixtures/mod.rs"]
mod fixtures;
mod mutations;
mod names;
mod openssl;
mod personas;
mod processor;
mod revocation;
