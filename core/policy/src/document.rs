//! A policy document as Rego: parsed and evaluated by regorus, the only parser of documents there is here.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
};

use core::time::Duration;

use regorus::{
    Engine, PolicyLengthConfig,
    unstable::{Expr, Module as Ast, Rule, RuleHead},
    utils::limits::ExecutionTimerConfig,
};
use serde_json::Value;

use crate::{error::PolicyError, fragment::Module, lines::Lines, nesting, point::Point};

/// Longest policy text in bytes.
pub const MAX_TEXT: usize = 4 << 20;
/// Longest evaluation of one rule. Far above what any sensible rule takes, even on an emulated processor.
const MAX_EVALUATION: Duration = Duration::from_secs(10);
/// Steps of an evaluation between looks at the time.
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::MIN.saturating_add(999);
/// Name of the document in messages.
const FILE: &str = "policy.rego";

/// How a document answers at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleKind {
    /// `point := data.framework.point` and nothing else: the typed engine answers.
    Alias,
    /// Anything else: Rego answers.
    Written,
}

/// A parsed document.
pub(crate) struct Document {
    engine: Engine,
    rules: BTreeMap<String, RuleKind>,
    /// The engine with fragments beside the document, and which.
    beside: Option<(Vec<Arc<Module>>, Engine)>,
}

impl Document {
    /// Parses a document, in the first version of Rego (v1, then v0) that takes it.
    pub(crate) fn parse(text: &str) -> Result<Self, PolicyError> {
        let (mut engine, _) = parse_text(text)?;
        let packages = engine.get_packages().map_err(|error| PolicyError::Syntax(shorten(&error)))?;
        if packages != ["data.policy"] {
            return Err(PolicyError::Package(packages.join(", ")));
        }
        let rules = engine.get_modules().iter().flat_map(|module| rules(module)).collect();
        Ok(Self { engine, rules, beside: None })
    }

    /// How the document answers at a point; absent where it does not.
    pub(crate) fn rule(&self, point: Point) -> Option<RuleKind> {
        self.kind(point.name())
    }

    /// What kind of rule has this name.
    pub(crate) fn kind(&self, name: &str) -> Option<RuleKind> {
        self.rules.get(name).copied()
    }

    /// Whether the document has a rule of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.rules.contains_key(name)
    }

    /// The parsed text.
    pub(crate) fn modules(&mut self) -> Vec<regorus::unstable::Ref<Ast>> {
        self.engine.get_modules().clone()
    }

    /// The value of a rule that needs no input; absent where it has none.
    pub(crate) fn constant(&mut self, name: &str) -> Result<Option<Value>, PolicyError> {
        if !self.has(name) {
            return Ok(None);
        }
        eval(&mut self.engine, "policy", name)
    }

    /// What the document itself answers at a point, given the fragments beside it, the input and everything else it may
    /// read. Absent where its conditions do not hold.
    pub(crate) fn answer(
        &mut self,
        name: &str,
        modules: &[Arc<Module>],
        input: &Value,
        data: &Value,
    ) -> Result<Option<Value>, PolicyError> {
        self.value("policy", name, modules, input, data)
    }

    /// The value of a rule of a fragment, which is one of those beside the document.
    pub(crate) fn fragment_value(
        &mut self,
        module: &Module,
        name: &str,
        modules: &[Arc<Module>],
        input: &Value,
        data: &Value,
    ) -> Result<Option<Value>, PolicyError> {
        self.value(&module.namespace, name, modules, input, data)
    }

    /// The value of a rule of the document or of a fragment beside it.
    fn value(
        &mut self,
        package: &str,
        name: &str,
        modules: &[Arc<Module>],
        input: &Value,
        data: &Value,
    ) -> Result<Option<Value>, PolicyError> {
        let engine = self.engine_with(modules)?;
        set(engine, input, data)?;
        eval(engine, package, name)
    }

    /// The engine with exactly these fragments beside the document.
    fn engine_with(&mut self, modules: &[Arc<Module>]) -> Result<&mut Engine, PolicyError> {
        if modules.is_empty() {
            self.beside = None;
            return Ok(&mut self.engine);
        }
        let same = |known: &[Arc<Module>]| {
            known.len() == modules.len() && known.iter().zip(modules).all(|(one, other)| Arc::ptr_eq(one, other))
        };
        let engine = match self.beside.take() {
            Some((known, engine)) if same(&known) => engine,
            _ => {
                let mut engine = self.engine.clone();
                for module in modules {
                    add(&mut engine, &format!("{}.rego", module.namespace), &module.text, module.old)
                        .map_err(PolicyError::Syntax)?;
                }
                engine
            }
        };
        Ok(&mut self.beside.insert((modules.to_vec(), engine)).1)
    }
}

/// Gives a document's rules what they may read.
fn set(engine: &mut Engine, input: &Value, data: &Value) -> Result<(), PolicyError> {
    let failed = |error: String| PolicyError::Evaluation { rule: "input".to_owned(), error };
    engine.clear_data();
    engine.add_data(from_json(data).map_err(failed)?).map_err(|error| failed(shorten(&error)))?;
    engine.set_input(from_json(input).map_err(failed)?);
    Ok(())
}

/// The value of a rule; absent where it has none.
fn eval(engine: &mut Engine, package: &str, name: &str) -> Result<Option<Value>, PolicyError> {
    let failed = |error: String| PolicyError::Evaluation { rule: name.to_owned(), error };
    let value = engine.eval_rule(format!("data.{package}.{name}")).map_err(|error| failed(shorten(&error)))?;
    to_json(&value).map_err(failed)
}

/// An engine with one text in it, in the first version of Rego that takes it; whether that is version 0.
pub(crate) fn parse_text(text: &str) -> Result<(Engine, bool), PolicyError> {
    if text.len() > MAX_TEXT {
        return Err(PolicyError::TooLong { found: text.len(), most: MAX_TEXT });
    }
    nesting::check(text)?;
    match rego_engine(FILE, text, false) {
        Ok(engine) => Ok((engine, false)),
        Err(first) => match rego_engine(FILE, text, true) {
            Ok(engine) => Ok((engine, true)),
            Err(_) => Err(PolicyError::Syntax(first)),
        },
    }
}

/// The packages of an engine's modules, as `data.NAME`, and the names of their rules.
pub(crate) fn packages_and_rules(mut engine: Engine) -> Result<(Vec<String>, BTreeSet<String>), PolicyError> {
    let packages = engine.get_packages().map_err(|error| PolicyError::Syntax(shorten(&error)))?;
    let names = engine.get_modules().iter().flat_map(|module| rules(module).into_keys()).collect();
    Ok((packages, names))
}

/// An engine with one text in it, under the name `file`, in the first version of Rego where it is `old`. It takes lines of
/// any length and evaluates for a limited time.
///
/// # Errors
/// Where the text is none of that version, in the parser's words.
pub fn rego_engine(file: &str, text: &str, old: bool) -> Result<Engine, String> {
    let mut engine = Engine::new();
    // MAX_TEXT bounds it all; generators write long lines and many.
    engine.set_policy_length_config(PolicyLengthConfig {
        max_col: NonZeroU32::MAX,
        max_file_bytes: NonZeroUsize::MAX,
        max_lines: NonZeroUsize::MAX,
    });
    engine.set_execution_timer_config(ExecutionTimerConfig { limit: MAX_EVALUATION, check_interval: CHECK_INTERVAL });
    // A policy's prints are for its author, not for the guest's console.
    engine.set_gather_prints(true);
    add(&mut engine, file, text, old)?;
    Ok(engine)
}

/// Adds a text to an engine.
fn add(engine: &mut Engine, file: &str, text: &str, old: bool) -> Result<(), String> {
    engine.set_rego_v0(old);
    engine.add_policy(file.to_owned(), Lines::new(text)?.text).map_err(|error| shorten(&error))?;
    Ok(())
}

/// Names of a module's rules and how each answers. A name with more than one rule is never an alias.
fn rules(module: &Ast) -> BTreeMap<String, RuleKind> {
    // An import could give `data` another meaning; then nothing is taken for an alias.
    let shadowed = module.imports.iter().any(|import| {
        let name = import.r#as.as_ref().unwrap_or_else(|| import.refr.span()).text();
        let mut parts = name.rsplit(|c: char| !c.is_alphanumeric() && c != '_');
        parts.find(|part| !part.is_empty()) == Some("data")
    });
    let mut kinds = BTreeMap::new();
    for rule in &module.policy {
        let Some((name, kind)) = rule_kind(rule) else { continue };
        let kind = if shadowed { RuleKind::Written } else { kind };
        kinds.entry(name).and_modify(|known| *known = RuleKind::Written).or_insert(kind);
    }
    if kinds.contains_key("data") {
        kinds.values_mut().for_each(|kind| *kind = RuleKind::Written);
    }
    kinds
}

/// A rule's name, and whether it is an alias on its own.
fn rule_kind(rule: &Rule) -> Option<(String, RuleKind)> {
    let name = rule_name(rule)?;
    let alias = match rule {
        Rule::Spec { head: RuleHead::Compr { assign: Some(assign), .. }, bodies, .. } if bodies.is_empty() => {
            alias_target(&assign.value)
        }
        _ => None,
    };
    let plain = matches!(head(rule), Expr::Var { .. });
    let kind = if plain && alias.as_deref() == Some(&name) { RuleKind::Alias } else { RuleKind::Written };
    Some((name, kind))
}

/// A rule's name.
pub(crate) fn rule_name(rule: &Rule) -> Option<String> {
    base_name(head(rule))
}

/// What a rule defines.
fn head(rule: &Rule) -> &Expr {
    match rule {
        Rule::Default { refr, .. } => refr,
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
        },
    }
}

/// The name that a rule's head starts with.
fn base_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Var { span, .. } => Some(span.text().to_owned()),
        Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } => base_name(refr),
        _ => None,
    }
}

/// `X` if the expression is `data.framework.X`.
fn alias_target(expr: &Expr) -> Option<String> {
    let Expr::RefDot { refr, field: (field, _), .. } = expr else { return None };
    let Expr::RefDot { refr: data, field: (framework, _), .. } = refr.as_ref() else { return None };
    let Expr::Var { span, .. } = data.as_ref() else { return None };
    (span.text() == "data" && framework.text() == "framework").then(|| field.text().to_owned())
}

fn from_json(value: &Value) -> Result<regorus::Value, String> {
    serde_json::from_value(value.clone()).map_err(|error| error.to_string())
}

/// The value as JSON, sets as lists; absent if undefined.
fn to_json(value: &regorus::Value) -> Result<Option<Value>, String> {
    if *value == regorus::Value::Undefined {
        return Ok(None);
    }
    serde_json::to_value(value).map(Some).map_err(|error| error.to_string())
}

/// A message of bounded length.
fn shorten(error: &impl ToString) -> String {
    error.to_string().chars().take(2000).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_versions_of_rego_load() {
        let old = "package policy\nallow { input.x == 1 }\nmount_device := data.framework.mount_device\n";
        let document = Document::parse(old).unwrap();
        assert_eq!(document.rule(Point::MountDevice), Some(RuleKind::Alias));
        assert!(Document::parse("package policy\nallow if input.x == 1\n").is_ok());
        assert!(matches!(Document::parse("package policy\nallow ??"), Err(PolicyError::Syntax(_))));
    }

    #[test]
    fn only_a_plain_alias_is_an_alias() {
        for text in [
            "mount_device := data.framework.mount_overlay",
            "mount_device := data.framework.mount_device if input.x",
            "default mount_device := {\"allowed\": true}\nmount_device := data.framework.mount_device if input.x",
            "mount_device := data.framework.mount_device\nmount_device := {\"allowed\": true} if input.x",
            "mount_device := data[\"framework\"].mount_device",
            "mount_device := {\"allowed\": true}",
            "import data.other as data\nmount_device := data.framework.mount_device",
            "mount_device := other.framework.mount_device\nother := {}",
            "mount_device[\"allowed\"] := true",
        ] {
            match Document::parse(&format!("package policy\n{text}\n")) {
                Ok(document) => assert_eq!(document.rule(Point::MountDevice), Some(RuleKind::Written), "{text}"),
                Err(error) => assert!(text.starts_with("import"), "{text}: {error}"),
            }
        }
    }

    #[test]
    fn other_packages_are_refused() {
        for package in ["framework", "policy.more", "data.policy", "Policy"] {
            let text = format!("package {package}\nmount_device := {{\"allowed\": true}}\n");
            assert!(Document::parse(&text).is_err(), "{package}");
        }
        assert!(Document::parse("").is_err());
    }

    #[test]
    fn long_lines_load_and_long_texts_do_not() {
        let long = format!("package policy\ncontainers := [{{\"name\": \"{}\"}}]\n", "x".repeat(100_000));
        let mut document = Document::parse(&long).unwrap();
        assert_eq!(document.constant("containers").unwrap().unwrap()[0]["name"].as_str().unwrap().len(), 100_000);
        let longer = format!("package policy\n# {}\n", "x".repeat(MAX_TEXT));
        assert!(matches!(Document::parse(&longer), Err(PolicyError::TooLong { .. })));
    }

    #[test]
    fn rules_read_input_and_data() {
        let text = "package policy\nget_properties := {\"allowed\": data.framework.get_properties.allowed} if input.x == data.metadata.y\n";
        let mut document = Document::parse(text).unwrap();
        let data = json!({"framework": {"get_properties": {"allowed": true}}, "metadata": {"y": 7}});
        let answer =
            |document: &mut Document, x: u32| document.answer("get_properties", &[], &json!({"x": x}), &data).unwrap();
        assert_eq!(answer(&mut document, 7), Some(json!({"allowed": true})));
        assert_eq!(answer(&mut document, 8), None);
        assert_eq!(answer(&mut document, 7), Some(json!({"allowed": true})));
    }
}
