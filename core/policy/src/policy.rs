//! A policy document, understood.

use std::{collections::BTreeMap, fmt, sync::Arc};

use caveau_group::{NetworkRules, Owners};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    digest::PolicyDigest,
    document::{Document, RuleKind},
    error::PolicyError,
    model::{self, Container, ExternalProcess, FragmentRule, PlatformRule, PolicyExtension, TrustListRule},
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
    /// Containers that may run, with what their time could not say filled in, but without what a platform may add.
    pub(crate) own: Vec<Arc<Container>>,
    /// Containers that may run while no fragment is loaded: each with what each platform may add.
    pub(crate) candidates: Vec<Arc<Container>>,
    pub(crate) external_processes: Vec<ExternalProcess>,
    /// Whether processes that fragments bring count: not where an older document says nothing of any.
    pub(crate) external_processes_count: bool,
    /// Fragments that may be loaded.
    pub(crate) fragments: Vec<FragmentRule>,
    pub(crate) platform_rules: Vec<PlatformRule>,
    /// Trust lists that may be loaded.
    pub(crate) trust_lists: Vec<TrustListRule>,
    pub(crate) flags: Flags,
    pub(crate) extension: PolicyExtension,
    /// Containers by their names, but for names that more than one has: their places in the document.
    pub(crate) named: BTreeMap<String, usize>,
    pub(crate) rules: BTreeMap<Point, RuleKind>,
    /// Kept for the rules that Rego answers; absent where there are none.
    pub(crate) document: Option<Document>,
    /// The text, kept where there is no document and fragments may have to be read beside it.
    text: Option<Arc<str>>,
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
        let named =
            model::check_extensions(&raw).map_err(|error| PolicyError::Malformed { object: "containers", error })?;
        let layers = raw.iter().flat_map(|container| container.layers.iter().flatten()).cloned().collect();
        let rules: BTreeMap<_, _> =
            Point::ALL.iter().filter_map(|point| Some((*point, document.rule(*point)?))).collect();
        let platform_rules: Option<Vec<PlatformRule>> = match framework_version {
            Some(version) if version >= Version::new(0, 5, 0) => typed(&mut document, "platform_rules")?,
            _ => None,
        };
        let platform_rules = platform_rules.unwrap_or_default();
        let fragments = fragments(typed(&mut document, "fragments")?, framework_version);
        let raw_processes: Option<Vec<ExternalProcess>> = typed(&mut document, "external_processes")?;
        let external_processes_count = match framework_version {
            Some(version) if version == FRAMEWORK_VERSION => true,
            Some(version) if version < FRAMEWORK_VERSION => raw_processes.is_some(),
            _ => false,
        };
        let own = own_containers(raw, framework_version);
        let written = rules.values().any(|kind| *kind == RuleKind::Written);
        Ok(Self {
            digest: PolicyDigest::of(text),
            api_version,
            framework_version,
            layers,
            candidates: with_platform_rules(own.iter(), &platform_rules),
            own,
            external_processes: external_processes(raw_processes, framework_version),
            external_processes_count,
            platform_rules,
            trust_lists: trust_lists(&mut document, framework_version)?,
            flags: flags(&mut document, framework_version)?,
            extension: typed(&mut document, "caveau")?.unwrap_or_default(),
            named,
            text: (!written && !fragments.is_empty()).then(|| text.into()),
            fragments,
            document: written.then_some(document),
            rules,
        })
    }

    /// Does something with the document, parsed anew where it is not kept.
    pub(crate) fn with_document<R>(
        &mut self,
        act: impl FnOnce(&mut Document) -> Result<R, PolicyError>,
    ) -> Result<R, PolicyError> {
        match (&mut self.document, &self.text) {
            (Some(document), _) => act(document),
            (None, Some(text)) => act(&mut Document::parse(text)?),
            // A policy that names no fragment loads none.
            (None, None) => act(&mut Document::parse("package policy")?),
        }
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

    /// The fragments that it allows to be loaded.
    #[must_use]
    pub fn fragments(&self) -> &[FragmentRule] {
        &self.fragments
    }

    /// What a platform may add to every container.
    #[must_use]
    pub fn platform_rules(&self) -> &[PlatformRule] {
        &self.platform_rules
    }

    /// The transparency trust lists that it allows to be loaded.
    #[must_use]
    pub fn trust_lists(&self) -> &[TrustListRule] {
        &self.trust_lists
    }

    /// The flags.
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// What the group may do on the network; absent is anything.
    #[must_use]
    pub fn network(&self) -> Option<&NetworkRules> {
        self.extension.network.as_ref()
    }

    /// Who may ask more of the group than its host.
    #[must_use]
    pub fn owners(&self) -> &Owners {
        &self.extension.owners
    }

    /// The same policy without what Rego answers, to try changes of it.
    pub(crate) fn without_document(&self) -> Self {
        Self {
            digest: self.digest,
            api_version: self.api_version,
            framework_version: self.framework_version,
            layers: self.layers.clone(),
            own: self.own.clone(),
            candidates: self.candidates.clone(),
            external_processes: self.external_processes.clone(),
            external_processes_count: self.external_processes_count,
            fragments: self.fragments.clone(),
            platform_rules: self.platform_rules.clone(),
            trust_lists: self.trust_lists.clone(),
            flags: self.flags,
            extension: self.extension.clone(),
            named: self.named.clone(),
            rules: self.rules.clone(),
            document: None,
            text: None,
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

/// The containers that count under this framework version.
fn own_containers(raw: Vec<Container>, framework: Option<Version>) -> Vec<Arc<Container>> {
    match framework {
        Some(version) if version == FRAMEWORK_VERSION => raw.into_iter().map(Arc::new).collect(),
        Some(version) if version < FRAMEWORK_VERSION => {
            raw.into_iter().filter_map(|container| container.upgraded(version)).map(Arc::new).collect()
        }
        _ => Vec::new(),
    }
}

/// Each container with what each platform may add; as they are where there are no platforms.
pub(crate) fn with_platform_rules<'c>(
    containers: impl Iterator<Item = &'c Arc<Container>>,
    platforms: &[PlatformRule],
) -> Vec<Arc<Container>> {
    if platforms.is_empty() {
        return containers.cloned().collect();
    }
    containers.flat_map(|container| platforms.iter().map(|rule| Arc::new(rule.add_to(container)))).collect()
}

/// The fragments that may be loaded under this framework version.
fn fragments(raw: Option<Vec<FragmentRule>>, framework: Option<Version>) -> Vec<FragmentRule> {
    let raw = raw.unwrap_or_default();
    match framework {
        Some(version) if version == FRAMEWORK_VERSION => raw,
        Some(version) if version < FRAMEWORK_VERSION => raw.into_iter().filter_map(FragmentRule::upgraded).collect(),
        _ => Vec::new(),
    }
}

/// The trust lists that may be loaded. A document older than them may use the name for something else.
fn trust_lists(document: &mut Document, framework: Option<Version>) -> Result<Vec<TrustListRule>, PolicyError> {
    let young = framework.is_some_and(|version| version >= Version::new(0, 5, 0));
    match typed(document, "transparency_trust_lists") {
        Err(PolicyError::Malformed { .. }) if !young => Ok(Vec::new()),
        lists => Ok(lists?.unwrap_or_default()),
    }
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
