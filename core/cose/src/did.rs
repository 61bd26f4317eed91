//! did:x509: a name for whoever holds a certificate of a certain kind under a certain authority.
//!
//! Source: the did:x509 method, version 0. A name is `did:x509:0:HASH:FINGERPRINT::POLICY[::POLICY…]`: the digest of an
//! authority's certificate in unpadded base64url, and what the signer's certificate must have:
//!
//! ```text
//! eku:OID                           this extended key usage
//! subject:KEY:VALUE[:KEY:VALUE…]    these attributes in its subject
//! san:TYPE:VALUE                    this alternative name; TYPE is dns, email, ipaddress or uri
//! fulcio-issuer:HOST[/PATH]         Fulcio's extension with https://HOST[/PATH]
//! ```
//!
//! Values are percent-encoded. Stricter than the tools of Azure Container Instances: a `+` is refused, which some read
//! as a space and others as itself; so are spaces that are not encoded, and parts that nobody would look at. Not as
//! they do, an extended key usage may be one of the standard ones alone: they ask for one further to be there.

use core::net::IpAddr;
use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use caveau_signature::Hash;

use crate::certificate::Certificate;
use crate::chain::Chain;
use crate::name::SubjectAlternativeName;
use crate::oid;

/// Longest name accepted, in bytes.
pub const MAX_DID_BYTES: usize = 8 * 1024;
/// Most policies of a name.
const MAX_POLICIES: usize = 16;
/// Most attributes of a subject policy.
const MAX_ATTRIBUTES: usize = 32;

/// Keys of the subject policy, and the contents of the attribute types' identifiers (2.5.4). `S` is what Azure's tools
/// know, `ST` what the method says; `C`, `O` and the like may come several times in a subject, `CN` and `SERIALNUMBER`
/// may not.
const SUBJECT_KEYS: [(&str, &[u8], bool); 10] = [
    ("C", &[0x55, 4, 6], true),
    ("CN", &[0x55, 4, 3], false),
    ("L", &[0x55, 4, 7], true),
    ("O", &[0x55, 4, 10], true),
    ("OU", &[0x55, 4, 11], true),
    ("POSTALCODE", &[0x55, 4, 17], true),
    ("S", &[0x55, 4, 8], true),
    ("SERIALNUMBER", &[0x55, 4, 5], false),
    ("ST", &[0x55, 4, 8], true),
    ("STREET", &[0x55, 4, 9], true),
];

/// A did:x509. Shown as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DidX509 {
    text: String,
    hash: Hash,
    fingerprint: Vec<u8>,
    policies: Vec<Policy>,
}

/// What a signer's certificate must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// An extended key usage: the contents of its object identifier.
    Eku(Vec<u8>),
    /// The issuer in Fulcio's extension, with `https://` before it.
    FulcioIssuer(String),
    /// An alternative name.
    San(San),
    /// Attributes of the subject: (contents of the type's object identifier, text).
    Subject(Vec<(Vec<u8>, String)>),
}

/// An alternative name that must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    /// A DNS name.
    Dns(String),
    /// A mailbox.
    Email(String),
    /// An IP address.
    IpAddress(IpAddr),
    /// A URI.
    Uri(String),
}

/// Why a text is no did:x509, or does not name a chain's signer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DidError {
    /// No did:x509 of a form that is understood.
    #[error("`{did}` is no did:x509 that is understood: {problem}")]
    Malformed {
        /// Its beginning.
        did: String,
        /// What is wrong.
        problem: String,
    },
    /// No authority of the chain has the fingerprint.
    #[error("no authority of the chain has the {hash} fingerprint {expected}; they have: {found}")]
    Fingerprint {
        /// The hash function's name.
        hash: &'static str,
        /// What the name says.
        expected: String,
        /// What they have, separated by commas.
        found: String,
    },
    /// The signer's certificate lacks what a policy asks for.
    #[error("the signer's certificate has no {0}")]
    Policy(String),
}

impl DidX509 {
    /// Reads a name.
    ///
    /// # Errors
    /// [`DidError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, DidError> {
        let malformed = |problem: String| DidError::Malformed { did: text.chars().take(200).collect(), problem };
        if text.len() > MAX_DID_BYTES {
            return Err(malformed(format!("it has {} bytes, at most {MAX_DID_BYTES} are accepted", text.len())));
        }
        let mut parts = text.split("::");
        let prefix: Vec<&str> = parts.next().unwrap_or_default().split(':').collect();
        let ["did", "x509", version, hash, fingerprint] = prefix.as_slice() else {
            return Err(malformed("expected did:x509:0:HASH:FINGERPRINT::POLICY".to_owned()));
        };
        if *version != "0" {
            return Err(malformed(format!("version {version}, expected 0")));
        }
        let hash = Hash::ALL.into_iter().find(|known| known.name() == *hash);
        let hash = hash.ok_or_else(|| malformed("the hash is none of sha256, sha384 and sha512".to_owned()))?;
        let fingerprint = BASE64_URL_SAFE_NO_PAD.decode(fingerprint).ok().filter(|bytes| bytes.len() == hash.length());
        let fingerprint = fingerprint.ok_or_else(|| {
            malformed(format!("the fingerprint is no {} digest in base64url without padding", hash.name()))
        })?;
        let policies: Vec<Policy> = parts.map(|part| policy(part).map_err(malformed)).collect::<Result<_, _>>()?;
        if policies.is_empty() || policies.len() > MAX_POLICIES {
            return Err(malformed(format!("{} policies, expected from 1 to {MAX_POLICIES}", policies.len())));
        }
        Ok(Self { text: text.to_owned(), hash, fingerprint, policies })
    }

    /// The name of the signer of a chain: by the authority with this place in the chain (1 is the issuer of the
    /// signer's certificate, the last is the root) and by policies. `None` where there is no such authority.
    #[must_use]
    pub fn of(chain: &[&[u8]], authority: usize, hash: Hash, policies: &[Policy]) -> Option<Self> {
        let der = chain.get(authority).filter(|_| authority > 0)?;
        let fingerprint = hash.digest(der);
        let mut text = format!("did:x509:0:{}:{}", hash.name(), BASE64_URL_SAFE_NO_PAD.encode(&fingerprint));
        for policy in policies {
            text.push_str("::");
            text.push_str(&policy.to_string());
        }
        // Read back, so that there is one form of each name.
        Self::parse(&text).ok()
    }

    /// What the signer's certificate must have.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Checks that this names the signer of a chain.
    ///
    /// # Errors
    /// [`DidError::Fingerprint`] and [`DidError::Policy`].
    pub fn check(&self, chain: &Chain<'_>) -> Result<(), DidError> {
        let digests: Vec<_> = chain.authorities().iter().map(|authority| self.hash.digest(authority.der())).collect();
        if !digests.contains(&self.fingerprint) {
            let found: Vec<_> = digests.iter().map(|digest| BASE64_URL_SAFE_NO_PAD.encode(digest)).collect();
            return Err(DidError::Fingerprint {
                hash: self.hash.name(),
                expected: BASE64_URL_SAFE_NO_PAD.encode(&self.fingerprint),
                found: found.join(", "),
            });
        }
        let leaf = chain.leaf().map_err(|error| DidError::Policy(error.to_string()))?;
        match self.policies.iter().find(|policy| !policy.holds(leaf)) {
            None => Ok(()),
            Some(policy) => Err(DidError::Policy(policy.describe())),
        }
    }
}

impl std::str::FromStr for DidX509 {
    type Err = DidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for DidX509 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Policy {
    fn holds(&self, leaf: &Certificate<'_>) -> bool {
        match self {
            Self::Eku(oid) => leaf.extended_key_usage().contains(&oid.as_slice()),
            Self::FulcioIssuer(issuer) => leaf.extensions().fulcio_issuer == Some(issuer.as_bytes()),
            Self::San(san) => leaf.alternative_names().iter().any(|name| san.is(name)),
            Self::Subject(attributes) => attributes.iter().all(|(oid, text)| subject_has(leaf, oid, text)),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Eku(oid) => format!("extended key usage {}", oid::to_dotted(oid)),
            Self::FulcioIssuer(issuer) => format!("Fulcio issuer {issuer}"),
            Self::San(san) => format!("alternative name {san}"),
            Self::Subject(_) => format!("such {self}"),
        }
    }
}

/// Writes the policy as it stands in a name.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eku(oid) => write!(f, "eku:{}", oid::to_dotted(oid)),
            Self::FulcioIssuer(issuer) => {
                write!(f, "fulcio-issuer:{}", encode(issuer.strip_prefix("https://").unwrap_or(issuer)))
            }
            Self::San(san) => write!(f, "san:{san}"),
            Self::Subject(attributes) => {
                f.write_str("subject")?;
                attributes.iter().try_for_each(|(oid, text)| {
                    let key = SUBJECT_KEYS.iter().find(|(_, known, _)| known == oid);
                    let key = key.map_or_else(|| oid::to_dotted(oid), |(key, ..)| (*key).to_owned());
                    write!(f, ":{key}:{}", encode(text))
                })
            }
        }
    }
}

impl San {
    fn is(&self, name: &SubjectAlternativeName<'_>) -> bool {
        match (self, name) {
            (Self::Dns(text), SubjectAlternativeName::Dns(found))
            | (Self::Email(text), SubjectAlternativeName::Email(found))
            | (Self::Uri(text), SubjectAlternativeName::Uri(found)) => text == found,
            (Self::IpAddress(address), SubjectAlternativeName::IpAddress(found)) => address == found,
            _ => false,
        }
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(text) => write!(f, "dns:{}", encode(text)),
            Self::Email(text) => write!(f, "email:{}", encode(text)),
            Self::IpAddress(address) => write!(f, "ipaddress:{}", encode(&address.to_string())),
            Self::Uri(text) => write!(f, "uri:{}", encode(text)),
        }
    }
}

/// Whether the subject has the attribute. Where a type may come once, a subject that has it twice has it not: which of
/// them counts is read differently by different tools.
fn subject_has(leaf: &Certificate<'_>, oid: &[u8], text: &str) -> bool {
    let several = SUBJECT_KEYS.iter().any(|(_, known, several)| *known == oid && *several);
    let mut found = leaf.subject_attributes().iter().filter(|attribute| attribute.oid == oid);
    if several {
        found.any(|attribute| attribute.value == Some(text))
    } else {
        found.next().is_some_and(|attribute| attribute.value == Some(text)) && found.next().is_none()
    }
}

/// Reads one policy; what is wrong with it otherwise.
fn policy(text: &str) -> Result<Policy, String> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        ["eku", oid] => {
            oid::from_dotted(oid).map(Policy::Eku).ok_or_else(|| "eku needs an object identifier".to_owned())
        }
        ["fulcio-issuer", issuer] => Ok(Policy::FulcioIssuer(format!("https://{}", decode(issuer)?))),
        ["san", kind, value] => san(kind, &decode(value)?).map(Policy::San),
        ["subject", attributes @ ..] => subject(attributes).map(Policy::Subject),
        [name, ..] => Err(format!(
            "`{}` with {} values is no policy; expected eku:OID, subject:KEY:VALUE…, \
             san:TYPE:VALUE or fulcio-issuer:HOST",
            name.chars().take(32).collect::<String>(),
            parts.len().saturating_sub(1)
        )),
        [] => Err("a policy is empty".to_owned()),
    }
}

fn san(kind: &str, value: &str) -> Result<San, String> {
    match kind {
        "dns" => Ok(San::Dns(value.to_owned())),
        "email" => Ok(San::Email(value.to_owned())),
        "uri" => Ok(San::Uri(value.to_owned())),
        "ipaddress" => {
            let address = value.parse::<IpAddr>().ok().filter(|address| address.to_string() == value);
            address.map(San::IpAddress).ok_or_else(|| format!("`{value}` is no IP address in its shortest form"))
        }
        _ => Err("the type of an alternative name is none of dns, email, ipaddress and uri".to_owned()),
    }
}

fn subject(attributes: &[&str]) -> Result<Vec<(Vec<u8>, String)>, String> {
    let (pairs, rest) = attributes.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() || pairs.len() > MAX_ATTRIBUTES {
        return Err(format!("subject needs from 1 to {MAX_ATTRIBUTES} keys, each with a value"));
    }
    let mut all: Vec<(Vec<u8>, String)> = Vec::new();
    for [key, value] in pairs {
        let known = SUBJECT_KEYS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(key));
        let oid = known.map(|(_, oid, _)| oid.to_vec()).or_else(|| oid::from_dotted(key));
        let oid =
            oid.ok_or_else(|| format!("`{}` is no key of a subject", key.chars().take(32).collect::<String>()))?;
        if all.iter().any(|(other, _)| *other == oid) {
            return Err(format!("the key {key} comes twice"));
        }
        all.push((oid, decode(value)?));
    }
    Ok(all)
}

/// Decodes percent-encoding.
fn decode(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a value is empty".to_owned());
    }
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (digits, after) =
                    rest.split_at_checked(2).ok_or("a percent sign without two hexadecimal digits")?;
                let decoded = hex::decode(digits).map_err(|_| "a percent sign without two hexadecimal digits")?;
                bytes.extend(decoded);
                rest = after;
            }
            b'+' => return Err("a `+` stands in a value: write %20 for a space, %2B for a plus sign".to_owned()),
            0x21..=0x7e => bytes.push(byte),
            _ => return Err("a value has a space or a character beyond ASCII that is not percent-encoded".to_owned()),
        }
    }
    String::from_utf8(bytes).map_err(|_| "a percent-encoded value is not UTF-8".to_owned())
}

/// Percent-encodes all but what the method leaves as it is: ASCII letters and digits, `-`, `.` and `_`.
fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([byte]));
        }
    }
    out
}

#[cfg(test)]
mod tests;
