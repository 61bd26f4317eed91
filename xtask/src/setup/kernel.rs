//! The guest's kernel: a pinned Debian package, extracted and never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::apt::{Apt, show};
use crate::process::{headline, run};

/// The package that depends on the newest kernel for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";

/// Extracts the kernel package that `owner/guest_image/kernel.json` names, or the newest where that is no longer to be had, and gives
/// the folder. What is there already stays.
///
/// # Errors
/// Where neither can be fetched.
pub(crate) fn prepare(root: &Path, work: &Path, apt: &Apt) -> Result<PathBuf> {
    let pin_file = root.join("owner/guest_image/kernel.json");
    let pin = Pin::read(&pin_file).with_context(|| format!("failed to read {}", pin_file.display()))?;
    let folder = work.join("kernel").join(pin.sha256.get(..16).unwrap_or(&pin.sha256));
    if !folder.join("package.json").is_file() {
        fetch(&pin, &folder, apt)?;
    }
    if Pin::read(&folder.join("package.json"))? != pin {
        eprintln!("note: the guest's kernel is not the recorded {} {}; launch digests differ", pin.name, pin.version);
    }
    Ok(folder)
}

/// A package: name, version, SHA-256 of its file.
#[derive(Debug, PartialEq, Eq)]
struct Pin {
    name: String,
    version: String,
    sha256: String,
}

impl Pin {
    fn read(path: &Path) -> Result<Self> {
        let value: Value = serde_json::from_slice(&fs::read(path)?)?;
        let field = |name: &str| {
            let text = value.get(name).and_then(Value::as_str);
            text.map(str::to_owned).with_context(|| format!("{} has no text `{name}`", path.display()))
        };
        Ok(Self { name: field("name")?, version: field("version")?, sha256: field("sha256")? })
    }
}

fn fetch(pin: &Pin, folder: &Path, apt: &Apt) -> Result<()> {
    let parent = folder.parent().context("the kernel's folder has a parent")?;
    fs::create_dir_all(parent)?;
    let temporary = tempfile::Builder::new().prefix(".fetch-").tempdir_in(parent)?;
    if apt.is_empty() {
        apt.update()?;
    }
    headline(&format!("kernel {} {}", pin.name, pin.version));
    let (name, version, file) = match download(apt, temporary.path(), &pin.name, &pin.version) {
        Ok(file) => (pin.name.clone(), pin.version.clone(), file),
        Err(error) => {
            eprintln!("{error:#}");
            apt.update()?;
            newest(apt, temporary.path())?
        }
    };
    let sha256 = hex::encode(Sha256::digest(fs::read(&file)?));
    ensure!(
        (&name, &version) != (&pin.name, &pin.version) || sha256 == pin.sha256,
        "{name} {version} has SHA-256 {sha256}, expected {}: the package source serves another file",
        pin.sha256
    );
    let tree = temporary.path().join("tree");
    run(apt.command("dpkg-deb", &["-x"]).args([&file, &tree]))?;
    let package = json!({ "name": name, "version": version, "sha256": sha256 });
    fs::write(tree.join("package.json"), package.to_string())?;
    fs::rename(&tree, folder).with_context(|| format!("failed to move the kernel to {}", folder.display()))
}

/// The newest kernel: the pinned version leaves the archive when the next one comes.
fn newest(apt: &Apt, folder: &Path) -> Result<(String, String, PathBuf)> {
    let depends = show(apt, NEWEST, "Depends")?;
    let name = depends.split([' ', ',']).next().unwrap_or_default().to_owned();
    let version = show(apt, &name, "Version")?;
    let file = download(apt, folder, &name, &version)?;
    Ok((name, version, file))
}

/// Downloads one package into `folder`; apt checks it against the signed lists.
fn download(apt: &Apt, folder: &Path, name: &str, version: &str) -> Result<PathBuf> {
    let package = format!("{name}={version}");
    let mut download = apt.command("apt-get", &["download", "-q", &package]);
    run(download.current_dir(folder)).with_context(|| format!("{name} {version} is not to be had"))?;
    let files = folder.read_dir()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut packages = files.filter(|path| path.extension().is_some_and(|ending| ending == "deb"));
    packages.next().with_context(|| format!("apt left no file of {name}"))
}
