//! Why a request is denied, in the reference framework's words: `data.framework.errors` and `error_objects`.
//!
//! An error says that no candidate at all would take a field, whatever the other fields are. The reference also reports user
//! and `noNewPrivileges` of every further process, since it compares them with fields that no process of a policy has; here
//! they are reported where they differ.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{
    Framework, environment,
    fields::{self, Candidate as _},
    lifecycle, mounts,
};
use crate::{
    denial::Field,
    model::{Container, EnvRule, ExternalProcess},
    point::{FRAMEWORK_VERSION, Point},
    request::{
        CreateContainer, ExecExternal, ExecInContainer, Medium, MountDevice, MountOverlay, Request, RwMountDevice,
        ScratchMount,
    },
    state::containers_json,
};

/// Errors, each once, in alphabetical order.
pub(crate) type Errors = BTreeSet<String>;

/// Adds an error if it holds.
fn note(errors: &mut Errors, holds: bool, error: &str) {
    if holds {
        errors.insert(error.to_owned());
    }
}

impl Framework<'_> {
    /// The value of `data.framework.reason`.
    pub(crate) fn reason(&self, point: Point, request: Request<'_>) -> Value {
        json!({"errors": self.errors(point, request), "error_objects": self.error_objects(request)})
    }

    /// What is wrong.
    pub(crate) fn errors(&self, point: Point, request: Request<'_>) -> Errors {
        let mut errors = Errors::new();
        self.version_errors(&mut errors);
        match (point, request) {
            (Point::CreateContainer, Request::CreateContainer(request)) => self.create_errors(request, &mut errors),
            (Point::ExecExternal, Request::ExecExternal(request)) => self.external_errors(request, &mut errors),
            (Point::ExecInContainer, Request::ExecInContainer(request)) => self.exec_errors(request, &mut errors),
            (Point::MountDevice, Request::MountDevice(request)) => self.device_errors(request, &mut errors),
            (Point::MountOverlay, Request::MountOverlay(request)) => self.overlay_errors(request, &mut errors),
            (Point::RwMountDevice, Request::RwMountDevice(request)) => self.disk_errors(request, &mut errors),
            (Point::ScratchMount, Request::ScratchMount(request)) => self.scratch_errors(request, &mut errors),
            (Point::ShutdownContainer, Request::ShutdownContainer(request)) => {
                note(&mut errors, !self.state.started.contains_key(&request.container_id), "container not started");
            }
            (Point::SignalContainerProcess, Request::SignalContainerProcess(request)) => {
                note(&mut errors, !self.state.started.contains_key(&request.container_id), "container not started");
                let mut signals = self.matching(&request.container_id).iter();
                let takes = |container: &Arc<Container>| {
                    lifecycle::signals_of(container, request).any(|signal| signal == request.signal)
                };
                note(&mut errors, !signals.any(takes), "target isn't allowed to receive the signal");
            }
            (Point::Plan9Mount, Request::Plan9Mount(request)) => {
                let mounted = self.state.p9mounts.contains_key(&request.target);
                note(&mut errors, mounted, "device already mounted at path");
            }
            (_, Request::Unmount(request)) => self.unmount_errors(point, &request.unmount_target, &mut errors),
            (Point::MountBlockdev | Point::UnmountBlockdev, _) => {
                note(&mut errors, true, "blockdev mounts are not supported");
            }
            _ => {}
        }
        errors
    }

    /// What was compared; `null` where nothing was.
    fn error_objects(&self, request: Request<'_>) -> Value {
        match request {
            Request::CreateContainer(request) => {
                self.state.matches.get(&request.container_id).map_or(Value::Null, |list| containers_json(list))
            }
            Request::ExecInContainer(request) => {
                let containers = self.matching(&request.container_id).iter();
                containers.flat_map(|container| container.exec_processes.iter().flatten()).map(|p| json!(p)).collect()
            }
            Request::ExecExternal(_) => self.external_processes().map(|process| json!(process)).collect(),
            _ => Value::Null,
        }
    }

    fn version_errors(&self, errors: &mut Errors) {
        match self.policy.framework_version {
            None => {
                errors.insert(format!("framework_version is missing. Current version: {FRAMEWORK_VERSION}"));
            }
            Some(found) if found > FRAMEWORK_VERSION => {
                errors.insert(format!(
                    "framework_version is ahead of the current version: {found} is greater than {FRAMEWORK_VERSION}"
                ));
            }
            Some(_) => {}
        }
    }

    fn device_errors(&self, request: &MountDevice, errors: &mut Errors) {
        note(errors, !self.is_layer(&request.device_hash), "deviceHash not found");
        note(errors, self.device_mounted(&request.target), "device already mounted at path");
        note(errors, !self.platform.layer_targets.matches(&request.target), "mountpoint invalid");
    }

    fn disk_errors(&self, request: &RwMountDevice, errors: &mut Errors) {
        note(errors, self.device_mounted(&request.target), "device already mounted at path");
        note(errors, !self.platform.scratch_targets.matches(&request.target), "mountpoint invalid");
        note(errors, !request.ensure_filesystem, "ensureFilesystem must be set on rw device mounts");
        let known = matches!(request.filesystem.as_str(), "ext4" | "xfs");
        note(errors, !known, "rw device mounts uses a filesystem that is not allowed");
        note(
            errors,
            !request.encrypted && !self.policy.flags.unencrypted_scratch,
            "unencrypted scratch not allowed, non-readonly mount request for SCSI disk must request encryption",
        );
    }

    fn scratch_errors(&self, request: &ScratchMount, errors: &mut Errors) {
        note(errors, self.state.scratch_mounts.contains_key(&request.target), "scratch already mounted at path");
        let plain = !request.encrypted && !self.policy.flags.unencrypted_scratch;
        note(errors, plain, "unencrypted scratch not allowed");
        let memory = request.medium == Medium::Memory && !self.policy.extension.memory_scratch;
        note(errors, memory, "scratch in memory not allowed");
    }

    fn unmount_errors(&self, point: Point, target: &str, errors: &mut Errors) {
        let device = self.state.devices.contains_key(target);
        let disk = self.state.rw_devices.contains(target);
        match point {
            Point::UnmountDevice if !device && disk => {
                note(errors, true, "received read-only unmount request, but device provided is read-write");
            }
            Point::RwUnmountDevice if !disk && device => {
                note(errors, true, "received read-write unmount request, but device provided is read-only");
            }
            Point::UnmountDevice => note(errors, !device, "no device at path to unmount"),
            Point::RwUnmountDevice => note(errors, !disk, "no device at path to unmount"),
            Point::UnmountOverlay => {
                note(errors, !self.state.overlay_targets.contains(target), "no overlay at path to unmount");
            }
            Point::ScratchUnmount => {
                note(errors, !self.state.scratch_mounts.contains_key(target), "no scratch at path to unmount");
            }
            Point::Plan9Unmount => {
                note(errors, !self.state.p9mounts.contains_key(target), "no device at path to unmount");
            }
            _ => {}
        }
    }

    fn overlay_errors(&self, request: &MountOverlay, errors: &mut Errors) {
        let hashes: Vec<_> = request.layer_paths.iter().rev().map(|path| self.state.devices.get(path)).collect();
        let fits = self.candidates().iter().any(|container| mounts::has_layers(container, &hashes));
        note(errors, !fits, "no matching containers for overlay");
        note(errors, self.state.matches.contains_key(&request.container_id), "overlay has already been mounted");
    }

    fn create_errors(&self, request: &CreateContainer, errors: &mut Errors) {
        let started = self.state.started.contains_key(&request.container_id);
        note(errors, started, "container already started");
        let known = self.matching(&request.container_id);
        let differs = |field: Field| known.iter().all(|c| self.create_differences(c, request).any(|f| f == field));
        for (field, error) in [
            (Field::Command, "invalid command"),
            (Field::Limits, "limits above the policy's"),
            (Field::NoNewPrivileges, "invalid noNewPrivileges"),
            (Field::Privileged, "privileged escalation not allowed"),
            (Field::ReadOnly, "root file system must be read-only"),
            (Field::Seccomp, "invalid seccomp"),
            (Field::User, "invalid user"),
            (Field::WorkingDir, "invalid working directory"),
        ] {
            // A container of another engine's state says nothing of a read-only root or of bounds.
            let ours = matches!(field, Field::Limits | Field::ReadOnly);
            note(errors, differs(field) && (!ours || !known.is_empty()), error);
        }
        note(errors, !request.devices.is_empty(), "devices not supported");
        let stray = |mount: &&crate::request::Mount| {
            known.iter().all(|container| self.stray_mounts(container, request).any(|stray| stray == *mount))
        };
        let mounts: Vec<_> = request.mounts.iter().filter(stray).map(|mount| mount.destination.as_str()).collect();
        note(errors, !mounts.is_empty(), &format!("invalid mount list: {}", mounts.join(",")));
        let lacks = |container: &Arc<Container>| fields::missing_mounts(container, request).next().is_some();
        note(errors, !known.is_empty() && known.iter().all(lacks), "required mount missing");
        stray_variables(known.iter().map(|container| container.env_rules()), &request.env_list, errors);
        if started {
            return;
        }
        let alike: Vec<_> =
            known.iter().filter(|c| self.create_differences(c, request).next().is_none()).cloned().collect();
        if alike.is_empty() {
            return;
        }
        let missing = alike.iter().any(|container| lacks_required(container.env_rules(), &request.env_list));
        note(errors, missing, "missing required environment variable");
        match self.narrow_by_env(&alike, &request.env_list) {
            Err(_) => note(errors, !missing, "invalid env list"),
            Ok((_, with_env)) => self.last_errors(&with_env, request, errors),
        }
    }

    /// What can be wrong once fields and environment fit.
    fn last_errors(&self, with_env: &[Arc<Container>], request: &CreateContainer, errors: &mut Errors) {
        if self.agreed_capabilities(with_env, &request.capabilities, request.privileged).is_none() {
            note(errors, true, "containers only distinguishable by capabilties");
            return;
        }
        match self.narrow_by_capabilities(with_env, &request.capabilities, request.privileged) {
            Err(_) => note(errors, true, "capabilities don't match"),
            Ok((_, left)) => {
                let undecided = lifecycle::agreed_stdio(left.iter().map(|c| c.allow_stdio_access)).is_err();
                note(errors, undecided, "containers only distinguishable by allow_stdio_access");
            }
        }
    }

    fn exec_errors(&self, request: &ExecInContainer, errors: &mut Errors) {
        let started = self.state.started.get(&request.container_id);
        note(errors, started.is_none(), "container not started");
        let known = self.matching(&request.container_id);
        for (field, error) in [
            (Field::Command, "invalid command"),
            (Field::NoNewPrivileges, "invalid noNewPrivileges"),
            (Field::User, "invalid user"),
            (Field::WorkingDir, "invalid working directory"),
        ] {
            note(errors, known.iter().all(|c| self.exec_differences(c, request).any(|f| f == field)), error);
        }
        stray_variables(known.iter().map(|container| container.env_rules()), &request.env_list, errors);
        let alike: Vec<_> =
            known.iter().filter(|c| self.exec_differences(c, request).next().is_none()).cloned().collect();
        let Some(privileged) = started.copied().filter(|_| !alike.is_empty()) else { return };
        let missing = alike.iter().any(|container| lacks_required(container.env_rules(), &request.env_list));
        note(errors, missing, "missing required environment variable");
        if let Ok((_, with_env)) = self.narrow_by_env(&alike, &request.env_list) {
            let narrowed = self.narrow_by_capabilities(&with_env, &request.capabilities, privileged);
            note(errors, narrowed.is_err(), "capabilities don't match");
        }
    }

    fn external_errors(&self, request: &ExecExternal, errors: &mut Errors) {
        let known = || self.external_processes();
        let command = |process: &&ExternalProcess| process.command.as_ref() == Some(&request.arg_list);
        let folder = |process: &&ExternalProcess| process.working_dir.as_ref() == Some(&request.working_dir);
        note(errors, !known().any(|process| command(&process)), "invalid command");
        note(errors, !known().any(|process| folder(&process)), "invalid working directory");
        stray_variables(known().map(|process| process.env_rules.as_deref()), &request.env_list, errors);
        let alike: Vec<_> = known().filter(command).filter(folder).collect();
        let missing = alike.iter().any(|process| lacks_required(process.env_rules(), &request.env_list));
        note(errors, missing, "missing required environment variable");
        let dropping = self.policy.flags.environment_dropping;
        let Some(env) = environment::agreed(&alike, &request.env_list, dropping) else { return };
        let left = alike.iter().filter(|process| environment::accepted(process.env_rules(), &env));
        let stdio: BTreeSet<_> = left.map(|process| process.allow_stdio_access).collect();
        note(errors, stdio.len() > 1, "external processes only distinguishable by allow_stdio_access");
    }
}

/// Notes the names of variables that no rule of any candidate takes.
fn stray_variables<'r>(rules: impl Iterator<Item = Option<&'r [EnvRule]>>, variables: &[String], errors: &mut Errors) {
    let rules: Vec<&EnvRule> = rules.flatten().flatten().collect();
    let stray = variables.iter().filter(|variable| !rules.iter().any(|rule| rule.matches(variable)));
    let names: Vec<_> = stray.map(|variable| variable.split('=').next().unwrap_or_default()).collect();
    note(errors, !names.is_empty(), &format!("invalid env list: {}", names.join(",")));
}

/// Whether a rule wants a variable that is not there.
fn lacks_required(rules: Option<&[EnvRule]>, variables: &[String]) -> bool {
    let lacks = |rule: &EnvRule| rule.is_required() && !variables.iter().any(|variable| rule.matches(variable));
    rules.unwrap_or_default().iter().any(lacks)
}
