//! From reasons to a whole denial: what was compared, what would have to change, and what the host is told.

use serde_json::Value;

use crate::{
    denial::{Denial, Reason},
    enforcer::reason,
    framework::Framework,
    platform::Platform,
    point::Point,
    policy::Policy,
    policy_decision::PolicyDecision,
    request::Request,
    state::State,
};

/// The denial of a request, complete. `input` is the request as the policy's own rules read it.
pub(crate) fn denial(
    policy: &mut Policy,
    (platform, state): (&Platform, &State),
    (point, request): (Point, Request<'_>),
    input: &Value,
    reasons: Vec<Reason>,
) -> Denial {
    let (candidates, change) = Framework { policy, platform, state }.remedy(point, request);
    let decision = match reason(policy, platform, state, point, request, input) {
        Ok(reason) => PolicyDecision::new(point, input.clone(), reason),
        Err(error) => PolicyDecision::new(point, input.clone(), Value::Null).with_error(&error),
    };
    let decision = Some(decision.with_placeholders(platform));
    Denial { candidates, change, decision, ..Denial::new(point, reasons) }
}
