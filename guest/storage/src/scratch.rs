//! Scratch space: a disk of the host that tells it nothing but sizes and times, or the guest's memory.
//!
//! ```text
//!   ext4           made here, without a journal
//!   dm-crypt       authenc(hmac(sha256), xts(aes)): each 4096-byte sector encrypted and authenticated, with its number
//!   dm-integrity   keeps the 32-byte tags
//!   disk           sparse file of the host
//! ```
//! The key comes from the kernel's random generator, goes into the kernel's table, and is nowhere else: it ends with the
//! device, and so does all that was written. A sector that the host changes, moves or has never been written is an I/O error.
//! One that it replaces by an older version of itself, from the same run, is not noticed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use caveau_policy::{MountDisk, MountScratch, Permit, UnmountDisk, UnmountScratch, request::Medium};
use rustix::mount::MountAttrFlags;
use zeroize::Zeroizing;

use crate::device_mapper::{MappedDevice, Target};
use crate::disk::Disk;
use crate::error::IoContext as _;
use crate::ext4;
use crate::mount::{FileSystem, checked_target, detach, same_target};
use crate::{Result, Storage, StorageError};

/// Bytes of the tag that belongs to each sector: HMAC-SHA-256.
const TAG_BYTES: usize = 32;
/// Two keys of AES-256 for XTS, and one for HMAC.
const KEY_BYTES: usize = 96;
/// Least size of a scratch disk: what the file system needs, and the tags.
const MIN_DISK_BYTES: u64 = 20 << 20;
/// Start of a dm-integrity device; all zeros there, it is made anew.
const INTEGRITY_SUPERBLOCK_BYTES: usize = 4096;

/// An encrypted disk with a file system on it, mounted.
#[derive(Debug)]
#[must_use = "it stays mounted until unmount_disk"]
pub struct EncryptedDisk {
    target: PathBuf,
    crypt: MappedDevice,
    integrity: MappedDevice,
}

impl EncryptedDisk {
    /// Where it is mounted.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }
}

/// A place for what containers write.
#[derive(Debug)]
#[must_use = "it stays until unmount_scratch"]
pub struct Scratch {
    target: PathBuf,
    in_memory: bool,
}

impl Scratch {
    /// Where it is.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }
}

/// What a scratch space is made of.
#[derive(Debug)]
pub enum ScratchSource<'a> {
    /// A disk that is mounted.
    Disk(&'a EncryptedDisk),
    /// The guest's memory, at most so many bytes.
    Memory {
        /// Most bytes.
        bytes: u64,
    },
}

impl Storage {
    /// Encrypts disk `lun` under a fresh key, makes a file system on it and mounts it at the permit's target. What was on the
    /// disk is lost.
    ///
    /// It is encrypted even where the policy would do without.
    ///
    /// # Errors
    /// Where there is no such disk, it is too small, or the permit wants another file system than ext4.
    pub fn mount_disk(&self, permit: Permit<MountDisk>, lun: u16) -> Result<EncryptedDisk> {
        let MountDisk { target, encrypted: _, filesystem } = permit.into_inner();
        if filesystem != "ext4" {
            return Err(StorageError::Unsupported(format!("file system {filesystem}")));
        }
        let target = checked_target(&target)?;
        let disk = Disk::find(lun)?;
        if !(MIN_DISK_BYTES..=ext4::MAX_BYTES).contains(&disk.bytes) {
            return Err(StorageError::DiskSize { lun, bytes: disk.bytes, expected: "20 MiB to 8 TiB" });
        }
        let name = self.device_name("scratch");
        let (integrity, sectors) = self.map_integrity(&disk, &name)?;
        let crypt = match self.map_crypt(&integrity, sectors, &name) {
            Ok(crypt) => crypt,
            Err(error) => {
                self.device_mapper.remove(&integrity)?;
                return Err(error);
            }
        };
        let mounted = make_file_system(&crypt, sectors.saturating_mul(512), lun).and_then(|()| mount(&crypt, &target));
        if let Err(error) = mounted {
            self.device_mapper.remove(&crypt)?;
            self.device_mapper.remove(&integrity)?;
            return Err(error);
        }
        Ok(EncryptedDisk { target, crypt, integrity })
    }

    /// Unmounts a disk and forgets its key.
    ///
    /// # Errors
    /// [`StorageError::OtherTarget`] where the permit is for another one; else where it is in use. It can be tried again.
    pub fn unmount_disk(&self, permit: Permit<UnmountDisk>, disk: &EncryptedDisk) -> Result<()> {
        same_target(&permit.into_inner().target, &disk.target)?;
        detach(&disk.target)?;
        self.device_mapper.remove(&disk.crypt)?;
        self.device_mapper.remove(&disk.integrity)
    }

    /// Makes scratch space of `source` at the permit's target, which for a disk is where it is mounted, or a folder below.
    ///
    /// # Errors
    /// Where medium or target of the permit are not those of `source`.
    pub fn mount_scratch(&self, permit: Permit<MountScratch>, source: &ScratchSource<'_>) -> Result<Scratch> {
        let MountScratch { target, encrypted: _, medium } = permit.into_inner();
        let path = checked_target(&target)?;
        match (medium, source) {
            (Medium::Disk, ScratchSource::Disk(disk)) => {
                if !path.starts_with(&disk.target) {
                    same_target(&target, &disk.target)?;
                }
                std::fs::create_dir_all(&path).context("make folder", &path)?;
                Ok(Scratch { target: path, in_memory: false })
            }
            (Medium::Memory, ScratchSource::Memory { bytes }) => {
                let values = [("size", bytes.to_string()), ("mode", "0700".to_owned())];
                let attributes = MountAttrFlags::empty();
                FileSystem { kind: "tmpfs", flags: &[], values: &values, attributes }.mount(&path)?;
                Ok(Scratch { target: path, in_memory: true })
            }
            (Medium::Disk, ScratchSource::Memory { .. }) => {
                Err(StorageError::Unsupported("scratch space in memory under a permit for a disk".to_owned()))
            }
            (Medium::Memory, ScratchSource::Disk(_)) => {
                Err(StorageError::Unsupported("scratch space on a disk under a permit for memory".to_owned()))
            }
        }
    }

    /// Gives up scratch space; its disk stays mounted.
    ///
    /// # Errors
    /// [`StorageError::OtherTarget`] where the permit is for another one; else where it is in use. It can be tried again.
    pub fn unmount_scratch(&self, permit: Permit<UnmountScratch>, scratch: &Scratch) -> Result<()> {
        same_target(&permit.into_inner().target, &scratch.target)?;
        if scratch.in_memory { detach(&scratch.target) } else { Ok(()) }
    }

    /// The device that keeps tags, and the sectors it provides.
    fn map_integrity(&self, disk: &Disk, name: &str) -> Result<(MappedDevice, u64)> {
        let writer = File::options().write(true).open(&disk.path).context("open", &disk.path)?;
        let cleared = writer.write_all_at(&[0; INTEGRITY_SUPERBLOCK_BYTES], 0).and_then(|()| writer.sync_all());
        cleared.context("clear the start of", &disk.path)?;
        drop(writer);
        let name = format!("{name}-tags");
        let parameters = integrity_parameters(&disk.number);
        let table =
            |sectors| Target { kind: "integrity", sectors, parameters: &parameters, read_only: false, secret: false };
        // How many sectors are left beside the tags is for the kernel to say, and it says it of a device that works.
        let device = self.device_mapper.map(&name, &table(8))?;
        let sized = self.device_mapper.status(&device).and_then(|status| {
            let provided = provided_sectors(&status).unwrap_or_default();
            if !(1..disk.sectors()).contains(&provided) {
                return Err(StorageError::BadIntegrity { lun: disk.lun, provided, sectors: disk.sectors() });
            }
            self.device_mapper.replace(&device, &table(provided))?;
            Ok(provided)
        });
        match sized {
            Ok(provided) => Ok((device, provided)),
            Err(error) => {
                self.device_mapper.remove(&device)?;
                Err(error)
            }
        }
    }

    fn map_crypt(&self, integrity: &MappedDevice, sectors: u64, name: &str) -> Result<MappedDevice> {
        let key = random::<KEY_BYTES>()?;
        let parameters = crypt_parameters(&key, &integrity.number());
        let table = Target { kind: "crypt", sectors, parameters: &parameters, read_only: false, secret: true };
        self.device_mapper.map(name, &table)
    }
}

/// Parameters of a dm-integrity target that keeps tags for the target above (kernel documentation, dm-integrity).
///
/// Mode `D`: no journal. After a crash tags may not fit their sectors; but after a crash the key is gone as well.
fn integrity_parameters(device: &str) -> String {
    format!(
        "{device} 0 {TAG_BYTES} D 5 journal_sectors:128 interleave_sectors:32768 buffer_sectors:128 block_size:4096 fix_padding"
    )
}

/// Parameters of a dm-crypt target with authenticated encryption (kernel documentation, dm-crypt).
fn crypt_parameters(key: &[u8; KEY_BYTES], device: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(512));
    text.push_str("capi:authenc(hmac(sha256),xts(aes))-plain64 ");
    for digit in key.iter().flat_map(|byte| [byte >> 4, byte & 0xf]) {
        text.push(char::from_digit(digit.into(), 16).unwrap_or_default());
    }
    text.push_str(&format!(" 0 {device} 0 2 integrity:{TAG_BYTES}:aead sector_size:4096"));
    text
}

/// A dm-integrity target's status is: mismatches, provided sectors, recalculation's position or `-`.
fn provided_sectors(status: &str) -> Option<u64> {
    status.split_whitespace().nth(1)?.parse().ok()
}

/// Bytes from the kernel's random generator, once it is seeded.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let got = rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty());
        filled = got.context("read random bytes from", "the kernel")?.saturating_add(filled);
    }
    Ok(bytes)
}

fn make_file_system(device: &MappedDevice, bytes: u64, lun: u16) -> Result<()> {
    let blocks = ext4::format(bytes, *random()?, *random()?);
    let blocks = blocks.map_err(|source| StorageError::Format { lun, source })?;
    let path = device.path();
    let file = File::options().write(true).open(&path).context("open", &path)?;
    for (number, contents) in blocks {
        let offset = number.saturating_mul(ext4::BLOCK_BYTES as u64);
        file.write_all_at(&contents, offset).context("make a file system on", &path)?;
    }
    file.sync_all().context("make a file system on", &path)
}

/// Mounts it without filling inode tables in the background: nobody reads what is not in use.
fn mount(device: &MappedDevice, target: &Path) -> Result<()> {
    let values = [("source", device.path().display().to_string())];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOATIME;
    FileSystem { kind: "ext4", flags: &["noinit_itable"], values: &values, attributes }.mount(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        assert_eq!(
            integrity_parameters("8:16"),
            "8:16 0 32 D 5 journal_sectors:128 interleave_sectors:32768 buffer_sectors:128 block_size:4096 fix_padding"
        );
        let expected = format!(
            "capi:authenc(hmac(sha256),xts(aes))-plain64 {} 0 253:1 0 2 integrity:32:aead sector_size:4096",
            "a5".repeat(96)
        );
        let text = crypt_parameters(&[0xa5; 96], "253:1");
        assert_eq!(*text, expected);
        assert!(text.len() < 512, "it must not be moved while it grows, for its old places would not be cleared");
    }

    #[test]
    fn integrity_status() {
        assert_eq!(provided_sectors("0 519920 -"), Some(519_920));
        assert_eq!(provided_sectors("0"), None);
        assert_eq!(provided_sectors("0 x -"), None);
    }

    #[test]
    fn keys_differ() {
        assert_ne!(*random::<96>().unwrap(), *random::<96>().unwrap());
    }
}
