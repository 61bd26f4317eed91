//! The gate: every request becomes a [`Permit`] or a [`Denial`].
//!
//! ```text
//!   request ─▶ decide ─▶ Denial                          nothing has changed
//!                    └─▶ Granted { permit, pending }     nothing has changed yet
//!                             │        │
//!                 the act takes it     settle(pending, Done)    now it has
//!                                      settle(pending, Failed)  it has not; after a failed unmount, no more mounts
//! ```
//!
//! One operation at a time: until the last grant is settled, every other request that changes state is denied. A grant that
//! is never settled closes the gate for good.

mod answer;
mod extension;
mod fragments;
mod guard;
mod journal;
mod owners;
mod permit;

pub(crate) use answer::{RuleAnswer, ask, contents, reason};
pub use extension::{NotStarted, PAST_NETWORK_RULES};
pub use journal::Kept;
pub use owners::{NoExec, NoRight, NumberedDenial};
pub use permit::Permit;

use caveau_group::Limits;
use serde::Serialize;
use serde_json::{Value, json};

use self::{guard::Guard, journal::Journal, owners::Denials};
use crate::{
    denial::{Denial, Field, Reason},
    digest::{HostData, PolicyDigest},
    error::PolicyError,
    explain,
    framework::Verdict,
    permitted,
    platform::Platform,
    point::Point,
    policy::Policy,
    request::{self, Request},
    state::{Change, State},
};

/// The policy in force, and what has happened under it.
#[derive(Debug)]
pub struct Enforcer {
    policy: Policy,
    platform: Platform,
    state: State,
    guard: Guard,
    /// Number of the grant that is not settled yet.
    open: Option<u64>,
    /// Number of the last grant.
    last: u64,
    /// What was asked, where that is kept.
    journal: Option<Journal>,
    /// What was denied, for owners.
    denials: Denials,
}

/// Something that is allowed and must be settled once it was tried.
#[derive(Debug)]
#[must_use = "do it, then settle it"]
pub struct Granted<T> {
    /// For the act.
    pub permit: Permit<T>,
    /// For [`Enforcer::settle`].
    pub pending: Pending,
}

/// A change that waits for its act to succeed.
#[derive(Debug)]
#[must_use = "the gate stays closed until this is settled"]
pub struct Pending {
    number: u64,
    unmounts: Option<String>,
    changes: Vec<Change>,
    guard: guard::Change,
}

/// How an act ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It is not, and nothing of it is left.
    Failed,
}

/// A grant, or why not.
pub type Answer<T> = Result<Granted<T>, Denial>;

impl Enforcer {
    /// Puts a policy in force: the only way to an enforcer.
    ///
    /// # Errors
    /// [`PolicyError::Digest`] unless SHA-256 of the text is the TEE's HOST_DATA; else whatever keeps the text from being
    /// enforced as its author meant it.
    pub fn new(text: &str, host_data: &HostData) -> Result<Self, PolicyError> {
        let found = PolicyDigest::of(text);
        if !host_data.binds(&found) {
            return Err(PolicyError::Digest { expected: host_data.to_string(), found });
        }
        let policy = Policy::parse(text)?;
        policy.check_enforceable()?;
        let (platform, state, guard) = (Platform::guest(), State::default(), Guard::default());
        let denials = Denials::default();
        Ok(Self { policy, platform, state, guard, open: None, last: 0, journal: None, denials })
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// May this layer be mounted? Its root hash must be one of the policy's.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn mount_device(&mut self, request: &request::MountDevice) -> Answer<permitted::MountLayer> {
        self.note(Point::MountDevice, request);
        let point = Point::MountDevice;
        self.guard.check_mount(point)?;
        let root = request.device_hash.parse().map_err(|_| {
            Denial::new(point, vec![Reason::new(Field::RootHash, "64 hexadecimal digits", &request.device_hash)])
        })?;
        let verdict = self.decide(point, Request::MountDevice(request), request)?;
        let permit = permitted::MountLayer { target: request.target.clone(), root };
        Ok(self.grant(permit, verdict.changes, guard::Change::Nothing, None))
    }

    /// May this layer be unmounted? Not while an overlay uses it.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn unmount_device(&mut self, request: &request::Unmount) -> Answer<permitted::UnmountLayer> {
        self.note(Point::UnmountDevice, request);
        self.guard.check_layer_unused(&request.unmount_target)?;
        let verdict = self.decide(Point::UnmountDevice, Request::Unmount(request), request)?;
        let target = request.unmount_target.clone();
        Ok(self.grant(
            permitted::UnmountLayer { target: target.clone() },
            verdict.changes,
            guard::Change::Nothing,
            Some(target),
        ))
    }

    /// May a file system be made on this disk and mounted?
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn rw_mount_device(&mut self, request: &request::RwMountDevice) -> Answer<permitted::MountDisk> {
        self.note(Point::RwMountDevice, request);
        self.guard.check_mount(Point::RwMountDevice)?;
        let verdict = self.decide(Point::RwMountDevice, Request::RwMountDevice(request), request)?;
        let request::RwMountDevice { target, encrypted, filesystem, .. } = request.clone();
        let permit = permitted::MountDisk { target, encrypted, filesystem };
        Ok(self.grant(permit, verdict.changes, guard::Change::Nothing, None))
    }

    /// May this disk be unmounted? Not while there is an overlay, which may write to it.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn rw_unmount_device(&mut self, request: &request::Unmount) -> Answer<permitted::UnmountDisk> {
        self.note(Point::RwUnmountDevice, request);
        self.guard.check_no_overlay(Point::RwUnmountDevice)?;
        let verdict = self.decide(Point::RwUnmountDevice, Request::Unmount(request), request)?;
        let target = request.unmount_target.clone();
        Ok(self.grant(
            permitted::UnmountDisk { target: target.clone() },
            verdict.changes,
            guard::Change::Nothing,
            Some(target),
        ))
    }

    /// May this file system be used as scratch space?
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn scratch_mount(&mut self, request: &request::ScratchMount) -> Answer<permitted::MountScratch> {
        self.note(Point::ScratchMount, request);
        self.guard.check_mount(Point::ScratchMount)?;
        let verdict = self.decide(Point::ScratchMount, Request::ScratchMount(request), request)?;
        let request::ScratchMount { target, encrypted, medium } = request.clone();
        let permit = permitted::MountScratch { target, encrypted, medium };
        Ok(self.grant(permit, verdict.changes, guard::Change::Nothing, None))
    }

    /// May this scratch space be given up? Not while there is an overlay, which may write to it.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn scratch_unmount(&mut self, request: &request::Unmount) -> Answer<permitted::UnmountScratch> {
        self.note(Point::ScratchUnmount, request);
        self.guard.check_no_overlay(Point::ScratchUnmount)?;
        let verdict = self.decide(Point::ScratchUnmount, Request::Unmount(request), request)?;
        let target = request.unmount_target.clone();
        Ok(self.grant(
            permitted::UnmountScratch { target: target.clone() },
            verdict.changes,
            guard::Change::Nothing,
            Some(target),
        ))
    }

    /// May these layers be put together for this container? They must be one container's, all and in order, and the
    /// identifier must be new.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn mount_overlay(&mut self, request: &request::MountOverlay) -> Answer<permitted::MountOverlay> {
        self.note(Point::MountOverlay, request);
        let point = Point::MountOverlay;
        self.guard.check_mount(point)?;
        guard::check_container_id(point, &request.container_id)?;
        guard::check_overlay_target(&request.container_id, &request.target)?;
        if self.state.started.contains_key(&request.container_id) {
            let reason = Reason::new(Field::ContainerId, "one that was never used", &request.container_id);
            return Err(Denial::new(point, vec![reason]));
        }
        let verdict = self.decide(point, Request::MountOverlay(request), request)?;
        let request::MountOverlay { container_id, layer_paths, target } = request.clone();
        let change = guard::Change::AddOverlay { id: container_id.clone(), layers: layer_paths.clone() };
        let permit = permitted::MountOverlay { container_id, layer_paths, target };
        Ok(self.grant(permit, verdict.changes, change, None))
    }

    /// May this overlay be taken apart? Not while its container lives.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn unmount_overlay(&mut self, request: &request::Unmount) -> Answer<permitted::UnmountOverlay> {
        self.note(Point::UnmountOverlay, request);
        let target = request.unmount_target.clone();
        let id = self.guard.check_container_ended(&target)?;
        let verdict = self.decide(Point::UnmountOverlay, Request::Unmount(request), request)?;
        let change = guard::Change::RemoveOverlay { id };
        Ok(self.grant(permitted::UnmountOverlay { target: target.clone() }, verdict.changes, change, Some(target)))
    }

    /// May this container be made? Its overlay must be mounted, and every field must be the policy's. It counts as started;
    /// that its program is let go is asked for by [`Self::start_container`].
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn create_container(&mut self, request: &request::CreateContainer) -> Answer<permitted::CreateContainer> {
        self.note(Point::CreateContainer, request);
        let point = Point::CreateContainer;
        self.guard.check_mount(point)?;
        guard::check_container_id(point, &request.container_id)?;
        self.guard.check_overlay_mounted(&request.container_id)?;
        let verdict = self.decide(point, Request::CreateContainer(request), request)?;
        let possible = self.possible(&verdict, &request.container_id);
        let permit = permitted_container(request, &verdict, extension::limits(&possible));
        self.check_network(point, &permit.capabilities, permit.privileged)?;
        let life = self.life(&possible, permit.stdio);
        let change = guard::Change::Start { id: permit.container_id.clone(), life };
        Ok(self.grant(permit, verdict.changes, change, None))
    }

    /// May this process be run in this container? It gets the streams if the container has them.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn exec_in_container(&mut self, request: &request::ExecInContainer) -> Answer<permitted::ExecProcess> {
        self.note(Point::ExecInContainer, request);
        let point = Point::ExecInContainer;
        let stdio = self.guard.check_container_lives(point, &request.container_id)?;
        let verdict = self.decide(point, Request::ExecInContainer(request), request)?;
        let permit = permitted::ExecProcess {
            container_id: request.container_id.clone(),
            command: request.arg_list.clone(),
            env: answer::kept_env(&request.env_list, verdict.env.as_ref()),
            working_dir: request.working_dir.clone(),
            no_new_privileges: request.no_new_privileges,
            user: request.user.clone(),
            groups: request.groups.clone(),
            umask: request.umask.clone(),
            capabilities: answer::kept_capabilities(&request.capabilities, verdict.capabilities.as_ref()),
            stdio,
        };
        self.check_network(point, &permit.capabilities, false)?;
        Ok(self.grant(permit, verdict.changes, guard::Change::Nothing, None))
    }

    /// May this signal be sent?
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn signal_container_process(
        &mut self,
        request: &request::SignalContainerProcess,
    ) -> Answer<permitted::SignalProcess> {
        self.note(Point::SignalContainerProcess, request);
        let point = Point::SignalContainerProcess;
        self.guard.check_container_lives(point, &request.container_id)?;
        let verdict = self.decide(point, Request::SignalContainerProcess(request), request)?;
        let request::SignalContainerProcess { container_id, signal, is_init_process, arg_list } = request.clone();
        let permit = permitted::SignalProcess { container_id, signal, is_init_process, command: arg_list };
        Ok(self.grant(permit, verdict.changes, guard::Change::Nothing, None))
    }

    /// May this container be ended for good?
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn shutdown_container(&mut self, request: &request::ShutdownContainer) -> Answer<permitted::ShutdownContainer> {
        self.note(Point::ShutdownContainer, request);
        let point = Point::ShutdownContainer;
        self.guard.check_container_lives(point, &request.container_id)?;
        let verdict = self.decide(point, Request::ShutdownContainer(request), request)?;
        let container_id = request.container_id.clone();
        let change = guard::Change::End { id: container_id.clone() };
        Ok(self.grant(permitted::ShutdownContainer { container_id }, verdict.changes, change, None))
    }

    /// May the host read what containers use? Changes nothing.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn get_properties(&mut self) -> Result<Permit<permitted::ReadProperties>, Denial> {
        self.permit_flag(Point::GetProperties, permitted::ReadProperties)
    }

    /// May the host have the agent's log? Changes nothing.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn runtime_logging(&mut self) -> Result<Permit<permitted::RuntimeLogging>, Denial> {
        self.permit_flag(Point::RuntimeLogging, permitted::RuntimeLogging)
    }

    /// May the host have the agent's stacks? Changes nothing.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn dump_stacks(&mut self) -> Result<Permit<permitted::DumpStacks>, Denial> {
        self.permit_flag(Point::DumpStacks, permitted::DumpStacks)
    }

    /// Settles a grant: what it changes is remembered if it is done, and forgotten if it failed. After an unmount that
    /// failed nothing more can be mounted, since what is mounted is no longer known.
    pub fn settle(&mut self, pending: Pending, outcome: Outcome) {
        if self.open != Some(pending.number) {
            return;
        }
        self.open = None;
        match outcome {
            Outcome::Done => {
                self.note_done(pending.number);
                pending.changes.into_iter().for_each(|change| self.state.apply(change));
                self.guard.apply(pending.guard);
            }
            Outcome::Failed => self.guard.failed(pending.unmounts),
        }
    }

    /// Does what was granted and settles it by the result.
    ///
    /// # Errors
    /// The act's own.
    pub fn carry_out<T, R, E>(
        &mut self,
        granted: Granted<T>,
        act: impl FnOnce(Permit<T>) -> Result<R, E>,
    ) -> Result<R, E> {
        let result = act(granted.permit);
        self.settle(granted.pending, if result.is_ok() { Outcome::Done } else { Outcome::Failed });
        result
    }

    /// Checks that no grant is open.
    fn check_settled(&self, point: Point) -> Result<(), Denial> {
        if self.open.is_none() {
            return Ok(());
        }
        let reason = Reason::new(Field::State, "the operation before to be settled", "another one");
        Err(Denial::new(point, vec![reason]))
    }

    /// Asks the policy, unless a grant is still open.
    fn decide(&mut self, point: Point, request: Request<'_>, input: &impl Serialize) -> Result<Verdict, Denial> {
        self.check_settled(point)?;
        self.decide_about(point, request, input)
    }

    fn decide_about(&mut self, point: Point, request: Request<'_>, asked: &impl Serialize) -> Result<Verdict, Denial> {
        let input = self.input(point, asked);
        let Self { policy, platform, state, .. } = self;
        let decision = answer::decide(policy, platform, state, point, request, &input).map_err(|reasons| {
            // Written down only where it is needed: most requests are allowed.
            let input = if input.is_null() { serde_json::to_value(asked).unwrap_or_default() } else { input };
            explain::denial(policy, (platform, state), (point, request), &input, reasons)
        });
        decision.inspect_err(|denial| self.note_denial(denial))
    }

    /// The input that hand-written rules read: the request, and what the guest decides.
    fn input(&self, point: Point, request: &impl Serialize) -> Value {
        if self.policy.document.is_none() {
            return Value::Null;
        }
        let mut input = serde_json::to_value(request).unwrap_or_default();
        if let Some(fields) = input.as_object_mut() {
            fields.insert("rule".to_owned(), json!(point.name()));
            fields.insert("sandboxDir".to_owned(), json!(self.platform.sandbox_dir));
            fields.insert("hugePagesDir".to_owned(), json!(self.platform.huge_pages_dir));
            fields.insert("isSandboxContainer".to_owned(), json!(self.platform.sandbox_container));
        }
        input
    }

    fn grant<T>(
        &mut self,
        permitted: T,
        changes: Vec<Change>,
        guard: guard::Change,
        unmounts: Option<String>,
    ) -> Granted<T> {
        self.last = self.last.wrapping_add(1);
        self.open = Some(self.last);
        self.note_allowed(self.open);
        Granted { permit: Permit::grant(permitted), pending: Pending { number: self.last, unmounts, changes, guard } }
    }

    fn permit_flag<T>(&mut self, point: Point, permitted: T) -> Result<Permit<T>, Denial> {
        self.note_flag(point);
        self.decide_about(point, Request::Nothing, &json!({}))?;
        self.note_allowed(None);
        Ok(Permit::grant(permitted))
    }
}

/// What is permitted of a requested container, with the policy's bounds.
fn permitted_container(
    request: &request::CreateContainer,
    verdict: &Verdict,
    bounds: Limits,
) -> permitted::CreateContainer {
    let request = request.clone();
    permitted::CreateContainer {
        rootfs: Platform::overlay_target(&request.container_id),
        names: verdict.containers.iter().map(|container| container.label()).collect(),
        env: answer::kept_env(&request.env_list, verdict.env.as_ref()),
        capabilities: answer::kept_capabilities(&request.capabilities, verdict.capabilities.as_ref()),
        stdio: verdict.stdio.unwrap_or_default(),
        container_id: request.container_id,
        command: request.arg_list,
        working_dir: request.working_dir,
        mounts: request.mounts,
        privileged: request.privileged,
        no_new_privileges: request.no_new_privileges,
        user: request.user,
        groups: request.groups,
        umask: request.umask,
        seccomp_profile_sha256: request.seccomp_profile_sha256,
        read_only_root: request.read_only_root,
        limits: request.limits.tightened(bounds),
    }
}
