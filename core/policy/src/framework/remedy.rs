//! What would have to be different in the policy: for each container that a request could have been for, the fields that
//! differ and the fewest edits after which it is taken. Edits are tried before they are told: an amendment that would not
//! change the decision is none.

mod edits;

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use self::edits::{
    UniqueEdits, amended_container, env_differences, in_container, limits_edits, required_edits, required_mounts_edit,
    set_flag, signal_draft, stray_edits, user_edits,
};
use super::{Framework, mounts};
use crate::{
    amendment::{Amendment, Edit, Step},
    denial::{Candidate, Field, MAX_CANDIDATES, Reason, quoted},
    document::RuleKind,
    model::Container,
    point::Point,
    policy::{Policy, with_platform_rules},
    request::{CreateContainer, ExecInContainer, Medium, MountDevice, MountOverlay, Request},
    state::State,
    version::Version,
};

/// Edits that together may do it; the next ones are tried where they do not. Absent where no edit of the policy helps.
type Attempts = Option<Vec<Vec<Edit>>>;

/// One container's differences, and what to try.
struct Draft {
    label: String,
    differences: Vec<Reason>,
    attempts: Attempts,
}

impl Framework<'_> {
    /// The candidates of a denied request, and the smallest change that would allow it.
    pub(crate) fn remedy(&self, point: Point, request: Request<'_>) -> (Vec<Candidate>, Option<Amendment>) {
        let missing = match self.policy.rules.get(&point) {
            // What a rule of the policy's own decides, only its author can change.
            Some(RuleKind::Written) => return (Vec::new(), None),
            Some(RuleKind::Alias) => Vec::new(),
            None => vec![Edit::Define(point)],
        };
        let mut candidates: Vec<_> = self
            .drafts(point, request)
            .into_iter()
            .map(|draft| self.candidate(point, request, &missing, draft))
            .collect();
        // A stable order: of equally small changes, the container that was thought of first.
        candidates.sort_by_key(|candidate| candidate.change.as_ref().map_or(usize::MAX, |change| change.edits.len()));
        let of_group = || {
            let edits = self.group_edits(point, request)?;
            self.first_that_helps(point, request, &missing, vec![edits])
        };
        let smallest = candidates.first().and_then(|candidate| candidate.change.clone()).or_else(of_group);
        (candidates, smallest)
    }

    fn candidate(&self, point: Point, request: Request<'_>, missing: &[Edit], draft: Draft) -> Candidate {
        let change = draft.attempts.and_then(|attempts| self.first_that_helps(point, request, missing, attempts));
        Candidate { container: draft.label, differences: draft.differences, change }
    }

    /// What to try for each container, the most likely one first.
    fn drafts(&self, point: Point, request: Request<'_>) -> Vec<Draft> {
        match (point, request) {
            (Point::CreateContainer, Request::CreateContainer(request)) => self.by_likeness(
                self.matching(&request.container_id),
                |container| self.create_draft(container, request),
                |draft| draft.differences.len(),
            ),
            (Point::ExecInContainer, Request::ExecInContainer(request)) => self.by_likeness(
                self.matching(&request.container_id),
                |container| self.exec_draft(container, request),
                |draft| draft.differences.len(),
            ),
            (Point::MountDevice, Request::MountDevice(request)) => {
                let order = |container: &Arc<Container>| self.unmounted_layers(container).max(1);
                let mut all = self.candidates().to_vec();
                all.sort_by_key(order);
                self.by_likeness(&all, |container| self.device_draft(container, request), |_| 0)
            }
            (Point::MountOverlay, Request::MountOverlay(request)) => self.overlay_drafts(request),
            (Point::SignalContainerProcess, Request::SignalContainerProcess(request)) => self.by_likeness(
                self.matching(&request.container_id),
                |container| signal_draft(container, request),
                |_| 0,
            ),
            _ => Vec::new(),
        }
    }

    /// A draft for each container, once for each that the document has, the likest first.
    fn by_likeness(
        &self,
        containers: &[Arc<Container>],
        draft: impl Fn(&Arc<Container>) -> Draft,
        distance: impl Fn(&Draft) -> usize,
    ) -> Vec<Draft> {
        let mut seen = BTreeSet::new();
        let once = containers.iter().filter(|c| c.ordinal.is_none_or(|ordinal| seen.insert(ordinal)));
        let mut drafts: Vec<_> = once.map(draft).collect();
        drafts.sort_by_key(distance);
        drafts.truncate(MAX_CANDIDATES);
        drafts
    }

    /// Changes of the group's flags that a request needs.
    fn group_edits(&self, point: Point, request: Request<'_>) -> Option<Vec<Edit>> {
        let flag = |name: &str| vec![Edit::set(&[name.into()], json!(true))];
        let plain = |encrypted: bool| !encrypted && !self.policy.flags.unencrypted_scratch;
        Some(match (point, request) {
            (Point::DumpStacks, _) => flag("allow_dump_stacks"),
            (Point::GetProperties, _) => flag("allow_properties_access"),
            (Point::HostNetwork, _) => flag("allow_host_network"),
            (Point::RuntimeLogging, _) => flag("allow_runtime_logging"),
            (Point::RwMountDevice, Request::RwMountDevice(request)) if plain(request.encrypted) => {
                flag("allow_unencrypted_scratch")
            }
            (Point::ScratchMount, Request::ScratchMount(request)) => {
                let mut edits = if plain(request.encrypted) { flag("allow_unencrypted_scratch") } else { Vec::new() };
                if request.medium == Medium::Memory && !self.policy.extension.memory_scratch {
                    edits.push(Edit::set(&["caveau".into(), "memory_scratch".into()], json!(true)));
                }
                edits
            }
            // Only the rule is missing, if anything.
            _ => Vec::new(),
        })
    }

    /// The first of the attempts after which the request is allowed.
    fn first_that_helps(
        &self,
        point: Point,
        request: Request<'_>,
        missing: &[Edit],
        attempts: Vec<Vec<Edit>>,
    ) -> Option<Amendment> {
        for attempt in attempts {
            let mut edits = [missing, &attempt].concat();
            if edits.is_empty() {
                continue;
            }
            let (policy, state) = self.amended(&edits)?;
            let tried = Framework { policy: &policy, platform: self.platform, state: &state };
            // Two containers that only differ in their streams would be one too many, be it now or at an earlier start.
            if let Some(aligning) = tried.align_stdio(&edits, request).filter(|aligning| !aligning.is_empty()) {
                edits.extend(aligning);
                if self.is_allowed_after(&edits, point, request) {
                    return Some(Amendment { edits });
                }
            } else if tried.decide(point, request).is_ok() {
                return Some(Amendment { edits });
            }
        }
        None
    }

    fn is_allowed_after(&self, edits: &[Edit], point: Point, request: Request<'_>) -> bool {
        let Some((policy, state)) = self.amended(edits) else { return false };
        Framework { policy: &policy, platform: self.platform, state: &state }.decide(point, request).is_ok()
    }

    /// Gives every container that the new one could be as well the same access to the streams: that of one which stays
    /// as it is, if there is one.
    fn align_stdio(&self, edits: &[Edit], request: Request<'_>) -> Option<Vec<Edit>> {
        let Request::CreateContainer(request) = request else { return None };
        let known = self.matching(&request.container_id);
        let alike: Vec<_> = known.iter().filter(|c| self.create_differences(c, request).next().is_none()).collect();
        let edited = |container: &Container| {
            edits.iter().any(|edit| match edit {
                Edit::Append { path, .. } | Edit::Set { path, .. } => {
                    container.ordinal.is_some_and(|ordinal| path.get(1) == Some(&Step::from(ordinal)))
                }
                Edit::Define(_) => false,
            })
        };
        let wanted = alike.iter().find(|container| !edited(container)).or(alike.first())?.allow_stdio_access?;
        let others = alike.iter().filter(|container| container.allow_stdio_access != Some(wanted));
        let edits =
            others.map(|container| Some(Edit::set(&in_container(container, "allow_stdio_access")?, json!(wanted))));
        edits.collect::<Option<UniqueEdits>>().map(|edits| edits.0)
    }

    /// Policy and memory as if the edits had been made in the document before anything happened.
    fn amended(&self, edits: &[Edit]) -> Option<(Policy, State)> {
        let (mut policy, mut state) = (self.policy.without_document(), self.state.clone());
        for edit in edits {
            match edit {
                Edit::Define(point) => {
                    policy.rules.insert(*point, RuleKind::Alias);
                }
                Edit::Set { path, value } if path.len() == 1 => set_flag(&mut policy, path, value)?,
                Edit::Set { path, .. } if *path == [Step::from("caveau"), Step::from("memory_scratch")] => {
                    policy.extension.memory_scratch = true;
                }
                Edit::Append { path, .. } | Edit::Set { path, .. } => {
                    let [Step::Key(object), Step::Index(ordinal), below @ ..] = path.as_slice() else { return None };
                    if object != "containers" {
                        return None;
                    }
                    let lists = std::iter::once(&mut policy.own).chain(state.matches.values_mut());
                    for container in lists.flatten().filter(|container| container.ordinal == Some(*ordinal)) {
                        *container = Arc::new(amended_container(container, below, edit)?);
                    }
                }
            }
        }
        policy.layers = policy.own.iter().flat_map(|container| container.layers.iter().flatten()).cloned().collect();
        policy.candidates = with_platform_rules(policy.own.iter(), &policy.platform_rules);
        state.loaded.forget_candidates();
        Some((policy, state))
    }

    fn create_draft(&self, container: &Arc<Container>, request: &CreateContainer) -> Draft {
        let mut differences: Vec<_> = self
            .create_differences(container, request)
            .map(|field| self.create_reason(field, container, request))
            .collect();
        let dropping = self.policy.flags.environment_dropping;
        differences.extend(env_differences(container, &request.env_list, dropping));
        let mut elevated = Container::clone(container);
        elevated.allow_elevated = elevated.allow_elevated.map(|allowed| allowed || request.privileged);
        let exact = self.capabilities_ok(&elevated, &request.capabilities, request.privileged);
        if !exact && !self.policy.flags.capability_dropping {
            differences.push(self.capability_reason(&elevated, &request.capabilities, request.privileged));
        }
        let attempts = self.create_attempts(container, request, &differences, exact);
        Draft { label: container.label(), differences, attempts }
    }

    fn create_attempts(
        &self,
        container: &Arc<Container>,
        request: &CreateContainer,
        differences: &[Reason],
        exact_capabilities: bool,
    ) -> Attempts {
        let (dropping, flags) = (self.policy.flags.environment_dropping, self.policy.flags);
        let mut edits = Vec::new();
        for reason in differences {
            match reason.field {
                Field::Env | Field::Capabilities => {}
                field => edits.extend(self.create_edits(field, container, request)?),
            }
        }
        edits.extend(required_edits(container, &request.env_list)?);
        if !dropping {
            edits.extend(stray_edits(container, &request.env_list)?);
        }
        let capabilities = || {
            let known = self.policy.framework_version? >= Version::new(0, 2, 2);
            known
                .then(|| in_container(container, "capabilities"))?
                .map(|path| Edit::set(&path, json!(request.capabilities)))
        };
        if !exact_capabilities && !flags.capability_dropping {
            edits.push(capabilities()?);
        }
        edits.extend(self.start_edits(container)?);
        let mut wide = edits.clone();
        if dropping {
            wide.extend(stray_edits(container, &request.env_list)?);
        }
        if !exact_capabilities && flags.capability_dropping {
            wide.push(capabilities()?);
        }
        // Where one of several containers would do as it is, one edit of it can still settle a tie.
        Some(if edits.is_empty() && wide.is_empty() {
            let stdio = !container.allow_stdio_access.unwrap_or_default();
            vec![vec![Edit::set(&in_container(container, "allow_stdio_access")?, json!(stdio))]]
        } else {
            vec![edits, wide]
        })
    }

    /// Edits after which a container takes a field of a request as it is.
    fn create_edits(&self, field: Field, container: &Container, request: &CreateContainer) -> Option<Vec<Edit>> {
        let since =
            |minor: u32, patch: u32| (self.policy.framework_version? >= Version::new(0, minor, patch)).then_some(());
        let set = |name: &str, value: Value| Some(vec![Edit::set(&in_container(container, name)?, value)]);
        match field {
            Field::Command => set("command", json!(request.arg_list)),
            Field::NoNewPrivileges => {
                since(2, 0)?;
                set("no_new_privileges", json!(false))
            }
            Field::Privileged => set("allow_elevated", json!(true)),
            Field::ReadOnly => {
                let path = [in_container(container, "caveau")?, vec!["read_only_root".into()]].concat();
                Some(vec![Edit::set(&path, json!(false))])
            }
            Field::Seccomp => {
                since(2, 3)?;
                set("seccomp_profile_sha256", json!(request.seccomp_profile_sha256))
            }
            Field::User => {
                since(2, 1)?;
                user_edits(container, (&request.user, &request.groups, &request.umask), false)
            }
            Field::WorkingDir => set("working_dir", json!(request.working_dir)),
            Field::Mounts => {
                let path = in_container(container, "mounts")?;
                let mut mounts = self.stray_mounts(container, request);
                let edits = mounts
                    .by_ref()
                    .map(|mount| (!mount.destination.is_empty()).then(|| Edit::append(&path, json!(mount))));
                edits.chain(required_mounts_edit(container, request)).collect()
            }
            Field::Limits => limits_edits(container, request),
            _ => None,
        }
    }

    /// One more start, where that is what is missing.
    fn start_edits(&self, container: &Container) -> Option<Vec<Edit>> {
        let started =
            container.ordinal.and_then(|ordinal| self.state.starts.get(&ordinal)).copied().unwrap_or_default();
        let bound = container.caveau.as_ref().and_then(|extension| extension.max_starts);
        if bound.is_none_or(|most| started < most) {
            return Some(Vec::new());
        }
        let path = [in_container(container, "caveau")?, vec!["max_starts".into()]].concat();
        Some(vec![Edit::set(&path, json!(started.checked_add(1)?))])
    }

    fn exec_draft(&self, container: &Arc<Container>, request: &ExecInContainer) -> Draft {
        let fields: Vec<_> = self.exec_differences(container, request).collect();
        let mut differences: Vec<_> = fields.iter().map(|field| self.exec_reason(*field, container, request)).collect();
        let dropping = self.policy.flags.environment_dropping;
        differences.extend(env_differences(container, &request.env_list, dropping));
        let privileged = self.state.started.get(&request.container_id).copied().unwrap_or_default();
        let exact = self.capabilities_ok(container, &request.capabilities, privileged);
        if !exact && !self.policy.flags.capability_dropping {
            differences.push(self.capability_reason(container, &request.capabilities, privileged));
        }
        let attempts = || {
            let mut edits = Vec::new();
            for field in fields {
                match field {
                    Field::Command => {
                        let process = json!({"command": request.arg_list, "signals": []});
                        edits.push(Edit::append(&in_container(container, "exec_processes")?, process));
                    }
                    Field::NoNewPrivileges => {
                        edits.push(Edit::set(&in_container(container, "no_new_privileges")?, json!(false)));
                    }
                    Field::User => {
                        edits.extend(user_edits(container, (&request.user, &request.groups, &request.umask), true)?);
                    }
                    // It was started with another one, and that has to stay allowed.
                    _ => return None,
                }
            }
            edits.extend(required_edits(container, &request.env_list)?);
            let stray = stray_edits(container, &request.env_list)?;
            let wide = [edits.clone(), stray.clone()].concat();
            if !dropping {
                edits.extend(stray);
            }
            Some(vec![edits, wide])
        };
        Draft { label: container.label(), attempts: attempts(), differences }
    }

    /// How many of a container's layers are not mounted yet.
    fn unmounted_layers(&self, container: &Container) -> usize {
        let mounted: BTreeSet<_> = self.state.devices.values().collect();
        container.layers.iter().flatten().filter(|layer| !mounted.contains(layer)).count()
    }

    /// The layer that is asked for, instead of the container's first one that is not mounted yet.
    fn device_draft(&self, container: &Container, request: &MountDevice) -> Draft {
        let layers: Vec<_> = container.layers.iter().flatten().collect();
        let attempts = || {
            let path = in_container(container, "layers")?;
            let free = layers.iter().position(|layer| !self.state.devices.values().any(|hash| hash == *layer));
            Some(vec![vec![match free {
                Some(index) => Edit::set(&[path, vec![index.into()]].concat(), json!(request.device_hash)),
                None => Edit::append(&path, json!(request.device_hash)),
            }]])
        };
        let reason = Reason::new(Field::RootHash, quoted(&layers), &request.device_hash);
        let differences = vec![Reason { container: Some(container.label()), ..reason }];
        Draft { label: container.label(), attempts: attempts(), differences }
    }

    fn overlay_drafts(&self, request: &MountOverlay) -> Vec<Draft> {
        let found: Vec<_> = request.layer_paths.iter().rev().map(|path| self.state.devices.get(path)).collect();
        let hashes: Option<Vec<_>> = found.iter().copied().collect();
        let draft = |container: &Arc<Container>| {
            let layers = || container.layers.iter().flatten();
            let got = found.iter().map(|hash| hash.map_or("(not a mounted layer)", String::as_str));
            let reason = Reason::new(Field::Layers, quoted(layers()), quoted(got));
            let differs = !mounts::has_layers(container, &found);
            let attempts = || {
                let hashes = hashes.as_ref().filter(|hashes| differs && !hashes.is_empty())?;
                Some(vec![vec![Edit::set(&in_container(container, "layers")?, json!(hashes))]])
            };
            let differences =
                if differs { vec![Reason { container: Some(container.label()), ..reason }] } else { vec![] };
            Draft { label: container.label(), attempts: attempts(), differences }
        };
        // The container with the most of these layers is most likely the one that is meant.
        let mut all = self.candidates().to_vec();
        let common = |container: &Arc<Container>| {
            container.layers.iter().flatten().filter(|layer| found.contains(&Some(*layer))).count()
        };
        all.sort_by_key(|container| usize::MAX.saturating_sub(common(container)));
        self.by_likeness(&all, draft, |_| 0)
    }
}
