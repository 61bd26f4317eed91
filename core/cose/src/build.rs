//! Certificates of signers and their authorities, as bytes to be signed. Keys and signatures are the caller's:
//! [`certificate_tbs`] → sign as the issuer's kind of key does → [`assemble`].

use caveau_signature::{Hash, Scheme};
use caveau_snp::der::{bit_string, boolean, context, object_id, octet_string, sequence, set, text, time, tlv, uint};
use caveau_snp::time::Timestamp;

use crate::algorithm::identifiers;
use crate::key::KeyKind;
use crate::oid;

/// A certificate to be made.
#[derive(Clone, Debug)]
pub struct CertificateSpec<'a> {
    /// Its serial number: up to 20 bytes, the highest bit clear.
    pub serial: &'a [u8],
    /// The issuer's name, from [`name`].
    pub issuer: &'a [u8],
    /// What kind of key the issuer signs with.
    pub issuer_key: KeyKind,
    /// Whose certificate: a name from [`name`].
    pub subject: &'a [u8],
    /// First second of validity.
    pub not_before: Timestamp,
    /// Last second of validity.
    pub not_after: Timestamp,
    /// The certified key's SubjectPublicKeyInfo.
    pub public_key: &'a [u8],
    /// The extensions, one after the other; none make a certificate of version 1.
    pub extensions: &'a [u8],
}

/// The to-be-signed part of a certificate (RFC 5280, TBSCertificate).
#[must_use]
pub fn certificate_tbs(spec: &CertificateSpec<'_>) -> Vec<u8> {
    let (version, extensions) = match spec.extensions {
        [] => (Vec::new(), Vec::new()),
        extensions => (context(0, &uint(2)), context(3, &sequence(&[extensions]))),
    };
    sequence(&[
        &version,
        &caveau_snp::der::big_uint(spec.serial),
        &signature_algorithm(spec.issuer_key),
        spec.issuer,
        &sequence(&[&time(spec.not_before), &time(spec.not_after)]),
        spec.subject,
        spec.public_key,
        &extensions,
    ])
}

/// A certificate from its to-be-signed part and the issuer's signature of it: for ECDSA as a DER SEQUENCE, for RSA
/// RSASSA-PKCS1-v1_5 with SHA-384.
#[must_use]
pub fn assemble(tbs: &[u8], issuer_key: KeyKind, signature: &[u8]) -> Vec<u8> {
    sequence(&[tbs, &signature_algorithm(issuer_key), &bit_string(signature)])
}

fn signature_algorithm(key: KeyKind) -> Vec<u8> {
    let scheme = match key {
        KeyKind::P256 => Scheme::EcdsaDer(Hash::Sha256),
        KeyKind::P384 => Scheme::EcdsaDer(Hash::Sha384),
        KeyKind::P521 => Scheme::EcdsaDer(Hash::Sha512),
        KeyKind::Rsa => Scheme::RsaPkcs1(Hash::Sha384),
        KeyKind::Ed25519 => Scheme::Ed25519,
    };
    identifiers(scheme).into_iter().next().unwrap_or_default()
}

/// A distinguished name of attributes: (contents of the type's object identifier, text), each a part of its own.
#[must_use]
pub fn name(attributes: &[(&[u8], &str)]) -> Vec<u8> {
    let part = |(oid, value): &(&[u8], &str)| set(&sequence(&[&object_id(oid), &text(value)]));
    sequence(&[&attributes.iter().flat_map(part).collect::<Vec<u8>>()])
}

/// An extension; `id` is the contents of its object identifier.
#[must_use]
pub fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let flag = if critical { boolean(true) } else { Vec::new() };
    sequence(&[&object_id(id), &flag, &octet_string(value)])
}

/// basicConstraints of an authority below which so many others may stand.
#[must_use]
pub fn authority(path_length: Option<u8>) -> Vec<u8> {
    let length = path_length.map_or_else(Vec::new, |length| uint(u64::from(length)));
    extension(oid::BASIC_CONSTRAINTS, true, &sequence(&[&boolean(true), &length]))
}

/// keyUsage of one that signs certificates (and lists of revoked ones).
#[must_use]
pub fn signs_certificates() -> Vec<u8> {
    extension(oid::KEY_USAGE, true, &[0x03, 0x02, 0x01, 0x06])
}

/// keyUsage of one that signs documents.
#[must_use]
pub fn signs_documents() -> Vec<u8> {
    extension(oid::KEY_USAGE, true, &[0x03, 0x02, 0x07, 0x80])
}

/// extendedKeyUsage: contents of object identifiers.
#[must_use]
pub fn extended_key_usage(oids: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = oids.iter().flat_map(|oid| object_id(oid)).collect();
    extension(oid::EXTENDED_KEY_USAGE, false, &sequence(&[&list]))
}

/// subjectAltName of names, each with the tag of its kind: 1 mailbox, 2 DNS name, 6 URI, 7 IP address.
#[must_use]
pub fn alternative_names(names: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|(kind, name)| tlv(0x80 | kind, &[name])).collect();
    extension(oid::SUBJECT_ALTERNATIVE_NAME, false, &sequence(&[&list]))
}
