//! What the store knows about images: manifests and configurations by digest, and what a name meant when last resolved.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use caveau_oci::{Digest, ImageConfig, Platform, limits};
use serde::{Deserialize, Serialize};

use crate::error::At;
use crate::plan::{LayerSpec, Place, Plan};
use crate::{RegistryError, Store};

/// The version of an image's record. Others count as not stored.
const VERSION: u32 = 1;
/// Bytes that a record may have.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// What a name meant on a platform when it was last resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    version: u32,
    pub(crate) reference: String,
    pub(crate) platform: String,
    pub(crate) manifest: Option<Digest>,
    pub(crate) config: Digest,
    pub(crate) layers: Vec<RecordedLayer>,
    /// Seconds since 1970 of the resolution.
    pub(crate) resolved: u64,
}

/// A layer of a recorded image, as far as it takes to fetch it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordedLayer {
    pub(crate) diff_id: Digest,
    pub(crate) blob: Option<Digest>,
    pub(crate) size: u64,
}

/// The file of the record of `reference` on `platform`.
fn record_path(store: &Store, reference: &str, platform: &str) -> PathBuf {
    let key = Digest::of(format!("{reference}\n{platform}").as_bytes());
    store.images_dir().join(format!("{}.json", key.hex()))
}

/// Keeps what was resolved: documents first, then the record that names them.
pub(crate) fn remember(store: &Store, reference: &str, platform: &Platform, plan: &Plan) -> Result<(), RegistryError> {
    let config = Digest::of(&plan.config_bytes);
    // Documents that were there before must not go before the record names them.
    let _guard = store.documents_guard(false)?;
    for (digest, content) in
        plan.manifest_digest.iter().zip(&plan.manifest).chain(std::iter::once((&config, &plan.config_bytes)))
    {
        let path = store.blobs_dir().join(digest.hex());
        if read_blob(store, *digest).is_none() {
            store.write(&path, content)?;
        }
    }
    let layers = plan.layers.iter();
    let record = Record {
        version: VERSION,
        reference: reference.to_owned(),
        platform: platform.to_string(),
        manifest: plan.manifest_digest,
        config,
        layers: layers.map(|l| RecordedLayer { diff_id: l.diff_id, blob: l.blob, size: l.size }).collect(),
        resolved: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    let path = record_path(store, reference, &record.platform);
    let text = serde_json::to_vec_pretty(&record).map_err(std::io::Error::from).at("write", &path)?;
    store.write(&path, &text)
}

/// What `reference` meant on `platform`, if the store knows and has its documents undamaged.
pub(crate) fn recall(store: &Store, reference: &str, platform: &Platform) -> Option<Plan> {
    let record = read_record(&record_path(store, reference, &platform.to_string()))?;
    let manifest = match record.manifest {
        Some(digest) => Some(read_blob(store, digest)?),
        None => None,
    };
    let config_bytes = read_blob(store, record.config)?;
    let config = ImageConfig::parse(&config_bytes).ok()?;
    // The record names what to fetch; the configuration, whose digest was just checked, says what it must be.
    let same = config.diff_ids.iter().eq(record.layers.iter().map(|layer| &layer.diff_id));
    let layers = record.layers.into_iter();
    let layers = layers.map(|l| LayerSpec { diff_id: l.diff_id, blob: l.blob, size: l.size, place: Place::Blob });
    let layers = layers.collect();
    same.then_some(Plan { manifest_digest: record.manifest, manifest, config_bytes, config, layers })
}

/// All records and their files. Files that are no records of this version are left out.
pub(crate) fn all(store: &Store) -> Result<Vec<(PathBuf, Record)>, RegistryError> {
    let dir = store.images_dir();
    let mut records = Vec::new();
    for entry in fs::read_dir(&dir).at("list", &dir)? {
        let path = entry.at("list", &dir)?.path();
        if let Some(record) = read_record(&path) {
            records.push((path, record));
        }
    }
    records.sort_by(|(_, a), (_, b)| (&a.reference, &a.platform).cmp(&(&b.reference, &b.platform)));
    Ok(records)
}

fn read_record(path: &std::path::Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&read_bounded(path, MAX_RECORD_BYTES)?).ok()?;
    (record.version == VERSION).then_some(record)
}

/// The document with this digest, if it is there and undamaged.
fn read_blob(store: &Store, digest: Digest) -> Option<Vec<u8>> {
    let content = read_bounded(&store.blobs_dir().join(digest.hex()), limits::MAX_CONFIG_BYTES)?;
    (Digest::of(&content) == digest).then_some(content)
}

fn read_bounded(path: &std::path::Path, limit: u64) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path).ok()?.take(limit + 1).read_to_end(&mut content).ok()?;
    (content.len() as u64 <= limit).then_some(content)
}
