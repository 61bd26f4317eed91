//! The crates that an agent is built from, in Cargo's own words.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use caveau_guest_image::{CrateInfo, Origin, Role, Sha256};
use serde_json::Value;

use super::{AGENT, TARGET};
use crate::process::{command, output};

/// Crates and what they need, by `NAME@VERSION`.
#[derive(Debug, Default)]
pub(super) struct Tree {
    crates: BTreeMap<String, Node>,
    root: String,
}

/// A crate in Cargo's tree.
#[derive(Debug, Default)]
struct Node {
    license: String,
    procedural_macro: bool,
    /// Where it lies, for a crate of the checkout.
    folder: Option<PathBuf>,
    needs: BTreeSet<String>,
}

impl Tree {
    /// What Cargo would compile for the agent: by dependencies of these kinds.
    fn ask(root: &Path, kinds: &str) -> Result<Self> {
        let mut tree = command(root, "cargo", ["tree", "--locked", "-p", AGENT, "--target", TARGET]);
        tree.args(["-e", kinds, "--prefix", "depth", "--format", " {p}|{l}"]);
        Self::parse(&output(&mut tree)?)
    }

    /// Reads `DEPTH NAME vVERSION[ (proc-macro)][ (PLACE)]|LICENCE[ (*)]` for each; with `(*)`, what it needs stands elsewhere.
    fn parse(text: &str) -> Result<Self> {
        let mut tree = Self::default();
        let mut above: Vec<String> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (id, depth, node) = Self::parse_line(line).with_context(|| format!("cargo tree says `{line}`"))?;
            above.truncate(depth);
            ensure!(above.len() == depth, "cargo tree says `{line}` at a depth that nothing leads to");
            if let Some(parent) = above.last() {
                tree.crates.entry(parent.clone()).or_default().needs.insert(id.clone());
            } else {
                tree.root.clone_from(&id);
            }
            let entry = tree.crates.entry(id.clone()).or_default();
            *entry = Node { needs: std::mem::take(&mut entry.needs), ..node };
            above.push(id);
        }
        ensure!(!tree.root.is_empty(), "cargo tree says nothing of {AGENT}");
        Ok(tree)
    }

    fn parse_line(line: &str) -> Option<(String, usize, Node)> {
        let line = line.strip_suffix(" (*)").unwrap_or(line);
        let (package, license) = line.rsplit_once('|')?;
        let (depth, package) = package.split_once(' ')?;
        let (name, rest) = package.split_once(" v")?;
        let (version, place) = rest.split_once(' ').unwrap_or((rest, ""));
        let procedural_macro = place.contains("(proc-macro)");
        let folder = place.rsplit_once('(').map(|(_, folder)| folder.trim_end_matches(')'));
        let folder = folder.filter(|folder| folder.starts_with('/')).map(PathBuf::from);
        let node = Node { license: license.to_owned(), procedural_macro, folder, needs: BTreeSet::new() };
        Some((format!("{name}@{version}"), depth.parse().ok()?, node))
    }
}

/// All that the agent's build compiles.
#[derive(Debug)]
pub(super) struct Crates {
    /// All of it.
    linked: Tree,
    /// With what build scripts and procedural macros are made of, and those.
    all: Tree,
    lock: BTreeMap<String, Locked>,
    /// Files that crates name in place of a licence.
    license_files: BTreeMap<String, String>,
}

impl Crates {
    /// Asks Cargo.
    pub(super) fn ask(root: &Path) -> Result<Self> {
        let lock = fs::read_to_string(root.join("Cargo.lock")).context("failed to read Cargo.lock")?;
        Ok(Self {
            linked: Tree::ask(root, "normal,no-proc-macro")?,
            all: Tree::ask(root, "normal,build")?,
            lock: read_lock(&lock)?,
            license_files: license_files(root)?,
        })
    }

    /// The agent itself, by `NAME@VERSION`.
    pub(super) fn agent(&self) -> &str {
        &self.linked.root
    }

    /// Those that are in the program, by `NAME@VERSION`.
    pub(super) fn linked(&self) -> BTreeSet<&str> {
        self.linked.crates.keys().map(String::as_str).collect()
    }

    /// The folders of those that are of the checkout.
    pub(super) fn folders(&self) -> BTreeSet<&Path> {
        self.all.crates.values().filter_map(|node| node.folder.as_deref()).collect()
    }

    /// All of them, by `NAME@VERSION`.
    pub(super) fn list(&self) -> Result<Vec<CrateInfo>> {
        self.all.crates.iter().map(|(id, node)| self.info(id, node)).collect()
    }

    fn info(&self, id: &str, node: &Node) -> Result<CrateInfo> {
        let (name, version) = id.split_once('@').unwrap_or((id, ""));
        let locked = self.lock.get(id).with_context(|| format!("{id} is not in Cargo.lock"))?;
        let role = match (self.linked.crates.contains_key(id), node.procedural_macro) {
            (true, _) => Role::Linked,
            (false, true) => Role::ProceduralMacro,
            (false, false) => Role::Build,
        };
        // Between two that are in the program, what counts is what the program needs: one's build script may need the other, too.
        let own = self.linked.crates.get(id).map(|node| &node.needs);
        let in_program = |needed: &String| self.linked.crates.contains_key(needed);
        let needs = node.needs.iter().filter(|needed| match own {
            Some(own) => !in_program(needed) || own.contains(*needed),
            None => true,
        });
        Ok(CrateInfo {
            name: name.to_owned(),
            version: version.to_owned(),
            origin: locked.origin,
            checksum: locked.checksum,
            license: Some(node.license.clone()).filter(|license| !license.is_empty()),
            license_file: self.license_files.get(id).cloned(),
            role,
            dependencies: needs.cloned().collect(),
        })
    }
}

/// The files that crates name in place of a licence (`license_file` of `cargo metadata`).
fn license_files(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut metadata =
        command(root, "cargo", ["metadata", "--locked", "--format-version=1", "--filter-platform", TARGET]);
    let metadata: Value = serde_json::from_str(&output(&mut metadata)?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let file = |package: &Value| {
        let id = format!("{}@{}", package["name"].as_str()?, package["version"].as_str()?);
        Some((id, package["license_file"].as_str()?.to_owned()))
    };
    Ok(packages.iter().filter_map(file).collect())
}

/// What Cargo.lock says of a crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Locked {
    origin: Origin,
    checksum: Option<Sha256>,
}

/// Reads Cargo.lock: stanzas `[[package]]` with a line for each text. Cargo writes it so, and no other way.
fn read_lock(text: &str) -> Result<BTreeMap<String, Locked>> {
    let mut crates = BTreeMap::new();
    let mut registries = BTreeSet::new();
    for stanza in text.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let lines = stanza.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
            lines.filter_map(|rest| rest.strip_suffix('"')).next()
        };
        let id = format!("{}@{}", field("name").context("a crate has no name")?, field("version").unwrap_or_default());
        let origin = match field("source") {
            None => Origin::Workspace,
            Some(source) if source.starts_with("registry+") => {
                registries.insert(source);
                Origin::Registry
            }
            Some(other) => anyhow::bail!("{id} is from {other}: the list of what is in the agent has no form for that"),
        };
        let checksum = field("checksum").map(str::parse).transpose()?;
        ensure!((origin == Origin::Registry) == checksum.is_some(), "{id} has no checksum");
        ensure!(crates.insert(id.clone(), Locked { origin, checksum }).is_none(), "{id} is in Cargo.lock twice");
    }
    ensure!(registries.len() <= 1, "crates are from several registries, which a list of them could not tell apart");
    Ok(crates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
    }

    #[test]
    fn cargos_tree_is_read() {
        let text = "0 caveau-agent v0.1.0 (/x/guest/agent)|Apache-2.0\n1 serde v1.0.2|MIT OR Apache-2.0\n\
            2 serde_derive v1.0.2 (proc-macro)|MIT OR Apache-2.0\n3 syn v3.0.0|MIT\n1 hex v0.4.3|\n\
            2 serde v1.0.2|MIT OR Apache-2.0 (*)\n";
        let tree = Tree::parse(text).unwrap();
        assert_eq!(tree.root, "caveau-agent@0.1.0");
        let needs = |id: &str| tree.crates[id].needs.iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(needs("caveau-agent@0.1.0"), ["hex@0.4.3", "serde@1.0.2"]);
        assert_eq!(needs("serde@1.0.2"), ["serde_derive@1.0.2"]);
        assert_eq!(needs("hex@0.4.3"), ["serde@1.0.2"]);
        assert!(tree.crates["serde_derive@1.0.2"].procedural_macro);
        assert_eq!(tree.crates["caveau-agent@0.1.0"].folder.as_deref(), Some(Path::new("/x/guest/agent")));
        assert!(Tree::parse("0 nonsense\n").is_err() && Tree::parse("").is_err());
        assert!(Tree::parse("0 a v1|\n2 b v1|\n").is_err());
    }

    #[test]
    fn locks_are_read_and_other_sources_refused() {
        let digest = Sha256::of(b"x");
        let text = format!(
            "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry+https://r\"\n\
             checksum = \"{digest}\"\ndependencies = [\n \"b\",\n]\n\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n"
        );
        let lock = read_lock(&text).unwrap();
        assert_eq!(lock["a@1.0.0"], Locked { origin: Origin::Registry, checksum: Some(digest) });
        assert_eq!(lock["b@2.0.0"], Locked { origin: Origin::Workspace, checksum: None });
        assert!(read_lock(&text.replace("registry+https://r", "git+https://r")).is_err());
        assert!(read_lock(&text.replace("checksum", "check")).is_err());
    }

    #[test]
    fn the_agents_crates_agree_with_the_lock() {
        let crates = Crates::ask(&root()).unwrap();
        let list = crates.list().unwrap();
        let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
        assert!(crates.agent().starts_with("caveau-agent@"));
        for info in &list {
            let source = if info.origin == Origin::Registry { "\nsource = " } else { "\n" };
            let stanza = format!("[[package]]\nname = \"{}\"\nversion = \"{}\"{source}", info.name, info.version);
            assert!(lock.contains(&stanza), "{stanza}");
            if let Some(checksum) = info.checksum {
                assert!(lock.contains(&format!("checksum = \"{checksum}\"")), "{info:?}");
            }
            assert!(info.license.is_some() || info.license_file.is_some(), "{} states no licence", info.id());
            assert!(info.dependencies.iter().all(|id| list.iter().any(|info| info.id() == *id)), "{info:?}");
        }
        let role = |name: &str| list.iter().find(|info| info.name == name).map(|info| info.role);
        assert_eq!(role("caveau-policy"), Some(Role::Linked));
        assert_eq!(role("libseccomp-sys"), Some(Role::Linked));
        assert_eq!(role("serde_derive"), Some(Role::ProceduralMacro));
        assert_eq!(role("cc"), Some(Role::Build));
        // What only tests use, or only the command line, is not in the guest.
        for other in ["proptest", "clap", "ureq", "caveau-launch"] {
            assert_eq!(role(other), None, "{other}");
        }
    }
}
