//! What a fragment's module says.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Module;
use crate::{
    model::{Container, ExternalProcess, FragmentRule, Included},
    point::FRAMEWORK_VERSION,
    version::Version,
};

/// Since when a framework knows what a platform may add and which trust lists may be loaded.
const PLATFORMS: Version = Version::new(0, 5, 0);

/// What a fragment states; absent is what it does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) svn: Option<Value>,
    framework_version: Option<Value>,
    containers: Option<Value>,
    external_processes: Option<Value>,
    fragments: Option<Value>,
    platform_rules: Option<Value>,
    transparency_trust_lists: Option<Value>,
}

impl Contents {
    /// Reads a module, given the value of each of its rules.
    pub(crate) fn read<E>(
        module: &Module,
        mut value_of: impl FnMut(&str) -> Result<Option<Value>, E>,
    ) -> Result<Self, E> {
        let mut read = |name: &str| if module.has(name) { value_of(name) } else { Ok(None) };
        let (version, old_version) = (read("framework_version")?, read("framework_svn")?);
        Ok(Self {
            // What is false counts as not said.
            svn: read("svn")?.filter(|svn| *svn != Value::Bool(false)),
            framework_version: version.or(old_version),
            containers: read("containers")?,
            external_processes: read("external_processes")?,
            fragments: read("fragments")?,
            platform_rules: read("platform_rules")?,
            transparency_trust_lists: read("transparency_trust_lists")?,
        })
    }

    /// The framework that the fragment was written for, if this engine has it.
    pub(crate) fn framework(&self) -> Result<Version, String> {
        let Some(value) = &self.framework_version else { return Err("none".to_owned()) };
        let version: Option<Version> = value.as_str().and_then(|text| text.parse().ok());
        version.filter(|version| *version <= FRAMEWORK_VERSION).ok_or_else(|| value.to_string())
    }

    /// Every part, with what an older framework could not say filled in.
    pub(crate) fn parts(&self, framework: Version) -> Result<Included, String> {
        let old = framework < FRAMEWORK_VERSION;
        let mut containers: Vec<Container> = list("containers", self.containers.as_ref())?;
        let mut external_processes: Vec<ExternalProcess> =
            list("external_processes", self.external_processes.as_ref())?;
        let mut fragments = self.fragment_rules()?;
        if old {
            containers = containers.into_iter().filter_map(|container| container.upgraded(framework)).collect();
            external_processes.retain(ExternalProcess::is_whole);
            external_processes.iter_mut().for_each(|process| process.other.clear());
            fragments = fragments.into_iter().filter_map(FragmentRule::upgraded).collect();
        }
        let young = |value: Option<&'_ Value>| value.filter(|_| framework >= PLATFORMS).cloned();
        Ok(Included {
            containers: Some(containers.into_iter().map(Into::into).collect()),
            external_processes: Some(external_processes),
            fragments: Some(fragments),
            platform_rules: Some(list("platform_rules", young(self.platform_rules.as_ref()).as_ref())?),
            transparency_trust_lists: Some(list(
                "transparency_trust_lists",
                young(self.transparency_trust_lists.as_ref()).as_ref(),
            )?),
        })
    }

    /// The rules for further fragments, as they stand.
    pub(crate) fn fragment_rules(&self) -> Result<Vec<FragmentRule>, String> {
        list("fragments", self.fragments.as_ref())
    }
}

/// A list in its type; absent is empty.
fn list<T: DeserializeOwned>(name: &str, value: Option<&Value>) -> Result<Vec<T>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    serde_json::from_value(value.clone()).map_err(|error| format!("`{name}` that is malformed: {error}"))
}
