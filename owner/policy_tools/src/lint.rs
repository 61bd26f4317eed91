//! Lint: what a policy leaves to the host, and what its author most likely did not mean, each with name, severity and line.

mod containers;
mod group;
mod patterns;
mod variables;

use std::fmt;

use caveau_policy::{API_VERSION, FRAMEWORK_VERSION, Policy, Step};
use serde::Serialize;

use crate::{PolicyDocument, ToolError};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Leaves the host something small.
    Low,
    /// Leaves the host something that can matter.
    Medium,
    /// Lets the host read or change what the policy is there to protect.
    High,
    /// The policy cannot be enforced, or not as it is written.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Note => "note",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Error => "error",
        })
    }
}

/// One thing that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lint {
    /// Its name.
    pub name: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What it means.
    pub about: &'static str,
}

macro_rules! lints {
    ($($constant:ident $name:literal $severity:ident $about:literal;)*) => {
        $(pub(crate) const $constant: Lint = Lint { name: $name, severity: Severity::$severity, about: $about };)*

        /// Every lint, by name.
        pub const LINTS: &[Lint] = &[$($constant),*];
    };
}

lints! {
    AMBIGUOUS "ambiguous-containers" Medium "two containers that only differ in their streams: neither can be started";
    CAPABILITY_DROPPING "capability-dropping" Medium "the host decides which capabilities a container goes without";
    CAPABILITIES "capabilities" Medium "capabilities that reach beyond the container";
    CANNOT_START "cannot-start" Error "a container that the policy's own `caveau` objects keep from being started";
    DEFAULT_CAPABILITIES "default-capabilities" Note "the engine decides on capabilities, by whether the host asks for privilege";
    DUMP_STACKS "dump-stacks" Medium "the host sees the agent's stacks";
    ELEVATED "elevated" High "a container may run privileged, and then controls the guest";
    ENV_ANY "env-any" High "the host chooses names and values of variables";
    ENV_DROPPING "env-dropping" Medium "the host leaves out variables, and adds others without an error";
    ENV_OPTIONAL "env-optional" Low "the host can leave out a variable";
    ENV_PATTERN "env-pattern" Low "the host chooses a variable's value within a pattern";
    ENV_SECRET "env-secret" Medium "what looks like a secret stands in the policy, which the host reads";
    ENV_WILDCARD "env-wildcard" Medium "the host chooses a variable's value";
    EXEC "exec" Note "the host runs this command, any number of times";
    EXEC_SHELL "exec-shell" High "the host runs a shell in the container";
    EXTERNAL_PROCESS "external-process" High "the host runs a process in the guest, outside any container";
    FRAGMENT_INCLUDES "fragment-includes" Medium "a fragment's signer adds containers or processes";
    FRAGMENT_NAMESPACE "fragment-namespace" High "a fragment's code stays loaded, or its signer lets others in";
    FRAGMENT_UNBOUND "fragment-unbound" Medium "a fragment without a least version, or without receipts of a ledger";
    HAND_WRITTEN "hand-written" Medium "a rule of the policy's own decides, which is not looked into";
    HOST_NETWORK "host-network" Medium "a container shares the guest's network namespace";
    INCOMPLETE "incomplete-container" Error "a container without a field that is compared: it never matches";
    MEMORY_SCRATCH "memory-scratch" Low "the host chooses between an encrypted disk and the guest's memory";
    MOUNT_OPTIONAL "mount-optional" Low "the host can leave out a mount; writes then go to scratch";
    MOUNT_SHARE "mount-share" High "a mount whose contents the host reads and writes";
    MOUNT_WILDCARD "mount-wildcard" Low "the host chooses a mount's source within a pattern";
    NETWORK_ANYWHERE "network-anywhere" Low "containers may connect to every address";
    NEW_PRIVILEGES "new-privileges" Low "processes gain privileges from set-user-ID programs";
    NO_LAYERS "no-layers" High "a container without layers: nothing of its files is verified";
    NO_RULE "no-rule" Note "no rule for a point: everything it asks is denied";
    NO_SECCOMP "no-seccomp" Low "no filter of system calls";
    OLD_POINT "old-policy" Medium "the policy is older than a point, so that whatever it asks is allowed";
    OPEN_DOOR "open-door" High "a rule that allows whatever is asked";
    OWNER_EXEC "owner-exec" Medium "an owner may run any program in any container";
    PATTERN_EXPENSIVE "pattern-expensive" Low "nested repetitions: exponential in engines that backtrack, linear here";
    PATTERN_INVALID "pattern-invalid" Error "a pattern that cannot be compiled matches nothing";
    PATTERN_UNANCHORED "pattern-unanchored" High "a pattern that is only anchored at one end, or line by line";
    PROPERTIES "properties-access" Note "the host reads what containers use";
    RUNTIME_LOGGING "runtime-logging" Medium "the host gets the agent's log";
    SHELL_STDIO "shell-with-stdio" High "the container is a shell, and the host types into it";
    STARTS "starts-unbounded" Low "a container can be started any number of times, also side by side";
    STDIO "stdio" Note "the host reads a container's output and writes its input";
    UNENCRYPTED "unencrypted-scratch" High "what containers write may go to a disk that the host reads";
    UNKNOWN_FIELD "unknown-field" Low "a container's field that nothing reads";
    UNKNOWN_NAME "unknown-name" Note "a definition that nothing of the policy language reads";
    USER_ANY "user-any" Medium "a container may run as any user";
    VERSION "version" Error "a version that is missing or newer than this engine";
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// [`Lint::name`].
    pub lint: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// Where, counted from 1; absent where it is about what is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The container that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What was found.
    pub message: String,
}

/// Collects findings.
pub(crate) struct Findings<'d> {
    document: &'d PolicyDocument,
    container: Option<String>,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, lint: Lint, path: &[Step], message: impl Into<String>) {
        let line = self.document.line(path);
        let (container, message) = (self.container.clone(), message.into());
        self.found.push(Finding { lint: lint.name, severity: lint.severity, line, container, message });
    }
}

/// Everything that was found in a policy, in the order of its lines. Whatever the host can do by every policy (start or not
/// start a container, give it memory and time) is not among it.
///
/// # Errors
/// [`ToolError::Policy`] where it is no policy at all.
pub fn check(name: &str, text: &str) -> Result<Vec<Finding>, ToolError> {
    let document = PolicyDocument::parse(name, text)?;
    let mut findings = Findings { document: &document, container: None, found: Vec::new() };
    versions(&document.policy, &mut findings);
    group::check(&document, &mut findings);
    containers::check(&document, &mut findings);
    let mut found = findings.found;
    found.sort_by(|a, b| (a.line, b.severity, a.lint).cmp(&(b.line, a.severity, b.lint)));
    found.dedup();
    Ok(found)
}

fn versions(policy: &Policy, findings: &mut Findings<'_>) {
    match policy.api_version() {
        None => findings.add(VERSION, &["api_version".into()], "no `api_version` that can be read: the policy is refused"),
        Some(found) if found > API_VERSION => findings.add(
            VERSION,
            &["api_version".into()],
            format!("`api_version` {found} is newer than the {API_VERSION} that is known here: its newer points are not checked"),
        ),
        Some(_) => {}
    }
    match policy.framework_version() {
        None => findings.add(
            VERSION,
            &["framework_version".into()],
            "no `framework_version` that can be read: no container matches",
        ),
        Some(found) if found > FRAMEWORK_VERSION => findings.add(
            VERSION,
            &["framework_version".into()],
            format!(
                "`framework_version` {found} is newer than this engine's {FRAMEWORK_VERSION}: the policy is refused"
            ),
        ),
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests;
