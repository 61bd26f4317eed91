//! The hash tree of a file of random bytes, against `veritysetup format`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use caveau_verity::{BlockSource, HashTree};

use super::{
    Bed,
    anchors::{SALT, root_hash, system_path},
    measure::{Pairs, timed},
    report::Report,
};

/// Bytes of the file.
const DATA_BYTES: u64 = 1 << 30;

/// Threads of ours.
const THREADS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// How many times as fast as `veritysetup` ours has to be.
const BAR: f64 = 5.0;

/// Largest resident memory of ours that is aimed at.
const MEMORY_AIM: u64 = 16 << 20;

struct OpenFile(File);

impl BlockSource for OpenFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

/// Hashes a file, writes superblock and tree, prints the root.
///
/// # Errors
/// Where the file is no whole blocks, or reading or writing fails.
pub(super) fn hash_tree(data: &Path, tree: &Path) -> Result<()> {
    let source = OpenFile(File::open(data).with_context(|| format!("failed to open {}", data.display()))?);
    let bytes = source.0.metadata()?.len();
    let made = HashTree::of_source(&source, bytes, THREADS)?;
    let mut out = BufWriter::with_capacity(1 << 20, File::create(tree)?);
    made.write_to(&mut out)?;
    out.flush()?;
    println!("{}", made.root());
    Ok(())
}

/// The bench.
///
/// # Errors
/// Where either cannot be run, or the roots differ.
pub(super) fn bench(bed: &Bed<'_>) -> Result<Report> {
    let data = bed.work.join("data");
    io::copy(&mut File::open("/dev/urandom")?.take(DATA_BYTES), &mut File::create(&data)?)?;
    let (our_tree, their_tree) = (bed.work.join("ours"), bed.work.join("anchor"));
    let program = std::env::current_exe()?;
    let (mut our_root, mut their_root) = (String::new(), String::new());
    let pairs = Pairs::take(
        bed.pairs,
        || {
            remove(&our_tree)?;
            let mut command = Command::new(&program);
            let (sample, output) = timed(command.args(["bench", "--hash-tree"]).arg(&data).arg(&our_tree))?;
            output.trim().clone_into(&mut our_root);
            Ok(sample)
        },
        || {
            remove(&their_tree)?;
            let mut command = Command::new("veritysetup");
            command.env("PATH", system_path()).args(["format", SALT]).arg(&data).arg(&their_tree);
            let (sample, output) = timed(&mut command).context("install cryptsetup-bin")?;
            their_root = root_hash(&output)?;
            Ok(sample)
        },
    )?;
    ensure!(our_root == their_root, "the roots differ: ours {our_root}, veritysetup's {their_root}");
    let mut report = Report::new("hash", "hash tree of 1 GiB on 2 threads", "veritysetup format");
    let peak = pairs.ours.iter().map(|sample| sample.peak).max().unwrap_or_default();
    report.pairs(pairs);
    report.bar_ratio(BAR);
    report.aim(
        "peak memory at most 16 MiB",
        format!("{:.1} MiB", peak as f64 / f64::from(1 << 20)),
        peak <= MEMORY_AIM,
    );
    report.fact("root", our_root);
    Ok(report)
}

/// Each run creates its output: the first touch of memory is part of the work of both.
pub(super) fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
