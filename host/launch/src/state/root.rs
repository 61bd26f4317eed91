//! The folder of all groups of one user.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{GroupFolder, GroupLock, StateError, file_error};
use crate::GroupName;

/// Beginning of the names of folders that are being made or taken apart.
const UNFINISHED: &str = ".unfinished-";

/// The folder of all groups, checked to be the user's own.
#[derive(Clone, Debug)]
pub struct StateRoot {
    path: PathBuf,
}

impl StateRoot {
    /// `$XDG_RUNTIME_DIR/caveau`, or `/tmp/caveau-UID` where the variable is unset or empty.
    ///
    /// # Errors
    /// [`StateError::Unsafe`] where the folder belongs to another user, is open to others or is a symbolic link.
    pub fn open() -> Result<Self, StateError> {
        Self::at(&place(std::env::var_os("XDG_RUNTIME_DIR"), rustix::process::geteuid().as_raw()))
    }

    /// A folder of the caller's choice; it is made where it is absent.
    ///
    /// # Errors
    /// As [`StateRoot::open`].
    pub fn at(path: &Path) -> Result<Self, StateError> {
        if !path.is_absolute() {
            return Err(StateError::Unsafe { path: path.to_owned(), fault: "its path is not absolute".into() });
        }
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(file_error("make", path)(error))?,
            _ => {}
        }
        let found = fs::symlink_metadata(path).map_err(file_error("look at", path))?;
        match fault(&found) {
            Some(fault) => Err(StateError::Unsafe { path: path.to_owned(), fault }),
            None => Ok(Self { path: path.to_owned() }),
        }
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a group's folder with its lock held, filled by `fill`, and only then visible under its name.
    ///
    /// # Errors
    /// [`StateError::Exists`] where the name is taken; what `fill` says.
    pub fn create(
        &self,
        name: &GroupName,
        fill: impl FnOnce(&GroupFolder) -> Result<(), StateError>,
    ) -> Result<(GroupFolder, GroupLock), StateError> {
        let unfinished = self.path.join(format!("{UNFINISHED}{}-{name}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&unfinished).map_err(file_error("make", &unfinished))?;
        let result = self.create_in(&unfinished, name, fill);
        if result.is_err() {
            // The error at hand says more than one of this removal would; a later listing tries again.
            let _ = fs::remove_dir_all(&unfinished);
        }
        result
    }

    fn create_in(
        &self,
        unfinished: &Path,
        name: &GroupName,
        fill: impl FnOnce(&GroupFolder) -> Result<(), StateError>,
    ) -> Result<(GroupFolder, GroupLock), StateError> {
        let folder = GroupFolder::at(unfinished, name);
        let lock = folder.make_lock()?;
        fill(&folder)?;
        let path = self.path.join(name.as_str());
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(rustix::fs::CWD, unfinished, rustix::fs::CWD, &path, flags) {
            Ok(()) => Ok((GroupFolder::at(&path, name), lock)),
            Err(rustix::io::Errno::EXIST) => Err(StateError::Exists(name.clone())),
            Err(error) => Err(file_error("make", path)(error.into())),
        }
    }

    /// A group's folder.
    ///
    /// # Errors
    /// [`StateError::Unknown`] where there is none.
    pub fn group(&self, name: &GroupName) -> Result<GroupFolder, StateError> {
        let path = self.path.join(name.as_str());
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => Ok(GroupFolder::at(&path, name)),
            Ok(_) => Err(StateError::Unsafe { path, fault: "it is not a folder".into() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StateError::Unknown(name.clone())),
            Err(error) => Err(file_error("look at", path)(error)),
        }
    }

    /// All groups, by name. What a killed start or removal left half-done is cleared away.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn groups(&self) -> Result<Vec<GroupFolder>, StateError> {
        let mut groups = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(file_error("read", &self.path))? {
            let entry = entry.map_err(file_error("read", &self.path))?;
            let text = entry.file_name().to_string_lossy().into_owned();
            if let Some(rest) = text.strip_prefix(UNFINISHED) {
                clear(&entry.path(), rest);
            } else if let Ok(name) = text.parse::<GroupName>() {
                groups.push(GroupFolder::at(&entry.path(), &name));
            }
        }
        groups.sort_by(|one, other| one.name().cmp(other.name()));
        Ok(groups)
    }

    /// Takes a group's folder away: first out of sight, then file by file.
    ///
    /// # Errors
    /// [`StateError::Running`] where its supervisor lives.
    pub fn remove(&self, folder: &GroupFolder) -> Result<(), StateError> {
        let _lock = folder.try_lock()?.ok_or_else(|| StateError::Running(folder.name().clone()))?;
        let hidden = self.path.join(format!("{UNFINISHED}{}-{}", std::process::id(), folder.name()));
        fs::rename(folder.path(), &hidden).map_err(file_error("remove", folder.path()))?;
        fs::remove_dir_all(&hidden).map_err(file_error("remove", &hidden))
    }
}

/// What makes a folder unsafe to keep sockets and locks in.
fn fault(found: &fs::Metadata) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    if found.file_type().is_symlink() {
        return Some("it is a symbolic link".into());
    }
    if !found.is_dir() {
        return Some("it is not a folder".into());
    }
    if found.uid() != own {
        return Some(format!("it belongs to user {}, not to you ({own})", found.uid()));
    }
    let mode = found.mode() & 0o777;
    (mode & 0o077 != 0).then(|| format!("its mode is {mode:03o} and lets others in; `chmod 700` it"))
}

/// Removes an unfinished folder `PID-NAME` whose process is gone and whose lock nobody holds.
fn clear(path: &Path, rest: &str) {
    let Some((pid, name)) = rest.split_once('-') else { return };
    let (Ok(pid), Ok(name)) = (pid.parse::<u32>(), name.parse::<GroupName>()) else { return };
    let lives = Path::new("/proc").join(pid.to_string()).exists();
    let held = GroupFolder::at(path, &name).is_held().unwrap_or(false);
    if !lives && !held {
        // Another listing may be doing the same at this moment; whoever comes last finds nothing.
        let _ = fs::remove_dir_all(path);
    }
}

/// Where the folder is, by the value of `XDG_RUNTIME_DIR` and the user's number.
fn place(runtime: Option<OsString>, user: u32) -> PathBuf {
    match runtime.filter(|value| !value.is_empty()) {
        Some(folder) => Path::new(&folder).join("caveau"),
        None => Path::new("/tmp").join(format!("caveau-{user}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, StateRoot) {
        let folder = tempfile::tempdir().unwrap();
        let root = StateRoot::at(&folder.path().join("caveau")).unwrap();
        (folder, root)
    }

    #[test]
    fn without_a_runtime_folder_each_user_has_a_folder_of_their_own() {
        assert_eq!(place(Some("/run/user/1000".into()), 1000), Path::new("/run/user/1000/caveau"));
        assert_eq!(place(None, 1000), Path::new("/tmp/caveau-1000"));
        assert_eq!(place(Some(OsString::new()), 0), Path::new("/tmp/caveau-0"));
        let relative = StateRoot::at(&place(Some("run".into()), 0)).unwrap_err().to_string();
        assert!(relative.contains("not absolute") && relative.contains("XDG_RUNTIME_DIR"), "{relative}");
    }

    #[test]
    fn a_fresh_folder_is_private() {
        let (_keep, root) = root();
        assert_eq!(fs::metadata(root.path()).unwrap().mode() & 0o777, 0o700);
        StateRoot::at(root.path()).unwrap();
    }

    #[test]
    fn open_folders_links_and_files_are_refused() {
        let (keep, root) = root();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let error = StateRoot::at(root.path()).unwrap_err().to_string();
        assert!(error.contains("mode is 750"), "{error}");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let link = keep.path().join("link");
        symlink(root.path(), &link).unwrap();
        assert!(StateRoot::at(&link).unwrap_err().to_string().contains("symbolic link"));
        let file = keep.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(StateRoot::at(&file).unwrap_err().to_string().contains("not a folder"));
        assert!(StateRoot::at(Path::new("caveau")).is_err());
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can make a folder of another user");
            return;
        }
        let (_keep, root) = root();
        std::os::unix::fs::chown(root.path(), Some(12345), None).unwrap();
        assert!(StateRoot::at(root.path()).unwrap_err().to_string().contains("belongs to user 12345"));
    }

    #[test]
    fn names_are_taken_once_and_free_again_after_removal() {
        let (_keep, root) = root();
        let name: GroupName = "web".parse().unwrap();
        let (folder, lock) = root.create(&name, |_| Ok(())).unwrap();
        assert!(matches!(root.create(&name, |_| Ok(())), Err(StateError::Exists(_))));
        assert!(matches!(root.remove(&folder), Err(StateError::Running(_))));
        drop(lock);
        root.remove(&root.group(&name).unwrap()).unwrap();
        assert!(matches!(root.group(&name), Err(StateError::Unknown(_))));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        root.create(&name, |_| Ok(())).unwrap();
    }

    #[test]
    fn a_start_that_fails_leaves_nothing() {
        let (_keep, root) = root();
        let name: GroupName = "web".parse().unwrap();
        let failed = root.create(&name, |_| Err(StateError::Unknown("x".parse().unwrap())));
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_listing_clears_what_a_killed_process_left() {
        let (_keep, root) = root();
        // No process has the number 0x7fffffff: it is over every kernel's limit.
        fs::create_dir(root.path().join(format!("{UNFINISHED}{}-web", i32::MAX))).unwrap();
        let own = root.path().join(format!("{UNFINISHED}{}-db", std::process::id()));
        fs::create_dir(&own).unwrap();
        fs::create_dir(root.path().join("app")).unwrap();
        let names: Vec<_> = root.groups().unwrap().iter().map(|group| group.name().to_string()).collect();
        assert_eq!(names, ["app"]);
        assert!(own.exists());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    }
}
