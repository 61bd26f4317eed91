//! How much memory policies take: many of them in a process of its own.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use caveau_policy::{Enforcer, Outcome};

use super::{case, load};
use crate::bench::measure::{memory, timed};

/// How many policies are loaded before what each of as many more takes is measured.
const POLICIES: u16 = 64;

/// What one policy takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// Bytes of one that is loaded.
    pub(super) loaded: f64,
    /// Bytes of one under which its last container was started.
    pub(super) used: f64,
}

impl Taken {
    /// Has this program load policies in a process of its own.
    ///
    /// # Errors
    /// Where that fails.
    pub(super) fn measure() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let (_, output) = timed(command.args(["bench", "--policy-memory", &POLICIES.to_string()]))?;
        let mut numbers = output.split_whitespace().map(str::parse::<f64>);
        let mut number = || -> Result<f64> { Ok(numbers.next().context("the child printed too little")??) };
        Ok(Self { loaded: number()?, used: number()? })
    }
}

/// Loads so many policies and so many more, then starts a container under each; prints the bytes that one of the second
/// half took once loaded, and in the end.
///
/// # Errors
/// Where the policy cannot be loaded, or denies its own container.
pub(in crate::bench) fn load_many(count: usize) -> Result<()> {
    let (policy, questions) = (case::policy(), case::start());
    let resident = || memory(u64::from(std::process::id()), "VmRSS:");
    let some = || -> Result<Vec<Enforcer>> { (0..count).map(|_| load(&policy)).collect() };
    let mut first = some()?;
    start_all(&mut first, &questions)?;
    let before = resident()?;
    let mut second = some()?;
    let loaded = resident()?;
    start_all(&mut second, &questions)?;
    let used = resident()?;
    let of_one = |after: u64| after.saturating_sub(before) as f64 / count as f64;
    println!("{} {}", of_one(loaded), of_one(used));
    Ok(())
}

/// Starts a container under each.
fn start_all(enforcers: &mut [Enforcer], questions: &[super::question::Question]) -> Result<()> {
    for enforcer in enforcers {
        for question in questions {
            ensure!(question.ask(enforcer, Outcome::Done), "{} is denied", question.point());
        }
    }
    Ok(())
}
