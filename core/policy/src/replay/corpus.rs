//! A corpus of recorded decisions, line by line.
//!
//! Each line is a JSON object with `t` and `s`, the session that it belongs to; the lines of a session follow each other:
//!
//! ```text
//!   session   test, policy, data             an engine starts
//!   module    id, issuer, feed, namespace, code    a fragment becomes part of it
//!   unmodule  id                             and no longer is
//!   query     rule, input, metadata_before [, result, error]
//! ```

use serde_json::{Map, Value, json};

use super::{Replay, compare};
use crate::{point::Point, request::Mount};

/// Longest line in bytes.
const MAX_LINE: usize = 64 << 20;
/// Most lines of a session.
const MAX_SESSION: usize = 100_000;

/// Test whose sessions are incomplete: their engine gets further default mounts once it runs, and the record does not say
/// which.
const UNRECORDED_MOUNTS: &str = "ExtendDefaultMounts";

/// A corpus that is being read.
#[derive(Debug, Default)]
pub struct Corpus {
    /// The present session's lines.
    lines: Vec<Value>,
    /// Number of the line that was read last, counted from 1.
    number: usize,
}

/// A recorded question at an enforcement point, asked again.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The session, as its lines name it.
    pub session: Value,
    /// Which of the session's lines it is; the first, which starts the session, is 0.
    pub line: usize,
    /// Name of the test that it was recorded from.
    pub test: String,
    /// Where it was asked.
    pub point: Point,
    /// The rule's value; absent where it has none. Else what kept it from being evaluated.
    pub answer: Result<Option<Value>, String>,
    /// Whether the recorded answer is the same, and if not, how it differs; absent where none is recorded.
    pub agreement: Option<Result<(), String>>,
    /// What had to be assumed because the record does not have it.
    pub assumed: Option<String>,
}

/// A line that is none of a corpus.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the corpus: {problem}")]
pub struct CorpusError {
    line: usize,
    problem: String,
}

impl Corpus {
    /// An empty corpus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a line. Where it starts a session, what was decided in the one before.
    ///
    /// # Errors
    /// [`CorpusError`] if it is no such line, or of a session that has not started.
    pub fn read(&mut self, line: &str) -> Result<Vec<Decision>, CorpusError> {
        self.number = self.number.saturating_add(1);
        let error = |problem: String| CorpusError { line: self.number, problem };
        if line.len() > MAX_LINE {
            return Err(error(format!("longer than {MAX_LINE} bytes")));
        }
        if line.trim().is_empty() {
            return Ok(Vec::new());
        }
        let line: Value = serde_json::from_str(line).map_err(|problem| error(problem.to_string()))?;
        let kind = line.get("t").and_then(Value::as_str).unwrap_or_default();
        if kind == "session" {
            let decided = self.finish();
            self.lines.push(line);
            return Ok(decided);
        }
        let session = |line: &Value| line.get("s").cloned();
        if self.lines.first().and_then(session) != session(&line) {
            let of = session(&line).unwrap_or_default();
            return Err(error(format!("of session {of}, whose line with `t` as \"session\" is not before it")));
        }
        if !matches!(kind, "module" | "query" | "unmodule") {
            return Err(error(format!("`t` is {kind:?}, not session, module, unmodule or query")));
        }
        if self.lines.len() >= MAX_SESSION {
            return Err(error(format!("one session has more than {MAX_SESSION} lines")));
        }
        self.lines.push(line);
        Ok(Vec::new())
    }

    /// What was decided in the last session.
    pub fn finish(&mut self) -> Vec<Decision> {
        let lines = std::mem::take(&mut self.lines);
        let Some(first) = lines.first() else { return Vec::new() };
        let mut engine = Replay::new(text(first, "policy"), first.get("data").unwrap_or(&Value::Null))
            .map_err(|error| error.to_string());
        let mut decided = Vec::new();
        for (number, line) in lines.iter().enumerate().skip(1) {
            match (text(line, "t"), engine.as_mut()) {
                ("module", Ok(engine)) => {
                    let [id, issuer, feed] = ["id", "issuer", "feed"].map(|field| text(line, field));
                    engine.add_module(id, issuer, feed, text(line, "namespace"), text(line, "code"));
                }
                ("unmodule", Ok(engine)) => engine.remove_module(text(line, "id")),
                ("query", engine) => {
                    let point = text(line, "rule").strip_prefix("data.policy.").and_then(Point::from_name);
                    let Some(point) = point else { continue };
                    let after = lines.iter().skip(number.saturating_add(1));
                    decided.push(decide(engine.map_err(|error| error.clone()), first, number, point, line, after));
                }
                _ => {}
            }
        }
        decided
    }
}

/// Asks one question again.
fn decide<'l>(
    engine: Result<&mut Replay, String>,
    session: &Value,
    number: usize,
    point: Point,
    line: &Value,
    after: impl Iterator<Item = &'l Value>,
) -> Decision {
    let [input, metadata] = ["input", "metadata_before"].map(|field| line.get(field).unwrap_or(&Value::Null));
    let test = text(session, "test");
    let mut assumed = None;
    let answer = engine.and_then(|engine| {
        if let Some(mounts) = unrecorded_mounts(test, point, input, after) {
            assumed =
                Some(format!("that its {} mounts were made default mounts after the record of them", mounts.len()));
            engine.extend_default_mounts(mounts);
        }
        engine.answer(point, input, metadata)
    });
    let agreement = line.get("result").map(|expected| {
        let error = line.get("error").and_then(Value::as_str).unwrap_or_default();
        match &answer {
            Err(_) if !error.is_empty() => Ok(()),
            Err(found) => Err(format!("recorded {expected:.80}, here the error {found}")),
            Ok(found) if !error.is_empty() => Err(format!("recorded the error {error}, here {found:?}")),
            Ok(found) => compare::answers(expected, found.as_ref().unwrap_or(&Value::Null)),
        }
    });
    let session = session.get("s").cloned().unwrap_or_default();
    Decision { session, line: number, test: test.to_owned(), point, answer, agreement, assumed }
}

/// Mounts of a new container that must have been default mounts, in a session where the record lacks some of those: the
/// reference engine asks for reasons right after each denial, and here it did not.
fn unrecorded_mounts<'l>(
    test: &str,
    point: Point,
    input: &Value,
    mut after: impl Iterator<Item = &'l Value>,
) -> Option<Vec<Mount>> {
    let name = test.split('/').next().unwrap_or_default();
    if name != UNRECORDED_MOUNTS || point != Point::CreateContainer {
        return None;
    }
    let next = after.find(|line| text(line, "rule").starts_with("data.policy."));
    if next.is_some_and(|line| text(line, "rule") == "data.policy.reason") {
        return None;
    }
    serde_json::from_value(input.get("mounts")?.clone()).ok()
}

impl Decision {
    /// The decision for programs: `{"s", "n", "rule", "allowed", "env_list", "caps_list", "allow_stdio_access", "metadata"}`,
    /// each `null` where the rule does not say it; `add_module` where it does; `error` where it could not be evaluated.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let answer = self.answer.as_ref().ok().and_then(Option::as_ref);
        let said = |field: &str| answer.and_then(|answer| answer.get(field)).cloned();
        let mut fields = Map::new();
        fields.insert("s".to_owned(), self.session.clone());
        fields.insert("n".to_owned(), json!(self.line));
        fields.insert("rule".to_owned(), json!(format!("data.policy.{}", self.point)));
        for field in ["allowed", "env_list", "caps_list", "allow_stdio_access", "metadata"] {
            fields.insert(field.to_owned(), said(field).unwrap_or_default());
        }
        for field in ["add_module", "parameters", "allowed_ledgers"] {
            fields.extend(said(field).map(|value| (field.to_owned(), value)));
        }
        fields.extend(self.answer.as_ref().err().map(|error| ("error".to_owned(), json!(error))));
        Value::Object(fields)
    }
}

/// A text of a line; absent is empty.
fn text<'l>(line: &'l Value, field: &str) -> &'l str {
    line.get(field).and_then(Value::as_str).unwrap_or_default()
}
