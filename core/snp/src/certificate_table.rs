//! The certificate table that comes with a report (AMD 56421 "GHCB", `SNP_EXTENDED_GUEST_REQUEST`; configfs `auxblob`).
//!
//! A header of 24-byte entries (GUID in RFC 4122 byte order, u32 offset, u32 length, little endian), ended by an
//! all-zero entry, then the certificates. Whoever fills the table is the host: nothing in it is trusted, it only
//! saves a verifier the way to the manufacturer's server.

use std::collections::BTreeSet;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the largest table: what the Linux driver has room for.
pub const MAX_TABLE: usize = 0x4000;

/// A certificate table that cannot be read or built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The same GUID twice: which of the two counts would be for the reader to guess.
    #[error("the certificate table has {0} twice")]
    Duplicate(String),
    /// An entry that lies outside the table or inside its header.
    #[error("certificate table entry {guid} at {offset:#x}, {length:#x} bytes, lies outside the table")]
    OutOfBounds {
        /// The entry.
        guid: String,
        /// Its offset from the table's start.
        offset: u32,
        /// Its length.
        length: u32,
    },
    /// Larger than [`MAX_TABLE`].
    #[error("a certificate table of {found} bytes, allowed are {max}")]
    Oversized {
        /// Bytes.
        found: usize,
        /// The bound.
        max: usize,
    },
    /// No all-zero entry ends the header.
    #[error("the certificate table's header does not end")]
    Unterminated,
}

/// The name of one certificate: a GUID in RFC 4122 byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateId(pub [u8; 16]);

impl CertificateId {
    /// 63da758d-e664-4564-adc5-f4b93be8accd.
    pub const VCEK: Self = Self(0x63da_758d_e664_4564_adc5_f4b9_3be8_accd_u128.to_be_bytes());
    /// a8074bc2-a25a-483e-aae6-39c045a0b8a1.
    pub const VLEK: Self = Self(0xa807_4bc2_a25a_483e_aae6_39c0_45a0_b8a1_u128.to_be_bytes());
    /// 4ab7b379-bbac-4fe4-a02f-05aef327c782: the ASK, or the ASVK beside a VLEK.
    pub const ASK: Self = Self(0x4ab7_b379_bbac_4fe4_a02f_05ae_f327_c782_u128.to_be_bytes());
    /// c0b406a4-a803-4952-9743-3fb6014cd0ae.
    pub const ARK: Self = Self(0xc0b4_06a4_a803_4952_9743_3fb6_014c_d0ae_u128.to_be_bytes());
}

impl std::fmt::Display for CertificateId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = u128::from_be_bytes(self.0);
        let part = |shift: u32, bits: u32| (number >> shift) & ((1_u128 << bits).wrapping_sub(1));
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 32),
            part(80, 16),
            part(64, 16),
            part(48, 16),
            part(0, 48)
        )
    }
}

/// One certificate of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// Which one.
    pub id: CertificateId,
    /// Its bytes: DER, or PEM from some hosts.
    pub data: &'a [u8],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    id: [u8; 16],
    offset: U32,
    length: U32,
}

/// Reads a table; bytes after the last certificate are padding and not looked at. No bytes at all is the empty table.
///
/// # Errors
/// When the table is over its bound, its header does not end, an entry reaches outside the table or into the
/// header, or a GUID comes twice.
pub fn parse(table: &[u8]) -> Result<Vec<Certificate<'_>>, TableError> {
    if table.len() > MAX_TABLE {
        return Err(TableError::Oversized { found: table.len(), max: MAX_TABLE });
    }
    let header = if table.is_empty() { Vec::new() } else { entries(table)? };
    // The header is the entries and the zero entry that ends it.
    let header_size = header.len().saturating_add(1).saturating_mul(size_of::<RawEntry>());
    let mut seen = BTreeSet::new();
    let mut certificates = Vec::with_capacity(header.len());
    for entry in header {
        let id = CertificateId(entry.id);
        if !seen.insert(id) {
            return Err(TableError::Duplicate(id.to_string()));
        }
        certificates.push(Certificate { id, data: slice(table, header_size, id, entry)? });
    }
    Ok(certificates)
}

/// The entries before the all-zero one.
fn entries(table: &[u8]) -> Result<Vec<&RawEntry>, TableError> {
    let mut entries = Vec::new();
    let mut rest = table;
    loop {
        let (entry, after) = RawEntry::ref_from_prefix(rest).map_err(|_| TableError::Unterminated)?;
        if entry.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(entries);
        }
        entries.push(entry);
        rest = after;
    }
}

fn slice<'a>(table: &'a [u8], header_size: usize, id: CertificateId, entry: &RawEntry) -> Result<&'a [u8], TableError> {
    let (offset, length) = (entry.offset.get(), entry.length.get());
    let start = offset as usize;
    start
        .checked_add(length as usize)
        .filter(|_| start >= header_size)
        .and_then(|end| table.get(start..end))
        .ok_or_else(|| TableError::OutOfBounds { guid: id.to_string(), offset, length })
}

/// Writes a table with these certificates, in this order, without padding.
///
/// # Errors
/// When it would be over its bound or has a GUID twice.
pub fn build(certificates: &[Certificate<'_>]) -> Result<Vec<u8>, TableError> {
    let header_size = certificates.len().saturating_add(1).saturating_mul(size_of::<RawEntry>());
    let total = certificates.iter().fold(header_size, |sum, certificate| sum.saturating_add(certificate.data.len()));
    if total > MAX_TABLE {
        return Err(TableError::Oversized { found: total, max: MAX_TABLE });
    }
    let mut table = Vec::with_capacity(total);
    let mut seen = BTreeSet::new();
    let mut offset = header_size;
    for certificate in certificates {
        if !seen.insert(certificate.id) {
            return Err(TableError::Duplicate(certificate.id.to_string()));
        }
        let entry = RawEntry {
            id: certificate.id.0,
            offset: U32::new(u32::try_from(offset).unwrap_or(u32::MAX)),
            length: U32::new(u32::try_from(certificate.data.len()).unwrap_or(u32::MAX)),
        };
        table.extend_from_slice(entry.as_bytes());
        offset = offset.saturating_add(certificate.data.len());
    }
    table.resize(header_size, 0);
    for certificate in certificates {
        table.extend_from_slice(certificate.data);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Vec<u8> {
        build(&[
            Certificate { id: CertificateId::VCEK, data: b"leaf" },
            Certificate { id: CertificateId::ASK, data: b"middle" },
        ])
        .unwrap()
    }

    #[test]
    fn guids_are_in_network_order() {
        assert_eq!(CertificateId::VCEK.to_string(), "63da758d-e664-4564-adc5-f4b93be8accd");
        assert_eq!(example()[..4], [0x63, 0xda, 0x75, 0x8d]);
    }

    #[test]
    fn offsets_count_from_the_table_start() {
        let table = example();
        assert_eq!(table[16..24], [72, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(&table[72..], b"leafmiddle");
    }

    #[test]
    fn padding_and_the_empty_table_are_fine() {
        let mut table = example();
        table.resize(4096, 0);
        assert_eq!(parse(&table).unwrap().len(), 2);
        assert_eq!(parse(&[]).unwrap(), []);
        assert_eq!(parse(&[0; 24]).unwrap(), []);
    }

    #[test]
    fn each_lie_about_bounds_is_refused() {
        for (offset, length) in
            [(0_u32, 4_u32), (71, 4), (72, 11), (73, 10), (u32::MAX, 2), (72, u32::MAX), (u32::MAX, u32::MAX)]
        {
            let mut table = example();
            table[16..20].copy_from_slice(&offset.to_le_bytes());
            table[20..24].copy_from_slice(&length.to_le_bytes());
            assert!(matches!(parse(&table), Err(TableError::OutOfBounds { .. })), "{offset:#x} {length:#x}");
        }
    }

    #[test]
    fn other_malformed_tables_are_refused() {
        assert_eq!(parse(&example()[..71]), Err(TableError::Unterminated));
        assert_eq!(parse(&[1]), Err(TableError::Unterminated));
        assert!(matches!(parse(&[0; MAX_TABLE + 1]), Err(TableError::Oversized { .. })));
        let mut twice = example();
        twice.copy_within(0..16, 24);
        assert_eq!(parse(&twice), Err(TableError::Duplicate(CertificateId::VCEK.to_string())));
        let same = Certificate { id: CertificateId::ARK, data: b"" };
        assert!(matches!(build(&[same, same]), Err(TableError::Duplicate(_))));
        let large = vec![0; MAX_TABLE];
        assert!(matches!(
            build(&[Certificate { id: CertificateId::ARK, data: &large }]),
            Err(TableError::Oversized { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(parse(&bytes));
        }

        #[test]
        fn a_table_survives_the_round_trip(
            parts in proptest::collection::btree_map(1u128.., proptest::collection::vec(any::<u8>(), 0..100), 0..20),
        ) {
            let certificates: Vec<_> = parts
                .iter()
                .map(|(id, data)| Certificate { id: CertificateId(id.to_be_bytes()), data })
                .collect();
            let table = build(&certificates).unwrap();
            prop_assert_eq!(parse(&table).unwrap(), certificates);
        }
    }
}
