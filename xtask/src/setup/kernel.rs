//! The guest's kernels: our own, built from a pinned Debian package of sources, and a pinned one that Debian ships. Neither
//! package is installed.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, bail, ensure};
use caveau_guest_image::{KernelPackage, KernelSource, OPTIONS, PACKAGE_FILE, build_kernel, is_package};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::apt::{Apt, show};
use crate::{
    process::{Progress, headline, run},
    user_folder,
};

/// The pinned packages.
const PINS: &str = "owner/guest_image/kernel.json";

/// The package that depends on the newest kernel for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";

/// The guest's own kernel as a kernel folder, built where it has not been built yet from the same inputs: by this checkout or
/// any other, since it is kept with what can be made again.
///
/// # Errors
/// Where the sources cannot be fetched or the build fails.
pub(crate) fn own(root: &Path, work: &Path, apt: &Apt) -> Result<PathBuf> {
    let pin = Pin::read(&root.join(PINS), "source")?;
    let fetched = work.join("kernel").join(pin.folder());
    if !fetched.join("package.json").is_file() {
        fetch(&pin, &fetched, apt, |apt| Ok((pin.name.clone(), show(apt, &pin.name, "Version")?)))?;
    }
    let got = Pin::of_folder(&fetched, &pin)?;
    let options = hex::encode(Sha256::digest(OPTIONS));
    let folder = cache_folder(&got, &options)?;
    let jobs = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let source = KernelSource { archive: package_file(&fetched)?, jobs };
    let mut progress = Progress::default();
    build_kernel(&source, &folder, &mut |step, line| progress.line(step, line))
        .context("failed to build the guest's kernel")?;
    Ok(folder)
}

/// The kernel that Debian ships, as an extracted package.
///
/// # Errors
/// Where neither the pinned one nor a newer one can be fetched.
pub(crate) fn distribution(root: &Path, work: &Path, apt: &Apt) -> Result<PathBuf> {
    let pin = Pin::read(&root.join(PINS), "distribution")?;
    let folder = work.join("kernel").join(pin.folder());
    if !folder.join("package.json").is_file() {
        fetch(&pin, &folder, apt, newest)?;
    }
    Pin::of_folder(&folder, &pin)?;
    Ok(folder)
}

/// Where the kernel is kept that is built from these sources with options of that SHA-256. What can be made again is kept for all
/// checkouts.
///
/// # Errors
/// Where neither `XDG_CACHE_HOME` nor `HOME` is set.
pub(super) fn cache_folder(sources: &Pin, options: &str) -> Result<PathBuf> {
    let kernels = user_folder("XDG_CACHE_HOME", ".cache")?.join("kernel");
    Ok(kernels.join(format!("{}-{}", sources.folder(), options.get(..16).unwrap_or_default())))
}

/// The folder of exactly this package, fetched where it is not there yet.
///
/// # Errors
/// Where it is not to be had.
pub(super) fn fetched(pin: &Pin, work: &Path, apt: impl FnOnce() -> Result<Apt>) -> Result<PathBuf> {
    let folder = work.join("kernel").join(pin.folder());
    if !folder.join(PACKAGE_FILE).is_file() {
        let no_other = |_: &Apt| bail!("only {} {} gives the same kernel", pin.name, pin.version);
        fetch(pin, &folder, &apt()?, no_other)?;
    }
    let found = Pin::of_folder(&folder, pin)?;
    ensure!(found == *pin, "{} holds {} {}: remove it", folder.display(), found.name, found.version);
    Ok(folder)
}

/// A package: name, version, SHA-256 of its file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pin {
    name: String,
    version: String,
    sha256: String,
}

impl Pin {
    /// A recorded package.
    ///
    /// # Errors
    /// Where it cannot be one of the distribution's.
    pub(super) fn of_package(package: &KernelPackage) -> Result<Self> {
        let KernelPackage { name, version, sha256, .. } = package;
        ensure!(
            is_package(name, version),
            "the kernel is from `{name}` `{version}`, which is no package that can be fetched"
        );
        Ok(Self { name: name.clone(), version: version.clone(), sha256: sha256.to_string() })
    }

    /// The pin of that kind.
    fn read(path: &Path, kind: &str) -> Result<Self> {
        let read = || Self::parse(&serde_json::from_slice::<Value>(&fs::read(path)?)?[kind]);
        read().with_context(|| format!("failed to read `{kind}` of {}", path.display()))
    }

    /// What was fetched into a folder; says where that is not what was `wanted`.
    fn of_folder(folder: &Path, wanted: &Self) -> Result<Self> {
        let path = folder.join("package.json");
        let read = || Self::parse(&serde_json::from_slice(&fs::read(&path)?)?);
        let found = read().with_context(|| format!("failed to read {}", path.display()))?;
        if let Some(note) = found.difference_from(wanted) {
            eprintln!("{note}");
        }
        Ok(found)
    }

    /// What is to be said where this is not what was `wanted`.
    fn difference_from(&self, wanted: &Self) -> Option<String> {
        (self != wanted).then(|| {
            format!(
                "note: the guest's kernel is of {} {}, not of the recorded {} {}; launch digests differ",
                self.name, self.version, wanted.name, wanted.version
            )
        })
    }

    /// This, where it may be used for what was `wanted`: another version may, another file of the same version not.
    fn accepted_for(self, wanted: &Self) -> Result<Self> {
        let Self { name, version, sha256 } = &self;
        ensure!(
            (name, version) != (&wanted.name, &wanted.version) || *sha256 == wanted.sha256,
            "{name} {version} has SHA-256 {sha256}, expected {}: the package source serves another file",
            wanted.sha256
        );
        Ok(self)
    }

    fn parse(value: &Value) -> Result<Self> {
        let field = |name: &str| {
            let text = value.get(name).and_then(Value::as_str);
            text.map(str::to_owned).with_context(|| format!("there is no text `{name}`"))
        };
        Ok(Self { name: field("name")?, version: field("version")?, sha256: field("sha256")? })
    }

    /// The name of its folder.
    fn folder(&self) -> &str {
        self.sha256.get(..16).unwrap_or(&self.sha256)
    }
}

/// Fetches the pinned package, or the one that `newest` names where that is no longer to be had. A package of sources stays a
/// file; one with a kernel is extracted.
fn fetch(pin: &Pin, folder: &Path, apt: &Apt, newest: impl Fn(&Apt) -> Result<(String, String)>) -> Result<()> {
    let parent = folder.parent().context("the kernel's folder has a parent")?;
    fs::create_dir_all(parent)?;
    let temporary = tempfile::Builder::new().prefix(".fetch-").tempdir_in(parent)?;
    if apt.is_empty() {
        apt.update()?;
    }
    headline(&format!("kernel {} {}", pin.name, pin.version));
    let tree = temporary.path().join("tree");
    fs::create_dir(&tree)?;
    let update_and_ask = || apt.update().and_then(|()| newest(apt));
    let (name, version) = pinned_or_newest(pin, |name, version| download(apt, &tree, name, version), update_and_ask)?;
    let file = package_file(&tree)?;
    let sha256 = hex::encode(Sha256::digest(fs::read(&file)?));
    let Pin { name, version, sha256 } = Pin { name, version, sha256 }.accepted_for(pin)?;
    if !name.starts_with("linux-source-") {
        run(apt.command("dpkg-deb", &["-x"]).args([&file, &tree]))?;
        fs::remove_file(&file)?;
    }
    let package = json!({ "name": name, "version": version, "sha256": sha256 });
    fs::write(tree.join("package.json"), package.to_string())?;
    fs::rename(&tree, folder).with_context(|| format!("failed to move the kernel to {}", folder.display()))
}

/// Name and version of the package that `get` could get: the pinned one, or the one that `newest` names, since a version leaves
/// the archive when the next one comes.
fn pinned_or_newest(
    pin: &Pin,
    mut get: impl FnMut(&str, &str) -> Result<()>,
    newest: impl FnOnce() -> Result<(String, String)>,
) -> Result<(String, String)> {
    let Err(error) = get(&pin.name, &pin.version) else { return Ok((pin.name.clone(), pin.version.clone())) };
    eprintln!("{error:#}");
    let (name, version) = newest()?;
    get(&name, &version)?;
    Ok((name, version))
}

/// The newest kernel for virtual machines: name and version.
fn newest(apt: &Apt) -> Result<(String, String)> {
    let depends = show(apt, NEWEST, "Depends")?;
    let name = depends.split([' ', ',']).next().unwrap_or_default().to_owned();
    let version = show(apt, &name, "Version")?;
    Ok((name, version))
}

/// Downloads one package into `folder`; apt checks it against the signed lists.
pub(super) fn download(apt: &Apt, folder: &Path, name: &str, version: &str) -> Result<()> {
    let package = format!("{name}={version}");
    let mut download = apt.command("apt-get", &["download", "-q", &package]);
    run(download.current_dir(folder)).with_context(|| format!("{name} {version} is not to be had"))
}

/// The only package file in a folder.
pub(super) fn package_file(folder: &Path) -> Result<PathBuf> {
    let files = folder.read_dir()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut packages = files.filter(|path| path.extension().is_some_and(|ending| ending == "deb"));
    packages.next().with_context(|| format!("{} holds no package", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(name: &str, version: &str, sha256: &str) -> Pin {
        Pin { name: name.to_owned(), version: version.to_owned(), sha256: sha256.to_owned() }
    }

    /// What comes of asking an archive that holds `held`, whose newest is `newest`; and what it was asked for.
    fn ask(held: &[&str], newest: &'static str) -> (Result<(String, String)>, Vec<String>) {
        let mut asked = Vec::new();
        let get = |name: &str, version: &str| {
            asked.push(format!("{name}={version}"));
            if !held.contains(&version) {
                bail!("{name} {version} is not to be had")
            }
            Ok(())
        };
        let got = pinned_or_newest(&pin("linux", "1", "aa"), get, || Ok(("linux-next".to_owned(), newest.to_owned())));
        (got, asked)
    }

    #[test]
    fn the_pinned_package_is_taken_while_it_is_there() {
        let (got, asked) = ask(&["1", "2"], "2");
        assert_eq!(got.unwrap(), ("linux".to_owned(), "1".to_owned()));
        assert_eq!(asked, ["linux=1"]);
    }

    #[test]
    fn the_newest_is_taken_where_it_has_gone() {
        let (got, asked) = ask(&["2"], "2");
        assert_eq!(got.unwrap(), ("linux-next".to_owned(), "2".to_owned()));
        assert_eq!(asked, ["linux=1", "linux-next=2"]);
        let error = ask(&[], "2").0.unwrap_err();
        assert!(error.to_string().contains("linux-next 2 is not to be had"), "{error}");
    }

    #[test]
    fn another_version_is_said_and_another_file_refused() {
        let wanted = pin("linux", "1", "aa");
        assert_eq!(pin("linux", "1", "aa").difference_from(&wanted), None);
        let newer = pin("linux-next", "2", "bb").accepted_for(&wanted).unwrap();
        let note = newer.difference_from(&wanted).unwrap();
        for part in ["linux-next 2", "linux 1", "launch digests differ"] {
            assert!(note.contains(part), "{note}");
        }
        let error = pin("linux", "1", "bb").accepted_for(&wanted).unwrap_err();
        assert!(error.to_string().contains("serves another file"), "{error}");
    }

    #[test]
    fn the_recorded_pins_are_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for kind in ["source", "distribution"] {
            let pin = Pin::read(&root.join(PINS), kind).unwrap();
            assert!(pin.sha256.len() == 64 && pin.folder().len() == 16, "{pin:?}");
        }
    }
}
