//! Files of a container's root, read without leaving it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// Greatest size in bytes of a file that is read whole.
const MAX_FILE: u64 = 1024 * 1024;

/// Opens `path` as a process with `root` as its root directory would, for reading: links of every kind are resolved
/// within, and a device, pipe or socket is never waited for.
///
/// # Errors
/// As openat2(2).
pub fn open_in(root: &Path, path: &str) -> io::Result<File> {
    let folder = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(File::from(rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve)?))
}

/// Reads a regular file of at most 1 MiB within `root`; empty where there is none.
pub(crate) fn read_in(root: &Path, path: &str) -> io::Result<Vec<u8>> {
    let file = match open_in(root, path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let status = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_within_the_root() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        symlink(outside.path().join("secret"), root.path().join("etc/absolute")).unwrap();
        symlink("../../../../../../etc/passwd", root.path().join("etc/climbing")).unwrap();
        symlink("/proc/self/root/etc/passwd", root.path().join("etc/magic")).unwrap();
        for path in ["etc/absolute", "etc/climbing", "etc/magic"] {
            assert_eq!(read_in(root.path(), path).unwrap(), b"", "{path}");
        }
        std::fs::write(root.path().join("etc/real"), "inside").unwrap();
        symlink("/etc/real", root.path().join("etc/link")).unwrap();
        assert_eq!(read_in(root.path(), "etc/link").unwrap(), b"inside");
    }

    #[test]
    fn pipes_folders_and_large_files_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        std::fs::create_dir(root.path().join("folder")).unwrap();
        File::create(root.path().join("large")).unwrap().set_len(MAX_FILE + 1).unwrap();
        for path in ["pipe", "folder", "large"] {
            assert!(read_in(root.path(), path).is_err(), "{path}");
        }
        assert_eq!(read_in(root.path(), "absent").unwrap(), b"");
    }
}
