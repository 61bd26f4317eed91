//! What a rule answered, made into a verdict: by the framework, by the document itself, or by default.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value, json};

use crate::{
    denial::{Field, Reason},
    document::RuleKind,
    error::PolicyError,
    fragment::{Contents, Module},
    framework::{Decision, Framework, Verdict},
    platform::Platform,
    point::{Before, Point},
    policy::Policy,
    request::{Capabilities, Request},
    state::{Change, State},
};

/// What a document's rule says, before defaults.
#[expect(clippy::large_enum_variant, reason = "one at a time, and looked at at once")]
pub(crate) enum RuleAnswer {
    /// The typed framework's decision.
    Typed(Decision),
    /// The value that Rego gave; absent if undefined.
    Written(Option<Value>),
    /// The document has no such rule.
    Missing,
}

/// Asks the document's rule at a point.
pub(crate) fn ask(
    policy: &mut Policy,
    platform: &Platform,
    state: &State,
    point: Point,
    request: Request<'_>,
    input: &Value,
) -> Result<RuleAnswer, Vec<Reason>> {
    match policy.rules.get(&point) {
        None => Ok(RuleAnswer::Missing),
        Some(RuleKind::Alias) => Ok(RuleAnswer::Typed(Framework { policy, platform, state }.decide(point, request))),
        Some(RuleKind::Written) => {
            let data = data(policy, platform, state, request);
            evaluate(policy, point.name(), &state.modules, input, &data).map(RuleAnswer::Written)
        }
    }
}

/// Evaluates a hand-written rule. One that cannot be evaluated allows nothing.
fn evaluate(
    policy: &mut Policy,
    rule: &str,
    modules: &[Arc<Module>],
    input: &Value,
    data: &Value,
) -> Result<Option<Value>, Vec<Reason>> {
    let failed = |error: String| vec![Reason::new(Field::Policy, "a rule that can be evaluated", error)];
    let document = policy.document.as_mut().ok_or_else(|| failed(format!("`{rule}`, whose document is gone")))?;
    document.answer(rule, modules, input, data).map_err(|error| failed(error.to_string()))
}

/// Everything that a hand-written rule may read: what the framework decides at each point, the memory, the guest's choices.
fn data(policy: &Policy, platform: &Platform, state: &State, request: Request<'_>) -> Value {
    let framework = Framework { policy, platform, state };
    let results: Map<String, Value> = Point::ALL
        .iter()
        .map(|point| {
            let result = framework.decide(*point, request);
            (point.name().to_owned(), result.map_or_else(|_| json!({"allowed": false}), |verdict| verdict.to_json()))
        })
        .collect();
    json!({
        "framework": results,
        "metadata": state.to_metadata(),
        "defaultMounts": platform.default_mounts,
        "privilegedMounts": platform.privileged_mounts,
        "defaultUnprivilegedCapabilities": platform.default_capabilities,
        "defaultPrivilegedCapabilities": platform.privileged_capabilities,
    })
}

/// What a fragment's module says, which is one of the state's. It may read the input and the memory, but nothing of the
/// framework, which waits for it.
pub(crate) fn contents(
    policy: &mut Policy,
    state: &State,
    module: &Module,
    input: &Value,
) -> Result<Contents, PolicyError> {
    let data = json!({"metadata": state.to_metadata()});
    policy.with_document(|document| {
        Contents::read(module, |name| document.fragment_value(module, name, &state.modules, input, &data))
    })
}

/// The decision at a point: the rule's answer, or the default of its time where there is none.
pub(crate) fn decide(
    policy: &mut Policy,
    platform: &Platform,
    state: &State,
    point: Point,
    request: Request<'_>,
    input: &Value,
) -> Decision {
    match ask(policy, platform, state, point, request, input)? {
        RuleAnswer::Typed(decision) => decision,
        RuleAnswer::Written(Some(value)) => read_answer(&value),
        RuleAnswer::Written(None) | RuleAnswer::Missing => {
            let older = policy.api_version.is_some_and(|version| version < point.introduced());
            match (older, point.before()) {
                (true, Before::Allow) => Ok(Verdict::default()),
                (true, Before::Framework) => Framework { policy, platform, state }.decide(point, request),
                _ => Err(vec![Reason::new(Field::Policy, format!("a rule `{point}` that answers"), "none")]),
            }
        }
    }
}

/// Why a request is denied, as the policy words it: `data.policy.reason`. `null` where it says nothing.
///
/// # Errors
/// What kept its rule from being evaluated, in words.
pub(crate) fn reason(
    policy: &mut Policy,
    platform: &Platform,
    state: &State,
    point: Point,
    request: Request<'_>,
    input: &Value,
) -> Result<Value, String> {
    let framework = Framework { policy, platform, state };
    let own = framework.reason(point, request);
    let Some(document) = &policy.document else { return Ok(own) };
    if !document.has("reason") {
        return Ok(Value::Null);
    }
    let mut data = data(policy, platform, state, request);
    if let Some(framework) = data.get_mut("framework").and_then(Value::as_object_mut) {
        framework.extend(own.as_object().cloned().unwrap_or_default());
        framework.insert("reason".to_owned(), own);
    }
    let Some(document) = policy.document.as_mut() else { return Ok(Value::Null) };
    let answer = document.answer("reason", &state.modules, input, &data).map_err(|error| error.to_string())?;
    Ok(answer.unwrap_or_default())
}

/// Reads what a hand-written rule answered.
fn read_answer(value: &Value) -> Decision {
    let malformed = |what: &str| vec![Reason::new(Field::Policy, what, "something else in the rule's answer")];
    match value.get("allowed") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => {
            return Err(vec![Reason::new(Field::Policy, "allowed by the policy's own rule", "denied by it")]);
        }
        _ => return Err(malformed("`allowed`, true or false")),
    }
    let given = |field: &str| value.get(field).filter(|value| !value.is_null()).cloned();
    let env = given("env_list")
        .map(|list| serde_json::from_value(list).map_err(|_| malformed("`env_list`, a list of strings")))
        .transpose()?;
    let capabilities = given("caps_list")
        .map(|sets| serde_json::from_value(sets).map_err(|_| malformed("`caps_list`, five lists of strings")))
        .transpose()?;
    let stdio = given("allow_stdio_access")
        .map(|stdio| stdio.as_bool().ok_or_else(|| malformed("`allow_stdio_access`, true or false")))
        .transpose()?;
    let operations = given("metadata").unwrap_or_else(|| json!([]));
    let changes = operations.as_array().ok_or_else(|| malformed("`metadata`, a list of operations"))?;
    let changes: Result<Vec<_>, _> = changes.iter().map(Change::from_operation).collect();
    let changes = changes.map_err(|error| vec![Reason::new(Field::Policy, "changes of state", error.to_string())])?;
    let parameters = given("parameters")
        .map(|sets| serde_json::from_value(sets).map_err(|_| malformed("`parameters`, a list")))
        .transpose()?;
    let ledgers = given("allowed_ledgers")
        .map(|list| serde_json::from_value(list).map_err(|_| malformed("`allowed_ledgers`, a list of strings")))
        .transpose()?;
    let add_module = value.get("add_module").and_then(Value::as_bool);
    Ok(Verdict { changes, env, capabilities, stdio, parameters, add_module, ledgers, containers: Vec::new() })
}

/// What of the requested variables the policy keeps, in the request's order. A policy can only take away.
pub(crate) fn kept_env(requested: &[String], kept: Option<&Vec<String>>) -> Vec<String> {
    let Some(kept) = kept else { return requested.to_vec() };
    let kept: BTreeSet<_> = kept.iter().collect();
    requested.iter().filter(|variable| kept.contains(variable)).cloned().collect()
}

/// What of the requested capabilities the policy keeps. A policy can only take away.
pub(crate) fn kept_capabilities(requested: &Capabilities, kept: Option<&Capabilities>) -> Capabilities {
    let Some(kept) = kept else { return requested.clone() };
    let [a, b, c, d, e] = requested.sets();
    let [a0, b0, c0, d0, e0] = kept.sets();
    Capabilities::from_sets(
        [(a, a0), (b, b0), (c, c0), (d, d0), (e, e0)]
            .map(|(requested, kept)| requested.iter().filter(|name| kept.contains(name)).cloned().collect()),
    )
}
