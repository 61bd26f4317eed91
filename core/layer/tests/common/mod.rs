//! What the tests share: a sink on a file, and where fixtures and tools are.
#![allow(clippy::allow_attributes, reason = "which parts are unused differs by test")]
#![allow(clippy::unwrap_used, dead_code, reason = "a test may panic, and each uses a part of this")]

use std::{
    env, fs,
    io::{self, Read},
    num::NonZeroUsize,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

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

/// A tool of the system; where it is absent this says so.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let folders = ["/usr/sbin", "/sbin", "/usr/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    if found.is_none() {
        println!("skipped: no {name}, which the set-up installs");
    }
    found.map(Command::new)
}
