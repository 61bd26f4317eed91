//! Layers: tars from anyone, superblocks and whole devices from the host.

use std::num::NonZeroUsize;

use caveau_layer::{Limits, MemoryImage, convert, hash};
use caveau_verity::{BLOCK_BYTES, HashTree, Superblock, verify_device};

use crate::Target;

const ONE: NonZeroUsize = NonZeroUsize::MIN;
/// Enough for every structure of a file system, little enough for memory.
const LIMITS: Limits = Limits { image_bytes: 16 << 20, entries: 1000, attribute_bytes: 1 << 20 };

/// A tar becomes the same image each time, one that its root hash holds for.
pub(crate) const LAYER_TAR: Target =
    Target { name: "layer_tar", run: layer_tar, seeds: tars, fixtures: &[], rounds: 200 };

/// What is accepted says the same when written.
pub(crate) const SUPERBLOCK: Target =
    Target { name: "superblock", run: superblock, seeds: superblocks, fixtures: &[], rounds: 2000 };

/// A device verifies only as the one that its root hash is of.
pub(crate) const VERITY_DEVICE: Target =
    Target { name: "verity_device", run: verity_device, seeds: devices, fixtures: &[], rounds: 500 };

fn layer_tar(data: &[u8]) {
    convert_checked(data);
    // A changed header mostly fails at its checksum; behind it is where the parser is.
    let repaired = repaired(data);
    if repaired != data {
        convert_checked(&repaired);
    }
}

fn convert_checked(tar: &[u8]) {
    let image = MemoryImage::default();
    let converted = convert(tar, &image, &LIMITS, ONE);
    let hashed = hash(tar, &LIMITS, ONE);
    match (converted, hashed) {
        (Ok(summary), hashed) => {
            assert_eq!(Some(summary), hashed.ok(), "hashing alone gives another result");
            let device = image.into_bytes();
            let geometry = verify_device(device.as_slice(), device.len() as u64, &summary.root, ONE)
                .expect("the image verifies against its own root");
            assert_eq!(geometry, summary.geometry);
        }
        (Err(_), hashed) => assert!(hashed.is_err(), "hashing alone accepts what converting refuses"),
    }
}

/// A tar with right checksums in what looks like headers, from the start on.
pub(crate) fn repaired(data: &[u8]) -> Vec<u8> {
    let mut tar = data.to_vec();
    let mut offset = 0_usize;
    while let Some(header) = offset.checked_add(512).and_then(|end| tar.get_mut(offset..end)) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&header[124..136]).unwrap_or_default().trim_matches(['\0', ' ']);
        let size = usize::from_str_radix(size, 8).unwrap_or_default();
        offset = offset.saturating_add(512).saturating_add(size.div_ceil(512).saturating_mul(512));
    }
    tar
}

/// Tars with each kind of entry that layers have.
pub(crate) fn tars() -> Vec<Vec<u8>> {
    let mut all = tar::Builder::new(Vec::new());
    add(&mut all, tar::EntryType::Directory, "etc/", b"", None);
    add(&mut all, tar::EntryType::Regular, "etc/passwd", b"root:x:0:0::/:/bin/sh\n", None);
    add(&mut all, tar::EntryType::Regular, "etc/block", &[7; 5000], None);
    add(&mut all, tar::EntryType::Symlink, "etc/short", b"", Some("passwd"));
    add(&mut all, tar::EntryType::Link, "etc/hard", b"", Some("etc/passwd"));
    add(&mut all, tar::EntryType::Char, "dev/null", b"", None);
    add(&mut all, tar::EntryType::Fifo, "run/fifo", b"", None);
    add(&mut all, tar::EntryType::Regular, "etc/.wh.gone", b"", None);
    add(&mut all, tar::EntryType::Regular, "opt/.wh..wh..opq", b"", None);
    let mut extended = tar::Builder::new(Vec::new());
    let attributes = [
        ("path", "usr/bin/a-name-of-more-than-one-hundred-bytes".repeat(4)),
        ("mtime", "1700000000.123456789".to_owned()),
        ("SCHILY.xattr.user.caveau", "value".to_owned()),
        ("uid", "3000000".to_owned()),
    ];
    let attributes = attributes.iter().map(|(key, value)| (*key, value.as_bytes()));
    extended.append_pax_extensions(attributes).expect("memory takes it");
    add(&mut extended, tar::EntryType::Regular, "short", b"content", None);
    let mut long = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o755);
    long.append_data(&mut header, "deep/".repeat(40) + "file", b"abc".as_slice()).expect("memory takes it");
    [all, extended, long].into_iter().map(|tar| tar.into_inner().expect("memory takes it")).collect()
}

pub(crate) fn add(
    tar: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    path: &str,
    content: &[u8],
    link: Option<&str>,
) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_path(path).expect("the path is short");
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    header.set_device_major(1).and_then(|()| header.set_device_minor(3)).expect("a ustar header has devices");
    if let Some(link) = link {
        header.set_link_name(link).expect("the link is short");
    }
    header.set_cksum();
    tar.append(&header, content).expect("memory takes it");
}

fn superblock(data: &[u8]) {
    if let Ok(superblock) = Superblock::parse(data) {
        assert_eq!(Superblock::parse(&superblock.to_block()), Ok(superblock));
    }
}

/// A layer's devices: image, superblock, tree.
fn layers() -> Vec<Vec<u8>> {
    let made = tars().into_iter().map(|tar| {
        let image = MemoryImage::default();
        convert(tar.as_slice(), &image, &LIMITS, ONE).expect("a seed is a layer");
        image.into_bytes()
    });
    made.collect()
}

fn superblocks() -> Vec<Vec<u8>> {
    let single = HashTree::of_reader([5; BLOCK_BYTES].as_slice(), ONE).expect("one block");
    let own = Superblock::new(single.geometry(), &single.root()).to_block().to_vec();
    let of_layers = layers().into_iter().filter_map(|device| {
        let parsed = device.chunks_exact(BLOCK_BYTES).find(|block| Superblock::parse(block).is_ok());
        parsed.map(<[u8]>::to_vec)
    });
    of_layers.chain([own]).collect()
}

fn verity_device(data: &[u8]) {
    let Some((root, device)) = data.split_first_chunk::<64>() else { return };
    let Some(root) = std::str::from_utf8(root).ok().and_then(|root| root.parse().ok()) else { return };
    if let Ok(geometry) = verify_device(device, device.len() as u64, &root, ONE) {
        let image = device.get(..geometry.data_bytes() as usize).expect("a verified device holds its data");
        let tree = HashTree::of_reader(image, ONE).expect("verified data has a tree");
        assert_eq!(tree.root(), root, "a device verified against a root hash that is not its own");
    }
}

/// Root hash in hexadecimal, then the device; small ones, so that changes meet structure.
fn devices() -> Vec<Vec<u8>> {
    let made = [1_usize, 3, 200].map(|blocks| {
        let data: Vec<u8> = (0..blocks * BLOCK_BYTES).map(|index| (index / 7) as u8).collect();
        let tree = HashTree::of_reader(data.as_slice(), ONE).expect("whole blocks");
        let mut device = tree.root().to_string().into_bytes();
        device.extend_from_slice(&data);
        tree.write_to(&mut device).expect("memory takes it");
        device
    });
    made.into()
}
