//! Sealed copies: what was measured is what QEMU maps, since nobody can change it any more.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, MemfdFlags, Mode, OFlags, SealFlags};

/// Bytes in a memfd that has all its seals (memfd_create(2), F_ADD_SEALS).
#[derive(Debug)]
pub struct SealedFile {
    descriptor: OwnedFd,
}

/// Why there is no sealed copy.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The source is longer than it may be.
    #[error("{path:?} is longer than the {limit} bytes that are allowed here")]
    Long {
        /// The source.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The source cannot be read.
    #[error("failed to read {path:?}")]
    Read {
        /// The source.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The kernel gives no sealed memory file.
    #[error("failed to make a sealed copy")]
    Seal(#[source] io::Error),
}

impl SealedFile {
    /// A sealed file with `bytes`; `name` is what `/proc` shows.
    ///
    /// # Errors
    /// [`SealError::Seal`] where the kernel refuses.
    pub fn new(name: &str, bytes: &[u8]) -> Result<Self, SealError> {
        Self::fill(name, |file| file.write_all(bytes)).map_err(SealError::Seal)
    }

    /// A sealed copy of a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn copy_of(path: &Path, limit: u64) -> Result<Self, SealError> {
        let unreadable = |cause| SealError::Read { path: path.to_owned(), cause };
        let source = File::open(path).map_err(unreadable)?;
        if !source.metadata().map_err(unreadable)?.is_file() {
            return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut source = source.take(limit.saturating_add(1));
        let mut length = 0;
        // From file to file: the kernel copies.
        let copy =
            Self::fill(&name, |file| io::copy(&mut source, file).map(|copied| length = copied)).map_err(unreadable)?;
        if length > limit {
            return Err(SealError::Long { path: path.to_owned(), limit });
        }
        Ok(copy)
    }

    fn fill(name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Self> {
        let descriptor = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = File::from(descriptor);
        write(&mut file)?;
        file.rewind()?;
        let descriptor = OwnedFd::from(file);
        let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&descriptor, all)?;
        Ok(Self { descriptor })
    }

    /// The bytes, read at explicit offsets: the shared file position stays where it is.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(rustix::fs::fstat(&self.descriptor)?.st_size).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        let mut at = 0;
        while at < length {
            match rustix::io::pread(&self.descriptor, &mut bytes[at..], at as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => at += count,
            }
        }
        Ok(bytes)
    }
}

impl AsFd for SealedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for SealedFile {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// A layer's file, opened for reading; a symbolic link in its last part is refused. It is locked (flock, shared) as long as
/// anybody holds the descriptor, so that the store's `rm` and `prune` pass over it.
///
/// # Errors
/// What the kernel says, that it is no regular file, or that it is being removed.
pub(crate) fn open_layer(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)?;
    let stat = rustix::fs::fstat(&file)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    if stat.st_size <= 0 || stat.st_size % 512 != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its length is not a multiple of 512 bytes above zero"));
    }
    Ok(file)
}

/// A sparse file of `bytes` without a name in `folder`: it is gone when its last descriptor is closed.
///
/// # Errors
/// What the kernel says.
pub(crate) fn scratch_file(folder: &Path, bytes: u64) -> io::Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
    let file = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::ftruncate(&file, bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_cannot_be_changed() {
        let sealed = SealedFile::new("kernel", b"bytes").unwrap();
        assert!(rustix::io::pwrite(&sealed, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(&sealed, 0).is_err());
        let again = File::options().write(true).open(format!("/proc/self/fd/{}", sealed.as_raw_fd()));
        assert!(again.and_then(|mut file| file.write_all(b"x")).is_err());
        assert_eq!(sealed.read().unwrap(), b"bytes");
    }

    #[test]
    fn sources_are_bounded_and_regular() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinuz");
        std::fs::write(&path, [7; 100]).unwrap();
        assert_eq!(SealedFile::copy_of(&path, 100).unwrap().read().unwrap(), [7; 100]);
        assert!(matches!(SealedFile::copy_of(&path, 99), Err(SealError::Long { limit: 99, .. })));
        assert!(matches!(SealedFile::copy_of(folder.path(), 99), Err(SealError::Read { .. })));
        assert!(matches!(SealedFile::copy_of(&folder.path().join("none"), 99), Err(SealError::Read { .. })));
    }

    #[test]
    fn layers_are_whole_regular_files_and_no_links() {
        let folder = tempfile::tempdir().unwrap();
        let good = folder.path().join("good");
        std::fs::write(&good, [0; 1024]).unwrap();
        open_layer(&good).unwrap();
        let odd = folder.path().join("odd");
        std::fs::write(&odd, [0; 1000]).unwrap();
        assert!(open_layer(&odd).is_err());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&good, &link).unwrap();
        assert!(open_layer(&link).is_err());
        assert!(open_layer(folder.path()).is_err());
    }

    #[test]
    fn layers_are_in_use_while_they_are_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layer");
        std::fs::write(&path, [0; 1024]).unwrap();
        let removing = File::open(&path).unwrap();
        let remove = || rustix::fs::flock(&removing, FlockOperation::NonBlockingLockExclusive);
        let layer = open_layer(&path).unwrap();
        let also = open_layer(&path).unwrap();
        drop(layer);
        assert!(remove().is_err());
        drop(also);
        remove().unwrap();
        assert!(open_layer(&path).is_err());
    }

    #[test]
    fn the_scratch_file_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = scratch_file(folder.path(), 1 << 30).unwrap();
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 1 << 30);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
