//! Platforms: which of an index's manifests is meant.

use std::fmt;
use std::str::FromStr;

use crate::{Descriptor, Index, OciError, shown};

/// An operating system, a processor architecture and maybe its variant, by Go's names (OCI image index, `platform`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// `linux/amd64`, what a guest runs unless told otherwise.
    pub fn linux_amd64() -> Self {
        Self { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None }
    }

    /// The platform of these parts, as an index entry or a configuration gives them. An empty variant is none.
    pub(crate) fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let variant = variant.filter(|variant| !variant.is_empty()).map(str::to_owned);
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant }
    }

    /// The operating system: `linux`.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The processor architecture by Go's name: `amd64`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Whether an image made for `offered` runs where this platform is wanted: the same system and architecture, and
    /// no other variant than the one wanted (or, where none is wanted, than the architecture's base).
    pub fn accepts(&self, offered: &Self) -> bool {
        self.os == offered.os
            && self.architecture == offered.architecture
            && match (&self.variant, &offered.variant) {
                (Some(wanted), Some(offered)) => wanted == offered,
                (Some(_), None) => true,
                (None, Some(offered)) => Some(offered.as_str()) == base_variant(&self.architecture),
                (None, None) => true,
            }
    }

    /// The first entry of `index` for this platform; an entry that names the wanted variant goes before one that names none.
    ///
    /// # Errors
    /// [`OciError::NoPlatform`] with the platforms that there are.
    pub fn select<'a>(&self, index: &'a Index) -> Result<&'a Descriptor, OciError> {
        let platform_of = |entry: &&Descriptor| entry.platform.clone();
        let exact = index.manifests.iter().find(|entry| platform_of(entry).as_ref() == Some(self));
        exact
            .or_else(|| index.manifests.iter().find(|entry| platform_of(entry).is_some_and(|p| self.accepts(&p))))
            .or_else(|| single_unmarked(index))
            .ok_or_else(|| OciError::NoPlatform { wanted: self.to_string(), available: list(index) })
    }
}

/// The only entry of an index, if it says no platform: its configuration will say, and is checked later.
fn single_unmarked(index: &Index) -> Option<&Descriptor> {
    match index.manifests.as_slice() {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    }
}

/// The variant that an architecture's name alone means (containerd's normalisation).
fn base_variant(architecture: &str) -> Option<&'static str> {
    match architecture {
        "amd64" => Some("v1"),
        "arm64" => Some("v8"),
        "arm" => Some("v7"),
        _ => None,
    }
}

/// The platforms of an index for an error's text.
fn list(index: &Index) -> String {
    let names: Vec<String> = index
        .manifests
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(ToString::to_string)
        .take(32)
        .collect();
    if names.is_empty() { "none with a platform".to_owned() } else { names.join(", ") }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Those of an image may be anything.
        write!(f, "{}/{}", shown(&self.os), shown(&self.architecture))?;
        match &self.variant {
            Some(variant) => write!(f, "/{}", shown(variant)),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let bad = || OciError::BadPlatform { text: text.chars().take(100).collect() };
        let mut parts = text.split('/');
        let (Some(os), Some(architecture), variant, None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let word = |part: &str| {
            !part.is_empty() && part.len() <= 32 && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if word(os) && word(architecture) && variant.is_none_or(word) {
            Ok(Self::new(os, architecture, variant))
        } else {
            Err(bad())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Digest;

    fn index(platforms: &[Option<&str>]) -> Index {
        let manifests = platforms
            .iter()
            .enumerate()
            .map(|(number, platform)| Descriptor {
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                digest: Digest::of(&[u8::try_from(number).unwrap()]),
                size: 1,
                platform: platform.map(|text| text.parse().unwrap()),
                annotations: Default::default(),
            })
            .collect();
        Index { manifests }
    }

    fn pick(wanted: &str, platforms: &[Option<&str>]) -> Result<usize, OciError> {
        let index = index(platforms);
        let wanted: Platform = wanted.parse().unwrap();
        let chosen = wanted.select(&index)?.digest;
        Ok(index.manifests.iter().position(|entry| entry.digest == chosen).unwrap())
    }

    #[test]
    fn picks_by_platform() {
        assert_eq!(pick("linux/amd64", &[Some("linux/arm64"), Some("linux/amd64")]), Ok(1));
        assert_eq!(pick("linux/arm64", &[Some("linux/arm64/v8"), Some("linux/amd64")]), Ok(0));
        assert_eq!(pick("linux/amd64", &[Some("linux/amd64/v3"), Some("linux/amd64")]), Ok(1));
        assert_eq!(pick("linux/amd64/v3", &[Some("linux/amd64"), Some("linux/amd64/v3")]), Ok(1));
        assert_eq!(pick("linux/arm/v6", &[Some("linux/arm/v7"), Some("linux/arm/v6")]), Ok(1));
        assert_eq!(pick("linux/arm", &[Some("linux/arm/v6"), Some("linux/arm/v7")]), Ok(1));
        assert_eq!(pick("linux/amd64", &[None]), Ok(0));
    }

    #[test]
    fn says_what_there_is() {
        let error = pick("linux/amd64", &[Some("linux/arm64"), Some("unknown/unknown")]).unwrap_err();
        assert_eq!(error.to_string(), "the image has no variant for platform linux/amd64; it has linux/arm64");
        assert!(pick("linux/amd64", &[Some("linux/amd64/v3")]).is_err());
        assert!(pick("linux/amd64", &[]).is_err());
        assert!(pick("linux/amd64", &[None, None]).is_err());
    }

    #[test]
    fn what_an_image_says_is_made_harmless() {
        let text = Platform::new("\u{1b}[2J", &"a".repeat(5000), Some("v\n1")).to_string();
        assert!(text.starts_with("\\u{1b}[2J/aaa") && text.ends_with("…/v\\n1") && text.len() < 300, "{text}");
    }

    #[test]
    fn refuses_other_words() {
        for text in ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "Linux/amd64", "linux/amd 64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(text in "[a-z0-9]{1,9}/[a-z0-9]{1,9}(/[a-z0-9]{1,9})?") {
            let platform: Platform = text.parse().unwrap();
            prop_assert!(platform.accepts(&platform));
            prop_assert_eq!(platform.to_string(), text);
        }
    }
}
