//! The state folder of an installation: what makes its software processor one and the same from start to start.
//!
//! ```text
//! softsp/                 0700
//!   lock                  held while the folder is read or added to
//!   seed                  48 random bytes: the chip's secret
//!   ark/  ask/  asvk/     key (PKCS #8) and certificate.der of each authority; certificate.pem of the root
//!   crl.der               the root's revocation list, made anew before it ends
//! ```
//! Everything in it is made once, at the first need, under the lock, and appears whole or not at all. To take the folder
//! away is to get another root: evidence under the old one is then only believed by those who kept its certificate.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use caveau_snp::time::Timestamp;
use rustix::fs::{FlockOperation, OFlags, flock};
use zeroize::Zeroizing;

use crate::CryptoError;
use crate::authority::{Authority, Kind};
use crate::seed::{SECRET_BYTES, Seed};

/// Most bytes that any file of the folder has.
const MAX_FILE: u64 = 64 * 1024;

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or folder failed.
    #[error("failed to {act} {}", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// A file does not hold what it should.
    #[error(
        "{} is damaged: {problem}; to start with a new root, which evidence of the old one will not pass under, remove {}",
        path.display(), folder.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
        /// The state folder.
        folder: PathBuf,
    },
    /// Others can get at the keys.
    #[error("{} has mode {mode:03o} and owner {owner}; expected 700 and user {expected}", path.display())]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's number.
        owner: u32,
        /// This process's user.
        expected: u32,
    },
    /// Keys or signatures.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// Neither variable says where the folder is.
    #[error(
        "neither XDG_DATA_HOME nor HOME is set to an absolute path, so there is no place for the processor's state"
    )]
    NoPlace,
    /// The clock stands before 1970.
    #[error("the clock stands before 1970; set it, since certificates need a time")]
    Clock,
}

/// The usual state folder: `caveau/softsp` below `$XDG_DATA_HOME`, or below `$HOME/.local/share` (XDG Base Directory
/// Specification 0.8; relative values are ignored).
///
/// # Errors
/// [`StateError::NoPlace`].
pub fn state_folder() -> Result<PathBuf, StateError> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    Ok(data.ok_or(StateError::NoPlace)?.join("caveau/softsp"))
}

/// The path of the root's certificate (PEM) of the installation in `folder`, which is made where there is none.
///
/// # Errors
/// [`StateError`].
pub fn root_certificate(folder: &Path) -> Result<PathBuf, StateError> {
    let state = StateFolder::open(folder)?;
    Ok(Authority::root(&state)?.pem_path())
}

/// The folder, locked: nobody else makes or changes anything in it meanwhile.
pub(crate) struct StateFolder {
    path: PathBuf,
    now: Timestamp,
    _lock: File,
}

impl StateFolder {
    /// Opens the folder, makes it where there is none, and waits until nobody else has it.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| StateError::Clock)?;
        Self::open_at(path, now.into())
    }

    /// As [`StateFolder::open`], at the time `now`.
    pub(crate) fn open_at(path: &Path, now: Timestamp) -> Result<Self, StateError> {
        let failed = |act| move |cause| StateError::File { act, path: path.to_owned(), cause };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed("make the folder that holds"))?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("make")(error)),
            _ => check_private(path)?,
        }
        let lock = open_private(&path.join("lock")).map_err(failed("open the lock in"))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed("lock")(error.into()))?;
        Ok(Self { path: path.to_owned(), now, _lock: lock })
    }

    /// The time of opening.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// The path of an entry.
    pub(crate) fn entry(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The chip's secret, drawn where there is none yet.
    pub(crate) fn seed(&self) -> Result<Seed, StateError> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        if let Some(bytes) = self.read("seed")? {
            if bytes.len() != SECRET_BYTES {
                return Err(self.damaged("seed", "a seed has 48 bytes"));
            }
            secret.copy_from_slice(&bytes);
        } else {
            SystemRandom::new().fill(secret.as_mut_slice()).map_err(CryptoError::at("draw a seed"))?;
            self.write("seed", secret.as_slice())?;
        }
        Ok(Seed::new(secret))
    }

    /// A file's bytes, `None` where there is no such file.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        let path = self.entry(name);
        let failed = |cause| StateError::File { act: "read", path: path.clone(), cause };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// Writes a file: it is there whole, or as it was before.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let (new, path) = (self.entry(".new-file"), self.entry(name));
        let failed = |cause| StateError::File { act: "write", path: path.clone(), cause };
        write_private(&new, bytes).and_then(|()| fs::rename(&new, &path)).and_then(|()| self.sync()).map_err(failed)
    }

    /// Makes a folder with these files: it is there whole, or not at all.
    pub(crate) fn write_folder(&self, name: &str, files: &[(&str, &[u8])]) -> Result<(), StateError> {
        let (new, path) = (self.entry(".new-folder"), self.entry(name));
        let made = || {
            // Left over where an earlier start was killed at this point; nobody else is here now.
            match fs::remove_dir_all(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => DirBuilder::new().mode(0o700).create(&new)?,
            }
            files.iter().try_for_each(|(file, bytes)| write_private(&new.join(file), bytes))?;
            File::open(&new)?.sync_all()?;
            fs::rename(&new, &path)?;
            self.sync()
        };
        made().map_err(|cause| StateError::File { act: "make", path: path.clone(), cause })
    }

    /// The error for an entry that does not hold what it should.
    pub(crate) fn damaged(&self, name: &str, problem: &'static str) -> StateError {
        StateError::Damaged { path: self.entry(name), problem, folder: self.path.clone() }
    }

    /// Loads an authority, or makes it.
    pub(crate) fn authority(&self, kind: Kind) -> Result<Authority, StateError> {
        Authority::load_or_make(self, kind)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// Refuses a folder that anybody but this user can look into.
fn check_private(path: &Path) -> Result<(), StateError> {
    let metadata =
        fs::metadata(path).map_err(|cause| StateError::File { act: "look at", path: path.to_owned(), cause })?;
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    let expected = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || mode & 0o077 != 0 || owner != expected {
        return Err(StateError::Exposed { path: path.to_owned(), mode, owner, expected });
    }
    Ok(())
}

fn open_private(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).custom_flags(flags).open(path)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = open_private(path)?;
    file.set_len(0)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_stays_and_belongs_to_its_folder() {
        let parent = tempfile::tempdir().unwrap();
        let number = |name: &str| {
            StateFolder::open(&parent.path().join("a/b").join(name)).unwrap().seed().unwrap().chip_number().unwrap()
        };
        assert_eq!(number("one"), number("one"));
        assert_ne!(number("one"), number("two"));
        let mode = |path: &str| fs::metadata(parent.path().join(path)).unwrap().mode() & 0o777;
        assert_eq!((mode("a/b/one"), mode("a/b/one/seed")), (0o700, 0o600));
    }

    #[test]
    fn a_folder_that_others_can_read_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        drop(StateFolder::open(&path).unwrap());
        fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        let error = StateFolder::open(&path).err().unwrap();
        assert!(matches!(error, StateError::Exposed { mode: 0o750, .. }));
        assert!(error.to_string().contains("mode 750"), "{error}");
    }

    #[test]
    fn a_damaged_seed_is_not_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateFolder::open(parent.path().join("state").as_path()).unwrap();
        drop(state.seed().unwrap());
        state.write("seed", b"short").unwrap();
        let error = state.seed().err().unwrap();
        assert!(error.to_string().contains("a seed has 48 bytes; to start with a new root"), "{error}");
    }

    #[test]
    fn what_a_killed_start_left_is_no_obstacle() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateFolder::open(parent.path().join("state").as_path()).unwrap();
        fs::create_dir(state.entry(".new-folder")).unwrap();
        fs::write(state.entry(".new-folder").join("key"), "half").unwrap();
        fs::write(state.entry(".new-file"), "a longer half of something").unwrap();
        state.write_folder("ark", &[("key", b"whole")]).unwrap();
        state.write("crl.der", b"list").unwrap();
        assert_eq!(state.read("ark/key").unwrap().unwrap().as_slice(), b"whole");
        assert_eq!(state.read("crl.der").unwrap().unwrap().as_slice(), b"list");
        assert!(state.read("none").unwrap().is_none());
    }
}
