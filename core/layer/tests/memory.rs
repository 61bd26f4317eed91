//! Memory: constant for data, bounded for each entry. Alone in its process, whose highest use is measured.
#![expect(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod common;

use std::{
    fs,
    io::{self, Read},
};

use caveau_layer::{ImageSink, Limits, convert, hash};
use common::{FileSink, THREADS, TarBuilder};

/// What is promised besides metadata.
const CONSTANT: u64 = 64 << 20;

/// What is promised for each entry with a name of usual length.
const EACH_ENTRY: u64 = 256;

/// Keeps only what is put down far behind the image, so that the test does not write gigabytes.
struct FarOnly(FileSink);

/// Where that begins.
const FAR: u64 = 1 << 38;

impl ImageSink for FarOnly {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        offset.checked_sub(FAR).map_or(Ok(()), |offset| self.0.write_at(offset, bytes))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset.checked_sub(FAR).unwrap(), buffer)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        assert!(bytes < FAR);
        Ok(())
    }
}

/// A tar made while it is read, so that it takes up no memory itself.
struct Made<F> {
    next: F,
    waiting: io::Cursor<Vec<u8>>,
}

impl<F: FnMut() -> Option<Vec<u8>>> Read for Made<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.waiting.read(buffer)?;
        if count > 0 {
            return Ok(count);
        }
        match (self.next)() {
            None => Ok(0),
            Some(bytes) => {
                self.waiting = io::Cursor::new(bytes);
                self.waiting.read(buffer)
            }
        }
    }
}

fn made(next: impl FnMut() -> Option<Vec<u8>>) -> impl Read {
    Made { next, waiting: io::Cursor::default() }
}

/// Most memory that this process ever had, in bytes.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

#[test]
fn memory_is_bounded() {
    if peak().is_none() {
        println!("skipped: no /proc/self/status");
        return;
    }
    // 3 GiB, more than what keeps its leaves in memory, in files of 64 MiB.
    let files = std::cell::Cell::new(0_u64);
    let mut left = 0_u64;
    let data = || {
        if left > 0 {
            left -= 1;
            return Some(vec![0x5a; 1 << 20]);
        }
        files.set(files.get() + 1);
        left = 64;
        let mut tar = TarBuilder::default();
        (files.get() <= 48).then(|| tar.raw_file(&format!("f{}", files.get()), 64 << 20, b"").finish())
    };
    let sink = FarOnly(FileSink(tempfile::tempfile().unwrap()));
    let summary = convert(made(data), &sink, &Limits::default(), THREADS).unwrap();
    assert!(summary.geometry.data_bytes() > 3 << 30);
    let constant = peak().unwrap();
    println!("3 GiB of data: {} KiB", constant >> 10);
    assert!(constant <= CONSTANT, "{constant} bytes for 3 GiB of data");

    let (mut number, value) = (0_u64, "v".repeat(3900));
    let attributes = || {
        number += 1;
        let mut tar = TarBuilder::default();
        tar.pax(&[("SCHILY.xattr.user.a", &value)]).file(&format!("f{number}"), b"data");
        (number <= 20_000).then(|| tar.finish())
    };
    let summary = hash(made(attributes), &Limits::default(), THREADS).unwrap();
    let bound = CONSTANT + EACH_ENTRY * summary.entries;
    assert!(peak().unwrap() <= bound, "{} bytes for {} entries with attributes", peak().unwrap(), summary.entries);

    let mut number = 0_u64;
    let entries = || {
        number += 1;
        let mut tar = TarBuilder::default();
        let name = format!("usr/lib/folder-{}/a-name-of-usual-length-{number:06}.txt", number % 500);
        (number <= 200_000).then(|| tar.file(&name, b"").finish())
    };
    let summary = hash(made(entries), &Limits::default(), THREADS).unwrap();
    let each = peak().unwrap().saturating_sub(constant) / summary.entries;
    println!("{} entries: {each} bytes each beyond that", summary.entries);
    assert!(peak().unwrap() <= CONSTANT + EACH_ENTRY * summary.entries, "{} bytes in all", peak().unwrap());
}
