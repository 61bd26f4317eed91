//! Memory files that nobody can change any more: what is hashed here is what the machine maps.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::SealFlags;

/// The seals without which a file could change between measuring and use, or afterwards.
const NEEDED: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// A sealed memory file (memfd_create(2), F_GET_SEALS).
#[derive(Debug)]
pub(crate) struct SealedPart {
    descriptor: OwnedFd,
    length: u64,
}

/// Why a part is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartError {
    #[error("the {what} is no sealed memory file, so it could be changed after being measured")]
    NotSealed { what: String },
    #[error("the {what} has {length} bytes, expected 1 to {limit}")]
    Length { what: String, length: u64, limit: u64 },
    #[error("failed to read the {what}: {cause}")]
    Read { what: String, cause: io::Error },
}

impl SealedPart {
    /// Takes a descriptor whose file has all its seals and 1 to `limit` bytes; `what` it is goes into errors.
    pub(crate) fn new(descriptor: OwnedFd, what: &str, limit: u64) -> Result<Self, PartError> {
        let what = || what.to_owned();
        // Files of other kinds know no seals and give an error.
        let seals = rustix::fs::fcntl_get_seals(&descriptor).unwrap_or(SealFlags::empty());
        if !seals.contains(NEEDED) {
            return Err(PartError::NotSealed { what: what() });
        }
        let stat =
            rustix::fs::fstat(&descriptor).map_err(|error| PartError::Read { what: what(), cause: error.into() })?;
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        if length == 0 || length > limit {
            return Err(PartError::Length { what: what(), length, limit });
        }
        Ok(Self { descriptor, length })
    }

    /// A reader from the first byte on. It has a position of its own: the file's belongs to all who share the descriptor.
    pub(crate) fn reader(&self) -> impl Read + '_ {
        PositionedReader { part: self, position: 0 }
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.length).map_err(io::Error::other)?);
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

struct PositionedReader<'a> {
    part: &'a SealedPart,
    position: u64,
}

impl Read for PositionedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = rustix::io::pread(&self.part.descriptor, buffer, self.position)?;
        self.position = self.position.saturating_add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};

    use super::*;

    fn memory(bytes: &[u8], seals: SealFlags) -> OwnedFd {
        let descriptor = memfd_create("part", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        File::from(descriptor.try_clone().unwrap()).write_all(bytes).unwrap();
        fcntl_add_seals(&descriptor, seals).unwrap();
        descriptor
    }

    #[test]
    fn a_sealed_part_is_read_from_its_start() {
        // The shared position stands at the end: the bytes were just written.
        let part = SealedPart::new(memory(b"kernel", NEEDED), "kernel", 6).unwrap();
        assert_eq!(part.bytes().unwrap(), b"kernel");
        assert_eq!(part.bytes().unwrap(), b"kernel");
    }

    #[test]
    fn each_missing_seal_is_noticed() {
        for missing in [SealFlags::SEAL, SealFlags::SHRINK, SealFlags::GROW, SealFlags::WRITE] {
            let part = SealedPart::new(memory(b"kernel", NEEDED - missing), "kernel", 6);
            assert!(matches!(part, Err(PartError::NotSealed { .. })), "{missing:?}");
        }
        let future = (NEEDED - SealFlags::WRITE) | SealFlags::FUTURE_WRITE;
        assert!(SealedPart::new(memory(b"kernel", future), "kernel", 6).is_err());
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(SealedPart::new(file.into(), "kernel", 6), Err(PartError::NotSealed { .. })));
    }

    #[test]
    fn lengths_are_bounded() {
        let short = SealedPart::new(memory(b"kernel", NEEDED), "kernel", 5);
        assert!(matches!(short, Err(PartError::Length { length: 6, limit: 5, .. })));
        let empty = SealedPart::new(memory(b"", NEEDED), "kernel", 5);
        assert!(matches!(empty, Err(PartError::Length { length: 0, .. })));
    }
}
