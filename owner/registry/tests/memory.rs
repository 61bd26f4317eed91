//! Memory of a packed layer's whole way: unpacked and converted at once. Alone in its process, whose highest use is measured.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::num::NonZeroUsize;

use caveau_layer::{Limits, convert};
use caveau_registry::{FileImage, unpacked};
use flate2::Compression;
use flate2::write::GzEncoder;

/// What is promised for one layer, whatever it has in it.
const BOUND: u64 = 64 << 10;

/// A tar of files that compress to a third or so, packed, of about so many mebibytes unpacked.
fn packed(mebibytes: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    // Level 1 makes blocks whose beginnings nobody guesses at, which takes less.
    let packed = GzEncoder::new(BufWriter::new(&file), Compression::new(2));
    let mut tar = tar::Builder::new(packed);
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
    tar.into_inner().unwrap().finish().unwrap().flush().unwrap();
    io::Seek::rewind(&mut &file).unwrap();
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
    let (tar, image) = (packed(256), tempfile::tempfile().unwrap());
    let source = unpacked(BufReader::with_capacity(1 << 20, tar)).unwrap();
    let threads = NonZeroUsize::new(2).unwrap();
    let summary = convert(source, &FileImage(&image), &Limits::default(), threads).unwrap();
    assert_eq!(summary.entries, 64);
    println!("a packed layer of 256 MiB: {} KiB", peak());
    assert!(peak() <= BOUND, "{} KiB", peak());
}
