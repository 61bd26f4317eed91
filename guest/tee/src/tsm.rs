//! Reports by configfs-tsm (Linux 6.7 and later, Documentation/ABI/testing/configfs-tsm): the kernel's one interface for reports
//! of every TEE, which tells when two askers meet, and knows of service modules below the guest.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{MountFlags, mount};

use crate::{TeeError, TeeEvidence, check_report};

/// Where configfs belongs, under the root folder; sysfs has this folder once the kernel has configfs.
const CONFIGFS: &str = "sys/kernel/config";
/// Where entries are made, under that folder.
const FOLDER: &str = "tsm/report";
/// The provider of SEV-SNP guests.
const PROVIDER: &str = "sev_guest";
/// More than any attribute has.
const MAX_ATTRIBUTE: u64 = 64 << 10;

/// The folder in which the kernel makes report entries.
pub(crate) struct TsmReports {
    folder: PathBuf,
}

impl TsmReports {
    /// The path of the folder under `root`.
    pub(crate) fn folder(root: &Path) -> PathBuf {
        root.join(CONFIGFS).join(FOLDER)
    }

    /// Mounts configfs under `root`, where the kernel has it and nobody did before.
    pub(crate) fn mount(root: &Path) -> Result<(), TeeError> {
        let path = root.join(CONFIGFS);
        if !path.is_dir() || Self::folder(root).is_dir() {
            return Ok(());
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("configfs", &path, "configfs", flags, c"").map_err(|error| TeeError::Device {
            act: "mount configfs at",
            path,
            source: error.into(),
        })
    }

    /// The interface, where this kernel has it.
    pub(crate) fn open(root: &Path) -> Option<Self> {
        let folder = Self::folder(root);
        folder.is_dir().then_some(Self { folder })
    }

    /// A report over `report_data` by a fresh entry, which is removed again.
    pub(crate) fn report(&self, report_data: &[u8; 64]) -> Result<TeeEvidence, TeeError> {
        let entry = Entry::make(&self.folder)?;
        query(&entry, report_data)
    }
}

/// The attributes of one entry.
trait Attributes {
    fn path(&self) -> &Path;
    fn read(&self, name: &str) -> std::io::Result<Vec<u8>>;
    fn write(&self, name: &str, value: &[u8]) -> std::io::Result<()>;
}

/// An entry in configfs, removed when dropped.
struct Entry {
    path: PathBuf,
}

impl Entry {
    fn make(folder: &Path) -> Result<Self, TeeError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("caveau-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(name);
        std::fs::create_dir(&path).map_err(|source| TeeError::Device { act: "make", path: path.clone(), source })?;
        Ok(Self { path })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // A left-over entry holds nothing but the last report; there is no one to tell.
        drop(std::fs::remove_dir(&self.path));
    }
}

impl Attributes for Entry {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        let mut value = Vec::new();
        File::open(self.path.join(name))?.take(MAX_ATTRIBUTE).read_to_end(&mut value)?;
        Ok(value)
    }

    fn write(&self, name: &str, value: &[u8]) -> std::io::Result<()> {
        std::fs::write(self.path.join(name), value)
    }
}

/// Asks one entry, and checks by its generation that nobody else wrote to it meanwhile.
fn query(entry: &impl Attributes, report_data: &[u8; 64]) -> Result<TeeEvidence, TeeError> {
    let unusable = |why: String| TeeError::Tsm { path: entry.path().to_owned(), why };
    let provider = read_text(entry, "provider")?;
    if provider != PROVIDER {
        return Err(unusable(format!("its provider is {provider:?}, expected {PROVIDER:?}")));
    }
    let before = generation(entry)?;
    let mut writes = 1_u64;
    // A guest below VMPL 0 may not ask for more than its own level; the attribute is absent where that cannot be.
    let floor = read_text(entry, "privlevel_floor").unwrap_or_default();
    if !floor.is_empty() && floor != "0" {
        write(entry, "privlevel", floor.as_bytes())?;
        writes = writes.saturating_add(1);
    }
    write(entry, "inblob", report_data)?;
    let report = read(entry, "outblob")?;
    // Hosts need not offer certificates, and kernels then need not have the attribute.
    let certificates = match read(entry, "auxblob") {
        Err(TeeError::Device { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let after = generation(entry)?;
    let expected = before.saturating_add(writes);
    if after != expected {
        return Err(unusable(format!("its generation is {after}, expected {expected}: somebody else wrote to it")));
    }
    check_report(&report, report_data)?;
    Ok(TeeEvidence { report, certificates })
}

fn read(entry: &impl Attributes, name: &str) -> Result<Vec<u8>, TeeError> {
    entry.read(name).map_err(|source| TeeError::Device { act: "read", path: entry.path().join(name), source })
}

fn write(entry: &impl Attributes, name: &str, value: &[u8]) -> Result<(), TeeError> {
    entry.write(name, value).map_err(|source| TeeError::Device { act: "write", path: entry.path().join(name), source })
}

fn read_text(entry: &impl Attributes, name: &str) -> Result<String, TeeError> {
    Ok(String::from_utf8_lossy(&read(entry, name)?).trim_end().to_owned())
}

fn generation(entry: &impl Attributes) -> Result<u64, TeeError> {
    let text = read_text(entry, "generation")?;
    text.parse().map_err(|_| TeeError::Tsm {
        path: entry.path().to_owned(),
        why: format!("its generation is {text:?}, expected a number"),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    /// An entry that behaves as the kernel's: a write raises the generation, the report repeats the last inblob.
    struct Fake {
        attributes: RefCell<BTreeMap<&'static str, Vec<u8>>>,
        /// How much each write raises the generation: 2 where somebody else writes too.
        step: u64,
        generation: RefCell<u64>,
    }

    impl Fake {
        fn new(attributes: &[(&'static str, &str)]) -> Self {
            let mut all = BTreeMap::from([("provider", b"sev_guest\n".to_vec()), ("auxblob", b"table".to_vec())]);
            all.extend(attributes.iter().map(|(name, value)| (*name, value.as_bytes().to_vec())));
            Self { attributes: RefCell::new(all), step: 1, generation: RefCell::new(0) }
        }
    }

    impl Attributes for Fake {
        fn path(&self) -> &Path {
            Path::new("entry")
        }

        fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
            if name == "generation" {
                return Ok(format!("{}\n", self.generation.borrow()).into_bytes());
            }
            let attributes = self.attributes.borrow();
            attributes.get(name).cloned().ok_or_else(|| std::io::ErrorKind::NotFound.into())
        }

        fn write(&self, name: &str, value: &[u8]) -> std::io::Result<()> {
            *self.generation.borrow_mut() += self.step;
            let mut attributes = self.attributes.borrow_mut();
            if name == "inblob" {
                let mut report = vec![0; 1184];
                report[0x50..0x90].copy_from_slice(value);
                attributes.entry("outblob").or_insert(report);
            }
            attributes.insert(if name == "inblob" { "inblob" } else { "privlevel" }, value.to_vec());
            Ok(())
        }
    }

    #[test]
    fn a_report_comes_with_the_table() {
        let evidence = query(&Fake::new(&[("privlevel_floor", "0\n")]), &[7; 64]).unwrap();
        assert_eq!(evidence.report[0x50..0x90], [7; 64]);
        assert_eq!(evidence.certificates, b"table");
    }

    #[test]
    fn a_report_may_come_without_a_table() {
        let entry = Fake::new(&[]);
        entry.attributes.borrow_mut().remove("auxblob");
        assert!(query(&entry, &[7; 64]).unwrap().certificates.is_empty());
    }

    #[test]
    fn configfs_is_mounted_where_the_kernel_has_it_and_nobody_did() {
        let root = tempfile::tempdir().unwrap();
        TsmReports::mount(root.path()).unwrap();
        assert!(TsmReports::open(root.path()).is_none(), "a kernel without configfs");
        std::fs::create_dir_all(TsmReports::folder(root.path())).unwrap();
        TsmReports::mount(root.path()).unwrap();
        assert!(TsmReports::open(root.path()).is_some(), "it was mounted before");
    }

    #[test]
    fn a_floor_above_zero_is_asked_for() {
        let entry = Fake::new(&[("privlevel_floor", "2\n")]);
        query(&entry, &[7; 64]).unwrap();
        assert_eq!(entry.attributes.borrow()["privlevel"], b"2");
    }

    #[test]
    fn another_writer_is_noticed() {
        let mut entry = Fake::new(&[]);
        entry.step = 2;
        assert!(matches!(query(&entry, &[7; 64]), Err(TeeError::Tsm { why, .. }) if why.contains("somebody else")));
    }

    #[test]
    fn another_provider_is_refused() {
        let error = query(&Fake::new(&[("provider", "tdx_guest\n")]), &[7; 64]).unwrap_err();
        assert!(matches!(error, TeeError::Tsm { why, .. } if why.contains("tdx_guest")));
    }

    #[test]
    fn a_short_or_foreign_report_is_refused() {
        let short = query(&Fake::new(&[("outblob", "short")]), &[7; 64]);
        assert!(matches!(short, Err(TeeError::ReportSize { found: 5 })));
        let foreign = Fake::new(&[]);
        foreign.attributes.borrow_mut().insert("outblob", vec![0; 1184]);
        assert!(matches!(query(&foreign, &[7; 64]), Err(TeeError::OtherReportData)));
    }

    #[test]
    fn an_absent_attribute_is_named() {
        let entry = Fake::new(&[]);
        entry.attributes.borrow_mut().remove("provider");
        assert_eq!(query(&entry, &[7; 64]).unwrap_err().to_string(), "failed to read entry/provider");
    }
}
