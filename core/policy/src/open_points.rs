//! What a policy leaves to the host, in words.

use caveau_group::{Right, Signal};

use crate::{document::RuleKind, model::Container, point::Point, policy::Policy};

/// Everything that the policy leaves open, a sentence each: what the host may still choose, and what it can see. The first
/// sentences concern the group, the others a container each.
#[must_use]
pub fn open_points(policy: &Policy) -> Vec<String> {
    let mut points = Vec::new();
    hand_written(policy, &mut points);
    flags(policy, &mut points);
    fragments(policy, &mut points);
    network(policy, &mut points);
    owners(policy, &mut points);
    for container in policy.containers() {
        of_container(container, &mut points);
    }
    points
}

fn hand_written(policy: &Policy, points: &mut Vec<String>) {
    let written: Vec<_> = Point::ALL
        .iter()
        .filter(|point| policy.rules.get(point) == Some(&RuleKind::Written))
        .map(|point| point.name())
        .collect();
    if !written.is_empty() {
        points.push(format!(
            "Rules of the policy's own, which are not summed up here, decide about {}.",
            written.join(", ")
        ));
    }
    let missing: Vec<_> = Point::ALL
        .iter()
        .filter(|point| !policy.rules.contains_key(point))
        .filter(|point| point.before() == crate::point::Before::Allow)
        .filter(|point| policy.api_version.is_some_and(|version| version < point.introduced()))
        .map(|point| point.name())
        .collect();
    if !missing.is_empty() {
        points.push(format!(
            "The policy is older than these questions, so they are always allowed: {}.",
            missing.join(", ")
        ));
    }
}

fn flags(policy: &Policy, points: &mut Vec<String>) {
    let flags = policy.flags;
    for (open, sentence) in [
        (flags.properties_access, "The host can read what each container uses (processor time, memory, processes)."),
        (flags.dump_stacks, "The host can have the agent dump its stacks."),
        (flags.runtime_logging, "The host gets the agent's log."),
        (
            flags.environment_dropping,
            "The host can leave out variables, and add ones that are not allowed: those are dropped, not refused.",
        ),
        (
            flags.capability_dropping,
            "The host can ask for other capabilities: those not allowed are dropped, not refused.",
        ),
        (
            flags.unencrypted_scratch,
            "What containers write can go to a disk that is not encrypted: the host can read and change it.",
        ),
        (flags.host_network, "A container can share the guest's own network namespace."),
        (
            policy.extension.memory_scratch,
            "The host chooses whether scratch space is an encrypted disk or the guest's memory.",
        ),
    ] {
        if open {
            points.push(sentence.to_owned());
        }
    }
    if !policy.external_processes.is_empty() {
        points.push(format!(
            "The host can run {} kinds of process in the guest outside any container.",
            policy.external_processes.len()
        ));
    }
}

fn fragments(policy: &Policy, points: &mut Vec<String>) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    for rule in policy.fragments() {
        points.push(format!(
            "Whoever signs as {} can add {} with any fragment {:?} that is new enough, now and later.",
            text(&rule.issuer),
            rule.includes.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", "),
            text(&rule.feed)
        ));
    }
    for rule in policy.trust_lists() {
        points.push(format!(
            "Whoever signs as {} can say, with the list {:?}, which keys the ledgers {} have.",
            text(&rule.issuer),
            text(&rule.subject),
            rule.allowed_ledgers.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ")
        ));
    }
}

fn network(policy: &Policy, points: &mut Vec<String>) {
    let Some(rules) = policy.network() else { return };
    let listed = |items: Vec<String>| if items.is_empty() { "nothing".to_owned() } else { items.join(", ") };
    points.push(format!(
        "On the network, others can connect to {}; containers can connect to {}. All of it passes through the host.",
        listed(rules.listen.iter().map(ToString::to_string).collect()),
        listed(rules.connect.iter().map(ToString::to_string).collect())
    ));
}

fn owners(policy: &Policy, points: &mut Vec<String>) {
    for owner in policy.owners().iter() {
        let rights = owner.may.iter().map(|right| match right {
            Right::Denials => "read what the policy refused",
            Right::Exec => "run any program in any container and see what it writes",
            Right::Logs => "read what containers write whose streams the host does not get",
        });
        let rights: Vec<_> = rights.collect();
        points.push(format!("Whoever has the key {} can {}.", owner.key, rights.join("; ")));
    }
}

fn of_container(container: &Container, points: &mut Vec<String>) {
    let name = container.label();
    let mut say = |sentence: String| points.push(format!("Container {name}: {sentence}"));
    if container.allow_stdio_access == Some(true) {
        say("the host reads its output and writes its input.".to_owned());
    }
    environment(container, &mut say);
    if container.user.as_ref().and_then(|user| user.user_idname.as_ref()).is_some_and(|user| user.is_any()) {
        say("it can run as any user.".to_owned());
    }
    let any_group =
        container.user.iter().flat_map(|user| user.group_idnames.iter().flatten()).any(|group| group.is_any());
    if any_group {
        say("its groups are whatever /etc/passwd and /etc/group of the image give its user.".to_owned());
    }
    if container.allow_elevated == Some(true) {
        say("it can run privileged: it then controls the guest and every container of the group.".to_owned());
    }
    if container.no_new_privileges == Some(false) {
        say("its processes can gain privileges from set-user-ID programs of the image.".to_owned());
    }
    let mounts = container.mounts.iter().flatten().filter_map(|mount| mount.destination.as_deref());
    let mounts: Vec<_> =
        mounts.filter(|place| container.required_mounts().iter().all(|other| other != place)).collect();
    if !mounts.is_empty() {
        say(format!("the host can leave out its mounts ({}); writes there then go to scratch.", mounts.join(", ")));
    }
    let commands = container.exec_processes.iter().flatten();
    for process in commands {
        let command = crate::denial::quoted(process.command.iter().flatten());
        let signals = signals(process.signals.as_deref());
        say(format!("the host can run {command} in it, any number of times, and send it {signals}."));
    }
    say(format!("the host can send its first process {}, at any time.", signals(container.signals.as_deref())));
    if container.caveau.as_ref().is_none_or(|extension| extension.max_starts.is_none()) {
        say("it can be started any number of times, also side by side.".to_owned());
    }
    let limits = container.limits();
    let most = |text: &str, bound: Option<String>| {
        bound.map_or_else(|| text.to_owned(), |most| format!("{text} ({most} at most)"))
    };
    say(format!(
        "the host decides {} it is started and ended, how much {} and {} it gets, and its host name.",
        if container.must_run() { "when" } else { "whether and when" },
        most("memory", limits.memory_bytes.map(|bytes| format!("{bytes} bytes"))),
        most("processor time", limits.cpu_millis.map(|millis| format!("{millis} thousandths of a processor")))
    ));
    if container.must_run() {
        say("that it was started stands behind all evidence of the group; that it still runs does not.".to_owned());
    }
}

/// Signals by name, as a list in a sentence.
fn signals(numbers: Option<&[i64]>) -> String {
    let name = |number: &i64| match u8::try_from(*number).ok().and_then(|number| Signal::try_from(number).ok()) {
        Some(signal) => signal.to_string(),
        None => format!("{number}"),
    };
    let mut numbers = numbers.unwrap_or_default().to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    let names: Vec<_> = numbers.iter().map(name).collect();
    match names.split_last() {
        None => "no signal".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// A variable by which the host has code of its choice run in whatever program is linked dynamically.
const LOADED: &str = "LD_PRELOAD=/x.so";

fn environment(container: &Container, say: &mut impl FnMut(String)) {
    let rules = || container.env_rules.iter().flatten();
    for rule in rules().filter(|rule| rule.is_pattern()) {
        say(format!(
            "the host chooses the value of variables that match {:?}, for it and for what is run in it.",
            rule.shown()
        ));
        if rule.matches(LOADED) {
            say(format!(
                "{:?} matches LD_PRELOAD too, by which the host chooses what code the programs of the image run.",
                rule.shown()
            ));
        }
    }
    for (rule, error) in rules().filter_map(|rule| Some((rule, rule.pattern_error()?))) {
        say(format!("the pattern {:?} matches nothing: {error}.", rule.shown()));
    }
    let optional: Vec<_> = rules()
        .filter(|rule| !rule.is_required() && !rule.is_pattern())
        .map(|rule| rule.shown().split('=').next().unwrap_or_default().to_owned())
        .collect();
    if !optional.is_empty() {
        say(format!("the host can leave out the variables {}.", optional.join(", ")));
    }
    if rules().next().is_some() {
        say("the values of its variables stand in the policy, which the host can read: no secret is safe there."
            .to_owned());
    }
}
