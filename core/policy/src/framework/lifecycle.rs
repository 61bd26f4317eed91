//! Containers: made, signalled, ended.

use std::sync::Arc;

use super::{Decision, Framework, Verdict, all, check, environment};
use crate::{
    denial::{Detail, Field, Reason, quoted},
    model::Container,
    request::{Capabilities, CreateContainer, ShutdownContainer, SignalContainerProcess},
    state::Change,
};

/// What to use, and the candidates that take it; or why none does.
type Narrowed<T> = Result<(T, Vec<Arc<Container>>), Vec<Reason>>;

impl Framework<'_> {
    pub(super) fn create_container(&self, request: &CreateContainer) -> Decision {
        let id = &request.container_id;
        all([self.unused(Field::ContainerId, self.state.started.contains_key(id), id)])?;
        let known = self.matching(id);
        if known.is_empty() {
            return Err(vec![Reason::new(Field::ContainerId, "one whose overlay is mounted", id)]);
        }
        let alike: Vec<_> = known
            .iter()
            .filter(|container| self.create_differences(container, request).next().is_none())
            .cloned()
            .collect();
        if alike.is_empty() {
            return Err(self.create_reasons(known, request));
        }
        let (env, with_env) = self.narrow_by_env(&alike, &request.env_list)?;
        let (capabilities, with_capabilities) =
            self.narrow_by_capabilities(&with_env, &request.capabilities, request.privileged)?;
        let containers = self.narrow_by_starts(with_capabilities)?;
        let stdio = agreed_stdio(containers.iter().map(|container| container.allow_stdio_access))?;
        let started = Change::AddStarted {
            id: id.clone(),
            privileged: request.privileged,
            ordinal: containers.first().and_then(|container| container.ordinal),
        };
        Ok(Verdict {
            changes: vec![Change::SetMatches { id: id.clone(), containers: containers.clone(), known: true }, started],
            env: Some(env),
            capabilities: Some(capabilities),
            stdio: Some(stdio),
            containers,
            ..Verdict::default()
        })
    }

    /// Every field in which every candidate differs.
    fn create_reasons(&self, candidates: &[Arc<Container>], request: &CreateContainer) -> Vec<Reason> {
        let reasons = |container: &Arc<Container>| -> Vec<Reason> {
            let fields = self.create_differences(container, request);
            let mut reasons: Vec<_> = fields.map(|field| self.create_reason(field, container, request)).collect();
            if !self.policy.flags.environment_dropping {
                reasons.extend(environment::differences(container, &request.env_list));
            }
            if !self.policy.flags.capability_dropping
                && !self.capabilities_ok(container, &request.capabilities, request.privileged)
            {
                reasons.push(self.capability_reason(container, &request.capabilities, request.privileged));
            }
            reasons
        };
        candidates.iter().flat_map(reasons).collect()
    }

    /// The environment to use, and the candidates that take it.
    pub(super) fn narrow_by_env(&self, candidates: &[Arc<Container>], requested: &[String]) -> Narrowed<Vec<String>> {
        let Some(env) = environment::agreed(candidates, requested, self.policy.flags.environment_dropping) else {
            return Err(vec![undecidable(Field::Env)]);
        };
        let takes = |container: &&Arc<Container>| environment::accepted(container.env_rules.as_deref(), &env);
        let left: Vec<_> = candidates.iter().filter(takes).cloned().collect();
        if left.is_empty() {
            return Err(candidates.iter().flat_map(|container| environment::differences(container, &env)).collect());
        }
        Ok((env, left))
    }

    /// The capabilities to use, and the candidates that take them.
    pub(super) fn narrow_by_capabilities(
        &self,
        candidates: &[Arc<Container>],
        requested: &Capabilities,
        privileged: bool,
    ) -> Narrowed<Capabilities> {
        let Some(agreed) = self.agreed_capabilities(candidates, requested, privileged) else {
            return Err(vec![undecidable(Field::Capabilities)]);
        };
        let takes = |container: &&Arc<Container>| self.capabilities_ok(container, &agreed, privileged);
        let left: Vec<_> = candidates.iter().filter(takes).cloned().collect();
        if left.is_empty() {
            let reason = |container: &Arc<Container>| self.capability_reason(container, &agreed, privileged);
            return Err(candidates.iter().map(reason).collect());
        }
        Ok((agreed, left))
    }

    pub(super) fn capability_reason(&self, container: &Container, found: &Capabilities, privileged: bool) -> Reason {
        let shown = |capabilities: &Capabilities| {
            let [ambient, bounding, effective, inheritable, permitted] = capabilities.sets().map(quoted);
            format!(
                "ambient {ambient} bounding {bounding} effective {effective} inheritable {inheritable} permitted {permitted}"
            )
        };
        let expected = self.capabilities_of(container, privileged).as_ref().map_or_else(String::new, shown);
        Reason { container: Some(container.label()), ..Reason::new(Field::Capabilities, expected, shown(found)) }
    }

    /// The candidates that may be started once more.
    fn narrow_by_starts(&self, candidates: Vec<Arc<Container>>) -> Result<Vec<Arc<Container>>, Vec<Reason>> {
        let starts = |container: &Container| {
            container.ordinal.and_then(|ordinal| self.state.starts.get(&ordinal)).copied().unwrap_or_default()
        };
        let bound = |container: &Container| container.caveau.as_ref().and_then(|extension| extension.max_starts);
        let (left, spent): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|container| bound(container).is_none_or(|most| starts(container) < most));
        if left.is_empty() {
            let reason = |container: &Arc<Container>| Reason {
                field: Field::Starts,
                expected: Detail::plain(format!("at most {}", bound(container).unwrap_or_default())),
                got: Detail::plain(starts(container).saturating_add(1).to_string()),
                container: Some(container.label()),
            };
            return Err(spent.iter().map(reason).collect());
        }
        Ok(left)
    }

    pub(super) fn shutdown_container(&self, request: &ShutdownContainer) -> Decision {
        self.check_started(&request.container_id)?;
        Verdict::changing([Change::RemoveMatches { id: request.container_id.clone() }])
    }

    /// Checks that a container was started.
    pub(super) fn check_started(&self, id: &str) -> Result<(), Vec<Reason>> {
        let started = self.state.started.contains_key(id);
        all([check(Field::ContainerId, started, "a container that was started", id)])
    }

    pub(super) fn signal(&self, request: &SignalContainerProcess) -> Decision {
        self.check_started(&request.container_id)?;
        let known = self.matching(&request.container_id);
        let takes = |container: &&Arc<Container>| signals_of(container, request).any(|signal| signal == request.signal);
        let containers: Vec<_> = known.iter().filter(takes).cloned().collect();
        if containers.is_empty() {
            let reason = |container: &Arc<Container>| {
                let signals: Vec<_> = signals_of(container, request).map(|signal| signal.to_string()).collect();
                let reason =
                    Reason::new(Field::Signal, format!("one of [{}]", signals.join(", ")), request.signal.to_string());
                Reason { container: Some(container.label()), ..reason }
            };
            return Err(known.iter().map(reason).collect());
        }
        Verdict::changing([Change::SetMatches { id: request.container_id.clone(), containers, known: true }])
    }
}

/// Signals that the process may be sent, if the container were this one.
pub(super) fn signals_of<'c>(
    container: &'c Container,
    request: &'c SignalContainerProcess,
) -> Box<dyn Iterator<Item = i64> + 'c> {
    if request.is_init_process {
        return Box::new(container.signals.iter().flatten().copied());
    }
    let processes = container.exec_processes.iter().flatten();
    let same = processes.filter(|process| process.command.as_ref() == Some(&request.arg_list));
    Box::new(same.flat_map(|process| process.signals.iter().flatten().copied()))
}

/// Whether the host gets the streams, if all candidates agree on it.
pub(super) fn agreed_stdio(mut candidates: impl Iterator<Item = Option<bool>>) -> Result<bool, Vec<Reason>> {
    let undecided = || vec![undecidable(Field::Stdio)];
    let first = candidates.next().flatten().ok_or_else(undecided)?;
    if candidates.all(|stdio| stdio == Some(first)) { Ok(first) } else { Err(undecided()) }
}

/// The reason where candidates that are otherwise alike want different things.
pub(super) fn undecidable(field: Field) -> Reason {
    Reason::new(field, "containers that differ in more than this", "several that it could be, which disagree")
}
