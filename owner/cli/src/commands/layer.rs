//! `caveau layer`: convert single layers.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    num::NonZeroUsize,
    path::Path,
    thread::available_parallelism,
};

use anyhow::{Context as _, Result, bail};
use caveau_layer::{LayerSummary, Limits, convert, hash};
use caveau_registry::{FileImage, unpacked};

use crate::{args, exit::Outcome, files, ui, units};

/// Runs it.
///
/// # Errors
/// Where a tar cannot be converted; of several, after all others have been.
pub(crate) fn run(command: &args::Layer, json: bool, quiet: bool) -> Result<Outcome> {
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    match command {
        args::Layer::Hash { tars } => {
            let mut failed = 0;
            for tar in tars {
                match hash_whole(tar, threads) {
                    Ok(layer) if json => {
                        ui::line(serde_json::json!({ "root": layer.root, "tar": tar.to_string_lossy() }))?;
                    }
                    Ok(layer) => ui::line(format_args!("{}\t{}", layer.root, tar.display()))?,
                    Err(error) if tars.len() == 1 => return Err(error),
                    Err(error) => {
                        failed += 1;
                        ui::note(false, &format!("{error:#}"));
                    }
                }
            }
            if failed > 0 {
                bail!("{failed} of {} layers failed", tars.len());
            }
        }
        args::Layer::Build { tar, output } => {
            let summary = build(tar, output, threads)?;
            let geometry = summary.geometry;
            if json {
                ui::json(&serde_json::json!({
                    "root": summary.root, "entries": summary.entries, "data_bytes": geometry.data_bytes(),
                    "file_bytes": geometry.device_bytes(),
                }))?;
            } else {
                ui::line(format_args!("{}\t{}", summary.root, output.display()))?;
                ui::note(quiet, &format!("{} entries, {}", summary.entries, units::human(geometry.device_bytes())));
            }
        }
    }
    Ok(Outcome::Done)
}

/// Hashes a tar that is good to its last byte.
fn hash_whole(tar: &Path, threads: NonZeroUsize) -> Result<LayerSummary> {
    let mut source = open(tar)?;
    let summary = hash(&mut source, &Limits::default(), threads).with_context(|| failure(tar))?;
    read_rest(source, tar)?;
    Ok(summary)
}

/// Converts a tar into an image file, which is whole or not there.
fn build(tar: &Path, output: &Path, threads: NonZeroUsize) -> Result<LayerSummary> {
    let mut source = open(tar)?;
    let temporary = files::begin(output)?;
    let image = FileImage(temporary.as_file());
    let summary = convert(&mut source, &image, &Limits::default(), threads).with_context(|| failure(tar))?;
    read_rest(source, tar)?;
    files::finish(temporary, output)?;
    Ok(summary)
}

/// Reads what follows the tar's end mark: checksums come last.
fn read_rest(mut source: impl Read, tar: &Path) -> Result<()> {
    io::copy(&mut source, &mut io::sink()).with_context(|| format!("failed to read {}", tar.display()))?;
    Ok(())
}

fn failure(tar: &Path) -> String {
    format!("failed to convert {}", tar.display())
}

/// Opens a layer's tar, unpacked.
fn open(path: &Path) -> Result<impl Read + use<>> {
    let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    unpacked(BufReader::with_capacity(1 << 20, file)).with_context(|| format!("failed to read {}", path.display()))
}
