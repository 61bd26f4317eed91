//! The reference framework, evaluated by regorus. Its text comes with regorus' package, from cargo's own copy of it.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use regorus::{Engine, PolicyLengthConfig};
use serde_json::{Value, json};

use super::question::Question;
use crate::process::{command, output};

/// What every policy is evaluated beside.
#[derive(Debug)]
pub(super) struct Reference {
    /// Name and text of each module.
    modules: Vec<(String, String)>,
}

impl Reference {
    /// Finds it.
    ///
    /// # Errors
    /// Where cargo does not know the package, or the package has no such files.
    pub(super) fn find(root: &Path) -> Result<Self> {
        let metadata: Value = serde_json::from_str(&output(&mut command(
            root,
            "cargo",
            ["metadata", "--format-version=1", "--locked"],
        ))?)?;
        let mut packages = metadata["packages"].as_array().context("cargo metadata lists packages")?.iter();
        let regorus = packages.find(|package| package["name"] == "regorus").context("no package regorus")?;
        let manifest = regorus["manifest_path"].as_str().context("the package regorus has no manifest")?;
        let folder = Path::new(manifest).parent().context("a manifest is in a folder")?.join("tests/aci");
        let read = |name: &str| -> Result<(String, String)> {
            let file = folder.join(name);
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("the reference framework is not in regorus' package: {}", file.display()))?;
            Ok((name.to_owned(), text))
        };
        Ok(Self { modules: vec![read("framework.rego")?, read("api.rego")?] })
    }
}

/// A policy beside the framework, and what has happened under it.
pub(super) struct Anchor {
    engine: Engine,
    data: Value,
}

impl Anchor {
    /// Loads a policy, up to where it can answer.
    ///
    /// # Errors
    /// Where one of the texts is no Rego.
    pub(super) fn load(reference: &Reference, policy: &str) -> Result<Self> {
        let mut engine = Engine::new();
        engine.set_rego_v0(true);
        // Policies hold longer lines than the engine takes by default.
        engine.set_policy_length_config(PolicyLengthConfig {
            max_col: NonZeroU32::MAX,
            max_file_bytes: NonZeroUsize::MAX,
            max_lines: NonZeroUsize::MAX,
        });
        for (name, text) in &reference.modules {
            engine.add_policy(name.clone(), text.clone())?;
        }
        engine.add_policy("policy.rego".to_owned(), policy.to_owned())?;
        let data = json!({
            "defaultMounts": [],
            "privilegedMounts": [],
            "sandboxPrefix": "sandbox://",
            "hugePagesPrefix": "hugepages://",
            "plan9Prefix": "plan9://",
            "metadata": {},
        });
        let mut anchor = Self { engine, data };
        anchor.take_data()?;
        Ok(anchor)
    }

    /// Gives the engine what has happened, and has it prepare its rules, which it puts off until it is asked for one.
    fn take_data(&mut self) -> Result<()> {
        self.engine.clear_data();
        self.engine.add_data(serde_json::from_value(self.data.clone())?)?;
        self.engine.eval_rule("data.policy.api_version".to_owned())?;
        Ok(())
    }

    /// Asks. Whether it is allowed.
    ///
    /// # Errors
    /// Where the rule cannot be evaluated.
    pub(super) fn ask(&mut self, rule: &str, input: &regorus::Value) -> Result<bool> {
        Ok(self.evaluate(rule, input)?["allowed"] == regorus::Value::Bool(true))
    }

    /// The whole answer to a question. Nothing changes.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) fn answer(&mut self, question: &Question) -> Result<Value> {
        let input = serde_json::from_value(question.input()?)?;
        Ok(serde_json::to_value(self.evaluate(&rule(question), &input)?)?)
    }

    fn evaluate(&mut self, rule: &str, input: &regorus::Value) -> Result<regorus::Value> {
        self.engine.set_input(input.clone());
        self.engine.eval_rule(rule.to_owned())
    }

    /// Remembers what an answer says of an act that was done.
    ///
    /// # Errors
    /// Where the answer asks for a change of another form.
    pub(super) fn done(&mut self, answer: &Value) -> Result<()> {
        for change in answer["metadata"].as_array().into_iter().flatten() {
            let (name, key) = (change["name"].as_str(), change["key"].as_str());
            let (name, key) = (name.context("a change has no name")?, key.context("a change has no key")?);
            let action = change["action"].as_str().unwrap_or_default();
            ensure!(matches!(action, "add" | "update"), "a change that is none of a start: {action:?}");
            self.data["metadata"][name][key] = change["value"].clone();
        }
        self.take_data()
    }
}

/// The rule that answers a question.
pub(super) fn rule(question: &Question) -> String {
    format!("data.policy.{}", question.point())
}
