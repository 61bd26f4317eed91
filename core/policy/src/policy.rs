//! A policy document, understood.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    digest::PolicyDigest,
    document::{Document, RuleKind},
    error::PolicyError,
    model::{Container, ExternalProcess, PlatformRule, PolicyExtension},
    point::{FRAMEWORK_VERSION, Point},
    version::Version,
};

/// A policy. Rules that are plain aliases of `data.framework.*` are answered by the typed engine, all others by Rego.
pub struct Policy {
    pub(crate) digest: PolicyDigest,
    pub(crate) api_version: Option<Version>,
    pub(crate) framework_version: Option<Version>,
    /// Every layer that some container names.
    pub(crate) layers: Vec<String>,
    /// Containers that may run, with what their time could not say filled in.
    pub(crate) candidates: Vec<Arc<Container>>,
    pub(crate) external_processes: Vec<ExternalProcess>,
    pub(crate) flags: Flags,
    pub(crate) extension: PolicyExtension,
    pub(crate) rules: BTreeMap<Point, RuleKind>,
    /// Kept for the rules that Rego answers; absent where there are none.
    pub(crate) document: Option<Document>,
}

/// The policy's flags; what is absent is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `allow_capability_dropping`.
    pub capability_dropping: bool,
    /// `allow_dump_stacks`.
    pub dump_stacks: bool,
    /// `allow_environment_variable_dropping`.
    pub environment_dropping: bool,
    /// `allow_host_network`.
    pub host_network: bool,
    /// `allow_properties_access`.
    pub properties_access: bool,
    /// `allow_runtime_logging`.
    pub runtime_logging: bool,
    /// `allow_unencrypted_scratch`.
    pub unencrypted_scratch: bool,
}

impl Policy {
    /// Parses and types a document. Its versions may be missing or too new: then the framework allows no container.
    ///
    /// # Errors
    /// [`PolicyError`], but for [`PolicyError::Digest`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut document = Document::parse(text)?;
        let api_version = version(&mut document, "api_version", "api_svn")?;
        let framework_version = version(&mut document, "framework_version", "framework_svn")?;
        let mut raw: Vec<Container> = typed(&mut document, "containers")?.unwrap_or_default();
        for (ordinal, container) in raw.iter_mut().enumerate() {
            container.ordinal = Some(ordinal);
            container.own_env_rules = container.env_rules.as_ref().map_or(0, Vec::len);
        }
        let layers = raw.iter().flat_map(|container| container.layers.iter().flatten()).cloned().collect();
        let platform_rules: Option<Vec<PlatformRule>> = match framework_version {
            Some(version) if version >= Version::new(0, 5, 0) => typed(&mut document, "platform_rules")?,
            _ => None,
        };
        let rules: BTreeMap<_, _> =
            Point::ALL.iter().filter_map(|point| Some((*point, document.rule(*point)?))).collect();
        let external_processes = external_processes(typed(&mut document, "external_processes")?, framework_version);
        Ok(Self {
            digest: PolicyDigest::of(text),
            api_version,
            framework_version,
            layers,
            candidates: candidates(raw, framework_version, &platform_rules.unwrap_or_default()),
            external_processes,
            flags: flags(&mut document, framework_version)?,
            extension: typed(&mut document, "caveau")?.unwrap_or_default(),
            document: rules.values().any(|kind| *kind == RuleKind::Written).then_some(document),
            rules,
        })
    }

    /// SHA-256 of the text.
    #[must_use]
    pub fn digest(&self) -> PolicyDigest {
        self.digest
    }

    /// The API version that the document declares.
    #[must_use]
    pub fn api_version(&self) -> Option<Version> {
        self.api_version
    }

    /// The framework version that the document declares.
    #[must_use]
    pub fn framework_version(&self) -> Option<Version> {
        self.framework_version
    }

    /// The containers that may run.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.candidates.iter().map(|container| &**container)
    }

    /// The flags.
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// The same policy without what Rego answers, to try changes of it.
    pub(crate) fn without_document(&self) -> Self {
        Self {
            digest: self.digest,
            api_version: self.api_version,
            framework_version: self.framework_version,
            layers: self.layers.clone(),
            candidates: self.candidates.clone(),
            external_processes: self.external_processes.clone(),
            flags: self.flags,
            extension: self.extension.clone(),
            rules: self.rules.clone(),
            document: None,
        }
    }

    /// Refuses what could not be enforced as its author meant it: a version missing, or too new for the framework here.
    pub(crate) fn check_enforceable(&self) -> Result<(), PolicyError> {
        self.api_version.ok_or(PolicyError::NoVersion("api_version"))?;
        if self.rules.values().any(|kind| *kind == RuleKind::Alias) {
            match self.framework_version {
                None => return Err(PolicyError::NoVersion("framework_version")),
                Some(found) if found > FRAMEWORK_VERSION => return Err(PolicyError::FrameworkInFuture { found }),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Policy").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// A version under its name or its old name. One that cannot be read counts as missing.
fn version(document: &mut Document, name: &str, old: &str) -> Result<Option<Version>, PolicyError> {
    let mut read = |name: &str| -> Result<Option<Version>, PolicyError> {
        Ok(document.constant(name)?.and_then(|value| value.as_str()?.parse().ok()))
    };
    Ok(read(name)?.or(read(old)?))
}

/// A top-level object in its type.
fn typed<T: DeserializeOwned>(document: &mut Document, object: &'static str) -> Result<Option<T>, PolicyError> {
    let Some(value) = document.constant(object)? else { return Ok(None) };
    serde_json::from_value(value).map(Some).map_err(|error| PolicyError::Malformed { object, error: error.to_string() })
}

/// The containers that count under this framework version, each with what a platform may add.
fn candidates(raw: Vec<Container>, framework: Option<Version>, platform_rules: &[PlatformRule]) -> Vec<Arc<Container>> {
    let containers: Vec<_> = match framework {
        Some(version) if version == FRAMEWORK_VERSION => raw,
        Some(version) if version < FRAMEWORK_VERSION => {
            raw.into_iter().filter_map(|container| container.upgraded(version)).collect()
        }
        _ => Vec::new(),
    };
    if platform_rules.is_empty() {
        return containers.into_iter().map(Arc::new).collect();
    }
    containers
        .iter()
        .flat_map(|container| platform_rules.iter().map(|rule| Arc::new(with_platform_rule(container, rule))))
        .collect()
}

fn with_platform_rule(container: &Container, rule: &PlatformRule) -> Container {
    let mut container = container.clone();
    container.env_rules.get_or_insert_default().extend(rule.env_rules.iter().cloned());
    container.mounts.get_or_insert_default().extend(rule.mounts.iter().cloned());
    container
}

fn external_processes(raw: Option<Vec<ExternalProcess>>, framework: Option<Version>) -> Vec<ExternalProcess> {
    let raw = raw.unwrap_or_default();
    match framework {
        Some(version) if version == FRAMEWORK_VERSION => raw,
        Some(version) if version < FRAMEWORK_VERSION => raw.into_iter().filter(ExternalProcess::is_whole).collect(),
        _ => Vec::new(),
    }
}

fn flags(document: &mut Document, framework: Option<Version>) -> Result<Flags, PolicyError> {
    let mut flag = |name: &'static str| match document.constant(name)? {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(other) => {
            Err(PolicyError::Malformed { object: name, error: format!("expected a boolean, found {other}") })
        }
    };
    // Before 0.2.2 the framework had no capability dropping.
    let dropping_known = framework.is_some_and(|version| version >= Version::new(0, 2, 2));
    Ok(Flags {
        capability_dropping: dropping_known && flag("allow_capability_dropping")?,
        dump_stacks: flag("allow_dump_stacks")?,
        environment_dropping: flag("allow_environment_variable_dropping")?,
        host_network: flag("allow_host_network")?,
        properties_access: flag("allow_properties_access")?,
        runtime_logging: flag("allow_runtime_logging")?,
        unencrypted_scratch: flag("allow_unencrypted_scratch")?,
    })
}
