//! What the policy's `caveau` objects ask for beyond the framework, whatever rules the document has: the order of starts,
//! containers that must run, bounds, and no way around the network's rules.

use std::{collections::BTreeSet, sync::Arc};

use caveau_group::{Capability, Limits};

use super::{Answer, Enforcer, Permit, guard};
use crate::{
    denial::{Denial, Detail, Field, Reason, quoted},
    framework::Verdict,
    model::Container,
    permitted,
    point::Point,
    request::{self, Capabilities},
    state::Change,
};

/// Capabilities with which a container gets round the network's rules: to write and read packets past them, to change what
/// packets meet, to enter the agent. Where a policy has such rules, no process is given one.
pub const PAST_NETWORK_RULES: [&str; 5] =
    ["CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"];

/// Containers of the policy that must run and were not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy wants no evidence before these containers were started: {}", quoted(.containers))]
pub struct NotStarted {
    /// Their names.
    pub containers: Vec<String>,
}

impl Enforcer {
    /// May the program of this container, which was made, be let go? Those that the policy wants before it must have been.
    /// It is the second half of making a container, and stands in records as [`request::StartContainer`] at that point.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn start_container(&mut self, id: &str) -> Answer<permitted::StartContainer> {
        let point = Point::CreateContainer;
        self.note(point, &request::StartContainer { start: id.to_owned() });
        self.check_settled(point)?;
        let life = self.guard.check_lives(point, id)?;
        let started = |name: &String| self.policy.named.get(name).is_some_and(|place| self.guard.was_started(*place));
        let reason = |name: &String| Reason {
            container: Some(life.label.clone()),
            ..Reason::new(Field::Order, format!("{name:?} to be started before it"), "a start before that")
        };
        let reasons: Vec<_> = life.after.iter().filter(|name| !started(name)).map(reason).collect();
        if !reasons.is_empty() {
            let denial = Denial::new(point, reasons);
            self.note_denial(&denial);
            return Err(denial);
        }
        let permit = permitted::StartContainer { container_id: id.to_owned() };
        Ok(self.grant(permit, Vec::new(), guard::Change::LetGo { id: id.to_owned() }, None))
    }

    /// May evidence of the group be made? Not before every container was started that must run. Changes nothing.
    ///
    /// # Errors
    /// [`NotStarted`].
    pub fn attest(&self) -> Result<Permit<permitted::Attest>, NotStarted> {
        let mut seen = BTreeSet::new();
        let candidates = self.state.loaded.candidates(&self.policy).iter();
        let missing = candidates.filter(|container| {
            let place = container.ordinal;
            container.must_run() && seen.insert(place) && !place.is_some_and(|place| self.guard.was_started(place))
        });
        let containers: Vec<_> = missing.map(|container| container.label()).collect();
        if containers.is_empty() { Ok(Permit::grant(permitted::Attest)) } else { Err(NotStarted { containers }) }
    }

    /// The containers that a permitted one can be. A rule of the document's own may not say.
    pub(super) fn possible(&self, verdict: &Verdict, id: &str) -> Vec<Arc<Container>> {
        if !verdict.containers.is_empty() {
            return verdict.containers.clone();
        }
        let said = verdict.changes.iter().find_map(|change| match change {
            Change::SetMatches { id: of, containers, .. } if of == id => Some(containers.clone()),
            _ => None,
        });
        said.unwrap_or_else(|| self.state.matches.get(id).cloned().unwrap_or_default())
    }

    /// What is remembered of a container while it lives.
    pub(super) fn life(&self, possible: &[Arc<Container>], stdio: bool) -> guard::Life {
        let first = possible.first();
        // One that a rule of the document's own speaks of has lost its place, but not its name.
        let by_name = || possible.first().filter(|_| possible.len() == 1)?.name.as_ref();
        let place = first
            .and_then(|container| container.ordinal)
            .or_else(|| by_name().and_then(|name| self.policy.named.get(name)).copied());
        let after: BTreeSet<_> = possible.iter().flat_map(|container| container.after()).cloned().collect();
        guard::Life { stdio, place, after, label: first.map(|container| container.label()).unwrap_or_default() }
    }

    /// Checks that a process cannot get round the network's rules, where there are any.
    pub(super) fn check_network(
        &mut self,
        point: Point,
        capabilities: &Capabilities,
        privileged: bool,
    ) -> Result<(), Denial> {
        if self.policy.network().is_none() {
            return Ok(());
        }
        let past = |name: &&String| {
            name.parse::<Capability>().is_ok_and(|capability| PAST_NETWORK_RULES.contains(&capability.name()))
        };
        let found: BTreeSet<_> = capabilities.sets().into_iter().flatten().filter(past).collect();
        let expected = Detail::plain("nothing that gets round the policy's network rules");
        let mut reasons = Vec::new();
        if !found.is_empty() {
            let got = Detail::plain(quoted(found));
            reasons.push(Reason { field: Field::Capabilities, expected: expected.clone(), got, container: None });
        }
        if privileged {
            let got = Detail::plain("a privileged container");
            reasons.push(Reason { field: Field::Privileged, expected, got, container: None });
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let denial = Denial::new(point, reasons);
        self.note_denial(&denial);
        Err(denial)
    }
}

/// The tightest bounds of all that a container can be.
pub(super) fn limits(possible: &[Arc<Container>]) -> Limits {
    possible.iter().fold(Limits::default(), |tightest, container| tightest.tightened(container.limits()))
}
