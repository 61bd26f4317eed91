//! `sev-snp-measure`, an independent implementation of the launch digest that tests compare with.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::process::{headline, run};

/// The package, pinned: its results are expectations.
const PACKAGE: &str = "sev-snp-measure==0.0.13";

/// Installs it in a Python environment of its own; gives the program.
///
/// # Errors
/// Where it cannot be installed.
pub(super) fn prepare(work: &Path) -> Result<PathBuf> {
    let folder = work.join("sev-snp-measure");
    let (program, done) = (folder.join("bin/sev-snp-measure"), folder.join("done"));
    if !done.is_file() {
        headline(PACKAGE);
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).context("install python3-venv")?;
        let mut pip = Command::new(folder.join("bin/pip"));
        run(pip.args(["install", "--quiet", PACKAGE])).context("is there a network, and the Python package index?")?;
        std::fs::write(done, PACKAGE)?;
    }
    Ok(program)
}
