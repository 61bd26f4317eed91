//! OCI image layouts: the marker file, the index, and finding an image by name (OCI image specification, image-layout).

use serde::Deserialize;

use crate::{Descriptor, Digest, Document, Index, OciError, json, parse_document, shown};

/// The annotation that names an entry of a layout's index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation in which Docker and containerd keep the full reference beside it.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// Bytes of the marker file: it holds one short field.
const MAX_MARKER_BYTES: u64 = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMarker {
    image_layout_version: String,
}

/// Checks the `oci-layout` file of a layout.
///
/// # Errors
/// [`OciError::Malformed`] if it is not such a file, [`OciError::Invalid`] if it names another major version than 1.
pub fn check_layout_marker(bytes: &[u8]) -> Result<(), OciError> {
    let marker: RawMarker = json::parse("the layout's oci-layout file", bytes, MAX_MARKER_BYTES)?;
    if marker.image_layout_version.starts_with("1.") {
        return Ok(());
    }
    let version: String = marker.image_layout_version.chars().take(50).collect();
    let reason = format!("imageLayoutVersion is {version:?}, expected 1.0.0");
    Err(OciError::Invalid { what: "the layout's oci-layout file", reason })
}

/// Parses a layout's `index.json`.
///
/// # Errors
/// As [`parse_document`]; also if it is a manifest.
pub fn parse_layout_index(bytes: &[u8]) -> Result<Index, OciError> {
    match parse_document(bytes, None)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(OciError::Invalid {
            what: "the layout's index.json",
            reason: "it is a manifest, expected an index".to_owned(),
        }),
    }
}

/// The entries of a layout's index that are meant by a name or a digest; all of them if neither is given.
///
/// A name matches the entry's `org.opencontainers.image.ref.name`, or the full reference that Docker and containerd add.
/// What comes back is an index to choose the platform from: a name may stand at one manifest for each platform.
///
/// # Errors
/// [`OciError::NoSuchImage`] with the names that there are if nothing matches, or if the layout holds several names and
/// none was given.
pub fn select_named(index: &Index, name: Option<&str>, digest: Option<Digest>) -> Result<Index, OciError> {
    let matches = |entry: &&Descriptor| {
        digest.is_none_or(|digest| entry.digest == digest)
            && name.is_none_or(|name| {
                [REF_NAME, IMAGE_NAME].iter().any(|key| entry.annotations.get(*key).is_some_and(|there| there == name))
            })
    };
    let found: Vec<Descriptor> = index.manifests.iter().filter(matches).cloned().collect();
    let names = names(index);
    if found.is_empty() {
        let reason = match (name, digest) {
            (_, Some(digest)) => format!("there is no image with digest {digest}"),
            (Some(name), None) => format!("there is no image named {name:?}"),
            (None, None) => "there is no image".to_owned(),
        };
        return Err(OciError::NoSuchImage { reason, available: describe(&names) });
    }
    if name.is_none() && digest.is_none() && names.len() > 1 {
        let reason = "there are several images; say which one by its tag".to_owned();
        return Err(OciError::NoSuchImage { reason, available: describe(&names) });
    }
    Ok(Index { manifests: found })
}

/// The different names in an index, sorted.
fn names(index: &Index) -> Vec<&str> {
    let mut names: Vec<&str> = index
        .manifests
        .iter()
        .filter_map(|entry| entry.annotations.get(IMAGE_NAME).or_else(|| entry.annotations.get(REF_NAME)))
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn describe(names: &[&str]) -> String {
    if names.is_empty() {
        return "none with a name".to_owned();
    }
    names.iter().take(32).map(|name| shown(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index(entries: &[(&str, Option<&str>)]) -> Index {
        let manifests = entries
            .iter()
            .map(|(content, name)| {
                let annotations = name.map_or(String::new(), |name| format!(r#","annotations":{{"{REF_NAME}":"{name}"}}"#));
                format!(
                    r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":1{annotations}}}"#,
                    Digest::of(content.as_bytes())
                )
            })
            .collect::<Vec<_>>()
            .join(",");
        parse_layout_index(format!(r#"{{"schemaVersion":2,"manifests":[{manifests}]}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn finds_by_name_and_digest() {
        let index = index(&[("a", Some("1.0")), ("b", Some("2.0"))]);
        let digest = Digest::of(b"b");
        assert_eq!(select_named(&index, Some("2.0"), None).unwrap().manifests[0].digest, digest);
        assert_eq!(select_named(&index, None, Some(digest)).unwrap().manifests.len(), 1);
        assert!(select_named(&index, Some("1.0"), Some(digest)).is_err());
        let error = select_named(&index, Some("3"), None).unwrap_err().to_string();
        assert!(error.contains("\"3\"") && error.contains("1.0, 2.0"), "{error}");
        assert!(select_named(&index, None, None).unwrap_err().to_string().contains("several"));
    }

    #[test]
    fn names_are_made_harmless() {
        let error = select_named(&index(&[("a", Some("\\u001b[2Jx"))]), Some("3"), None).unwrap_err().to_string();
        assert!(error.contains("\\u{1b}[2Jx") && !error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn one_image_needs_no_name() {
        assert!(select_named(&index(&[("a", None)]), None, None).is_ok());
        assert!(select_named(&index(&[("a", Some("x")), ("b", Some("x"))]), None, None).is_ok());
        assert!(select_named(&index(&[]), None, None).is_err());
    }

    #[test]
    fn checks_the_marker() {
        assert!(check_layout_marker(br#"{"imageLayoutVersion":"1.0.0"}"#).is_ok());
        for bad in [&br#"{"imageLayoutVersion":"2.0.0"}"#[..], b"{}", b"", &[b' '; 5000]] {
            assert!(check_layout_marker(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check_layout_marker(&bytes);
            let _ = parse_layout_index(&bytes);
        }
    }
}
