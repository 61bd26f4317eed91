//! The guest's measured parts, as sealed copies: measured from the same bytes that QEMU gets.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{FirmwareFiles, GuestFiles, SealError, memfd::SealedFile};

/// Greatest length of a kernel or an initial RAM disk in bytes.
const MAX_IMAGE: u64 = 512 << 20;

/// Greatest length of a firmware image in bytes.
const MAX_FIRMWARE: u64 = 16 << 20;

/// Greatest length of an option ROM in bytes: the space below the BIOS.
const MAX_OPTION_ROM: u64 = 192 << 10;

/// Greatest length of a kernel command line in bytes (x86 boot protocol).
const MAX_CMDLINE: u64 = 2047;

/// Why the guest's parts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A part cannot be copied.
    #[error("failed to load the guest image; `caveau guest build` makes one")]
    Part(#[source] SealError),
    /// The command line's bytes cannot be given to QEMU.
    #[error("the guest's command line in {path:?} is not printable ASCII text")]
    Cmdline {
        /// Its file.
        path: PathBuf,
    },
    /// An option ROM's file name cannot be one of QEMU's.
    #[error("option ROM {path:?} has a name that QEMU does not look for")]
    RomName {
        /// The path.
        path: PathBuf,
    },
}

/// The guest's measured parts.
#[derive(Debug)]
pub struct Guest {
    /// The kernel.
    pub kernel: SealedFile,
    /// The initial RAM disk.
    pub initrd: SealedFile,
    /// The kernel's command line.
    pub cmdline: String,
    /// What runs before the kernel.
    pub firmware: Firmware,
    /// What tells these parts from others without reading them: paths, lengths, times of change.
    pub(crate) origin: String,
}

/// What runs before the kernel.
#[derive(Debug)]
pub enum Firmware {
    /// A BIOS and option ROMs.
    Direct {
        /// The BIOS image.
        bios: SealedFile,
        /// Option ROMs in the order in which they are measured.
        option_roms: Vec<OptionRom>,
    },
    /// An OVMF image.
    Ovmf(SealedFile),
}

/// An option ROM.
#[derive(Debug)]
pub struct OptionRom {
    /// The name by which QEMU looks for it.
    pub name: String,
    /// Its bytes.
    pub file: SealedFile,
}

impl Guest {
    /// Copies all parts.
    ///
    /// # Errors
    /// [`GuestError`].
    pub fn load(files: &GuestFiles) -> Result<Self, GuestError> {
        let firmware = match &files.firmware {
            FirmwareFiles::Direct { bios, option_roms } => Firmware::Direct {
                bios: sealed(bios, MAX_FIRMWARE)?,
                option_roms: option_roms.iter().map(|path| option_rom(path)).collect::<Result<_, _>>()?,
            },
            FirmwareFiles::Ovmf { path } => Firmware::Ovmf(sealed(path, MAX_FIRMWARE)?),
        };
        Ok(Self {
            kernel: sealed(&files.kernel, MAX_IMAGE)?,
            initrd: sealed(&files.initrd, MAX_IMAGE)?,
            cmdline: cmdline(&files.cmdline)?,
            firmware,
            origin: origin(files),
        })
    }
}

/// Paths, lengths and times of change of all that runs first.
fn origin(files: &GuestFiles) -> String {
    let executed: Vec<&PathBuf> = match &files.firmware {
        FirmwareFiles::Direct { bios, option_roms } => [bios, &files.kernel].into_iter().chain(option_roms).collect(),
        FirmwareFiles::Ovmf { path } => vec![path, &files.kernel],
    };
    let parts = executed.into_iter().map(|path| match path.metadata() {
        Ok(found) => format!("{}:{}:{}.{}", path.display(), found.len(), found.mtime(), found.mtime_nsec()),
        Err(error) => format!("{}:{error}", path.display()),
    });
    parts.collect::<Vec<_>>().join(" ")
}

fn sealed(path: &Path, limit: u64) -> Result<SealedFile, GuestError> {
    SealedFile::copy_of(path, limit).map_err(GuestError::Part)
}

fn option_rom(path: &Path) -> Result<OptionRom, GuestError> {
    let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".bin"));
    let name = name.ok_or_else(|| GuestError::RomName { path: path.to_owned() })?.to_owned();
    Ok(OptionRom { name, file: sealed(path, MAX_OPTION_ROM)? })
}

/// The command line: the file's bytes are what is measured, so nothing is trimmed.
fn cmdline(path: &Path) -> Result<String, GuestError> {
    let bytes = sealed(path, MAX_CMDLINE)?.read();
    let bytes = bytes.map_err(|cause| GuestError::Part(SealError::Read { path: path.to_owned(), cause }))?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.bytes().all(|byte| matches!(byte, b' '..=b'~')));
    text.ok_or_else(|| GuestError::Cmdline { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tee;

    #[test]
    fn a_guest_is_loaded_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let files = GuestFiles::in_folder(folder.path(), Tee::EmulatedSnp, None).unwrap();
        for name in ["vmlinux", "initrd.img", "bios-256k.bin", "pvh.bin"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let error = Guest::load(&files).unwrap_err();
        assert!(error.to_string().contains("caveau guest build"), "{error}");
        std::fs::write(&files.cmdline, "console=ttyS0 quiet").unwrap();
        let guest = Guest::load(&files).unwrap();
        assert_eq!(guest.cmdline, "console=ttyS0 quiet");
        assert_eq!(guest.kernel.read().unwrap(), b"vmlinux");
        let Firmware::Direct { option_roms, .. } = guest.firmware else { panic!("firmware of the wrong kind") };
        assert_eq!(option_roms[0].name, "pvh.bin");
        for bad in ["quiet\n", "a\0b", "\u{e9}"] {
            std::fs::write(&files.cmdline, bad).unwrap();
            assert!(matches!(Guest::load(&files), Err(GuestError::Cmdline { .. })), "{bad:?}");
        }
    }
}
