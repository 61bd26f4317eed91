//! `caveau layer`: convert single layers.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write as _},
    num::NonZeroUsize,
    path::Path,
    thread::available_parallelism,
};

use anyhow::{Context as _, Result};
use caveau_layer::{LayerSummary, Limits, convert, hash};
use caveau_registry::{FileImage, unpacked};

use crate::{args, exit::Outcome, ui, units};

/// Runs it.
///
/// # Errors
/// The first tar that cannot be converted; those before it have been printed.
pub(crate) fn run(command: &args::Layer, json: bool, quiet: bool) -> Result<Outcome> {
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    match command {
        args::Layer::Hash { tars } => {
            for tar in tars {
                let summary = hash(open(tar)?, &Limits::default(), threads).with_context(|| failure(tar))?;
                if json {
                    println!("{}", serde_json::json!({ "root": summary.root, "tar": tar }));
                } else {
                    writeln!(io::stdout().lock(), "{}\t{}", summary.root, tar.display())?;
                }
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
                println!("{}\t{}", summary.root, output.display());
                ui::note(quiet, &format!("{} entries, {}", summary.entries, units::human(geometry.device_bytes())));
            }
        }
    }
    Ok(Outcome::Done)
}

/// Converts a tar into an image file, which is whole or not there.
fn build(tar: &Path, output: &Path, threads: NonZeroUsize) -> Result<LayerSummary> {
    let source = open(tar)?;
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("failed to write {}", output.display());
    let temporary = tempfile::Builder::new().prefix(".layer-").tempfile_in(folder).with_context(failed)?;
    let summary =
        convert(source, &FileImage(temporary.as_file()), &Limits::default(), threads).with_context(|| failure(tar))?;
    temporary.as_file().sync_all().with_context(failed)?;
    temporary.persist(output).with_context(failed)?;
    Ok(summary)
}

fn failure(tar: &Path) -> String {
    format!("failed to convert {}", tar.display())
}

/// Opens a layer's tar, unpacked.
fn open(path: &Path) -> Result<impl Read + use<>> {
    let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    unpacked(BufReader::with_capacity(1 << 20, file)).with_context(|| format!("failed to read {}", path.display()))
}
