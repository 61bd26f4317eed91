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

/// Makes the folder `path` within `root` and those above it, where they are not there: a working directory need not be in
/// the image. Links are resolved within the root, as by [`open_in`].
///
/// # Errors
/// Where something on the way is no folder, or as mkdirat(2).
pub fn make_folder_in(root: &Path, path: &str) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let mut above = rustix::fs::openat2(&root, "/", flags, Mode::empty(), resolve)?;
    let mut sofar = String::new();
    for name in path.split('/').filter(|name| !matches!(*name, "" | ".")) {
        sofar.push('/');
        sofar.push_str(name);
        above = match rustix::fs::openat2(&root, sofar.as_str(), flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755))?;
                rustix::fs::openat2(&root, sofar.as_str(), flags, Mode::empty(), resolve)?
            }
            opened => opened?,
        };
    }
    Ok(())
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
    fn folders_are_made_within_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        make_folder_in(root.path(), "/a/b//c/").unwrap();
        make_folder_in(root.path(), "/a/b/c").unwrap();
        assert!(root.path().join("a/b/c").is_dir());
        symlink(outside.path(), root.path().join("out")).unwrap();
        symlink("../../../../a", root.path().join("climb")).unwrap();
        assert!(make_folder_in(root.path(), "/out/new").is_err());
        make_folder_in(root.path(), "/climb/d").unwrap();
        assert!(root.path().join("a/d").is_dir());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        make_folder_in(root.path(), "/../e").unwrap();
        assert!(root.path().join("e").is_dir());
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(make_folder_in(root.path(), "/file/x").is_err());
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
