//! Files that commands are given, read up to a bound, and those that they write: each whole, or as it was before.

use std::{
    fs::{File, Permissions, metadata},
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::NamedTempFile;

/// Longest file of a format that has no bound of its own, in bytes.
pub(crate) const MAX_DOCUMENT: usize = 16 << 20;

/// A file to be read; `-` is standard input.
///
/// # Errors
/// Where it cannot be opened.
pub(crate) fn open(file: &Path) -> Result<Box<dyn io::Read>> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(File::open(file).with_context(|| format!("failed to open {}", file.display()))?))
}

/// What is in a file, or on standard input for `-`.
///
/// # Errors
/// Where it cannot be read, or has more than `most` bytes.
pub(crate) fn read(file: &Path, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let source = open(file)?.take(u64::try_from(most)?.saturating_add(1)).read_to_end(&mut bytes);
    source.with_context(|| format!("failed to read {}", file.display()))?;
    ensure!(bytes.len() <= most, "{} is longer than {most} bytes", file.display());
    Ok(bytes)
}

/// As [`read`], for text.
///
/// # Errors
/// As [`read`], and where it is not UTF-8.
pub(crate) fn read_text(file: &Path, most: usize) -> Result<String> {
    String::from_utf8(read(file, most)?).with_context(|| format!("{} is not UTF-8 text", file.display()))
}

/// A file under a temporary name beside the one that it will have.
///
/// # Errors
/// Where the name is that of something else than a regular file, or nothing can be made beside it.
pub(crate) fn begin(file: &Path) -> Result<NamedTempFile> {
    ensure!(
        metadata(file).map_or(true, |found| found.is_file()),
        "{} is there and is not a regular file; choose another name",
        file.display()
    );
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As any file that a program makes: what the umask leaves.
    let permissions = Permissions::from_mode(0o666);
    let mut temporary = tempfile::Builder::new();
    let temporary = temporary.prefix(".caveau-").permissions(permissions).tempfile_in(folder);
    temporary.with_context(|| failure(file))
}

/// Gives a file that is written its name.
///
/// # Errors
/// Where it cannot be written to its disk, or renamed.
pub(crate) fn finish(temporary: NamedTempFile, file: &Path) -> Result<()> {
    temporary.as_file().sync_all().with_context(|| failure(file))?;
    temporary.persist(file).with_context(|| failure(file))?;
    Ok(())
}

/// Writes a file.
///
/// # Errors
/// As [`begin`] and [`finish`].
pub(crate) fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = begin(file)?;
    temporary.write_all(bytes).with_context(|| failure(file))?;
    finish(temporary, file)
}

fn failure(file: &Path) -> String {
    format!("failed to write {}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        for text in ["first", "second, which is longer"] {
            write(&file, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_is_longer_than_it_may_be_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        write(&file, b"text").unwrap();
        assert_eq!(read_text(&file, 4).unwrap(), "text");
        assert!(read(&file, 3).unwrap_err().to_string().ends_with("file is longer than 3 bytes"));
        assert!(read(Path::new("/dev/zero"), 1 << 10).unwrap_err().to_string().contains("longer than 1024 bytes"));
        write(&file, &[0xff]).unwrap();
        assert!(read_text(&file, 4).unwrap_err().to_string().ends_with("file is not UTF-8 text"));
        for missing in [folder.path(), &folder.path().join("missing")] {
            assert!(read(missing, 4).unwrap_err().to_string().contains(missing.to_str().unwrap()));
        }
    }

    #[test]
    fn what_is_no_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("folder");
        std::fs::create_dir(&below).unwrap();
        let error = write(&below, b"text").unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        assert!(write(&folder.path().join("missing/file"), b"text").unwrap_err().to_string().contains("missing/file"));
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }
}
