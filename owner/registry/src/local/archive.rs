//! The outer tar of an image archive, read in place.
//!
//! Nothing is ever unpacked to the file system: an index of names and offsets is made once, and files are read from
//! their offsets. So a path cannot lead anywhere; names that try to are refused all the same, as are links that leave
//! the archive, hard links, devices, and two files of one name, since an archive that has them was made to be read in
//! two ways.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use caveau_oci::shown;
use tar::Header;

use crate::error::At;
use crate::inflate::{GZIP_THREADS, Unpacker};
use crate::{Limits, RegistryError, Store};

const BLOCK: u64 = 512;
/// Bytes of an extension header (a long name, PAX records).
const MAX_EXTENSION: u64 = 64 << 10;
/// Bytes of a name: Linux's longest path.
const MAX_NAME: usize = 4096;
/// Bytes of all names, which are kept in memory.
const MAX_NAMES: usize = 32 << 20;

/// An archive and what is in it.
pub(crate) struct Archive {
    path: PathBuf,
    file: File,
    entries: BTreeMap<String, Entry>,
    /// Bytes of the names in `entries`.
    names: usize,
}

/// One name in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Directory,
    File {
        offset: u64,
        size: u64,
    },
    /// A symbolic link, by the name it stands for.
    Link(String),
}

/// Names and sizes that extension headers give to the entry after them.
#[derive(Default)]
struct Extension {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Archive {
    /// Opens the archive at `path` and indexes it. A compressed one is unpacked to a nameless file in the store first.
    pub(crate) fn open(path: &Path, store: &Store, limits: &Limits) -> Result<Self, RegistryError> {
        let file = open_regular(path)?;
        let input = BufReader::new(file.try_clone().at("open", path)?);
        let unpacker = Unpacker::new(input, GZIP_THREADS).at("read", path)?;
        let file = if unpacker.is_packed() { unpack(unpacker, path, &file, store, limits)? } else { file };
        let mut archive = Self { path: path.to_owned(), file, entries: BTreeMap::new(), names: 0 };
        archive.index(limits)?;
        Ok(archive)
    }

    /// The archive's own path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a regular file of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        matches!(self.entries.get(name), Some(Entry::File { .. }))
    }

    /// The content of a regular file of at most `limit` bytes.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let (offset, size) = self.locate(name)?;
        if size > limit {
            return Err(RegistryError::TooLarge { what: format!("{} in {}", shown(name), self.path.display()), limit });
        }
        let mut content = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut content, offset).at("read", &self.path)?;
        Ok(content)
    }

    /// Where a regular file's content is: offset and length.
    pub(crate) fn locate(&self, name: &str) -> Result<(u64, u64), RegistryError> {
        match self.entries.get(name) {
            Some(Entry::File { offset, size }) => Ok((*offset, *size)),
            Some(Entry::Link(_)) => Err(self.refused(format!("{} is a link where a file is needed", shown(name)))),
            Some(Entry::Directory) => Err(self.refused(format!("{} is a folder where a file is needed", shown(name)))),
            None => Err(self.refused(format!("there is no file {}", shown(name)))),
        }
    }

    /// As [`locate`](Self::locate), following one symbolic link inside the archive: `docker save` wrote a layer that
    /// occurs twice as a link to its first occurrence.
    pub(crate) fn locate_linked(&self, name: &str) -> Result<(u64, u64), RegistryError> {
        match self.entries.get(name) {
            Some(Entry::Link(target)) => self.locate(target),
            _ => self.locate(name),
        }
    }

    /// Reads `size` bytes from `offset` on.
    pub(crate) fn reader(&self, offset: u64, size: u64) -> Box<dyn Read + Send + '_> {
        Box::new(FileReader { file: &self.file, at: offset }.take(size))
    }

    /// An error about the archive.
    pub(crate) fn refused(&self, reason: String) -> RegistryError {
        RegistryError::Archive { path: self.path.clone(), reason }
    }

    /// Goes through the headers.
    fn index(&mut self, limits: &Limits) -> Result<(), RegistryError> {
        let length = self.file.metadata().at("read", &self.path)?.len();
        let (mut at, mut extension, mut headers) = (0, Extension::default(), 0);
        while let Some(header) = self.header(at, length)? {
            headers += 1;
            if headers > limits.archive_entries {
                return Err(self.refused(format!("it has more than {} entries", limits.archive_entries)));
            }
            let kind = header.entry_type();
            let is_extension = kind.is_gnu_longname()
                || kind.is_gnu_longlink()
                || kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions();
            let own_size = header.entry_size().map_err(|error| self.refused(error.to_string()))?;
            let size = if is_extension { own_size } else { extension.size.unwrap_or(own_size) };
            let offset = at + BLOCK;
            let end = offset.checked_add(size).filter(|end| *end <= length);
            let end =
                end.ok_or_else(|| self.refused("an entry reaches beyond the archive's end: it is cut off".to_owned()))?;
            at = end.next_multiple_of(BLOCK);
            if is_extension {
                self.extend(&mut extension, &header, offset, size)?;
            } else {
                let extension = std::mem::take(&mut extension);
                self.add(&header, extension, offset, size)?;
            }
        }
        Ok(())
    }

    /// The header at `at`; none at the archive's end mark or end.
    fn header(&self, at: u64, length: u64) -> Result<Option<Header>, RegistryError> {
        if at >= length {
            return Ok(None);
        }
        let mut header = Header::new_old();
        self.file
            .read_exact_at(header.as_mut_bytes(), at)
            .map_err(|_| self.refused("it ends in the middle of a header".to_owned()))?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 =
            bytes.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
        if header.cksum().ok() != Some(sum) {
            let reason = if at == 0 { "it is not a tar" } else { "a header is damaged" };
            return Err(self.refused(reason.to_owned()));
        }
        Ok(Some(header))
    }

    /// Takes in a header that only says something about the next entry.
    fn extend(&self, extension: &mut Extension, header: &Header, offset: u64, size: u64) -> Result<(), RegistryError> {
        if size > MAX_EXTENSION {
            return Err(self.refused(format!("an extension header has {size} bytes, more than {MAX_EXTENSION}")));
        }
        let mut content = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut content, offset).at("read", &self.path)?;
        let kind = header.entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let text = |bytes: &[u8]| {
            if bytes.len() > MAX_NAME {
                return Err(self.refused(format!("a name has {} bytes, more than {MAX_NAME}", bytes.len())));
            }
            let text = String::from_utf8(bytes.to_vec());
            text.map_err(|_| self.refused("a name is not UTF-8".to_owned()))
        };
        if !kind.is_pax_local_extensions() {
            let name = text(content.split(|byte| *byte == 0).next().unwrap_or_default())?;
            let place = if kind.is_gnu_longname() { &mut extension.path } else { &mut extension.link };
            *place = Some(name);
            return Ok(());
        }
        for record in tar::PaxExtensions::new(&content) {
            let record = record.map_err(|error| self.refused(error.to_string()))?;
            match record.key_bytes() {
                b"path" => extension.path = Some(text(record.value_bytes())?),
                b"linkpath" => extension.link = Some(text(record.value_bytes())?),
                b"size" => {
                    let size = text(record.value_bytes())?.parse();
                    extension.size = Some(size.map_err(|_| self.refused("a PAX size is no number".to_owned()))?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes in an entry.
    fn add(&mut self, header: &Header, extension: Extension, offset: u64, size: u64) -> Result<(), RegistryError> {
        let name = match extension.path {
            Some(name) => name,
            None => String::from_utf8(header.path_bytes().into_owned())
                .map_err(|_| self.refused("a name is not UTF-8".to_owned()))?,
        };
        let path = self.clean(&name)?;
        let kind = header.entry_type();
        let entry = if kind.is_dir() {
            Entry::Directory
        } else if kind.is_file() || kind.is_contiguous() {
            Entry::File { offset, size }
        } else if kind.is_symlink() {
            let link = extension.link.or_else(|| String::from_utf8(header.link_name_bytes()?.into_owned()).ok());
            let target = link.as_deref().and_then(|link| join(&path, link));
            let reason = || format!("{} is a link that leaves the archive", shown(&name));
            Entry::Link(target.ok_or_else(|| self.refused(reason()))?)
        } else {
            return Err(self.refused(format!("{} is neither file, folder nor symbolic link", shown(&name))));
        };
        if path.is_empty() {
            return Ok(());
        }
        self.names += path.len() + if let Entry::Link(target) = &entry { target.len() } else { 0 };
        if self.names > MAX_NAMES {
            return Err(self.refused(format!("its names have more than {MAX_NAMES} bytes in all")));
        }
        let folder = entry == Entry::Directory;
        match self.entries.insert(path, entry) {
            Some(before) if !(folder && before == Entry::Directory) => {
                Err(self.refused(format!("{} is in it twice", shown(&name))))
            }
            _ => Ok(()),
        }
    }

    /// A name as a path inside the archive, without `./` and trailing slashes.
    fn clean(&self, name: &str) -> Result<String, RegistryError> {
        let outside = name.starts_with('/') || name.split('/').any(|part| part == "..") || name.contains('\0');
        if outside {
            return Err(self.refused(format!("{} leads out of the archive", shown(name))));
        }
        Ok(name.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/"))
    }
}

/// The path inside the archive for which the link `target` at `path` stands; none if it leads out.
fn join(path: &str, target: &str) -> Option<String> {
    if target.starts_with('/') || target.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Opens a regular file for reading; anything else (a pipe, a device) is an error and not waited for.
pub(super) fn open_regular(path: &Path) -> Result<File, RegistryError> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(path).at("open", path)?;
    if file.metadata().at("read", path)?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")).at("open", path)
}

/// Unpacks a compressed archive to a nameless temporary file, within the limits for images.
fn unpack(
    unpacker: impl Read,
    path: &Path,
    packed: &File,
    store: &Store,
    limits: &Limits,
) -> Result<File, RegistryError> {
    let size = packed.metadata().at("read", path)?.len();
    let limit = limits.free_bytes.max(size.saturating_mul(limits.ratio)).min(limits.image_bytes);
    let mut file = store.nameless()?;
    let written = io::copy(&mut unpacker.take(limit + 1), &mut file).at("unpack", path)?;
    if written > limit {
        return Err(RegistryError::TooLarge { what: format!("unpacked archive {}", path.display()), limit });
    }
    Ok(file)
}

/// Reads a file from a position of its own.
struct FileReader<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
