//! Checks and their verdicts: what a verifier did, in words.

use serde::Serialize;

/// One check: what was looked at, how it ended, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The check's stable name.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it failed: a short, stable code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What was found.
    pub sentence: String,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// What was looked at is as it must be.
    Ok,
    /// It is not.
    Failed,
    /// There is nothing to look at in this kind of evidence, or the profile does not ask for it.
    NotApplicable,
    /// It was not looked at: something it needs failed before, or nobody said what to expect.
    Skipped,
}

/// Why a check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A short, stable code.
    pub code: String,
    /// What was found, and what was expected.
    pub sentence: String,
}

impl Refusal {
    /// A refusal with this code, for this reason.
    #[must_use]
    pub fn new(code: &str, sentence: impl Into<String>) -> Self {
        Self { code: code.to_owned(), sentence: sentence.into() }
    }
}

impl Check {
    /// A check that ended in `result`: a sentence for what holds, or why it does not.
    #[must_use]
    pub fn from_result(name: &'static str, result: Result<String, Refusal>) -> Self {
        match result {
            Ok(sentence) => Self { name, verdict: Verdict::Ok, code: None, sentence },
            Err(Refusal { code, sentence }) => Self { name, verdict: Verdict::Failed, code: Some(code), sentence },
        }
    }

    /// A check that has nothing to look at.
    #[must_use]
    pub fn not_applicable(name: &'static str, sentence: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::NotApplicable, code: None, sentence: sentence.into() }
    }

    /// A check that was not made.
    #[must_use]
    pub fn skipped(name: &'static str, sentence: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Skipped, code: None, sentence: sentence.into() }
    }

    /// Whether it failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.verdict == Verdict::Failed
    }
}

/// The code of the first check that failed; `None` when none did.
#[must_use]
pub fn first_failure(checks: &[Check]) -> Option<&str> {
    checks.iter().find(|check| check.failed()).and_then(|check| check.code.as_deref())
}
