//! The edits themselves: what makes one of the document's containers take what it does not take.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::{
        environment,
        fields::{Candidate as _, missing_mounts},
        lifecycle,
    },
    Draft,
};
use crate::{
    amendment::{Edit, Step, apply_to_value},
    denial::{Field, Reason},
    model::{Container, UserRule},
    policy::Policy,
    request::{CreateContainer, IdName, SignalContainerProcess},
};

/// Edits, each once.
pub(super) struct UniqueEdits(pub(super) Vec<Edit>);

impl FromIterator<Edit> for UniqueEdits {
    fn from_iter<I: IntoIterator<Item = Edit>>(edits: I) -> Self {
        let mut unique = Vec::new();
        for edit in edits {
            if !unique.contains(&edit) {
                unique.push(edit);
            }
        }
        Self(unique)
    }
}

/// The way to a field of one of the document's containers; absent for one that came otherwise.
pub(super) fn in_container(container: &Container, field: &str) -> Option<Vec<Step>> {
    if container.of_fragment {
        return None;
    }
    Some(vec!["containers".into(), container.ordinal?.into(), field.into()])
}

/// The container with an edit made, `below` being the way within it.
pub(super) fn amended_container(container: &Container, below: &[Step], edit: &Edit) -> Option<Container> {
    let mut value = serde_json::to_value(container).ok()?;
    apply_to_value(&mut value, below, edit)?;
    let mut amended: Container = serde_json::from_value(value).ok()?;
    amended.ordinal = container.ordinal;
    amended.own_env_rules = container.own_env_rules;
    amended.of_fragment = container.of_fragment;
    Some(amended)
}

/// Takes from the mounts that must be there those that are not, if any; the inner one is absent where nothing can be edited.
pub(super) fn required_mounts_edit(container: &Container, request: &CreateContainer) -> Option<Option<Edit>> {
    missing_mounts(container, request).next()?;
    let left: Vec<_> = container
        .required_mounts()
        .iter()
        .filter(|place| !missing_mounts(container, request).any(|missing| missing == *place))
        .collect();
    let path = in_container(container, "caveau").map(|path| [path, vec!["required_mounts".into()]].concat());
    Some(path.map(|path| Edit::set(&path, json!(left))))
}

/// Raises each bound that the request is above to what it asks for.
pub(super) fn limits_edits(container: &Container, request: &CreateContainer) -> Option<Vec<Edit>> {
    let (most, asked) = (container.limits(), request.limits);
    let raised = [
        ("memory_bytes", most.memory_bytes, asked.memory_bytes),
        ("cpu_millis", most.cpu_millis.map(u64::from), asked.cpu_millis.map(u64::from)),
        ("pids", most.pids.map(u64::from), asked.pids.map(u64::from)),
    ];
    let above = raised.into_iter().filter_map(|(name, most, asked)| {
        let (most, asked) = most.zip(asked)?;
        (asked > most).then_some((name, asked))
    });
    let edit = |(name, asked): (&str, u64)| {
        let path = [in_container(container, "caveau")?, vec![name.into()]].concat();
        Some(Edit::set(&path, json!(asked)))
    };
    above.map(edit).collect()
}

pub(super) fn set_flag(policy: &mut Policy, path: &[Step], value: &Value) -> Option<()> {
    let [Step::Key(name)] = path else { return None };
    let flag = match name.as_str() {
        "allow_dump_stacks" => &mut policy.flags.dump_stacks,
        "allow_host_network" => &mut policy.flags.host_network,
        "allow_properties_access" => &mut policy.flags.properties_access,
        "allow_runtime_logging" => &mut policy.flags.runtime_logging,
        "allow_unencrypted_scratch" => &mut policy.flags.unencrypted_scratch,
        _ => return None,
    };
    *flag = value.as_bool()?;
    Some(())
}

/// What is wrong with an environment. Where variables may be dropped, none is too much.
pub(super) fn env_differences(container: &Arc<Container>, variables: &[String], dropping: bool) -> Vec<Reason> {
    let taken =
        |variable: &&String| container.env_rules().unwrap_or_default().iter().any(|rule| rule.matches(variable));
    let kept: Vec<_> = variables.iter().filter(|variable| !dropping || taken(variable)).cloned().collect();
    environment::differences(container, &kept)
}

/// Makes rules optional whose variable is not there; absent where they are the platform's.
pub(super) fn required_edits(container: &Container, variables: &[String]) -> Option<Vec<Edit>> {
    let rules = container.env_rules.iter().flatten().enumerate();
    let missing =
        rules.filter(|(_, rule)| rule.is_required() && !variables.iter().any(|variable| rule.matches(variable)));
    let edit = |index: usize| {
        let own = index < container.own_env_rules;
        let path = own.then(|| in_container(container, "env_rules"))??;
        Some(Edit::set(&[path, vec![index.into(), "required".into()]].concat(), json!(false)))
    };
    missing.map(|(index, _)| edit(index)).collect()
}

/// A rule for each variable that none takes.
pub(super) fn stray_edits(container: &Container, variables: &[String]) -> Option<Vec<Edit>> {
    let taken = |variable: &&String| container.env_rules.iter().flatten().any(|rule| rule.matches(variable));
    let path = in_container(container, "env_rules")?;
    let rule = |variable: &String| json!({"pattern": variable, "required": false, "strategy": "string"});
    let edits = variables.iter().filter(|variable| !taken(variable)).map(|v| Edit::append(&path, rule(v)));
    Some(edits.collect::<UniqueEdits>().0)
}

/// Edits after which these user, groups and umask are taken. Of a further process (`more`) the container's own user has to
/// stay allowed.
pub(super) fn user_edits(
    container: &Container,
    (user, groups, umask): (&IdName, &[IdName], &String),
    more: bool,
) -> Option<Vec<Edit>> {
    let path = in_container(container, "user")?;
    let id_rule = |found: &IdName, by_name: bool| {
        if found.id.is_empty() || by_name && !found.name.is_empty() {
            json!({"pattern": found.name, "strategy": "name"})
        } else {
            json!({"pattern": found.id, "strategy": "id"})
        }
    };
    let Some(rule) = &container.user else {
        let groups: Vec<_> = groups.iter().map(|group| id_rule(group, false)).collect();
        let user = json!({"user_idname": id_rule(user, false), "group_idnames": groups, "umask": umask});
        return (!more).then(|| vec![Edit::set(&path, user)]);
    };
    let below = |name: &str| [path.clone(), vec![name.into()]].concat();
    let mut edits = Vec::new();
    if !rule.user_idname.as_ref().is_some_and(|rule| rule.matches(user)) {
        let by_name = rule.user_idname.as_ref().is_some_and(|rule| rule.strategy() == Some("name"));
        let any = json!({"pattern": "", "strategy": "any"});
        edits.push(Edit::set(&below("user_idname"), if more { any } else { id_rule(user, by_name) }));
    }
    edits.extend(group_edits(rule, groups, &below("group_idnames"), id_rule));
    if rule.umask.as_ref() != Some(umask) {
        if more {
            return None;
        }
        edits.push(Edit::set(&below("umask"), json!(umask)));
    }
    Some(edits)
}

/// A rule for each group that none takes.
pub(super) fn group_edits(
    rule: &UserRule,
    groups: &[IdName],
    path: &[Step],
    id_rule: impl Fn(&IdName, bool) -> Value,
) -> Vec<Edit> {
    let taken = |group: &&IdName| rule.group_idnames.iter().flatten().any(|rule| rule.matches(group));
    let by_name = rule.group_idnames.iter().flatten().any(|rule| rule.strategy() == Some("name"));
    let edits = groups.iter().filter(|group| !taken(group)).map(|group| Edit::append(path, id_rule(group, by_name)));
    edits.collect::<UniqueEdits>().0
}

/// One more signal, for the first process or for the one of that command.
pub(super) fn signal_draft(container: &Arc<Container>, request: &SignalContainerProcess) -> Draft {
    let signals: Vec<_> = lifecycle::signals_of(container, request).map(|signal| signal.to_string()).collect();
    let reason = Reason::new(Field::Signal, format!("one of [{}]", signals.join(", ")), request.signal.to_string());
    let attempts = || {
        let path = if request.is_init_process {
            in_container(container, "signals")?
        } else {
            let mut processes = container.exec_processes.iter().flatten();
            let index = processes.position(|process| process.command.as_ref() == Some(&request.arg_list))?;
            [in_container(container, "exec_processes")?, vec![index.into(), "signals".into()]].concat()
        };
        Some(vec![vec![Edit::append(&path, json!(request.signal))]])
    };
    let differences = vec![Reason { container: Some(container.label()), ..reason }];
    Draft { label: container.label(), attempts: attempts(), differences }
}
