//! Signed pieces of a group's policy, as its plan carries them.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use crate::InvalidPlan;

/// A signed piece of policy: an envelope (COSE_Sign1), which the guest verifies and asks the policy about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyPiece {
    /// What the envelope holds.
    pub kind: PieceKind,
    /// The envelope in base64.
    pub envelope: String,
}

/// What a signed piece of policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PieceKind {
    /// A fragment.
    Fragment,
    /// A list of transparency ledgers.
    TrustList,
}

impl PolicyPiece {
    /// A piece from the bytes of its envelope.
    #[must_use]
    pub fn new(kind: PieceKind, envelope: &[u8]) -> Self {
        Self { kind, envelope: BASE64_STANDARD.encode(envelope) }
    }

    /// The envelope's bytes.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, InvalidPlan> {
        BASE64_STANDARD.decode(&self.envelope).map_err(|_| InvalidPlan::Piece)
    }
}
