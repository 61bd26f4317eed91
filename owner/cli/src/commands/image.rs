//! `caveau image`: images and their converted layers.

use anyhow::Result;
use caveau_registry::{Removed, Store};
use serde_json::json;

use crate::{args, exit::Outcome, fetch, ui, units};

/// Runs it.
///
/// # Errors
/// Where an image cannot be had, or the store cannot be used.
pub(crate) fn run(command: &args::Image, json: bool, quiet: bool) -> Result<Outcome> {
    match command {
        args::Image::Pull(source) => {
            let image = fetch::image(source, quiet)?;
            if json {
                let layers: Vec<_> = image
                    .layers
                    .iter()
                    .map(|layer| json!({ "diff_id": layer.diff_id.to_string(), "root": layer.root, "bytes": layer.bytes }))
                    .collect();
                let manifest = image.manifest_digest.map(|digest| digest.to_string());
                ui::json(&json!({
                    "reference": image.reference, "manifest": manifest, "config": image.config_digest.to_string(), "layers": layers,
                }))?;
            } else {
                ui::line(&image.reference)?;
            }
        }
        args::Image::Ls => list(&Store::open_default()?, json)?,
        args::Image::Rm { images } => {
            let store = Store::open_default()?;
            for image in images {
                report(&store.remove(image)?, json)?;
            }
        }
        args::Image::Prune { all } => report(&Store::open_default()?.prune(*all)?, json)?,
    }
    Ok(Outcome::Done)
}

fn list(store: &Store, json: bool) -> Result<()> {
    let images = store.images()?;
    if json {
        let rows = images.iter().map(|image| {
            json!({
                "reference": image.reference, "platform": image.platform,
                "manifest": image.manifest.map(|digest| digest.to_string()), "config": image.config.to_string(),
                "layers": image.layers.iter().map(ToString::to_string).collect::<Vec<_>>(), "bytes": image.bytes,
            })
        });
        return ui::json(&rows.collect::<Vec<_>>());
    }
    let rows: Vec<_> = images
        .iter()
        .map(|image| {
            let id: String = image.config.to_string().trim_start_matches("sha256:").chars().take(12).collect();
            vec![
                image.reference.clone(),
                image.platform.clone(),
                id,
                image.layers.len().to_string(),
                units::human(image.bytes),
            ]
        })
        .collect();
    ui::table(&["IMAGE", "PLATFORM", "ID", "LAYERS", "SIZE"], &rows)
}

fn report(removed: &Removed, json: bool) -> Result<()> {
    let Removed { images, layers, bytes, in_use } = *removed;
    if json {
        return ui::json(&json!({ "images": images, "layers": layers, "bytes": bytes, "in_use": in_use }));
    }
    let freed = units::human(bytes);
    ui::line(format_args!("removed {images} images and {layers} layers, {freed}; {in_use} layers are in use"))
}
