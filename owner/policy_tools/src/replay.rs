//! What a policy answers to recorded requests.

use std::io::{BufRead, Read as _};

use caveau_policy::{Amendment, Asked, Denial, MAX_RECORD_LINE, Outcome, RecordError, RecordLine, Recorded, Session};
use serde::Serialize;

use crate::ToolError;

/// One request and the policy's answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replayed {
    /// Its number in the record.
    pub n: u64,
    /// What was asked, values of variables hidden.
    pub asked: Asked,
    /// What the recorded policy said.
    pub recorded: bool,
    /// What this policy says.
    pub allowed: bool,
    /// Why not, complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denial>,
}

/// Reads a record. Its requests, in their order.
///
/// # Errors
/// [`ToolError::Record`] where a line is none of a record.
pub fn requests(mut record: impl BufRead) -> Result<Vec<Recorded>, ToolError> {
    let mut requests = Vec::new();
    let limit = u64::try_from(MAX_RECORD_LINE).unwrap_or(u64::MAX).saturating_add(2);
    for line in 1.. {
        let failed = |error| ToolError::Record { line, error };
        let mut text = String::new();
        let read = record.by_ref().take(limit).read_line(&mut text);
        if read.map_err(|error| failed(RecordError::Line(serde_json::Error::io(error))))? == 0 {
            break;
        }
        if text.trim().is_empty() {
            continue;
        }
        if let RecordLine::Request(request) = RecordLine::parse(text.trim_end()).map_err(failed)? {
            requests.push(request);
        }
    }
    Ok(requests)
}

/// Asks recorded requests of a policy from its first moment on, in their order. What it denies is not done; what it allows
/// counts as done, unless the record says that it was allowed and failed.
///
/// # Errors
/// [`ToolError::Policy`] where the policy cannot be enforced, [`ToolError::Request`] where a request is none.
pub fn replay(name: &str, policy: &str, requests: &[Recorded]) -> Result<Vec<Replayed>, ToolError> {
    let mut session = Session::new(policy).map_err(|error| ToolError::Policy { name: name.to_owned(), error })?;
    let mut replayed = Vec::new();
    for recorded in requests {
        let outcome = if recorded.allowed && !recorded.done { Outcome::Failed } else { Outcome::Done };
        let answer = session.ask(&recorded.asked, outcome);
        let answer = answer.map_err(|error| ToolError::Request { n: recorded.n, error })?;
        replayed.push(Replayed {
            n: recorded.n,
            asked: recorded.asked.clone().redacted(),
            recorded: recorded.allowed,
            allowed: answer.is_ok(),
            denial: answer.err(),
        });
    }
    Ok(replayed)
}

/// Most changes that one policy is given.
const MAX_CHANGES: usize = 1000;

/// Changes a policy, one smallest change after another, until it allows the requests that are `wanted` by their number (all,
/// if none is named), or nothing more can be changed for one of them. Gives the text and the changes.
///
/// # Errors
/// As [`replay`]; [`ToolError::Amend`] where a change cannot be made in the text.
pub fn amend(
    name: &str,
    policy: &str,
    requests: &[Recorded],
    wanted: &[u64],
) -> Result<(String, Vec<(u64, Amendment)>), ToolError> {
    let mut text = policy.to_owned();
    let mut changes: Vec<(u64, Amendment)> = Vec::new();
    while changes.len() < MAX_CHANGES {
        let replayed = replay(name, &text, requests)?;
        let next =
            replayed.iter().filter(|request| wanted.is_empty() || wanted.contains(&request.n)).find_map(|request| {
                let change = request.denial.as_ref()?.change.clone()?;
                // A change that did not last would come again and again.
                (!changes.contains(&(request.n, change.clone()))).then_some((request.n, change))
            });
        let Some((n, change)) = next else { break };
        text = change.apply(&text).map_err(|error| ToolError::Amend { n, error })?;
        changes.push((n, change));
    }
    Ok((text, changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\
        allow_dump_stacks := true\ndump_stacks := data.framework.dump_stacks\n\
        get_properties := data.framework.get_properties\n";

    const RECORD: &str = r#"{"t":"record","version":1,"policy_digest":"ab"}
{"t":"request","n":1,"point":"dump_stacks","input":{},"allowed":false}

{"t":"request","n":2,"point":"get_properties","input":{},"allowed":true,"done":true}
"#;

    #[test]
    fn requests_are_asked_of_another_policy() {
        let requests = requests(RECORD.as_bytes()).unwrap();
        let replayed = replay("x", POLICY, &requests).unwrap();
        assert_eq!(
            replayed.iter().map(|r| (r.n, r.recorded, r.allowed)).collect::<Vec<_>>(),
            [(1, false, true), (2, true, false)]
        );
        let (amended, changes) = amend("x", POLICY, &requests, &[]).unwrap();
        assert_eq!(changes.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2]);
        assert!(replay("x", &amended, &requests).unwrap().iter().all(|replayed| replayed.allowed));
        assert_eq!(
            amend("x", POLICY, &requests, &[1]).unwrap(),
            (POLICY.to_owned(), Vec::new()),
            "only what is wanted"
        );
    }

    #[test]
    fn what_is_no_record_is_said_with_its_line() {
        let error = requests("{\"t\":\"record\",\"version\":1,\"policy_digest\":\"\"}\n{}\n".as_bytes());
        assert!(error.unwrap_err().to_string().starts_with("line 2 of the requests"));
        assert!(matches!(requests("x".repeat(MAX_RECORD_LINE + 9).as_bytes()), Err(ToolError::Record { .. })));
        assert!(matches!(replay("x", "package policy\n", &[]), Err(ToolError::Policy { .. })));
        let unknown = r#"{"t":"request","n":5,"point":"load_fragment","input":{},"allowed":false}"#;
        let unknown = requests(unknown.as_bytes()).unwrap();
        assert!(matches!(replay("x", POLICY, &unknown), Err(ToolError::Request { n: 5, .. })));
    }
}
