//! An OVMF image's tables: the footer that lists them, SEV metadata, hash table address, AP reset address.

use crate::context::PAGE;
use crate::hashes::guid;

/// What was read of an OVMF image. All of it is the image's word; it is measured with the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ovmf {
    hash_table_gpa: Option<u32>,
    ap_reset: u32,
    sections: Vec<Section>,
}

/// A section of the SEV metadata: memory that is prepared, and measured, before the guest starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Guest-physical address, page-aligned.
    pub gpa: u32,
    /// Length in bytes, a multiple of 4096.
    pub size: u32,
    /// What is to be put there.
    pub kind: SectionKind,
}

/// Kinds of SEV metadata section (edk2, `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// 1: memory the firmware needs validated early.
    SecMem,
    /// 2: the secrets page.
    Secrets,
    /// 3: the CPUID page.
    Cpuid,
    /// 4: the calling area of an SVSM.
    SvsmCaa,
    /// 0x10: the page with the kernel hashes.
    KernelHashes,
}

/// Why an image's tables cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OvmfError {
    /// The image has no footer table: it is no OVMF, or one without SEV support.
    #[error("the firmware has no OVMF footer table 32 bytes before its end: it was not built with SEV support")]
    NoFooter,
    /// A length or offset leads out of the image or table.
    #[error("the firmware's {table} is malformed: {problem}")]
    Malformed {
        /// Which table.
        table: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An entry that every SEV-SNP firmware needs is not there.
    #[error("the firmware's footer table has no {0}: use an OVMF built for SEV-SNP")]
    Missing(&'static str),
    /// A metadata section of a kind that has no known measurement.
    #[error("the firmware's SEV metadata has a section of unknown type {kind:#x} at {gpa:#x}")]
    UnknownSection {
        /// The type's number.
        kind: u32,
        /// Where the section would be.
        gpa: u32,
    },
}

/// 96b582de-1fb2-45f7-baea-a366c55a082d: the footer's own entry.
const FOOTER: [u8; 16] = guid(0x96b582de, 0x1fb2, 0x45f7, 0xbaea, 0xa366_c55a_082d);
/// 7255371f-3a3b-4b04-927b-1da6efa8d454: u32 address of the kernel hash table.
const HASH_TABLE: [u8; 16] = guid(0x7255371f, 0x3a3b, 0x4b04, 0x927b, 0x1da6_efa8_d454);
/// 00f771de-1a7e-4fcb-890e-68c77e2fb44e: u32 address where application processors start.
const AP_RESET: [u8; 16] = guid(0x00f771de, 0x1a7e, 0x4fcb, 0x890e, 0x68c7_7e2f_b44e);
/// dc886566-984a-4798-a75e-5585a7bf67cc: u32 offset of the SEV metadata from the image's end.
const METADATA: [u8; 16] = guid(0xdc886566, 0x984a, 0x4798, 0xa75e, 0x5585_a7bf_67cc);

/// The footer ends this many bytes before the image does.
const FOOTER_FROM_END: usize = 32;
/// An entry ends with u16 length and GUID.
const ENTRY_TAIL: usize = 18;
/// Most sections accepted; OVMF has about eight.
const MAX_SECTIONS: u32 = 64;
/// Most memory that sections may cover: bounds the work a hostile image can cause.
const MAX_SECTION_BYTES: u64 = 256 << 20;

impl Ovmf {
    /// Reads the tables of `image`, which must not be taken for trustworthy: every length is checked.
    ///
    /// # Errors
    /// [`OvmfError`], when a table is missing or malformed or names something unknown.
    pub fn parse(image: &[u8]) -> Result<Self, OvmfError> {
        let table = FooterTable::find(image)?;
        let metadata_offset = table.address(METADATA, "SEV metadata")?;
        let ap_reset = table.address(AP_RESET, "SEV-ES reset block")?;
        Ok(Self {
            hash_table_gpa: table.address(HASH_TABLE, "hash table entry")?.filter(|&gpa| gpa != 0),
            ap_reset: ap_reset.filter(|&entry| entry != 0).ok_or(OvmfError::Missing("SEV-ES reset block"))?,
            sections: match metadata_offset {
                Some(offset) => parse_metadata(image, offset)?,
                // Such firmware does not start as an SNP guest; its digest is that of pages and vCPUs alone.
                None => Vec::new(),
            },
        })
    }

    /// Guest-physical address of the kernel hash table, when this firmware has a place for it.
    #[must_use]
    pub const fn hash_table_gpa(&self) -> Option<u32> {
        self.hash_table_gpa
    }

    /// Where application processors start.
    #[must_use]
    pub const fn ap_reset(&self) -> u32 {
        self.ap_reset
    }

    /// The SEV metadata's sections, in table order, which is the order of measurement.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The section for the kernel hashes, when there is one.
    pub(crate) fn kernel_hash_section(&self) -> Option<Section> {
        self.sections.iter().copied().find(|section| section.kind == SectionKind::KernelHashes)
    }
}

/// The footer's entries: (GUID, data), from the last to the first.
struct FooterTable<'a>(Vec<([u8; 16], &'a [u8])>);

impl<'a> FooterTable<'a> {
    fn find(image: &'a [u8]) -> Result<Self, OvmfError> {
        let end = image.len().checked_sub(FOOTER_FROM_END).ok_or(OvmfError::NoFooter)?;
        let (body, guid, length) = image.get(..end).and_then(split_entry_tail).ok_or(OvmfError::NoFooter)?;
        if guid != FOOTER {
            return Err(OvmfError::NoFooter);
        }
        let problem = || malformed("footer table", format!("length {length} does not fit the image"));
        let data_bytes = length.checked_sub(ENTRY_TAIL).ok_or_else(problem)?;
        let start = body.len().checked_sub(data_bytes).ok_or_else(problem)?;
        Self::walk(body.get(start..).ok_or_else(problem)?)
    }

    fn walk(mut rest: &'a [u8]) -> Result<Self, OvmfError> {
        let mut entries: Vec<([u8; 16], &[u8])> = Vec::new();
        while !rest.is_empty() {
            let (body, guid, length) = split_entry_tail(rest)
                .ok_or_else(|| malformed("footer table", format!("{} bytes are left over", rest.len())))?;
            let problem = || malformed("footer table", format!("an entry says it has {length} bytes"));
            let data_bytes = length.checked_sub(ENTRY_TAIL).ok_or_else(problem)?;
            let start = body.len().checked_sub(data_bytes).ok_or_else(problem)?;
            let (before, data) = body.split_at_checked(start).ok_or_else(problem)?;
            if entries.iter().any(|(known, _)| *known == guid) {
                return Err(malformed("footer table", format!("entry {} is there twice", hex::encode(guid))));
            }
            entries.push((guid, data));
            rest = before;
        }
        Ok(Self(entries))
    }

    /// The u32 that entry `guid` starts with, if the entry is there.
    fn address(&self, guid: [u8; 16], name: &'static str) -> Result<Option<u32>, OvmfError> {
        let Some((_, data)) = self.0.iter().find(|(known, _)| *known == guid) else {
            return Ok(None);
        };
        let value = data.first_chunk().ok_or_else(|| malformed(name, format!("it has {} bytes", data.len())))?;
        Ok(Some(u32::from_le_bytes(*value)))
    }
}

/// Cuts `bytes` before its last entry's tail: (what is before, GUID, the entry's length with its tail).
fn split_entry_tail(bytes: &[u8]) -> Option<(&[u8], [u8; 16], usize)> {
    let (rest, guid) = bytes.split_last_chunk::<16>()?;
    let (body, length) = rest.split_last_chunk::<2>()?;
    Some((body, *guid, usize::from(u16::from_le_bytes(*length))))
}

/// Reads the metadata that starts `offset_from_end` bytes before the image's end: `ASEV`, u32 length, u32 version,
/// u32 count, then (u32 address, u32 size, u32 type) for each section.
fn parse_metadata(image: &[u8], offset_from_end: u32) -> Result<Vec<Section>, OvmfError> {
    let outside = || malformed("SEV metadata", format!("offset {offset_from_end} from the end is outside the image"));
    let back = usize::try_from(offset_from_end).map_err(|_| outside())?;
    let start = image.len().checked_sub(back).ok_or_else(outside)?;
    let header = image.get(start..).and_then(|bytes| bytes.first_chunk::<16>()).ok_or_else(outside)?;
    if !header.starts_with(b"ASEV") {
        return Err(malformed("SEV metadata", "it does not start with ASEV".to_owned()));
    }
    let [_, length, version, count] = words(header);
    if version != 1 {
        return Err(malformed("SEV metadata", format!("its version is {version}, expected 1")));
    }
    let needed = u64::from(count).saturating_mul(12).saturating_add(16);
    if count > MAX_SECTIONS || needed > u64::from(length) {
        return Err(malformed("SEV metadata", format!("{count} sections do not fit its {length} bytes")));
    }
    let end = usize::try_from(needed).ok().and_then(|bytes| start.checked_add(bytes));
    let items = end.and_then(|end| image.get(start..end)).and_then(|table| table.get(16..)).ok_or_else(outside)?;
    let sections = items.as_chunks::<12>().0.iter().map(parse_section).collect::<Result<Vec<_>, _>>()?;
    check_total(&sections)?;
    Ok(sections)
}

fn parse_section(bytes: &[u8; 12]) -> Result<Section, OvmfError> {
    let [gpa, size, kind] = words(bytes);
    let kind = match kind {
        1 => SectionKind::SecMem,
        2 => SectionKind::Secrets,
        3 => SectionKind::Cpuid,
        4 => SectionKind::SvsmCaa,
        0x10 => SectionKind::KernelHashes,
        _ => return Err(OvmfError::UnknownSection { kind, gpa }),
    };
    let one_page = matches!(kind, SectionKind::Secrets | SectionKind::Cpuid | SectionKind::KernelHashes);
    if !gpa.is_multiple_of(PAGE as u32) || !size.is_multiple_of(PAGE as u32) || (one_page && size != PAGE as u32) {
        return Err(malformed("SEV metadata", format!("{kind:?} at {gpa:#x} of {size:#x} bytes is not made of pages")));
    }
    if u64::from(gpa).saturating_add(u64::from(size)) > 1 << 32 {
        return Err(malformed("SEV metadata", format!("{kind:?} at {gpa:#x} of {size:#x} bytes ends above 4 GiB")));
    }
    Ok(Section { gpa, size, kind })
}

fn check_total(sections: &[Section]) -> Result<(), OvmfError> {
    let total: u64 = sections.iter().map(|section| u64::from(section.size)).fold(0, u64::saturating_add);
    if total > MAX_SECTION_BYTES {
        return Err(malformed(
            "SEV metadata",
            format!("its sections cover {total} bytes, more than {MAX_SECTION_BYTES}"),
        ));
    }
    Ok(())
}

/// The little-endian u32 words of `bytes`; words beyond its end are zero.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut out = [0; N];
    for (word, chunk) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*chunk);
    }
    out
}

fn malformed(table: &'static str, problem: String) -> OvmfError {
    OvmfError::Malformed { table, problem }
}
