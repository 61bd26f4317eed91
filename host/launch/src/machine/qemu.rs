//! The QEMU of this machine: where it is, which version it has.

use std::{
    env, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The program's name.
const PROGRAM: &str = "qemu-system-x86_64";

/// First version that can launch SEV-SNP guests.
pub const SNP_VERSION: (u32, u32) = (9, 1);

/// A QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    path: PathBuf,
}

/// What is wrong with this machine's QEMU.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// There is none.
    #[error(
        "{PROGRAM} is not in PATH: install it (Debian: `apt-get install qemu-system-x86`), or set CAVEAU_QEMU to its path"
    )]
    Absent,
    /// The program given is none.
    #[error("CAVEAU_QEMU names {0:?}, which is not an executable file")]
    NotExecutable(PathBuf),
    /// It cannot be run.
    #[error("failed to run {path:?}")]
    Run {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It does not say its version.
    #[error("{path:?} --version says {said:?}, which names no version")]
    Version {
        /// The program.
        path: PathBuf,
        /// Its words.
        said: String,
    },
    /// It is too old.
    #[error("{path:?} is QEMU {}.{}, but {what} needs {}.{} or newer", found.0, found.1, needed.0, needed.1)]
    Old {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: (u32, u32),
        /// What for.
        what: &'static str,
        /// The version that can.
        needed: (u32, u32),
    },
}

impl Qemu {
    /// The QEMU that `CAVEAU_QEMU` names, else the first in `PATH`.
    ///
    /// # Errors
    /// [`QemuError::Absent`], [`QemuError::NotExecutable`].
    pub fn find() -> Result<Self, QemuError> {
        if let Some(path) = env::var_os("CAVEAU_QEMU").filter(|path| !path.is_empty()).map(PathBuf::from) {
            return if is_program(&path) { Ok(Self { path }) } else { Err(QemuError::NotExecutable(path)) };
        }
        let folders = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&folders).map(|folder| folder.join(PROGRAM)).find(|path| is_program(path));
        found.map(|path| Self { path }).ok_or(QemuError::Absent)
    }

    /// The program's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version, by asking it.
    ///
    /// # Errors
    /// Where it does not run or does not say.
    pub fn version(&self) -> Result<(u32, u32), QemuError> {
        let output = Command::new(&self.path).arg("--version").stdin(Stdio::null()).output();
        let output = output.map_err(|cause| QemuError::Run { path: self.path.clone(), cause })?;
        let said = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
        parse_version(&said).ok_or_else(|| QemuError::Version { path: self.path.clone(), said })
    }

    /// Refuses a version below `needed`.
    ///
    /// # Errors
    /// [`QemuError::Old`]; as [`Qemu::version`].
    pub fn require(&self, what: &'static str, needed: (u32, u32)) -> Result<(), QemuError> {
        let found = self.version()?;
        if found >= needed {
            return Ok(());
        }
        Err(QemuError::Old { path: self.path.clone(), found, what, needed })
    }

    /// What tells this file from another or a newer one, without running it: path, length and time of change.
    ///
    /// # Errors
    /// Where the file cannot be looked at.
    pub fn fingerprint(&self) -> Result<String, QemuError> {
        let found = self.path.metadata().map_err(|cause| QemuError::Run { path: self.path.clone(), cause })?;
        Ok(format!("{}:{}:{}.{}", self.path.display(), found.len(), found.mtime(), found.mtime_nsec()))
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Reads `QEMU emulator version 10.0.2 (…)`.
fn parse_version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.strip_prefix("QEMU emulator version ")?.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_it_says() {
        assert_eq!(parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"), Some((10, 0)));
        assert_eq!(parse_version("QEMU emulator version 9.1"), Some((9, 1)));
        assert_eq!(parse_version("QEMU emulator version x"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn an_old_one_is_refused_with_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PROGRAM);
        std::fs::write(&path, "#!/bin/sh\necho 'QEMU emulator version 7.2.11 (Debian)'\n").unwrap();
        assert!(!is_program(&path));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(is_program(&path));
        let qemu = Qemu { path };
        let error = qemu.require("snp", SNP_VERSION).unwrap_err().to_string();
        assert!(error.contains("is QEMU 7.2, but snp needs 9.1"), "{error}");
        qemu.require("emulated-snp", (7, 2)).unwrap();
    }
}
