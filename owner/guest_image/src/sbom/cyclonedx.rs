//! A bill of materials in CycloneDX's form (ECMA-424, CycloneDX specification 1.6, JSON), as far as a guest needs it. Fields are
//! written in the order of these types, so that the same contents are the same bytes.

use serde::Serialize;

use crate::Sha256;

/// The document (`bom`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bom {
    #[serde(rename = "$schema")]
    schema: &'static str,
    bom_format: &'static str,
    spec_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    version: u32,
    metadata: Metadata,
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
}

impl Bom {
    /// A document whose serial number follows from what is in it.
    pub(super) fn new(metadata: Metadata, components: Vec<Component>, dependencies: Vec<Dependency>) -> Self {
        let mut bom = Self {
            schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
            bom_format: "CycloneDX",
            spec_version: "1.6",
            serial_number: None,
            version: 1,
            metadata,
            components,
            dependencies,
        };
        bom.serial_number = Some(format!("urn:uuid:{}", uuid(Sha256::of(bom.to_json().as_bytes()))));
        bom
    }

    /// Its text.
    pub(super) fn to_json(&self) -> String {
        // Strings, numbers and lists always serialize.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// A UUID of version 8, made of a digest (RFC 9562, section 5.8).
fn uuid(digest: Sha256) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    bytes[6] = 0x80 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// What the document is about and who wrote it (`metadata`). It has no time, so that it is the same whenever it is written.
#[derive(Debug, Serialize)]
pub(super) struct Metadata {
    pub(super) lifecycles: Vec<Lifecycle>,
    pub(super) tools: Tools,
    pub(super) component: Component,
}

/// When what is in the document was learnt (`metadata.lifecycles`).
#[derive(Debug, Serialize)]
pub(super) struct Lifecycle {
    pub(super) phase: &'static str,
}

/// What wrote the document (`metadata.tools`).
#[derive(Debug, Serialize)]
pub(super) struct Tools {
    pub(super) components: Vec<Component>,
}

/// A thing (`component`).
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Component {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// By what it is named within the document, where it is.
    #[serde(rename = "bom-ref", skip_serializing_if = "Option::is_none")]
    pub(super) bom_ref: Option<String>,
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) licenses: Vec<LicenseChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) purl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pedigree: Option<Pedigree>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) properties: Vec<Property>,
}

impl Component {
    /// With a property that is Caveau's own.
    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.properties.push(Property { name: format!("caveau:{name}"), value: value.into() });
        self
    }
}

/// A digest (`hash`).
#[derive(Debug, Serialize)]
pub(super) struct Hash {
    alg: &'static str,
    content: Sha256,
}

impl Hash {
    /// As the only one of a component.
    pub(super) fn only(content: Sha256) -> Vec<Self> {
        vec![Self { alg: "SHA-256", content }]
    }
}

/// A licence (`licenseChoice`).
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum LicenseChoice {
    /// An SPDX expression, alone in its list.
    Expression {
        /// The expression.
        expression: String,
    },
    /// One by a name that somebody gave it.
    License {
        /// The name.
        license: NamedLicense,
    },
}

/// A licence's name (`license.name`).
#[derive(Debug, Serialize)]
pub(super) struct NamedLicense {
    name: String,
}

impl LicenseChoice {
    /// An SPDX expression. The slash is what Cargo's manifests had for OR once (The Cargo Book, "The license and license-file
    /// fields").
    pub(super) fn expression(text: &str) -> Self {
        let words: Vec<&str> = text.split('/').map(str::trim).collect();
        Self::Expression { expression: words.join(" OR ") }
    }

    /// Not an SPDX expression.
    pub(super) fn named(name: &str) -> Self {
        Self::License { license: NamedLicense { name: name.to_owned() } }
    }
}

/// What something was made of (`pedigree`).
#[derive(Debug, Serialize)]
pub(super) struct Pedigree {
    pub(super) ancestors: Vec<Component>,
}

/// A name and a value (`property`).
#[derive(Debug, Serialize)]
pub(super) struct Property {
    name: String,
    value: String,
}

/// What something needs (`dependency`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dependency {
    #[serde(rename = "ref")]
    pub(super) of: String,
    pub(super) depends_on: Vec<String>,
}

/// A package URL of a Debian package (purl specification, types `deb`).
pub(super) fn deb(name: &str, version: &str) -> String {
    format!("pkg:deb/debian/{}@{}", encoded(name), encoded(version))
}

/// A package URL of a crate (purl specification, type `cargo`). One of the checkout is told from one of the registry that may have
/// the same name.
pub(super) fn cargo(name: &str, version: &str, of_checkout: bool) -> String {
    let place = if of_checkout { "?download_url=file://." } else { "" };
    format!("pkg:cargo/{}@{}{place}", encoded(name), encoded(version))
}

/// With all escaped that has a meaning in a package URL (purl specification, "Rules for each purl component").
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'.' | b'-' | b'_' | b'~' | b':' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_are_escaped() {
        assert_eq!(deb("libstdc++6", "1:6.12-1~bpo12+1"), "pkg:deb/debian/libstdc%2B%2B6@1:6.12-1~bpo12%2B1");
        assert_eq!(cargo("a", "1.0.0+x", false), "pkg:cargo/a@1.0.0%2Bx");
        assert_eq!(cargo("a", "1.0.0", true), "pkg:cargo/a@1.0.0?download_url=file://.");
    }

    #[test]
    fn old_expressions_become_new_ones() {
        let text = |text: &str| serde_json::to_string(&LicenseChoice::expression(text)).unwrap();
        assert_eq!(text("MIT/Apache-2.0"), r#"{"expression":"MIT OR Apache-2.0"}"#);
        assert_eq!(text("Apache-2.0 / MIT"), r#"{"expression":"Apache-2.0 OR MIT"}"#);
        assert_eq!(
            text("(MIT OR Apache-2.0) AND Unicode-3.0"),
            r#"{"expression":"(MIT OR Apache-2.0) AND Unicode-3.0"}"#
        );
    }

    #[test]
    fn serial_numbers_have_version_8() {
        let text = uuid(Sha256::of(b""));
        assert_eq!(text, "e3b0c442-98fc-8c14-9afb-f4c8996fb924");
    }
}
