//! As much of ELF-64 as kernels and kernel modules need (System V ABI, chapters 4 and 5; x86-64, little-endian).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Program header of a segment that is loaded.
const PT_LOAD: u32 = 1;
/// Program header of a note segment.
const PT_NOTE: u32 = 4;
/// Program header that names a dynamic loader.
const PT_INTERP: u32 = 3;
/// Note of a PVH entry point, owner "Xen" (Xen's public/elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
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

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
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

    /// The same program with nothing in the file but what is loaded and its notes: no sections, no gaps between segments, and
    /// no zeros at their ends. `None` where the tables are malformed.
    ///
    /// A kernel built for large pages is a third of zeros. A loader has to keep and copy them, though the memory of a new VM
    /// is zero and the kernel clears what it expects to be. So segments also end in memory where they end in the file.
    pub(crate) fn compact(&self) -> Option<Vec<u8>> {
        let kept = |program: &&ProgramHeader| [PT_LOAD, PT_NOTE].contains(&program.kind.get());
        let mut programs: Vec<ProgramHeader> = self.programs()?.iter().filter(kept).cloned().collect();
        let tables = size_of::<Header>() + programs.len() * size_of::<ProgramHeader>();
        let mut contents = Vec::new();
        for program in &mut programs {
            let mut bytes = self.range(program.offset.get(), program.file_size.get())?;
            program.offset = ((tables + contents.len()) as u64).into();
            if program.kind.get() == PT_LOAD {
                let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                bytes = bytes.get(..end)?;
                program.file_size = (end as u64).into();
                program.memory_size = program.file_size;
                // Offsets that are congruent to addresses matter to who maps pages of the file, and nobody does.
                program.align = 1.into();
            }
            contents.extend(bytes);
            // Notes are read as words.
            contents.resize(contents.len().next_multiple_of(8), 0);
        }
        let header = Header {
            program_offset: (size_of::<Header>() as u64).into(),
            section_offset: 0.into(),
            program_count: u16::try_from(programs.len()).ok()?.into(),
            section_count: 0.into(),
            names_index: 0.into(),
            ..Header::read_from_bytes(self.header.as_bytes()).ok()?
        };
        Some([header.as_bytes(), programs.as_slice().as_bytes(), &contents].concat())
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
            let _ = (elf.section(&name), elf.has_interpreter(), elf.has_pvh_entry(), elf.compact());
        }

        #[test]
        fn notes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = has_pvh_note(&bytes);
        }
    }

    /// A program of these segments (kind, address, contents), with a gap before each.
    fn program(segments: &[(u32, u64, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56 * segments.len()];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        (bytes[18], bytes[32], bytes[54], bytes[56]) = (62, 64, 56, segments.len() as u8);
        for (number, (kind, address, contents)) in segments.iter().enumerate() {
            bytes.resize(bytes.len() + 1000, 0xcc);
            let offset = bytes.len() as u64;
            let mut head = &mut bytes[64 + 56 * number..][..56];
            let mut put = |field: &[u8]| {
                let (now, rest) = std::mem::take(&mut head).split_at_mut(field.len());
                now.copy_from_slice(field);
                head = rest;
            };
            put(&kind.to_le_bytes());
            put(&7_u32.to_le_bytes());
            for word in [offset, *address, *address, contents.len() as u64, contents.len() as u64 + 4096, 0x20_0000] {
                put(&word.to_le_bytes());
            }
            bytes.extend(contents);
        }
        bytes
    }

    /// What a loader puts into memory, and the notes.
    fn loaded(elf: &Elf<'_>) -> Vec<(u32, u64, Vec<u8>)> {
        let segment = |program: &ProgramHeader| {
            let mut bytes = elf.range(program.offset.get(), program.file_size.get()).unwrap().to_vec();
            if program.kind.get() == PT_LOAD {
                bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            }
            (program.kind.get(), program.physical_address.get(), bytes)
        };
        elf.programs().unwrap().iter().map(segment).collect()
    }

    proptest! {
        #[test]
        fn compacting_changes_nothing_that_is_loaded(
            segments in prop::collection::vec((prop_oneof![Just(PT_LOAD), Just(PT_NOTE)], any::<u64>(), prop::collection::vec(0_u8..3, 0..40)), 0..5),
        ) {
            let bytes = program(&segments);
            let elf = Elf::parse(&bytes).unwrap();
            let compact = elf.compact().unwrap();
            let again = Elf::parse(&compact).unwrap();
            prop_assert_eq!(loaded(&elf), loaded(&again));
            prop_assert!(compact.len() <= 64 + segments.len() * (56 + 48));
            prop_assert_eq!(again.compact().unwrap(), compact.clone(), "nothing is left to take away");
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
