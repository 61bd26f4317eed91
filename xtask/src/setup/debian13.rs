//! A folder with Debian 13's tools, which benchmarks are held against: `mkfs.erofs` that reads tars, and a newer `veritysetup`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::sources::Sources;
use crate::process::{headline, run};
use crate::work_folder;

/// Makes the folder with `debootstrap`, as root, and gives its path; to be used with `chroot`.
///
/// # Errors
/// Where `debootstrap` is missing or fails.
pub(crate) fn debian13(root: &Path) -> Result<PathBuf> {
    let folder = work_folder(root).join("debian13");
    let done = folder.join("usr/bin/mkfs.erofs");
    if done.is_file() {
        return Ok(folder);
    }
    headline("Debian 13 folder");
    let codename = fs::read_to_string("/etc/os-release")?;
    let codename = codename.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let sources = Sources::of_machine(codename.context("/etc/os-release names no code name")?.trim_matches('"'), None)?;
    let uri = sources.uri.context("no package source")?;
    let temporary = tempfile::Builder::new().prefix(".debian13-").tempdir_in(work_folder(root))?;
    let tree = temporary.path().join("tree");
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "--include=erofs-utils,cryptsetup-bin,e2fsprogs,pigz,isal", "trixie"]);
    run(debootstrap.arg(&tree).arg(uri)).context("install debootstrap, and run this as root")?;
    fs::rename(&tree, &folder).with_context(|| format!("failed to move the folder to {}", folder.display()))?;
    Ok(folder)
}
