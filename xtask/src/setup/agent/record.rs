//! What an agent was built from, and what is in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use caveau_guest_image::{AGENT_FORMAT, AgentBuild, AgentContents, AgentRecord, Sha256};
use serde_json::Value;

use super::libraries::libraries;
use super::tree::Crates;
use super::{PROFILE, TARGET, flags, remaps};
use crate::process::{command, output};

/// Files of the checkout that decide how everything in it is compiled.
const COMMON: [&str; 3] = [".cargo/config.toml", "Cargo.lock", "Cargo.toml"];

/// A build that is done.
pub(super) struct Built<'a> {
    pub(super) root: &'a Path,
    pub(super) target_folder: &'a Path,
    pub(super) program: &'a Path,
    /// The linker's map.
    pub(super) map: &'a Path,
    /// What Cargo reported.
    pub(super) messages: &'a [Value],
}

impl Built<'_> {
    /// All of it.
    pub(super) fn record(&self) -> Result<AgentRecord> {
        let crates = Crates::ask(self.root)?;
        check_compiled(&crates.linked(), self.messages, &self.target_folder.join(TARGET))?;
        let first = |program: &str, arguments: &[&str]| -> Result<String> {
            let text = output(&mut command(self.root, program, arguments))?;
            Ok(text.lines().next().unwrap_or_default().to_owned())
        };
        let compiler = first("rustc", &["--version"])?;
        let sysroot = PathBuf::from(first("rustc", &["--print", "sysroot"])?);
        let map = fs::read(self.map)
            .with_context(|| format!("failed to read {}: remove the folder it should be in", self.map.display()))?;
        let version = compiler.strip_prefix("rustc ").unwrap_or(&compiler);
        let version = version.split(' ').next().unwrap_or(version);
        let map = String::from_utf8_lossy(&map);
        let libraries = libraries(&map, self.messages, self.target_folder, (&sysroot, version), TARGET)?;
        let folders = crates.folders();
        let sources = Sources::of(self.root, &folders)?;
        let named = remaps(self.root, self.target_folder)?.map(|remap| (remap.what, remap.to));
        Ok(AgentRecord {
            build: AgentBuild {
                source_sha256: sources.digest,
                commit: sources.commit(self.root),
                compiler,
                c_compiler: first("cc", &["--version"])?,
                target: TARGET.to_owned(),
                profile: PROFILE.to_owned(),
                flags: flags(&named),
            },
            contents: AgentContents {
                format: AGENT_FORMAT,
                program: Sha256::of(&fs::read(self.program)?),
                agent: crates.agent().to_owned(),
                crates: crates.list()?,
                libraries,
            },
        })
    }
}

/// That the crates which Cargo says it compiled for the program's target (`compiler-artifact`) are those that are listed.
fn check_compiled(linked: &BTreeSet<&str>, messages: &[Value], folder: &Path) -> Result<()> {
    let artifacts = messages.iter().filter(|message| message["reason"] == "compiler-artifact");
    let of_target = artifacts.filter(|message| {
        let mut files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        files.any(|file| Path::new(file).starts_with(folder))
    });
    // `SOURCE#NAME@VERSION` (The Cargo Book, Package ID Specifications).
    let ids = of_target.filter_map(|message| Some(message["package_id"].as_str()?.rsplit_once('#')?.1));
    let compiled: BTreeSet<&str> = ids.collect();
    let differ: Vec<_> = linked.symmetric_difference(&compiled).collect();
    ensure!(differ.is_empty(), "Cargo's tree of the agent and what it compiled for it are not the same: {differ:?}");
    Ok(())
}

/// The checkout's sources of an agent.
struct Sources {
    /// Paths below the root, as they were asked for.
    paths: Vec<PathBuf>,
    digest: Sha256,
}

impl Sources {
    /// Of the crates in `folders`.
    fn of(root: &Path, folders: &BTreeSet<&Path>) -> Result<Self> {
        let below = folders.iter().map(|folder| {
            let path = folder.strip_prefix(root);
            path.map(Path::to_path_buf).with_context(|| format!("{} is not in the checkout", folder.display()))
        });
        let common = COMMON.iter().map(PathBuf::from).filter(|path| root.join(path).is_file());
        let paths = common.map(Ok).chain(below).collect::<Result<Vec<_>>>()?;
        let mut files = BTreeSet::new();
        paths.iter().try_for_each(|path| collect(root, path, &mut files))?;
        let mut list = String::new();
        for file in files {
            let contents = fs::read(root.join(&file)).with_context(|| format!("failed to read {}", file.display()))?;
            let name = file.to_str().with_context(|| format!("{} is not UTF-8", file.display()))?;
            list += &format!("{}  {name}\n", Sha256::of(&contents));
        }
        Ok(Self { paths, digest: Sha256::of(list.as_bytes()) })
    }

    /// The newest commit that changed them, where they are as that has them; `None` where there is no git to ask.
    fn commit(&self, root: &Path) -> Option<String> {
        let ask = |arguments: &[&str]| {
            let mut git = command(root, "git", arguments);
            output(git.arg("--").args(&self.paths)).ok()
        };
        ask(&["status", "--porcelain", "--untracked-files=all"])?.is_empty().then_some(())?;
        let commit = ask(&["log", "-1", "--format=%H"])?.trim().to_owned();
        Some(commit).filter(|commit| !commit.is_empty())
    }
}

/// Adds a file, or all that are in a folder.
fn collect(root: &Path, path: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !root.join(path).is_dir() {
        files.insert(path.to_path_buf());
        return Ok(());
    }
    for entry in root.join(path).read_dir()? {
        collect(root, &path.join(entry?.file_name()), files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_compiled_and_not_listed_is_found() {
        let message =
            |id: &str, file: &str| json!({"reason": "compiler-artifact", "package_id": id, "filenames": [file]});
        let messages = [
            message("registry+https://r#a@1.0.0", "/t/x86/guest/deps/liba.rlib"),
            message("path+file:///c/core/b#b@2.0.0", "/t/x86/guest/deps/libb.rlib"),
            message("registry+https://r#host@1.0.0", "/t/guest/deps/libhost.rlib"),
        ];
        let check = |linked: &[&str]| check_compiled(&linked.iter().copied().collect(), &messages, Path::new("/t/x86"));
        check(&["a@1.0.0", "b@2.0.0"]).unwrap();
        let error = check(&["a@1.0.0"]).unwrap_err().to_string();
        assert!(error.contains("b@2.0.0"), "{error}");
        assert!(check(&["a@1.0.0", "b@2.0.0", "host@1.0.0"]).is_err());
    }

    #[test]
    fn sources_are_hashed_by_path_and_contents() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        fs::create_dir_all(root.join("core/a/src")).unwrap();
        for (name, text) in [("Cargo.toml", "x"), ("Cargo.lock", "y"), ("core/a/src/lib.rs", "z"), ("other", "o")] {
            fs::write(root.join(name), text).unwrap();
        }
        let folder = root.join("core/a");
        let digest = || Sources::of(root, &[folder.as_path()].into()).unwrap().digest;
        let line = |name: &str, text: &str| format!("{}  {name}\n", Sha256::of(text.as_bytes()));
        let list = line("Cargo.lock", "y") + &line("Cargo.toml", "x") + &line("core/a/src/lib.rs", "z");
        assert_eq!(digest(), Sha256::of(list.as_bytes()));
        let before = digest();
        fs::write(root.join("other"), "changed").unwrap();
        assert_eq!(digest(), before);
        fs::write(root.join("core/a/src/lib.rs"), "changed").unwrap();
        assert_ne!(digest(), before);
        assert!(Sources::of(root, &[Path::new("/elsewhere")].into()).is_err());
    }
}
