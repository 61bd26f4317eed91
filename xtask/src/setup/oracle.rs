//! What tests take from the Python package index: independent implementations to compare with, of the launch digest
//! (`sev-snp-measure`), of CBOR, signatures and certificates, of CycloneDX with its schema; and what builds our own package.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::process::{headline, run};

/// The packages, pinned: their results are expectations.
const PACKAGES: [&str; 5] = [
    "sev-snp-measure==0.0.13",
    "cbor2==6.3.0",
    "cryptography==50.0.2",
    "cyclonedx-python-lib[json-validation]==11.12.0",
    "maturin==1.16.0",
];

/// Where they are.
#[derive(Debug)]
pub(crate) struct Oracles {
    /// A Python that can import them.
    pub(crate) python: PathBuf,
    /// The program `sev-snp-measure`.
    pub(crate) snp_measure: PathBuf,
    /// The program `maturin`, which builds wheels.
    pub(crate) maturin: PathBuf,
}

/// Installs them in a Python environment of their own.
///
/// # Errors
/// Where they cannot be installed.
pub(super) fn prepare(work: &Path) -> Result<Oracles> {
    let folder = work.join("oracles");
    let (done, list) = (folder.join("done"), PACKAGES.join(" "));
    // Written last: what was interrupted, or made for another list, is made anew.
    if !std::fs::read_to_string(&done).is_ok_and(|installed| installed == list) {
        headline(&list);
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).context("install python3-venv")?;
        let mut pip = Command::new(folder.join("bin/pip"));
        run(pip.args(["install", "--quiet"]).args(PACKAGES))
            .context("is there a network, and the Python package index?")?;
        std::fs::write(done, list)?;
    }
    let program = |name: &str| folder.join("bin").join(name);
    Ok(Oracles { python: program("python"), snp_measure: program("sev-snp-measure"), maturin: program("maturin") })
}
