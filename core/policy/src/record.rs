//! Requests as they were asked of a policy, written down so that they can be asked of another one.
//!
//! A record is JSON Lines, each at most [`MAX_RECORD_LINE`] bytes. The first is `{"t":"record","version":1,"policy_digest":…}`,
//! each other one a request as the guest put it to its policy, whole, and what came of it:
//!
//! ```text
//!   {"t":"request","n":1,"point":"mount_device","input":{"target":…,"deviceHash":…},"allowed":true,"done":true}
//!   {"t":"request","n":2,"point":"create_container","input":{…},"allowed":false,"denial":{…}}
//! ```
//!
//! Inputs hold the values of variables as the host sent them. [`Session`] asks them of a policy, one after another.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    denial::Denial,
    digest::{HostData, PolicyDigest},
    enforcer::{Enforcer, Granted, Outcome},
    error::PolicyError,
    point::Point,
    policy_decision::redact,
    request::{self, Request},
};

/// Longest line of a record in bytes.
pub const MAX_RECORD_LINE: usize = 1 << 20;

/// Version of records.
pub const RECORD_VERSION: u32 = 1;

/// One request, as it is asked of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Where.
    pub point: Point,
    /// One of [`crate::request`], or an empty object for a flag.
    pub input: Value,
}

impl Asked {
    /// The same without values of variables, to be shown.
    #[must_use]
    pub fn redacted(mut self) -> Self {
        redact(&mut self.input);
        self
    }
}

/// A request and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its number in the record, from 1.
    pub n: u64,
    /// What was asked.
    #[serde(flatten)]
    pub asked: Asked,
    /// What the policy said.
    pub allowed: bool,
    /// Whether what was allowed was then done.
    #[serde(default)]
    pub done: bool,
    /// The denial as the host got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<Value>,
}

/// A line of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum RecordLine {
    /// The first.
    Record {
        /// [`RECORD_VERSION`].
        version: u32,
        /// Digest of the policy that was in force, hexadecimal.
        policy_digest: String,
    },
    /// Any other.
    Request(Recorded),
}

/// A record that cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The input is not what the point takes.
    #[error("the input is no request of {point}")]
    Input {
        /// The point.
        point: Point,
        /// What is wrong with it.
        #[source]
        error: serde_json::Error,
    },
    /// The line is not of this format.
    #[error("not a line of a record of requests")]
    Line(#[source] serde_json::Error),
    /// The line is longer than is accepted.
    #[error("a line of {found} bytes: at most {MAX_RECORD_LINE} are accepted")]
    LineTooLong {
        /// Its length in bytes.
        found: usize,
    },
    /// The guest has nothing that asks this.
    #[error("nothing asks for {0} in this guest")]
    Point(Point),
    /// The record is of another version.
    #[error("the record is of version {found}, and {RECORD_VERSION} is expected")]
    Version {
        /// Its version.
        found: u32,
    },
}

impl RecordLine {
    /// Reads a line.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn parse(line: &str) -> Result<Self, RecordError> {
        if line.len() > MAX_RECORD_LINE {
            return Err(RecordError::LineTooLong { found: line.len() });
        }
        match serde_json::from_str(line).map_err(RecordError::Line)? {
            Self::Record { version, .. } if version != RECORD_VERSION => Err(RecordError::Version { found: version }),
            line => Ok(line),
        }
    }
}

/// A policy that recorded requests are asked of, from its first moment on.
#[derive(Debug)]
pub struct Session {
    enforcer: Enforcer,
}

impl Session {
    /// Puts a policy in force, as if the launch had been bound to it.
    ///
    /// # Errors
    /// As [`Enforcer::new`].
    pub fn new(text: &str) -> Result<Self, PolicyError> {
        let host_data = HostData::new(*PolicyDigest::of(text).as_bytes());
        Ok(Self { enforcer: Enforcer::new(text, &host_data)? })
    }

    /// Asks a request; what is allowed counts as tried, with this outcome.
    ///
    /// # Errors
    /// [`RecordError`] where it is no request; inside of it, the denial.
    pub fn ask(&mut self, asked: &Asked, outcome: Outcome) -> Result<Result<(), Denial>, RecordError> {
        let enforcer = &mut self.enforcer;
        // A fragment is asked about twice, and once more for each set of its parameters: its request is no single question.
        match asked.point {
            Point::LoadFragment => {
                let request = read(asked.point, &asked.input)?;
                return Ok(enforcer.load_fragment(&request).map(|g| settle(enforcer, g, outcome)));
            }
            Point::LoadTransparencyTrustList => {
                let request = read(asked.point, &asked.input)?;
                return Ok(enforcer.load_transparency_trust_list(&request).map(|g| settle(enforcer, g, outcome)));
            }
            // The second half of making a container, not the first.
            Point::CreateContainer if asked.input.get("start").is_some() => {
                let request: request::StartContainer = read(asked.point, &asked.input)?;
                return Ok(enforcer.start_container(&request.start).map(|g| settle(enforcer, g, outcome)));
            }
            _ => {}
        }
        Ok(match Typed::read(asked.point, &asked.input)? {
            Typed::CreateContainer(asked) => enforcer.create_container(&asked).map(|g| settle(enforcer, g, outcome)),
            Typed::ExecInContainer(asked) => enforcer.exec_in_container(&asked).map(|g| settle(enforcer, g, outcome)),
            Typed::MountDevice(asked) => enforcer.mount_device(&asked).map(|g| settle(enforcer, g, outcome)),
            Typed::MountOverlay(asked) => enforcer.mount_overlay(&asked).map(|g| settle(enforcer, g, outcome)),
            Typed::RwMountDevice(asked) => enforcer.rw_mount_device(&asked).map(|g| settle(enforcer, g, outcome)),
            Typed::ScratchMount(asked) => enforcer.scratch_mount(&asked).map(|g| settle(enforcer, g, outcome)),
            Typed::ShutdownContainer(asked) => {
                enforcer.shutdown_container(&asked).map(|g| settle(enforcer, g, outcome))
            }
            Typed::SignalContainerProcess(asked) => {
                enforcer.signal_container_process(&asked).map(|g| settle(enforcer, g, outcome))
            }
            Typed::Unmount(unmount) => match asked.point {
                Point::RwUnmountDevice => enforcer.rw_unmount_device(&unmount).map(|g| settle(enforcer, g, outcome)),
                Point::ScratchUnmount => enforcer.scratch_unmount(&unmount).map(|g| settle(enforcer, g, outcome)),
                Point::UnmountDevice => enforcer.unmount_device(&unmount).map(|g| settle(enforcer, g, outcome)),
                Point::UnmountOverlay => enforcer.unmount_overlay(&unmount).map(|g| settle(enforcer, g, outcome)),
                other => return Err(RecordError::Point(other)),
            },
            Typed::Nothing => match asked.point {
                Point::DumpStacks => enforcer.dump_stacks().map(drop_permit),
                Point::GetProperties => enforcer.get_properties().map(drop_permit),
                Point::RuntimeLogging => enforcer.runtime_logging().map(drop_permit),
                other => return Err(RecordError::Point(other)),
            },
            Typed::ExecExternal(_) | Typed::Plan9Mount(_) => return Err(RecordError::Point(asked.point)),
        })
    }
}

fn settle<T>(enforcer: &mut Enforcer, granted: Granted<T>, outcome: Outcome) {
    enforcer.settle(granted.pending, outcome);
}

/// Nothing follows a permit to read.
fn drop_permit<T>(_: crate::Permit<T>) {}

/// Reads a point's request.
fn read<T: DeserializeOwned>(point: Point, input: &Value) -> Result<T, RecordError> {
    serde_json::from_value(input.clone()).map_err(|error| RecordError::Input { point, error })
}

/// A request of any point, read, but for the two that load more policy.
#[derive(Debug)]
pub(crate) enum Typed {
    CreateContainer(Box<request::CreateContainer>),
    ExecExternal(request::ExecExternal),
    ExecInContainer(Box<request::ExecInContainer>),
    MountDevice(request::MountDevice),
    MountOverlay(request::MountOverlay),
    Nothing,
    Plan9Mount(request::Plan9Mount),
    RwMountDevice(request::RwMountDevice),
    ScratchMount(request::ScratchMount),
    ShutdownContainer(request::ShutdownContainer),
    SignalContainerProcess(request::SignalContainerProcess),
    Unmount(request::Unmount),
}

impl Typed {
    /// Reads what a point takes.
    pub(crate) fn read(point: Point, input: &Value) -> Result<Self, RecordError> {
        Ok(match point {
            Point::CreateContainer => Self::CreateContainer(read(point, input)?),
            Point::ExecExternal => Self::ExecExternal(read(point, input)?),
            Point::ExecInContainer => Self::ExecInContainer(read(point, input)?),
            Point::MountDevice => Self::MountDevice(read(point, input)?),
            Point::MountOverlay => Self::MountOverlay(read(point, input)?),
            Point::Plan9Mount => Self::Plan9Mount(read(point, input)?),
            Point::RwMountDevice => Self::RwMountDevice(read(point, input)?),
            Point::ScratchMount => Self::ScratchMount(read(point, input)?),
            Point::ShutdownContainer => Self::ShutdownContainer(read(point, input)?),
            Point::SignalContainerProcess => Self::SignalContainerProcess(read(point, input)?),
            Point::Plan9Unmount
            | Point::RwUnmountDevice
            | Point::ScratchUnmount
            | Point::UnmountDevice
            | Point::UnmountOverlay => Self::Unmount(read(point, input)?),
            _ => Self::Nothing,
        })
    }

    /// Reads what a point takes. What is malformed is no request, and the framework allows it nothing.
    pub(crate) fn read_or_nothing(point: Point, input: &Value) -> Self {
        Self::read(point, input).unwrap_or(Self::Nothing)
    }

    /// The request, borrowed.
    pub(crate) fn request(&self) -> Request<'_> {
        match self {
            Self::CreateContainer(request) => Request::CreateContainer(request),
            Self::ExecExternal(request) => Request::ExecExternal(request),
            Self::ExecInContainer(request) => Request::ExecInContainer(request),
            Self::MountDevice(request) => Request::MountDevice(request),
            Self::MountOverlay(request) => Request::MountOverlay(request),
            Self::Nothing => Request::Nothing,
            Self::Plan9Mount(request) => Request::Plan9Mount(request),
            Self::RwMountDevice(request) => Request::RwMountDevice(request),
            Self::ScratchMount(request) => Request::ScratchMount(request),
            Self::ShutdownContainer(request) => Request::ShutdownContainer(request),
            Self::SignalContainerProcess(request) => Request::SignalContainerProcess(request),
            Self::Unmount(request) => Request::Unmount(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_read_as_written() {
        let asked = Asked { point: Point::GetProperties, input: json!({}) };
        let recorded = Recorded { n: 3, asked, allowed: false, done: false, denial: Some(json!({"point": "x"})) };
        for line in [RecordLine::Record { version: 1, policy_digest: "ab".into() }, RecordLine::Request(recorded)] {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(RecordLine::parse(&text).unwrap(), line, "{text}");
        }
    }

    #[test]
    fn other_lines_are_refused() {
        let long = "x".repeat(MAX_RECORD_LINE + 1);
        assert!(matches!(RecordLine::parse(&long), Err(RecordError::LineTooLong { .. })));
        assert!(matches!(RecordLine::parse("{}"), Err(RecordError::Line(_))));
        let newer = r#"{"t":"record","version":2,"policy_digest":""}"#;
        assert!(matches!(RecordLine::parse(newer), Err(RecordError::Version { found: 2 })));
    }

    #[test]
    fn what_no_guest_asks_is_no_answer() {
        let text = "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n";
        let mut session = Session::new(text).unwrap();
        let mut ask = |point, input| session.ask(&Asked { point, input }, Outcome::Done);
        assert!(matches!(ask(Point::MountBlockdev, json!({})), Err(RecordError::Point(_))));
        assert!(matches!(ask(Point::Plan9Mount, json!({"target": "/x"})), Err(RecordError::Point(_))));
        assert!(matches!(ask(Point::MountDevice, json!({"target": "/x"})), Err(RecordError::Input { .. })));
        assert!(matches!(ask(Point::LoadFragment, json!({})), Err(RecordError::Input { .. })));
        assert!(matches!(ask(Point::GetProperties, json!({})), Ok(Err(_))));
    }
}
