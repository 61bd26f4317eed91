//! How the software secure processor of the emulated TEE names itself, so that nobody takes it for hardware.
//!
//! Each of its certificates carries [`MARKER_OID`] as a critical extension: a verifier that does not know it must refuse,
//! and ours refuses it by name. Knowing the marker is no way to accept it: that takes a root, and none is here.

use caveau_signature::sha256;

/// The marker extension's object identifier, `2.25.` and UUID 03909c95-6997-42f0-aa4f-758365c1e8d4 as a number: its DER
/// contents.
pub const MARKER_OID: [u8; 19] =
    [0x69, 0x87, 0x90, 0xce, 0xa5, 0xad, 0x99, 0xba, 0x8b, 0xe1, 0xaa, 0xa7, 0xdd, 0xb0, 0xb6, 0xae, 0x87, 0xd1, 0x54];
/// The marker extension's object identifier, in dots.
pub const MARKER_OID_TEXT: &str = "2.25.4738550628556937028873894886673344724";
/// The marker extension's value: a UTF8String.
pub const MARKER_TEXT: &str = "Emulated SEV-SNP: gives no confidentiality";
/// Organization (O) in the names of software certificates.
pub const ORGANIZATION: &str = "Caveau software secure processor";
/// Organizational unit (OU) in the names of software certificates.
pub const UNIT: &str = "Emulated SEV-SNP, no confidentiality";
/// What the CHIP_ID of a software processor starts with. (The eight bytes of a Turin persona: its first six and two more.)
pub const CHIP_PREFIX: [u8; 8] = *b"SOFTSP\0\0";
/// Product name in the endorsement key's certificate of a software processor that plays no real one.
pub const PRODUCT_NAME: &str = "Software";
/// The part of a name that the three authorities of one installation share: `ARK-SOFTWARE-<id>`, `SEV-SOFTWARE-<id>`, …
pub const NAME_PREFIX: &str = "SOFTWARE-";

/// The identity of an installation's root: the first eight bytes of SHA-256 over its SubjectPublicKeyInfo, in hexadecimal.
/// The root's name contains it, which ties the name to the key.
#[must_use]
pub fn root_id(subject_public_key_info: &[u8]) -> String {
    let hash = sha256(&[subject_public_key_info]);
    hex::encode(hash.get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_is_the_uuid() {
        let mut number: u128 = 0;
        for byte in &MARKER_OID[1..] {
            number = number << 7 | u128::from(byte & 0x7f);
        }
        assert_eq!(number, 0x0390_9c95_6997_42f0_aa4f_7583_65c1_e8d4);
        assert_eq!(MARKER_OID[0], 2 * 40 + 25);
        assert_eq!(MARKER_OID_TEXT, format!("2.25.{number}"));
        assert!(MARKER_OID[1..18].iter().all(|byte| byte & 0x80 != 0) && MARKER_OID[18] & 0x80 == 0);
    }
}
