//! X.509 certificates of signers, read strictly and without re-encoding: what is signed are the bytes as they came.
//!
//! RFC 5280. Read are the parts by which a chain is judged and by which a did:x509 names a signer; a critical extension
//! that is not read here is kept, for the chain's judge to refuse.

use caveau_signature::Scheme;
use caveau_snp::time::Timestamp;
use der::asn1::{AnyRef, BitStringRef, ContextSpecific, GeneralizedTime, OctetStringRef, UtcTime};
use der::{Decode as _, Reader as _, SliceReader, Tag, TagNumber, Tagged as _};

use crate::algorithm::named_by;
use crate::key::PublicKey;
use crate::name::{Attribute, SubjectAlternativeName, alternative_names, attributes};
use crate::oid;

/// Largest certificate accepted.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Most extensions, and most extended key usages, accepted.
const MAX_LIST: usize = 64;

/// keyUsage: digitalSignature, of the first byte.
const DIGITAL_SIGNATURE: u8 = 0x80;
/// keyUsage: keyCertSign, of the first byte.
const KEY_CERT_SIGN: u8 = 0x04;

/// A certificate as it came. Nothing about it has been verified.
#[derive(Clone, Debug)]
pub struct Certificate<'a> {
    der: &'a [u8],
    tbs: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    attributes: Vec<Attribute<'a>>,
    not_before: Timestamp,
    not_after: Timestamp,
    public_key: PublicKey<'a>,
    extensions: Extensions<'a>,
    scheme: Scheme,
    signature: &'a [u8],
}

/// What extensions say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extensions<'a> {
    /// basicConstraints: whether it is an authority, and how many authorities may stand below it.
    pub(crate) basic_constraints: Option<(bool, Option<u32>)>,
    /// The first byte of keyUsage.
    pub(crate) key_usage: Option<u8>,
    /// extendedKeyUsage: contents of object identifiers.
    pub(crate) extended_key_usage: Vec<&'a [u8]>,
    pub(crate) alternative_names: Vec<SubjectAlternativeName<'a>>,
    /// The value of Fulcio's extension as it is.
    pub(crate) fulcio_issuer: Option<&'a [u8]>,
    pub(crate) has_name_constraints: bool,
    /// Contents of the identifier of the first critical extension that is not understood.
    pub(crate) unknown_critical: Option<&'a [u8]>,
}

/// Why bytes are no certificate that can be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its {part} is not as expected: {problem}")]
pub struct CertificateError {
    /// Where.
    pub part: &'static str,
    /// What was found, or what the decoder says.
    pub problem: String,
}

impl<'a> Certificate<'a> {
    /// Reads exactly one DER certificate.
    ///
    /// # Errors
    /// [`CertificateError`], when it is malformed, or its key or signature is of a kind that is not supported.
    pub fn parse(der: &'a [u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(error("length", format!("{} bytes, at most {MAX_CERTIFICATE_BYTES} are accepted", der.len())));
        }
        let mut outer = sequence("outer structure", der)?;
        let tbs = element(&mut outer, "signed part")?;
        let algorithm = element(&mut outer, "signature algorithm")?;
        let signature = outer.decode::<BitStringRef<'a>>().map_err(broken("signature"))?.as_bytes();
        let signature = signature.ok_or_else(|| error("signature", "it is not of whole bytes"))?;
        outer.finish().map_err(broken("outer structure"))?;
        let scheme = named_by(algorithm)
            .ok_or_else(|| error("signature algorithm", "none of ECDSA, RSA and RSA-PSS with SHA-2, and Ed25519"))?;

        let mut reader = sequence("signed part", tbs)?;
        let has_extensions = is_version_3(&mut reader)?;
        let serial = reader.decode::<AnyRef<'_>>().map_err(broken("serial number"))?;
        serial.tag().assert_eq(Tag::Integer).map_err(broken("serial number"))?;
        if element(&mut reader, "signature algorithm")? != algorithm {
            return Err(error("signature algorithm", "two different ones are named"));
        }
        let issuer = element(&mut reader, "issuer")?;
        let (not_before, not_after) = validity(&mut reader)?;
        let subject = element(&mut reader, "subject")?;
        let public_key = PublicKey::from_spki(element(&mut reader, "public key")?).ok_or_else(|| {
            error("public key", "none of an uncompressed point of P-256, P-384 or P-521, RSA, and Ed25519")
        })?;
        let extensions = match ContextSpecific::<AnyRef<'a>>::decode_explicit(&mut reader, TagNumber(3)) {
            Ok(Some(list)) if has_extensions => extensions(list.value)?,
            Ok(None) => Extensions::default(),
            Ok(Some(_)) => return Err(error("version", "it has extensions and is not of version 3")),
            Err(problem) => return Err(broken("extensions")(problem)),
        };
        reader.finish().map_err(broken("signed part"))?;
        let attributes = attributes(subject)?;
        Ok(Self {
            der,
            tbs,
            issuer,
            subject,
            attributes,
            not_before,
            not_after,
            public_key,
            extensions,
            scheme,
            signature,
        })
    }

    /// The certificate's bytes.
    #[must_use]
    pub const fn der(&self) -> &'a [u8] {
        self.der
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
    /// The attributes of the subject's name, in their order.
    #[must_use]
    pub fn subject_attributes(&self) -> &[Attribute<'a>] {
        &self.attributes
    }
    /// The subject's alternative names, of the kinds that a did:x509 can name.
    #[must_use]
    pub fn alternative_names(&self) -> &[SubjectAlternativeName<'a>] {
        &self.extensions.alternative_names
    }
    /// The extended key usages, as contents of object identifiers; none without that extension.
    #[must_use]
    pub fn extended_key_usage(&self) -> &[&'a [u8]] {
        &self.extensions.extended_key_usage
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
    /// The certified key.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey<'a> {
        &self.public_key
    }

    /// Whom it is of, for messages: the common name in printable characters, or the first attribute, or "no name".
    #[must_use]
    pub fn show_subject(&self) -> String {
        let common = self.attributes.iter().rfind(|attribute| attribute.oid == [0x55, 0x04, 0x03]);
        let text = common.or(self.attributes.last()).and_then(|attribute| attribute.value);
        let Some(text) = text else { return "no name".to_owned() };
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(128).collect()
    }

    /// Whether the key in `issuer` signed this certificate. Names and rights of the issuer are not looked at.
    #[must_use]
    pub fn is_signed_by(&self, issuer: &Certificate<'_>) -> bool {
        issuer.public_key.verifies_scheme(self.scheme, self.tbs, self.signature)
    }

    pub(crate) const fn extensions(&self) -> &Extensions<'a> {
        &self.extensions
    }

    /// Whether it may sign certificates: an authority, and keyUsage, where there is one, says so.
    pub(crate) fn may_certify(&self) -> bool {
        matches!(self.extensions.basic_constraints, Some((true, _)))
            && self.extensions.key_usage.is_none_or(|bits| bits & KEY_CERT_SIGN != 0)
    }

    /// Whether it may sign documents: keyUsage, where there is one, says so.
    pub(crate) fn may_sign(&self) -> bool {
        self.extensions.key_usage.is_none_or(|bits| bits & DIGITAL_SIGNATURE != 0)
    }
}

fn is_version_3(reader: &mut SliceReader<'_>) -> Result<bool, CertificateError> {
    let version = ContextSpecific::<u8>::decode_explicit(reader, TagNumber(0)).map_err(broken("version"))?;
    match version.map(|tagged| tagged.value) {
        None => Ok(false),
        Some(2) => Ok(true),
        Some(other) => Err(error("version", format!("{other}, expected none or 2"))),
    }
}

fn validity(reader: &mut SliceReader<'_>) -> Result<(Timestamp, Timestamp), CertificateError> {
    let mut reader = sequence("validity", element(reader, "validity")?)?;
    let not_before = time(&mut reader)?;
    let not_after = time(&mut reader)?;
    reader.finish().map_err(broken("validity"))?;
    Ok((not_before, not_after))
}

fn time(reader: &mut SliceReader<'_>) -> Result<Timestamp, CertificateError> {
    let since_epoch = if Tag::peek(reader).map_err(broken("validity"))? == Tag::UtcTime {
        reader.decode::<UtcTime>().map_err(broken("validity"))?.to_unix_duration()
    } else {
        reader.decode::<GeneralizedTime>().map_err(broken("validity"))?.to_unix_duration()
    };
    Ok(since_epoch.into())
}

/// Reads extensions, each at most once.
fn extensions(list: AnyRef<'_>) -> Result<Extensions<'_>, CertificateError> {
    list.tag().assert_eq(Tag::Sequence).map_err(broken("extensions"))?;
    let mut reader = SliceReader::new(list.value()).map_err(broken("extensions"))?;
    let mut known: Vec<&[u8]> = Vec::new();
    let mut all = Extensions::default();
    while !reader.is_finished() {
        let mut extension = sequence("extension", element(&mut reader, "extensions")?)?;
        let id = object_id(&mut extension, "extension")?;
        let critical = Tag::peek(&extension).is_ok_and(|tag| tag == Tag::Boolean)
            && extension.decode::<bool>().map_err(broken("extension"))?;
        let value = extension.decode::<&OctetStringRef>().map_err(broken("extension"))?.as_bytes();
        extension.finish().map_err(broken("extension"))?;
        if known.contains(&id) || known.len() >= MAX_LIST {
            let id = oid::to_dotted(id);
            return Err(error("extensions", format!("{id} is there twice, or there are more than {MAX_LIST}")));
        }
        known.push(id);
        all.read(id, critical, value)?;
    }
    Ok(all)
}

impl<'a> Extensions<'a> {
    fn read(&mut self, id: &'a [u8], critical: bool, value: &'a [u8]) -> Result<(), CertificateError> {
        match id {
            oid::BASIC_CONSTRAINTS => self.basic_constraints = Some(basic_constraints(value)?),
            oid::KEY_USAGE => {
                let bits = BitStringRef::from_der(value).map_err(broken("key usage"))?;
                self.key_usage = Some(bits.raw_bytes().first().copied().unwrap_or(0));
            }
            oid::EXTENDED_KEY_USAGE => self.extended_key_usage = extended_key_usage(value)?,
            oid::SUBJECT_ALTERNATIVE_NAME => self.alternative_names = alternative_names(value)?,
            oid::NAME_CONSTRAINTS => self.has_name_constraints = true,
            oid::FULCIO_ISSUER => self.fulcio_issuer = Some(value),
            // Under which policies certificates were issued decides nothing here.
            oid::CERTIFICATE_POLICIES => {}
            _ if critical => _ = self.unknown_critical.get_or_insert(id),
            _ => {}
        }
        Ok(())
    }
}

fn basic_constraints(value: &[u8]) -> Result<(bool, Option<u32>), CertificateError> {
    let part = "basic constraints";
    let mut reader = sequence(part, value)?;
    let authority =
        Tag::peek(&reader).is_ok_and(|tag| tag == Tag::Boolean) && reader.decode::<bool>().map_err(broken(part))?;
    let length = if reader.is_finished() { None } else { Some(reader.decode::<u32>().map_err(broken(part))?) };
    reader.finish().map_err(broken(part))?;
    Ok((authority, length))
}

fn extended_key_usage(value: &[u8]) -> Result<Vec<&[u8]>, CertificateError> {
    let part = "extended key usage";
    let mut reader = sequence(part, value)?;
    let mut all = Vec::new();
    while !reader.is_finished() {
        if all.len() >= MAX_LIST {
            return Err(error(part, format!("more than {MAX_LIST}")));
        }
        all.push(object_id(&mut reader, part)?);
    }
    Ok(all)
}

/// Contents of an object identifier.
pub(crate) fn object_id<'a>(reader: &mut SliceReader<'a>, part: &'static str) -> Result<&'a [u8], CertificateError> {
    let any = reader.decode::<AnyRef<'a>>().map_err(broken(part))?;
    any.tag().assert_eq(Tag::ObjectIdentifier).map_err(broken(part))?;
    Ok(any.value())
}

/// A reader of the contents of the one SEQUENCE that `der` is.
pub(crate) fn sequence<'a>(part: &'static str, der: &'a [u8]) -> Result<SliceReader<'a>, CertificateError> {
    let any = AnyRef::from_der(der).map_err(broken(part))?;
    any.tag().assert_eq(Tag::Sequence).map_err(broken(part))?;
    SliceReader::new(any.value()).map_err(broken(part))
}

/// The next element, whole, with tag and length.
fn element<'a>(reader: &mut SliceReader<'a>, part: &'static str) -> Result<&'a [u8], CertificateError> {
    reader.tlv_bytes().map_err(broken(part))
}

pub(crate) fn broken(part: &'static str) -> impl Fn(der::Error) -> CertificateError {
    move |problem| CertificateError { part, problem: problem.to_string() }
}

pub(crate) fn error(part: &'static str, problem: impl Into<String>) -> CertificateError {
    CertificateError { part, problem: problem.into() }
}
