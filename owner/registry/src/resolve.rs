//! From a name to an image whose layers are in the store.

use std::io::Read;

use caveau_oci::{Digest, ImageConfig, Reference};

use crate::fill::fill_layers;
use crate::local::{open_docker_archive, open_oci_archive, open_oci_layout};
use crate::maintain::stored_name;
use crate::plan::{LayerSource, LayerSpec, Plan};
use crate::remote::Remote;
use crate::{Event, ImageSource, Options, Progress, PullPolicy, RegistryError, Store, StoredLayer, images};

/// An image with its layers in the store. While it lives, they are not pruned.
#[derive(Debug, Clone)]
pub struct Image {
    /// The name by which it was asked for, in full.
    pub reference: String,
    /// The digest of its manifest; archives of the old Docker form have none.
    pub manifest_digest: Option<Digest>,
    /// The digest of its configuration: the image ID.
    pub config_digest: Digest,
    /// What it says about how to run it.
    pub config: ImageConfig,
    /// Its layers, base first.
    pub layers: Vec<StoredLayer>,
}

/// Gets the image that `source` names, its layers converted and checked, into the store.
///
/// # Errors
/// [`RegistryError`] says which part of which image is wrong or cannot be had, and the way out where there is one.
pub fn resolve(
    store: &Store,
    source: &ImageSource,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Image, RegistryError> {
    let name = stored_name(source);
    let (plan, layers): (Plan, Box<dyn LayerSource + '_>) = match source {
        ImageSource::Registry(reference) => from_registry(store, reference, &name, options, progress)?,
        ImageSource::OciLayout(image) => {
            let (plan, layout) = open_oci_layout(image, &name, options)?;
            (plan, Box::new(layout))
        }
        ImageSource::OciArchive(image) => {
            let (plan, layout) = open_oci_archive(image, &name, store, options)?;
            (plan, Box::new(layout))
        }
        ImageSource::DockerArchive(image) => {
            let (plan, archive) = open_docker_archive(image, &name, store, options)?;
            (plan, Box::new(archive))
        }
    };
    plan.check(&name, &options.platform, &options.limits)?;
    progress.report(Event::Resolved { image: &name, layers: plan.layers.len() });
    let stored = fill_layers(store, &plan.layers, &*layers, options, progress)?;
    images::remember(store, &name, &options.platform, &plan)?;
    let config_digest = Digest::of(&plan.config_bytes);
    Ok(Image {
        reference: name,
        manifest_digest: plan.manifest_digest,
        config_digest,
        config: plan.config,
        layers: stored,
    })
}

/// A registry's image: what the store remembers of it, or what the registry says now, by the pull policy.
fn from_registry<'a>(
    store: &Store,
    reference: &'a Reference,
    name: &str,
    options: &'a Options,
    progress: &'a dyn Progress,
) -> Result<(Plan, Box<dyn LayerSource + 'a>), RegistryError> {
    let remembered = match options.pull {
        PullPolicy::Always => None,
        PullPolicy::Missing | PullPolicy::Never => images::recall(store, name, &options.platform),
    };
    match (remembered, options.pull) {
        (Some(plan), PullPolicy::Never) => Ok((plan, Box::new(Nowhere))),
        // Layers that are missing or damaged are fetched by the digests that the store remembers.
        (Some(plan), _) => Ok((plan, Box::new(Remote::new(reference, options, progress)))),
        (None, PullPolicy::Never) => Err(RegistryError::NotStored { what: format!("image {name}") }),
        (None, _) => {
            let remote = Remote::new(reference, options, progress);
            Ok((remote.plan(name)?, Box::new(remote)))
        }
    }
}

/// Where nothing may be fetched from.
struct Nowhere;

impl LayerSource for Nowhere {
    fn open(&self, layer: &LayerSpec, _: u64) -> Result<Box<dyn Read + Send + '_>, RegistryError> {
        Err(RegistryError::NotStored { what: format!("layer {}", layer.diff_id) })
    }
}
