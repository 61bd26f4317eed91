//! From what went wrong to what the host is told.

use caveau_policy::{Denial, Enforcer, NoExec, NoRight, NotStarted};
use caveau_protocol::{AgentError, AgentReply, ErrorKind};
use caveau_runtime::RuntimeError;

/// What a request comes to: the reply and its body.
pub type Answer = Result<(AgentReply, Vec<u8>), AgentError>;

/// What ends the guest, in words.
pub type Fatal = Box<dyn std::error::Error + Send + Sync>;

/// For `map_err`: what was tried, and the cause.
pub(crate) fn fatal(act: &'static str) -> impl FnOnce(std::io::Error) -> Fatal {
    move |cause| format!("failed to {act}: {cause}").into()
}

/// Most bytes of a denial for the host; the reply's header has room for more.
const MAX_DENIAL: usize = 64 * 1024;

/// Done, with nothing to say.
pub(crate) fn done() -> Answer {
    Ok((AgentReply::Done, Vec::new()))
}

/// The request makes no sense, or comes out of order.
pub(crate) fn invalid(message: impl Into<String>) -> AgentError {
    AgentError { kind: ErrorKind::Invalid, message: message.into(), denial: None }
}

/// Too much at once: nothing was done, and it may be asked for again.
pub(crate) fn busy(message: String) -> AgentError {
    AgentError { kind: ErrorKind::Busy, message, denial: None }
}

/// The guest failed at something that was allowed.
pub(crate) fn failed(act: &str, error: &(dyn std::error::Error + 'static)) -> AgentError {
    AgentError { kind: ErrorKind::Failed, message: format!("failed to {act}: {}", chain(error)), denial: None }
}

/// The policy does not allow it. What of the denial is not for the host is kept for owners.
pub(crate) fn denied(enforcer: &mut Enforcer, denial: Denial) -> AgentError {
    let error = shown(&denial);
    enforcer.keep_denial(denial);
    error
}

/// What the host sees of a denial.
fn shown(denial: &Denial) -> AgentError {
    let shown = serde_json::from_str(&denial.host_json(MAX_DENIAL)).ok();
    AgentError { kind: ErrorKind::Denied, message: denial.to_string(), denial: shown }
}

/// The policy gives the one at the other end of a channel no right to it.
pub(crate) fn no_right(error: &NoRight) -> AgentError {
    AgentError { kind: ErrorKind::Denied, message: error.to_string(), denial: None }
}

/// An owner's process may not be run.
pub(crate) fn no_exec(error: &NoExec) -> AgentError {
    match error {
        NoExec::Denied(denial) => shown(denial),
        NoExec::NoRight(error) => no_right(error),
    }
}

/// The policy wants containers to be started before there is evidence.
pub(crate) fn not_started(error: &NotStarted) -> AgentError {
    AgentError { kind: ErrorKind::Denied, message: format!("attestation denied by policy: {error}"), denial: None }
}

/// A container or process could not be made or used.
pub(crate) fn runtime(error: &RuntimeError) -> AgentError {
    let kind = match error {
        RuntimeError::NotFound { .. } => ErrorKind::NotFound,
        RuntimeError::NotExecutable { .. } => ErrorKind::NotExecutable,
        RuntimeError::Invalid { .. } | RuntimeError::State { .. } | RuntimeError::Ended => ErrorKind::Invalid,
        _ => ErrorKind::Failed,
    };
    AgentError { kind, message: chain(error), denial: None }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // A transparent error repeats its cause's words.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
