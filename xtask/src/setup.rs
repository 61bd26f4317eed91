//! `cargo xtask setup`: what a fresh Debian machine lacks. Quick when it is all there.
//!
//! Installs packages (as root, or with sudo), and puts everything else below `.caveau` in the workspace: package lists of its own,
//! so that the machine's package sources stay as they are, and the guest's kernels. What only tests use is prepared for them alone.

mod again;
mod agent;
mod apt;
mod components;
mod debian13;
mod deny;
mod kernel;
mod oracle;
mod sources;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

pub(crate) use again::Again;
pub(crate) use agent::{build_agent, build_agent_in};
pub(crate) use debian13::debian13;
pub(crate) use oracle::Oracles;

use crate::work_folder;

/// What the set-up found or prepared.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Configuration for apt (by `APT_CONFIG`) that knows backports and can be used by an ordinary user.
    pub(crate) apt_config: PathBuf,
    /// The guest's own kernel.
    pub(crate) kernel: PathBuf,
    /// The kernel that Debian ships, as an extracted package.
    pub(crate) distribution_kernel: PathBuf,
    /// SeaBIOS.
    pub(crate) bios: PathBuf,
    /// QEMU's option ROM for PVH boot.
    pub(crate) pvh_rom: PathBuf,
}

/// Installs and prepares what is missing.
///
/// # Errors
/// Where something is missing that cannot be had, saying what, and how to get it.
pub(crate) fn setup(root: &Path) -> Result<Setup> {
    let work = work_folder(root);
    std::fs::create_dir_all(&work)?;
    let apt = apt::Apt::new(&work)?;
    apt.install_missing()?;
    let kernel = kernel::own(root, &work, &apt)?;
    let distribution_kernel = kernel::distribution(root, &work, &apt)?;
    let bios = firmware(&["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"], "seabios")?;
    let pvh_rom = firmware(&["/usr/share/qemu/pvh.bin", "/usr/share/seabios/pvh.bin"], "qemu-system-data")?;
    Ok(Setup { apt_config: apt.config().to_path_buf(), kernel, distribution_kernel, bios, pvh_rom })
}

/// What the static checks need besides; gives a `PATH` that has `cargo deny`.
///
/// # Errors
/// Where a part of the toolchain is missing, saying how to get it, or `cargo deny` cannot be had.
pub(crate) fn for_static_checks(root: &Path) -> Result<OsString> {
    components::check(root)?;
    let tools = deny::prepare(&work_folder(root))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths([tools].into_iter().chain(std::env::split_paths(&path)))?)
}

/// What tests compare launch digests and signed envelopes with.
///
/// # Errors
/// Where it cannot be had.
pub(crate) fn oracles(root: &Path) -> Result<Oracles> {
    oracle::prepare(&work_folder(root))
}

/// The first of `candidates` that exists.
fn firmware(candidates: &[&str], package: &str) -> Result<PathBuf> {
    let found = candidates.iter().map(PathBuf::from).find(|path| path.is_file());
    ensure!(found.is_some(), "none of {} exists: install the package {package}", candidates.join(", "));
    Ok(found.unwrap_or_default())
}
