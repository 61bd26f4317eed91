//! Which modules the guest loads, and in which order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::decompress::decompress;
use crate::error::IoContext as _;
use crate::module::{ModInfo, module_error, normal, without_signature};
use crate::{Result, Tee};

/// Whether a kernel without the module will do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// A faster or finer-grained way to do what the kernel can do anyway, or always built in where it is not a module.
    IfPresent,
    Required,
}

/// What the guest uses, apart from what these depend on. All of a kernel's modules may as well be built in.
const WANTED: &[(&str, Need)] = &[
    ("virtio_pci", Need::Required),
    ("virtio_console", Need::Required),
    ("sd_mod", Need::Required),
    ("virtio_scsi", Need::Required),
    ("virtio_net", Need::Required),
    ("virtio_rng", Need::Required),
    ("ext4", Need::Required),
    ("overlay", Need::Required),
    ("sha256_ssse3", Need::IfPresent),
    ("dm_verity", Need::Required),
    // The scratch disk: authenc(hmac(sha256),xts(aes)) over dm-integrity.
    ("aesni_intel", Need::IfPresent),
    ("sha256_generic", Need::IfPresent),
    ("hmac", Need::IfPresent),
    ("ecb", Need::IfPresent),
    ("xts", Need::Required),
    ("authenc", Need::Required),
    ("dm_crypt", Need::Required),
    ("dm_integrity", Need::Required),
];

/// What only some TEEs use, apart from what these depend on.
const WANTED_FOR: &[(Tee, &str, Need)] = &[(Tee::Snp, "sev_guest", Need::Required)];

/// A module of the guest.
#[derive(Debug)]
pub(crate) struct Module {
    /// Name as the kernel knows it.
    pub(crate) name: String,
    /// The only TEE that loads it; `None`: all do.
    pub(crate) tee: Option<Tee>,
    /// Uncompressed, without signature.
    pub(crate) bytes: Vec<u8>,
}

/// The modules of the kernel `release` in `folder` that the guest uses, each after those it depends on.
///
/// # Errors
/// [`crate::GuestImageError::Module`] where one is missing, malformed, built for another kernel or depends on itself.
pub(crate) fn select(folder: &Path, release: &str) -> Result<Vec<Module>> {
    let common = WANTED.iter().map(|&(name, need)| (None, name, need));
    let special = WANTED_FOR.iter().map(|&(tee, name, need)| (Some(tee), name, need));
    let mut selection = Selection::new(folder, release)?;
    for (tee, name, need) in common.chain(special) {
        if need == Need::Required || selection.files.contains_key(name) {
            selection.add(name, tee, &mut Vec::new())?;
        }
    }
    Ok(selection.modules)
}

/// Modules chosen so far.
struct Selection<'a> {
    release: &'a str,
    files: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
    modules: Vec<Module>,
}

impl<'a> Selection<'a> {
    fn new(folder: &Path, release: &'a str) -> Result<Self> {
        let list = folder.join("modules.builtin");
        let builtin = std::fs::read_to_string(&list).context("read", &list)?;
        let builtin = builtin.lines().filter_map(|line| module_name(Path::new(line))).collect();
        let mut files = BTreeMap::new();
        find_modules(&folder.join("kernel"), &mut files)?;
        Ok(Self { release, files, builtin, modules: Vec::new() })
    }

    /// Adds `name` after what it depends on; `path` holds the modules that led here.
    fn add(&mut self, name: &str, tee: Option<Tee>, path: &mut Vec<String>) -> Result<()> {
        if self.builtin.iter().any(|builtin| builtin == name) || self.modules.iter().any(|module| module.name == name) {
            return Ok(());
        }
        if path.iter().any(|above| above == name) {
            return Err(module_error(name, format!("it depends on itself, by way of {}", path.join(", "))));
        }
        let (info, bytes) = self.read(name, path)?;
        path.push(name.to_owned());
        let present = info.prefers.iter().filter(|name| self.files.contains_key(*name));
        let before: Vec<String> = present.chain(&info.depends).cloned().collect();
        for dependency in before {
            self.add(&dependency, tee, path)?;
        }
        path.pop();
        self.modules.push(Module { name: info.name, tee, bytes });
        Ok(())
    }

    fn read(&self, name: &str, path: &[String]) -> Result<(ModInfo, Vec<u8>)> {
        let file = self.files.get(name).ok_or_else(|| {
            let needed_by = path.last().map_or_else(|| "the guest".to_owned(), Clone::clone);
            module_error(name, format!("the kernel package has no such module, and {needed_by} needs it"))
        })?;
        let packed = std::fs::read(file).context("read", file)?;
        let unpacked = decompress(&file.to_string_lossy(), &packed)?;
        let info = ModInfo::parse(name, &unpacked)?;
        if info.name != name {
            return Err(module_error(name, format!("the file calls itself {}", info.name)));
        }
        if info.release != self.release {
            return Err(module_error(name, format!("it is for kernel {}, expected {}", info.release, self.release)));
        }
        let bytes = without_signature(name, &unpacked)?.to_vec();
        Ok((info, bytes))
    }
}

/// `dm-verity.ko.xz` is `dm_verity`; a file that is no module is `None`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (stem, ending) = file.split_once(".ko")?;
    matches!(ending, "" | ".xz" | ".zst" | ".gz").then(|| normal(stem))
}

fn find_modules(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in folder.read_dir().context("read folder", folder)? {
        let entry = entry.context("read folder", folder)?;
        let path = entry.path();
        if entry.file_type().context("read", &path)?.is_dir() {
            find_modules(&path, files)?;
        } else if let Some(name) = module_name(&path)
            && let Some(other) = files.insert(name.clone(), path)
        {
            return Err(module_error(&name, format!("there is a second file of that name, {}", other.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::tests::module_file;

    /// A module folder with these modules (name, depends) and every wanted module that is not among them built in.
    fn folder(modules: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("kernel/deep")).unwrap();
        let wanted = WANTED.iter().map(|wanted| wanted.0).chain(WANTED_FOR.iter().map(|wanted| wanted.1));
        let builtin = wanted.filter(|wanted| !modules.iter().any(|(name, _)| normal(name) == **wanted));
        let list: String = builtin.map(|name| format!("kernel/x/{name}.ko\n")).collect();
        std::fs::write(folder.path().join("modules.builtin"), list).unwrap();
        for (name, depends) in modules {
            let file = module_file(&[
                &format!("name={}", normal(name)),
                &format!("depends={depends}"),
                "softdep=pre: crypto-nothing zlast",
                "vermagic=1.2 SMP",
            ]);
            std::fs::write(folder.path().join(format!("kernel/deep/{name}.ko")), file).unwrap();
        }
        folder
    }

    fn names(modules: &[Module]) -> Vec<(&str, Option<Tee>)> {
        modules.iter().map(|module| (module.name.as_str(), module.tee)).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let folder = folder(&[
            ("dm-verity", "dm-mod,reed_solomon"),
            ("dm-crypt", "dm-mod"),
            ("dm-mod", ""),
            ("reed_solomon", ""),
            ("sev-guest", "tsm,dm-mod"),
            ("tsm", ""),
            ("unwanted", ""),
        ]);
        let modules = select(folder.path(), "1.2").unwrap();
        let snp = Some(Tee::Snp);
        let expected = [
            ("dm_mod", None),
            ("reed_solomon", None),
            ("dm_verity", None),
            ("dm_crypt", None),
            ("tsm", snp),
            ("sev_guest", snp),
        ];
        assert_eq!(names(&modules), expected);
    }

    #[test]
    fn soft_dependencies_count_where_present() {
        let folder = folder(&[("xts", ""), ("zlast", "")]);
        // `zlast` asks for itself softly: a circle, which must be said and not followed for ever.
        let error = select(folder.path(), "1.2").unwrap_err();
        assert_eq!(error.to_string(), "kernel module zlast: it depends on itself, by way of xts, zlast");
    }

    #[test]
    fn says_what_is_missing_or_foreign() {
        let missing = folder(&[("dm-verity", "dm-mod")]);
        let error = select(missing.path(), "1.2").unwrap_err().to_string();
        assert_eq!(error, "kernel module dm_mod: the kernel package has no such module, and dm_verity needs it");
        let foreign = folder(&[("overlay", "")]);
        let error = select(foreign.path(), "1.3").unwrap_err().to_string();
        assert_eq!(error, "kernel module overlay: it is for kernel 1.2, expected 1.3");
        let twice = folder(&[("overlay", "")]);
        std::fs::write(twice.path().join("kernel/overlay.ko.xz"), b"").unwrap();
        assert!(select(twice.path(), "1.2").unwrap_err().to_string().contains("a second file"));
    }
}
