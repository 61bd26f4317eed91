//! Certificates and revocation lists of a software secure processor, as bytes to be signed.
//!
//! They have the structure of AMD's, with other names and the marker of [`crate::software`]; there is no way to leave the
//! marker out. Keys and signatures are the caller's: `certificate_tbs` → sign with RSASSA-PSS, SHA-384, salt 48 →
//! [`assemble`].

use crate::der::{bit_string, boolean, context, object_id, octet_string, sequence, set, text, time, uint};
use crate::oid;
use crate::product::Product;
use crate::pss;
use crate::report::SigningKey;
use crate::software;
use crate::tcb::Tcb;
use crate::time::Timestamp;

/// A software certificate to be made.
#[derive(Clone, Debug)]
pub struct CertificateSpec<'a> {
    /// Whose certificate.
    pub role: Role<'a>,
    /// [`software::root_id`] of the installation's root.
    pub root_id: &'a str,
    /// First second of validity.
    pub not_before: Timestamp,
    /// Last second of validity.
    pub not_after: Timestamp,
    /// The certified key, from [`rsa_spki`] or [`p384_spki`].
    pub public_key: &'a [u8],
}

/// Who is certified.
#[derive(Clone, Debug)]
pub enum Role<'a> {
    /// The root, signed by itself.
    Ark,
    /// The intermediate for chips' keys, signed by the root.
    Ask,
    /// The intermediate for providers' keys, signed by the root.
    Asvk,
    /// An endorsement key: a VCEK signed by the ASK, or a VLEK signed by the ASVK.
    Vek(VekSpec<'a>),
}

/// What the certificate of an endorsement key says.
#[derive(Clone, Debug)]
pub struct VekSpec<'a> {
    /// The processor that is played.
    pub product: Product,
    /// productName, such as `Software` or `Milan-B0`.
    pub product_name: &'a str,
    /// The levels for which the key was derived: the report's REPORTED_TCB.
    pub tcb: Tcb,
    /// Whose key.
    pub identity: VekIdentity<'a>,
}

/// Whose endorsement key.
#[derive(Clone, Debug)]
pub enum VekIdentity<'a> {
    /// That of the chip with this hardware ID (64 bytes; 8 for Turin).
    Chip(&'a [u8]),
    /// That of the provider with this name.
    Provider(&'a str),
}

/// A revocation list to be made.
#[derive(Clone, Debug)]
pub struct CrlSpec<'a> {
    /// [`software::root_id`] of the installation's root.
    pub root_id: &'a str,
    /// When it is made.
    pub this_update: Timestamp,
    /// Until when it may be used.
    pub next_update: Timestamp,
    /// Its number, higher than all before.
    pub number: u64,
    /// Serial numbers of revoked intermediates, and since when.
    pub revoked: &'a [(u64, Timestamp)],
}

/// Serial number of a software root.
pub const ARK_SERIAL: u64 = 0xf_0000;
/// Serial number of a software intermediate for chips' keys.
pub const ASK_SERIAL: u64 = 0xf_0001;
/// Serial number of a software intermediate for providers' keys.
pub const ASVK_SERIAL: u64 = 0xf_0101;

/// The to-be-signed part of a certificate (RFC 5280, TBSCertificate).
#[must_use]
pub fn certificate_tbs(spec: &CertificateSpec<'_>) -> Vec<u8> {
    let (serial, issuer, subject) = match &spec.role {
        Role::Ark => (ARK_SERIAL, "ARK-", "ARK-"),
        Role::Ask => (ASK_SERIAL, "ARK-", "SEV-"),
        Role::Asvk => (ASVK_SERIAL, "ARK-", "SEV-VLEK-"),
        Role::Vek(vek) => match vek.identity.signing_key() {
            SigningKey::Vcek => (0, "SEV-", "SEV-VCEK"),
            SigningKey::Vlek => (0, "SEV-VLEK-", "SEV-VLEK"),
        },
    };
    let subject = match &spec.role {
        Role::Vek(_) => subject.to_owned(),
        _ => authority_name(subject, spec.root_id),
    };
    sequence(&[
        &context(0, &uint(2)),
        &uint(serial),
        &pss::ALGORITHM,
        &name(&authority_name(issuer, spec.root_id)),
        &sequence(&[&time(spec.not_before), &time(spec.not_after)]),
        &name(&subject),
        spec.public_key,
        &context(3, &sequence(&[&extensions(&spec.role)])),
    ])
}

/// The to-be-signed part of a revocation list (RFC 5280, TBSCertList).
#[must_use]
pub fn crl_tbs(spec: &CrlSpec<'_>) -> Vec<u8> {
    let entries: Vec<u8> =
        spec.revoked.iter().flat_map(|(serial, since)| sequence(&[&uint(*serial), &time(*since)])).collect();
    let revoked = if entries.is_empty() { Vec::new() } else { sequence(&[&entries]) };
    sequence(&[
        &uint(1),
        &pss::ALGORITHM,
        &name(&authority_name("ARK-", spec.root_id)),
        &time(spec.this_update),
        &time(spec.next_update),
        &revoked,
        &context(0, &sequence(&[&extension(oid::CRL_NUMBER, false, &uint(spec.number))])),
    ])
}

/// A certificate or revocation list from its to-be-signed part and the issuer's signature of it.
#[must_use]
pub fn assemble(tbs: &[u8], signature: &[u8]) -> Vec<u8> {
    sequence(&[tbs, &pss::ALGORITHM, &bit_string(signature)])
}

/// SubjectPublicKeyInfo of an RSA key given as PKCS #1 RSAPublicKey.
#[must_use]
pub fn rsa_spki(public_key: &[u8]) -> Vec<u8> {
    const RSA_ENCRYPTION: [u8; 15] = *b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    sequence(&[&RSA_ENCRYPTION, &bit_string(public_key)])
}

/// SubjectPublicKeyInfo of a P-384 key given as an uncompressed point (97 bytes).
#[must_use]
pub fn p384_spki(point: &[u8]) -> Vec<u8> {
    sequence(&[&crate::certificate::P384_ALGORITHM, &bit_string(point)])
}

impl VekIdentity<'_> {
    fn signing_key(&self) -> SigningKey {
        match self {
            Self::Chip(_) => SigningKey::Vcek,
            Self::Provider(_) => SigningKey::Vlek,
        }
    }
}

fn authority_name(prefix: &str, root_id: &str) -> String {
    format!("{prefix}{}{root_id}", software::NAME_PREFIX)
}

fn name(common_name: &str) -> Vec<u8> {
    let part = |id: &[u8], value: &str| set(&sequence(&[&object_id(id), &text(value)]));
    sequence(&[
        &part(oid::ORGANIZATIONAL_UNIT, software::UNIT),
        &part(oid::ORGANIZATION, software::ORGANIZATION),
        &part(oid::COMMON_NAME, common_name),
    ])
}

fn extensions(role: &Role<'_>) -> Vec<u8> {
    let mut out = match role {
        Role::Ark => [key_usage(0b0000_0110, 1), basic_constraints(&[&boolean(true)])].concat(),
        Role::Ask | Role::Asvk => [basic_constraints(&[&boolean(true), &uint(0)]), key_usage(0b0000_0100, 2)].concat(),
        Role::Vek(vek) => vek_extensions(vek),
    };
    out.extend(extension(&software::MARKER_OID, true, &text(software::MARKER_TEXT)));
    out
}

/// keyUsage: `bits` of its one byte count, without the `unused` lowest.
fn key_usage(bits: u8, unused: u8) -> Vec<u8> {
    extension(oid::KEY_USAGE, true, &[0x03, 0x02, unused, bits])
}

fn basic_constraints(parts: &[&[u8]]) -> Vec<u8> {
    extension(oid::BASIC_CONSTRAINTS, true, &sequence(parts))
}

/// The extensions in AMD's order.
fn vek_extensions(vek: &VekSpec<'_>) -> Vec<u8> {
    let Tcb { fmc, bootloader, tee, snp, microcode } = vek.tcb;
    let level = |n: u8, value: u8| extension(&oid::spl(n), false, &uint(value.into()));
    let mut out = extension(oid::STRUCT_VERSION, false, &uint(vek.product.struct_version().into()));
    out.extend(extension(oid::PRODUCT_NAME, false, &crate::der::ia5_text(vek.product_name)));
    let levels: &[(u8, u8)] = match vek.product.layout() {
        crate::tcb::Layout::Milan => {
            &[(1, bootloader), (2, tee), (4, 0), (5, 0), (6, 0), (7, 0), (3, snp), (8, microcode)]
        }
        crate::tcb::Layout::Turin => {
            &[(9, fmc.unwrap_or(0)), (1, bootloader), (2, tee), (3, snp), (5, 0), (6, 0), (7, 0), (8, microcode)]
        }
    };
    out.extend(levels.iter().flat_map(|&(n, value)| level(n, value)));
    out.extend(match vek.identity {
        VekIdentity::Chip(hwid) => extension(oid::HWID, false, hwid),
        VekIdentity::Provider(provider) => extension(oid::CSP_ID, false, &crate::der::ia5_text(provider)),
    });
    out
}

fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let flag = if critical { boolean(true) } else { Vec::new() };
    sequence(&[&object_id(id), &flag, &octet_string(value)])
}
