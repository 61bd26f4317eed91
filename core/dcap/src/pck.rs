//! Intel's extension in the certificate of a platform's key ("SGX PCK Certificate and CRL Profile Specification"): for which
//! platform and which levels it was made.

use caveau_snp::Hex;
use caveau_snp::certificate::Certificate;
use caveau_snp::check::Refusal;
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Reader, SliceReader, Tag, Tagged};
use serde::Serialize;

/// 1.2.840.113741.1.13.1, DER contents.
const SGX_EXTENSIONS: &[u8] = b"\x2a\x86\x48\x86\xf8\x4d\x01\x0d\x01";

/// What the certificate of a platform's key says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PckExtensions {
    /// PPID: the platform's name for provisioning.
    pub ppid: Hex<16>,
    /// SVNs of the 16 components.
    pub components: [u8; 16],
    /// PCESVN.
    pub pce_svn: u16,
    /// CPUSVN.
    pub cpu_svn: Hex<16>,
    /// PCE-ID.
    pub pce_id: Hex<2>,
    /// FMSPC: family, model, stepping, platform and SKU.
    pub fmspc: Hex<6>,
    /// 0 standard, 1 scalable, 2 scalable with integrity.
    pub sgx_type: u8,
    /// The platform instance; only under a platform authority.
    pub platform_instance_id: Option<Hex<16>>,
    /// Whether packages may be added; only under a platform authority, and so with the next two.
    pub dynamic_platform: Option<bool>,
    /// Whether Intel keeps the platform's root keys.
    pub cached_keys: Option<bool>,
    /// Whether sibling threads are on.
    pub smt_enabled: Option<bool>,
}

impl PckExtensions {
    /// Reads the extension; each element must be there once, and of its type.
    ///
    /// # Errors
    /// A [`Refusal`] with code `pck-extensions`.
    pub(crate) fn parse(certificate: &Certificate<'_>) -> Result<Self, Refusal> {
        let extension = certificate.extension(SGX_EXTENSIONS).ok_or_else(|| refuse("it lacks Intel's extension"))?;
        let list = Elements::parse(extension.value, SGX_EXTENSIONS)?;
        let tcb = list.sequence(2)?;
        let mut components = [0; 16];
        for (number, component) in (1..).zip(&mut components) {
            *component = tcb.integer::<u8>(number)?;
        }
        let configuration = list.find(7).map(|_| list.sequence(7)).transpose()?;
        let flag = |number| configuration.as_ref().map(|list| list.boolean(number)).transpose().map(Option::flatten);
        Ok(Self {
            ppid: list.octets(1)?,
            components,
            pce_svn: tcb.integer(17)?,
            cpu_svn: tcb.octets(18)?,
            pce_id: list.octets(3)?,
            fmspc: list.octets(4)?,
            sgx_type: list.enumerated(5)?,
            platform_instance_id: list.find(6).map(|_| list.octets(6)).transpose()?,
            dynamic_platform: flag(1)?,
            cached_keys: flag(2)?,
            smt_enabled: flag(3)?,
        })
    }
}

/// Elements of a list: identifiers that continue the list's own by one number, each with a value.
struct Elements<'a>(Vec<(u8, AnyRef<'a>)>);

impl<'a> Elements<'a> {
    /// Reads a whole SEQUENCE.
    fn parse(der: &'a [u8], prefix: &[u8]) -> Result<Self, Refusal> {
        let any = AnyRef::from_der(der).map_err(malformed)?;
        any.tag().assert_eq(Tag::Sequence).map_err(malformed)?;
        Self::of(any.value(), prefix)
    }

    fn of(contents: &'a [u8], prefix: &[u8]) -> Result<Self, Refusal> {
        let mut reader = SliceReader::new(contents).map_err(malformed)?;
        let mut list: Vec<(u8, AnyRef<'a>)> = Vec::new();
        while !reader.is_finished() {
            let pair = reader.decode::<AnyRef<'a>>().map_err(malformed)?;
            pair.tag().assert_eq(Tag::Sequence).map_err(malformed)?;
            let mut pair = SliceReader::new(pair.value()).map_err(malformed)?;
            let id = pair.decode::<AnyRef<'a>>().map_err(malformed)?;
            id.tag().assert_eq(Tag::ObjectIdentifier).map_err(malformed)?;
            let value = pair.decode::<AnyRef<'a>>().map_err(malformed)?;
            pair.finish().map_err(malformed)?;
            // Elements that are not known are passed over: Intel adds some.
            let Some(&[number]) = id.value().strip_prefix(prefix) else { continue };
            if list.iter().any(|(known, _)| *known == number) {
                return Err(refuse(&format!("its element {number} is there twice")));
            }
            list.push((number, value));
        }
        Ok(Self(list))
    }

    fn find(&self, number: u8) -> Option<AnyRef<'a>> {
        self.0.iter().find(|(known, _)| *known == number).map(|(_, value)| *value)
    }

    fn of_tag(&self, number: u8, tag: Tag) -> Result<AnyRef<'a>, Refusal> {
        let value = self.find(number).ok_or_else(|| refuse(&format!("its element {number} is missing")))?;
        if value.tag() == tag {
            return Ok(value);
        }
        Err(refuse(&format!("its element {number} is a {}, expected a {tag}", value.tag())))
    }

    fn sequence(&self, number: u8) -> Result<Self, Refusal> {
        Self::of(self.of_tag(number, Tag::Sequence)?.value(), &[SGX_EXTENSIONS, &[number]].concat())
    }

    fn octets<const N: usize>(&self, number: u8) -> Result<Hex<N>, Refusal> {
        let value = self.of_tag(number, Tag::OctetString)?.decode_as::<&OctetStringRef>().map_err(malformed)?;
        let bytes = value.as_bytes().try_into();
        bytes.map(Hex).map_err(|_| refuse(&format!("its element {number} has not {N} bytes")))
    }

    fn integer<T: TryFrom<u16>>(&self, number: u8) -> Result<T, Refusal> {
        let value = self.of_tag(number, Tag::Integer)?.decode_as::<u16>().map_err(malformed)?;
        T::try_from(value).map_err(|_| refuse(&format!("its element {number} is {value}, which is too large")))
    }

    fn enumerated(&self, number: u8) -> Result<u8, Refusal> {
        match self.of_tag(number, Tag::Enumerated)?.value() {
            [value @ 0..=0x7f] => Ok(*value),
            _ => Err(refuse(&format!("its element {number} is no small number"))),
        }
    }

    fn boolean(&self, number: u8) -> Result<Option<bool>, Refusal> {
        if self.find(number).is_none() {
            return Ok(None);
        }
        self.of_tag(number, Tag::Boolean)?.decode_as::<bool>().map(Some).map_err(malformed)
    }
}

fn malformed(error: der::Error) -> Refusal {
    refuse(&format!("Intel's extension is not the DER expected: {error}"))
}

fn refuse(sentence: &str) -> Refusal {
    Refusal::new("pck-extensions", format!("the certificate of the platform's key: {sentence}"))
}
