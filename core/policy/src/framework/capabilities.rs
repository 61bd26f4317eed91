//! Which capabilities a process gets.

use std::{collections::BTreeSet, sync::Arc};

use super::Framework;
use crate::{model::Container, request::Capabilities};

impl Framework<'_> {
    /// The sets that a container allows. Where the policy leaves them to the engine they depend on whether it runs
    /// privileged. Absent where the policy says nothing at all.
    pub(super) fn capabilities_of(&self, container: &Container, privileged: bool) -> Option<Capabilities> {
        if let Some(capabilities) = container.capabilities.as_ref()? {
            return Some(capabilities.clone());
        }
        Some(if privileged && container.allow_elevated == Some(true) {
            let all = &self.platform.privileged_capabilities;
            Capabilities::from_sets([vec![], all.clone(), all.clone(), all.clone(), all.clone()])
        } else {
            let usual = &self.platform.default_capabilities;
            Capabilities::from_sets([vec![], usual.clone(), usual.clone(), vec![], usual.clone()])
        })
    }

    /// The sets that all candidates agree on: the request's, or, where the policy lets the host drop capabilities, the
    /// largest part of it that some candidate allows. Absent if two candidates would keep different parts of equal size.
    pub(super) fn agreed_capabilities(
        &self,
        candidates: &[Arc<Container>],
        requested: &Capabilities,
        privileged: bool,
    ) -> Option<Capabilities> {
        if !self.policy.flags.capability_dropping {
            return Some(requested.clone());
        }
        let kept: Vec<[BTreeSet<&String>; 5]> = candidates
            .iter()
            .filter_map(|container| self.capabilities_of(container, privileged))
            .map(|allowed| kept(&allowed, requested))
            .collect();
        let size = |sets: &[BTreeSet<&String>; 5]| sets.iter().map(BTreeSet::len).fold(0, usize::saturating_add);
        let most = kept.iter().map(size).max()?;
        let mut largest = kept.into_iter().filter(|sets| size(sets) == most);
        let first = largest.next()?;
        let agree = largest.all(|sets| sets == first);
        agree.then(|| Capabilities::from_sets(first.map(|set| set.into_iter().cloned().collect())))
    }

    /// Whether the container allows exactly these sets.
    pub(super) fn capabilities_ok(&self, container: &Container, found: &Capabilities, privileged: bool) -> bool {
        let Some(allowed) = self.capabilities_of(container, privileged) else { return false };
        allowed.sets().into_iter().zip(found.sets()).all(|(allowed, found)| same_members(allowed, found))
    }
}

/// Of each requested set, what is allowed.
fn kept<'r>(allowed: &Capabilities, requested: &'r Capabilities) -> [BTreeSet<&'r String>; 5] {
    let [a, b, c, d, e] = requested.sets();
    let [a0, b0, c0, d0, e0] = allowed.sets();
    let keep = |requested: &'r Vec<String>, allowed: &Vec<String>| {
        requested.iter().filter(|name| allowed.contains(name)).collect()
    };
    [keep(a, a0), keep(b, b0), keep(c, c0), keep(d, d0), keep(e, e0)]
}

/// Whether two lists have as many items, and each other's.
pub(super) fn same_members(one: &[String], other: &[String]) -> bool {
    one.len() == other.len()
        && one.iter().all(|item| other.contains(item))
        && other.iter().all(|item| one.contains(item))
}
