//! X.509 certificates, read strictly and without re-encoding: what is signed are the bytes as they came.
//!
//! Only what certificates of SEV-SNP and of Intel's DCAP contain is understood; whatever else a certificate may hold is an
//! error. Which of the two a chain must be is for its reader to check: [`PublicKey`] says it.

use ::der::asn1::{
    AnyRef, BitStringRef, ContextSpecific, GeneralizedTime, Ia5StringRef, OctetStringRef, UintRef, UtcTime,
};
use ::der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use caveau_signature::{Curve, Hash, Key, Scheme, verifies, verifies_again};

use crate::Hex;
use crate::examine::sha256;
use crate::oid;
use crate::pss;
use crate::time::Timestamp;

/// Largest certificate accepted; AMD's have less than 2 KiB.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Most extensions accepted.
const MAX_EXTENSIONS: usize = 32;

/// AlgorithmIdentifier of a P-384 key: id-ecPublicKey with secp384r1.
pub(crate) const P384_ALGORITHM: [u8; 18] =
    *b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
/// AlgorithmIdentifier of a P-256 key: id-ecPublicKey with prime256v1.
const P256_ALGORITHM: [u8; 21] =
    *b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
/// AlgorithmIdentifier of a signature: ecdsa-with-SHA256, whose key's curve is in the issuer's certificate.
const ECDSA_SHA256: [u8; 12] = *b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
/// AlgorithmIdentifier of an RSA key: rsaEncryption with NULL.
const RSA_ALGORITHM: [u8; 15] = *b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// A certificate as it came. Nothing about it has been verified.
#[derive(Clone, Debug)]
pub struct Certificate<'a> {
    der: &'a [u8],
    sha256: Hex<32>,
    tbs: &'a [u8],
    serial: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    common_name: &'a str,
    not_before: Timestamp,
    not_after: Timestamp,
    spki: &'a [u8],
    public_key: PublicKey<'a>,
    extensions: Vec<Extension<'a>>,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

/// The certified key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKey<'a> {
    /// A P-256 key: an uncompressed point, 65 bytes.
    P256(&'a [u8]),
    /// A P-384 key: an uncompressed point, 97 bytes.
    P384(&'a [u8]),
    /// An RSA-4096 key with exponent 65537: PKCS #1 RSAPublicKey.
    Rsa4096(&'a [u8]),
}

/// An extension.
#[derive(Clone, Copy, Debug)]
pub struct Extension<'a> {
    /// Its object identifier's DER contents.
    pub oid: &'a [u8],
    /// Whether a reader that does not know it must refuse the certificate.
    pub critical: bool,
    /// The contents of its OCTET STRING.
    pub value: &'a [u8],
}

/// Why bytes are no certificate (or revocation list) that can be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Broken or non-canonical DER.
    #[error("its {part} is not the DER expected: {problem}")]
    Der {
        /// Where.
        part: &'static str,
        /// What the decoder says.
        problem: String,
    },
    /// Something well-formed that is not supported here.
    #[error("its {part} is not supported: {problem}")]
    Unsupported {
        /// Where.
        part: &'static str,
        /// What was found and what is expected.
        problem: String,
    },
}

impl<'a> Certificate<'a> {
    /// Reads exactly one DER certificate.
    ///
    /// # Errors
    /// [`CertificateError`], when it is malformed or uses what no certificate of SEV-SNP or DCAP uses.
    pub fn parse(der: &'a [u8]) -> Result<Self, CertificateError> {
        let signed = SignedObject::parse(der, MAX_CERTIFICATE_BYTES)?;
        let mut tbs = sequence_reader("TBSCertificate", signed.tbs)?;
        expect_version(&mut tbs)?;
        let serial = tbs.decode::<UintRef<'_>>().map_err(broken("serial number"))?.as_bytes();
        signed.expect_algorithm(element(&mut tbs, "signature algorithm")?)?;
        let issuer = element(&mut tbs, "issuer")?;
        let (not_before, not_after) = validity(&mut tbs)?;
        let subject = element(&mut tbs, "subject")?;
        let name = common_name(subject, "subject")?;
        if issuer != subject {
            common_name(issuer, "issuer")?;
        }
        let spki = element(&mut tbs, "public key")?;
        let extensions = ContextSpecific::<AnyRef<'_>>::decode_explicit(&mut tbs, TagNumber(3))
            .map_err(broken("extensions"))?
            .map_or_else(|| Ok(Vec::new()), |list| parse_extensions(list.value))?;
        tbs.finish().map_err(broken("TBSCertificate"))?;
        Ok(Self {
            der,
            sha256: sha256(der),
            tbs: signed.tbs,
            serial,
            issuer,
            subject,
            common_name: name,
            not_before,
            not_after,
            spki,
            public_key: PublicKey::parse(spki)?,
            extensions,
            algorithm: signed.algorithm,
            signature: signed.signature,
        })
    }

    /// The certificate's bytes.
    #[must_use]
    pub const fn der(&self) -> &'a [u8] {
        self.der
    }
    /// SHA-256 of the certificate's bytes.
    #[must_use]
    pub const fn sha256(&self) -> Hex<32> {
        self.sha256
    }
    /// The serial number, big-endian, without leading zeros (one zero byte for 0).
    #[must_use]
    pub const fn serial(&self) -> &'a [u8] {
        self.serial
    }
    /// The issuer's name in DER.
    #[must_use]
    pub const fn issuer(&self) -> &'a [u8] {
        self.issuer
    }
    /// The subject's name in DER.
    #[must_use]
    pub const fn subject(&self) -> &'a [u8] {
        self.subject
    }
    /// The subject's common name.
    #[must_use]
    pub const fn common_name(&self) -> &'a str {
        self.common_name
    }
    /// First second of validity.
    #[must_use]
    pub const fn not_before(&self) -> Timestamp {
        self.not_before
    }
    /// Last second of validity.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }
    /// The certified key's SubjectPublicKeyInfo in DER.
    #[must_use]
    pub const fn spki(&self) -> &'a [u8] {
        self.spki
    }
    /// The certified key.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey<'a> {
        self.public_key
    }
    /// The extensions, in their order; no identifier comes twice.
    #[must_use]
    pub fn extensions(&self) -> &[Extension<'a>] {
        &self.extensions
    }
    /// The extension with this identifier.
    #[must_use]
    pub fn extension(&self, oid: &[u8]) -> Option<&Extension<'a>> {
        self.extensions.iter().find(|extension| extension.oid == oid)
    }

    /// productName of an endorsement key's certificate, without a stepping: `Milan` for `Milan-B0`.
    #[must_use]
    pub fn product_line_name(&self) -> Option<&'a str> {
        let text = Ia5StringRef::from_der(self.extension(oid::PRODUCT_NAME)?.value).ok()?.as_str();
        text.split('-').next()
    }

    /// Whether the key in `issuer` signed this certificate. Names and rights of the issuer are not looked at.
    #[must_use]
    pub fn is_signed_by(&self, issuer: &Certificate<'_>) -> bool {
        issuer.has_signed(self.tbs, self.algorithm, self.signature)
    }

    /// Whether the key in this certificate made `signature` over `message` by this algorithm, which must be the key's own.
    pub(crate) fn has_signed(&self, message: &[u8], algorithm: &[u8], signature: &[u8]) -> bool {
        match self.public_key {
            PublicKey::Rsa4096(key) => pss::is_expected(algorithm) && pss::holds(key, message, signature),
            PublicKey::P256(point) => {
                let key = Key::Ecdsa(Curve::P256, point);
                algorithm == ECDSA_SHA256 && verifies_again(Scheme::EcdsaDer(Hash::Sha256), &key, message, signature)
            }
            PublicKey::P384(_) => false,
        }
    }

    /// Whether the P-256 key in this certificate made a signature of r and s, big-endian, 32 bytes each.
    #[must_use]
    pub fn has_signed_raw(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let PublicKey::P256(point) = self.public_key else { return false };
        verifies(Scheme::EcdsaFixed(Hash::Sha256), &Key::Ecdsa(Curve::P256, point), message, signature)
    }

    /// (whether it is an authority, how many authorities may follow) of basicConstraints; `None` without or with a malformed
    /// one.
    #[must_use]
    pub fn basic_constraints(&self) -> Option<(bool, Option<u8>)> {
        let value = self.extension(oid::BASIC_CONSTRAINTS)?.value;
        let mut reader = sequence_reader("basicConstraints", value).ok()?;
        let authority = Tag::peek(&reader).is_ok_and(|tag| tag == Tag::Boolean) && reader.decode::<bool>().ok()?;
        let path_length = if reader.is_finished() { None } else { Some(reader.decode::<u8>().ok()?) };
        reader.finish().ok()?;
        Some((authority, path_length))
    }

    /// The first byte of keyUsage: 0x04 keyCertSign, 0x02 cRLSign; `None` without or with a malformed one.
    #[must_use]
    pub fn key_usage(&self) -> Option<u8> {
        let value = self.extension(oid::KEY_USAGE)?.value;
        BitStringRef::from_der(value).ok()?.raw_bytes().first().copied()
    }
}

impl<'a> PublicKey<'a> {
    fn parse(spki: &'a [u8]) -> Result<Self, CertificateError> {
        let mut reader = sequence_reader("public key", spki)?;
        let algorithm = element(&mut reader, "public key algorithm")?;
        let key = whole_bytes(&mut reader, "public key")?;
        reader.finish().map_err(broken("public key"))?;
        if algorithm == P384_ALGORITHM && key.len() == 97 && key.first() == Some(&4) {
            return Ok(Self::P384(key));
        }
        if algorithm == P256_ALGORITHM && key.len() == 65 && key.first() == Some(&4) {
            return Ok(Self::P256(key));
        }
        if algorithm == RSA_ALGORITHM && is_rsa_4096(key)? {
            return Ok(Self::Rsa4096(key));
        }
        Err(unsupported("public key", "expected an uncompressed P-384 or P-256 point, or RSA-4096 with exponent 65537"))
    }
}

fn is_rsa_4096(key: &[u8]) -> Result<bool, CertificateError> {
    let mut reader = sequence_reader("RSA key", key)?;
    let modulus = reader.decode::<UintRef<'_>>().map_err(broken("RSA modulus"))?.as_bytes();
    let exponent = reader.decode::<UintRef<'_>>().map_err(broken("RSA exponent"))?.as_bytes();
    reader.finish().map_err(broken("RSA key"))?;
    Ok(modulus.len() == 512 && modulus.first().is_some_and(|&byte| byte >= 0x80) && exponent == [1, 0, 1])
}

/// What certificates and revocation lists have in common: a signed part, an algorithm, a signature.
pub(crate) struct SignedObject<'a> {
    pub(crate) tbs: &'a [u8],
    pub(crate) algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
}

impl<'a> SignedObject<'a> {
    pub(crate) fn parse(der: &'a [u8], limit: usize) -> Result<Self, CertificateError> {
        if der.len() > limit {
            return Err(unsupported("length", &format!("{} bytes, at most {limit} are accepted", der.len())));
        }
        let mut reader = sequence_reader("outer structure", der)?;
        let tbs = element(&mut reader, "signed part")?;
        let algorithm = element(&mut reader, "signature algorithm")?;
        if !pss::is_expected(algorithm) && algorithm != ECDSA_SHA256 {
            return Err(unsupported(
                "signature algorithm",
                "expected RSASSA-PSS with SHA-384, MGF1 with SHA-384, salt 48; or ECDSA with SHA-256",
            ));
        }
        let signature = whole_bytes(&mut reader, "signature")?;
        reader.finish().map_err(broken("outer structure"))?;
        Ok(Self { tbs, algorithm, signature })
    }

    /// The algorithm named inside the signed part must be the one named outside.
    pub(crate) fn expect_algorithm(&self, inner: &[u8]) -> Result<(), CertificateError> {
        if inner == self.algorithm {
            Ok(())
        } else {
            Err(unsupported("signature algorithm", "two different ones are named"))
        }
    }
}

/// A reader of the contents of the one SEQUENCE that `der` is.
pub(crate) fn sequence_reader<'a>(part: &'static str, der: &'a [u8]) -> Result<SliceReader<'a>, CertificateError> {
    let any = AnyRef::from_der(der).map_err(broken(part))?;
    any.tag().assert_eq(Tag::Sequence).map_err(broken(part))?;
    SliceReader::new(any.value()).map_err(broken(part))
}

/// The next element, whole, with tag and length.
pub(crate) fn element<'a>(reader: &mut SliceReader<'a>, part: &'static str) -> Result<&'a [u8], CertificateError> {
    reader.tlv_bytes().map_err(broken(part))
}

fn whole_bytes<'a>(reader: &mut SliceReader<'a>, part: &'static str) -> Result<&'a [u8], CertificateError> {
    let bits = reader.decode::<BitStringRef<'a>>().map_err(broken(part))?;
    bits.as_bytes().ok_or_else(|| unsupported(part, "a BIT STRING of whole bytes is expected"))
}

fn expect_version(tbs: &mut SliceReader<'_>) -> Result<(), CertificateError> {
    let version = ContextSpecific::<u8>::decode_explicit(tbs, TagNumber(0)).map_err(broken("version"))?;
    match version.map(|tagged| tagged.value) {
        Some(2) => Ok(()),
        other => Err(unsupported("version", &format!("{other:?}, expected X.509 v3"))),
    }
}

fn validity(tbs: &mut SliceReader<'_>) -> Result<(Timestamp, Timestamp), CertificateError> {
    let mut reader = sequence_reader("validity", element(tbs, "validity")?)?;
    let not_before = time(&mut reader, "notBefore")?;
    let not_after = time(&mut reader, "notAfter")?;
    reader.finish().map_err(broken("validity"))?;
    Ok((not_before, not_after))
}

/// A UTCTime or GeneralizedTime.
pub(crate) fn time(reader: &mut SliceReader<'_>, part: &'static str) -> Result<Timestamp, CertificateError> {
    let since_epoch = if Tag::peek(reader).map_err(broken(part))? == Tag::UtcTime {
        reader.decode::<UtcTime>().map_err(broken(part))?.to_unix_duration()
    } else {
        reader.decode::<GeneralizedTime>().map_err(broken(part))?.to_unix_duration()
    };
    Ok(since_epoch.into())
}

/// The one common name in a name (RFC 5280, 4.1.2.4), each part of which must have one attribute.
pub(crate) fn common_name<'a>(name: &'a [u8], part: &'static str) -> Result<&'a str, CertificateError> {
    let mut found = None;
    let mut parts = sequence_reader(part, name)?;
    while !parts.is_finished() {
        let set = parts.decode::<AnyRef<'a>>().map_err(broken(part))?;
        set.tag().assert_eq(Tag::Set).map_err(broken(part))?;
        let mut attribute = sequence_reader(part, set.value())?;
        let oid = attribute.decode::<AnyRef<'a>>().map_err(broken(part))?;
        oid.tag().assert_eq(Tag::ObjectIdentifier).map_err(broken(part))?;
        let value = attribute.decode::<AnyRef<'a>>().map_err(broken(part))?;
        attribute.finish().map_err(broken(part))?;
        if oid.value() == oid::COMMON_NAME && found.replace(printable(value, part)?).is_some() {
            return Err(unsupported(part, "it has two common names"));
        }
    }
    found.ok_or_else(|| unsupported(part, "it has no common name"))
}

/// The text of a UTF8String, PrintableString or IA5String.
fn printable<'a>(value: AnyRef<'a>, part: &'static str) -> Result<&'a str, CertificateError> {
    let text = std::str::from_utf8(value.value()).ok();
    match (value.tag(), text) {
        (Tag::Utf8String | Tag::PrintableString | Tag::Ia5String, Some(text)) if is_printable(text) => Ok(text),
        _ => Err(unsupported(part, "a name is expected to be ASCII text without control characters")),
    }
}

/// Whether text is of characters that a terminal shows and does not obey: names come from anyone, and are shown to people
/// before it is known whose they are.
pub(crate) fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
}

/// Extensions, each identifier at most once.
pub(crate) fn parse_extensions(list: AnyRef<'_>) -> Result<Vec<Extension<'_>>, CertificateError> {
    let part = "extensions";
    list.tag().assert_eq(Tag::Sequence).map_err(broken(part))?;
    let mut reader = SliceReader::new(list.value()).map_err(broken(part))?;
    let mut extensions: Vec<Extension<'_>> = Vec::new();
    while !reader.is_finished() {
        let extension = parse_extension(reader.decode::<AnyRef<'_>>().map_err(broken(part))?)?;
        if extensions.iter().any(|known| known.oid == extension.oid) {
            return Err(unsupported(part, &format!("{} is there twice", show_oid(extension.oid))));
        }
        if extensions.len() >= MAX_EXTENSIONS {
            return Err(unsupported(part, &format!("more than {MAX_EXTENSIONS}")));
        }
        extensions.push(extension);
    }
    Ok(extensions)
}

fn parse_extension(any: AnyRef<'_>) -> Result<Extension<'_>, CertificateError> {
    let part = "extension";
    any.tag().assert_eq(Tag::Sequence).map_err(broken(part))?;
    let mut reader = SliceReader::new(any.value()).map_err(broken(part))?;
    let oid = reader.decode::<AnyRef<'_>>().map_err(broken(part))?;
    oid.tag().assert_eq(Tag::ObjectIdentifier).map_err(broken(part))?;
    let critical = Tag::peek(&reader).map_err(broken(part))? == Tag::Boolean;
    if critical && !reader.decode::<bool>().map_err(broken(part))? {
        return Err(unsupported(part, "a default value is spelled out, which DER forbids"));
    }
    let value = reader.decode::<&OctetStringRef>().map_err(broken(part))?.as_bytes();
    reader.finish().map_err(broken(part))?;
    Ok(Extension { oid: oid.value(), critical, value })
}

/// An identifier's contents, for messages: in dots for AMD's own, else in hexadecimal.
pub(crate) fn show_oid(oid: &[u8]) -> String {
    match oid.strip_prefix(oid::AMD) {
        Some(rest) => rest.iter().fold("1.3.6.1.4.1.3704.1".to_owned(), |text, arc| format!("{text}.{arc}")),
        None => format!("the identifier {}", hex::encode(oid)),
    }
}

pub(crate) fn broken(part: &'static str) -> impl Fn(der::Error) -> CertificateError {
    move |error| CertificateError::Der { part, problem: error.to_string() }
}

pub(crate) fn unsupported(part: &'static str, problem: &str) -> CertificateError {
    CertificateError::Unsupported { part, problem: problem.to_owned() }
}
