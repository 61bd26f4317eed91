//! Which variables a process gets.

use std::collections::BTreeSet;

use super::fields::Candidate;
use crate::{
    denial::{Detail, Field, Reason},
    model::EnvRule,
};

/// The environment that all candidates agree on: the request's, or, where the policy lets the host drop variables, the
/// largest part of it that some candidate takes. Absent if two candidates would keep different parts of equal size.
pub(super) fn agreed<C: Candidate>(candidates: &[C], requested: &[String], dropping: bool) -> Option<Vec<String>> {
    if !dropping {
        return Some(requested.to_vec());
    }
    let kept = |candidate: &C| -> BTreeSet<&String> {
        let rules = candidate.env_rules().unwrap_or_default();
        let is_taken = |(at, variable): &(usize, &String)| any_from(rules, *at, |rule| rule.matches(variable));
        requested.iter().enumerate().filter(is_taken).map(|(_, variable)| variable).collect()
    };
    let sets: Vec<_> = candidates.iter().filter(|candidate| candidate.env_rules().is_some()).map(kept).collect();
    let most = sets.iter().map(BTreeSet::len).max()?;
    let mut largest = sets.into_iter().filter(|set| set.len() == most);
    let first = largest.next()?;
    largest.all(|set| set == first).then(|| first.into_iter().cloned().collect())
}

/// Whether every variable is allowed and every required one is there.
pub(super) fn accepted(rules: Option<&[EnvRule]>, variables: &[String]) -> bool {
    let Some(rules) = rules else { return false };
    let is_met = |(at, rule): (usize, &EnvRule)| {
        !rule.is_required() || any_from(variables, at, |variable| rule.matches(variable))
    };
    let is_taken = |(at, variable): (usize, &String)| any_from(rules, at, |rule| rule.matches(variable));
    rules.iter().enumerate().all(is_met) && variables.iter().enumerate().all(is_taken)
}

/// Whether any of the items will do. The one at `likely` is tried first: variables mostly come in the order of their rules, and
/// each pattern that is tried in vain costs more than all else of a decision.
fn any_from<T>(items: &[T], likely: usize, will_do: impl Fn(&T) -> bool) -> bool {
    items.get(likely).is_some_and(&will_do) || items.iter().any(will_do)
}

/// What is wrong with an environment, for one candidate: variables that no rule takes, and rules that want one.
pub(super) fn differences<C: Candidate>(candidate: &C, variables: &[String]) -> Vec<Reason> {
    let rules = candidate.env_rules().unwrap_or_default();
    let stray: Vec<_> = variables.iter().filter(|variable| !rules.iter().any(|rule| rule.matches(variable))).collect();
    let missing: Vec<_> = rules
        .iter()
        .filter(|rule| rule.is_required() && !variables.iter().any(|variable| rule.matches(variable)))
        .map(EnvRule::shown)
        .collect();
    let container = Some(candidate.label());
    let mut reasons = Vec::new();
    if !stray.is_empty() {
        let expected =
            Detail::variables(rules.iter().map(EnvRule::shown).collect::<Vec<_>>().iter().map(String::as_str));
        let got = Detail::variables(stray.into_iter().map(String::as_str));
        reasons.push(Reason { field: Field::Env, expected, got, container: container.clone() });
    }
    if !missing.is_empty() {
        let expected = Detail::variables(missing.iter().map(String::as_str));
        reasons.push(Reason { field: Field::Env, expected, got: Detail::plain("none of them"), container });
    }
    reasons
}
