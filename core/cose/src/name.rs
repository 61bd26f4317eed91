//! Names in certificates: the subject's attributes and its alternative names.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use der::asn1::AnyRef;
use der::{Class, Reader as _, SliceReader, Tag, Tagged as _};

use crate::certificate::{CertificateError, broken, error, object_id, sequence};

/// Most attributes of a name, and most alternative names, accepted.
const MAX_NAMES: usize = 256;

/// An attribute of a distinguished name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Contents of its type's object identifier.
    pub oid: &'a [u8],
    /// Its text; `None` where it is of a string type whose characters are not those of UTF-8.
    pub value: Option<&'a str>,
}

/// A subject's alternative name (RFC 5280, 4.2.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectAlternativeName<'a> {
    /// A DNS name.
    Dns(&'a str),
    /// A mailbox.
    Email(&'a str),
    /// An IP address.
    IpAddress(IpAddr),
    /// A URI.
    Uri(&'a str),
}

/// The attributes of a name, those of one part after those of the part before.
pub(crate) fn attributes(name: &[u8]) -> Result<Vec<Attribute<'_>>, CertificateError> {
    let part = "subject";
    let mut parts = sequence(part, name)?;
    let mut all = Vec::new();
    while !parts.is_finished() {
        let set = parts.decode::<AnyRef<'_>>().map_err(broken(part))?;
        set.tag().assert_eq(Tag::Set).map_err(broken(part))?;
        let mut set = SliceReader::new(set.value()).map_err(broken(part))?;
        while !set.is_finished() {
            let mut attribute = sequence(part, set.tlv_bytes().map_err(broken(part))?)?;
            let oid = object_id(&mut attribute, part)?;
            let value = attribute.decode::<AnyRef<'_>>().map_err(broken(part))?;
            attribute.finish().map_err(broken(part))?;
            if all.len() >= MAX_NAMES {
                return Err(error(part, format!("more than {MAX_NAMES} attributes")));
            }
            all.push(Attribute { oid, value: text(value) });
        }
    }
    Ok(all)
}

fn text(value: AnyRef<'_>) -> Option<&str> {
    match value.tag() {
        Tag::Utf8String => std::str::from_utf8(value.value()).ok(),
        Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => ascii(value.value()),
        _ => None,
    }
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii())
}

/// The alternative names of the kinds that are understood; others are left out.
pub(crate) fn alternative_names(value: &[u8]) -> Result<Vec<SubjectAlternativeName<'_>>, CertificateError> {
    let part = "subject alternative name";
    let mut reader = sequence(part, value)?;
    let mut all = Vec::new();
    while !reader.is_finished() {
        let name = reader.decode::<AnyRef<'_>>().map_err(broken(part))?;
        if all.len() >= MAX_NAMES {
            return Err(error(part, format!("more than {MAX_NAMES}")));
        }
        if name.tag().class() != Class::ContextSpecific {
            return Err(error(part, "a name without its kind's tag"));
        }
        let characters = || ascii(name.value()).ok_or_else(|| error(part, "a name is not ASCII"));
        all.extend(match name.tag().number().value() {
            1 => Some(SubjectAlternativeName::Email(characters()?)),
            2 => Some(SubjectAlternativeName::Dns(characters()?)),
            6 => Some(SubjectAlternativeName::Uri(characters()?)),
            7 => Some(SubjectAlternativeName::IpAddress(address(name.value())?)),
            _ => None,
        });
    }
    Ok(all)
}

fn address(bytes: &[u8]) -> Result<IpAddr, CertificateError> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::V4(Ipv4Addr::from(four)));
    }
    let sixteen = <[u8; 16]>::try_from(bytes);
    sixteen
        .map(|sixteen| IpAddr::V6(Ipv6Addr::from(sixteen)))
        .map_err(|_| error("subject alternative name", format!("an IP address of {} bytes", bytes.len())))
}
