//! Images in registries (OCI distribution specification 1.1, pull; Docker Registry HTTP API V2 and its token protocol).
//!
//! ```text
//! GET /v2/                         200, or 401 with a challenge: which scheme works, what login is wanted
//! GET <realm>?service=…&scope=…    a token, if the challenge is Bearer
//! GET /v2/<name>/manifests/<ref>   index or manifest, by tag or digest
//! GET /v2/<name>/blobs/<digest>    configuration and layers; resumed by Range where it breaks off
//! ```

mod auth;
mod blob;
mod challenge;
mod credentials;
pub(crate) mod http;
pub(crate) mod proxy;
mod push;
mod referrers;
mod tls;

use std::io::Read;
use std::sync::OnceLock;

use caveau_oci::{Descriptor, Digest, Document, Manifest, MediaType, Reference, limits, parse_document};

use crate::plan::{LayerSource, LayerSpec, Plan};
use crate::{Options, Progress, RegistryError};
use blob::BlobReader;
use http::Session;

pub(crate) use credentials::config_dir as docker_config_dir;
pub use proxy::Proxies;
pub use referrers::{Artifact, Attached, Referrer, attach, discover};

/// An image's repository in its registry. Nothing is sent before something is asked for.
pub(crate) struct Remote<'a> {
    reference: &'a Reference,
    options: &'a Options,
    progress: &'a dyn Progress,
    session: OnceLock<Session<'a>>,
}

impl<'a> Remote<'a> {
    pub(crate) fn new(reference: &'a Reference, options: &'a Options, progress: &'a dyn Progress) -> Self {
        Self { reference, options, progress, session: OnceLock::new() }
    }

    /// The connection's state, made when first needed. Two threads may make it at once; the first one's stays.
    fn session(&self) -> Result<&Session<'a>, RegistryError> {
        if let Some(session) = self.session.get() {
            return Ok(session);
        }
        let session = Session::connect(self.reference, self.options, self.progress)?;
        Ok(self.session.get_or_init(|| session))
    }

    /// What the reference means now.
    pub(crate) fn plan(&self, image: &str) -> Result<Plan, RegistryError> {
        let (bytes, _, manifest) = self.platform_manifest(image)?;
        let config = self.document(&manifest.config)?;
        Plan::of_manifest(image, Digest::of(&bytes), bytes, &manifest, config)
    }

    /// The manifest of the platform that is wanted: its bytes, the type that the registry says it has, and what it says.
    fn platform_manifest(&self, image: &str) -> Result<(Vec<u8>, Option<String>, Manifest), RegistryError> {
        let mut identifier = self.reference.identifier();
        let mut expected = self.reference.digest();
        let mut size = None;
        for _ in 0..limits::MAX_INDEX_DEPTH {
            let (bytes, media_type) = self.manifest(&identifier, expected, size)?;
            match parse_document(&bytes, media_type.as_deref())? {
                Document::Index(index) => {
                    let entry = self.options.platform.select(&index)?;
                    (identifier, expected, size) = (entry.digest.to_string(), Some(entry.digest), Some(entry.size));
                }
                Document::Manifest(manifest) => return Ok((bytes, media_type, manifest)),
            }
        }
        Err(RegistryError::Inconsistent {
            image: image.to_owned(),
            reason: "its indexes are nested too deep".to_owned(),
        })
    }

    /// A manifest or index and the type that the registry says it has.
    fn manifest(
        &self,
        identifier: &str,
        expected: Option<Digest>,
        size: Option<u64>,
    ) -> Result<(Vec<u8>, Option<String>), RegistryError> {
        let session = self.session()?;
        let path = format!("manifests/{identifier}");
        let accept = MediaType::accepted_documents();
        let (bytes, media_type) = session.document(&path, Some(accept), limits::MAX_DOCUMENT_BYTES)?;
        check(&format!("manifest {identifier}"), &bytes, expected, size)?;
        Ok((bytes, media_type))
    }

    /// A configuration.
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let path = format!("blobs/{}", descriptor.digest);
        let (bytes, _) = self.session()?.document(&path, None, limits::MAX_CONFIG_BYTES)?;
        check(&format!("blob {}", descriptor.digest), &bytes, Some(descriptor.digest), Some(descriptor.size))?;
        Ok(bytes)
    }
}

/// Holds content against what is known of it.
fn check(what: &str, bytes: &[u8], digest: Option<Digest>, size: Option<u64>) -> Result<(), RegistryError> {
    let found = bytes.len() as u64;
    if let Some(expected) = size.filter(|expected| *expected != found) {
        return Err(RegistryError::WrongSize { what: what.to_owned(), expected, found });
    }
    Ok(digest.map_or(Ok(()), |digest| digest.check(what, bytes))?)
}

impl LayerSource for Remote<'_> {
    fn open(&self, layer: &LayerSpec, skipped: u64) -> Result<Box<dyn Read + Send + '_>, RegistryError> {
        let digest = layer.blob.unwrap_or(layer.diff_id);
        Ok(Box::new(BlobReader::open(self.session()?, digest, layer.size, skipped)?))
    }

    fn is_remote(&self) -> bool {
        true
    }
}
