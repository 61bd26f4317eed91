//! Other people's tools that benches are held against.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::process::{headline, run};
use crate::setup;
use crate::work_folder;

/// The version of rapidgzip, a Python package, that is taken.
const RAPIDGZIP: &str = "rapidgzip==0.16.2";

/// Places of programs in a Debian tree.
const PROGRAM_FOLDERS: [&str; 2] = ["usr/bin", "usr/sbin"];

/// Debian 13's tools, each run through that tree's own loader: that needs neither root nor mounts.
#[derive(Debug)]
pub(super) struct Debian13(PathBuf);

impl Debian13 {
    /// Makes the folder where it is not there yet.
    ///
    /// # Errors
    /// Where that fails.
    pub(super) fn prepare(root: &Path) -> Result<Self> {
        Ok(Self(setup::debian13(root)?))
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The words that run a program of that tree.
    ///
    /// # Errors
    /// Where the tree has no such program.
    pub(super) fn words(&self, program: &str) -> Result<Vec<String>> {
        let found = PROGRAM_FOLDERS.iter().map(|folder| self.0.join(folder).join(program)).find(|path| path.exists());
        let found = found.with_context(|| format!("{} has no {program}", self.0.display()))?;
        let libraries = self.0.join("usr/lib/x86_64-linux-gnu");
        let loader = self.0.join("usr/lib64/ld-linux-x86-64.so.2");
        ensure!(loader.exists(), "{} is not there", loader.display());
        let words = [&loader, Path::new("--library-path"), &libraries, &found];
        Ok(words.iter().map(|word| word.display().to_string()).collect())
    }
}

/// rapidgzip in a Python environment of its own.
///
/// # Errors
/// Where it cannot be installed.
pub(super) fn rapidgzip(root: &Path) -> Result<PathBuf> {
    let folder = work_folder(root).join("rapidgzip");
    let program = folder.join("bin/rapidgzip");
    if !program.is_file() {
        headline("rapidgzip");
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).context("install python3-venv")?;
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", RAPIDGZIP]))?;
    }
    Ok(program)
}

/// `PATH` with the folders of programs that only root has by default.
pub(super) fn system_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")
}

/// The root hash in what `veritysetup format` printed.
///
/// # Errors
/// Where there is none.
pub(super) fn root_hash(output: &str) -> Result<String> {
    let line = output.lines().find_map(|line| line.strip_prefix("Root hash:"));
    Ok(line.context("veritysetup printed no root hash")?.trim().to_owned())
}

/// The salt of all our trees, as `veritysetup` takes it.
pub(super) const SALT: &str = "--salt=0000000000000000000000000000000000000000000000000000000000000000";
