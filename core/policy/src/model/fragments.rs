//! What a document says about further pieces of policy: which may be loaded, and what one of them brings.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Container, EnvRule, ExternalProcess, MountRule};

/// A fragment that may be loaded: an element of `fragments`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct FragmentRule {
    /// Who must have signed it: a did:x509.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What it must be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed: Option<String>,
    /// Least security version: a number, a number as text, or `MAJOR.MINOR.PATCH`.
    #[serde(default, deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    pub minimum_svn: Option<Value>,
    /// What of it counts: `containers`, `fragments`, `external_processes`, `platform_rules`, `transparency_trust_lists`,
    /// and `namespace`, which keeps its rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub includes: Option<Vec<String>>,
    /// Ledgers that must have registered it, all of them: a name, `TTL:` and the subject of a trust list, or `*` for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_receipts: Option<Vec<String>>,
    /// Values for its parameters.
    #[serde(default, deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Fields that mean nothing here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl FragmentRule {
    /// Whether it is for this issuer and feed.
    pub(crate) fn is_for(&self, issuer: &str, feed: &str) -> bool {
        self.issuer.as_deref() == Some(issuer) && self.feed.as_deref() == Some(feed)
    }

    /// The rule as a document of an older framework means it; absent if it lacks what that framework had. Receipts and
    /// parameters narrow what may be loaded, so they count even where the framework of their time did not know them.
    pub(crate) fn upgraded(mut self) -> Option<Self> {
        let whole =
            self.issuer.is_some() && self.feed.is_some() && self.minimum_svn.is_some() && self.includes.is_some();
        self.required_receipts.get_or_insert_default();
        self.parameters.get_or_insert_with(|| Value::Object(Map::new()));
        self.other = Map::new();
        whole.then_some(self)
    }
}

/// A transparency trust list that may be loaded: which ledgers it may vouch for.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct TrustListRule {
    /// Who must have signed it: a did:x509.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What it must be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Least security version.
    #[serde(default, deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    pub minimum_svn: Option<Value>,
    /// Ledgers whose keys it may bring; `*` is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_ledgers: Option<Vec<String>>,
    /// Fields that mean nothing here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a platform may add to every container: variables and mounts.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PlatformRule {
    /// Variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_rules: Option<Vec<EnvRule>>,
    /// Mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<MountRule>>,
    /// Fields that mean nothing here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl PlatformRule {
    /// A container with what the platform may add to it.
    pub(crate) fn add_to(&self, container: &Container) -> Container {
        let mut container = container.clone();
        container.env_rules.get_or_insert_default().extend(self.env_rules.iter().flatten().cloned());
        container.mounts.get_or_insert_default().extend(self.mounts.iter().flatten().cloned());
        container
    }
}

/// What a loaded fragment has brought: the parts that the rule for it includes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Included {
    #[serde(
        default,
        deserialize_with = "read_shared",
        serialize_with = "write_shared",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) containers: Option<Vec<Arc<Container>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) external_processes: Option<Vec<ExternalProcess>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fragments: Option<Vec<FragmentRule>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform_rules: Option<Vec<PlatformRule>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transparency_trust_lists: Option<Vec<TrustListRule>>,
}

impl Included {
    /// Only the parts of these names.
    pub(crate) fn only(&self, includes: &[String]) -> Self {
        let wanted = |name: &str| includes.iter().any(|include| include == name);
        Self {
            containers: self.containers.clone().filter(|_| wanted("containers")),
            external_processes: self.external_processes.clone().filter(|_| wanted("external_processes")),
            fragments: self.fragments.clone().filter(|_| wanted("fragments")),
            platform_rules: self.platform_rules.clone().filter(|_| wanted("platform_rules")),
            transparency_trust_lists: self
                .transparency_trust_lists
                .clone()
                .filter(|_| wanted("transparency_trust_lists")),
        }
    }
}

/// Reads a value that is there, be it `null`.
fn stated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Containers as documents write them, to be shared.
fn read_shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Arc<Container>>>, D::Error> {
    let containers: Option<Vec<Container>> = Option::deserialize(deserializer)?;
    Ok(containers.map(|containers| containers.into_iter().map(Arc::new).collect()))
}

/// The inverse of [`read_shared`].
fn write_shared<S: Serializer>(containers: &Option<Vec<Arc<Container>>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(containers.iter().flatten().map(|container| &**container))
}
