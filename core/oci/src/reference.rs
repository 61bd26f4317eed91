//! Names of images: `registry/repository:tag@digest`, with Docker's defaults.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, OciError, limits};

/// The registry that a name without one means.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The older name of the same registry.
const LEGACY_REGISTRY: &str = "index.docker.io";
/// The namespace of a name with one component at the default registry.
const OFFICIAL_NAMESPACE: &str = "library/";
/// The tag of a reference with neither tag nor digest.
const DEFAULT_TAG: &str = "latest";

/// A complete image reference: registry, repository, and a tag, a digest or both.
///
/// Short names get Docker's defaults, so `nginx` is `docker.io/library/nginx:latest`. Where both a tag and a digest are
/// there, the digest decides and the tag is only for readers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses a reference (grammar of the distribution project, package `reference`), filling in the defaults.
    ///
    /// # Errors
    /// [`OciError::BadReference`] with the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, OciError> {
        let bad = |reason| OciError::BadReference { text: text.chars().take(200).collect(), reason };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.len() > limits::MAX_REFERENCE_BYTES {
            return Err(bad("it is longer than 1024 bytes"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| bad("what follows @ must be sha256: and 64 hex digits"))?))
            }
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(bad("a tag is 1 to 128 letters, digits, '_', '.', '-', not starting with '.' or '-'"));
        }
        let (registry, repository) = split_registry(name);
        if !is_registry(registry) {
            return Err(bad("the registry must be a host name or address, with a port if need be"));
        }
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("{OFFICIAL_NAMESPACE}{repository}")
        } else {
            repository.to_owned()
        };
        if !is_repository(&repository) {
            return Err(bad(
                "the repository must be lower-case letters and digits, parted by '/', '.', '_', '__' or '-'",
            ));
        }
        if registry.len().saturating_add(repository.len()) >= limits::MAX_NAME_BYTES {
            return Err(bad("registry and repository are longer than 255 bytes"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// The registry's host, with its port if one was given: `docker.io`, `127.0.0.1:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository at the registry: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. There always is one if there is no digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index, if the reference pins one.
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What stands after `/manifests/` in a request: the digest if there is one, else the tag.
    pub fn identifier(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        Self::parse(text)
    }
}

/// Parts `name:tag`. A colon before the last slash belongs to the registry's port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// Parts registry and repository: the first component is a registry only if it looks like a host, as Docker decides.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || first.starts_with('[') => {
            (if first == LEGACY_REGISTRY { DEFAULT_REGISTRY } else { first }, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

/// `[\w][\w.-]{0,127}`.
fn is_tag(tag: &str) -> bool {
    tag.len() <= limits::MAX_TAG_BYTES
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && tag.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
}

/// A host name, an IPv4 address or an IPv6 address in brackets, with an optional port.
fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => return address.parse::<core::net::Ipv6Addr>().is_ok(),
            Some((address, port)) => {
                return address.parse::<core::net::Ipv6Addr>().is_ok() && port.strip_prefix(':').is_some_and(is_port);
            }
            None => return false,
        },
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Path components of lower-case letters and digits, parted inside by one `.`, one or two `_`, or any number of `-`.
fn is_repository(repository: &str) -> bool {
    repository.split('/').all(|component| {
        let bytes = component.as_bytes();
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.split(alphanumeric).all(|separator| {
                matches!(separator, [] | [b'.'] | [b'_'] | [b'_', b'_']) || separator.iter().all(|byte| *byte == b'-')
            })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn fills_in_dockers_defaults() {
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx:1", "docker.io/library/nginx:1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("ghcr.io/a_b/c__d/e-f.g:V1.0_x-y", "ghcr.io/a_b/c__d/e-f.g:V1.0_x-y"),
            ("a---b", "docker.io/library/a---b:latest"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn digest_decides_and_tag_stays() {
        let reference = Reference::parse(&format!("nginx:1@sha256:{HEX}")).unwrap();
        assert_eq!(reference.tag(), Some("1"));
        assert_eq!(reference.identifier(), format!("sha256:{HEX}"));
        assert_eq!(reference.to_string(), format!("docker.io/library/nginx:1@sha256:{HEX}"));
        let reference = Reference::parse(&format!("nginx@sha256:{HEX}")).unwrap();
        assert_eq!(reference.tag(), None);
    }

    #[test]
    fn refuses_what_the_grammar_does_not_allow() {
        let long_tag = format!("nginx:{}", "a".repeat(129));
        let long_name = format!("nginx/{}", "a".repeat(250));
        let long = "a/".repeat(600);
        for text in [
            "",
            ":tag",
            "nginx:",
            "Nginx",
            "nginx:.x",
            "nginx:a b",
            "nginx@sha256:abc",
            "nginx@md5:00",
            "a//b",
            "/a",
            "a/",
            "../../etc/passwd",
            "example.com/../x",
            "a..b/c",
            "a___b",
            "a_-b",
            "-a",
            "a-",
            "exam ple.com/x",
            "example.com:0/x",
            "example.com:99999/x",
            "example.com:+80/x",
            "ex?ample.com/x",
            "user@example.com/x",
            "[::g]:5000/x",
            "[::1/x",
            "http://example.com/x",
            "nginx\n",
            "nginx\0",
            &long_tag,
            &long_name,
            &long,
        ] {
            assert!(matches!(Reference::parse(text), Err(OciError::BadReference { .. })), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(
            registry in "([a-z][a-z0-9]{0,8}\\.[a-z]{2,3}|localhost)(:[1-9][0-9]{0,3})?",
            repository in "[a-z0-9]{1,8}(([._]|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,8}){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
            bytes in proptest::option::of(any::<[u8; 32]>()),
        ) {
            let digest = bytes.map(Digest::from_bytes);
            let mut text = format!("{registry}/{repository}");
            if let Some(tag) = &tag { text += &format!(":{tag}"); }
            if let Some(digest) = &digest { text += &format!("@{digest}"); }
            let parsed = Reference::parse(&text).unwrap();
            prop_assert_eq!(parsed.registry(), registry);
            prop_assert_eq!(parsed.repository(), repository);
            prop_assert_eq!(parsed.digest(), digest);
            prop_assert_eq!(Reference::parse(&parsed.to_string()).unwrap(), parsed);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,300}") {
            if let Ok(reference) = Reference::parse(&text) {
                let full = reference.to_string();
                prop_assert_eq!(Reference::parse(&full).unwrap(), reference);
                prop_assert!(!full.contains("..") && !full.contains("//"));
            }
        }
    }
}
