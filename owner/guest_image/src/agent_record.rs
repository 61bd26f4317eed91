//! What an agent is made of, as its build knows it: the inputs that whoever builds it again needs, the crates and the libraries
//! in it.
//!
//! Two files, both JSON. The *record* lies beside the program: it is written when that is built, and `caveau guest build` reads
//! it. From it the guest gets the inputs into guest.json (`agent.build`) and the contents as a part of their own, `agent.json`,
//! whose SHA-256 stands in guest.json like that of any other part.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::folder::read_bounded;
use crate::{GuestImageError, Result, Sha256};

/// Name of the part that holds [`AgentContents`].
pub const AGENT_CONTENTS_FILE: &str = "agent.json";

/// Version of both files' form.
pub const AGENT_FORMAT: u32 = 1;

/// Longest record or part: thousands of crates.
pub(crate) const MAX_RECORD: u64 = 8 << 20;

/// What lies beside a built agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentRecord {
    /// What it was built from and by.
    pub build: AgentBuild,
    /// What is in it.
    pub contents: AgentContents,
}

/// What decides an agent's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentBuild {
    /// SHA-256 of the list of its sources: for each file its SHA-256, two spaces, its path below the checkout and a newline, by
    /// path (the output of sha256sum(1)). The files are Cargo.toml and Cargo.lock of the checkout and all in the folders of the
    /// crates of the checkout that the agent is built from.
    pub source_sha256: Sha256,
    /// A commit whose tree has these sources, where the checkout knows one and has not changed them since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The compiler, in its own words (`rustc --version`).
    pub compiler: String,
    /// The compiler of the C code in it, in its own words.
    pub c_compiler: String,
    /// Target that it is compiled for.
    pub target: String,
    /// Profile of Cargo.toml.
    pub profile: String,
    /// Flags of the compiler. In place of the build's own paths stands what the program has for them.
    pub flags: Vec<String>,
}

/// The part [`AGENT_CONTENTS_FILE`]: what is in an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentContents {
    /// [`AGENT_FORMAT`].
    pub format: u32,
    /// SHA-256 of the program.
    pub program: Sha256,
    /// The crate that is the agent, by its [`CrateInfo::id`].
    pub agent: String,
    /// All crates that its build compiled, by id.
    pub crates: Vec<CrateInfo>,
    /// Libraries and start-up code outside the crates that the linker put into it, by file name.
    pub libraries: Vec<LibraryInfo>,
}

/// A crate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrateInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where its sources are from.
    pub origin: Origin,
    /// SHA-256 of its archive, as in Cargo.lock; a crate of the checkout has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Sha256>,
    /// Its licence, an SPDX expression (SPDX specification 2.3, annex D), where it states one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// The file in its archive that has its licence, where it names that instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license_file: Option<String>,
    /// What it is to the agent.
    pub role: Role,
    /// The crates that it was compiled with, by id.
    pub dependencies: Vec<String>,
}

impl CrateInfo {
    /// `NAME@VERSION`, as Cargo names a package.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// In place of a package's name in [`LibraryInfo`], for what comes with the Rust toolchain.
pub const RUST_TOOLCHAIN: &str = "rust";

/// Where a crate's sources are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The registry of packages.
    Registry,
    /// The checkout itself.
    Workspace,
}

/// What a crate is to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It ran in a build script, or in one of the compiler's plug-ins, and is not in the program.
    Build,
    /// It is compiled into the program.
    Linked,
    /// A procedural macro: it ran in the compiler. What it generated is in the program, it is not.
    ProceduralMacro,
}

/// A library, or start-up code, that is no crate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibraryInfo {
    /// Name of its file, such as `libseccomp.a`.
    pub file: String,
    /// SHA-256 of that file.
    pub sha256: Sha256,
    /// The distribution's package that has it, or the Rust toolchain.
    pub package: String,
    /// The package's version.
    pub version: String,
    /// Its licence, as the package names it, where that is to be read by programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

/// The record's place beside a program: its name with `.json`.
#[must_use]
pub fn record_beside(program: &Path) -> PathBuf {
    let mut name = program.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

impl AgentRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// Where it cannot be read or is none.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_bounded(path, MAX_RECORD)?;
        let record: Self = serde_json::from_slice(&text).map_err(|error| malformed(path, error.to_string()))?;
        record.contents.check().map_err(|reason| malformed(path, reason))?;
        Ok(record)
    }

    /// The record's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists always serialize.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

impl AgentContents {
    /// Reads the part's bytes; `path` is for errors.
    ///
    /// # Errors
    /// [`GuestImageError::AgentRecord`] where they are none.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self> {
        let contents: Self = serde_json::from_slice(text).map_err(|error| malformed(path, error.to_string()))?;
        contents.check().map_err(|reason| malformed(path, reason))?;
        Ok(contents)
    }

    /// The part's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists always serialize.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// That it is about this program.
    ///
    /// # Errors
    /// [`GuestImageError::AgentRecord`] where it is about another one.
    pub(crate) fn check_program(&self, path: &Path, program: Sha256) -> Result<()> {
        if self.program == program {
            return Ok(());
        }
        let reason = format!("it is about a program with SHA-256 {}, the agent has {program}", self.program);
        Err(malformed(path, reason))
    }

    /// That names are unique and lead somewhere.
    fn check(&self) -> std::result::Result<(), String> {
        if self.format != AGENT_FORMAT {
            return Err(format!("it has format {}, expected {AGENT_FORMAT}: build the agent again", self.format));
        }
        let mut ids = BTreeSet::new();
        for info in &self.crates {
            if !is_crate_name(&info.name) || !is_version(&info.version) {
                return Err(format!("`{}` is not name and version of a crate", info.id()));
            }
            if !ids.insert(info.id()) {
                return Err(format!("the crate {} is there twice", info.id()));
            }
        }
        let named = self.crates.iter().flat_map(|info| &info.dependencies).chain([&self.agent]);
        if let Some(missing) = named.into_iter().find(|id| !ids.contains(*id)) {
            return Err(format!("the crate {missing} is named and not there"));
        }
        let mut files = BTreeSet::new();
        match self.libraries.iter().find(|library| !files.insert(&library.file)) {
            Some(twice) => Err(format!("the library {} is there twice", twice.file)),
            None => Ok(()),
        }
    }
}

/// Cargo's rule for names of packages, without the letters beyond ASCII that the registry does not take.
fn is_crate_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The letters of a version (Semantic Versioning 2.0.0, sections 2, 9 and 10).
fn is_version(version: &str) -> bool {
    !version.is_empty()
        && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+'))
}

fn malformed(path: &Path, reason: String) -> GuestImageError {
    GuestImageError::AgentRecord { path: path.to_path_buf(), reason }
}

/// The bytes of the agent and, where a record was given, that record, which is about them.
///
/// # Errors
/// Where the record cannot be read, or is about another program.
pub(crate) fn read_record(path: Option<&Path>, agent: &[u8]) -> Result<Option<AgentRecord>> {
    let Some(path) = path else { return Ok(None) };
    let record = AgentRecord::read(path)?;
    record.contents.check_program(path, Sha256::of(agent))?;
    Ok(Some(record))
}

/// Writes a record beside a program; a file that is there already is replaced as a whole.
///
/// # Errors
/// [`GuestImageError::Io`] where it cannot be written.
pub fn write_record(program: &Path, record: &AgentRecord) -> Result<PathBuf> {
    let path = record_beside(program);
    crate::folder::replace_file(&path, record.to_json().as_bytes())?;
    Ok(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A crate of this name, version 1.0.0.
    pub(crate) fn package(name: &str, role: Role, dependencies: &[&str]) -> CrateInfo {
        CrateInfo {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            origin: if name == "agent" { Origin::Workspace } else { Origin::Registry },
            checksum: (name != "agent").then(|| Sha256::of(name.as_bytes())),
            license: (name != "sys").then(|| "MIT OR Apache-2.0".to_owned()),
            license_file: (name == "sys").then(|| "LICENSE".to_owned()),
            role,
            dependencies: dependencies.iter().map(|name| format!("{name}@1.0.0")).collect(),
        }
    }

    /// What is in a small program.
    pub(crate) fn contents(program: &[u8]) -> AgentContents {
        AgentContents {
            format: AGENT_FORMAT,
            program: Sha256::of(program),
            agent: "agent@1.0.0".to_owned(),
            crates: vec![
                package("agent", Role::Linked, &["derive", "hex", "sys"]),
                package("cc", Role::Build, &[]),
                package("derive", Role::ProceduralMacro, &[]),
                package("hex", Role::Linked, &[]),
                package("sys", Role::Linked, &["cc", "hex"]),
            ],
            libraries: vec![LibraryInfo {
                file: "libseccomp.a".to_owned(),
                sha256: Sha256::of(b"library"),
                package: "libseccomp-dev".to_owned(),
                version: "2.5.4-1+b3".to_owned(),
                license: Some("LGPL-2.1".to_owned()),
            }],
        }
    }

    /// The record of a small program.
    pub(crate) fn record(program: &[u8]) -> AgentRecord {
        AgentRecord {
            build: AgentBuild {
                source_sha256: Sha256::of(b"sources"),
                commit: Some("0123456789012345678901234567890123456789".to_owned()),
                compiler: "rustc 1.95.0".to_owned(),
                c_compiler: "gcc 12".to_owned(),
                target: "x86_64-unknown-linux-gnu".to_owned(),
                profile: "guest".to_owned(),
                flags: vec!["-Ctarget-feature=+crt-static".to_owned()],
            },
            contents: contents(program),
        }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("agent");
        let path = write_record(&program, &record(b"program")).unwrap();
        assert_eq!(path, folder.path().join("agent.json"));
        assert_eq!(AgentRecord::read(&path).unwrap(), record(b"program"));
        let other = read_record(Some(&path), b"another").unwrap_err().to_string();
        assert!(other.contains("it is about a program with SHA-256"), "{other}");
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        let path = Path::new("agent.json");
        let refused = |change: &dyn Fn(&mut AgentContents)| {
            let mut contents = contents(b"program");
            change(&mut contents);
            AgentContents::parse(path, contents.to_json().as_bytes()).unwrap_err().to_string()
        };
        assert!(AgentContents::parse(path, contents(b"").to_json().as_bytes()).is_ok());
        assert!(refused(&|contents| contents.format = 2).contains("it has format 2, expected 1"));
        assert!(refused(&|contents| contents.agent = "other@1".into()).contains("other@1 is named and not there"));
        assert!(refused(&|contents| contents.crates[0].name = "a b".into()).contains("is not name and version"));
        assert!(refused(&|contents| contents.crates[1].version = "1/2".into()).contains("is not name and version"));
        assert!(
            refused(&|contents| contents.crates.push(contents.crates[3].clone())).contains("hex@1.0.0 is there twice")
        );
        let libraries = refused(&|contents| contents.libraries.push(contents.libraries[0].clone()));
        assert!(libraries.contains("libseccomp.a is there twice"), "{libraries}");
        assert!(AgentContents::parse(path, br#"{"format":1,"more":2}"#).is_err());
    }
}
