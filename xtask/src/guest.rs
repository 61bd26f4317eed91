//! The guest image of this checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use caveau_guest_image::{FirmwareFile, GuestFolder, Inputs, build, record_beside};

use crate::setup::{Setup, build_agent, build_agent_in};
use crate::{user_folder, work_folder};

/// The guest's security version: raised when older guests should no longer be trusted.
const SVN: u32 = 1;

/// Launch digests are listed for 1 to this many vCPUs.
const VCPUS: u32 = 64;

/// The agent's and guest's version: that of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds agent and guest; gives the guest's folder.
///
/// # Errors
/// Where a build fails.
pub(crate) fn build_once(root: &Path, setup: &Setup) -> Result<PathBuf> {
    build_into(root, setup, &work_folder(root).join("guest"))
}

/// As [`build_once`], in another folder.
///
/// # Errors
/// Where a build fails.
pub(crate) fn build_into(root: &Path, setup: &Setup, folder: &Path) -> Result<PathBuf> {
    assemble(setup, &setup.kernel, &build_agent(root)?, folder)?;
    Ok(folder.to_path_buf())
}

/// As [`build_once`], with the kernel that the distribution ships.
///
/// # Errors
/// Where a build fails.
pub(crate) fn build_with_distribution_kernel(root: &Path, setup: &Setup) -> Result<PathBuf> {
    let folder = work_folder(root).join("guest-distribution");
    assemble(setup, &setup.distribution_kernel, &build_agent(root)?, &folder)?;
    Ok(folder)
}

/// As [`build_once`], in the folder where `caveau` looks for a guest unless told otherwise.
///
/// # Errors
/// Where a build fails, or neither `XDG_DATA_HOME` nor `HOME` is set.
pub(crate) fn install(root: &Path, setup: &Setup) -> Result<PathBuf> {
    let data = user_folder("XDG_DATA_HOME", ".local/share")?;
    for (name, kernel) in [("own", &setup.kernel), ("distro", &setup.distribution_kernel)] {
        keep_kernel(&data.join("kernel").join(name), kernel)?;
    }
    let folder = data.join("guest");
    assemble(setup, &setup.kernel, &build_agent(root)?, &folder)?;
    Ok(folder)
}

/// As [`build_once`], and all of it a second time in another build folder: the bytes must be the same.
///
/// # Errors
/// Where a build fails, or the second guest differs from the first.
pub(crate) fn build_twice(root: &Path, setup: &Setup) -> Result<PathBuf> {
    let again = tempfile::Builder::new().prefix(".guest-again-").tempdir_in(work_folder(root))?;
    // At once: the longest part of each, linking, keeps one processor busy and no more.
    let (folder, second) = thread::scope(|scope| {
        let second = scope.spawn(|| {
            let agent = build_agent_in(root, &again.path().join("target"))?;
            assemble(setup, &setup.kernel, &agent, &again.path().join("guest"))
        });
        let first = build_once(root, setup);
        let second = second.join().map_err(|_| anyhow!("the thread of the second build ended early"));
        anyhow::Ok((first?, second??))
    })?;
    let first = GuestFolder::open(&folder)?;
    for (name, part) in &first.manifest().parts {
        let other = second.manifest().parts.get(name);
        ensure!(other == Some(part), "{name} differs when the guest is built twice: {part:?}, then {other:?}");
    }
    ensure!(first.manifest() == second.manifest(), "guest.json differs when the guest is built twice");
    first.check()?;
    Ok(folder)
}

/// Lets `caveau guest build --kernel NAME` find a kernel. What somebody else put there stays.
fn keep_kernel(link: &Path, kernel: &Path) -> Result<()> {
    if fs::symlink_metadata(link).is_ok_and(|found| !found.is_symlink()) {
        return Ok(());
    }
    let parent = link.parent().context("the kernels' folder has a parent")?;
    fs::create_dir_all(parent)?;
    let kernel = kernel.canonicalize()?;
    let temporary = tempfile::Builder::new().prefix(".kernel-").tempdir_in(parent)?;
    let made = temporary.path().join("link");
    std::os::unix::fs::symlink(&kernel, &made)?;
    fs::rename(&made, link).with_context(|| format!("failed to make {}", link.display()))
}

fn assemble(setup: &Setup, kernel: &Path, agent: &Path, folder: &Path) -> Result<GuestFolder> {
    let inputs = Inputs {
        kernel: kernel.to_path_buf(),
        agent: agent.to_path_buf(),
        agent_record: Some(record_beside(agent)),
        agent_version: VERSION.to_owned(),
        svn: SVN,
        bios: FirmwareFile::find(setup.bios.clone()),
        pvh_rom: FirmwareFile::find(setup.pvh_rom.clone()),
        ovmf: None,
        vcpu_types: vec!["EPYC-v4".parse()?],
        vcpus: VCPUS,
    };
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    build(&inputs, folder).context("failed to assemble the guest")
}
