//! What a guest.json records, got again: kernels and packages of exactly those versions. Nothing is installed.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::Result;
use caveau_guest_image::{KernelPackage, KernelSource, OPTIONS, PACKAGE_FILE, build_kernel};
use sha2::{Digest as _, Sha256};

use super::apt::Apt;
use super::kernel::{Pin, cache_folder, download, fetched, package_file};
use crate::process::{Progress, run};
use crate::work_folder;

/// A checkout, and a folder of its own for what is built or fetched.
pub(crate) struct Again<'a> {
    pub(crate) root: &'a Path,
    pub(crate) work: &'a Path,
}

impl Again<'_> {
    /// A kernel that is built from a package of sources, with this checkout's options: one that was compiled before from the same
    /// where there is one, unless it must be compiled; and how it was got.
    ///
    /// # Errors
    /// Where the sources are not to be had, or the build fails.
    pub(crate) fn own_kernel(&self, package: &KernelPackage, compile: bool) -> Result<(PathBuf, String)> {
        let pin = Pin::of_package(package)?;
        let kept = cache_folder(&pin, &hex::encode(Sha256::digest(OPTIONS)))?;
        if !compile && read_package(&kept).as_ref() == Some(package) {
            let how = format!("{}, compiled before from the recorded sources, options and compiler", kept.display());
            return Ok((kept, how));
        }
        let work = work_folder(self.root);
        let sources = fetched(&pin, &work, || Apt::new(&work))?;
        let folder = self.work.join("kernel");
        let jobs = available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let mut progress = Progress::default();
        build_kernel(&KernelSource { archive: package_file(&sources)?, jobs }, &folder, &mut |step, line| {
            progress.line(step, line);
        })?;
        Ok((folder, format!("compiled from {} {}", package.name, package.version)))
    }

    /// A kernel as its package has it, and how it was got.
    ///
    /// # Errors
    /// Where the package is not to be had.
    pub(crate) fn distribution_kernel(&self, package: &KernelPackage) -> Result<(PathBuf, String)> {
        let work = work_folder(self.root);
        let folder = fetched(&Pin::of_package(package)?, &work, || Apt::new(&work))?;
        Ok((folder, format!("unpacked from {} {}", package.name, package.version)))
    }

    /// A package of that version, fetched and unpacked.
    ///
    /// # Errors
    /// Where it is not to be had.
    pub(crate) fn package(&self, name: &str, version: &str) -> Result<PathBuf> {
        let apt = Apt::new(&work_folder(self.root))?;
        if apt.is_empty() {
            apt.update()?;
        }
        let tree = self.work.join("packages").join(name);
        if tree.is_dir() {
            return Ok(tree);
        }
        let place = tempfile::tempdir_in(self.work)?;
        download(&apt, place.path(), name, version)?;
        fs::create_dir_all(&tree)?;
        run(apt.command("dpkg-deb", &["-x"]).arg(package_file(place.path())?).arg(&tree))?;
        Ok(tree)
    }
}

/// What a kernel's folder says that it was made of.
fn read_package(folder: &Path) -> Option<KernelPackage> {
    serde_json::from_slice(&fs::read(folder.join(PACKAGE_FILE)).ok()?).ok()
}
