//! Archives that `docker save` wrote, in the old form and in the one that is an OCI layout, too.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use caveau_oci::{
    ArchiveImage, Digest, Document, ImageConfig, Index, OciError, limits, parse_archive_manifest, parse_document,
    parse_layout_index, shown,
};

use super::archive::Archive;
use super::oci::blob_name;
use crate::plan::{LayerSource, LayerSpec, Place, Plan, check_count};
use crate::{LocalImage, Options, RegistryError, Store};

/// Bytes of a media type: registered ones have at most 127 on each side of the slash (RFC 6838, section 4.2).
const MAX_MEDIA_TYPE: usize = 255;

/// A Docker archive whose image was chosen.
pub(crate) struct DockerArchive(Archive);

impl LayerSource for DockerArchive {
    fn open(&self, layer: &LayerSpec, _: u64) -> Result<Box<dyn Read + Send + '_>, RegistryError> {
        match layer.place {
            Place::Offset(offset) => Ok(self.0.reader(offset, layer.size)),
            Place::Blob => Err(self.0.refused(format!("layer {} has no place in it", layer.diff_id))),
        }
    }
}

/// Reads what the image in a Docker archive is made of.
pub(crate) fn open_docker_archive(
    image: &LocalImage,
    name: &str,
    store: &Store,
    options: &Options,
) -> Result<(Plan, DockerArchive), RegistryError> {
    let archive = Archive::open(&image.path, store, &options.limits)?;
    if !archive.has("manifest.json") {
        let hint = if archive.has("oci-layout") { "; it is an OCI archive: use oci-archive:" } else { "" };
        return Err(archive.refused(format!("it has no manifest.json{hint}")));
    }
    let images = parse_archive_manifest(&archive.read("manifest.json", limits::MAX_DOCUMENT_BYTES)?)?;
    let manifests = Manifests::read(&archive)?;
    let chosen = choose(&archive, images, &manifests, image)?;
    let plan = plan(&archive, &chosen, &manifests, name)?;
    Ok((plan, DockerArchive(archive)))
}

/// The manifests of an archive that is a layout, too: digest, and digest of the configuration. Their bytes are not kept: an
/// archive may name thousands of them, of megabytes each.
struct Manifests(Vec<(Digest, Digest)>);

impl Manifests {
    fn read(archive: &Archive) -> Result<Self, RegistryError> {
        let mut found = Vec::new();
        if !archive.has("index.json") {
            return Ok(Self(found));
        }
        let mut waiting = Waiting::default();
        waiting.add(archive, parse_layout_index(&archive.read("index.json", limits::MAX_DOCUMENT_BYTES)?)?)?;
        while let Some((digest, media_type)) = waiting.entries.pop() {
            let bytes = read_manifest(archive, digest)?;
            match parse_document(&bytes, Some(&media_type)) {
                Ok(Document::Index(index)) => waiting.add(archive, index)?,
                Ok(Document::Manifest(manifest)) => found.push((digest, manifest.config.digest)),
                // Attestations and other artifacts stand beside images.
                Err(OciError::Unsupported { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self(found))
    }

    /// The manifest of the image with this configuration.
    fn of_config(&self, config: Digest) -> Option<Digest> {
        self.0.iter().find(|(_, of)| *of == config).map(|(manifest, _)| *manifest)
    }
}

/// Entries of indexes that are still to be read, by digest and media type; nothing else of them is kept.
#[derive(Default)]
struct Waiting {
    entries: Vec<(Digest, String)>,
    /// One that is named many times is read once.
    seen: BTreeSet<Digest>,
}

impl Waiting {
    fn add(&mut self, archive: &Archive, index: Index) -> Result<(), RegistryError> {
        for entry in index.manifests {
            // `docker save` may name images whose content it did not save. A long media type is none of an image.
            let is_there = entry.media_type.len() <= MAX_MEDIA_TYPE && archive.has(&blob_name(entry.digest));
            if is_there && self.seen.insert(entry.digest) {
                self.entries.push((entry.digest, entry.media_type));
            }
            if self.seen.len() > limits::MAX_INDEX_ENTRIES {
                return Err(archive.refused("its index has too many entries".to_owned()));
            }
        }
        Ok(())
    }
}

/// A manifest or index of the layout, checked against its digest.
fn read_manifest(archive: &Archive, digest: Digest) -> Result<Vec<u8>, RegistryError> {
    let bytes = archive.read(&blob_name(digest), limits::MAX_DOCUMENT_BYTES)?;
    digest.check(&format!("blob {digest}"), &bytes)?;
    Ok(bytes)
}

/// The image that the source names, by reference, by digest, or because it is the only one.
fn choose(
    archive: &Archive,
    images: Vec<ArchiveImage>,
    manifests: &Manifests,
    wanted: &LocalImage,
) -> Result<ArchiveImage, RegistryError> {
    let names: Vec<String> =
        images.iter().flat_map(|image| image.repo_tags.iter().take(4).map(|tag| shown(tag))).take(32).collect();
    let mut found = Vec::new();
    let mut configs = BTreeMap::new();
    for image in images {
        let named = wanted.name.as_deref().is_none_or(|name| image.is_named(name));
        if named && has_digest(archive, &image, manifests, wanted.digest, &mut configs)? {
            found.push(image);
        }
    }
    let several = found.len() > 1;
    match found.pop() {
        Some(image) if !several => Ok(image),
        _ => {
            let reason = match (several, &wanted.name, wanted.digest) {
                (true, ..) => "there are several images; say which one by its reference".to_owned(),
                (false, _, Some(digest)) => format!("there is no image with digest {digest}"),
                (false, Some(name), None) => format!("there is no image named {name:?}"),
                (false, None, None) => "there is no image".to_owned(),
            };
            let available = if names.is_empty() { "none with a name".to_owned() } else { names.join(", ") };
            Err(OciError::NoSuchImage { reason, available }.into())
        }
    }
}

/// Whether the image's manifest or configuration has the digest that the source asks for. The digests of configurations are
/// kept in `configs`: thousands of images may name one file.
fn has_digest(
    archive: &Archive,
    image: &ArchiveImage,
    manifests: &Manifests,
    wanted: Option<Digest>,
    configs: &mut BTreeMap<String, Digest>,
) -> Result<bool, RegistryError> {
    let Some(wanted) = wanted else { return Ok(true) };
    let config = match configs.get(&image.config) {
        Some(known) => *known,
        None => Digest::of(&archive.read(&image.config, limits::MAX_CONFIG_BYTES)?),
    };
    configs.insert(image.config.clone(), config);
    Ok(config == wanted || manifests.of_config(config) == Some(wanted))
}

/// From the archive's own manifest to the layers' places.
fn plan(archive: &Archive, image: &ArchiveImage, manifests: &Manifests, name: &str) -> Result<Plan, RegistryError> {
    let config_bytes = archive.read(&image.config, limits::MAX_CONFIG_BYTES)?;
    let config_digest = Digest::of(&config_bytes);
    if let Some(named) = named_digest(&image.config) {
        named.check_found(&format!("{} in {}", shown(&image.config), archive.path().display()), config_digest)?;
    }
    let config = ImageConfig::parse(&config_bytes)?;
    check_count(name, config.diff_ids.len(), image.layers.len())?;
    let mut layers = Vec::new();
    for (diff_id, path) in config.diff_ids.iter().zip(&image.layers) {
        let (offset, size) = archive.locate_linked(path)?;
        let blob = path.strip_prefix("blobs/sha256/").and_then(|hex| Digest::from_hex(hex).ok());
        layers.push(LayerSpec { diff_id: *diff_id, blob, size, place: Place::Offset(offset) });
    }
    let manifest = manifests.of_config(config_digest);
    Ok(Plan {
        manifest_digest: manifest,
        manifest: manifest.map(|digest| read_manifest(archive, digest)).transpose()?,
        config_bytes,
        config,
        layers,
    })
}

/// The digest that a configuration's path is named after: `<hex>.json` or `blobs/sha256/<hex>`.
fn named_digest(path: &str) -> Option<Digest> {
    let hex = path.strip_prefix("blobs/sha256/").or_else(|| path.strip_suffix(".json"))?;
    Digest::from_hex(hex).ok()
}
