//! `cargo xtask guest`: a guest in a folder of one's choice, of this checkout or, with `--like`, built again from what a guest.json
//! records. `caveau guest reproduce` calls the latter and compares.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use caveau_guest_image::{
    AgentBuild, AgentRecord, Ingredients, KernelPackage, MANIFEST_FILE, Manifest, OPTIONS, PackageFile, Rebuilt,
    Sha256, read_manifest, rebuild, record_beside,
};

use crate::{
    guest,
    process::headline,
    setup::{self, Again, build_agent, build_agent_in},
    work_folder,
};

/// Build a guest into a folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder; with --like it must be empty, or not be there yet.
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
    /// Build again what this guest.json records, as far as that can be done; what cannot be had is written into rebuilt.json.
    #[arg(long, value_name = "GUEST.JSON")]
    like: Option<PathBuf>,
    /// With --like: compile the agent in an empty folder, not with what is left of other builds.
    #[arg(long, requires = "like")]
    clean: bool,
    /// With --like: compile the kernel, even where one that was compiled before from the same is kept.
    #[arg(long, requires = "like")]
    compile_kernel: bool,
}

/// Runs it.
///
/// # Errors
/// Where nothing can be built, or the folder cannot be written.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let output = std::path::absolute(&arguments.output)?;
    let Some(like) = &arguments.like else {
        let setup = setup::setup(root)?;
        headline("guest");
        println!("{}", guest::build_into(root, &setup, &output)?.display());
        return Ok(());
    };
    let manifest = read_manifest(like)?;
    fs::create_dir_all(&output).with_context(|| format!("failed to make {}", output.display()))?;
    ensure!(output.read_dir()?.next().is_none(), "{} is not empty: name another folder", output.display());
    let work = tempfile::Builder::new().prefix(".guest-again-").tempdir_in(make(work_folder(root))?)?;
    let again = Again { root, work: work.path() };
    let mut desk = Desk { manifest: &manifest, rebuilt: Rebuilt::default(), ingredients: Ingredients::default() };
    desk.agent(root, arguments.clean.then(|| work.path().join("target")))?;
    desk.kernel(&again, arguments.compile_kernel);
    desk.firmware(&again);
    headline("putting the parts together");
    rebuild(&desk.ingredients, &desk.rebuilt, &output)?;
    println!("{}", output.display());
    Ok(())
}

fn make(folder: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    Ok(folder)
}

/// A guest that is being built again.
struct Desk<'a> {
    manifest: &'a Manifest,
    rebuilt: Rebuilt,
    ingredients: Ingredients,
}

impl Desk<'_> {
    /// Notes where an ingredient is from, or why it is missing; gives it.
    fn got(&mut self, name: &str, result: Result<(PathBuf, String)>) -> Option<PathBuf> {
        match result {
            Ok((path, how)) => {
                self.rebuilt.obtained.insert(name.to_owned(), how);
                Some(path)
            }
            Err(error) => {
                let reason = format!("{error:#}");
                eprintln!("{name} cannot be had: {reason}");
                self.rebuilt.missing.insert(name.to_owned(), reason);
                None
            }
        }
    }

    /// The agent, from this checkout.
    fn agent(&mut self, root: &Path, clean: Option<PathBuf>) -> Result<()> {
        headline("agent");
        let (built, how) = match &clean {
            Some(folder) => (build_agent_in(root, folder), "compiled from this checkout in an empty folder"),
            None => (build_agent(root), "compiled from this checkout, with what was left of other builds"),
        };
        let Some(program) = self.got("agent", built.map(|program| (program, how.to_owned()))) else { return Ok(()) };
        let beside = record_beside(&program);
        let record = AgentRecord::read(&beside)?;
        self.rebuilt.notes.extend(notes(self.manifest.agent.build.as_ref(), &record.build));
        // A guest that was built without a record has none to compare.
        self.ingredients.agent_record = self.manifest.agent.build.is_some().then_some(beside);
        self.ingredients.agent = Some(program);
        Ok(())
    }

    fn kernel(&mut self, again: &Again<'_>, compile: bool) {
        headline("kernel");
        let package = self.manifest.kernel.package.as_ref();
        let result = package
            .context("guest.json does not name the package that its kernel is from")
            .and_then(|package| kernel(again, package, compile));
        self.ingredients.kernel = self.got("kernel", result);
    }

    fn firmware(&mut self, again: &Again<'_>) {
        headline("firmware");
        let manifest = self.manifest;
        let names: std::collections::BTreeSet<_> = manifest.tees.values().flat_map(|info| &info.firmware).collect();
        for name in names {
            let package = manifest.packages.get(name).with_context(|| {
                format!(
                    "{MANIFEST_FILE} names no package for it: it was built in from a file that no package installed"
                )
            });
            if let Some(path) = self.got(name, package.and_then(|package| firmware(again, package))) {
                self.ingredients.firmware.insert(name.clone(), path);
            }
        }
    }
}

/// The kernel of a recorded package, and how it was got.
fn kernel(again: &Again<'_>, package: &KernelPackage, compile: bool) -> Result<(PathBuf, String)> {
    let Some(build) = &package.build else { return again.distribution_kernel(package) };
    let options = Sha256::of(OPTIONS.as_bytes());
    if options != build.options_sha256 {
        bail!(
            "this checkout asks for other options of the kernel: guest/kernel/options has SHA-256 {options}, recorded is {}; \
             check out the sources that the guest was built from",
            build.options_sha256
        );
    }
    again.own_kernel(package, compile)
}

/// A file of a recorded package: the installed one, or one that is fetched.
fn firmware(again: &Again<'_>, package: &PackageFile) -> Result<(PathBuf, String)> {
    let PackageFile { name, version, path } = package;
    if PackageFile::of(path).as_ref() == Some(package) {
        return Ok((path.clone(), format!("{} of the installed package {name} {version}", path.display())));
    }
    let tree = again.package(name, version)?;
    let file = tree.join(path.strip_prefix("/").unwrap_or(path));
    ensure!(file.is_file(), "the package {name} {version} has no {}", path.display());
    Ok((file, format!("{} of the package {name} {version}, fetched", path.display())))
}

/// What was not as it had been recorded when the agent was built again.
fn notes(recorded: Option<&AgentBuild>, built: &AgentBuild) -> Vec<String> {
    let Some(recorded) = recorded else {
        return vec!["guest.json does not record what its agent was built from: this checkout was taken".to_owned()];
    };
    let pairs = [
        ("sources have SHA-256", recorded.source_sha256.to_string(), built.source_sha256.to_string()),
        ("compiler is", recorded.compiler.clone(), built.compiler.clone()),
        ("C compiler is", recorded.c_compiler.clone(), built.c_compiler.clone()),
        ("target is", recorded.target.clone(), built.target.clone()),
        ("profile is", recorded.profile.clone(), built.profile.clone()),
        ("flags are", recorded.flags.join(" "), built.flags.join(" ")),
    ];
    let differ = pairs.into_iter().filter(|(_, one, two)| one != two);
    let mut notes: Vec<_> =
        differ.map(|(what, one, two)| format!("the agent's {what} {two}, recorded is {one}")).collect();
    if let Some(commit) = recorded.commit.as_ref().filter(|_| recorded.source_sha256 != built.source_sha256) {
        notes.push(format!("the recorded sources are those of commit {commit}: check that out"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> AgentBuild {
        AgentBuild {
            source_sha256: Sha256::of(b"sources"),
            commit: Some("abc".to_owned()),
            compiler: "rustc 1".to_owned(),
            c_compiler: "gcc 1".to_owned(),
            target: "x86".to_owned(),
            profile: "guest".to_owned(),
            flags: vec!["-C".to_owned()],
        }
    }

    #[test]
    fn what_may_be_the_reason_is_noted() {
        assert_eq!(notes(Some(&recorded()), &recorded()), Vec::<String>::new());
        let other = AgentBuild { compiler: "rustc 2".to_owned(), ..recorded() };
        assert_eq!(notes(Some(&recorded()), &other), ["the agent's compiler is rustc 2, recorded is rustc 1"]);
        let other = AgentBuild { source_sha256: Sha256::of(b"other"), commit: None, ..recorded() };
        let told = notes(Some(&recorded()), &other);
        assert!(told.len() == 2 && told[1].contains("commit abc"), "{told:?}");
        assert!(notes(None, &recorded())[0].contains("does not record"));
    }

    #[test]
    fn other_options_of_the_kernel_are_not_compiled() {
        let package = KernelPackage {
            name: "linux-source".to_owned(),
            version: "1".to_owned(),
            sha256: Sha256::of(b"package"),
            build: Some(caveau_guest_image::KernelBuild {
                options_sha256: Sha256::of(b"other options"),
                config_sha256: Sha256::of(b"configuration"),
                compiler: "gcc".to_owned(),
                linker: "ld".to_owned(),
            }),
        };
        let again = Again { root: Path::new("/nowhere"), work: Path::new("/nowhere") };
        let error = kernel(&again, &package, false).unwrap_err().to_string();
        assert!(error.contains(&Sha256::of(b"other options").to_string()), "{error}");
    }
}
