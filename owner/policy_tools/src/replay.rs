//! What a policy answers to recorded requests.

use std::io::BufRead;

use caveau_policy::{Asked, Denial, Outcome, RecordLine, Session};
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

/// Asks recorded requests of a policy from its first moment on, in their order. What it denies is not done; what it allows
/// counts as done, unless the record says that it was allowed and failed.
///
/// # Errors
/// [`ToolError::Policy`] where the policy cannot be enforced, [`ToolError::Record`] where a line is none.
pub fn replay(name: &str, policy: &str, requests: impl BufRead) -> Result<Vec<Replayed>, ToolError> {
    let mut session = Session::new(policy).map_err(|error| ToolError::Policy { name: name.to_owned(), error })?;
    let mut replayed = Vec::new();
    for (index, line) in requests.lines().enumerate() {
        let failed = |error| ToolError::Record { line: index.saturating_add(1), error };
        let line = line.map_err(|error| failed(caveau_policy::RecordError::Line(serde_json::Error::io(error))))?;
        if line.trim().is_empty() {
            continue;
        }
        let RecordLine::Request(recorded) = RecordLine::parse(&line).map_err(failed)? else { continue };
        let outcome = if recorded.allowed && !recorded.done { Outcome::Failed } else { Outcome::Done };
        let answer = session.ask(&recorded.asked, outcome).map_err(failed)?;
        replayed.push(Replayed {
            n: recorded.n,
            asked: recorded.asked.redacted(),
            recorded: recorded.allowed,
            allowed: answer.is_ok(),
            denial: answer.err(),
        });
    }
    Ok(replayed)
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
        let replayed = replay("x", POLICY, RECORD.as_bytes()).unwrap();
        assert_eq!(
            replayed.iter().map(|r| (r.n, r.recorded, r.allowed)).collect::<Vec<_>>(),
            [(1, false, true), (2, true, false)]
        );
        let change = replayed[1].denial.as_ref().unwrap().change.clone().unwrap();
        let amended = change.apply(POLICY).unwrap();
        assert!(replay("x", &amended, RECORD.as_bytes()).unwrap().iter().all(|replayed| replayed.allowed));
    }

    #[test]
    fn what_is_no_record_is_said_with_its_line() {
        let error = replay("x", POLICY, "{\"t\":\"record\",\"version\":1,\"policy_digest\":\"\"}\n{}\n".as_bytes());
        assert!(error.unwrap_err().to_string().starts_with("line 2 of the requests"));
        assert!(matches!(replay("x", "package policy\n", RECORD.as_bytes()), Err(ToolError::Policy { .. })));
    }
}
