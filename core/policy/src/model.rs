//! What a policy document says about containers and processes, typed.
//!
//! A field that a document leaves out is kept as absent, not filled in: what a policy does not say matches nothing.

mod extension;
mod fragments;

use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::{extension::check as check_extensions, fragments::Included};
pub use self::{
    extension::{ContainerExtension, PolicyExtension},
    fragments::{FragmentRule, PlatformRule, TrustListRule},
};
use crate::{pattern::Pattern, request::Capabilities, version::Version};

/// A container that may run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Container {
    /// Program and arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Which variables it may and must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_rules: Option<Vec<EnvRule>>,
    /// Root hashes of its layers, base first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<String>>,
    /// Mounts that it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<MountRule>>,
    /// Whether it may run privileged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_elevated: Option<bool>,
    /// Where it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Further processes that may run in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_processes: Option<Vec<ExecProcess>>,
    /// Signals that its first process may be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signals: Option<Vec<i64>>,
    /// Whom it runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserRule>,
    /// Capability sets; `null` leaves them to the engine's defaults.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Option<Capabilities>>,
    /// SHA-256 of its system call filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_profile_sha256: Option<String>,
    /// Whether the host gets its streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_stdio_access: Option<bool>,
    /// Whether it must run without new privileges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What Caveau adds; other engines ignore it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caveau: Option<ContainerExtension>,
    /// Fields that mean nothing here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
    /// Which of the policy's containers this is.
    #[serde(skip)]
    pub(crate) ordinal: Option<usize>,
    /// How many of its rules for variables stand in the container itself; what the platform's rules add comes after them.
    #[serde(skip)]
    pub(crate) own_env_rules: usize,
    /// Whether a fragment brought it, so that no edit of the policy's document reaches it.
    #[serde(skip)]
    pub(crate) of_fragment: bool,
}

/// Reads a field that is there, be it `null`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Container {
    /// Its name for people.
    #[must_use]
    pub fn label(&self) -> String {
        match (&self.name, self.ordinal) {
            (Some(name), _) => name.clone(),
            (None, Some(ordinal)) if self.of_fragment => format!("#{ordinal} (a fragment's)"),
            (None, Some(ordinal)) => format!("#{ordinal}"),
            (None, None) => "unnamed".to_owned(),
        }
    }

    /// Fills in what a policy for an older framework could not say, and drops what the framework of its time ignored.
    /// Absent if it lacks what that framework had.
    pub(crate) fn upgraded(mut self, framework: Version) -> Option<Self> {
        if framework < Version::new(0, 2, 0) {
            self.no_new_privileges = Some(false);
        }
        if framework < Version::new(0, 2, 1) {
            self.user = Some(UserRule::any());
        }
        if framework < Version::new(0, 2, 2) {
            self.capabilities = Some(None);
        }
        if framework < Version::new(0, 2, 3) {
            self.seccomp_profile_sha256 = Some(String::new());
        }
        if framework < Version::new(0, 4, 1) {
            self.signals.as_mut()?.extend([9, 15]);
        }
        self.name = None;
        self.other = Map::new();
        self.is_whole().then_some(self)
    }

    /// Whether nothing that the framework reads is absent.
    fn is_whole(&self) -> bool {
        self.command.is_some()
            && self.env_rules.is_some()
            && self.layers.is_some()
            && self.mounts.is_some()
            && self.allow_elevated.is_some()
            && self.working_dir.is_some()
            && self.exec_processes.is_some()
            && self.signals.is_some()
            && self.user.is_some()
            && self.capabilities.is_some()
            && self.seccomp_profile_sha256.is_some()
            && self.allow_stdio_access.is_some()
            && self.no_new_privileges.is_some()
    }
}

/// A process that may run in a container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ExecProcess {
    /// Program and arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Signals that it may be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signals: Option<Vec<i64>>,
    /// Fields that mean nothing here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A process that may run in the guest outside any container.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ExternalProcess {
    /// Program and arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Which variables it may and must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_rules: Option<Vec<EnvRule>>,
    /// Where it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Whether the host gets its streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_stdio_access: Option<bool>,
    /// Fields that mean nothing here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ExternalProcess {
    /// Whether nothing that the framework reads is absent.
    pub(crate) fn is_whole(&self) -> bool {
        self.command.is_some()
            && self.env_rules.is_some()
            && self.working_dir.is_some()
            && self.allow_stdio_access.is_some()
    }
}

/// How a text is compared.
#[derive(Clone, Debug)]
pub(crate) enum Matcher {
    /// Equal.
    Exact(String),
    /// Matched by a pattern.
    Re2(Box<Pattern>),
    /// The policy's strategy is unknown.
    Never,
}

impl Matcher {
    fn new(strategy: &str, pattern: &str) -> Self {
        match strategy {
            "string" => Self::Exact(pattern.to_owned()),
            "re2" => Self::Re2(Box::new(Pattern::anchored(pattern))),
            _ => Self::Never,
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(expected) => expected == text,
            Self::Re2(pattern) => pattern.matches(text),
            Self::Never => false,
        }
    }
}

/// An environment rule as documents write it: for `NAME=value` as a whole, or (framework 0.5.0) for both halves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct EnvRuleText {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name_strategy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pattern: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) required: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) strategy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value_strategy: Option<String>,
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

/// A rule for a variable, compiled.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(from = "EnvRuleText", into = "EnvRuleText")]
pub struct EnvRule {
    text: EnvRuleText,
    whole: Option<Matcher>,
    /// Boxed since most documents have none, and many rules.
    halves: Option<Box<(Matcher, Matcher)>>,
}

impl From<EnvRuleText> for EnvRule {
    fn from(text: EnvRuleText) -> Self {
        let whole = match (&text.pattern, &text.strategy) {
            (Some(pattern), Some(strategy)) => Some(Matcher::new(strategy, pattern)),
            _ => None,
        };
        let halves = match (&text.name, &text.name_strategy, &text.value, &text.value_strategy) {
            (Some(name), Some(name_strategy), Some(value), Some(value_strategy)) => {
                Some(Box::new((Matcher::new(name_strategy, name), Matcher::new(value_strategy, value))))
            }
            _ => None,
        };
        Self { text, whole, halves }
    }
}

impl From<EnvRule> for EnvRuleText {
    fn from(rule: EnvRule) -> Self {
        rule.text
    }
}

impl EnvRule {
    /// Whether a request must have a variable that matches.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.text.required == Some(true)
    }

    /// Whether this `NAME=value` matches.
    #[must_use]
    pub fn matches(&self, variable: &str) -> bool {
        self.whole.as_ref().is_some_and(|whole| whole.matches(variable))
            || self.halves.as_deref().is_some_and(|(name, value)| {
                variable.split_once('=').is_some_and(|(n, v)| name.matches(n) && value.matches(v))
            })
    }

    /// Whether it takes more than one value.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        let open = |matcher: &Matcher| matches!(matcher, Matcher::Re2(_));
        self.whole.as_ref().is_some_and(open)
            || self.halves.as_deref().is_some_and(|(name, value)| open(name) || open(value))
    }

    /// Why one of its patterns matches nothing, if one does.
    #[must_use]
    pub fn pattern_error(&self) -> Option<&str> {
        let matchers =
            self.whole.iter().chain(self.halves.as_deref().into_iter().flat_map(|(name, value)| [name, value]));
        matchers.into_iter().find_map(|matcher| match matcher {
            Matcher::Re2(pattern) => pattern.error(),
            Matcher::Exact(_) | Matcher::Never => None,
        })
    }

    /// The rule as `NAME=value`, or as the patterns for it.
    #[must_use]
    pub fn shown(&self) -> String {
        match (&self.text.pattern, &self.text.name, &self.text.value) {
            (Some(pattern), ..) => pattern.clone(),
            (None, name, value) => {
                format!("{}={}", name.as_deref().unwrap_or_default(), value.as_deref().unwrap_or_default())
            }
        }
    }
}

/// What a user or group must be.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(from = "IdNameText", into = "IdNameText")]
pub struct IdNameRule {
    text: IdNameText,
    compiled: Option<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct IdNameText {
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<String>,
}

impl From<IdNameText> for IdNameRule {
    fn from(text: IdNameText) -> Self {
        let compiled = match (text.strategy.as_deref(), &text.pattern) {
            (Some("re2"), Some(pattern)) => Some(Pattern::anchored(pattern)),
            _ => None,
        };
        Self { text, compiled }
    }
}

impl From<IdNameRule> for IdNameText {
    fn from(rule: IdNameRule) -> Self {
        rule.text
    }
}

impl IdNameRule {
    /// Whether this number and name match.
    #[must_use]
    pub fn matches(&self, found: &crate::request::IdName) -> bool {
        let Some(pattern) = &self.text.pattern else { return false };
        match self.text.strategy.as_deref() {
            Some("any") => true,
            Some("id") => *pattern == found.id,
            Some("name") => *pattern == found.name,
            Some("re2") => self.compiled.as_ref().is_some_and(|compiled| compiled.matches(&found.name)),
            _ => false,
        }
    }

    /// How it is compared.
    #[must_use]
    pub fn strategy(&self) -> Option<&str> {
        self.text.strategy.as_deref()
    }

    /// Whether everything matches.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.text.strategy.as_deref() == Some("any")
    }

    /// The rule for people.
    #[must_use]
    pub fn shown(&self) -> String {
        let pattern = self.text.pattern.as_deref().unwrap_or_default();
        match self.text.strategy.as_deref() {
            Some("any") => "any".to_owned(),
            strategy => format!("{} {pattern:?}", strategy.unwrap_or("nothing")),
        }
    }
}

/// Whom a container runs as.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct UserRule {
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_idname: Option<IdNameRule>,
    /// What each of its groups must be one of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_idnames: Option<Vec<IdNameRule>>,
    /// Mode bits withheld from new files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<String>,
}

impl UserRule {
    /// What holds where a policy could not say.
    fn any() -> Self {
        let any = IdNameRule::from(IdNameText { pattern: Some(String::new()), strategy: Some("any".to_owned()) });
        Self { user_idname: Some(any.clone()), group_idnames: Some(vec![any]), umask: Some("0022".to_owned()) }
    }
}

/// A mount that a container may have.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MountRule {
    /// Path within the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Mount options, in any order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<String>>,
    /// Where it comes from: exact, or a pattern after `sandbox://` and `hugepages://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// File system type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The source's pattern, with the folder that it was compiled for.
    #[serde(skip)]
    compiled: OnceLock<(String, Pattern)>,
}

impl MountRule {
    /// Whether the source, a pattern below `prefix`, matches when `prefix` stands for `folder`.
    pub(crate) fn source_matches_below(&self, prefix: &str, folder: &str, found: &str) -> bool {
        let Some(source) = self.source.as_ref().filter(|source| source.starts_with(prefix)) else { return false };
        let compile = || Pattern::anchored(&source.replace(prefix, folder));
        let (known, pattern) = self.compiled.get_or_init(|| (folder.to_owned(), compile()));
        if known == folder { pattern.matches(found) } else { compile().matches(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::IdName;

    fn rule(json: &str) -> EnvRule {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn environment_rules_of_both_forms() {
        let whole = rule(r#"{"pattern":"A=1","strategy":"string","required":true}"#);
        assert!(whole.matches("A=1") && !whole.matches("A=2") && whole.is_required());
        let halves = rule(r#"{"name":"A","name_strategy":"string","value":"[0-9]+","value_strategy":"re2"}"#);
        assert!(halves.matches("A=12") && !halves.matches("A=x") && !halves.matches("A") && !halves.is_required());
        assert!(!rule(r#"{"pattern":"A=1","strategy":"glob"}"#).matches("A=1"));
        assert!(!rule(r#"{"pattern":"A=1"}"#).matches("A=1"));
    }

    #[test]
    fn absent_is_not_null() {
        let absent: Container = serde_json::from_str("{}").unwrap();
        assert!(absent.capabilities.is_none());
        let null: Container = serde_json::from_str(r#"{"capabilities":null}"#).unwrap();
        assert!(matches!(null.capabilities, Some(None)));
        assert_eq!(serde_json::to_string(&absent).unwrap(), "{}");
        assert_eq!(serde_json::to_string(&null).unwrap(), r#"{"capabilities":null}"#);
    }

    #[test]
    fn users_match_by_each_strategy() {
        let root = IdName { id: "0".to_owned(), name: "root".to_owned() };
        for (json, matches) in [
            (r#"{"pattern":"","strategy":"any"}"#, true),
            (r#"{"pattern":"0","strategy":"id"}"#, true),
            (r#"{"pattern":"root","strategy":"id"}"#, false),
            (r#"{"pattern":"root","strategy":"name"}"#, true),
            (r#"{"pattern":"ro+t","strategy":"re2"}"#, true),
            (r#"{"pattern":"oo","strategy":"re2"}"#, false),
            (r#"{"pattern":"root","strategy":"other"}"#, false),
            (r#"{"strategy":"any"}"#, false),
        ] {
            assert_eq!(serde_json::from_str::<IdNameRule>(json).unwrap().matches(&root), matches, "{json}");
        }
    }
}
