//! `manifest.json` of `docker save` (Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format").

use serde::Deserialize;

use crate::{OciError, Reference, json, limits};

/// One image of an archive that `docker save` wrote, in its old form or in the one that is an OCI layout too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ArchiveImage {
    /// The path of the configuration inside the archive.
    pub config: String,
    /// The image's references; may be empty.
    #[serde(default, deserialize_with = "json::null_as_default")]
    pub repo_tags: Vec<String>,
    /// The paths of the layers' tars inside the archive, base first.
    #[serde(default, deserialize_with = "json::null_as_default")]
    pub layers: Vec<String>,
}

impl ArchiveImage {
    /// Whether one of the image's references is `name`, which may be short: `busybox` means
    /// `docker.io/library/busybox:latest`.
    pub fn is_named(&self, name: &str) -> bool {
        let Ok(wanted) = Reference::parse(name) else { return false };
        self.repo_tags.iter().any(|tag| tag == name || Reference::parse(tag).is_ok_and(|tag| tag == wanted))
    }
}

/// Parses the archive's `manifest.json`.
///
/// # Errors
/// [`OciError::Malformed`] and, beyond the limits, [`OciError::TooLarge`].
pub fn parse_archive_manifest(bytes: &[u8]) -> Result<Vec<ArchiveImage>, OciError> {
    let images: Vec<ArchiveImage> = json::parse("the archive's manifest.json", bytes, limits::MAX_DOCUMENT_BYTES)?;
    json::check_count("the number of images in the archive", images.len(), limits::MAX_ARCHIVE_IMAGES)?;
    for image in &images {
        json::check_count("the number of layers", image.layers.len(), limits::MAX_LAYERS)?;
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_both_forms() {
        let images = parse_archive_manifest(
            br#"[{"Config":"ab.json","RepoTags":["busybox:1.36"],"Layers":["x/layer.tar"]},
                {"Config":"blobs/sha256/aa","RepoTags":null,"Layers":["blobs/sha256/bb"],"LayerSources":{"sha256:bb":{"size":1}}}]"#,
        )
        .unwrap();
        assert_eq!(images[0].layers, ["x/layer.tar"]);
        assert!(images[0].is_named("docker.io/library/busybox:1.36") && images[0].is_named("busybox:1.36"));
        assert!(!images[0].is_named("busybox") && !images[0].is_named("busy box"));
        assert!(images[1].repo_tags.is_empty());
    }

    #[test]
    fn refuses_other_documents() {
        let many = format!(r#"[{{"Config":"c","Layers":[{}"l"]}}]"#, r#""l","#.repeat(limits::MAX_LAYERS));
        for text in ["", "{}", "[{}]", r#"[{"Config":1,"Layers":[]}]"#, r#"[{"Config":"a","Config":"b"}]"#, &many] {
            assert!(parse_archive_manifest(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_archive_manifest(&bytes);
        }
    }
}
