//! Memory is bounded whatever the stream is.

use std::io::{BufRead, Write};

use caveau_gunzip::GunzipReader;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_bomb_takes_no_more_memory_than_any_stream() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..128 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    let packed = encoder.finish().unwrap();
    // Members without content, which take more room to note than to store.
    let empty = GzEncoder::new(Vec::new(), Compression::fast()).finish().unwrap();
    let (bomb, before) = ([packed.repeat(2), empty.repeat(50_000)].concat(), peak());
    let mut reader = GunzipReader::new(std::io::Cursor::new(bomb), 2).unwrap();
    let mut total = 0;
    loop {
        let count = reader.fill_buf().unwrap().len();
        if count == 0 {
            break;
        }
        total += count;
        reader.consume(count);
    }
    assert_eq!(total, 256 << 20);
    let grown = peak() - before;
    assert!(grown < 40 << 10, "{grown} KiB");
}
