//! As much of ELF-64 as kernels and kernel modules need (System V ABI, chapters 4 and 5; x86-64, little-endian).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Program header of a note segment.
const PT_NOTE: u32 = 4;
/// Program header that names a dynamic loader.
const PT_INTERP: u32 = 3;
/// Note of a PVH entry point, owner "Xen" (Xen's public/elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    ident: [u8; 16],
    kind: U16,
    machine: U16,
    version: U32,
    entry: U64,
    program_offset: U64,
    section_offset: U64,
    flags: U32,
    header_size: U16,
    program_size: U16,
    program_count: U16,
    section_size: U16,
    section_count: U16,
    names_index: U16,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ProgramHeader {
    kind: U32,
    flags: U32,
    offset: U64,
    virtual_address: U64,
    physical_address: U64,
    file_size: U64,
    memory_size: U64,
    align: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SectionHeader {
    name: U32,
    kind: U32,
    flags: U64,
    address: U64,
    offset: U64,
    size: U64,
    link: U32,
    info: U32,
    align: U64,
    entry_size: U64,
}

/// An ELF-64 file for x86-64.
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
    header: &'a Header,
}

impl<'a> Elf<'a> {
    /// Reads the header; `None` where `bytes` is not such a file.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, _) = Header::ref_from_prefix(bytes).ok()?;
        let right = header.ident.starts_with(b"\x7fELF\x02\x01\x01") && header.machine.get() == 62;
        right.then_some(Self { bytes, header })
    }

    /// Contents of the section called `name`; `None` where there is none or the tables are malformed.
    pub(crate) fn section(&self, name: &str) -> Option<&'a [u8]> {
        let sections = self.sections()?;
        let names = self.slice(sections.get(usize::from(self.header.names_index.get()))?)?;
        let found = sections.iter().find(|section| {
            let text = names.get(section.name.get() as usize..).unwrap_or_default();
            text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
        })?;
        self.slice(found)
    }

    /// Whether the file asks for a dynamic loader.
    pub(crate) fn has_interpreter(&self) -> bool {
        self.programs().unwrap_or_default().iter().any(|program| program.kind.get() == PT_INTERP)
    }

    /// Whether the file has a note with a PVH entry point.
    pub(crate) fn has_pvh_entry(&self) -> bool {
        let programs = self.programs().unwrap_or_default();
        let notes = programs.iter().filter(|program| program.kind.get() == PT_NOTE);
        notes.filter_map(|note| self.range(note.offset.get(), note.file_size.get())).any(has_pvh_note)
    }

    fn sections(&self) -> Option<&'a [SectionHeader]> {
        let start = self.bytes.get(usize::try_from(self.header.section_offset.get()).ok()?..)?;
        let count = usize::from(self.header.section_count.get());
        (usize::from(self.header.section_size.get()) == size_of::<SectionHeader>()).then_some(())?;
        Some(<[SectionHeader]>::ref_from_prefix_with_elems(start, count).ok()?.0)
    }

    fn programs(&self) -> Option<&'a [ProgramHeader]> {
        let start = self.bytes.get(usize::try_from(self.header.program_offset.get()).ok()?..)?;
        let count = usize::from(self.header.program_count.get());
        (usize::from(self.header.program_size.get()) == size_of::<ProgramHeader>()).then_some(())?;
        Some(<[ProgramHeader]>::ref_from_prefix_with_elems(start, count).ok()?.0)
    }

    fn slice(&self, section: &SectionHeader) -> Option<&'a [u8]> {
        self.range(section.offset.get(), section.size.get())
    }

    fn range(&self, offset: u64, length: u64) -> Option<&'a [u8]> {
        let end = offset.checked_add(length)?;
        self.bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
    }
}

/// Walks notes: name size, description size, type, then name and description, each padded to 4 bytes.
fn has_pvh_note(mut notes: &[u8]) -> bool {
    while let Ok(([name_size, size, kind], rest)) = <[U32; 3]>::read_from_prefix(notes) {
        let name_end = name_size.get() as usize;
        let Some(padded) = name_end.checked_next_multiple_of(4) else { return false };
        if kind.get() == XEN_ELFNOTE_PHYS32_ENTRY && rest.get(..name_end) == Some(b"Xen\0") {
            return true;
        }
        let next = (size.get() as usize).checked_next_multiple_of(4).and_then(|size| size.checked_add(padded));
        notes = next.and_then(|next| rest.get(next..)).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hostile_headers_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 64..512), name in "[.a-z]{0,8}") {
            bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
            bytes[18..20].copy_from_slice(&[62, 0]);
            let elf = Elf::parse(&bytes).unwrap();
            let _ = (elf.section(&name), elf.has_interpreter(), elf.has_pvh_entry());
        }

        #[test]
        fn notes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = has_pvh_note(&bytes);
        }
    }

    #[test]
    fn finds_the_pvh_note_behind_another() {
        let mut notes = Vec::new();
        for (kind, name, data) in [(3_u32, &b"GNU\0"[..], &[1_u8; 20][..]), (18, b"Xen\0", &[0; 4])] {
            notes.extend((name.len() as u32).to_le_bytes());
            notes.extend((data.len() as u32).to_le_bytes());
            notes.extend(kind.to_le_bytes());
            notes.extend([name, data].concat());
        }
        assert!(has_pvh_note(&notes));
        assert!(!has_pvh_note(&notes[..36]));
    }
}
