//! Finds and downloads Debian packages without installing them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// One version of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// The package's name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: String,
    /// The name of its file.
    pub(super) file: String,
}

/// apt under a configuration.
pub(super) struct Apt<'a> {
    /// The configuration's file.
    pub(super) config: &'a Path,
}

impl Apt<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", self.config).env("LC_ALL", "C").args(arguments);
        command
    }

    /// The newest versions of `packages` and of all that they depend on, apart from those in `left_out`, sorted by name.
    ///
    /// Asks apt what it would install on a machine that has nothing, so the machine at hand does not matter.
    pub(super) fn closure(&self, packages: &[&str], left_out: &[&str]) -> Result<Vec<Package>> {
        if packages.is_empty() {
            return Ok(Vec::new());
        }
        let nothing = tempfile::NamedTempFile::new()?;
        let status = format!("Dir::State::status={}", nothing.path().display());
        // apt does not name what it would not have to fetch, so it must not see what the set-up fetched to install.
        let none = tempfile::tempdir()?;
        fs::create_dir(none.path().join("partial"))?;
        let archives = format!("Dir::Cache::archives={}", none.path().display());
        let ask = || {
            let arguments = ["install", "--print-uris", "-qq", "-y", "--no-install-recommends", "-o", &status];
            let options = ["-o", &archives, "-o", "Debug::NoLocking=1"];
            super::run(self.command(&arguments).args(options).args(packages))
        };
        let output = ask().or_else(|_| {
            // The package lists may not be there yet.
            super::run(&mut self.command(&["update", "-q", "-o", "Debug::NoLocking=1"]))?;
            ask()
        })?;
        let mut found = Vec::new();
        for line in String::from_utf8(output)?.lines() {
            let file = line.split_whitespace().nth(1).with_context(|| format!("unexpected line from apt: {line}"))?;
            let package = parse(file).with_context(|| format!("unexpected file name from apt: {file}"))?;
            if !left_out.contains(&package.name.as_str()) {
                found.push(package);
            }
        }
        ensure!(!found.is_empty(), "apt named no packages for {packages:?}");
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The paths of the packages' files in `dir`; what is not there is downloaded by apt, which checks it.
    pub(super) fn download(&self, packages: &[&Package], dir: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(dir)?;
        let missing: Vec<_> = packages.iter().filter(|package| !dir.join(&package.file).exists()).collect();
        if !missing.is_empty() {
            // Downloaded aside and renamed, so that a broken download is never taken for a package.
            let aside = tempfile::Builder::new().prefix(".download-").tempdir_in(dir)?;
            let wanted = missing.iter().map(|package| format!("{}={}", package.name, package.version));
            // apt's own sandbox user cannot write into a folder of ours; there is nothing to shield from here.
            let mut download = self.command(&["-qq", "-o", "APT::Sandbox::User=", "download"]);
            super::run(download.args(wanted).current_dir(&aside)).context("failed to download Debian packages")?;
            for package in missing {
                fs::rename(aside.path().join(&package.file), dir.join(&package.file))
                    .with_context(|| format!("apt did not leave {} behind", package.file))?;
            }
        }
        Ok(packages.iter().map(|package| dir.join(&package.file)).collect())
    }
}

/// Parts `name_version_architecture.deb`, where a colon in the version is written `%3a`.
fn parse(file: &str) -> Option<Package> {
    let mut parts = file.strip_suffix(".deb")?.splitn(3, '_');
    let (name, version, _architecture) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Package { name: name.to_owned(), version: version.replace("%3a", ":"), file: file.to_owned() })
}
