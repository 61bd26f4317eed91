//! Trees and superblocks against cryptsetup's `veritysetup`, in both directions.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic: that is how it fails")]

use std::{fs, num::NonZeroUsize, path::Path, process::Command};

use caveau_verity::{BLOCK_BYTES, HashTree, Superblock, verify_device};

const THREADS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// One block; one level; its edges; two levels and an odd rest; three levels.
const SIZES: [usize; 7] = [1, 2, 127, 128, 129, 1000, 128 * 128 + 5];

fn data(blocks: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ blocks as u64;
    let step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()
    };
    std::iter::repeat_with(step).take(blocks * BLOCK_BYTES / 8).flatten().collect()
}

/// Where the tool is absent this says so: the set-up installs it.
fn veritysetup() -> Option<Command> {
    let found = ["/usr/sbin/veritysetup", "/sbin/veritysetup"].into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        println!("skipped: no veritysetup");
    }
    found.map(Command::new)
}

#[test]
fn veritysetup_makes_the_same_tree_and_root() {
    let folder = tempfile::tempdir().unwrap();
    let (data_path, hash_path) = (folder.path().join("data"), folder.path().join("hash"));
    for blocks in SIZES {
        let Some(mut tool) = veritysetup() else { return };
        let data = data(blocks);
        fs::write(&data_path, &data).unwrap();
        let output = tool.arg("format").arg(format!("--salt={}", "00".repeat(32))).arg(&data_path).arg(&hash_path);
        let output = String::from_utf8(output.output().unwrap().stdout).unwrap();
        let tree = HashTree::of_source(data.as_slice(), data.len() as u64, THREADS).unwrap();
        let root = tree.root().to_string();
        assert!(output.lines().any(|line| line.starts_with("Root hash:") && line.ends_with(&root)), "{output} {root}");
        let theirs = fs::read(&hash_path).unwrap();
        let mut ours = Vec::new();
        tree.write_to(&mut ours).unwrap();
        assert_eq!(Superblock::parse(&theirs[..512]).unwrap().geometry(), tree.geometry());
        assert!(theirs.get(BLOCK_BYTES..).unwrap_or_default() == &ours[BLOCK_BYTES..], "trees over {blocks} blocks");
        let whole = [data, theirs].concat();
        // The tool stops writing after the 512 bytes of superblock where no tree follows.
        if blocks > 1 {
            verify_device(whole.as_slice(), whole.len() as u64, &tree.root(), THREADS).unwrap();
        }
        fs::remove_file(&hash_path).unwrap();
    }
}

#[test]
fn veritysetup_accepts_devices() {
    let folder = tempfile::tempdir().unwrap();
    let device = folder.path().join("device");
    for blocks in SIZES {
        let Some(mut tool) = veritysetup() else { return };
        let mut bytes = data(blocks);
        let tree = HashTree::of_reader(bytes.as_slice(), THREADS).unwrap();
        tree.write_to(&mut bytes).unwrap();
        fs::write(&device, &bytes).unwrap();
        let offset = format!("--hash-offset={}", tree.geometry().data_bytes());
        let status = tool.arg("verify").arg(&device).arg(&device).arg(tree.root().to_string()).arg(offset);
        assert!(status.status().unwrap().success(), "{blocks} blocks");
    }
}
