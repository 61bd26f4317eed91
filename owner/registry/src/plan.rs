//! What an image is made of, before its layers are there.

use std::io::Read;

use caveau_oci::{Digest, ImageConfig, Manifest, Platform};

use crate::{Limits, RegistryError};

/// One layer to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerSpec {
    /// SHA-256 of the uncompressed tar: the layer's identity in the store.
    pub(crate) diff_id: Digest,
    /// SHA-256 of the bytes at the source, if the source names it.
    pub(crate) blob: Option<Digest>,
    /// The number of those bytes.
    pub(crate) size: u64,
    /// Where the source has them, in its own terms.
    pub(crate) place: Place,
}

/// Where a source has a layer's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// By the blob's digest.
    Blob,
    /// At an offset of an archive.
    Offset(u64),
}

/// An image whose documents are known and checked.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The digest of the manifest, if there is one.
    pub(crate) manifest_digest: Option<Digest>,
    /// The manifest, to be kept.
    pub(crate) manifest: Option<Vec<u8>>,
    /// The configuration as it was written, to be kept.
    pub(crate) config_bytes: Vec<u8>,
    /// The configuration.
    pub(crate) config: ImageConfig,
    /// The layers, base first.
    pub(crate) layers: Vec<LayerSpec>,
}

/// Something that opens layers: a registry's repository, a layout, an archive.
pub(crate) trait LayerSource: Sync {
    /// The bytes of `layer` after the first `skipped` ones, which is none but where the source
    /// [is remote](Self::is_remote). Errors while reading may carry a [`RegistryError`].
    fn open(&self, layer: &LayerSpec, skipped: u64) -> Result<Box<dyn Read + Send + '_>, RegistryError>;

    /// Whether the bytes come from another machine, so that those which came are worth keeping.
    fn is_remote(&self) -> bool {
        false
    }
}

impl Plan {
    /// Joins a manifest and its configuration, whose bytes were checked against the manifest.
    pub(crate) fn of_manifest(
        image: &str,
        manifest_digest: Digest,
        manifest_bytes: Vec<u8>,
        manifest: &Manifest,
        config_bytes: Vec<u8>,
    ) -> Result<Self, RegistryError> {
        let config = ImageConfig::parse(&config_bytes)?;
        check_count(image, config.diff_ids.len(), manifest.layers.len())?;
        let layers = config
            .diff_ids
            .iter()
            .zip(&manifest.layers)
            .map(|(diff_id, layer)| LayerSpec {
                diff_id: *diff_id,
                blob: Some(layer.digest),
                size: layer.size,
                place: Place::Blob,
            })
            .collect();
        Ok(Self {
            manifest_digest: Some(manifest_digest),
            manifest: Some(manifest_bytes),
            config_bytes,
            config,
            layers,
        })
    }

    /// Holds the plan against the platform wanted and the limits.
    pub(crate) fn check(&self, image: &str, platform: &Platform, limits: &Limits) -> Result<(), RegistryError> {
        let found = self.config.platform();
        if !platform.accepts(&found) {
            let (image, wanted) = (image.to_owned(), platform.to_string());
            return Err(RegistryError::WrongPlatform { image, wanted, found: found.to_string() });
        }
        match self.layers.iter().find(|layer| layer.size > limits.blob_bytes) {
            Some(layer) => Err(RegistryError::TooLarge {
                what: format!("layer {}, with {} bytes,", layer.diff_id, layer.size),
                limit: limits.blob_bytes,
            }),
            None => Ok(()),
        }
    }
}

/// Refuses an image that names more or fewer layers in one place than in the other.
pub(crate) fn check_count(image: &str, diff_ids: usize, layers: usize) -> Result<(), RegistryError> {
    if diff_ids == layers {
        return Ok(());
    }
    let reason = format!("its configuration has {diff_ids} diff IDs and its manifest {layers} layers");
    Err(RegistryError::Inconsistent { image: image.to_owned(), reason })
}
