//! Extended attributes as ext4 stores them: some in the inode, the rest in one block (kernel documentation,
//! `filesystems/ext4/attributes`).
//!
//! ```text
//! inode:  magic | entry entry … 0 ……… value value
//! block:  magic, references, blocks, 5 zero words | entry entry … 0 ……… value value
//! ```
//!
//! Values grow from the end, so offsets are those from the first entry in the inode, and from the block's start in the
//! block.

mod order;

use std::collections::BTreeMap;

use caveau_verity::BLOCK_BYTES;

use crate::{
    bytes::{put, put16, put32},
    error::{EntryError, PathText},
};

/// Extended attributes by full name.
pub(crate) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Bytes for extended attributes behind an inode's fields.
pub(crate) const IN_INODE: usize = 104;

const MAGIC: u32 = 0xea02_0000;

/// Bytes before the entries, in the inode and in the block.
const INODE_HEADER: usize = 4;
const BLOCK_HEADER: usize = 32;

/// Bytes of an entry before its name.
const ENTRY: usize = 16;

/// Bytes of the zero word that ends the entries.
const END: usize = 4;

/// Name prefixes that are stored as a number. The first that fits counts, so the longer ones come first.
const PREFIXES: [(u8, &[u8]); 7] = [
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (8, b"system.richacl"),
    (7, b"system."),
    (1, b"user."),
    (4, b"trusted."),
    (6, b"security."),
];

/// One attribute, its name without the prefix that the index stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Xattr {
    index: u8,
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Xattr {
    fn new(name: &[u8], value: &[u8]) -> Self {
        let known = PREFIXES.iter().find_map(|(index, prefix)| Some((*index, name.strip_prefix(*prefix)?)));
        let (index, name) = known.unwrap_or((0, name));
        Self { index, name: name.into(), value: value.into() }
    }

    /// Bytes of its entry and of its value, both to whole words.
    fn lengths(&self) -> (usize, usize) {
        let word = |bytes: usize| bytes.checked_next_multiple_of(4).unwrap_or(usize::MAX);
        (word(self.name.len()).saturating_add(ENTRY), word(self.value.len()))
    }

    /// Bytes of memory that it takes while it is kept, with what its two parts cost the allocator.
    pub(crate) fn kept_bytes(&self) -> u64 {
        const OVERHEAD: usize = size_of::<Xattr>() + 32;
        self.name.len().saturating_add(self.value.len()).saturating_add(OVERHEAD) as u64
    }

    /// The order of entries in a block, as the reference compares them. It means index, then length, then name; but as
    /// written it is no order at all, so the result depends on how it is asked (see [`order`]).
    fn less(&self, other: &Self) -> bool {
        self.index < other.index || self.name.len() < other.name.len() || self.name < other.name
    }
}

/// Attributes by where they are stored.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) inode: Vec<Xattr>,
    pub(crate) block: Vec<Xattr>,
}

/// Places attributes in the order of their full names: in the inode as long as they fit, else in the block.
pub(crate) fn place(xattrs: &Xattrs) -> Result<Placed, EntryError> {
    let mut placed = Placed::default();
    let mut inode_left = IN_INODE.saturating_sub(INODE_HEADER + END);
    let mut block_left = BLOCK_BYTES.saturating_sub(BLOCK_HEADER + END);
    for (name, value) in xattrs {
        let xattr = Xattr::new(name, value);
        let (entry, stored) = xattr.lengths();
        let needed = entry.saturating_add(stored);
        let (list, left) = if needed <= inode_left {
            (&mut placed.inode, &mut inode_left)
        } else if needed <= block_left {
            (&mut placed.block, &mut block_left)
        } else {
            return Err(EntryError::XattrTooBig(PathText::new(name)));
        };
        list.push(xattr);
        *left = left.saturating_sub(needed);
    }
    order::sort(&mut placed.block, &Xattr::less);
    Ok(placed)
}

/// The inode's attribute area.
pub(crate) fn render_inode(xattrs: &[Xattr]) -> Box<[u8; IN_INODE]> {
    let mut area = Box::new([0; IN_INODE]);
    put32(area.as_mut_slice(), 0, MAGIC);
    render(xattrs, area.get_mut(INODE_HEADER..).unwrap_or_default(), 0);
    area
}

/// The attribute block. Its checksum and header hash are not used by these file systems.
pub(crate) fn render_block(xattrs: &[Xattr]) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    put32(&mut block, 0, MAGIC);
    put32(&mut block, 4, 1);
    put32(&mut block, 8, 1);
    render(xattrs, block.get_mut(BLOCK_HEADER..).unwrap_or_default(), BLOCK_HEADER);
    block
}

/// Entries from the front, values from the back. Offsets count from `base` bytes before the area.
fn render(xattrs: &[Xattr], area: &mut [u8], base: usize) {
    let (mut entry_at, mut value_at) = (0_usize, area.len());
    for xattr in xattrs {
        let (entry, stored) = xattr.lengths();
        value_at = value_at.saturating_sub(stored);
        // A name over 255 bytes loses its upper bits, as in the reference.
        put(area, entry_at, &[xattr.name.len() as u8, xattr.index]);
        put16(area, entry_at.saturating_add(2), value_at.saturating_add(base) as u16);
        put32(area, entry_at.saturating_add(8), xattr.value.len() as u32);
        put32(area, entry_at.saturating_add(12), hash(&xattr.name, &xattr.value));
        put(area, entry_at.saturating_add(ENTRY), &xattr.name);
        put(area, value_at, &xattr.value);
        entry_at = entry_at.saturating_add(entry);
    }
}

/// An entry's hash over name and value (kernel source, `fs/ext4/xattr.c`, `ext4_xattr_hash_entry`).
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let named = name.iter().fold(0_u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    value.chunks(4).fold(named, |hash, chunk| {
        let mut word = [0; 4];
        put(&mut word, 0, chunk);
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}

/// Reads back what [`render_inode`] wrote.
pub(crate) fn read_inode(area: &[u8; IN_INODE]) -> Result<Xattrs, EntryError> {
    read(area.get(INODE_HEADER..).unwrap_or_default(), 0)
}

/// Reads back what [`render_block`] wrote.
pub(crate) fn read_block(xattrs: &[Xattr]) -> Result<Xattrs, EntryError> {
    read(render_block(xattrs).get(BLOCK_HEADER..).unwrap_or_default(), BLOCK_HEADER)
}

/// Reads entries up to the first without a name, which an attribute called just `user.` also is.
fn read(area: &[u8], base: usize) -> Result<Xattrs, EntryError> {
    let mut xattrs = Xattrs::new();
    let mut rest = area;
    while let [length, index, offset_low, offset_high, ..] = rest
        && *length > 0
    {
        let length = usize::from(*length);
        let offset = usize::from(u16::from_le_bytes([*offset_low, *offset_high])).checked_sub(base);
        let name = rest.get(ENTRY..).and_then(|rest| rest.get(..length));
        let size = rest.get(8..12).and_then(|size| size.first_chunk()).copied().map_or(0, u32::from_le_bytes) as usize;
        let value = offset.and_then(|offset| area.get(offset..)).and_then(|value| value.get(..size));
        let (Some(name), Some(value)) = (name, value) else { return Err(EntryError::XattrUnreadable) };
        let prefix = PREFIXES.iter().find(|(known, _)| known == index).map_or(&b""[..], |(_, prefix)| prefix);
        xattrs.insert([prefix, name].concat(), value.to_vec());
        let entry = length.next_multiple_of(4).saturating_add(ENTRY);
        rest = rest.get(entry..).ok_or(EntryError::XattrUnreadable)?;
    }
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stored_attributes_read_back(
            xattrs in proptest::collection::btree_map("(user|trusted|security)\\.[a-z]{1,30}", ".{0,60}", 0..20),
        ) {
            let xattrs: Xattrs = xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect();
            if let Ok(placed) = place(&xattrs) {
                let mut read = read_block(&placed.block).unwrap();
                read.extend(read_inode(&render_inode(&placed.inode)).unwrap());
                prop_assert_eq!(read, xattrs);
            }
        }

        #[test]
        fn reading_never_panics(area: [[u8; 26]; 4]) {
            let mut bytes = [0; IN_INODE];
            bytes.copy_from_slice(area.as_flattened());
            let _xattrs = read_inode(&bytes);
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let xattrs = Xattrs::from([(b"user.big".to_vec(), vec![1; 5000])]);
        assert_eq!(place(&xattrs).unwrap_err(), EntryError::XattrTooBig(PathText::new(b"user.big")));
    }

    #[test]
    fn prefixes_become_numbers() {
        for (name, index, rest) in [
            ("system.posix_acl_access", 2, ""),
            ("system.posix_acl_defaults", 3, "s"),
            ("system.data", 7, "data"),
            ("security.capability", 6, "capability"),
            ("odd", 0, "odd"),
        ] {
            let xattr = Xattr::new(name.as_bytes(), b"");
            assert_eq!((xattr.index, &*xattr.name), (index, rest.as_bytes()));
        }
    }
}
