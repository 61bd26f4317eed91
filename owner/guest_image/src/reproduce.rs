//! A guest that was built again, held against what guest.json records of the first: part by part, byte for byte.
//!
//! [`rebuild`] makes what parts can be made of what there is, and says why the others cannot; [`compare`] reads the parts that were
//! made and computes everything of them anew. It goes by bytes alone: nobody's word that a part is the same counts. What could not
//! be built again is no success.

mod archive;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::IoContext as _;
use crate::folder::{part, read_bounded, write_file};
use crate::parts::{INITRD, Made, Sources, launch_digests};
use crate::{
    AGENT_CONTENTS_FILE, ExpectedDigest, GuestImageError, KERNEL_ELF, KERNEL_IMAGE, Manifest, Result, Sha256, Tee,
    TeeInfo,
};
pub use archive::Inside;

/// Name of the file in a rebuilt guest's folder that says how it came to be: [`Rebuilt`].
pub const REBUILT_FILE: &str = "rebuilt.json";

/// The agent, beside the initial RAM disk that it is in: it is compared even where there is no kernel for one.
const AGENT: &str = "init";

/// The kernel's whole configuration.
const CONFIGURATION: &str = "kernel-configuration";

/// Longest [`REBUILT_FILE`].
const MAX_REBUILT: u64 = 1 << 20;

/// What a guest is built again from: as much as could be had.
#[derive(Clone, Debug, Default)]
pub struct Ingredients {
    /// The kernel's folder.
    pub kernel: Option<PathBuf>,
    /// The agent.
    pub agent: Option<PathBuf>,
    /// What its build recorded.
    pub agent_record: Option<PathBuf>,
    /// Firmware, by the part's name.
    pub firmware: BTreeMap<String, PathBuf>,
}

/// How a guest was built again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rebuilt {
    /// Where each ingredient is from: `agent`, `kernel`, or a part of firmware by its name.
    pub obtained: BTreeMap<String, String>,
    /// Why one is not there.
    pub missing: BTreeMap<String, String>,
    /// What else differs from what was recorded, and may be why bytes differ.
    pub notes: Vec<String>,
}

/// What came of one thing that is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It is another one.
    Differs {
        /// The recorded digest, in hexadecimal digits.
        recorded: String,
        /// That of what was built again.
        rebuilt: String,
        /// Files within it that differ, where it is an archive.
        inside: Vec<Inside>,
    },
    /// It could not be built again.
    NotRebuilt {
        /// Why.
        reason: String,
    },
    /// It is the same, byte for byte.
    Same {
        /// Its digest, in hexadecimal digits.
        digest: String,
    },
}

/// One thing that was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What it is: `agent`, `kernel configuration`, the name of a part, or a launch digest by TEE, vCPU type and count.
    pub name: String,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// All that was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// One after the other.
    pub found: Vec<Found>,
    /// How it was built again.
    pub rebuilt: Rebuilt,
}

impl Comparison {
    /// Whether everything was built again and is the same.
    #[must_use]
    pub fn is_same(&self) -> bool {
        !self.found.is_empty() && self.found.iter().all(|found| matches!(found.verdict, Verdict::Same { .. }))
    }
}

/// Makes the parts that can be made of `ingredients` in the empty folder `output`, and writes there how they came to be.
///
/// # Errors
/// Where an ingredient is not what it should be, or a file cannot be written.
pub fn rebuild(ingredients: &Ingredients, rebuilt: &Rebuilt, output: &Path) -> Result<()> {
    let firmware = ingredients.firmware.iter().map(|(name, path)| (name.as_str(), path.as_path()));
    let made = Made::of(&Sources {
        kernel: ingredients.kernel.as_deref(),
        agent: ingredients.agent.as_deref(),
        agent_record: ingredients.agent_record.as_deref(),
        firmware: firmware.collect(),
    })?;
    for (name, contents) in &made.files {
        write_file(&output.join(name), contents)?;
    }
    if let Some((agent, _)) = &made.agent {
        write_file(&output.join(AGENT), agent)?;
    }
    if let (Some(folder), Some((kernel, _))) = (&ingredients.kernel, &made.kernel) {
        let configuration = folder.join(format!("boot/config-{}", kernel.release));
        if configuration.is_file() {
            let contents = std::fs::read(&configuration).context("read", &configuration)?;
            write_file(&output.join(CONFIGURATION), &contents)?;
        }
    }
    // Strings and maps keyed by strings always serialize.
    let text = serde_json::to_string_pretty(rebuilt).unwrap_or_default();
    write_file(&output.join(REBUILT_FILE), text.as_bytes())
}

/// Compares what lies in the folder `output`, made by [`rebuild`], with what `manifest` records. Where `original` is the folder of the
/// guest that is described, archives that differ are opened, and it is said which file in them is another one.
///
/// # Errors
/// Where what was rebuilt cannot be read.
pub fn compare(manifest: &Manifest, original: Option<&Path>, output: &Path) -> Result<Comparison> {
    let path = output.join(REBUILT_FILE);
    let text = read_bounded(&path, MAX_REBUILT)?;
    let malformed = |source: serde_json::Error| GuestImageError::Io {
        act: "understand",
        path: path.clone(),
        source: std::io::Error::other(source),
    };
    let rebuilt: Rebuilt = serde_json::from_slice(&text).map_err(malformed)?;
    let mut files = BTreeMap::new();
    let names = manifest.parts.keys().map(String::as_str).chain([AGENT, CONFIGURATION]);
    for name in names.collect::<BTreeSet<_>>() {
        let path = output.join(name);
        match std::fs::read(&path) {
            Ok(contents) => files.insert(name.to_owned(), contents),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context("read", &path),
        };
    }
    let desk = Desk { manifest, original, files, rebuilt: &rebuilt };
    let found = desk.all()?;
    Ok(Comparison { found, rebuilt })
}

/// What is compared.
struct Desk<'a> {
    manifest: &'a Manifest,
    original: Option<&'a Path>,
    files: BTreeMap<String, Vec<u8>>,
    rebuilt: &'a Rebuilt,
}

impl Desk<'_> {
    fn all(&self) -> Result<Vec<Found>> {
        let mut found = vec![Found { name: "agent".to_owned(), verdict: self.file(AGENT, self.manifest.agent.sha256) }];
        let package = self.manifest.kernel.package.as_ref();
        if let Some(build) = package.and_then(|package| package.build.as_ref()) {
            let verdict = self.file(CONFIGURATION, build.config_sha256);
            found.push(Found { name: "kernel configuration".to_owned(), verdict });
        }
        for (name, part) in &self.manifest.parts {
            found.push(Found { name: name.clone(), verdict: self.file(name, part.sha256) });
        }
        for (tee, info) in &self.manifest.tees {
            found.extend(self.launch(*tee, info)?);
        }
        Ok(found)
    }

    /// A file, by its recorded digest.
    fn file(&self, name: &str, recorded: Sha256) -> Verdict {
        let Some(contents) = self.files.get(name) else { return self.not_rebuilt(name) };
        let rebuilt = part(contents).sha256;
        if rebuilt == recorded {
            return Verdict::Same { digest: recorded.to_string() };
        }
        let inside = if name == INITRD { self.inside(contents, recorded) } else { Vec::new() };
        Verdict::Differs { recorded: recorded.to_string(), rebuilt: rebuilt.to_string(), inside }
    }

    /// The files that differ within the initial RAM disk: against the first one where that is at hand, else against what
    /// guest.json says of agent and modules.
    fn inside(&self, contents: &[u8], recorded: Sha256) -> Vec<Inside> {
        let first = self.original.and_then(|folder| std::fs::read(folder.join(INITRD)).ok());
        match first.filter(|first| Sha256::of(first) == recorded) {
            Some(first) => archive::differences(&first, contents),
            None => archive::differences_from(self.manifest, contents),
        }
    }

    fn not_rebuilt(&self, name: &str) -> Verdict {
        let ingredients: &[&str] = match name {
            AGENT | AGENT_CONTENTS_FILE => &["agent"],
            CONFIGURATION | KERNEL_IMAGE | KERNEL_ELF => &["kernel"],
            INITRD => &["agent", "kernel"],
            other => &[other],
        };
        // Where the ingredient is the thing itself, its name stands there already.
        let told = |ingredient: &str, reason: &str| match name {
            AGENT => reason.to_owned(),
            _ if name == ingredient => reason.to_owned(),
            _ => format!("{ingredient}: {reason}"),
        };
        let missing = ingredients.iter().filter_map(|name| Some(told(name, self.rebuilt.missing.get(*name)?)));
        let reasons: Vec<String> = missing.collect();
        let reason = match (reasons.is_empty(), name) {
            (false, _) => reasons.join("; "),
            (true, CONFIGURATION) => "the kernel's folder has no configuration beside it".to_owned(),
            (true, AGENT_CONTENTS_FILE) => "the agent's build recorded nothing of it".to_owned(),
            (true, _) => "this checkout makes no such part".to_owned(),
        };
        Verdict::NotRebuilt { reason }
    }

    /// The launch digests of one TEE. Those that are the same are one line, and so are those that cannot be computed.
    fn launch(&self, tee: Tee, info: &TeeInfo) -> Result<Vec<Found>> {
        let recorded = &info.launch_digests;
        if recorded.is_empty() {
            return Ok(Vec::new());
        }
        let name = format!("launch digests of {tee} ({})", recorded.len());
        if (info.kernel.as_str(), info.initrd.as_str(), info.cmdline.as_str())
            != (tee.kernel_file(), INITRD, tee.cmdline_file())
        {
            let reason = format!(
                "it starts from {}, {} and {}, which nothing here does",
                info.kernel, info.initrd, info.cmdline
            );
            return Ok(vec![Found { name, verdict: Verdict::NotRebuilt { reason } }]);
        }
        let mut named = info.firmware.iter().chain([&info.kernel, &info.initrd, &info.cmdline]);
        if let Some(missing) = named.find(|name| !self.files.contains_key(*name)) {
            let reason = format!("{missing} was not built again");
            return Ok(vec![Found { name, verdict: Verdict::NotRebuilt { reason } }]);
        }
        let mut machines = Vec::new();
        for expected in recorded {
            match expected.vcpu_type.parse() {
                Ok(vcpu_type) => machines.push((vcpu_type, expected.vcpus)),
                Err(_) => {
                    let reason = format!("the vCPU type {} is not known here", expected.vcpu_type);
                    return Ok(vec![Found { name, verdict: Verdict::NotRebuilt { reason } }]);
                }
            }
        }
        let rebuilt = launch_digests(tee, info, &self.files, machines.into_iter())?;
        let differ: Vec<_> = recorded.iter().zip(&rebuilt).filter(|(one, two)| one != two).collect();
        if differ.is_empty() {
            // One digest for all of the list, since a line has place for one.
            let list = recorded.iter().map(line).collect::<String>();
            return Ok(vec![Found {
                name,
                verdict: Verdict::Same { digest: Sha256::of(list.as_bytes()).to_string() },
            }]);
        }
        let found = differ.into_iter().map(|(one, two)| Found {
            name: format!("launch digest of {tee}, {} with {} processors", one.vcpu_type, one.vcpus),
            verdict: Verdict::Differs {
                recorded: one.digest.to_string(),
                rebuilt: two.digest.to_string(),
                inside: Vec::new(),
            },
        });
        Ok(found.collect())
    }
}

fn line(expected: &ExpectedDigest) -> String {
    format!("{} {} {}\n", expected.vcpu_type, expected.vcpus, expected.digest)
}

#[cfg(test)]
mod tests;
