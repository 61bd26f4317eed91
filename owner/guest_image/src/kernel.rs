//! The kernel: the image that the distribution ships, and the ELF file inside it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::decompress::decompress;
use crate::elf::Elf;
use crate::error::IoContext as _;
use crate::{GuestImageError, KernelBuild, Result, Sha256};

/// Name of the file in a kernel folder that says which package was extracted there.
pub const PACKAGE_FILE: &str = "package.json";

/// The package that a kernel is from: one with the kernel itself, or one with its sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelPackage {
    /// Its name, such as `linux-image-6.12.95+deb12-cloud-amd64`.
    pub name: String,
    /// Its version, such as `6.12.95-1~bpo12+1`.
    pub version: String,
    /// SHA-256 of the package file.
    pub sha256: Sha256,
    /// How it was built, where the package holds sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<KernelBuild>,
}

/// A kernel, taken from an extracted package.
pub(crate) struct Kernel {
    /// The image as it is shipped: boot protocol, compressed payload.
    pub(crate) bz_image: Vec<u8>,
    /// The uncompressed kernel, an ELF file with a PVH entry and nothing in it but what is loaded.
    pub(crate) elf: Vec<u8>,
    /// What `uname -r` says.
    pub(crate) release: String,
    /// The whole version text in the image's header.
    pub(crate) banner: String,
    /// The package, where the folder says it.
    pub(crate) package: Option<KernelPackage>,
    /// Folder of the modules of this release.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// Reads the kernel of the extracted package in `folder` (`boot/vmlinuz-*`, `[usr/]lib/modules/*`).
    ///
    /// # Errors
    /// [`GuestImageError::KernelFolder`] where there is not exactly one kernel with its modules, [`GuestImageError::Kernel`]
    /// where it is not one that the guest can use.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let path = single_kernel(folder)?;
        let bz_image = std::fs::read(&path).context("read", &path)?;
        let image = BzImage::parse(&bz_image).map_err(|reason| kernel_error(&path, reason))?;
        let (banner, release) = (image.banner.to_owned(), image.release().to_owned());
        let payload = decompress("the kernel's payload", image.payload)?;
        let elf = match Elf::parse(&payload) {
            Some(elf) if elf.has_pvh_entry() => elf.compact(),
            Some(_) => return Err(kernel_error(&path, "it has no PVH entry (CONFIG_PVH)")),
            None => None,
        };
        let elf = elf.ok_or_else(|| {
            kernel_error(&path, "its payload is not a sound x86-64 ELF file packed with zstd, xz or gzip")
        })?;
        let modules = module_folder(folder, &release)?;
        Ok(Self { elf, release, banner, package: package(folder)?, modules, bz_image })
    }
}

fn kernel_error(path: &Path, reason: impl Into<String>) -> GuestImageError {
    GuestImageError::Kernel { path: path.to_path_buf(), reason: reason.into() }
}

fn folder_error(folder: &Path, reason: impl Into<String>) -> GuestImageError {
    GuestImageError::KernelFolder { folder: folder.to_path_buf(), reason: reason.into() }
}

fn single_kernel(folder: &Path) -> Result<PathBuf> {
    let boot = folder.join("boot");
    let mut found = Vec::new();
    for entry in boot.read_dir().context("read folder", &boot)? {
        let entry = entry.context("read folder", &boot)?;
        if entry.file_name().as_encoded_bytes().starts_with(b"vmlinuz-") {
            found.push(entry.path());
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        (None, _) => Err(folder_error(folder, "boot/ holds no vmlinuz-*")),
        (Some(_), false) => Err(folder_error(folder, "boot/ holds several kernels; extract one package only")),
    }
}

fn module_folder(folder: &Path, release: &str) -> Result<PathBuf> {
    let candidates = ["lib/modules", "usr/lib/modules"].map(|parent| folder.join(parent).join(release));
    let found = candidates.into_iter().find(|path| path.is_dir());
    found.ok_or_else(|| folder_error(folder, format!("lib/modules/{release} is missing")))
}

fn package(folder: &Path) -> Result<Option<KernelPackage>> {
    let path = folder.join(PACKAGE_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| folder_error(folder, format!("{PACKAGE_FILE} is malformed: {error}"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("read", &path),
    }
}

/// The fields of an x86 boot image that matter here (kernel documentation: The Linux/x86 Boot Protocol).
struct BzImage<'a> {
    /// `kernel_version`: release, builder, build number and date.
    banner: &'a str,
    /// The compressed kernel.
    payload: &'a [u8],
}

impl<'a> BzImage<'a> {
    fn parse(bytes: &'a [u8]) -> std::result::Result<Self, &'static str> {
        let word = |offset: usize| bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_le_bytes);
        let half = |offset: usize| bytes.get(offset..offset + 2)?.try_into().ok().map(u16::from_le_bytes);
        if bytes.get(0x202..0x206) != Some(b"HdrS") || half(0x1fe) != Some(0xaa55) {
            return Err("it has no Linux/x86 boot header");
        }
        if half(0x206).is_none_or(|version| version < 0x208) {
            return Err("its boot protocol is older than 2.08");
        }
        let sectors = match bytes.get(0x1f1) {
            Some(0) => 4,
            Some(&sectors) => usize::from(sectors),
            None => return Err("it is cut off"),
        };
        let payload = (|| {
            let start = ((sectors + 1) * 512).checked_add(word(0x248)? as usize)?;
            bytes.get(start..start.checked_add(word(0x24c)? as usize)?)
        })();
        let banner = (|| {
            let start = usize::from(half(0x20e)?) + 0x200;
            std::ffi::CStr::from_bytes_until_nul(bytes.get(start..)?).ok()?.to_str().ok()
        })();
        Ok(Self {
            banner: banner.filter(|text| !text.is_empty()).ok_or("its version text is missing")?,
            payload: trim_length(payload.ok_or("its payload is cut off")?),
        })
    }

    fn release(&self) -> &'a str {
        self.banner.split(' ').next().unwrap_or_default()
    }
}

/// Every compressor but gzip, which ends with it anyway, is followed by the uncompressed length (kernel's Makefile.lib, size_append).
fn trim_length(payload: &[u8]) -> &[u8] {
    let gzip = payload.starts_with(&[0x1f, 0x8b]) || payload.starts_with(b"\x7fELF");
    payload.split_last_chunk::<4>().filter(|_| !gzip).map_or(payload, |(payload, _)| payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[0x1f1] = 1;
        bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        bytes[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        bytes[0x300..0x310].copy_from_slice(b"6.12.1-test (me)");
        bytes[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn reads_version_and_payload() {
        let bytes = image(b"payload\x10\0\0\0");
        let parsed = BzImage::parse(&bytes).unwrap();
        assert_eq!(
            (parsed.banner, parsed.release(), parsed.payload),
            ("6.12.1-test (me)", "6.12.1-test", &b"payload"[..])
        );
    }

    #[test]
    fn says_what_is_wrong() {
        let mut bytes = image(b"payload");
        bytes.truncate(bytes.len() - 1);
        assert_eq!(BzImage::parse(&bytes).err(), Some("its payload is cut off"));
        bytes[0x206] = 0;
        bytes[0x207] = 2;
        assert_eq!(BzImage::parse(&bytes).err(), Some("its boot protocol is older than 2.08"));
        assert_eq!(BzImage::parse(b"\x7fELF").err(), Some("it has no Linux/x86 boot header"));
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(at in 0x1f1_usize..0x280, value in any::<[u8; 4]>(), cut in 0_usize..1100) {
            let mut bytes = image(b"payload");
            bytes[at..at + 4].copy_from_slice(&value);
            bytes.truncate(cut.max(1));
            let _ = BzImage::parse(&bytes);
        }
    }

    #[test]
    fn an_empty_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("boot")).unwrap();
        let error = Kernel::open(folder.path()).err().unwrap();
        assert!(error.to_string().ends_with("boot/ holds no vmlinuz-*"), "{error}");
    }
}
