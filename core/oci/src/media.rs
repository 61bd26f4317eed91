//! Media types of images (OCI image specification 1.1, media-types; Docker image manifest version 2 schema 2).

use crate::OciError;

/// What a media type says a piece of content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// An image's configuration, OCI's or Docker's.
    Config,
    /// A list of manifests by platform, OCI's index or Docker's list.
    Index,
    /// A layer's tar: plain, gzip or zstd. Which one is decided by its first bytes, as other engines do.
    Layer,
    /// One platform's manifest, OCI's or Docker's schema 2.
    Manifest,
}

/// The value of the `Accept` header with which a manifest is asked for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

impl MediaType {
    /// The media types of manifests and indexes, ready for an `Accept` header.
    pub const fn accepted_documents() -> &'static str {
        ACCEPT
    }

    /// What `text` stands for in the place named `what`. Parameters after `;` do not count.
    ///
    /// # Errors
    /// [`OciError::Unsupported`] with the way out, for everything that is no part of a runnable image.
    pub fn parse(what: &'static str, text: &str) -> Result<Self, OciError> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        match essence {
            "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                Ok(Self::Index)
            }
            "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
                Ok(Self::Manifest)
            }
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json" => {
                Ok(Self::Config)
            }
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Ok(Self::Layer),
            _ => {
                let media_type = essence.chars().take(200).collect();
                Err(OciError::Unsupported { what, media_type, reason: reason(essence) })
            }
        }
    }
}

/// Why a type is refused, as exactly as its name tells.
fn reason(essence: &str) -> &'static str {
    if essence.ends_with("+encrypted") {
        "encrypted layers are not supported; decrypt the image first"
    } else if essence.starts_with("application/vnd.docker.distribution.manifest.v1") {
        "manifests of schema 1 carry no configuration that could be checked; push the image again with a current tool"
    } else {
        "this is not part of a container image; give the reference of an image"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_it_asks_for() {
        for media_type in ACCEPT.split(',') {
            let parsed = MediaType::parse("manifest", media_type).unwrap();
            assert!(matches!(parsed, MediaType::Index | MediaType::Manifest));
        }
        let with_parameter = "application/vnd.oci.image.manifest.v1+json; charset=utf-8";
        assert_eq!(MediaType::parse("manifest", with_parameter), Ok(MediaType::Manifest));
    }

    #[test]
    fn says_why_not() {
        for (media_type, reason) in [
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"),
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
            ("application/vnd.cncf.helm.config.v1+json", "not part of a container image"),
            ("", "not part"),
        ] {
            let error = MediaType::parse("layer", media_type).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
