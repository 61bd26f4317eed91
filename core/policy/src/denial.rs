//! Denials: which point, and for which container which field differed, what was expected and what came.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::{amendment::Amendment, point::Point, policy_decision::PolicyDecision};

/// What a reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Field {
    /// Capability sets.
    Capabilities,
    /// Program and arguments.
    Command,
    /// The container's identifier.
    ContainerId,
    /// Device nodes.
    Devices,
    /// Whether a disk is encrypted.
    Encrypted,
    /// Environment.
    Env,
    /// What a fragment is called.
    Feed,
    /// File system of a writable disk.
    Filesystem,
    /// A fragment's text.
    Fragment,
    /// The framework that a fragment was written for.
    FrameworkVersion,
    /// Who signed a fragment or a trust list, and what it is called.
    Issuer,
    /// Order, number and hashes of layers.
    Layers,
    /// Ledgers that a trust list vouches for.
    Ledgers,
    /// Bounds on memory, processor time and processes.
    Limits,
    /// Mounts.
    Mounts,
    /// The name that a fragment's rules take.
    Namespace,
    /// `no_new_privileges`.
    NoNewPrivileges,
    /// Which container is started before which.
    Order,
    /// The policy itself does not say it.
    Policy,
    /// Privileged or not.
    Privileged,
    /// Read-only root file system.
    ReadOnly,
    /// Receipts of transparency ledgers.
    Receipts,
    /// A layer's root hash.
    RootHash,
    /// System call filter.
    Seccomp,
    /// Signal.
    Signal,
    /// How often a container may be started.
    Starts,
    /// What has happened so far.
    State,
    /// Access to the streams.
    Stdio,
    /// Security version of a fragment or a trust list.
    Svn,
    /// Where something is mounted.
    Target,
    /// User, groups and umask.
    User,
    /// Working directory.
    WorkingDir,
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Capabilities => "capabilities",
            Self::Command => "command",
            Self::ContainerId => "container id",
            Self::Devices => "devices",
            Self::Encrypted => "encryption",
            Self::Env => "environment",
            Self::Feed => "feed",
            Self::Filesystem => "file system",
            Self::Fragment => "fragment",
            Self::FrameworkVersion => "framework version",
            Self::Issuer => "issuer",
            Self::Layers => "layers",
            Self::Ledgers => "ledgers",
            Self::Limits => "limits",
            Self::Mounts => "mounts",
            Self::Namespace => "namespace",
            Self::NoNewPrivileges => "no new privileges",
            Self::Order => "order",
            Self::Policy => "policy",
            Self::Privileged => "privileged",
            Self::ReadOnly => "read-only root",
            Self::Receipts => "receipts",
            Self::RootHash => "layer root hash",
            Self::Seccomp => "seccomp profile",
            Self::Signal => "signal",
            Self::Starts => "number of starts",
            Self::State => "state",
            Self::Stdio => "stdio",
            Self::Svn => "security version",
            Self::Target => "target",
            Self::User => "user",
            Self::WorkingDir => "working directory",
        })
    }
}

/// Text with a part that the host must not see. Displayed and serialised it is redacted; the whole is for the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    whole: String,
    redacted: Option<String>,
}

impl Detail {
    /// Text without a secret.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self { whole: text.into(), redacted: None }
    }

    /// Text with a secret, and what the host sees instead.
    pub(crate) fn secret(whole: String, redacted: String) -> Self {
        Self { whole, redacted: Some(redacted) }
    }

    /// Names of variables, their values hidden.
    pub(crate) fn variables<'v>(variables: impl IntoIterator<Item = &'v str>) -> Self {
        let whole: Vec<_> = variables.into_iter().collect();
        let names = whole.iter().map(|variable| match variable.split_once('=') {
            Some((name, _)) => format!("{name}=<<redacted>>"),
            None => "<<redacted>>".to_owned(),
        });
        Self::secret(quoted(whole.iter()), quoted(names))
    }

    /// What the host may see.
    #[must_use]
    pub fn host_visible(&self) -> &str {
        self.redacted.as_deref().unwrap_or(&self.whole)
    }

    /// The whole: for the group's owner only.
    #[must_use]
    pub fn for_owner(&self) -> &str {
        &self.whole
    }
}

/// A list as people read it: each item quoted, nothing cut.
pub(crate) fn quoted<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| format!("{:?}", item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

impl fmt::Display for Detail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.host_visible())
    }
}

impl Serialize for Detail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.host_visible())
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What differed.
    pub field: Field,
    /// What the policy says.
    pub expected: Detail,
    /// What was asked.
    pub got: Detail,
    /// Name of the policy's container that was compared; absent where none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

impl Reason {
    /// A difference that concerns no container, without secrets.
    pub(crate) fn new(field: Field, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self { field, expected: Detail::plain(expected), got: Detail::plain(got), container: None }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(container) = &self.container {
            write!(formatter, "container {container}: ")?;
        }
        write!(formatter, "{}: expected {}, got {}", self.field, self.expected, self.got)
    }
}

/// One of the policy's containers that a request could have been for, and what would have to be different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Its name.
    pub container: String,
    /// Every field that differed; none where only its likeness to another container is in the way.
    pub differences: Vec<Reason>,
    /// The smallest change of the policy after which this container takes the request; absent where no change of it would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Amendment>,
}

/// A request that the policy does not allow. Nothing has changed. Serialised, it is complete and for the policy's owner;
/// what the host gets is [`Denial::host_json`] and [`Denial::policy_decision`]. None of them holds values of variables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// Where.
    pub point: Point,
    /// Every difference found, container by container; at least one.
    pub reasons: Vec<Reason>,
    /// The policy's containers that came into question, at most [`MAX_CANDIDATES`], the closest ones first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// The smallest change of the policy that would allow the request; absent where the request itself has to be another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Amendment>,
    /// The reference's form of it.
    #[serde(skip)]
    pub(crate) decision: Option<PolicyDecision>,
}

/// Most containers that a denial goes into.
pub const MAX_CANDIDATES: usize = 16;

impl Denial {
    /// A denial for these reasons; for none, one that says so.
    pub(crate) fn new(point: Point, mut reasons: Vec<Reason>) -> Self {
        if reasons.is_empty() {
            reasons.push(Reason::new(Field::Policy, "a rule that allows it", "no rule that does"));
        }
        Self { point, reasons, candidates: Vec::new(), change: None, decision: None }
    }

    /// What the reference engine answers to the host: `policyDecision<` base64(JSON) `>policyDecision`, at most
    /// [`crate::MAX_POLICY_DECISION`] bytes, without values of variables.
    #[must_use]
    pub fn policy_decision(&self) -> String {
        match &self.decision {
            Some(decision) => decision.encode(),
            None => {
                let errors: Vec<_> = self.reasons.iter().map(ToString::to_string).collect();
                PolicyDecision::new(self.point, json!({}), json!({"errors": errors, "error_objects": Value::Null}))
                    .encode()
            }
        }
    }
}

impl Denial {
    /// The denial as JSON text of at most about `most` bytes for the host, without secrets: with long texts cut, then with
    /// fewer reasons, then without the reference's form (`policy_decision`), never without the point.
    #[must_use]
    pub fn host_json(&self, most: usize) -> String {
        let cut = |detail: &Detail, length: usize| {
            let text: String = detail.host_visible().chars().take(length).collect();
            Detail::plain(if text.len() < detail.host_visible().len() { format!("{text}…") } else { text })
        };
        let decision = self.policy_decision();
        let shortened = |reasons: usize, length: usize, with_decision: bool| {
            let kept = self.reasons.iter().take(reasons).map(|reason| Reason {
                expected: cut(&reason.expected, length),
                got: cut(&reason.got, length),
                ..reason.clone()
            });
            let mut shown = json!({"point": self.point, "reasons": kept.collect::<Vec<_>>()});
            if let Some(fields) = shown.as_object_mut().filter(|_| with_decision) {
                fields.insert("policy_decision".to_owned(), json!(decision));
            }
            shown.to_string()
        };
        [(usize::MAX, usize::MAX), (usize::MAX, 400), (20, 200), (5, 100), (1, 50)]
            .into_iter()
            .flat_map(|(reasons, length)| [(reasons, length, true), (reasons, length, false)])
            .map(|(reasons, length, with_decision)| shortened(reasons, length, with_decision))
            .find(|text| text.len() <= most)
            .unwrap_or_else(|| shortened(0, 0, false))
    }
}

/// The point and its first reason, at most 400 characters of it.
impl fmt::Display for Denial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} denied by policy", self.point)?;
        let Some(first) = self.reasons.first() else { return Ok(()) };
        let text = first.to_string();
        let short: String = text.chars().take(400).collect();
        write!(formatter, ": {short}")?;
        if short.len() < text.len() {
            formatter.write_str("…")?;
        }
        match self.reasons.len().saturating_sub(1) {
            0 => Ok(()),
            more => write!(formatter, " (and {more} more)"),
        }
    }
}

impl std::error::Error for Denial {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_see_no_values() {
        let reason = Reason {
            field: Field::Env,
            expected: Detail::variables(["TOKEN=swordfish"]),
            got: Detail::variables(["TOKEN=x=y", "oddity"]),
            container: Some("main".to_owned()),
        };
        let denial = Denial::new(Point::CreateContainer, vec![reason]);
        let shown = format!("{denial} {}", serde_json::to_string(&denial).unwrap());
        assert!(shown.contains("TOKEN=<<redacted>>") && shown.contains("container main"));
        for secret in ["swordfish", "x=y", "oddity"] {
            assert!(!shown.contains(secret), "{secret}");
        }
        assert!(denial.reasons[0].expected.for_owner().contains("swordfish"));
    }

    #[test]
    fn long_denials_are_displayed_short() {
        let long = Reason::new(Field::Command, "x".repeat(5000), "y");
        let denial = Denial::new(Point::CreateContainer, vec![long.clone(), long]);
        assert!(denial.to_string().len() < 500);
        assert!(denial.to_string().ends_with("(and 1 more)"));
        assert_eq!(Denial::new(Point::MountDevice, Vec::new()).reasons.len(), 1);
        for most in [100_000, 3000, 400, 60] {
            let json = denial.host_json(most);
            assert!(json.len() <= most && json.contains("create_container"), "{most}: {json}");
            serde_json::from_str::<Value>(&json).unwrap();
        }
    }
}
