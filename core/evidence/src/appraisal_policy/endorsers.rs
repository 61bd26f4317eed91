//! The section of the appraisal policy on signed reference values.

use caveau_cose::DidX509;
use serde::Deserialize;

use super::{AppraisalPolicyError, refuse};
use crate::reference_info::Endorser;

/// Somebody whose signed reference values are taken.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signer {
    issuer: String,
    feed: String,
    least_svn: u64,
    #[serde(default)]
    in_force: bool,
}

/// All of them, each named once: two least versions for the same would leave open which counts.
pub(super) fn read(signers: Option<Vec<Signer>>) -> Result<Vec<Endorser>, AppraisalPolicyError> {
    let Some(signers) = signers else { return Ok(Vec::new()) };
    if signers.is_empty() {
        return Err(refuse("endorsers", "the list names nobody: leave it out where nobody's are expected".to_owned()));
    }
    let mut all: Vec<Endorser> = Vec::new();
    for Signer { issuer, feed, least_svn, in_force } in signers {
        let issuer = DidX509::parse(&issuer).map_err(|error| refuse("endorsers", error.to_string()))?;
        if feed.is_empty() {
            return Err(refuse("endorsers", "`feed` is empty".to_owned()));
        }
        if all.iter().any(|other| other.issuer == issuer && other.feed == feed) {
            return Err(refuse("endorsers", format!("{issuer} comes twice for {feed:?}")));
        }
        all.push(Endorser { issuer, feed, least_svn, in_force });
    }
    Ok(all)
}
