//! AMD's extensions in the certificate of an endorsement key: for which chip and which firmware levels it was made
//! (AMD 57230, "VCEK certificate definitions").

use ::der::Decode;
use ::der::asn1::{Ia5StringRef, OctetStringRef};

use crate::certificate::{Certificate, is_printable, show_oid};
use crate::check::Refusal;
use crate::oid;
use crate::product::Product;
use crate::tcb::{Layout, Tcb};

/// What the certificate of an endorsement key says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VekExtensions<'a> {
    /// productName, such as `Milan-B0` or `Genoa`.
    pub(crate) product_name: &'a str,
    /// The firmware levels.
    pub(crate) tcb: Tcb,
    /// The chip's hardware ID, for a VCEK.
    pub(crate) hwid: Option<&'a [u8]>,
    /// The cloud provider, for a VLEK.
    pub(crate) csp_id: Option<&'a str>,
}

impl<'a> VekExtensions<'a> {
    /// Reads the extensions as those of a `product`'s key. Each required one must be there in canonical DER; AMD extensions
    /// that are not known are passed over.
    ///
    /// # Errors
    /// A [`Refusal`] with code `vek-extensions`.
    pub(crate) fn parse(certificate: &Certificate<'a>, product: Product) -> Result<Self, Refusal> {
        let version = small_integer(certificate, oid::STRUCT_VERSION)?;
        if version != product.struct_version() {
            return Err(refusal(format!("structVersion is {version}, expected {}", product.struct_version())));
        }
        // Levels of parts that the layout has no byte for: a report cannot claim them, so a key must not be for them.
        let without_part: &[u8] = if product.layout() == Layout::Turin { &[4, 5, 6, 7] } else { &[4, 5, 6, 7, 9] };
        for id in without_part.iter().map(|n| oid::spl(*n)) {
            if certificate.extension(&id).is_some() && small_integer(certificate, &id)? != 0 {
                return Err(refusal(format!("{} is a level of a part that {} lacks", show_oid(&id), product.name())));
            }
        }
        let level = |n: u8| small_integer(certificate, &oid::spl(n));
        Ok(Self {
            product_name: ia5(certificate, oid::PRODUCT_NAME)?
                .ok_or_else(|| refusal("productName is missing".to_owned()))?,
            tcb: Tcb {
                fmc: if product.layout() == Layout::Turin { Some(level(9)?) } else { None },
                bootloader: level(1)?,
                tee: level(2)?,
                snp: level(3)?,
                microcode: level(8)?,
            },
            hwid: match certificate.extension(oid::HWID) {
                Some(extension) => Some(hwid(extension.value, product.hwid_bytes())?),
                None => None,
            },
            csp_id: ia5(certificate, oid::CSP_ID)?,
        })
    }
}

/// An INTEGER from 0 to 255 in the one way that DER has for it.
fn small_integer(certificate: &Certificate<'_>, id: &[u8]) -> Result<u8, Refusal> {
    let extension = certificate.extension(id).ok_or_else(|| refusal(format!("{} is missing", show_oid(id))))?;
    u8::from_der(extension.value).map_err(|error| {
        let (name, value) = (show_oid(id), hex::encode(extension.value));
        refusal(format!("{name} is no INTEGER from 0 to 255 ({value}): {error}"))
    })
}

fn ia5<'a>(certificate: &Certificate<'a>, id: &[u8]) -> Result<Option<&'a str>, Refusal> {
    let Some(extension) = certificate.extension(id) else { return Ok(None) };
    let text = Ia5StringRef::from_der(extension.value)
        .map_err(|error| refusal(format!("{} is no IA5String: {error}", show_oid(id))))?;
    if !is_printable(text.as_str()) {
        return Err(refusal(format!("{} has a control character", show_oid(id))));
    }
    Ok(Some(text.as_str()))
}

/// The hardware ID: as it is, or in an OCTET STRING. Length decides, since an ID may well look like a DER tag.
fn hwid(value: &[u8], expected: usize) -> Result<&[u8], Refusal> {
    if value.len() == expected {
        return Ok(value);
    }
    let wrapped = <&OctetStringRef>::from_der(value).map(OctetStringRef::as_bytes).ok();
    wrapped.filter(|id| id.len() == expected).ok_or_else(|| {
        refusal(format!(
            "the hardware ID's extension has {} bytes, expected {expected}, or those in an OCTET STRING",
            value.len()
        ))
    })
}

fn refusal(sentence: String) -> Refusal {
    Refusal::new("vek-extensions", format!("the endorsement key's certificate: {sentence}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hardware_id_is_told_by_its_length() {
        for first_two in [[0x02, 0xea], [0x04, 0x3e], [0x04, 0x40]] {
            let mut raw = vec![7; 64];
            raw[..2].copy_from_slice(&first_two);
            assert_eq!(hwid(&raw, 64).unwrap(), raw);
            let wrapped = [&[0x04, 0x40][..], &raw].concat();
            assert_eq!(hwid(&wrapped, 64).unwrap(), raw);
        }
        for bad in [0, 8, 63, 65, 67] {
            assert!(hwid(&vec![4; bad], 64).is_err(), "{bad} bytes");
        }
    }
}
