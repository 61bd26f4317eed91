//! What a bench found, for people and for programs.

use std::fmt;

use serde_json::{Value, json};

use super::measure::{Pairs, Sample, median};

/// What a bench found.
#[derive(Clone, Debug)]
pub(super) struct Report {
    name: &'static str,
    ours: String,
    anchor: String,
    skipped: Option<String>,
    pairs: Option<Pairs>,
    goals: Vec<Goal>,
    facts: Vec<(String, String)>,
    table: Vec<(String, String)>,
}

/// Something that shall be reached.
#[derive(Clone, Debug)]
struct Goal {
    what: String,
    found: String,
    met: bool,
    /// Missing a bar is a failure; missing an aim is told.
    bar: bool,
}

impl Report {
    /// An empty one: its name, and what stands against what.
    pub(super) fn new(name: &'static str, ours: impl Into<String>, anchor: impl Into<String>) -> Self {
        let (ours, anchor) = (ours.into(), anchor.into());
        let (goals, facts, table) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, ours, anchor, skipped: None, pairs: None, goals, facts, table }
    }

    /// The bench cannot be run here, for this reason.
    pub(super) fn skipped(mut self, reason: impl Into<String>) -> Self {
        self.skipped = Some(reason.into());
        self
    }

    /// The runs.
    pub(super) fn pairs(&mut self, pairs: Pairs) {
        self.pairs = Some(pairs);
    }

    /// How many times as fast as the anchor ours must be.
    pub(super) fn bar_ratio(&mut self, times: f64) {
        let ratio = self.pairs.as_ref().map_or(f64::NAN, Pairs::ratio);
        self.bar(format!("at least {times} times as fast"), format!("{ratio:.2}"), ratio >= times);
    }

    /// A bar.
    pub(super) fn bar(&mut self, what: impl Into<String>, found: impl Into<String>, met: bool) {
        self.goals.push(Goal { what: what.into(), found: found.into(), met, bar: true });
    }

    /// An aim.
    pub(super) fn aim(&mut self, what: impl Into<String>, found: impl Into<String>, met: bool) {
        self.goals.push(Goal { what: what.into(), found: found.into(), met, bar: false });
    }

    /// Something else worth knowing.
    pub(super) fn fact(&mut self, what: impl Into<String>, value: impl Into<String>) {
        self.facts.push((what.into(), value.into()));
    }

    /// A further comparison, without a bar.
    pub(super) fn compared(&mut self, what: impl Into<String>, pairs: &Pairs) {
        let ratios = pairs.ratios();
        let (least, most) = (ratios.first().copied().unwrap_or(f64::NAN), ratios.last().copied().unwrap_or(f64::NAN));
        let ratio = format!("ratio {:.2} ({least:.2} to {most:.2}, {} pairs)", pairs.ratio(), ratios.len());
        self.fact(what, format!("{ratio}; ours {}; anchor {}", line(&pairs.ours), line(&pairs.anchor)));
    }

    /// A line of the table of where time goes.
    pub(super) fn row(&mut self, what: impl Into<String>, value: impl Into<String>) {
        self.table.push((what.into(), value.into()));
    }

    /// The bars that were missed.
    pub(super) fn missed(&self) -> impl Iterator<Item = String> {
        self.goals
            .iter()
            .filter(|goal| goal.bar && !goal.met)
            .map(|goal| format!("{}: {} (found {})", self.name, goal.what, goal.found))
    }

    /// All of it.
    pub(super) fn json(&self) -> Value {
        let goals = self.goals.iter().map(|goal| {
            json!({ "goal": goal.what, "found": goal.found, "met": goal.met, "kind": if goal.bar { "bar" } else { "aim" } })
        });
        json!({
            "bench": self.name,
            "skipped": self.skipped,
            "ours": side(&self.ours, self.pairs.as_ref().map(|pairs| pairs.ours.as_slice())),
            "anchor": side(&self.anchor, self.pairs.as_ref().map(|pairs| pairs.anchor.as_slice())),
            "ratio": self.pairs.as_ref().map(Pairs::ratio),
            "ratios": self.pairs.as_ref().map(Pairs::ratios),
            "goals": goals.collect::<Vec<_>>(),
            "facts": self.facts,
            "table": self.table,
        })
    }
}

fn side(label: &str, samples: Option<&[Sample]>) -> Value {
    let samples = samples.unwrap_or_default().iter().map(|sample| {
        json!({ "wall_s": sample.wall, "user_s": sample.user, "system_s": sample.system, "peak_bytes": sample.peak })
    });
    json!({ "what": label, "runs": samples.collect::<Vec<_>>() })
}

/// One number of every run, ascending.
fn sorted(samples: &[Sample], number: impl Fn(&Sample) -> f64) -> Vec<f64> {
    let mut numbers: Vec<_> = samples.iter().map(number).collect();
    numbers.sort_by(f64::total_cmp);
    numbers
}

/// Wall range, and the medians of processor time and memory.
pub(super) fn line(samples: &[Sample]) -> String {
    let wall = sorted(samples, |sample| sample.wall);
    let least = wall.first().copied().unwrap_or(f64::NAN);
    let most = wall.last().copied().unwrap_or(f64::NAN);
    let mut text = format!("{} wall ({} to {})", seconds(median(&wall)), seconds(least), seconds(most));
    if samples.iter().any(|sample| sample.peak > 0) {
        let user = median(&sorted(samples, |sample| sample.user));
        let system = median(&sorted(samples, |sample| sample.system));
        let peak = median(&sorted(samples, |sample| sample.peak as f64)) / f64::from(1 << 20);
        text += &format!(", {user:.2} s user, {system:.2} s system, peak {peak:.1} MiB");
    }
    text
}

/// A time with three digits that mean something.
fn seconds(time: f64) -> String {
    match time {
        _ if time < 0.001 => format!("{:.1} µs", time * 1e6),
        _ if time < 0.1 => format!("{:.2} ms", time * 1e3),
        _ => format!("{time:.3} s"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} against {}", self.name, self.ours, self.anchor)?;
        if let Some(reason) = &self.skipped {
            writeln!(f, "   skipped: {reason}")?;
        }
        if let Some(pairs) = &self.pairs {
            writeln!(f, "   ours    {}", line(&pairs.ours))?;
            writeln!(f, "   anchor  {}", line(&pairs.anchor))?;
            let ratios = pairs.ratios();
            let (least, most) =
                (ratios.first().copied().unwrap_or(f64::NAN), ratios.last().copied().unwrap_or(f64::NAN));
            writeln!(f, "   ratio   {:.2} ({least:.2} to {most:.2}, {} pairs)", pairs.ratio(), ratios.len())?;
        }
        for goal in &self.goals {
            let verdict = match (goal.met, goal.bar) {
                (true, _) => "met",
                (false, true) => "MISSED",
                (false, false) => "not reached",
            };
            let kind = if goal.bar { "bar" } else { "aim" };
            writeln!(f, "   {kind}     {}: found {}: {verdict}", goal.what, goal.found)?;
        }
        for (what, value) in &self.facts {
            writeln!(f, "   {what}: {value}")?;
        }
        let width = self.table.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        for (what, value) in &self.table {
            writeln!(f, "   {what:width$}  {value:>12}")?;
        }
        Ok(())
    }
}
