//! Signed reference values: what came along and what the owner gives, and whose the owner takes.

use anyhow::{Result, bail};
use caveau_cose::MAX_ENVELOPE_BYTES;
use caveau_evidence::{AppraisalPolicy, Endorser, Evidence, SignedValues, Timestamp, judge_signed_values};

use crate::{args, files};

/// Adds those that were given to those that came along, and judges them.
///
/// # Errors
/// Where a file cannot be read, or nothing says whose signature counts.
pub(super) fn judge(
    command: &args::Expected,
    standing: &AppraisalPolicy,
    evidence: &mut Evidence,
    at: Timestamp,
) -> Result<SignedValues> {
    let endorsers = endorsers(command, standing)?;
    if endorsers.is_empty() && !command.endorsement.is_empty() {
        bail!(
            "--endorsement needs to be told whose signature counts: give --endorsement-issuer with --endorsement-feed and \
             --endorsement-least-svn, or `endorsers` in the appraisal policy"
        );
    }
    for file in &command.endorsement {
        // In base64, a third more.
        evidence.endorsements.push(files::read(file, 2 * MAX_ENVELOPE_BYTES)?);
    }
    Ok(judge_signed_values(&evidence.endorsements, &endorsers, evidence, at))
}

/// Whose signed reference values count, by option or by the appraisal policy.
fn endorsers(command: &args::Expected, standing: &AppraisalPolicy) -> Result<Vec<Endorser>> {
    let given = (&command.endorsement_issuer, &command.endorsement_feed, command.endorsement_least_svn);
    let (Some(issuer), Some(feed), Some(least_svn)) = given else { return Ok(standing.endorsers.clone()) };
    if !standing.endorsers.is_empty() {
        bail!("--endorsement-issuer and the appraisal policy's `endorsers` say the same thing: give one of them");
    }
    Ok(vec![Endorser { issuer: issuer.clone(), feed: feed.clone(), least_svn, in_force: false }])
}
