//! Files that a distribution's package installed, by dpkg's own lists.

use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageFile {
    /// The package's name, such as `seabios`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where the package puts the file.
    pub path: PathBuf,
}

impl PackageFile {
    /// That it can be one: a package by its name, and a place below the root.
    pub(crate) fn is_sound(&self) -> bool {
        let mut steps = self.path.components();
        let below = steps.next() == Some(Component::RootDir) && steps.all(|step| matches!(step, Component::Normal(_)));
        below && is_package(&self.name, &self.version)
    }

    /// The installed package that has `file`, and has it with these bytes; `None` where there is none, the file was changed
    /// since, or the machine has no dpkg.
    #[must_use]
    pub fn of(file: &Path) -> Option<Self> {
        let path = file.canonicalize().ok()?;
        // `NAME[:ARCHITECTURE]: PATH`; a file of several packages has several names, of which any will do.
        let found = output(Command::new("dpkg-query").arg("--search").arg(&path))?;
        let name = found.lines().find_map(|line| line.strip_suffix(path.to_str()?)?.strip_suffix(": "))?;
        let name = name.split(',').next()?.trim();
        // One line for each file that is not as it was installed (dpkg(1), --verify).
        let changed = output(Command::new("dpkg").args(["--verify", name]))?;
        if changed.lines().any(|line| line.split_whitespace().next_back().map(Path::new) == Some(path.as_path())) {
            return None;
        }
        let version = output(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", name]))?;
        Some(Self { name: name.split(':').next()?.to_owned(), version, path })
    }
}

/// Whether these can be name and version of a package (Debian Policy 4.7, sections 5.6.1 and 5.6.12): what stands in a description
/// is handed to programs, which must not take it for an option or for a path.
#[must_use]
pub fn is_package(name: &str, version: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    let of_version = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.~:".contains(&byte);
    name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && name.bytes().all(of_name)
        && version.starts_with(|first: char| first.is_ascii_digit())
        && version.bytes().all(of_version)
}

/// What a program prints, where it ends well.
fn output(command: &mut Command) -> Option<String> {
    let out = command.env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(out.stdout).ok().filter(|_| out.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_package_is_known() {
        assert!(is_package("linux-source-6.12", "6.12.95-1~bpo12+1") && is_package("g++", "4:12.2"));
        for (name, version) in
            [("", "1"), ("-o", "1"), ("a/b", "1"), ("..", "1"), ("A", "1"), ("a", ""), ("a", "x"), ("a", "1 2")]
        {
            assert!(!is_package(name, version), "{name} {version}");
        }
        let at = |path: &str| PackageFile { name: "a".into(), version: "1".into(), path: path.into() }.is_sound();
        assert!(at("/usr/share/a.bin"));
        assert!(!at("usr/share/a.bin") && !at("/usr/../etc/shadow") && !at(""));
    }

    #[test]
    fn a_file_of_a_package_is_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        std::fs::write(&own, b"mine").unwrap();
        assert_eq!(PackageFile::of(&own), None);
        assert_eq!(PackageFile::of(&folder.path().join("missing")), None);
        let program = Path::new("/usr/bin/dpkg-query");
        if !program.is_file() {
            println!("skipped: no dpkg here");
            return;
        }
        let found = PackageFile::of(program).unwrap();
        assert_eq!((found.name.as_str(), found.path.as_path()), ("dpkg", program));
        assert!(found.version.starts_with(|first: char| first.is_ascii_digit()), "{found:?}");
    }
}
