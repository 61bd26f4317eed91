//! Real container images made from Debian packages, for the demonstration and the tests.
//!
//! Each image is an OCI layout that `umoci` writes from layer tars. The tars come from the packages' own contents, with
//! the packages' own times and owners and in a fixed order, so the same package versions give the same digests, and
//! nothing here needs root. No maintainer script runs; what such scripts would have set up, the recipes write.

mod debs;
mod recipes;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use debs::Apt;
use recipes::Recipe;

/// The tag under which each layout holds its image.
pub(crate) const TAG: &str = "latest";

/// When every image says that it was made: any fixed time does, and 2025-01-01 looks less like a mistake than 1970.
const CREATED: &str = "2025-01-01T00:00:00Z";

/// This module's own text: an image is built again when the way to build it changes.
const SOURCES: [&str; 4] = [
    include_str!("images.rs"),
    include_str!("images/debs.rs"),
    include_str!("images/recipes.rs"),
    include_str!("images/tree.rs"),
];

/// Builds every image as an OCI layout `dir/<name>` (busybox, nginx, redis, python3), tag [`TAG`].
///
/// Images that are there already from the same package versions and recipes stay. Downloaded packages are kept in
/// `dir/debs`. `apt_config` is apt's configuration as the set-up made it, which an ordinary user can use. `progress`
/// gets a line for each thing done.
///
/// # Errors
/// If apt, dpkg or umoci is missing, the package lists are empty or a package cannot be had.
pub(crate) fn build_all(dir: &Path, apt_config: &Path, progress: &dyn Fn(&str)) -> Result<()> {
    for recipe in recipes::all() {
        build(dir, &recipe, &Apt { config: apt_config }, progress)?;
    }
    Ok(())
}

/// Builds the one image called `name` and gives the path of its layout.
///
/// # Errors
/// As [`build_all`]; also if there is no recipe of that name.
pub(crate) fn build_one(dir: &Path, name: &str, apt_config: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    let recipes = recipes::all();
    let Some(recipe) = recipes.iter().find(|recipe| recipe.name == name) else {
        let names: Vec<_> = recipes.iter().map(|recipe| recipe.name).collect();
        bail!("there is no recipe for {name:?}; there are {}", names.join(", "));
    };
    build(dir, recipe, &Apt { config: apt_config }, progress)
}

/// Builds `recipe` under `dir` unless it is there from the same inputs.
fn build(dir: &Path, recipe: &Recipe, apt: &Apt<'_>, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    // umoci takes a colon for the start of the tag.
    ensure!(!dir.to_string_lossy().contains(':'), "the images' folder {} has a colon in its name", dir.display());
    let packages = recipe
        .layers
        .iter()
        .map(|layer| apt.closure(layer.packages, &recipes::LEFT_OUT))
        .collect::<Result<Vec<_>>>()
        .with_context(|| format!("failed to find the packages of image {}", recipe.name))?;
    let key = key(&packages);
    let (layout, stamp) = (dir.join(recipe.name), dir.join(format!(".{}.key", recipe.name)));
    if layout.join("index.json").exists() && fs::read_to_string(&stamp).is_ok_and(|there| there == key) {
        progress(&format!("image {}: there already", recipe.name));
        return Ok(layout);
    }
    progress(&format!(
        "image {}: building from {} packages",
        recipe.name,
        packages.iter().map(Vec::len).sum::<usize>()
    ));

    let work = tempfile::Builder::new().prefix(".building-").tempdir_in(dir)?;
    let fresh = work.path().join(recipe.name);
    umoci(&["init", "--layout"], &fresh.to_string_lossy(), &[])?;
    let image = format!("{}:{TAG}", fresh.display());
    umoci(&["new", "--image"], &image, &[])?;
    let mut below: Vec<&debs::Package> = Vec::new();
    for (number, (layer, packages)) in recipe.layers.iter().zip(&packages).enumerate() {
        // A package that a lower layer brought is not brought again.
        let new: Vec<_> = packages.iter().filter(|package| !below.contains(package)).collect();
        let mut tree = tree::Tree::default();
        for deb in apt.download(&new, &dir.join("debs"))? {
            tree.add_deb(&deb)?;
        }
        (layer.finish)(&mut tree)?;
        let tar = work.path().join(format!("{number}.tar"));
        tree.write(&tar).with_context(|| format!("failed to write layer {number} of {}", recipe.name))?;
        let created_by = format!("--history.created_by={}", layer.comment);
        let created = format!("--history.created={CREATED}");
        umoci(&["raw", "add-layer", "--image"], &image, &[&created_by, &created, &tar.to_string_lossy()])?;
        fs::remove_file(&tar)?;
        below.extend(new);
    }
    let mut config: Vec<String> = vec![format!("--created={CREATED}"), "--no-history".to_owned()];
    config.extend(["--os=linux".to_owned(), "--architecture=amd64".to_owned()]);
    config.extend(recipe.config.iter().map(|(option, value)| format!("--config.{option}={value}")));
    umoci(&["config", "--image"], &image, &config.iter().map(String::as_str).collect::<Vec<_>>())?;
    umoci(&["gc", "--layout"], &fresh.to_string_lossy(), &[])?;

    if layout.exists() {
        fs::remove_dir_all(&layout)?;
    }
    fs::rename(&fresh, &layout)?;
    fs::write(&stamp, key)?;
    Ok(layout)
}

/// What an image is built from, as one digest: package versions and this module's text.
fn key(packages: &[Vec<debs::Package>]) -> String {
    let mut hasher = Sha256::new();
    for source in SOURCES {
        hasher.update(source.as_bytes());
    }
    for package in packages.iter().flatten() {
        hasher.update(package.file.as_bytes());
        hasher.update(b"\n");
    }
    hex::encode(hasher.finalize())
}

/// Calls umoci: a subcommand, its layout or image, further arguments.
fn umoci(command: &[&str], target: &str, arguments: &[&str]) -> Result<()> {
    run(Command::new("umoci").args(command).arg(target).args(arguments)).map(drop)
}

/// Runs a program to its end and gives what it printed.
fn run(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("failed to start {name}; install the package it is in"))?;
    if !output.status.success() {
        bail!("{name} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}
