//! The superblock that tells tools where the tree is (cryptsetup, on-disk format of `veritysetup`, version 1).
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `verity`, two zero bytes |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | hash type, 1 (salt before the block) |
//! | 16 | 16 | UUID |
//! | 32 | 32 | hash algorithm, zero padded |
//! | 64 | 4 | data block size |
//! | 68 | 4 | hash block size |
//! | 72 | 8 | data blocks |
//! | 80 | 2 | salt size |
//! | 88 | 256 | salt, zero padded |
//!
//! Numbers are little-endian; what is between and after, up to 512 bytes, is zero. Nothing in it is covered by the root
//! hash: what it says is only ever compared with what the root hash and the device's size say.

use crate::{BLOCK_BYTES, GeometryError, RootHash, SALT, VerityGeometry};

/// Bytes of the superblock proper; the rest of its block is zero.
pub const SUPERBLOCK_BYTES: usize = 512;

const SIGNATURE: [u8; 8] = *b"verity\0\0";
const ALGORITHM: &[u8] = b"sha256";

/// A superblock in the one shape that layers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    uuid: [u8; 16],
    geometry: VerityGeometry,
}

/// Bytes that are not a superblock of a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// A field has a value that layers do not have.
    #[error("failed to parse verity superblock: expected {field} {expected}, found {found}")]
    Field {
        /// The field.
        field: &'static str,
        /// What layers have there.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The number of data blocks is out of bounds.
    #[error("failed to parse verity superblock")]
    Geometry(#[source] GeometryError),
    /// There are fewer bytes than a superblock has.
    #[error("failed to parse verity superblock: expected {SUPERBLOCK_BYTES} bytes, found {found}")]
    Length {
        /// Bytes given.
        found: usize,
    },
    /// Something stands where the format has zeros.
    #[error("failed to parse verity superblock: expected zero padding, found 0x{found:02x} at byte {offset}")]
    Padding {
        /// Where, in bytes from the superblock's start.
        offset: usize,
        /// The byte found.
        found: u8,
    },
}

impl Superblock {
    /// The superblock for a layout, its UUID made from the root hash so that the same layer has the same bytes.
    ///
    /// The UUID is of version 8 (RFC 9562, section 5.8): the first 16 bytes of the root, version and variant set.
    #[must_use]
    pub fn new(geometry: VerityGeometry, root: &RootHash) -> Self {
        let mut uuid = [0; 16];
        for (to, from) in uuid.iter_mut().zip(root.as_bytes()) {
            *to = *from;
        }
        let [_, _, _, _, _, _, version, _, variant, ..] = &mut uuid;
        *version = *version & 0x0f | 0x80;
        *variant = *variant & 0x3f | 0x80;
        Self { uuid, geometry }
    }

    /// The layout that the superblock tells.
    #[must_use]
    pub fn geometry(&self) -> VerityGeometry {
        self.geometry
    }

    /// The UUID; other writers than this crate choose it at random.
    #[must_use]
    pub fn uuid(&self) -> &[u8; 16] {
        &self.uuid
    }

    /// Reads a superblock from the start of `bytes`; whatever follows it there must be zero.
    ///
    /// # Errors
    /// [`SuperblockError`] where anything differs from what this crate writes, the UUID apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let mut reader = Fields { bytes, offset: 0 };
        reader.expect("signature", &SIGNATURE)?;
        reader.number("version", 1)?;
        reader.number("hash type", 1)?;
        let uuid = reader.take::<16>()?;
        let mut algorithm = [0; 32];
        for (to, from) in algorithm.iter_mut().zip(ALGORITHM) {
            *to = *from;
        }
        reader.expect("hash algorithm", &algorithm)?;
        reader.number("data block size", BLOCK_BYTES as u32)?;
        reader.number("hash block size", BLOCK_BYTES as u32)?;
        let data_blocks = u64::from_le_bytes(reader.take()?);
        let geometry = VerityGeometry::of_data(data_blocks).map_err(SuperblockError::Geometry)?;
        reader.expect("salt size", &(SALT.len() as u16).to_le_bytes())?;
        reader.zeros(88)?;
        reader.expect("salt", &SALT)?;
        reader.zeros(SUPERBLOCK_BYTES)?;
        reader.zeros(bytes.len())?;
        Ok(Self { uuid, geometry })
    }

    /// The superblock's whole block.
    #[must_use]
    pub fn to_block(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        let mut put = |offset: usize, bytes: &[u8]| {
            for (to, from) in block.iter_mut().skip(offset).zip(bytes) {
                *to = *from;
            }
        };
        put(0, &SIGNATURE);
        put(8, &1_u32.to_le_bytes());
        put(12, &1_u32.to_le_bytes());
        put(16, &self.uuid);
        put(32, ALGORITHM);
        put(64, &(BLOCK_BYTES as u32).to_le_bytes());
        put(68, &(BLOCK_BYTES as u32).to_le_bytes());
        put(72, &self.geometry.data_blocks().to_le_bytes());
        put(80, &(SALT.len() as u16).to_le_bytes());
        put(88, &SALT);
        block
    }
}

/// Reads fields one after another.
struct Fields<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl Fields<'_> {
    /// The next `N` bytes.
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SuperblockError> {
        let field = self.bytes.get(self.offset..).and_then(|rest| rest.first_chunk());
        self.offset = self.offset.saturating_add(N);
        field.copied().ok_or(SuperblockError::Length { found: self.bytes.len() })
    }

    /// Requires the next bytes to be these.
    fn expect<const N: usize>(&mut self, field: &'static str, expected: &[u8; N]) -> Result<(), SuperblockError> {
        let found = self.take::<N>()?;
        if found == *expected {
            return Ok(());
        }
        let text = |bytes: &[u8]| format!("{:?}", bytes.escape_ascii().to_string());
        Err(SuperblockError::Field { field, expected: text(expected), found: text(&found) })
    }

    /// Requires the next number to be this.
    fn number(&mut self, field: &'static str, expected: u32) -> Result<(), SuperblockError> {
        let found = u32::from_le_bytes(self.take()?);
        if found == expected {
            return Ok(());
        }
        Err(SuperblockError::Field { field, expected: expected.to_string(), found: found.to_string() })
    }

    /// Requires zeros up to an offset.
    fn zeros(&mut self, end: usize) -> Result<(), SuperblockError> {
        let padding = self.bytes.get(self.offset..end).ok_or(SuperblockError::Length { found: self.bytes.len() })?;
        if let Some((place, found)) = padding.iter().enumerate().find(|(_, byte)| **byte != 0) {
            return Err(SuperblockError::Padding { offset: self.offset.saturating_add(place), found: *found });
        }
        self.offset = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Superblock {
        Superblock::new(VerityGeometry::of_data(14).unwrap(), &"a5".repeat(32).parse().unwrap())
    }

    proptest! {
        #[test]
        fn round_trip(data_blocks in 1..=crate::MAX_DATA_BLOCKS, root in "[0-9a-f]{64}") {
            let written = Superblock::new(VerityGeometry::of_data(data_blocks).unwrap(), &root.parse().unwrap());
            prop_assert_eq!(Superblock::parse(&written.to_block()), Ok(written));
        }

        #[test]
        fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Superblock::parse(&bytes).is_err());
        }

        #[test]
        fn any_flipped_byte_is_noticed(offset in 0..BLOCK_BYTES, flip in 1..=u8::MAX) {
            let mut block = sample().to_block();
            block[offset] ^= flip;
            match Superblock::parse(&block) {
                Ok(parsed) => prop_assert_ne!(parsed, sample()),
                Err(_) => prop_assert!(!(16..32).contains(&offset)),
            }
        }
    }

    #[test]
    fn truncated_is_named() {
        assert_eq!(Superblock::parse(&sample().to_block()[..511]), Err(SuperblockError::Length { found: 511 }));
        assert_eq!(Superblock::parse(&[]), Err(SuperblockError::Length { found: 0 }));
    }

    #[test]
    fn uuid_is_the_roots() {
        let expected = [0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0x85, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5];
        assert_eq!(*sample().uuid(), expected);
    }
}
