//! A request at a point, to be asked of either engine.

use anyhow::Result;
use caveau_policy::{Enforcer, Granted, Outcome, Point, request};
use serde_json::{Value, json};

/// A request.
#[derive(Clone, Debug)]
pub(super) enum Question {
    CreateContainer(Box<request::CreateContainer>),
    ExecInContainer(Box<request::ExecInContainer>),
    MountDevice(request::MountDevice),
    MountOverlay(request::MountOverlay),
    ScratchMount(request::ScratchMount),
}

impl Question {
    /// Where it is asked.
    pub(super) fn point(&self) -> Point {
        match self {
            Self::CreateContainer(_) => Point::CreateContainer,
            Self::ExecInContainer(_) => Point::ExecInContainer,
            Self::MountDevice(_) => Point::MountDevice,
            Self::MountOverlay(_) => Point::MountOverlay,
            Self::ScratchMount(_) => Point::ScratchMount,
        }
    }

    /// What the reference engine is given: the request, and where the guest keeps what a policy names by a prefix.
    ///
    /// # Errors
    /// Where the request cannot be written down.
    pub(super) fn input(&self) -> Result<Value> {
        let mut input = match self {
            Self::CreateContainer(request) => serde_json::to_value(request),
            Self::ExecInContainer(request) => serde_json::to_value(request),
            Self::MountDevice(request) => serde_json::to_value(request),
            Self::MountOverlay(request) => serde_json::to_value(request),
            Self::ScratchMount(request) => serde_json::to_value(request),
        }?;
        input["sandboxDir"] = json!("/run/caveau/sandbox");
        input["hugePagesDir"] = json!("/run/caveau/hugepages");
        Ok(input)
    }

    /// Asks our engine; what it allows counts as tried, with this outcome. Whether it was allowed.
    pub(super) fn ask(&self, enforcer: &mut Enforcer, outcome: Outcome) -> bool {
        match self {
            Self::CreateContainer(request) => settle(enforcer.create_container(request).ok(), enforcer, outcome),
            Self::ExecInContainer(request) => settle(enforcer.exec_in_container(request).ok(), enforcer, outcome),
            Self::MountDevice(request) => settle(enforcer.mount_device(request).ok(), enforcer, outcome),
            Self::MountOverlay(request) => settle(enforcer.mount_overlay(request).ok(), enforcer, outcome),
            Self::ScratchMount(request) => settle(enforcer.scratch_mount(request).ok(), enforcer, outcome),
        }
    }

    /// What our engine answers, in the words of the reference's answers. Nothing changes.
    pub(super) fn answer(&self, enforcer: &mut Enforcer) -> Value {
        let (answer, pending) = match self {
            Self::CreateContainer(request) => match enforcer.create_container(request) {
                Err(_) => return json!({"allowed": false}),
                Ok(Granted { permit, pending }) => {
                    let kept = json!({
                        "allowed": true, "env_list": permit.env, "caps_list": permit.capabilities,
                        "allow_stdio_access": permit.stdio,
                    });
                    (kept, pending)
                }
            },
            Self::ExecInContainer(request) => match enforcer.exec_in_container(request) {
                Err(_) => return json!({"allowed": false}),
                Ok(Granted { permit, pending }) => {
                    (json!({"allowed": true, "env_list": permit.env, "caps_list": permit.capabilities}), pending)
                }
            },
            _ => return json!({"allowed": self.ask(enforcer, Outcome::Failed)}),
        };
        enforcer.settle(pending, Outcome::Failed);
        answer
    }

    /// The same request with one thing that the policy does not allow.
    pub(super) fn lies(&self) -> Vec<Self> {
        match self {
            Self::CreateContainer(request) => {
                let (mut command, mut variable, mut less) = (request.clone(), request.clone(), request.clone());
                command.arg_list.push("--debug".to_owned());
                variable.env_list.push("LD_PRELOAD=/srv/data/own.so".to_owned());
                less.env_list.remove(0);
                [command, variable, less].map(Self::CreateContainer).to_vec()
            }
            Self::ExecInContainer(request) => {
                let mut command = request.clone();
                command.arg_list = vec!["/bin/sh".to_owned()];
                vec![Self::ExecInContainer(command)]
            }
            Self::MountDevice(request) => {
                vec![Self::MountDevice(request::MountDevice { device_hash: "ab".repeat(32), ..request.clone() })]
            }
            Self::MountOverlay(request) => {
                let (mut turned, mut fewer) = (request.clone(), request.clone());
                turned.layer_paths.reverse();
                fewer.layer_paths.pop();
                [turned, fewer].map(Self::MountOverlay).to_vec()
            }
            Self::ScratchMount(request) => {
                vec![Self::ScratchMount(request::ScratchMount { encrypted: false, ..request.clone() })]
            }
        }
    }
}

/// Settles a grant, if it is one; whether it is.
fn settle<T>(granted: Option<Granted<T>>, enforcer: &mut Enforcer, outcome: Outcome) -> bool {
    let Some(granted) = granted else { return false };
    enforcer.settle(granted.pending, outcome);
    true
}
