//! `cargo xtask test`: everything that is tested, in the order of what fails soonest.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{
    images, layering,
    process::{command, headline, run, run_lines},
    python,
    setup::{self, build_agent},
};

/// What ran, summed over all test programs.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: Vec<String>,
}

impl Tally {
    /// Takes in one line of a test program's output.
    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            let ignored = count(counts, "ignored");
            self.skipped.extend((0..ignored).map(|_| "a test is marked as ignored".to_owned()));
        } else if let Some((_, reason)) = line.split_once("skipped: ") {
            self.skipped.push(reason.to_owned());
        }
    }
}

/// The number before a word in libtest's summary, as in `ok. 3 passed; 0 failed; 0 ignored; …`.
fn count(summary: &str, word: &str) -> u64 {
    let parts = summary.split([';', '.']).map(str::trim);
    parts.filter_map(|part| part.strip_suffix(word)?.trim().parse().ok()).next().unwrap_or(0)
}

/// Runs it all.
///
/// # Errors
/// At the first stage that fails; test programs all run before their failures are reported.
pub(crate) fn test(root: &Path, filter: &[String]) -> Result<()> {
    let setup = setup::setup(root)?;
    if filter.is_empty() {
        static_checks(root)?;
    }
    headline("images");
    let images = crate::images_folder(root);
    images::build_all(&images, &setup.apt_config, &|step| eprintln!("   {step}"))?;
    headline("guest image, built twice");
    let guest = crate::guest::build_twice(root, &setup)?;
    headline("building the tests");
    let agent = build_agent(root)?;
    run(&mut command(root, "cargo", ["test", "--workspace", "--locked", "--no-run", "--quiet"]))?;
    headline("tests");
    let oracles = setup::oracles(root);
    let mut tally = Tally::default();
    let mut cargo = command(root, "cargo", ["test", "--workspace", "--locked", "--no-fail-fast"]);
    if !filter.is_empty() {
        cargo.args(filter.iter().take(1));
    }
    cargo.args(["--", "--show-output"]).args(filter.iter().skip(1));
    cargo.env("CAVEAU_GUEST", &guest).env("CAVEAU_TEST_IMAGES", &images);
    cargo.env("CAVEAU_DISTRIBUTION_KERNEL", &setup.distribution_kernel).env("CAVEAU_AGENT", agent);
    match &oracles {
        Ok(oracles) => {
            cargo.env("CAVEAU_SEV_SNP_MEASURE", &oracles.snp_measure);
            cargo.env("CAVEAU_ORACLES_PYTHON", &oracles.python);
        }
        // The tests that need them say `skipped:`, and are counted.
        Err(error) => {
            eprintln!("launch digests and envelopes are not compared with other implementations': {error:#}");
        }
    }
    let mut succeeded = run_lines(&mut cargo, |line| {
        println!("{line}");
        tally.read(line);
    })?;
    if filter.is_empty() {
        match &oracles {
            Ok(oracles) => {
                headline("the Python package");
                let ran = python::test(root, oracles)?;
                tally.passed += ran.passed;
                tally.failed += ran.failed;
                tally.skipped.extend((0..ran.skipped).map(|_| "a test of the Python package".to_owned()));
                succeeded &= ran.succeeded;
            }
            Err(error) => tally.skipped.push(format!("the Python package: {error:#}")),
        }
    }
    headline("what ran");
    for reason in &tally.skipped {
        println!("skipped: {reason}");
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped.len());
    if !succeeded || tally.failed > 0 {
        bail!("tests failed; run one alone with: cargo xtask test NAME");
    }
    Ok(())
}

/// Format, lints, layering, dependencies.
fn static_checks(root: &Path) -> Result<()> {
    let path = setup::for_static_checks(root)?;
    headline("format, layering, lints, dependencies");
    run(&mut command(root, "cargo", ["fmt", "--all", "--check"]))?;
    layering::check(root)?;
    run(&mut command(root, "cargo", ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    // By themselves, so that no other crate's wish for aws-lc-rs is granted to them: docs/library.md.
    run(&mut command(root, "cargo", ["check", "--locked", "--lib", "-p", "caveau-evidence", "-p", "caveau-measure"]))?;
    let mut deny = command(root, "cargo", ["deny", "--offline", "check", "bans", "licenses", "sources"]);
    run(deny.env("PATH", &path))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn summaries_are_added_up() {
        let mut tally = Tally::default();
        tally.read("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        tally.read("test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.read("skipped: no fixtures");
        assert_eq!((tally.passed, tally.failed, tally.skipped.len()), (13, 2, 2));
    }
}
