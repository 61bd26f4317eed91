//! Manifests and indexes, OCI's and Docker's schema 2.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Digest, MediaType, OciError, Platform, json, limits};

/// Points to content by digest and size (OCI image specification, descriptor).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The content's media type as written.
    pub media_type: String,
    /// The content's digest.
    pub digest: Digest,
    /// The content's length in bytes.
    pub size: u64,
    /// In an index: the platform of the image, if said.
    pub platform: Option<Platform>,
    /// Names and other remarks: `org.opencontainers.image.ref.name` in a layout.
    pub annotations: BTreeMap<String, String>,
}

/// One platform's image: a configuration and its layers, base first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration.
    pub config: Descriptor,
    /// The layers, base first; as many as the configuration has diff IDs.
    pub layers: Vec<Descriptor>,
}

/// A list of manifests, usually one for each platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The entries in the order written.
    pub manifests: Vec<Descriptor>,
}

/// What is stored under an image's name: a manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Several images.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    platform: Option<RawPlatform>,
    #[serde(default, deserialize_with = "json::null_as_default")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

/// Every field by which the two kinds of document differ, so that one which has both is seen.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<RawDescriptor>,
    #[serde(default)]
    layers: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    manifests: Option<Vec<RawDescriptor>>,
    /// Of schema 1; its presence beside the others would be another ambiguity.
    #[serde(default, rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl From<RawDescriptor> for Descriptor {
    fn from(raw: RawDescriptor) -> Self {
        let platform = raw.platform.map(|p| Platform::new(&p.os, &p.architecture, p.variant.as_deref()));
        Self { media_type: raw.media_type, digest: raw.digest, size: raw.size, platform, annotations: raw.annotations }
    }
}

/// Parses what a registry, layout or archive holds as an image's manifest or index.
///
/// `declared` is the media type by which it was announced (a `Content-Type`, a descriptor), if any; the document's own
/// `mediaType` must agree with it and both with the fields that are there.
///
/// # Errors
/// [`OciError::Malformed`], [`OciError::TooLarge`], [`OciError::Unsupported`] and, where the document could be read in
/// two ways or contradicts itself, [`OciError::Invalid`].
pub fn parse_document(bytes: &[u8], declared: Option<&str>) -> Result<Document, OciError> {
    let raw: RawDocument = json::parse("the image's manifest", bytes, limits::MAX_DOCUMENT_BYTES)?;
    let invalid = |reason: &str| OciError::Invalid { what: "the image's manifest", reason: reason.to_owned() };
    if raw.schema_version != 2 || raw.fs_layers.is_some() {
        return Err(invalid("it is not of schema version 2; push the image again with a current tool"));
    }
    let kinds = [declared, raw.media_type.as_deref()]
        .into_iter()
        .flatten()
        .filter(|text| !is_vague(text))
        .map(|text| MediaType::parse("the image's manifest", text))
        .collect::<Result<Vec<_>, _>>()?;
    let document = match (raw.config, raw.layers, raw.manifests) {
        (None, None, Some(manifests)) => Document::Index(index(manifests)?),
        (Some(config), Some(layers), None) => Document::Manifest(manifest(config, layers)?),
        (None, None, None) => return Err(invalid("it has neither layers nor manifests")),
        (_, _, Some(_)) => {
            return Err(invalid("it has the fields of a manifest and of an index: it could be read as either"));
        }
        (None, Some(_), None) => return Err(invalid("it has no config")),
        (Some(_), None, None) => return Err(invalid("it has no layers")),
    };
    let kind = match document {
        Document::Index(_) => MediaType::Index,
        Document::Manifest(_) => MediaType::Manifest,
    };
    if kinds.iter().any(|declared| *declared != kind) {
        return Err(invalid("its media type says another kind of document than its fields"));
    }
    Ok(document)
}

/// Types that a plain file server gives to any document.
fn is_vague(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    matches!(essence, "" | "application/json" | "application/octet-stream" | "text/plain")
}

fn index(entries: Vec<RawDescriptor>) -> Result<Index, OciError> {
    json::check_count("the number of entries in the image's index", entries.len(), limits::MAX_INDEX_ENTRIES)?;
    Ok(Index { manifests: entries.into_iter().map(Descriptor::from).collect() })
}

fn manifest(config: RawDescriptor, layers: Vec<RawDescriptor>) -> Result<Manifest, OciError> {
    expect("the image's configuration", &config.media_type, MediaType::Config)?;
    if config.size > limits::MAX_CONFIG_BYTES {
        let what = "the size in bytes of the image's configuration";
        return Err(OciError::TooLarge { what, found: config.size, limit: limits::MAX_CONFIG_BYTES });
    }
    json::check_count("the number of layers", layers.len(), limits::MAX_LAYERS)?;
    for layer in &layers {
        expect("a layer", &layer.media_type, MediaType::Layer)?;
    }
    Ok(Manifest { config: config.into(), layers: layers.into_iter().map(Descriptor::from).collect() })
}

/// Refuses a descriptor in a place where another kind of content belongs.
fn expect(what: &'static str, media_type: &str, wanted: MediaType) -> Result<(), OciError> {
    if MediaType::parse(what, media_type)? == wanted {
        return Ok(());
    }
    let media_type = media_type.chars().take(200).collect();
    Err(OciError::Unsupported { what, media_type, reason: "another kind of content belongs there" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":3}}"#, Digest::of(b"abc"))
    }

    fn sample(layers: usize) -> String {
        let layers = vec![descriptor(LAYER); layers].join(",");
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{layers}],"unknown":1}}"#,
            descriptor(CONFIG)
        )
    }

    #[test]
    fn reads_manifest_and_index() {
        let Ok(Document::Manifest(manifest)) = parse_document(sample(2).as_bytes(), Some(MANIFEST)) else {
            panic!("not a manifest")
        };
        assert_eq!(manifest.layers.len(), 2);
        assert_eq!(manifest.config.digest, Digest::of(b"abc"));

        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{MANIFEST}","digest":"{}","size":3,
            "platform":{{"os":"linux","architecture":"arm","variant":"v7"}},"annotations":{{"a":"b"}}}}]}}"#,
            Digest::of(b"abc")
        );
        let Ok(Document::Index(index)) = parse_document(text.as_bytes(), None) else { panic!("not an index") };
        assert_eq!(index.manifests[0].platform.as_ref().unwrap().to_string(), "linux/arm/v7");
        assert_eq!(index.manifests[0].annotations["a"], "b");
    }

    #[test]
    fn reads_dockers_types() {
        let text = sample(1)
            .replace(MANIFEST, DOCKER_MANIFEST)
            .replace(CONFIG, "application/vnd.docker.container.image.v1+json")
            .replace(LAYER, "application/vnd.docker.image.rootfs.diff.tar.gzip");
        assert!(parse_document(text.as_bytes(), Some(DOCKER_MANIFEST)).is_ok());
        assert!(parse_document(text.as_bytes(), Some("application/json")).is_ok());
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways() {
        let both = sample(1).replace(r#""unknown":1"#, r#""manifests":[]"#);
        let two_types = sample(1);
        let schema_one = sample(1).replace(r#""unknown":1"#, r#""fsLayers":[]"#);
        let twice = sample(1).replace(r#""unknown":1"#, r#""layers":[]"#);
        for (text, declared) in [
            (both.as_str(), None),
            (&two_types, Some(INDEX)),
            (&schema_one, None),
            (&twice, None),
            (r#"{"schemaVersion":2}"#, None),
            (r#"{"schemaVersion":1,"manifests":[]}"#, None),
            (&format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","manifests":[]}}"#), None),
            (&format!(r#"{{"schemaVersion":2,"layers":[],"config":{}}}"#, descriptor(LAYER)), None),
            (&format!(r#"{{"schemaVersion":2,"layers":[{0}],"config":{0}}}"#, descriptor(CONFIG)), None),
            ("[]", None),
            ("", None),
            ("{", None),
        ] {
            assert!(parse_document(text.as_bytes(), declared).is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_too_large() {
        assert!(parse_document(sample(limits::MAX_LAYERS).as_bytes(), None).is_ok());
        let error = parse_document(sample(limits::MAX_LAYERS + 1).as_bytes(), None).unwrap_err();
        assert!(matches!(error, OciError::TooLarge { limit: 240, .. }), "{error}");
        let padded = sample(1) + &" ".repeat(usize::try_from(limits::MAX_DOCUMENT_BYTES).unwrap());
        assert!(matches!(parse_document(padded.as_bytes(), None), Err(OciError::TooLarge { .. })));
        let nested = "[".repeat(100_000);
        assert!(matches!(parse_document(nested.as_bytes(), None), Err(OciError::Malformed { .. })));
        let config = descriptor(CONFIG).replace(r#""size":3"#, r#""size":99999999"#);
        let text = format!(r#"{{"schemaVersion":2,"layers":[],"config":{config}}}"#);
        assert!(matches!(parse_document(text.as_bytes(), None), Err(OciError::TooLarge { .. })));
        let negative = sample(1).replace(r#""size":3"#, r#""size":-3"#);
        assert!(parse_document(negative.as_bytes(), None).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_document(&bytes, None);
        }

        #[test]
        fn a_damaged_manifest_keeps_the_bounds(position in 0usize..600, byte: u8) {
            let mut text = sample(2).into_bytes();
            let position = position % text.len();
            text[position] = byte;
            if let Ok(Document::Manifest(manifest)) = parse_document(&text, None) {
                prop_assert!(manifest.layers.len() <= limits::MAX_LAYERS);
            }
        }
    }
}
