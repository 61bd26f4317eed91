//! Fragments: signed pieces of policy that are loaded while the group runs. Signatures are checked elsewhere; this is what
//! a fragment's text says, and which names it may take.
//!
//! ```text
//!   text ── namespace ──▶ name ── Module::parse(parameters) ──▶ Module ── Contents::read ──▶ svn, containers, …
//! ```

mod contents;
mod ledgers;
mod module;
pub(crate) mod svn;

pub(crate) use contents::Contents;
pub(crate) use ledgers::Ledgers;
pub use ledgers::{LedgerKey, LedgerKeys};
pub(crate) use module::{Module, namespace};
