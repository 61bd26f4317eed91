//! The software secure processor of emulated-snp: one process a group, beside its launcher.
//!
//! ```text
//!                 control socket (SEQPACKET, inherited)
//!  launcher ──── request, sealed memory files, guest link ───▶ __softsp ◀── state folder: root, seed, CRL
//!     │     ◀──────── launch digest and REPORT_ID, or why not ────┤
//!     │                                                           │ guest link (stream)
//!     └──▶ QEMU ── virtio-serial port caveau.sp.0 ────────────────┘
//!            └──▶ guest: secrets page once, then SNP guest messages (crate caveau-sp-message)
//! ```
//!
//! It does what the hardware's processor does, over the same bytes: hashes what is launched, checks guest policy and ID
//! block, freezes a context, and signs reports about it under a chain of certificates of AMD's shape.
//!
//! Trusts the user's own state folder. Trusts neither launcher nor guest: what is measured must be sealed memory, messages
//! are bounded, one guest talks over one link that the launcher made for it.
//! Promises no confidentiality at all: it is a program of the host, which can read its keys and the guest's memory. That is
//! said by each certificate it makes, in a critical extension that there is no way to leave out; its root is made for each
//! installation at the first start and is nowhere else.
//! Refuses launches that the hardware would refuse, memory that can still be changed, and a state folder that others can read.

mod authority;
mod channel;
mod context;
mod endorsement;
mod guest_link;
pub mod kds;
mod launch;
mod message;
mod persona;
mod revocation;
mod sealed;
mod seed;
mod serve;
mod state;

pub mod client;

pub use message::{LaunchSettings, Launched, Refusal, RefusalStatus, SignedIdentity};
pub use persona::{NotAPersona, Persona};
pub use serve::{PERSONA_VARIABLE, ServeError, run, serve};
pub use state::{StateError, root_certificate, state_folder};

/// The cryptographic library refused to work; no input of the other side leads here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed to {0}")]
pub struct CryptoError(pub(crate) &'static str);

impl CryptoError {
    /// For `map_err`: drops the library's error, which says nothing.
    pub(crate) fn at<E>(act: &'static str) -> impl FnOnce(E) -> Self {
        move |_| Self(act)
    }
}
