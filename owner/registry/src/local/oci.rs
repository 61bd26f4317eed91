//! OCI image layouts, as folders and as archives.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use caveau_oci::{
    Descriptor, Digest, Document, Index, OciError, check_layout_marker, limits, parse_document, parse_layout_index,
    select_named,
};

use super::archive::{Archive, open_regular};
use crate::error::At;
use crate::plan::{LayerSource, LayerSpec, Plan};
use crate::{Limits, LocalImage, Options, RegistryError, Store};

/// Bytes that the marker file may have.
const MAX_MARKER_BYTES: u64 = 4096;

/// A layout's files by their names in it.
pub(crate) trait LayoutFiles: Sync {
    /// The content of a small file.
    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, RegistryError>;
    /// The content of a large one, and its length.
    fn open(&self, name: &str) -> Result<(Box<dyn Read + Send + '_>, u64), RegistryError>;
}

/// A layout in a folder.
struct Folder(PathBuf);

impl LayoutFiles for Folder {
    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let path = self.0.join(name);
        let mut content = Vec::new();
        open_regular(&path)?.take(limit + 1).read_to_end(&mut content).at("read", &path)?;
        if content.len() as u64 > limit {
            return Err(RegistryError::TooLarge { what: path.display().to_string(), limit });
        }
        Ok(content)
    }

    fn open(&self, name: &str) -> Result<(Box<dyn Read + Send + '_>, u64), RegistryError> {
        let path = self.0.join(name);
        let file = open_regular(&path)?;
        let size = file.metadata().at("read", &path)?.len();
        Ok((Box::new(file), size))
    }
}

impl LayoutFiles for Archive {
    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
        self.read(name, limit)
    }

    fn open(&self, name: &str) -> Result<(Box<dyn Read + Send + '_>, u64), RegistryError> {
        let (offset, size) = self.locate(name)?;
        Ok((self.reader(offset, size), size))
    }
}

/// A layout whose image was chosen.
pub(crate) struct Layout(Box<dyn LayoutFiles>);

impl LayerSource for Layout {
    fn open(&self, layer: &LayerSpec, _: u64) -> Result<Box<dyn Read + Send + '_>, RegistryError> {
        let blob = layer.blob.unwrap_or(layer.diff_id);
        let (reader, size) = self.0.open(&blob_name(blob))?;
        if size == layer.size {
            return Ok(reader);
        }
        Err(RegistryError::WrongSize { what: format!("blob {blob}"), expected: layer.size, found: size })
    }
}

/// Reads what the image in a layout folder is made of.
pub(crate) fn open_oci_layout(
    image: &LocalImage,
    name: &str,
    options: &Options,
) -> Result<(Plan, Layout), RegistryError> {
    let files = Folder(image.path.clone());
    Ok((plan(&files, image, name, options)?, Layout(Box::new(files))))
}

/// Reads what the image in a layout archive is made of.
pub(crate) fn open_oci_archive(
    image: &LocalImage,
    name: &str,
    store: &Store,
    options: &Options,
) -> Result<(Plan, Layout), RegistryError> {
    let files = open_archive(&image.path, store, &options.limits)?;
    Ok((plan(&files, image, name, options)?, Layout(Box::new(files))))
}

fn open_archive(path: &Path, store: &Store, limits: &Limits) -> Result<Archive, RegistryError> {
    let archive = Archive::open(path, store, limits)?;
    if archive.has("oci-layout") && archive.has("index.json") {
        return Ok(archive);
    }
    let hint = if archive.has("manifest.json") { "; it is a Docker archive: use docker-archive:" } else { "" };
    Err(archive.refused(format!("it holds no OCI image layout{hint}")))
}

/// From the layout's index to the configuration.
fn plan(files: &dyn LayoutFiles, image: &LocalImage, name: &str, options: &Options) -> Result<Plan, RegistryError> {
    check_layout_marker(&files.read("oci-layout", MAX_MARKER_BYTES)?)?;
    let index = parse_layout_index(&files.read("index.json", limits::MAX_DOCUMENT_BYTES)?)?;
    let mut chosen = match (select_named(&index, image.name.as_deref(), image.digest), image.digest) {
        (Ok(chosen), _) => chosen,
        (Err(missing), Some(digest)) if image.name.is_none() => by_digest(files, digest).ok_or(missing)?,
        (Err(missing), _) => return Err(missing.into()),
    };
    for _ in 0..limits::MAX_INDEX_DEPTH {
        let entry = choose(&chosen, image, options)?;
        let bytes = read_blob(files, entry, limits::MAX_DOCUMENT_BYTES)?;
        match parse_document(&bytes, Some(entry.media_type.as_str()).filter(|named| !named.is_empty()))? {
            Document::Index(nested) => chosen = nested,
            Document::Manifest(manifest) => {
                let config = read_blob(files, &manifest.config, limits::MAX_CONFIG_BYTES)?;
                return Plan::of_manifest(name, entry.digest, bytes, &manifest, config);
            }
        }
    }
    Err(RegistryError::Inconsistent { image: name.to_owned(), reason: "its indexes are nested too deep".to_owned() })
}

/// The document of this digest, as if the layout's index named it: it may be an entry of an index that is nested.
fn by_digest(files: &dyn LayoutFiles, digest: Digest) -> Option<Index> {
    let size = files.read(&blob_name(digest), limits::MAX_DOCUMENT_BYTES).ok()?.len() as u64;
    let (media_type, annotations) = (String::new(), BTreeMap::new());
    Some(Index { manifests: vec![Descriptor { media_type, digest, size, platform: None, annotations }] })
}

/// The entry for the platform. An entry chosen by its own digest, or alone under its name, needs to name none.
fn choose<'a>(index: &'a Index, image: &LocalImage, options: &Options) -> Result<&'a Descriptor, OciError> {
    match index.manifests.as_slice() {
        [only] if only.platform.is_none() || image.digest == Some(only.digest) => Ok(only),
        // Tools that name no platforms put the newest image of a name last.
        [.., last] if index.manifests.iter().all(|entry| entry.platform.is_none()) => Ok(last),
        _ => options.platform.select(index),
    }
}

/// A document of a layout, checked against its descriptor.
fn read_blob(files: &dyn LayoutFiles, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let content = files.read(&blob_name(descriptor.digest), limit)?;
    let what = format!("blob {}", descriptor.digest);
    if content.len() as u64 != descriptor.size {
        return Err(RegistryError::WrongSize { what, expected: descriptor.size, found: content.len() as u64 });
    }
    descriptor.digest.check(&what, &content)?;
    Ok(content)
}

/// The name of a blob in a layout (OCI image specification, image-layout, "Blobs").
pub(super) fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
