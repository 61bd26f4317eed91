//! Files of a container's root, read and made without leaving it.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::{ContainerPlan, RuntimeError};

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

/// Makes what the image may lack of what its container needs: the working directory, and the files over which others are
/// mounted. Those can be links to nowhere, which libcontainer does not follow.
pub(crate) fn complete(plan: &ContainerPlan) -> Result<(), RuntimeError> {
    let root = &plan.root;
    make_folder_in(root, &plan.process.cwd).map_err(RuntimeError::file(&plan.process.cwd))?;
    for bind in plan.binds.iter().filter(|bind| bind.source.is_file()) {
        make_file_in(root, &bind.destination).map_err(RuntimeError::file(&bind.destination))?;
    }
    Ok(())
}

/// Makes the folder `path` within `root` and those above it, where they are not there: a working directory need not be in
/// the image. Links are resolved within the root, as by [`open_in`].
///
/// # Errors
/// Where something on the way is no folder, or as mkdirat(2).
fn make_folder_in(root: &Path, path: &str) -> io::Result<()> {
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

/// Makes the file `path` within `root`, empty, where it is not there, and the folders above it. Links are followed as a
/// process with `root` as its root directory would follow them, and one that leads nowhere gets what it points to.
///
/// # Errors
/// Where something on the way is no folder, there are too many links, or as openat2(2).
fn make_file_in(root: &Path, path: &str) -> io::Result<()> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // What is still to be gone, the next name last; and the way gone so far, of which no part is a link.
    let mut ahead: Vec<String> = names(path);
    let mut gone: Vec<String> = Vec::new();
    let mut links = 0u32;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            gone.pop();
            continue;
        }
        let here = format!("/{}", gone.iter().chain([&name]).map(String::as_str).collect::<Vec<_>>().join("/"));
        match step(&root, &here, ahead.is_empty())? {
            None => gone.push(name),
            Some(target) => {
                links = links.saturating_add(1);
                if links > MAX_LINKS {
                    return Err(rustix::io::Errno::LOOP.into());
                }
                if target.starts_with('/') {
                    gone.clear();
                }
                ahead.extend(names(&target));
            }
        }
    }
    Ok(())
}

/// Most links on the way to one file, as in the kernel (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// The names in a path, the first one last.
fn names(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|name| !matches!(*name, "" | ".")).map(str::to_owned).collect()
}

/// Looks at `path`, whose last name alone may be a link: gives what that points to. Makes the file, or the folder on the way
/// to it, where nothing is there.
fn step(root: &OwnedFd, path: &str, last: bool) -> io::Result<Option<String>> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open = |flags, mode| rustix::fs::openat2(root, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode, resolve);
    match open(OFlags::PATH, Mode::empty()) {
        Ok(found) => {
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
            match kind {
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
                    let target = target.into_string().map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
                    Ok(Some(target))
                }
                FileType::Directory => Ok(None),
                _ if last => Ok(None),
                _ => Err(rustix::io::Errno::NOTDIR.into()),
            }
        }
        Err(rustix::io::Errno::NOENT) if last => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            open(flags, Mode::from_raw_mode(0o644)).map(|_| None).map_err(Into::into)
        }
        Err(rustix::io::Errno::NOENT) => {
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
            let above = if above.is_empty() { "/" } else { above };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let above = rustix::fs::openat2(root, above, flags, Mode::empty(), resolve)?;
            rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755))?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
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
    fn a_link_to_nowhere_gets_its_file_within_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir(at("etc")).unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", at("etc/resolv.conf")).unwrap();
        symlink("/../../../../data/./hosts", at("etc/hosts")).unwrap();
        symlink(outside.path().join("name"), at("etc/hostname")).unwrap();
        symlink("etc", at("conf")).unwrap();
        symlink("loop", at("loop")).unwrap();
        for path in ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/conf/new/file"] {
            make_file_in(root.path(), path).unwrap();
            // A second time there is nothing to do.
            make_file_in(root.path(), path).unwrap();
            assert_eq!(read_in(root.path(), path).unwrap(), b"", "{path}");
        }
        for path in ["run/systemd/resolve/stub-resolv.conf", "data/hosts", "etc/new/file"] {
            assert!(at(path).is_file(), "{path}");
        }
        assert!(at(&outside.path().join("name").to_string_lossy()[1..]).is_file());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(make_file_in(root.path(), "/loop/x").is_err());
        assert!(make_file_in(root.path(), "/etc/new/file/x").is_err());
        std::fs::write(at("etc/full"), "kept").unwrap();
        make_file_in(root.path(), "/etc/full").unwrap();
        assert_eq!(std::fs::read(at("etc/full")).unwrap(), b"kept");
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
