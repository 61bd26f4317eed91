//! Replaying recorded decisions of another engine: the same question, in the same state, to this one.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{
    enforcer::{RuleAnswer, ask},
    error::PolicyError,
    framework::Framework,
    pattern::Pattern,
    platform::Platform,
    point::Point,
    policy::Policy,
    record::Typed,
    request::Request,
    state::State,
};

/// A recorded engine: its policy and the data that its guest gave it.
#[derive(Debug)]
pub struct Replay {
    policy: Policy,
    platform: Platform,
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
        Ok(Self { policy, platform })
    }

    /// The value of the policy's rule for a point, with the memory as it was: what `data.policy.<point>` is. Absent where
    /// the rule is missing or undefined.
    ///
    /// # Errors
    /// What could not be read or evaluated, in words.
    pub fn answer(&mut self, point: Point, input: &Value, metadata: &Value) -> Result<Option<Value>, String> {
        let state = State::from_metadata(metadata).map_err(|error| error.to_string())?;
        let platform = self.platform_for(input);
        let request = request_of(input);
        let mut ask = |request: Request<'_>| {
            ask(&mut self.policy, &platform, &state, point, request, input)
                .map_err(|reasons| reasons.first().map_or_else(String::new, ToString::to_string))
        };
        /// Asks with the request of the point's own type.
        macro_rules! ask_with {
            ($($own:ident)*; $($unmount:ident)*) => {
                match point {
                    $(Point::$own => ask(read(&request).as_ref().map_or(Request::Nothing, Request::$own)),)*
                    $(Point::$unmount => ask(read(&request).as_ref().map_or(Request::Nothing, Request::Unmount)),)*
                    _ => ask(Request::Nothing),
                }
            };
        }
        let answer = ask_with!(
            CreateContainer ExecExternal ExecInContainer MountDevice MountOverlay Plan9Mount RwMountDevice ScratchMount
            ShutdownContainer SignalContainerProcess;
            Plan9Unmount RwUnmountDevice ScratchUnmount UnmountDevice UnmountOverlay
        )?;
        Ok(match answer {
            RuleAnswer::Typed(Ok(verdict)) => Some(verdict.to_json()),
            RuleAnswer::Typed(Err(_)) => Some(json!({"allowed": false})),
            RuleAnswer::Written(value) => value,
            RuleAnswer::Missing => None,
        })
    }

    /// Why the request is denied, as the framework words it: what `data.framework.reason` is.
    ///
    /// # Errors
    /// What could not be read, in words.
    pub fn reason(&self, point: Point, input: &Value, metadata: &Value) -> Result<Value, String> {
        let state = State::from_metadata(metadata).map_err(|error| error.to_string())?;
        let platform = self.platform_for(input);
        let typed = Typed::read(point, &request_of(input)).unwrap_or(Typed::Nothing);
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
