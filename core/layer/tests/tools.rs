//! Random trees through the `tar` crate, whose images the system's own tools must accept.
#![expect(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod common;

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
};

use caveau_layer::{Limits, MemoryImage, convert};
use caveau_verity::{BlockSource, verify_device};
use common::{THREADS, accepted, tool};
use proptest::prelude::*;

/// A file to be verified.
struct FileSource(fs::File);

impl BlockSource for FileSource {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

/// One entry of a random tree. Paths are of few names, so entries meet one another.
#[derive(Debug, Clone)]
enum Piece {
    Attribute(u8, Vec<u8>),
    Directory(Vec<u8>, u32),
    File(Vec<u8>, usize, u64),
    HardLink(Vec<u8>, Vec<u8>),
    Opaque(Vec<u8>),
    Symlink(Vec<u8>, usize),
    Whiteout(Vec<u8>),
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0_u8..12, 1..4)
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        2 => (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..400)).prop_map(|(name, value)| Piece::Attribute(name, value)),
        3 => (path(), 0..0o10000_u32).prop_map(|(path, mode)| Piece::Directory(path, mode)),
        6 => (path(), prop_oneof![0_usize..5000, 0_usize..200_000], any::<u64>()).prop_map(|(path, size, id)| Piece::File(path, size, id)),
        1 => (path(), path()).prop_map(|(path, to)| Piece::HardLink(path, to)),
        1 => path().prop_map(Piece::Opaque),
        2 => (path(), 0_usize..200).prop_map(|(path, length)| Piece::Symlink(path, length)),
        1 => path().prop_map(Piece::Whiteout),
    ]
}

/// Files have an ending that directories do not have, so that most trees are free of contradictions; what contradicts
/// still is left out.
fn build(pieces: &[Piece]) -> Vec<u8> {
    let name = |path: &[u8]| path.iter().map(|name| format!("n{name}")).collect::<Vec<_>>().join("/");
    let (mut builder, mut taken) = (tar::Builder::new(Vec::new()), std::collections::BTreeSet::new());
    let mut attributes = Vec::new();
    for piece in pieces {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1_700_000_000);
        header.set_size(0);
        let path = match piece {
            Piece::Attribute(name, value) => {
                attributes.push((format!("SCHILY.xattr.user.a{name}"), value.clone()));
                continue;
            }
            Piece::Directory(path, _) => name(path),
            Piece::File(path, ..) | Piece::Symlink(path, _) | Piece::HardLink(path, _) => name(path) + ".f",
            Piece::Opaque(path) => name(path) + "/.wh..wh..opq",
            Piece::Whiteout(path) => format!("{}/.wh.gone{}", name(path), path.len()),
        };
        if !matches!(piece, Piece::Directory(..) | Piece::Opaque(_)) && !taken.insert(path.clone()) {
            continue;
        }
        let records = std::mem::take(&mut attributes);
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        if !matches!(piece, Piece::HardLink(..)) {
            builder.append_pax_extensions(records).unwrap();
        }
        match piece {
            Piece::Attribute(..) => {}
            Piece::Directory(_, mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                builder.append_data(&mut header, &path, &[][..]).unwrap();
            }
            Piece::File(_, size, id) => {
                header.set_mode(0o644);
                header.set_uid(id & 0xffff);
                header.set_size(*size as u64);
                let data: Vec<u8> = id.to_le_bytes().into_iter().cycle().take(*size).collect();
                builder.append_data(&mut header, &path, data.as_slice()).unwrap();
            }
            Piece::HardLink(_, to) => {
                let target = name(to) + ".f";
                if !taken.contains(&target) || target == path {
                    taken.remove(&path);
                    continue;
                }
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, &path, target).unwrap();
            }
            Piece::Opaque(_) | Piece::Whiteout(_) => builder.append_data(&mut header, &path, &[][..]).unwrap(),
            Piece::Symlink(_, length) => {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, &path, "t".repeat(*length + 1)).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tools_accept_random_trees(pieces in proptest::collection::vec(piece(), 0..80)) {
        let tar = build(&pieces);
        let images = [(), ()].map(|()| {
            let sink = MemoryImage::default();
            let result = convert(tar.as_slice(), &sink, &Limits::default(), THREADS);
            result.map(|summary| (summary, sink.into_bytes()))
        });
        let [Ok(first), Ok(second)] = images else {
            // A few contradictions are left, and attributes that do not fit: errors, the same twice.
            let [first, second] = images.map(|image| image.map(drop).map_err(|error| error.to_string()));
            prop_assert_eq!(first, second);
            return Ok(());
        };
        prop_assert!(first == second, "the same tar gave two images");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&first.1).unwrap();
        accepted(file.path(), &first.0.root.to_string(), first.0.geometry.data_bytes());
    }
}

#[test]
fn tools_accept_every_shape_of_extents_and_groups() {
    for (name, size) in [("four", 512 << 20), ("five", (512 << 20) + 1), ("groups", 2200_u64 << 20)] {
        let mut tar = common::TarBuilder::default();
        let size_text = size.to_string();
        let records = [("GNU.sparse.major", "0"), ("GNU.sparse.minor", "1"), ("GNU.sparse.numblocks", "0")];
        tar.pax(&[records.as_slice(), &[("GNU.sparse.size", &size_text)]].concat()).file("sparse", b"");
        for number in 0..50 {
            tar.file(&format!("after{number}"), name.as_bytes());
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let sink = common::FileSink(file.reopen().unwrap());
        let summary = convert(tar.finish().as_slice(), &sink, &Limits::default(), THREADS).unwrap();
        // Over 2 GiB part of the tree was put down elsewhere and moved to its place.
        let device = FileSource(sink.0);
        verify_device(&device, summary.geometry.device_bytes(), &summary.root, THREADS).unwrap();
        let Some(mut e2fsck) = tool("e2fsck") else { return };
        let text = String::from_utf8(e2fsck.arg("-fn").arg(file.path()).output().unwrap().stdout).unwrap();
        let complaints = text.lines().filter(|line| line.contains('?') && !line.starts_with("Padding at end of inode"));
        assert_eq!(complaints.count(), 0, "{name}: {text}");
        assert!(text.contains("Pass 5"), "{name}: {text}");
        assert_eq!(fs::metadata(file.path()).unwrap().len(), summary.geometry.device_bytes());
    }
}
