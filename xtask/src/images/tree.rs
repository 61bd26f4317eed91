//! A file tree in memory that becomes a layer's tar, entry by entry in a fixed order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tar::{Archive, Builder, EntryType, Header};

/// The time of entries that no package brought: 2025-01-01T00:00:00Z.
const OWN_TIME: u64 = 1_735_689_600;

/// Documentation and translations that no container needs; licences stay.
const LEFT_OUT: [&str; 6] = [
    "usr/share/doc/",
    "usr/share/man/",
    "usr/share/locale/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/bug/",
];

enum Content {
    Directory,
    File(Vec<u8>),
    Hardlink(String),
    Symlink(String),
}

struct Node {
    content: Content,
    mode: u32,
    owner: (u64, u64),
    time: u64,
    attributes: Vec<(String, Vec<u8>)>,
}

/// Paths without a leading slash and what is there.
#[derive(Default)]
pub(super) struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Adds what a package would install.
    pub(super) fn add_deb(&mut self, deb: &Path) -> Result<()> {
        let mut child = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("dpkg-deb has no output")?;
        let read = self.add_tar(stdout);
        let status = child.wait()?;
        read.with_context(|| format!("failed to read {}", deb.display()))?;
        ensure!(status.success(), "dpkg-deb failed on {}: {status}", deb.display());
        Ok(())
    }

    fn add_tar(&mut self, tar: impl Read) -> Result<()> {
        let mut archive = Archive::new(tar);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = clean(&entry.path()?);
            let is_directory = entry.header().entry_type().is_dir();
            let left_out = LEFT_OUT.iter().any(|part| path.starts_with(part)) && !path.ends_with("/copyright");
            if path.is_empty() || (left_out && !is_directory) || (is_directory && self.0.contains_key(&path)) {
                continue;
            }
            let link = entry.link_name()?.map(|name| name.to_string_lossy().into_owned());
            let content = match (entry.header().entry_type(), link) {
                (EntryType::Directory, _) => Content::Directory,
                (EntryType::Regular, _) => {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes)?;
                    Content::File(bytes)
                }
                (EntryType::Symlink, Some(target)) => Content::Symlink(target),
                (EntryType::Link, Some(target)) => Content::Hardlink(clean(Path::new(&target))),
                (other, _) => bail!("{path} is of type {other:?}"),
            };
            let header = entry.header();
            let (mode, owner, time) = (header.mode()?, (header.uid()?, header.gid()?), header.mtime()?);
            self.0.insert(path, Node { content, mode: mode & 0o7777, owner, time, attributes: Vec::new() });
        }
        // Folders that held only what was left out.
        let empty: Vec<String> = self
            .0
            .keys()
            .filter(|path| LEFT_OUT.iter().any(|part| path.starts_with(part)) && self.is_bare(path))
            .cloned()
            .collect();
        for path in empty {
            self.0.remove(&path);
        }
        Ok(())
    }

    /// Whether `path` is a folder with no file at any depth.
    fn is_bare(&self, path: &str) -> bool {
        let inside = format!("{path}/");
        matches!(self.0[path].content, Content::Directory)
            && self
                .0
                .range(inside.clone()..)
                .take_while(|(there, _)| there.starts_with(&inside))
                .all(|(_, node)| matches!(node.content, Content::Directory))
    }

    fn put(&mut self, path: &str, mode: u32, content: Content) {
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            if !self.0.contains_key(parent) {
                self.0.insert(parent.to_owned(), Node::own(0o755, Content::Directory));
            }
        }
        self.0.insert(path.to_owned(), Node::own(mode, content));
    }

    /// Adds a folder.
    pub(super) fn directory(&mut self, path: &str, mode: u32) {
        self.put(path, mode, Content::Directory);
    }

    /// Adds a regular file.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.put(path, mode, Content::File(content.into()));
    }

    /// Adds a symbolic link.
    pub(super) fn symlink(&mut self, path: &str, target: &str) {
        self.put(path, 0o777, Content::Symlink(target.to_owned()));
    }

    /// Adds another name of a file of the same tree.
    pub(super) fn hardlink(&mut self, path: &str, target: &str) -> Result<()> {
        let node = self.0.get(target).with_context(|| format!("{target} is not in this layer"))?;
        let (mode, owner, time) = (node.mode, node.owner, node.time);
        self.put(path, mode, Content::Hardlink(target.to_owned()));
        if let Some(node) = self.0.get_mut(path) {
            (node.owner, node.time) = (owner, time);
        }
        Ok(())
    }

    /// Marks a file or folder of a lower layer as deleted.
    pub(super) fn whiteout(&mut self, path: &str) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let slash = if parent.is_empty() { "" } else { "/" };
        self.file(&format!("{parent}{slash}.wh.{name}"), 0o644, "");
    }

    /// Hides everything that lower layers have in the folder `path`.
    pub(super) fn opaque(&mut self, path: &str) {
        self.file(&format!("{path}/.wh..wh..opq"), 0o644, "");
    }

    /// Gives an entry to another owner.
    pub(super) fn owner(&mut self, path: &str, uid: u64, gid: u64) -> Result<()> {
        self.node(path)?.owner = (uid, gid);
        Ok(())
    }

    /// Sets an extended attribute of an entry.
    pub(super) fn attribute(&mut self, path: &str, name: &str, value: &[u8]) -> Result<()> {
        self.node(path)?.attributes.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// The content of a regular file.
    pub(super) fn read(&self, path: &str) -> Result<&[u8]> {
        match self.0.get(path).map(|node| &node.content) {
            Some(Content::File(bytes)) => Ok(bytes),
            _ => bail!("{path} is not a file of this layer"),
        }
    }

    /// Whether there is an entry at `path`.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    fn node(&mut self, path: &str) -> Result<&mut Node> {
        self.0.get_mut(path).with_context(|| format!("{path} is not in this layer"))
    }

    /// Writes the tar: entries by path, hard links after everything that they may point to.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut builder = Builder::new(BufWriter::with_capacity(1 << 20, File::create(path)?));
        let is_link = |node: &Node| matches!(node.content, Content::Hardlink(_));
        for links in [false, true] {
            for (path, node) in self.0.iter().filter(|(_, node)| is_link(node) == links) {
                node.append(path, &mut builder).with_context(|| format!("failed to write {path}"))?;
            }
        }
        builder.into_inner()?.flush()?;
        Ok(())
    }
}

impl Node {
    fn own(mode: u32, content: Content) -> Self {
        Self { content, mode, owner: (0, 0), time: OWN_TIME, attributes: Vec::new() }
    }

    fn append(&self, path: &str, builder: &mut Builder<impl Write>) -> Result<()> {
        if !self.attributes.is_empty() {
            let names: Vec<String> = self.attributes.iter().map(|(name, _)| format!("SCHILY.xattr.{name}")).collect();
            let values = self.attributes.iter().map(|(_, value)| value.as_slice());
            builder.append_pax_extensions(names.iter().map(String::as_str).zip(values))?;
        }
        let mut header = Header::new_gnu();
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(self.time);
        header.set_size(0);
        match &self.content {
            Content::Directory => {
                header.set_entry_type(EntryType::Directory);
                builder.append_data(&mut header, format!("{path}/"), &[][..])?;
            }
            Content::File(bytes) => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, path, bytes.as_slice())?;
            }
            Content::Hardlink(target) => {
                header.set_entry_type(EntryType::Link);
                builder.append_link(&mut header, path, target)?;
            }
            Content::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                builder.append_link(&mut header, path, target)?;
            }
        }
        Ok(())
    }
}

/// A tar's path without `./`, leading and trailing slashes.
fn clean(path: &Path) -> String {
    let path = path.to_string_lossy();
    let path = path.strip_prefix("./").unwrap_or(&path).trim_matches('/');
    if path == "." { String::new() } else { path.to_owned() }
}
