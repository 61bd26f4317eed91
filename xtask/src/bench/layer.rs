//! From `layer.tar.gz` to an image with its root, against the best chain of tools that packages give.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{
    Bed,
    anchors::{Debian13, SALT, rapidgzip, root_hash, system_path},
    hash::remove,
    layer_input::{Layer, gzip, many, parts, realistic, zstd3},
    measure::{Pairs, Sample, timed},
    report::Report,
};
use crate::process::output;

/// How many times as fast as the best chain ours has to be.
const BAR: f64 = 2.5;

/// Most resident memory apart from metadata.
const BASE_BYTES: u64 = 64 << 20;

/// Most resident memory for each entry of a layer.
const ENTRY_BYTES: u64 = 256;

/// Layers of small files between which the growth for each entry is measured.
const FEW: u64 = 10_000;
const MANY: u64 = 200_000;

/// Layers of an image of several.
const LAYERS: u64 = 8;

/// Bytes in a block.
const BLOCK: u64 = 4096;

/// The bench.
///
/// # Errors
/// Where something cannot be run, or `veritysetup` finds another root than ours.
pub(super) fn bench(bed: &Bed<'_>) -> Result<Report> {
    let debian = Debian13::prepare(bed.root)?;
    let layer = realistic(debian.path(), &bed.work.join("layer.tar"))?;
    let packed = gzip(&layer.tar)?;
    remove(&layer.tar)?;
    let chains = chains(bed, &debian, &packed)?;
    let (chain, tried) = fastest(&chains)?;
    let image = bed.work.join("ours.img");
    let mut root = String::new();
    let pairs = Pairs::take(
        bed.pairs,
        || {
            let (sample, found) = build(bed, &packed, &image)?;
            ensure!(root.is_empty() || root == found, "two runs gave the roots {root} and {found}");
            root = found;
            Ok(sample)
        },
        || run_chain(chain),
    )?;
    check_root(&image, &root)?;
    let mut report = Report::new("layer", "caveau layer build", format!("{} | mkfs.erofs, veritysetup", chain.name));
    let peak = pairs.ours.iter().map(|sample| sample.peak).max().unwrap_or_default();
    report.pairs(pairs);
    report.bar_ratio(BAR);
    memory_bar(&mut report, "the layer", peak, layer.entries);
    let packed_bytes = std::fs::metadata(&packed)?.len();
    let sizes = format!("{:.1} MB, {} entries, packed {:.1} MB", mb(layer.tar_bytes), layer.entries, mb(packed_bytes));
    report.fact("layer", sizes);
    report.fact("chains tried", tried);
    report.fact("root", root);
    remove(&image)?;
    remove(&packed)?;
    other_packing(bed, &debian, &mut report)?;
    eight_layers(bed, &debian, chain.name, &mut report)?;
    memory_of_entries(bed, &mut report)?;
    Ok(report)
}

/// The same layer packed by zstd -3, as a fact.
fn other_packing(bed: &Bed<'_>, debian: &Debian13, report: &mut Report) -> Result<()> {
    let layer = realistic(debian.path(), &bed.work.join("layer.tar"))?;
    let zstd = debian.words("zstd")?;
    let packed = zstd3(&zstd, &layer.tar)?;
    remove(&layer.tar)?;
    let chain =
        chain(bed, debian, "zstd", &format!("{} -d -c {}", words(&zstd), quoted(&packed.display().to_string())))?;
    let image = bed.work.join("ours.img");
    let pairs = Pairs::take(bed.pairs, || Ok(build(bed, &packed, &image)?.0), || run_chain(&chain))?;
    report.compared("the same packed by zstd -3, against zstd | mkfs.erofs, veritysetup", &pairs);
    remove(&image)?;
    remove(&packed)
}

/// Layers of an image, each to a root hash: ours one after the other in one run, and so the chain's.
fn eight_layers(bed: &Bed<'_>, debian: &Debian13, unpacker: &'static str, report: &mut Report) -> Result<()> {
    let mut packed = Vec::new();
    for layer in parts(debian.path(), LAYERS, &bed.work)? {
        packed.push(gzip(&layer.tar)?);
        remove(&layer.tar)?;
    }
    let chains =
        packed.iter().map(|packed| unpacking_chain(bed, debian, unpacker, packed)).collect::<Result<Vec<_>>>()?;
    let chain = Chain {
        name: unpacker,
        script: chains.iter().map(|chain| format!("( {} )", chain.script)).collect::<Vec<_>>().join("; "),
        work: bed.work.clone(),
    };
    let image = bed.work.join("ours.img");
    let pairs = Pairs::take(
        bed.pairs,
        || {
            let samples = packed.iter().map(|packed| Ok(build(bed, packed, &image)?.0)).collect::<Result<Vec<_>>>()?;
            Ok(Sample::one_after_the_other(&samples))
        },
        || run_chain(&chain),
    )?;
    report.compared(format!("{LAYERS} layers one after the other, against the same chain"), &pairs);
    remove(&image)?;
    packed.iter().try_for_each(|packed| remove(packed))
}

/// Converts; gives what it took and the root.
fn build(bed: &Bed<'_>, tar: &Path, image: &Path) -> Result<(Sample, String)> {
    remove(image)?;
    let mut command = Command::new(&bed.caveau);
    let (sample, text) = timed(command.args(["--quiet", "layer", "build"]).arg(tar).arg("-o").arg(image))?;
    let root = text.split_whitespace().next().context("caveau printed no root")?;
    Ok((sample, root.to_owned()))
}

/// `veritysetup` must find our root: in the image as it is, and anew over its data.
fn check_root(image: &Path, root: &str) -> Result<()> {
    let device = std::fs::File::open(image)?;
    let blocks = data_blocks(&device)?;
    let offset = format!("--hash-offset={}", blocks * BLOCK);
    let verity = || {
        let mut command = Command::new("veritysetup");
        command.env("PATH", system_path());
        command
    };
    output(verity().arg("verify").arg(image).arg(image).arg(root).arg(offset))?;
    let tree = image.with_extension("tree");
    let count = format!("--data-blocks={blocks}");
    let made = output(verity().args(["format", SALT, &count]).arg(image).arg(&tree))?;
    remove(&tree)?;
    let theirs = root_hash(&made)?;
    ensure!(theirs == root, "the roots differ: ours {root}, veritysetup's {theirs}");
    Ok(())
}

/// Blocks of data in an image.
fn data_blocks(device: &std::fs::File) -> Result<u64> {
    use std::os::unix::fs::FileExt as _;
    // The ext4 superblock lies at 1024; the count of blocks is its second word (kernel documentation, ext4 super block).
    let mut word = [0; 4];
    device.read_exact_at(&mut word, 1024 + 4)?;
    Ok(u64::from(u32::from_le_bytes(word)))
}

/// Memory for each entry, from layers with few and many.
fn memory_of_entries(bed: &Bed<'_>, report: &mut Report) -> Result<()> {
    let mut peaks = Vec::new();
    for count in [FEW, MANY] {
        let Layer { tar, entries, .. } = many(count, &bed.work.join("many.tar"))?;
        let image = bed.work.join("many.img");
        let (sample, _) = build(bed, &tar, &image)?;
        remove(&tar)?;
        remove(&image)?;
        memory_bar(report, &format!("{count} small files"), sample.peak, entries);
        peaks.push((entries, sample.peak));
    }
    if let [(few, low), (many, high)] = peaks[..] {
        let slope = high.saturating_sub(low) as f64 / (many - few) as f64;
        report.fact("memory for each further entry", format!("{slope:.0} bytes"));
    }
    Ok(())
}

fn memory_bar(report: &mut Report, what: &str, peak: u64, entries: u64) {
    let allowed = BASE_BYTES + ENTRY_BYTES * entries;
    let goal = format!("peak memory with {what} at most 64 MiB + {ENTRY_BYTES} bytes an entry ({})", mib(allowed));
    report.bar(goal, mib(peak), peak <= allowed);
}

/// One way to make an image and its tree with tools.
struct Chain {
    name: &'static str,
    /// A shell command, run in the work folder.
    script: String,
    work: PathBuf,
}

/// Programs that unpack gzip.
const UNPACKERS: [&str; 2] = ["igzip", "rapidgzip"];

/// The chains that can be had here.
fn chains(bed: &Bed<'_>, debian: &Debian13, packed: &Path) -> Result<Vec<Chain>> {
    UNPACKERS.iter().map(|name| unpacking_chain(bed, debian, name, packed)).collect()
}

/// The chain that begins with this one of [`UNPACKERS`].
fn unpacking_chain(bed: &Bed<'_>, debian: &Debian13, name: &'static str, packed: &Path) -> Result<Chain> {
    let packed = quoted(&packed.display().to_string());
    let unpack = match name {
        "rapidgzip" => format!("{} -P 2 -d -c {packed}", quoted(&rapidgzip(bed.root)?.display().to_string())),
        _ => format!("{} -d -c {packed}", words(&debian.words(name)?)),
    };
    chain(bed, debian, name, &unpack)
}

/// The chain that begins with the command `unpack`.
fn chain(bed: &Bed<'_>, debian: &Debian13, name: &'static str, unpack: &str) -> Result<Chain> {
    let erofs = words(&debian.words("mkfs.erofs")?);
    let verity = words(&debian.words("veritysetup")?);
    let script = format!(
        "set -e; rm -f chain.img chain.tree; {unpack} | {erofs} --quiet --tar=f chain.img >&2; \
         {verity} format {SALT} chain.img chain.tree"
    );
    Ok(Chain { name, script, work: bed.work.clone() })
}

/// The fastest of them by two runs each, and what all took.
fn fastest(chains: &[Chain]) -> Result<(&Chain, String)> {
    let mut best: Option<(&Chain, f64)> = None;
    let mut tried = Vec::new();
    for chain in chains {
        let wall = run_chain(chain)?.wall.min(run_chain(chain)?.wall);
        tried.push(format!("{} {wall:.2} s", chain.name));
        if best.is_none_or(|(_, least)| wall < least) {
            best = Some((chain, wall));
        }
    }
    Ok((best.context("no chain")?.0, tried.join(", ")))
}

fn run_chain(chain: &Chain) -> Result<Sample> {
    let mut command = Command::new("bash");
    let (sample, text) = timed(command.args(["-o", "pipefail", "-c", &chain.script]).current_dir(&chain.work))?;
    root_hash(&text)?;
    Ok(sample)
}

fn words(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
