//! The CCE policy: generated from a group, parsed, and enforced, each decision as a proof or with its reasons.
//!
//! A policy is Rego text, `package policy`, whose SHA-256 the launch binds to the TEE as HOST_DATA (policy API 0.12.0,
//! framework 0.5.0). Rules that are plain aliases of `data.framework.*` are answered by the typed engine here; what a
//! document computes itself is evaluated by regorus.
//!
//! ```text
//!   owner:   Group ── generate ──▶ text ── PolicyDigest::of ──▶ HOST_DATA at launch
//!   guest:   text + HOST_DATA of the TEE's report ── Enforcer::new ──▶ Enforcer
//!            request ── Enforcer ──▶ Permit<T> + Pending, or Denial
//! ```
//!
//! Trusts the policy's text once its digest is HOST_DATA, and what the guest itself states about a process (user, groups,
//! profile hash). Promises that a [`Permit`] exists only for what the policy allows in the present state, that state changes
//! only when an act is settled as done, and that a denial names what differed. Fragments bring more policy: their signatures
//! are checked elsewhere, and what they say counts as far as the policy's rule for them includes it. Refuses documents that
//! are not `package policy`, malformed, nested too deep, longer than [`MAX_TEXT`], without versions or for a newer framework,
//! and, under every policy, to reuse a container's identifier or to unmount what is in use.
//!
//! ```
//! use caveau_policy::{Enforcer, HostData, PolicyDigest, request};
//!
//! # let text = "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\
//! # containers := []\nmount_device := data.framework.mount_device\n";
//! let host_data = HostData::new(*PolicyDigest::of(text).as_bytes());
//! let mut enforcer = Enforcer::new(text, &host_data)?;
//! let layer = request::MountDevice { target: caveau_policy::Platform::layer_target(0), device_hash: "ab".repeat(32) };
//! match enforcer.mount_device(&layer) {
//!     Ok(granted) => enforcer.carry_out(granted, |permit| mount(permit.into_inner()))?,
//!     Err(denial) => eprintln!("{denial}"),
//! }
//! # fn mount(_: caveau_policy::MountLayer) -> Result<(), std::io::Error> { Ok(()) }
//! # Ok::<(), Box<dyn std::error::Error>>(())
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
        reason = "a test may fail loudly"
    )
)]

mod amendment;
mod denial;
mod digest;
mod document;
mod enforcer;
mod error;
mod explain;
mod fragment;
mod framework;
mod generate;
mod lines;
pub mod model;
mod nesting;
mod open_points;
mod pattern;
mod permitted;
mod platform;
mod point;
mod policy;
mod policy_decision;
mod record;
mod replay;
pub mod request;
mod source;
mod state;
mod version;

pub use amendment::{AmendError, Amendment, Edit, Step};
pub use denial::{Candidate, Denial, Detail, Field, MAX_CANDIDATES, Reason};
pub use digest::{HostData, PolicyDigest};
pub use document::{MAX_TEXT, rego_engine};
pub use enforcer::{
    Answer, Enforcer, Granted, Kept, NoExec, NoRight, NotStarted, NumberedDenial, Outcome, PAST_NETWORK_RULES, Pending,
    Permit,
};
pub use error::PolicyError;
pub use fragment::{LedgerKey, LedgerKeys};
pub use generate::{generate, value_text};
pub use open_points::open_points;
pub use permitted::{
    Attest, CreateContainer, DumpStacks, ExecProcess, LoadFragment, LoadTrustList, MountDisk, MountLayer, MountOverlay,
    MountScratch, ReadDenials, ReadProperties, ReadSealedOutput, RuntimeLogging, ShutdownContainer, SignalProcess,
    StartContainer, UnmountDisk, UnmountLayer, UnmountOverlay, UnmountScratch,
};
pub use platform::Platform;
pub use point::{API_VERSION, FRAMEWORK_VERSION, Point};
pub use policy::{Flags, Policy};
pub use policy_decision::{MAX_POLICY_DECISION, PolicyDecision};
pub use record::{Asked, MAX_RECORD_LINE, RECORD_VERSION, RecordError, RecordLine, Recorded, Session};
pub use replay::{Corpus, CorpusError, Decision, Replay};
pub use source::{Answering, Place, Source};
pub use version::{InvalidVersion, Version};
