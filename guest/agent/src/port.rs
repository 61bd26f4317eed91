//! The virtio-serial port to the host, found by its name.

use std::{error::Error, fs, io, path::PathBuf};

/// Opens the one port of that name. Its number is not fixed, and a host may make two of one name: those are refused.
///
/// # Errors
/// Where there is none or several, or it cannot be opened.
pub(crate) fn open(name: &str) -> Result<fs::File, Box<dyn Error + Send + Sync>> {
    const CLASS: &str = "/sys/class/virtio-ports";
    let list = |error: io::Error| format!("failed to list {CLASS}: {error}");
    let mut found = Vec::new();
    for entry in fs::read_dir(CLASS).map_err(list)? {
        let entry = entry.map_err(list)?;
        let said = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if said.trim_end_matches('\n') == name {
            found.push(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    match found.as_slice() {
        [path] => {
            let opened = fs::File::options().read(true).write(true).open(path);
            opened.map_err(|error| format!("failed to open {}: {error}", path.display()).into())
        }
        others => Err(format!("the machine has {} ports called {name}, expected one", others.len()).into()),
    }
}
