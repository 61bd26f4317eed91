//! The guest folder: written whole or not at all, and read back with its parts checked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::agent_record::MAX_RECORD;
use crate::error::IoContext as _;
use crate::{AGENT_CONTENTS_FILE, AgentContents, FORMAT, GuestImageError, Manifest, Part, Result, Sha256, Tee};

/// Name of the description in a guest folder.
pub const MANIFEST_FILE: &str = "guest.json";

/// Longest guest.json: thousands of launch digests.
const MAX_MANIFEST: u64 = 16 << 20;

/// Longest signed reference values that a guest is given: they travel in the header of a request.
const MAX_REFERENCE_INFO: u64 = 128 * 1024;

/// Name of the signed reference values for `tee` in a guest folder, where there are some. They are no part of the guest: nobody
/// measures them, and a guest that is built anew has none.
#[must_use]
pub fn reference_info_file(tee: Tee) -> String {
    format!("reference-info.{tee}.cose")
}

/// A guest on disk.
#[derive(Clone, Debug)]
pub struct GuestFolder {
    path: PathBuf,
    manifest: Manifest,
}

/// The files from which one TEE starts a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeeFiles {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
    /// The file with the kernel's command line.
    pub cmdline: PathBuf,
    /// What runs before the kernel, in order.
    pub firmware: Vec<PathBuf>,
}

impl GuestFolder {
    /// Reads `folder`'s description. The parts are not read: see [`GuestFolder::check`].
    ///
    /// # Errors
    /// Where there is no guest.json, or none of this format, or one of a group.
    pub fn open(folder: &Path) -> Result<Self> {
        let file = folder.join(MANIFEST_FILE);
        let manifest = read_manifest(&file)?;
        if manifest.group.is_some() {
            return Err(GuestImageError::OfGroup(file));
        }
        Ok(Self { path: folder.to_path_buf(), manifest })
    }

    /// What guest.json says.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that `tee` starts from.
    ///
    /// # Errors
    /// [`GuestImageError::Tee`] where the guest has none for it.
    pub fn tee(&self, tee: Tee) -> Result<TeeFiles> {
        let missing = || GuestImageError::Tee { folder: self.path.clone(), tee };
        let info = self.manifest.tees.get(&tee).ok_or_else(missing)?;
        Ok(TeeFiles {
            kernel: self.path.join(&info.kernel),
            initrd: self.path.join(&info.initrd),
            cmdline: self.path.join(&info.cmdline),
            firmware: info.firmware.iter().map(|name| self.path.join(name)).collect(),
        })
    }

    /// The signed reference values for `tee`, as they lie there; `None` where there are none.
    ///
    /// # Errors
    /// [`GuestImageError::Io`] where they cannot be read or are too long.
    pub fn reference_info(&self, tee: Tee) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(reference_info_file(tee));
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.context("open", &path)?,
        };
        match bounded(file, MAX_REFERENCE_INFO).context("read", &path)? {
            Some(bytes) => Ok(Some(bytes)),
            None => {
                let reason = format!("they have more than {MAX_REFERENCE_INFO} bytes: sign fewer launch digests");
                Err(std::io::Error::other(reason)).context("use the signed reference values", &path)
            }
        }
    }

    /// What is in the agent; `None` where the guest was built without a record of it.
    ///
    /// # Errors
    /// Where the part cannot be read, is not the one that guest.json names, or is about another program than the guest's.
    pub fn agent_contents(&self) -> Result<Option<AgentContents>> {
        let Some(part) = self.manifest.parts.get(AGENT_CONTENTS_FILE) else { return Ok(None) };
        let path = self.path.join(AGENT_CONTENTS_FILE);
        let text = read_bounded(&path, MAX_RECORD)?;
        let found = Sha256::of(&text);
        if found != part.sha256 {
            return Err(GuestImageError::Part { path, expected: part.sha256, found });
        }
        let contents = AgentContents::parse(&path, &text)?;
        contents.check_program(&path, self.manifest.agent.sha256)?;
        Ok(Some(contents))
    }

    /// Compares every part with guest.json.
    ///
    /// # Errors
    /// [`GuestImageError::Part`] for the first that differs, [`GuestImageError::Io`] for one that cannot be read.
    pub fn check(&self) -> Result<()> {
        for (name, part) in &self.manifest.parts {
            let path = self.path.join(name);
            let file = File::open(&path).context("open", &path)?;
            let found = Sha256::from(caveau_measure::sha256(file).context("read", &path)?);
            if found != part.sha256 {
                return Err(GuestImageError::Part { path, expected: part.sha256, found });
            }
        }
        Ok(())
    }
}

/// Reads a guest.json, wherever it is: a verifier has the description alone, as its reference values.
///
/// # Errors
/// Where it cannot be read, or is not a description of format [`FORMAT`].
pub fn read_manifest(path: &Path) -> Result<Manifest> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        format: u32,
    }
    let text = read_bounded(path, MAX_MANIFEST)?;
    let malformed = |source| GuestImageError::Manifest { path: path.to_path_buf(), source };
    let Versioned { format } = serde_json::from_slice(&text).map_err(malformed)?;
    if format != FORMAT {
        return Err(GuestImageError::ManifestFormat { path: path.to_path_buf(), found: format });
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(malformed)?;
    check_names(&manifest).map_err(|reason| malformed(serde::de::Error::custom(reason)))?;
    Ok(manifest)
}

/// What is in a file, which may have at most `most` bytes.
pub(crate) fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>> {
    let opened = File::open(path).and_then(|file| bounded(file, most)).context("read", path)?;
    let too_long = || std::io::Error::other(format!("no such file is longer than {most} bytes"));
    opened.ok_or_else(too_long).context("read", path)
}

/// What is in a file, unless it has more than `most` bytes.
fn bounded(file: File, most: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= most))
}

/// Parts have plain file names, and TEEs start from parts.
fn check_names(manifest: &Manifest) -> std::result::Result<(), String> {
    if let Some(name) = manifest.parts.keys().find(|name| !is_plain(name)) {
        return Err(format!("`{name}` is not a plain file name"));
    }
    if let Some(name) = manifest.packages.keys().find(|name| !manifest.parts.contains_key(*name)) {
        return Err(format!("`{name}` is not among the parts"));
    }
    if let Some((name, _)) = manifest.packages.iter().find(|(_, package)| !package.is_sound()) {
        return Err(format!("what `{name}` is said to be from is no file of a package"));
    }
    for tee in manifest.tees.values() {
        let mut named = tee.firmware.iter().chain([&tee.kernel, &tee.initrd, &tee.cmdline]);
        if let Some(name) = named.find(|name| !manifest.parts.contains_key(*name)) {
            return Err(format!("`{name}` is not among the parts"));
        }
    }
    Ok(())
}

/// Whether `name` stays in its folder.
fn is_plain(name: &str) -> bool {
    let is_of_folder = name == MANIFEST_FILE || Tee::ALL.iter().any(|tee| reference_info_file(*tee) == name);
    !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != ".." && !is_of_folder
}

/// Length and digest of a file's contents.
pub(crate) fn part(contents: &[u8]) -> Part {
    Part { bytes: contents.len() as u64, sha256: Sha256::of(contents) }
}

/// Writes `files` and the description into `folder`, which afterwards holds all of them and nothing else.
///
/// A guest that is there already is exchanged in one step, so that who opens it has the old or the new one.
///
/// # Errors
/// [`GuestImageError::Destination`] where `folder` holds something that is not a guest.
pub(crate) fn write(folder: &Path, files: &BTreeMap<String, Vec<u8>>, manifest: Manifest) -> Result<GuestFolder> {
    let absolute = std::path::absolute(folder).context("resolve", folder)?;
    let parent = absolute.parent().unwrap_or(&absolute);
    fs::create_dir_all(parent).context("create folder", parent)?;
    let replaces = is_replaceable(&absolute, MANIFEST_FILE, GuestImageError::Destination)?;
    let temporary =
        tempfile::Builder::new().prefix(".guest-").tempdir_in(parent).context("create a folder in", parent)?;
    set_mode(temporary.path(), 0o755)?;
    for (name, contents) in files {
        write_file(&temporary.path().join(name), contents)?;
    }
    write_file(&temporary.path().join(MANIFEST_FILE), manifest.to_json().as_bytes())?;
    put(temporary.path(), &absolute, replaces)?;
    if !replaces {
        // It has become the guest; only an exchanged, older one is removed on return.
        let _ = temporary.keep();
    }
    Ok(GuestFolder { path: folder.to_path_buf(), manifest })
}

/// Gives the finished folder `made` its place. What it `replaces` is exchanged in one step, and is where `made` was then.
pub(crate) fn put(made: &Path, place: &Path, replaces: bool) -> Result<()> {
    sync_folder(made)?;
    let flags = if replaces { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    renameat_with(CWD, made, CWD, place, flags).context("rename the finished folder to", place)?;
    place.parent().map_or(Ok(()), sync_folder)
}

/// Whether there is a folder to be exchanged: an empty one, or one of the kind that has a file called `marker`; anything else
/// is `refused`.
pub(crate) fn is_replaceable(folder: &Path, marker: &str, refused: fn(PathBuf) -> GuestImageError) -> Result<bool> {
    let mut entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(refused(folder.to_path_buf()));
        }
        Err(error) => return Err(error).context("read folder", folder),
    };
    if entries.next().is_none() || folder.join(marker).is_file() {
        Ok(true)
    } else {
        Err(refused(folder.to_path_buf()))
    }
}

/// Writes a new file, to the disk.
pub(crate) fn write_file(path: &Path, contents: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).context("create", path)?;
    file.write_all(contents).context("write", path)?;
    set_mode(path, 0o644)?;
    file.sync_all().context("sync", path)
}

/// Writes a file, whole or not at all; an older one is replaced.
pub(crate) fn replace_file(path: &Path, contents: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary =
        tempfile::Builder::new().prefix(".guest-").tempfile_in(folder).context("create a file in", folder)?;
    temporary.write_all(contents).context("write", path)?;
    set_mode(temporary.path(), 0o644)?;
    temporary.as_file().sync_all().context("sync", path)?;
    temporary.persist(path).context("write", path)?;
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, permissions).context("set the mode of", path)
}

fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).context("sync folder", path)
}
