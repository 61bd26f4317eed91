//! Looks at policies for their owner: what is left to the host, what a policy says in words, how two differ, other forms of
//! the same one, and what it answers to recorded requests.
//!
//! Trusts nothing of a policy but what `caveau-policy` parses; promises to judge the meaning, never the order or the layout,
//! and to name the line. Reads texts and gives values: files are the caller's.

mod convert;
mod diff;
mod document;
mod error;
mod explain;
mod input;
mod lint;
mod replay;

pub use convert::{base64, digest, pretty};
pub use diff::{Difference, diff};
pub use document::PolicyDocument;
pub use error::ToolError;
pub use explain::{Section, explain};
pub use input::{Found, InputKind, read};
pub use lint::{Finding, LINTS, Lint, Severity, check};
pub use replay::{Replayed, amend, replay, requests};
