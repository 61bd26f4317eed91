//! The package for Python: built as a wheel, installed, and tested from Python.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    process::{command, run},
    setup::Oracles,
    work_folder,
};

/// What its tests came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    pub(crate) succeeded: bool,
}

impl Ran {
    /// Reads what `unittest` says at its end: `Ran 9 tests in 1s`, then `OK (skipped=2)` or `FAILED (failures=1, errors=1)`.
    fn read(said: &str) -> Self {
        let count = |line: &str, word: &str| -> u64 {
            let number = line.split([' ', '(', ')', ',']).find_map(|part| part.strip_prefix(word)?.strip_prefix('='));
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let mut ran = Self::default();
        for line in said.lines() {
            if let Some(rest) = line.strip_prefix("Ran ") {
                ran.passed = rest.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            } else if line.starts_with("OK") || line.starts_with("FAILED") {
                ran.succeeded = line.starts_with("OK");
                ran.skipped = count(line, "skipped");
                ran.failed = count(line, "failures") + count(line, "errors");
            }
        }
        ran.passed = ran.passed.saturating_sub(ran.skipped + ran.failed);
        ran
    }
}

/// Builds the wheel, installs it in a folder of its own, and runs the tests in `bindings/python/tests` with it.
///
/// # Errors
/// Where it cannot be built or installed. Tests that fail are in the answer.
pub(crate) fn test(root: &Path, oracles: &Oracles) -> Result<Ran> {
    let package = root.join("bindings/python");
    let folder = work_folder(root).join("wheel");
    let _ = fs::remove_dir_all(&folder);
    let mut build = command(root, &oracles.maturin, ["build", "--locked", "--profile", "dev", "--quiet"]);
    build.args(["--compatibility", "linux", "--target-dir"]).arg(root.join("target"));
    build.arg("--interpreter").arg(&oracles.python).arg("--manifest-path").arg(package.join("Cargo.toml"));
    run(build.arg("--out").arg(&folder)).context("failed to build the wheel")?;
    let wheel = fs::read_dir(&folder)?.next().context("maturin made no wheel")??.path();
    let site = folder.join("site");
    let mut install = command(root, &oracles.python, ["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
    run(install.arg(&site).arg(&wheel)).context("failed to install the wheel")?;
    let mut tests = command(root, &oracles.python, ["-m", "unittest", "discover", "--verbose", "--start-directory"]);
    let output = tests.arg(package.join("tests")).env("PYTHONPATH", &site).output().context("failed to run Python")?;
    // What `unittest` says goes to standard error.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{said}");
    let ran = Ran::read(&said);
    Ok(Ran { succeeded: ran.succeeded && output.status.success(), ..ran })
}

#[cfg(test)]
mod tests {
    use super::Ran;

    #[test]
    fn what_unittest_says_is_read() {
        let ok = "test_a (test_verify.Recorded) ... ok\n\nRan 9 tests in 1.2s\n\nOK (skipped=2)\n";
        assert_eq!(Ran::read(ok), Ran { passed: 7, failed: 0, skipped: 2, succeeded: true });
        let failed = "Ran 9 tests in 1.2s\n\nFAILED (failures=1, errors=2, skipped=3)\n";
        assert_eq!(Ran::read(failed), Ran { passed: 3, failed: 3, skipped: 3, succeeded: false });
        assert!(!Ran::read("Segmentation fault").succeeded);
    }
}
