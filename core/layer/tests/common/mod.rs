//! What the tests share: a sink on a file, and where fixtures and tools are.
#![allow(clippy::allow_attributes, reason = "which parts are unused differs by test")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    unused_imports,
    reason = "a test may panic, and each uses a part of this"
)]

mod accepted;

use std::{
    env, fs,
    io::{self, Read},
    num::NonZeroUsize,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

pub(crate) use accepted::{accepted, tool};

use caveau_layer::ImageSink;
use sha2::{Digest as _, Sha256};

/// Two threads besides the reading one, also on a machine with more.
pub(crate) const THREADS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// A file as an image.
pub(crate) struct FileSink(pub(crate) fs::File);

impl ImageSink for FileSink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
}

/// A folder of fixtures; where there is none this says so.
pub(crate) fn fixtures(name: &str) -> Option<PathBuf> {
    let root = env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"), PathBuf::from);
    let folder = root.join(name);
    if !folder.exists() {
        println!("skipped: no fixtures");
        return None;
    }
    Some(folder)
}

/// Digest of a file's first bytes, in hexadecimal.
pub(crate) fn sha256(mut file: &fs::File, bytes: u64) -> String {
    io::Seek::rewind(&mut file).unwrap();
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut part = file.take(bytes);
    loop {
        match part.read(&mut buffer).unwrap() {
            0 => break,
            count => digest.update(buffer.get(..count).unwrap()),
        }
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Builds tars by hand, also such as no tool makes.
#[derive(Default)]
pub(crate) struct TarBuilder(Vec<u8>);

impl TarBuilder {
    /// Appends a header, and data filled up to whole blocks.
    fn entry(&mut self, kind: tar::EntryType, path: &str, link: &str, size: u64, data: &[u8]) -> &mut Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_mtime(1_700_000_000);
        let fields = header.as_old_mut();
        fields.name.iter_mut().zip(path.bytes()).for_each(|(to, from)| *to = from);
        fields.linkname.iter_mut().zip(link.bytes()).for_each(|(to, from)| *to = from);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn directory(&mut self, path: &str) -> &mut Self {
        self.entry(tar::EntryType::Directory, path, "", 0, b"")
    }

    pub(crate) fn file(&mut self, path: &str, data: &[u8]) -> &mut Self {
        self.entry(tar::EntryType::Regular, path, "", data.len() as u64, data)
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        if target.len() > 100 {
            self.pax(&[("linkpath", target)]);
        }
        self.entry(tar::EntryType::Symlink, path, target, 0, b"")
    }

    pub(crate) fn hard_link(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(tar::EntryType::Link, path, target, 0, b"")
    }

    /// A file that announces another size than it has.
    pub(crate) fn raw_file(&mut self, path: &str, size: u64, data: &[u8]) -> &mut Self {
        self.entry(tar::EntryType::Regular, path, "", size, data)
    }

    /// Records for the next entry.
    pub(crate) fn pax(&mut self, records: &[(&str, &str)]) -> &mut Self {
        let mut data = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|length| *length == rest + length.to_string().len()).unwrap();
            data += &format!("{length} {key}={value}\n");
        }
        self.entry(tar::EntryType::XHeader, "pax", "", data.len() as u64, data.as_bytes())
    }

    /// The tar with its end mark, unless it ends within an entry.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.0.clone()
    }
}

/// A path as errors print it.
pub(crate) fn text(path: &str) -> caveau_layer::PathText {
    caveau_layer::PathText::from(path)
}

/// Makes a block's checksum right.
pub(crate) fn fix_checksum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
