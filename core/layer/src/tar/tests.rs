//! The reader on headers made by hand, where it is to behave as the reference's library does.

use std::collections::BTreeMap;

use super::*;

/// A header block of a dialect with a right checksum.
struct Block([u8; TAR_BLOCK]);

impl Block {
    fn new(name: &[u8], type_flag: u8, size: usize) -> Self {
        let mut block = [0; TAR_BLOCK];
        block[..name.len()].copy_from_slice(name);
        block[100..107].copy_from_slice(b"0000644");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[156] = type_flag;
        Self(block)
    }

    fn with(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn ustar(self) -> Self {
        self.with(257, b"ustar\x0000")
    }

    fn gnu(self) -> Self {
        self.with(257, b"ustar  \0")
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.to_vec()
    }
}

/// Data filled up to whole blocks.
fn padded(data: &[u8]) -> Vec<u8> {
    let mut padded = data.to_vec();
    padded.resize(data.len().next_multiple_of(TAR_BLOCK), 0);
    padded
}

/// An entry of records before the next one.
fn pax(type_flag: u8, records: &str) -> Vec<u8> {
    [Block::new(b"pax", type_flag, records.len()).ustar().bytes(), padded(records.as_bytes())].concat()
}

/// A record with its length.
fn record(text: &str) -> String {
    let rest = text.len() + 2;
    let length = (rest..).find(|length| *length == rest + length.to_string().len()).unwrap();
    format!("{length} {text}\n")
}

/// Path and content of all entries.
fn read(parts: &[Vec<u8>]) -> Result<Vec<(Entry, Vec<u8>)>, LayerError> {
    let tar = parts.concat();
    let mut reader = TarReader::new(tar.as_slice());
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        while let Some(run) = reader.next_run()? {
            match run {
                Run::Zeros(bytes) => content.resize(content.len() + bytes as usize, 0),
                Run::Data(bytes) => {
                    let end = content.len() + bytes as usize;
                    while content.len() < end {
                        let mut byte = [0];
                        reader.read_data(&mut byte)?;
                        content.extend(byte);
                    }
                }
            }
        }
        entries.push((entry, content));
    }
    Ok(entries)
}

/// The one entry.
fn read_one(parts: &[Vec<u8>]) -> (Entry, Vec<u8>) {
    let mut entries = read(parts).unwrap();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

/// The error that a tar is refused with.
fn refusal(parts: &[Vec<u8>]) -> TarError {
    match read(parts).unwrap_err() {
        LayerError::Tar { source, .. } => source,
        other => panic!("{other}"),
    }
}

#[test]
fn every_dialect_is_told_apart() {
    let v7 = Block::new(b"old/", 0, 9).with(345, b"no prefix").bytes();
    let (entry, content) = read_one(&[v7]);
    assert_eq!((entry.kind, entry.path.as_slice(), content.len()), (Kind::Directory, &b"old/"[..], 0));
    let (entry, _) = read_one(&[Block::new(b"name", b'0', 0).ustar().with(345, b"prefix").bytes()]);
    assert_eq!(entry.path, b"prefix/name");
    let gnu = Block::new(b"name", b'0', 0).gnu().with(345, b"00000000017\0").with(357, b"00000000021\0");
    let (entry, _) = read_one(&[gnu.bytes()]);
    assert_eq!((entry.accessed, entry.changed), (Some(Moment::new(15, 0)), Some(Moment::new(17, 0))));
    let (entry, _) = read_one(&[Block::new(b"name", b'0', 0).gnu().with(345, b"go1.7").bytes()]);
    assert_eq!((entry.path.as_slice(), entry.accessed), (&b"go1.7/name"[..], None));
    let star = Block::new(b"name", b'0', 0).ustar().with(345, b"pre").with(476, b"00000000017\0").with(508, b"tar\0");
    let (entry, _) = read_one(&[star.bytes()]);
    assert_eq!((entry.path.as_slice(), entry.accessed), (&b"pre/name"[..], Some(Moment::new(15, 0))));
}

#[test]
fn records_and_long_names_override_fields() {
    let records =
        ["mtime=1700000000.123456789", "uid=70000", "path=a\u{2603}b", "gid=7", "size=3"].map(record).concat();
    let file = Block::new(b"short", b'0', 0).ustar().bytes();
    let (entry, content) = read_one(&[pax(b'x', &records), file.clone(), padded(b"abc")]);
    assert_eq!((entry.uid, entry.gid, content.as_slice()), (70_000, 7, &b"abc"[..]));
    assert_eq!(entry.path, "a\u{2603}b".as_bytes());
    assert_eq!(entry.modified, Some(Moment::new(1_700_000_000, 123_456_789)));
    let long = Block::new(b"././@LongLink", b'L', 6).gnu().bytes();
    let (entry, _) = read_one(&[long, padded(b"long\0x"), pax(b'x', &record("path=p")), file]);
    assert_eq!(entry.path, b"long", "the GNU name wins over the record");
}

#[test]
fn binary_attribute_values_are_kept() {
    let records = record("SCHILY.xattr.user.a=\u{1}\0\n=z=");
    let file = Block::new(b"f", b'0', 0).ustar().bytes();
    let (entry, _) = read_one(&[pax(b'x', &records), file]);
    assert_eq!(entry.xattrs, BTreeMap::from([(b"user.a".to_vec(), b"\x01\0\n=z=".to_vec())]));
}

#[test]
fn global_headers_are_files_of_their_own() {
    let skipped = [Block::new(b"a", b'0', 5).ustar().bytes(), padded(b"12345")].concat();
    let file = Block::new(b"f", b'0', 0).ustar().bytes();
    let tar = [skipped, pax(b'g', &record("comment=c")), file].concat();
    let mut reader = TarReader::new(tar.as_slice());
    let mut paths = Vec::new();
    // The first file's content is not read: it must not become the global header's.
    while let Some(entry) = reader.next_entry().unwrap() {
        assert!(paths.is_empty() || matches!(reader.next_run(), Ok(None | Some(Run::Data(0)))));
        paths.push(entry.path);
    }
    assert_eq!(paths, [&b"a"[..], b"pax", b"f"]);
    let chance = pax(b'g', &(record("path=p") + &record("mtime=bad")));
    assert!(matches!(refusal(&[chance]), TarError::GlobalHeader { key: "path" }));
}

#[test]
fn size_of_entries_without_data_means_nothing() {
    for type_flag in b'1'..=b'6' {
        let entries = read(&[Block::new(b"a", type_flag, 5000).bytes(), Block::new(b"b", b'0', 0).bytes()]).unwrap();
        assert_eq!(entries.len(), 2);
        assert!(entries.iter().all(|(_, content)| content.is_empty()));
    }
}

#[test]
fn all_sparse_formats_give_the_same_file() {
    let expected = [&b"\0\0ab"[..], &[0; 6], b"c", &[0; 4]].concat();
    let stored = padded(b"abc");
    let old = Block::new(b"s", b'S', 3).gnu().with(386, b"00000000002\x0000000000002\x00");
    let old = old.with(410, b"00000000012\x0000000000001\x00").with(483, b"00000000017\0").bytes();
    let named = record("GNU.sparse.name=s") + &record("GNU.sparse.size=15");
    let pairs = record("GNU.sparse.offset=2") + &record("GNU.sparse.numbytes=2");
    let pairs = pairs + &record("GNU.sparse.offset=10") + &record("GNU.sparse.numbytes=1");
    let count = record("GNU.sparse.numblocks=2");
    let in_records = pax(b'x', &(named.clone() + &count + &pairs));
    let in_one_record = pax(b'x', &(named.clone() + &count + &record("GNU.sparse.map=2,2,10,1")));
    let in_data = pax(b'x', &(record("GNU.sparse.major=1") + &record("GNU.sparse.minor=0") + &named));
    let plain = |size| Block::new(b"GNUSparseFile.0/s", b'0', size).ustar().bytes();
    for tar in [
        vec![old, stored.clone()],
        vec![in_records, plain(3), stored.clone()],
        vec![in_one_record, plain(3), stored.clone()],
        vec![in_data, plain(512 + 3), padded(b"2\n2\n2\n10\n1\n"), stored],
    ] {
        let (entry, content) = read_one(&tar);
        assert_eq!((entry.path.as_slice(), entry.size), (&b"s"[..], 15));
        assert_eq!(content, expected);
    }
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    for (size, data) in [(2, "less"), (4, "more")] {
        let old = Block::new(b"s", b'S', size).gnu().with(386, b"00000000002\x0000000000003\x00");
        let tar = [old.with(483, b"00000000017\0").bytes(), padded(b"abcd")];
        assert!(matches!(refusal(&tar), TarError::Sparse(_)), "{data} data than the map says");
    }
    assert!(matches!(refusal(&[Block::new(b"s", b'S', 0).ustar().bytes()]), TarError::Sparse(_)));
}

#[test]
fn ends_that_the_reference_takes() {
    let file = || [Block::new(b"f", b'0', 3).bytes(), padded(b"abc")].concat();
    let zeros = |blocks: usize| vec![0; blocks * TAR_BLOCK];
    let mut cut = file();
    cut.truncate(TAR_BLOCK + 100);
    for tar in [vec![file()], vec![file(), zeros(1)], vec![file(), zeros(2), b"anything".to_vec()], vec![cut]] {
        assert_eq!(read(&tar).unwrap().len(), 1);
    }
    assert_eq!(read(&[]).unwrap().len(), 0);
    assert_eq!(read(&[pax(b'x', &record("path=p"))]).unwrap().len(), 0);
}

#[test]
fn damage_is_named() {
    let file = || Block::new(b"f", b'0', 3).bytes();
    let mut flipped = file();
    flipped[3] ^= 1;
    assert!(matches!(refusal(&[flipped]), TarError::Checksum));
    assert!(matches!(refusal(&[file()]), TarError::Truncated));
    assert!(matches!(refusal(&[file()[..100].to_vec()]), TarError::Truncated));
    assert!(matches!(refusal(&[vec![0; 512], file()]), TarError::LoneZeroBlock));
    assert!(matches!(
        refusal(&[Block::new(b"f", b'x', 1 << 21).bytes()]),
        TarError::SpecialTooLong { bytes: 0x20_0000 }
    ));
    let negative = Block::new(b"f", b'0', 0).with(124, &[0xff; 12]).bytes();
    assert!(matches!(refusal(&[negative]), TarError::Size(-1)));
    let word = Block::new(b"f", b'0', 0).with(100, b"rwxr-xr").bytes();
    assert!(matches!(refusal(&[word]), TarError::Number { field: "mode", .. }));
    assert!(matches!(refusal(&[pax(b'x', &record("uid=x")), file()]), TarError::Pax(_)));
    assert!(matches!(refusal(&[pax(b'x', "9 uid")]), TarError::Pax(_)));
}
