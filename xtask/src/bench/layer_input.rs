//! Layers to convert: made from the Debian 13 folder's files, with what layers have besides files.

use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tar::{Builder, EntryType, Header};

use crate::process::run;

/// A layer's file content, at least.
const CONTENT_BYTES: u64 = 340_000_000;

/// One in so many files also has a hard link.
const LINKED: u64 = 40;

/// One in so many files also has a capability.
const CAPABLE: u64 = 60;

/// Whiteouts of files.
const WHITEOUTS: u64 = 60;

/// An extended attribute of a file: `cap_net_bind_service=ep` (`include/uapi/linux/capability.h`, version 2).
const CAPABILITY: &[u8] = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

/// A tar being written.
struct LayerTar {
    builder: Builder<BufWriter<File>>,
    entries: u64,
    files: u64,
    content: u64,
    /// Which of how many layers this is, where files are dealt out in turns.
    part: (u64, u64),
    seen: u64,
}

impl LayerTar {
    fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
        let builder = Builder::new(BufWriter::with_capacity(1 << 20, file));
        Ok(Self { builder, entries: 0, files: 0, content: 0, part: (0, 1), seen: 0 })
    }

    /// Whether the next file belongs to this layer.
    fn takes_next(&mut self) -> bool {
        let (part, parts) = self.part;
        self.seen += 1;
        self.seen % parts == part
    }

    /// Appends an entry without content.
    fn plain(&mut self, path: &str, kind: EntryType, target: &str, mode: u32) -> Result<()> {
        let mut header = header(kind, mode, 0);
        self.entries += 1;
        match kind {
            EntryType::Link | EntryType::Symlink => Ok(self.builder.append_link(&mut header, path, target)?),
            _ => Ok(self.builder.append_data(&mut header, path, std::io::empty())?),
        }
    }

    /// Appends a file, and now and then what a layer can say about one.
    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.files += 1;
        if self.files.is_multiple_of(CAPABLE) {
            self.builder.append_pax_extensions([("SCHILY.xattr.security.capability", CAPABILITY)])?;
        }
        self.builder.append_data(&mut header(EntryType::Regular, mode, content.len() as u64), path, content)?;
        self.entries += 1;
        self.content += content.len() as u64;
        if self.files.is_multiple_of(LINKED) {
            self.plain(&format!("{path}.link"), EntryType::Link, path, mode)?;
        }
        Ok(())
    }

    /// Appends a folder and all below it, as `name`.
    fn tree(&mut self, folder: &Path, name: &str) -> Result<()> {
        self.plain(&format!("{name}/"), EntryType::Directory, "", 0o755)?;
        let mut entries: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        entries.sort();
        for path in entries {
            let Some(last) = path.file_name().and_then(|last| last.to_str()) else { continue };
            let name = format!("{name}/{last}");
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                self.tree(&path, &name)?;
            } else if !self.takes_next() {
                // Another layer has it.
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path)?;
                self.plain(&name, EntryType::Symlink, &target.to_string_lossy(), 0o777)?;
            } else if metadata.is_file() {
                self.file(&name, metadata.mode() & 0o7777, &fs::read(&path)?)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        self.builder.into_inner()?.into_inner()?;
        Ok(())
    }
}

/// A header with what all entries have in common: root's, of a fixed time.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(1_735_689_600);
    header
}

/// A layer's tar and what it holds.
pub(super) struct Layer {
    /// The tar.
    pub(super) tar: PathBuf,
    /// Its length.
    pub(super) tar_bytes: u64,
    /// Entries.
    pub(super) entries: u64,
}

/// A realistic layer: Debian's `/usr` as often as it takes, with hard links, capabilities and whiteouts.
///
/// # Errors
/// Where the folder cannot be read or the tar not be written.
pub(super) fn realistic(debian: &Path, tar: &Path) -> Result<Layer> {
    let mut layer = LayerTar::create(tar)?;
    for copy in 0_u32.. {
        layer.tree(&debian.join("usr"), &if copy == 0 { "usr".to_owned() } else { format!("srv/{copy}/usr") })?;
        if layer.content >= CONTENT_BYTES {
            break;
        }
        ensure!(layer.content > CONTENT_BYTES / 20, "{} holds too little for a layer", debian.display());
    }
    layer.plain("var/", EntryType::Directory, "", 0o755)?;
    for number in 0..WHITEOUTS {
        layer.plain(&format!("var/.wh.gone-{number}"), EntryType::Regular, "", 0o644)?;
    }
    layer.plain("opt/", EntryType::Directory, "", 0o755)?;
    layer.plain("opt/.wh..wh..opq", EntryType::Regular, "", 0o644)?;
    finish(layer, tar)
}

/// The layers of an image: what [`realistic`] has, dealt out in turns, with its folders in each.
///
/// # Errors
/// As [`realistic`].
pub(super) fn parts(debian: &Path, count: u64, work: &Path) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    for part in 0..count {
        let tar = work.join(format!("layer-{part}.tar"));
        let mut layer = LayerTar::create(&tar)?;
        layer.part = (part, count);
        for copy in 0_u32.. {
            layer.tree(&debian.join("usr"), &if copy == 0 { "usr".to_owned() } else { format!("srv/{copy}/usr") })?;
            if layer.content >= CONTENT_BYTES / count || layer.files == 0 {
                break;
            }
        }
        layers.push(finish(layer, &tar)?);
    }
    Ok(layers)
}

/// A layer of so many small files.
///
/// # Errors
/// Where the tar cannot be written.
pub(super) fn many(entries: u64, tar: &Path) -> Result<Layer> {
    let mut layer = LayerTar::create(tar)?;
    for number in 0..entries {
        if number.is_multiple_of(1000) {
            layer.plain(&format!("folder-{}/", number / 1000), EntryType::Directory, "", 0o755)?;
        }
        let content = number.to_le_bytes();
        let path = format!("folder-{}/file-with-a-name-of-some-length-{number}", number / 1000);
        layer.builder.append_data(&mut header(EntryType::Regular, 0o644, content.len() as u64), path, &content[..])?;
        layer.entries += 1;
    }
    finish(layer, tar)
}

fn finish(layer: LayerTar, tar: &Path) -> Result<Layer> {
    let entries = layer.entries;
    layer.finish()?;
    Ok(Layer { tar: tar.to_path_buf(), tar_bytes: fs::metadata(tar)?.len(), entries })
}

/// Packs a tar by zstd -3, given the words that run it, and gives the packed file.
///
/// # Errors
/// Where `zstd` fails.
pub(super) fn zstd3(zstd: &[String], tar: &Path) -> Result<PathBuf> {
    let packed = tar.with_extension("tar.zst");
    let (program, arguments) = zstd.split_first().context("no zstd")?;
    run(Command::new(program).args(arguments).args(["-3", "-q", "-f", "-o"]).args([packed.as_path(), tar]))?;
    Ok(packed)
}

/// Packs a tar as registries have most of them, and gives the packed file.
///
/// # Errors
/// Where `gzip` fails.
pub(super) fn gzip(tar: &Path) -> Result<PathBuf> {
    run(Command::new("gzip").args(["-6", "--keep", "--no-name", "--force"]).arg(tar))?;
    Ok(tar.with_extension("tar.gz"))
}
