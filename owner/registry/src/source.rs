//! Where an image comes from.

use std::fmt;
use std::path::PathBuf;

use caveau_oci::{Digest, Reference};

use crate::RegistryError;

/// The place of an image, and which image there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// `docker-archive:FILE[:REFERENCE][@sha256:…]`: a tar as `docker save` writes it, old or new form. The digest is that of the manifest
    /// where the archive has one, or of the configuration (the image ID).
    DockerArchive(LocalImage),
    /// `oci:DIR[:TAG][@sha256:…]`: an OCI image layout.
    OciLayout(LocalImage),
    /// `oci-archive:FILE[:TAG][@sha256:…]`: a tar of an OCI image layout.
    OciArchive(LocalImage),
    /// `[docker://][REGISTRY/]NAME[:TAG][@sha256:…]`: an image in a registry.
    Registry(Reference),
}

/// An image in a file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// The file or folder.
    pub path: PathBuf,
    /// The image's tag or reference there; not needed if there is one image.
    pub name: Option<String>,
    /// The digest that the image must have.
    pub digest: Option<Digest>,
}

impl ImageSource {
    /// Parses a source as it is written on a command line. A path ends at its first colon, as with other tools.
    ///
    /// # Errors
    /// [`RegistryError::BadSource`] if the path is empty or the digest malformed, and the errors of [`Reference::parse`].
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        if let Some(rest) = text.strip_prefix("oci:") {
            return Ok(Self::OciLayout(local(text, rest)?));
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            return Ok(Self::OciArchive(local(text, rest)?));
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            return Ok(Self::DockerArchive(local(text, rest)?));
        }
        let reference = text.strip_prefix("docker://").unwrap_or(text);
        Ok(Self::Registry(Reference::parse(reference)?))
    }
}

/// Parses `PATH[:NAME][@DIGEST]`.
fn local(text: &str, rest: &str) -> Result<LocalImage, RegistryError> {
    let bad =
        |reason: &str| RegistryError::BadSource { text: text.chars().take(300).collect(), reason: reason.to_owned() };
    let (place, digest) = match rest.split_once("@sha256:") {
        Some((place, hex)) => {
            (place, Some(Digest::from_hex(hex).map_err(|_| bad("@sha256: needs 64 hex digits after it"))?))
        }
        None => (rest, None),
    };
    let (path, name) = match place.split_once(':') {
        Some((_, "")) => return Err(bad("nothing follows the colon after the path")),
        Some((path, name)) => (path, Some(name.to_owned())),
        None => (place, None),
    };
    if path.is_empty() || path.contains('\0') {
        return Err(bad("it needs the path of a file or folder"));
    }
    Ok(LocalImage { path: PathBuf::from(path), name, digest })
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, image) = match self {
            Self::DockerArchive(image) => ("docker-archive", image),
            Self::OciLayout(image) => ("oci", image),
            Self::OciArchive(image) => ("oci-archive", image),
            Self::Registry(reference) => return reference.fmt(f),
        };
        write!(f, "{kind}:{}", image.path.display())?;
        if let Some(name) = &image.name {
            write!(f, ":{name}")?;
        }
        if let Some(digest) = &image.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for ImageSource {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn reads_every_kind() {
        for text in [
            "docker.io/library/nginx:1".to_owned(),
            "oci:dir".to_owned(),
            "oci:/a/dir:v1".to_owned(),
            format!("oci:dir@sha256:{HEX}"),
            format!("oci-archive:file.tar:tag@sha256:{HEX}"),
            "docker-archive:x.tar:docker.io/library/busybox:1.36".to_owned(),
        ] {
            assert_eq!(ImageSource::parse(&text).unwrap().to_string(), text);
        }
        let short = ImageSource::parse("docker://busybox").unwrap();
        assert_eq!(short.to_string(), "docker.io/library/busybox:latest");
        let ImageSource::DockerArchive(image) = ImageSource::parse("docker-archive:x.tar:a:b").unwrap() else {
            panic!("wrong kind")
        };
        assert_eq!((image.path.to_str(), image.name.as_deref()), (Some("x.tar"), Some("a:b")));
    }

    #[test]
    fn refuses_what_names_nothing() {
        for text in
            ["oci:", "oci::tag", "oci:dir:", "oci:dir@sha256:12", "docker-archive:", "", "UPPER", "oci:@sha256:12"]
        {
            assert!(ImageSource::parse(text).is_err(), "{text}");
        }
    }
}
