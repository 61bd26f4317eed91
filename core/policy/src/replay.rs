//! Replaying recorded decisions of another engine: the same question, in the same state, to this one.

mod compare;
mod corpus;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

pub use self::corpus::{Corpus, CorpusError, Decision};
use crate::{
    enforcer::{RuleAnswer, ask, contents},
    error::PolicyError,
    fragment::{Contents, Module},
    framework::Framework,
    pattern::Pattern,
    platform::Platform,
    point::Point,
    policy::Policy,
    record::Typed,
    request::{FragmentQuestion, Mount, Request, TrustListQuestion},
    state::State,
};

/// A recorded engine: its policy, the data that its guest gave it, and the fragments that are loaded.
#[derive(Debug)]
pub struct Replay {
    policy: Policy,
    platform: Platform,
    modules: Vec<(String, Result<Arc<Module>, String>)>,
}

/// Inputs that in this engine are not a request's, but the guest's own.
const OF_THE_GUEST: [&str; 8] = [
    "hugePagesDir",
    "isSandboxContainer",
    "mountPathPrefix",
    "mountPathRegex",
    "name",
    "rootPrefix",
    "rule",
    "sandboxDir",
];

/// What the reference engine appends to a fragment's text, up to the values of its parameters: one line of JSON.
const PARAMETERS: &str = "\n__fragment_parameters := ";

impl Replay {
    /// The engine for a policy text and the recorded data: `defaultMounts`, `privilegedMounts`,
    /// `defaultUnprivilegedCapabilities`, `defaultPrivilegedCapabilities`.
    ///
    /// # Errors
    /// [`PolicyError`] if the text is no policy, or the data is malformed.
    pub fn new(policy: &str, data: &Value) -> Result<Self, PolicyError> {
        let policy = Policy::parse(policy)?;
        let platform = Platform {
            default_mounts: field(data, "defaultMounts")?,
            privileged_mounts: field(data, "privilegedMounts")?,
            default_capabilities: field(data, "defaultUnprivilegedCapabilities")?,
            privileged_capabilities: field(data, "defaultPrivilegedCapabilities")?,
            ..Platform::guest()
        };
        Ok(Self { policy, platform, modules: Vec::new() })
    }

    /// A fragment's module is loaded, in the place of one with the same identifier. One that cannot be loaded makes every
    /// question fail that depends on it.
    pub fn add_module(&mut self, id: &str, issuer: &str, feed: &str, namespace: &str, code: &str) {
        self.remove_module(id);
        let (text, parameters) = without_parameters(code);
        let module = Module::parse(issuer, feed, namespace, text, &parameters);
        self.modules.push((id.to_owned(), module.map(Arc::new).map_err(|error| error.to_string())));
    }

    /// A fragment's module is unloaded.
    pub fn remove_module(&mut self, id: &str) {
        self.modules.retain(|(known, _)| known != id);
    }

    /// Gives every container these mounts by default, too.
    fn extend_default_mounts(&mut self, mounts: Vec<Mount>) {
        self.platform.default_mounts.extend(mounts);
    }

    /// The value of the policy's rule for a point, with the memory as it was: what `data.policy.<point>` is. Absent where
    /// the rule is missing or undefined.
    ///
    /// # Errors
    /// What could not be read or evaluated, in words.
    pub fn answer(&mut self, point: Point, input: &Value, metadata: &Value) -> Result<Option<Value>, String> {
        let mut state = State::from_metadata(metadata).map_err(|error| error.to_string())?;
        state.modules = self.modules.iter().map(|(_, module)| module.clone()).collect::<Result<_, _>>()?;
        let platform = self.platform_for(input);
        let request = request_of(input);
        let question: Option<FragmentQuestion> = (point == Point::LoadFragment).then(|| read(&request)).flatten();
        let said = match &question {
            Some(question) if question.fragment_loaded => Some(self.contents(&state, question, input)?),
            _ => None,
        };
        let trust_list: Option<TrustListQuestion> =
            (point == Point::LoadTransparencyTrustList).then(|| read(&request)).flatten();
        let typed = Typed::read_or_nothing(point, &request);
        let request = match (&question, &trust_list) {
            (Some(question), _) => Request::LoadFragment(question, said.as_ref()),
            (None, Some(question)) => Request::LoadTransparencyTrustList(question),
            (None, None) => typed.request(),
        };
        let answer = ask(&mut self.policy, &platform, &state, point, request, input)
            .map_err(|reasons| reasons.first().map_or_else(String::new, ToString::to_string))?;
        Ok(match answer {
            RuleAnswer::Typed(Ok(verdict)) => Some(verdict.to_json()),
            RuleAnswer::Typed(Err(_)) => Some(json!({"allowed": false})),
            RuleAnswer::Written(value) => value,
            RuleAnswer::Missing => None,
        })
    }

    /// What the module says that a question is about.
    fn contents(&mut self, state: &State, question: &FragmentQuestion, input: &Value) -> Result<Contents, String> {
        let named = |module: &&Arc<Module>| Some(&module.namespace) == question.namespace.as_ref();
        let Some(module) = state.modules.iter().rfind(named) else { return Ok(Contents::default()) };
        contents(&mut self.policy, state, module, input).map_err(|error| error.to_string())
    }

    /// Why the request is denied, as the framework words it: what `data.framework.reason` is.
    ///
    /// # Errors
    /// What could not be read, in words.
    pub fn reason(&self, point: Point, input: &Value, metadata: &Value) -> Result<Value, String> {
        let state = State::from_metadata(metadata).map_err(|error| error.to_string())?;
        let platform = self.platform_for(input);
        let typed = Typed::read_or_nothing(point, &request_of(input));
        Ok(Framework { policy: &self.policy, platform: &platform, state: &state }.reason(point, typed.request()))
    }

    /// The guest's choices, as the recorded input has them.
    fn platform_for(&self, input: &Value) -> Platform {
        let mut platform = self.platform.clone();
        let text = |name: &str| input.get(name).and_then(Value::as_str);
        if let Some(targets) = text("mountPathRegex") {
            platform.layer_targets = Pattern::anchored(targets);
            platform.scratch_targets = Pattern::anchored(targets);
        }
        if let (Some(root), Some(below)) = (text("rootPrefix"), text("mountPathPrefix")) {
            platform.share_targets = Some((root.to_owned(), below.to_owned()));
        }
        platform.sandbox_dir = text("sandboxDir").unwrap_or_default().to_owned();
        platform.huge_pages_dir = text("hugePagesDir").unwrap_or_default().to_owned();
        platform.sandbox_container = input.get("isSandboxContainer").and_then(Value::as_bool).unwrap_or_default();
        platform
    }
}

/// A fragment's own text, and the values of its parameters, of the module that the reference engine made of it.
fn without_parameters(code: &str) -> (&str, Value) {
    let parts =
        code.rfind(PARAMETERS).and_then(|at| Some((code.get(..at)?, code.get(at..)?.strip_prefix(PARAMETERS)?)));
    let read = |line: &str| serde_json::from_str(line).ok().filter(Value::is_object);
    let given = parts.and_then(|(text, rest)| Some((text, read(rest.lines().next()?)?)));
    given.unwrap_or_else(|| (code, Value::Object(Map::new())))
}

/// The part of a recorded input that is a request here.
fn request_of(input: &Value) -> Value {
    let fields = input.as_object().into_iter().flatten();
    let kept = fields.filter(|(name, _)| !OF_THE_GUEST.contains(&name.as_str()));
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

/// The request, if the input is one. What is malformed is no request, and the framework allows it nothing.
fn read<T: DeserializeOwned>(request: &Value) -> Option<T> {
    serde_json::from_value(request.clone()).ok()
}

/// A list of the recorded data; absent is empty.
fn field<T: DeserializeOwned + Default>(data: &Value, object: &'static str) -> Result<T, PolicyError> {
    let Some(value) = data.get(object).filter(|value| !value.is_null()) else { return Ok(T::default()) };
    serde_json::from_value(value.clone()).map_err(|error| PolicyError::Malformed { object, error: error.to_string() })
}
