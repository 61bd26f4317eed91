//! Public keys by themselves (SubjectPublicKeyInfo, RFC 5280 and RFC 5480), or taken out of a certificate whose other contents
//! do not matter to whoever gave it.

use ::der::asn1::{AnyRef, BitStringRef, UintRef};
use ::der::{Decode, Reader, SliceReader, Tag, Tagged};

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawKey<'a> {
    /// An uncompressed point of P-256.
    P256(&'a [u8]),
    /// An uncompressed point of P-384.
    P384(&'a [u8]),
    /// Modulus and exponent of RSA, big-endian; 2048 to 8192 bits.
    Rsa {
        /// The modulus.
        n: &'a [u8],
        /// The exponent.
        e: &'a [u8],
    },
}

/// Contents of AlgorithmIdentifier: id-ecPublicKey with prime256v1, with secp384r1; rsaEncryption with NULL.
const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// Reads a SubjectPublicKeyInfo; `None` where it is none, or of another kind of key.
#[must_use]
pub fn parse(der: &[u8]) -> Option<RawKey<'_>> {
    let mut reader = sequence(der)?;
    let algorithm = reader.decode::<AnyRef<'_>>().ok()?;
    let key = reader.decode::<BitStringRef<'_>>().ok()?.as_bytes()?;
    reader.finish().ok()?;
    let is_point = |size: usize| key.len() == size && key.first() == Some(&4);
    match algorithm.value() {
        P256 if is_point(65) => Some(RawKey::P256(key)),
        P384 if is_point(97) => Some(RawKey::P384(key)),
        RSA => {
            let mut reader = sequence(key)?;
            let n = reader.decode::<UintRef<'_>>().ok()?.as_bytes();
            let e = reader.decode::<UintRef<'_>>().ok()?.as_bytes();
            reader.finish().ok()?;
            (256..=1024).contains(&n.len()).then_some(RawKey::Rsa { n, e })
        }
        _ => None,
    }
}

/// The SubjectPublicKeyInfo in a certificate (RFC 5280, 4.1); `None` where it is none.
#[must_use]
pub fn of_certificate(der: &[u8]) -> Option<&[u8]> {
    let mut outer = sequence(der)?;
    let tbs = outer.decode::<AnyRef<'_>>().ok()?;
    tbs.tag().assert_eq(Tag::Sequence).ok()?;
    let mut tbs = SliceReader::new(tbs.value()).ok()?;
    // Version, serial number, algorithm, issuer, validity, subject.
    tbs.decode::<AnyRef<'_>>().ok()?.tag().is_context_specific().then_some(())?;
    for expected in [Tag::Integer, Tag::Sequence, Tag::Sequence, Tag::Sequence, Tag::Sequence] {
        tbs.decode::<AnyRef<'_>>().ok()?.tag().assert_eq(expected).ok()?;
    }
    tbs.tlv_bytes().ok()
}

fn sequence(der: &[u8]) -> Option<SliceReader<'_>> {
    let any = AnyRef::from_der(der).ok()?;
    any.tag().assert_eq(Tag::Sequence).ok()?;
    SliceReader::new(any.value()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{p384_spki, rsa_spki};
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn keys_are_read_by_their_kind() {
        let point = [&[4][..], &[9; 96]].concat();
        assert_eq!(parse(&p384_spki(&point)), Some(RawKey::P384(&point)));
        let rsa = [&[0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0][..], &[0xc5; 256], &[2, 3, 1, 0, 1]].concat();
        assert_eq!(parse(&rsa_spki(&rsa)), Some(RawKey::Rsa { n: &[0xc5; 256], e: &[1, 0, 1] }));
        assert_eq!(parse(&p384_spki(&point[..96])), None);
        assert_eq!(parse(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_or_none(bytes in vec(any::<u8>(), 0..120)) {
            let _ = parse(&bytes);
            let _ = of_certificate(&bytes);
        }
    }
}
