//! `caveau` of this checkout in folders of its own, so that showing and soaking it touches nothing of the user's.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use serde_json::Value;

use crate::{
    guest,
    process::{command, output, run},
    setup::Setup,
    work_folder,
};

/// A build of `caveau`, its guest, and its folders.
#[derive(Debug)]
pub(crate) struct Product {
    program: PathBuf,
    guest: PathBuf,
    kept: PathBuf,
    passing: tempfile::TempDir,
}

impl Product {
    /// Builds both. Images, layers and the emulated processor are kept in `.caveau/NAME`; state lies in a folder that is gone
    /// with this value, with a path that is short enough for a socket.
    ///
    /// # Errors
    /// Where a build fails.
    pub(crate) fn build(root: &Path, setup: &Setup, name: &str) -> Result<Self> {
        let guest = guest::build_once(root, setup)?;
        run(&mut command(root, "cargo", ["build", "--locked", "--bin", "caveau"]))?;
        let passing = tempfile::Builder::new().prefix(&format!("caveau-{name}-")).tempdir()?;
        std::fs::create_dir(passing.path().join("tmp"))?;
        Ok(Self { program: root.join("target/debug/caveau"), guest, kept: work_folder(root).join(name), passing })
    }

    /// `caveau` in its folders.
    pub(crate) fn caveau(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("CAVEAU_GUEST", &self.guest);
        command.env("XDG_RUNTIME_DIR", self.passing()).env("TMPDIR", self.passing().join("tmp"));
        command.env("XDG_CACHE_HOME", self.kept.join("cache")).env("XDG_DATA_HOME", self.kept.join("data"));
        command
    }

    /// The guest's folder.
    pub(crate) fn guest(&self) -> &Path {
        &self.guest
    }

    /// What stays for the next time: cache and data.
    pub(crate) fn kept(&self) -> &Path {
        &self.kept
    }

    /// What is gone with this value: state, temporary files.
    pub(crate) fn passing(&self) -> &Path {
        self.passing.path()
    }

    /// The state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.passing().join("caveau")
    }

    /// Ends and removes every group.
    ///
    /// # Errors
    /// Where one cannot be removed.
    pub(crate) fn remove_groups(&self) -> Result<()> {
        let listed = self.caveau(&["ps", "--all", "--json"]).output()?;
        let groups: Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        for name in groups.as_array().into_iter().flatten().filter_map(|group| group["name"].as_str()) {
            output(&mut self.caveau(&["rm", "--force", name]))?;
        }
        Ok(())
    }
}
