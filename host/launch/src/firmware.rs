//! Whether an OVMF image checks the kernel that the host gives it. Only then does the launch digest cover the kernel.
//!
//! QEMU writes the hashes of kernel, initial RAM disk and command line into a page that the launch digest covers. Whether
//! anybody compares them is the firmware's matter: in edk2 that is `BlobVerifierLibSevHashes`, which the AmdSev build has
//! and the generic builds replace by one that accepts everything, even where they reserve the page. The page's presence
//! proves nothing, then; the comparing code does. It carries the identifiers of the three entries, which the other
//! library has no use for, in the compressed volume of DXE drivers (PI specification, volume 3, 2.2.4; edk2,
//! `OvmfPkg/AmdSev/BlobVerifierLibSevHashes`).
//!
//! This protects an owner from a mistake, not from the host: what a verifier trusts is the launch digest over the image.

use std::io::{self, Read};

use caveau_measure::{Ovmf, OvmfError};
use lzma_rust2::LzmaReader;

/// A GUID as it lies in memory.
type Guid = [u8; 16];

/// Section that holds LZMA-compressed data: EE4E5898-3914-4259-9D6E-DC7BD79403CF.
const LZMA_SECTION: Guid = guid(0xee4e_5898, 0x3914, 0x4259, [0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf]);

/// Entries of the table of hashes, by name.
const ENTRIES: [(&str, Guid); 3] = [
    ("kernel", guid(0x4de7_9437, 0xabd2, 0x427f, [0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b])),
    ("initrd", guid(0x44ba_f731, 0x3a2f, 0x4bd7, [0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d])),
    ("command line", guid(0x97d0_2dd8, 0xbd20, 0x4c94, [0xaa, 0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a])),
];

/// Most bytes that are unpacked from one section.
const MAX_UNPACKED: u64 = 64 << 20;

/// Most memory for unpacking, in KiB.
const MAX_MEMORY_KIB: u32 = 128 << 10;

/// Why a firmware is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirmwareFault {
    /// It says nothing about SEV-SNP, or what it says is malformed.
    #[error("it is no OVMF image with SEV metadata; give an AmdSev build of OVMF")]
    Metadata(#[source] OvmfError),
    /// It reserves no page for the hashes.
    #[error("it has no page for kernel hashes, so it does not check the kernel; give an AmdSev build of OVMF")]
    NoHashes,
    /// It reserves the page and never looks at it.
    #[error(
        "it reserves a page for kernel hashes but has no code that checks the {missing}; give an AmdSev build of OVMF"
    )]
    Unchecked {
        /// The first entry that no code knows.
        missing: &'static str,
    },
    /// The image cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
}

/// Refuses an image that does not hold the kernel against the measured hashes.
pub(crate) fn check_enforces_hashes(image: &[u8]) -> Result<(), FirmwareFault> {
    let parsed = Ovmf::parse(image).map_err(FirmwareFault::Metadata)?;
    let section = parsed.sections().iter().any(|section| section.kind == caveau_measure::SectionKind::KernelHashes);
    if !section || parsed.hash_table_gpa().is_none_or(|gpa| gpa == 0) {
        return Err(FirmwareFault::NoHashes);
    }
    let volumes = compressed_sections(image);
    let known = |entry: &Guid| volumes.iter().any(|volume| volume.windows(entry.len()).any(|window| window == entry));
    match ENTRIES.iter().find(|(_, entry)| !known(entry)) {
        Some((missing, _)) => Err(FirmwareFault::Unchecked { missing }),
        None => Ok(()),
    }
}

/// The contents of all sections that are compressed with LZMA. One that does not unpack is left out.
fn compressed_sections(image: &[u8]) -> Vec<Vec<u8>> {
    let at = |window: &[u8]| *window == LZMA_SECTION;
    let places = image.windows(LZMA_SECTION.len()).enumerate().filter(|(_, window)| at(window));
    places.filter_map(|(place, _)| unpack(image, place)).collect()
}

/// Unpacks the section whose GUID stands at `place`: before it a length of 24 bits and a type, behind it the offset of
/// the data from the section's beginning.
fn unpack(image: &[u8], place: usize) -> Option<Vec<u8>> {
    let start = place.checked_sub(4)?;
    let [a, b, c, kind] = *image.get(start..place)?.first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, 0])).ok()?;
    let offset = u16::from_le_bytes(*image.get(place.checked_add(16)?..)?.first_chunk()?);
    if kind != 2 {
        return None;
    }
    let data = image.get(start.checked_add(offset.into())?..start.checked_add(length)?)?;
    let mut unpacked = Vec::new();
    let reader = LzmaReader::new_mem_limit(data, MAX_MEMORY_KIB, None).ok()?;
    reader.take(MAX_UNPACKED).read_to_end(&mut unpacked).ok()?;
    Some(unpacked)
}

/// A GUID in the order of its bytes in memory: the first three parts little-endian.
const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> Guid {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lzma_rust2::{LzmaOptions, LzmaWriter};

    use super::*;

    /// An image with SEV metadata: a body, the metadata with its sections, then the footer's entries.
    fn image(body: &[u8], hash_table: u32, sections: &[(u32, u32, u32)]) -> Vec<u8> {
        let mut metadata = b"ASEV".to_vec();
        let count = u32::try_from(sections.len()).unwrap();
        for word in [16 + 12 * count, 1, count] {
            metadata.extend(word.to_le_bytes());
        }
        for (gpa, size, kind) in sections {
            for word in [gpa, size, kind] {
                metadata.extend(word.to_le_bytes());
            }
        }
        let footer = |offset: u32| {
            let mut table = Vec::new();
            let entries = [
                (guid(0x00f7_71de, 0x1a7e, 0x4fcb, [0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e]), 0x0080_b004),
                (guid(0x7255_371f, 0x3a3b, 0x4b04, [0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54]), hash_table),
                (guid(0xdc88_6566, 0x984a, 0x4798, [0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc]), offset),
            ];
            for (name, value) in entries {
                table.extend(value.to_le_bytes());
                table.extend(22u16.to_le_bytes());
                table.extend(name);
            }
            table.extend(u16::try_from(table.len() + 18).unwrap().to_le_bytes());
            table.extend(guid(0x96b5_82de, 0x1fb2, 0x45f7, [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]));
            table.extend([0; 32]);
            table
        };
        let offset = u32::try_from(metadata.len() + footer(0).len()).unwrap();
        let whole = [&metadata[..], &footer(offset)].concat();
        let pad = vec![0; 4096 - (body.len() + whole.len()) % 4096];
        [body, &pad, &whole].concat()
    }

    /// A section with LZMA data, as edk2's build writes it.
    fn section(content: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        let size = Some(content.len() as u64);
        let mut writer = LzmaWriter::new_use_header(&mut data, &LzmaOptions::with_preset(6), size).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap();
        let mut section = u32::try_from(data.len() + 24).unwrap().to_le_bytes()[..3].to_vec();
        section.push(2);
        section.extend(LZMA_SECTION);
        section.extend(24u16.to_le_bytes());
        section.extend(1u16.to_le_bytes());
        section.extend(data);
        section
    }

    fn drivers(entries: &[Guid]) -> Vec<u8> {
        let mut volume = b"_FVH and drivers".repeat(500);
        entries.iter().for_each(|entry| volume.extend(entry));
        section(&volume)
    }

    const HASHES: (u32, u32, u32) = (0x81_0000, 0x1000, 0x10);
    const MEMORY: (u32, u32, u32) = (0x80_0000, 0x9000, 1);

    #[test]
    fn a_firmware_that_checks_is_taken() {
        let all = ENTRIES.map(|(_, entry)| entry);
        check_enforces_hashes(&image(&drivers(&all), 0x81_0c00, &[MEMORY, HASHES])).unwrap();
    }

    #[test]
    fn one_that_only_reserves_the_page_is_refused() {
        let reserved = image(&drivers(&[]), 0x81_0c00, &[MEMORY, HASHES]);
        assert!(matches!(check_enforces_hashes(&reserved), Err(FirmwareFault::Unchecked { missing: "kernel" })));
        let [(_, kernel), (_, initrd), _] = ENTRIES;
        let half = image(&drivers(&[kernel, initrd]), 0x81_0c00, &[MEMORY, HASHES]);
        assert!(matches!(check_enforces_hashes(&half), Err(FirmwareFault::Unchecked { missing: "command line" })));
    }

    #[test]
    fn one_without_the_page_is_refused() {
        let all = ENTRIES.map(|(_, entry)| entry);
        for (table, sections) in [(0, vec![MEMORY, HASHES]), (0x81_0c00, vec![MEMORY])] {
            let bare = image(&drivers(&all), table, &sections);
            assert!(matches!(check_enforces_hashes(&bare), Err(FirmwareFault::NoHashes)));
        }
    }

    #[test]
    fn other_files_and_damage_are_refused() {
        assert!(matches!(check_enforces_hashes(&[0; 8192]), Err(FirmwareFault::Metadata(_))));
        let all = ENTRIES.map(|(_, entry)| entry);
        let mut body = drivers(&all);
        let middle = body.len() / 2;
        body[middle] ^= 0xff;
        body.truncate(body.len() - 40);
        assert!(check_enforces_hashes(&image(&body, 0x81_0c00, &[MEMORY, HASHES])).is_err());
    }

    #[test]
    fn the_distribution_s_generic_build_is_refused() {
        let Ok(generic) = std::fs::read("/usr/share/OVMF/OVMF_CODE.fd") else {
            println!("skipped: no /usr/share/OVMF/OVMF_CODE.fd");
            return;
        };
        let error = check_enforces_hashes(&generic).unwrap_err();
        assert!(matches!(error, FirmwareFault::NoHashes), "{error}");
        let volumes = compressed_sections(&generic);
        assert!(volumes.iter().any(|volume| volume.len() > 1 << 20), "its drivers unpack");
        for (_, entry) in ENTRIES {
            assert!(!volumes.iter().any(|volume| volume.windows(16).any(|window| window == entry)));
        }
    }
}
