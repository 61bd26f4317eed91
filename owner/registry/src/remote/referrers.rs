//! What is attached to an image: OCI referrers (image specification 1.1, `subject`; distribution specification 1.1,
//! "Listing Referrers").
//!
//! ```text
//! artifact manifest   subject → the image's manifest; config {}; one layer, the content
//! GET /v2/<name>/referrers/<digest>      an index of what refers to it; where there is no such list:
//! GET /v2/<name>/manifests/sha256-<hex>  the same under a tag, which whoever attaches keeps (referrers tag schema)
//! ```

use std::collections::BTreeMap;

use caveau_oci::{Digest, Reference, limits};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Remote;
use super::check;
use crate::{Options, Progress, RegistryError};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Largest content of an artifact that is fetched.
const MAX_CONTENT: u64 = 8 << 20;
/// Most artifacts of an image that are looked at.
const MAX_REFERRERS: usize = 256;

/// Something to attach to an image.
#[derive(Clone, Copy, Debug)]
pub struct Artifact<'a> {
    /// What kind of thing it is: the manifest's artifactType.
    pub artifact_type: &'a str,
    /// The content's media type.
    pub media_type: &'a str,
    /// The content.
    pub content: &'a [u8],
    /// A file name for the content.
    pub title: &'a str,
    /// Further annotations of the manifest.
    pub annotations: &'a BTreeMap<String, String>,
}

/// Where an artifact was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The image's manifest to which it refers.
    pub subject: Digest,
    /// The artifact's manifest.
    pub manifest: Digest,
    /// Whether the registry lists referrers itself; otherwise a tag does.
    pub listed_by_registry: bool,
}

/// An artifact that refers to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The artifact's manifest.
    pub manifest: Digest,
    /// The annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// The content, of the digest that the manifest says.
    pub content: Vec<u8>,
}

/// A descriptor as it stands in an index of referrers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactManifest {
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Entry>,
    #[serde(default)]
    layers: Vec<Entry>,
    #[serde(default)]
    subject: Option<Entry>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Attaches an artifact to the image's manifest for the platform of `options`, never to an index of several.
///
/// # Errors
/// [`RegistryError`]: the image is not there, the registry denies writing, or does not answer as one.
pub fn attach(
    image: &Reference,
    artifact: &Artifact<'_>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Attached, RegistryError> {
    let remote = Remote::new(image, options, progress);
    let (bytes, media_type, _) = remote.platform_manifest(&image.to_string())?;
    let subject = Digest::of(&bytes);
    let media_type = media_type.as_deref().and_then(|text| text.split(';').next()).unwrap_or(MANIFEST).trim();
    let mut annotations = artifact.annotations.clone();
    annotations.entry("org.opencontainers.image.title".to_owned()).or_insert_with(|| artifact.title.to_owned());
    let layer = json!({"mediaType": artifact.media_type, "digest": Digest::of(artifact.content),
        "size": artifact.content.len(), "annotations": {"org.opencontainers.image.title": artifact.title}});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact.artifact_type,
        "config": {"mediaType": EMPTY, "digest": Digest::of(b"{}"), "size": 2},
        "layers": [layer],
        "subject": {"mediaType": media_type, "digest": subject, "size": bytes.len()},
        "annotations": annotations,
    });
    let manifest = manifest.to_string().into_bytes();
    let session = remote.session()?;
    session.push_blob(b"{}")?;
    session.push_blob(artifact.content)?;
    let digest = Digest::of(&manifest);
    let listed_by_registry = session.push_manifest(&digest.to_string(), MANIFEST, &manifest)?;
    if !listed_by_registry {
        let entry = Entry {
            media_type: MANIFEST.to_owned(),
            digest,
            size: manifest.len() as u64,
            artifact_type: Some(artifact.artifact_type.to_owned()),
            annotations,
        };
        remote.note(subject, &entry)?;
    }
    Ok(Attached { subject, manifest: digest, listed_by_registry })
}

/// The artifacts of a type whose first layer has `media_type`, that refer to the image's manifest for the platform of
/// `options`; contents are checked against their digests.
///
/// # Errors
/// [`RegistryError`], also where an artifact that is listed cannot be had as it is listed.
pub fn discover(
    image: &Reference,
    (artifact_type, media_type): (&str, &str),
    options: &Options,
    progress: &dyn Progress,
) -> Result<Vec<Referrer>, RegistryError> {
    let remote = Remote::new(image, options, progress);
    let (bytes, _, _) = remote.platform_manifest(&image.to_string())?;
    let subject = Digest::of(&bytes);
    let mut found = Vec::new();
    for entry in remote.referrers(subject)? {
        // A list may leave the type out; then the manifest says it.
        if entry.artifact_type.as_deref().is_some_and(|listed| listed != artifact_type) {
            continue;
        }
        found.extend(remote.artifact(&entry, subject, (artifact_type, media_type))?);
    }
    Ok(found)
}

impl Remote<'_> {
    /// What refers to a manifest: the registry's list, or the one under a tag.
    fn referrers(&self, subject: Digest) -> Result<Vec<Entry>, RegistryError> {
        let session = self.session()?;
        let listed = session.document(&format!("referrers/{subject}"), Some(INDEX), limits::MAX_DOCUMENT_BYTES);
        let bytes = match listed {
            Ok((bytes, _)) => Some(bytes),
            Err(RegistryError::Status { status: 404, .. }) => self.tagged_list(subject)?,
            Err(error) => return Err(error),
        };
        let Some(bytes) = bytes else { return Ok(Vec::new()) };
        let index: Index = self.parsed(&bytes, "its list of referrers")?;
        if index.manifests.len() > MAX_REFERRERS {
            return Err(self.inconsistent(&format!("more than {MAX_REFERRERS} artifacts refer to it")));
        }
        // Of other kinds of entries nothing is wanted.
        Ok(index.manifests.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect())
    }

    /// The list under the tag of the referrers tag schema.
    fn tagged_list(&self, subject: Digest) -> Result<Option<Vec<u8>>, RegistryError> {
        let path = format!("manifests/{}", tag(subject));
        match self.session()?.document(&path, Some(INDEX), limits::MAX_DOCUMENT_BYTES) {
            Ok((bytes, _)) => Ok(Some(bytes)),
            Err(RegistryError::Status { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds an entry to the list under the tag. What else stands in it stays as it is.
    fn note(&self, subject: Digest, entry: &Entry) -> Result<(), RegistryError> {
        let mut manifests = match self.tagged_list(subject)? {
            Some(bytes) => self.parsed::<Index>(&bytes, "its list of referrers")?.manifests,
            None => Vec::new(),
        };
        let digest = Value::String(entry.digest.to_string());
        if manifests.iter().any(|known| known.get("digest") == Some(&digest)) {
            return Ok(());
        }
        if manifests.len() >= MAX_REFERRERS {
            return Err(self.inconsistent(&format!("{MAX_REFERRERS} artifacts refer to it already")));
        }
        manifests.push(json!(entry));
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
        self.session()?.push_manifest(&tag(subject), INDEX, index.as_bytes()).map(drop)
    }

    /// The artifact of an entry, where it is of the types that are wanted and refers to `subject`.
    fn artifact(
        &self,
        entry: &Entry,
        subject: Digest,
        (artifact_type, media_type): (&str, &str),
    ) -> Result<Option<Referrer>, RegistryError> {
        let session = self.session()?;
        let path = format!("manifests/{}", entry.digest);
        let (bytes, _) = session.document(&path, Some(MANIFEST), limits::MAX_DOCUMENT_BYTES)?;
        check(&format!("manifest {}", entry.digest), &bytes, Some(entry.digest), Some(entry.size))?;
        let manifest: ArtifactManifest = self.parsed(&bytes, "an artifact's manifest")?;
        let config_type = manifest.config.map(|config| config.media_type);
        let found = manifest.artifact_type.or(config_type);
        let refers = manifest.subject.is_some_and(|named| named.digest == subject);
        if found.as_deref() != Some(artifact_type) || !refers {
            return Ok(None);
        }
        let Some(layer) = manifest.layers.first().filter(|layer| layer.media_type == media_type) else {
            return Ok(None);
        };
        let what = format!("blob {}", layer.digest);
        if layer.size > MAX_CONTENT {
            return Err(RegistryError::TooLarge { what, limit: MAX_CONTENT });
        }
        let (content, _) = session.document(&format!("blobs/{}", layer.digest), None, MAX_CONTENT)?;
        check(&what, &content, Some(layer.digest), Some(layer.size))?;
        Ok(Some(Referrer { manifest: entry.digest, annotations: manifest.annotations, content }))
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, bytes: &[u8], what: &str) -> Result<T, RegistryError> {
        serde_json::from_slice(bytes).map_err(|error| self.inconsistent(&format!("{what} cannot be read: {error}")))
    }

    fn inconsistent(&self, reason: &str) -> RegistryError {
        RegistryError::Inconsistent { image: self.reference.to_string(), reason: reason.to_owned() }
    }
}

/// The tag of a manifest's list of referrers.
fn tag(subject: Digest) -> String {
    format!("sha256-{}", subject.hex())
}
