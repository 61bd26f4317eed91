//! Decisions of the policy engine, against the reference framework evaluated by regorus.
//!
//! Both have the same policy and are asked the same questions in the same state. An answer that is timed changes nothing:
//! on our side an act that was allowed counts as failed, and the anchor's answer is not fed back to it.

mod anchor;
mod case;
mod memory;
mod question;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use caveau_policy::{Enforcer, HostData, Outcome, Point, PolicyDigest};
use serde_json::Value;

use self::{
    anchor::{Anchor, Reference},
    memory::Taken,
    question::Question,
};
use super::{
    Bed,
    measure::{Pairs, Sample, median_wall, repeated},
    report::Report,
};

pub(super) use memory::load_many;

/// How many times as fast as the anchor each has to be.
const LOAD_BAR: f64 = 3.0;
const MOUNT_BAR: f64 = 20.0;
const CREATE_BAR: f64 = 100.0;

/// Longest decision about a new container that is aimed at, in seconds.
const CREATE_AIM: f64 = 20e-6;

/// Most memory of a loaded policy, in times the length of its text.
const MEMORY_BAR: f64 = 5.0;

/// Columns of a line that has to be taken.
const LONG_LINE: usize = 100_000;

/// How many fresh policies a container is started under.
const STARTS: usize = 50;

/// The bench.
///
/// # Errors
/// Where the anchor cannot be found, or the two decide differently.
pub(super) fn bench(bed: &Bed<'_>) -> Result<Report> {
    let reference = Reference::find(bed.root)?;
    let policy = case::policy();
    let mut report = Report::new(
        "decisions",
        "policy engine, 10 containers of 20 variables and 8 layers",
        "the reference framework in regorus with its cache",
    );
    let loads = Pairs::take(
        bed.pairs,
        || repeated(|| load(&policy).map(drop)),
        || repeated(|| Anchor::load(&reference, &policy).map(drop)),
    )?;
    ratio(&mut report, "loading", &loads, LOAD_BAR);
    points(bed, &reference, &policy, &mut report)?;
    let taken = Taken::measure()?;
    let times = taken.loaded / policy.len() as f64;
    report.bar(
        format!("memory of a loaded policy at most {MEMORY_BAR} times its text of {} bytes", policy.len()),
        format!("{times:.1} times, {:.0} KiB", taken.loaded / 1024.0),
        times <= MEMORY_BAR,
    );
    report.fact("memory of a policy under which a container was started", format!("{:.0} KiB", taken.used / 1024.0));
    long_line(&mut report);
    starts(&policy, &mut report)?;
    Ok(report)
}

/// Puts a policy in force.
fn load(policy: &str) -> Result<Enforcer> {
    Ok(Enforcer::new(policy, &HostData::new(*PolicyDigest::of(policy).as_bytes()))?)
}

/// Starts the container under both, comparing answers, and times the points that have a bar.
fn points(bed: &Bed<'_>, reference: &Reference, policy: &str, report: &mut Report) -> Result<()> {
    let (mut ours, mut anchor) = (load(policy)?, Anchor::load(reference, policy)?);
    let questions = case::start();
    let mut compared = 0;
    for (place, question) in questions.iter().enumerate() {
        for lie in question.lies() {
            let answer = agreed(&lie, &mut ours, &mut anchor)?;
            ensure!(answer["allowed"] == false, "a lie is believed: {lie:?}");
            compared += 1;
        }
        let answer = agreed(question, &mut ours, &mut anchor)?;
        ensure!(answer["allowed"] == true, "{question:?} is denied");
        compared += 1;
        let last = questions.iter().skip(place + 1).all(|later| later.point() != question.point());
        let pairs = last.then(|| timed_question(bed, question, &mut ours, &mut anchor)).transpose()?;
        match (question.point(), pairs) {
            (_, None) => {}
            (Point::MountDevice | Point::MountOverlay, Some(pairs)) => {
                ratio(report, question.point().name(), &pairs, MOUNT_BAR);
            }
            (Point::CreateContainer, Some(pairs)) => {
                ratio(report, question.point().name(), &pairs, CREATE_BAR);
                let time = median_wall(&pairs.ours);
                report.aim("create_container under 20 µs", format!("{:.1} µs", time * 1e6), time < CREATE_AIM);
            }
            (point, Some(pairs)) => report.compared(point.name(), &pairs),
        }
        ensure!(question.ask(&mut ours, Outcome::Done), "{question:?} is denied the second time");
        anchor.done(&answer)?;
    }
    report.fact("answers that were equal", format!("{compared}, some of them refusals"));
    Ok(())
}

/// Times the same decision from the same state, again and again.
fn timed_question(bed: &Bed<'_>, question: &Question, ours: &mut Enforcer, anchor: &mut Anchor) -> Result<Pairs> {
    let (rule, input) = (anchor::rule(question), serde_json::from_value(question.input()?)?);
    Pairs::take(
        bed.pairs,
        || {
            repeated(|| {
                ensure!(question.ask(ours, Outcome::Failed), "ours denies {question:?}");
                Ok(())
            })
        },
        || {
            repeated(|| {
                ensure!(anchor.ask(&rule, &input)?, "the anchor denies {question:?}");
                Ok(())
            })
        },
    )
}

/// The anchor's answer, which ours is equal to.
fn agreed(question: &Question, ours: &mut Enforcer, anchor: &mut Anchor) -> Result<Value> {
    let answer = anchor.answer(question)?;
    let mine = question.answer(ours);
    for (field, value) in mine.as_object().into_iter().flatten() {
        ensure!(
            answer[field] == *value,
            "{question:?}: {field} is {value} of ours and {} of the anchor",
            answer[field]
        );
    }
    Ok(answer)
}

/// A bar for a ratio, and the times that it is made of.
fn ratio(report: &mut Report, what: &str, pairs: &Pairs, times: f64) {
    let ratio = pairs.ratio();
    report.bar(format!("{what} at least {times} times as fast"), format!("{ratio:.1}"), ratio >= times);
    report.compared(what, pairs);
}

/// Whether a policy of long lines is taken, and its container may be started.
fn long_line(report: &mut Report) {
    let found = load(&case::policy_with_long_line(LONG_LINE)).map(|mut enforcer| {
        case::start().iter().find(|question| !question.ask(&mut enforcer, Outcome::Done)).map(Question::point)
    });
    let (found, met) = match found {
        Ok(None) => ("it does".to_owned(), true),
        Ok(Some(point)) => (format!("its {point} is denied"), false),
        Err(error) => (format!("{error:#}"), false),
    };
    report.bar(format!("a policy with a line of more than {LONG_LINE} columns loads"), found, met);
}

/// What the decisions of a whole start take, each the first of its kind under a fresh policy.
fn starts(policy: &str, report: &mut Report) -> Result<()> {
    let questions = case::start();
    let (mut whole, mut create) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let mut enforcer = load(policy)?;
        let mut sum = Duration::ZERO;
        for question in &questions {
            let start = Instant::now();
            ensure!(question.ask(&mut enforcer, Outcome::Done), "{} is denied", question.point());
            let time = start.elapsed();
            sum += time;
            if question.point() == Point::CreateContainer {
                create.push(Sample::of_wall(time));
            }
        }
        whole.push(Sample::of_wall(sum));
    }
    let (whole, create) = (median_wall(&whole), median_wall(&create));
    report.fact(
        "decisions of one start under a fresh policy (8 layers, scratch, overlay, container, process)",
        format!(
            "{:.1} µs, of which create_container {:.1} µs: less than 1 % of any run over {:.1} ms",
            whole * 1e6,
            create * 1e6,
            whole * 1e5
        ),
    );
    Ok(())
}
