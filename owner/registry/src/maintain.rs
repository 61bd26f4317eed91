//! Looking after the store: listing, removing, pruning.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caveau_oci::{Digest, Reference};
use rustix::fs::FlockOperation;

use crate::error::At;
use crate::lock::{EntryLock, flock_now};
use crate::{ImageSource, RegistryError, Store, images, kept};

/// Digits of a short image ID.
const SHORT_ID: usize = 12;

/// An image that the store knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEntry {
    /// The name by which it was resolved, in full.
    pub reference: String,
    /// Its platform.
    pub platform: String,
    /// The digest of its manifest, if it has one.
    pub manifest: Option<Digest>,
    /// The digest of its configuration: the image ID.
    pub config: Digest,
    /// The diff IDs of its layers, base first.
    pub layers: Vec<Digest>,
    /// Bytes of its layers in the store; layers that are missing count as nothing, shared ones in every image.
    pub bytes: u64,
    /// When the name was last resolved.
    pub resolved: SystemTime,
}

/// What was removed from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Names forgotten.
    pub images: usize,
    /// Layers deleted.
    pub layers: usize,
    /// Bytes of disk set free.
    pub bytes: u64,
    /// Layers that stay because something uses or makes them.
    pub in_use: usize,
}

impl Store {
    /// The images in the store, by name.
    ///
    /// # Errors
    /// [`RegistryError::File`] if the store cannot be read.
    pub fn images(&self) -> Result<Vec<ImageEntry>, RegistryError> {
        let entry = |(_, record): (PathBuf, images::Record)| {
            let layers: Vec<Digest> = record.layers.iter().map(|layer| layer.diff_id).collect();
            let size = |layer: &Digest| fs::metadata(self.layer_path(*layer, "img")).map_or(0, |found| found.len());
            ImageEntry {
                reference: record.reference,
                platform: record.platform,
                manifest: record.manifest,
                config: record.config,
                bytes: layers.iter().collect::<BTreeSet<_>>().into_iter().map(size).sum(),
                layers,
                resolved: UNIX_EPOCH + Duration::from_secs(record.resolved),
            }
        };
        Ok(images::all(self)?.into_iter().map(entry).collect())
    }

    /// Forgets the image `name` on every platform and deletes the layers that no other image has.
    ///
    /// `name` is a reference (short names as usual), a local source as it was given to `resolve`, the digest of a
    /// manifest or configuration, or, where none of these fits, the first 12 or more digits of an image ID.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchImage`] if nothing has that name, [`RegistryError::SeveralImages`] for digits that several
    /// IDs begin with.
    pub fn remove(&self, name: &str) -> Result<Removed, RegistryError> {
        let full = Reference::parse(name).ok().map(|reference| reference.to_string());
        let local = ImageSource::parse(name).ok().map(|source| stored_name(&source));
        let digest: Option<Digest> = name.parse().ok();
        let is_meant = |record: &images::Record| {
            [Some(name), full.as_deref(), local.as_deref()].contains(&Some(record.reference.as_str()))
                || (digest.is_some() && (digest == record.manifest || digest == Some(record.config)))
        };
        let records = images::all(self)?;
        let digest_of_id = match records.iter().any(|(_, record)| is_meant(record)) {
            true => None,
            false => config_by_id(name, &records)?,
        };
        let is_meant = |record: &images::Record| is_meant(record) || digest_of_id == Some(record.config);
        let (meant, others): (Vec<_>, Vec<_>) = records.into_iter().partition(|(_, record)| is_meant(record));
        if meant.is_empty() {
            return Err(RegistryError::NoSuchImage { name: name.to_owned() });
        }
        let mut removed = Removed::default();
        for (path, _) in &meant {
            removed.images += usize::from(remove_file(path)?.is_some());
        }
        let kept: BTreeSet<Digest> = others.iter().flat_map(|(_, record)| layers_of(record)).collect();
        let candidates: BTreeSet<Digest> = meant.iter().flat_map(|(_, record)| layers_of(record)).collect();
        for layer in candidates.difference(&kept) {
            self.delete_layer(*layer, &mut removed)?;
        }
        self.delete_documents(&mut removed)?;
        Ok(removed)
    }

    /// Deletes layers and documents that no image has, and what was kept of layers whose fetching broke off. With `all`,
    /// forgets every image first, so that only layers in use stay.
    ///
    /// # Errors
    /// [`RegistryError::File`] if something cannot be read or deleted.
    pub fn prune(&self, all: bool) -> Result<Removed, RegistryError> {
        let mut removed = Removed::default();
        if all {
            let dir = self.images_dir();
            for entry in fs::read_dir(&dir).at("list", &dir)? {
                removed.images += usize::from(remove_file(&entry.at("list", &dir)?.path())?.is_some());
            }
        }
        // Which layers there are is asked before which are named: a layer that is being added keeps its name that way.
        let there = self.layer_ids()?;
        let named: BTreeSet<Digest> = images::all(self)?.iter().flat_map(|(_, record)| layers_of(record)).collect();
        for layer in there.difference(&named) {
            self.delete_layer(*layer, &mut removed)?;
        }
        self.delete_documents(&mut removed)?;
        removed.bytes += kept::sweep(self, Duration::ZERO)?;
        Ok(removed)
    }

    /// The diff IDs of all entries, whole or not.
    fn layer_ids(&self) -> Result<BTreeSet<Digest>, RegistryError> {
        let dir = self.layers_dir();
        let mut ids = BTreeSet::new();
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let name = entry.at("list", &dir)?.file_name();
            ids.extend(name.to_str().and_then(|name| Digest::from_hex(name.split('.').next()?).ok()));
        }
        Ok(ids)
    }

    /// Deletes one layer unless somebody makes it or has it open.
    fn delete_layer(&self, layer: Digest, removed: &mut Removed) -> Result<(), RegistryError> {
        let Some(lock) = EntryLock::attempt(&self.layer_path(layer, "lock"))? else {
            removed.in_use += 1;
            return Ok(());
        };
        let path = self.layer_path(layer, "img");
        // Held until the file is gone, so that nobody takes it up meanwhile.
        let file = match File::open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).at("open", &path),
        };
        if let Some(file) = &file
            && !flock_now(file, FlockOperation::NonBlockingLockExclusive).at("lock", &path)?
        {
            removed.in_use += 1;
            return Ok(());
        }
        // The document first: an image file alone is not served.
        remove_file(&self.layer_path(layer, "json"))?;
        if let Some(bytes) = remove_file(&path)? {
            removed.layers += 1;
            removed.bytes += bytes;
        }
        lock.remove()
    }

    /// Deletes manifests and configurations that no image has.
    fn delete_documents(&self, removed: &mut Removed) -> Result<(), RegistryError> {
        let dir = self.blobs_dir();
        let _guard = self.documents_guard(true)?;
        let there: Vec<PathBuf> = fs::read_dir(&dir)
            .at("list", &dir)?
            .map(|entry| entry.map(|entry| entry.path()).at("list", &dir))
            .collect::<Result<_, _>>()?;
        let records = images::all(self)?;
        let named: BTreeSet<String> = records
            .iter()
            .flat_map(|(_, record)| record.manifest.into_iter().chain([record.config]))
            .map(|digest| digest.hex())
            .collect();
        for path in there {
            if path.file_name().and_then(|name| name.to_str()).is_none_or(|name| !named.contains(name)) {
                removed.bytes += remove_file(&path)?.unwrap_or(0);
            }
        }
        Ok(())
    }
}

/// The name under which an image from `source` is kept: local paths are made absolute.
pub(crate) fn stored_name(source: &ImageSource) -> String {
    let mut source = source.clone();
    if let ImageSource::DockerArchive(image) | ImageSource::OciLayout(image) | ImageSource::OciArchive(image) =
        &mut source
    {
        image.path = fs::canonicalize(&image.path)
            .or_else(|_| std::path::absolute(&image.path))
            .unwrap_or_else(|_| image.path.clone());
    }
    source.to_string()
}

/// The configuration whose ID begins with these digits, as `caveau image ls` shows them.
fn config_by_id(id: &str, records: &[(PathBuf, images::Record)]) -> Result<Option<Digest>, RegistryError> {
    if id.len() < SHORT_ID || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let ids: BTreeSet<Digest> =
        records.iter().map(|(_, record)| record.config).filter(|config| config.hex().starts_with(id)).collect();
    if ids.len() > 1 {
        return Err(RegistryError::SeveralImages { id: id.to_owned() });
    }
    Ok(ids.into_iter().next())
}

fn layers_of(record: &images::Record) -> impl Iterator<Item = Digest> + '_ {
    record.layers.iter().map(|layer| layer.diff_id)
}

/// Removes a file and gives its length; none if it was not there.
fn remove_file(path: &Path) -> Result<Option<u64>, RegistryError> {
    let bytes = fs::symlink_metadata(path).map_or(0, |found| found.len());
    match fs::remove_file(path) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("remove", path),
    }
}
