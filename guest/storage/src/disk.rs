//! The host's disks, known by their logical unit numbers and nothing else: the order of names such as `sda` is chance.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::IoContext as _;
use crate::{Result, StorageError};

/// Where the kernel lists SCSI disks, as `HOST:CHANNEL:TARGET:LUN`.
const SCSI_DISKS: &str = "/sys/class/scsi_disk";
/// Where the kernel lists SCSI controllers.
const SCSI_HOSTS: &str = "/sys/class/scsi_host";
/// Channel and target of every disk, and all logical units of it, as a controller's `scan` takes them.
const TARGET: &str = "0 0 -";
/// How long a disk that was promised is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A disk of the host.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Its logical unit number.
    pub(crate) lun: u16,
    /// Its node.
    pub(crate) path: PathBuf,
    /// Its number, as device-mapper tables want it.
    pub(crate) number: String,
    /// Its size in bytes.
    pub(crate) bytes: u64,
}

impl Disk {
    /// Waits, for a bounded time, until there is one disk of this number.
    ///
    /// # Errors
    /// [`StorageError::NoDisk`] and [`StorageError::AmbiguousDisk`].
    pub(crate) fn find(lun: u16) -> Result<Self> {
        let start = Instant::now();
        loop {
            match names(Path::new(SCSI_DISKS), lun)?.as_slice() {
                [name] => return Self::open(lun, name),
                [] if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
                [] => return Err(StorageError::NoDisk { lun, waited_ms: PATIENCE.as_millis() as u64 }),
                several => return Err(StorageError::AmbiguousDisk { lun, count: several.len() }),
            }
        }
    }

    fn open(lun: u16, name: &str) -> Result<Self> {
        let folder = Path::new("/sys/class/block").join(name);
        let number = read(&folder.join("dev"))?;
        let size = folder.join("size");
        let text = read(&size)?;
        let sectors = text.parse::<u64>().ok().and_then(|sectors| sectors.checked_mul(512));
        let bytes =
            sectors.ok_or(StorageError::KernelFile { path: size, found: text, expected: "a number of sectors" })?;
        Ok(Self { lun, path: Path::new("/dev").join(name), number, bytes })
    }

    /// Opens it to be read.
    pub(crate) fn reader(&self) -> Result<File> {
        File::open(&self.path).context("open", &self.path)
    }

    /// Its size in sectors of 512 bytes.
    pub(crate) fn sectors(&self) -> u64 {
        self.bytes / 512
    }
}

/// Has every controller look for disks, where a host that keeps to its part has them.
///
/// # Errors
/// Where there are controllers and one cannot be asked.
pub(crate) fn look() -> Result<()> {
    look_in(Path::new(SCSI_HOSTS))
}

fn look_in(folder: &Path) -> Result<()> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("read folder", folder),
    };
    for entry in entries {
        let scan = entry.context("read folder", folder)?.path().join("scan");
        fs::write(&scan, TARGET).context("write", &scan)?;
    }
    Ok(())
}

/// Names of the block devices of all SCSI disks with this number.
fn names(folder: &Path, lun: u16) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(names),
        Err(error) => return Err(error).context("read folder", folder),
    };
    for entry in entries {
        let entry = entry.context("read folder", folder)?;
        if entry.file_name().to_str().and_then(lun_of) != Some(lun) {
            continue;
        }
        // Absent until the disk has been looked at.
        let block = entry.path().join("device/block");
        let Ok(mut devices) = block.read_dir() else { continue };
        names.extend(devices.find_map(|device| device.ok()?.file_name().into_string().ok()));
    }
    Ok(names)
}

/// `0:0:0:17` is logical unit 17.
fn lun_of(address: &str) -> Option<u16> {
    let mut parts = address.split(':');
    let lun = parts.nth(3)?;
    let lun = lun.parse().ok().filter(|number: &u16| number.to_string() == lun)?;
    parts.next().is_none().then_some(lun)
}

fn read(path: &Path) -> Result<String> {
    Ok(fs::read_to_string(path).context("read", path)?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(lun_of("0:0:0:17"), Some(17));
        assert_eq!(lun_of("12:0:3:0"), Some(0));
        for bad in ["0:0:0", "0:0:0:1:2", "0:0:0:x", "0:0:0:+1", "0:0:0:01", "0:0:0:70000", ""] {
            assert_eq!(lun_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_controller_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        for host in ["host0", "host1"] {
            fs::create_dir(folder.path().join(host)).unwrap();
        }
        look_in(folder.path()).unwrap();
        for host in ["host0", "host1"] {
            assert_eq!(fs::read_to_string(folder.path().join(host).join("scan")).unwrap(), "0 0 -");
        }
        look_in(&folder.path().join("absent")).unwrap();
    }

    #[test]
    fn finds_by_number_and_sees_doubles() {
        let folder = tempfile::tempdir().unwrap();
        for (address, device) in [("0:0:0:1", "sdb"), ("0:0:0:2", "sda"), ("1:0:0:2", "sdc")] {
            fs::create_dir_all(folder.path().join(address).join("device/block").join(device)).unwrap();
        }
        fs::create_dir(folder.path().join("0:0:0:3")).unwrap();
        assert_eq!(names(folder.path(), 1).unwrap(), ["sdb"]);
        assert_eq!(names(folder.path(), 2).unwrap().len(), 2);
        assert_eq!(names(folder.path(), 3).unwrap(), [""; 0]);
        assert_eq!(names(&folder.path().join("absent"), 1).unwrap(), [""; 0]);
    }
}
