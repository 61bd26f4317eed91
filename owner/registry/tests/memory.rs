//! Memory of a packed layer's whole way: unpacked and converted at once. Alone in its process, whose highest use is measured.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::num::NonZeroUsize;

use caveau_layer::{Limits, convert};
use caveau_registry::{FileImage, unpacked};
use flate2::Compression;
use flate2::write::GzEncoder;

/// What is promised for one layer, whatever it has in it.
const BOUND: u64 = 64 << 10;

/// Writes a tar of files that compress to a third or so, of about so many mebibytes.
fn write_tar<W: Write>(out: W, mebibytes: u64) -> W {
    let mut tar = tar::Builder::new(out);
    let mut state = 1_u64;
    let mut content = vec![0; 4 << 20];
    for number in 0..mebibytes / 4 {
        for word in content.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&(state >> 40).to_le_bytes());
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, format!("f{number}"), content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Such a tar, packed with gzip.
fn gzip(mebibytes: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    // Level 1 makes blocks whose beginnings nobody guesses at, which takes less.
    let packed = GzEncoder::new(BufWriter::new(&file), Compression::new(2));
    write_tar(packed, mebibytes).finish().unwrap().flush().unwrap();
    (&file).rewind().unwrap();
    file
}

/// Zstd frames of blocks that are not compressed (RFC 8878, section 3.1.1), of 64 MiB each, with rising windows: the next is
/// reserved while the last is still held. What a window has room for is kept, packed or not.
struct Frames<W> {
    out: W,
    window: u8,
    left: usize,
}

impl<W: Write> Frames<W> {
    /// The greatest block.
    const BLOCK: usize = 128 << 10;
    /// Window descriptor: 2^25 bytes, the largest that is accepted.
    const LARGEST: u8 = 15 << 3;

    fn block(&mut self, content: &[u8], last: bool) -> io::Result<()> {
        let header = u32::try_from(content.len()).unwrap() << 3 | u32::from(last);
        self.out.write_all(&header.to_le_bytes()[..3])?;
        self.out.write_all(content)
    }
}

impl<W: Write> Write for Frames<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.out.write_all(&[0x28, 0xb5, 0x2f, 0xfd, 0, self.window])?;
            (self.left, self.window) = (64 << 20, Self::LARGEST.min(self.window + (1 << 3)));
        }
        let count = buffer.len().min(Self::BLOCK).min(self.left);
        self.left -= count;
        self.block(&buffer[..count], self.left == 0)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Such a tar, in frames of zstd.
fn zstd(mebibytes: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    let frames = Frames { out: BufWriter::new(&file), window: 13 << 3, left: 0 };
    let mut frames = write_tar(frames, mebibytes);
    if frames.left > 0 {
        frames.block(&[], true).unwrap();
    }
    frames.flush().unwrap();
    drop(frames);
    (&file).rewind().unwrap();
    file
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_packed_layer_is_converted_in_constant_memory() {
    for (how, pack) in [("gzip", gzip as fn(u64) -> File), ("zstd", zstd)] {
        let (tar, image) = (pack(256), tempfile::tempfile().unwrap());
        let source = unpacked(BufReader::with_capacity(1 << 20, tar)).unwrap();
        let threads = NonZeroUsize::new(2).unwrap();
        let summary = convert(source, &FileImage(&image), &Limits::default(), threads).unwrap();
        assert_eq!(summary.entries, 64);
        println!("a layer of 256 MiB, packed with {how}: {} KiB", peak());
        assert!(peak() <= BOUND, "{how}: {} KiB", peak());
    }
}
