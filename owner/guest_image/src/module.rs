//! One kernel module: what it says about itself, and its bytes without their signature.

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::elf::Elf;
use crate::{GuestImageError, Result};

/// What ends a signed module (kernel: include/linux/module_signature.h).
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";

/// `struct module_signature`, which stands between a module's signature and the mark.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SignatureTrailer {
    algorithm: u8,
    hash: u8,
    /// 2: PKCS#7.
    id_type: u8,
    signer_length: u8,
    key_id_length: u8,
    padding: [u8; 3],
    signature_length: U32,
}

/// A module's statements about itself (`.modinfo`: strings `key=value`, each ended by NUL).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModInfo {
    /// Name as the kernel knows it.
    pub(crate) name: String,
    /// Modules that must be loaded before.
    pub(crate) depends: Vec<String>,
    /// Modules that should be loaded before, where there are such (`softdep=pre:`).
    pub(crate) prefers: Vec<String>,
    /// Release of the kernel that it was built for.
    pub(crate) release: String,
}

impl ModInfo {
    /// Reads the statements of the module in `bytes`; `name` is for messages.
    ///
    /// # Errors
    /// [`GuestImageError::Module`] where the file is not a module or leaves out what the order of loading needs.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let refuse = |reason: &str| module_error(name, reason);
        let elf = Elf::parse(bytes).ok_or_else(|| refuse("not an x86-64 ELF file"))?;
        let section = elf.section(".modinfo").ok_or_else(|| refuse("it has no .modinfo section"))?;
        let text = std::str::from_utf8(section).map_err(|_| refuse(".modinfo is not text"))?;
        let values = |key: &str| -> Vec<&str> {
            let strings = text.split('\0');
            strings.filter_map(|string| string.strip_prefix(key)?.strip_prefix('=')).collect()
        };
        let one = |key: &str| match values(key).as_slice() {
            [value] => Ok((*value).to_owned()),
            found => Err(refuse(&format!(".modinfo has {} values for `{key}`, expected one", found.len()))),
        };
        let vermagic = one("vermagic")?;
        Ok(Self {
            name: one("name")?,
            depends: one("depends")?.split(',').filter(|name| !name.is_empty()).map(normal).collect(),
            prefers: values("softdep").into_iter().flat_map(preferences).collect(),
            release: vermagic.split(' ').next().unwrap_or_default().to_owned(),
        })
    }
}

/// The names after `pre:` of one `softdep`, up to `post:`.
fn preferences(softdep: &str) -> Vec<String> {
    let before_post = softdep.split("post:").next().unwrap_or_default();
    let pre = before_post.trim_start().strip_prefix("pre:").unwrap_or_default();
    pre.split_whitespace().map(normal).collect()
}

/// A module's name with underscores: files and statements may have hyphens, the kernel's names have not.
pub(crate) fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The module without its appended signature.
///
/// The guest's launch measurement covers each byte of the module already, and checking 30 signatures costs an emulated
/// processor more time than loading the modules does.
///
/// # Errors
/// [`GuestImageError::Module`] where there is the signature's mark, but no well-formed signature before it.
pub(crate) fn without_signature<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a [u8]> {
    let Some(signed) = bytes.strip_suffix(SIGNATURE_MARK) else { return Ok(bytes) };
    let cut = (|| {
        let (rest, trailer) = SignatureTrailer::ref_from_suffix(signed).ok()?;
        let length = usize::try_from(trailer.signature_length.get()).ok()?;
        (trailer.id_type == 2).then(|| rest.len().checked_sub(length).and_then(|end| rest.get(..end)))?
    })();
    cut.ok_or_else(|| module_error(name, "its signature is malformed"))
}

pub(crate) fn module_error(name: &str, reason: impl Into<String>) -> GuestImageError {
    GuestImageError::Module { module: name.to_owned(), reason: reason.into() }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An ELF file with nothing but `.modinfo` of these strings.
    pub(crate) fn module_file(strings: &[&str]) -> Vec<u8> {
        let info = strings.iter().map(|string| format!("{string}\0")).collect::<String>();
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut bytes = vec![0_u8; 64];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[18] = 62;
        let parts = [(1_u32, 64, info.len()), (10, 64 + info.len(), names.len())];
        bytes.extend(info.as_bytes());
        bytes.extend(names);
        let table = bytes.len() as u64;
        bytes[40..48].copy_from_slice(&table.to_le_bytes());
        bytes[58] = 64;
        bytes[60] = 3;
        bytes[62] = 2;
        bytes.extend([0; 64]);
        for (name, offset, size) in parts {
            let mut section = [0_u8; 64];
            section[..4].copy_from_slice(&name.to_le_bytes());
            section[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            section[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            bytes.extend(section);
        }
        bytes
    }

    fn signed(body: &[u8], signature: &[u8], claimed: u32) -> Vec<u8> {
        let trailer = [&[0, 0, 2, 0, 0, 0, 0, 0][..], &claimed.to_be_bytes()].concat();
        [body, signature, &trailer, SIGNATURE_MARK].concat()
    }

    #[test]
    fn reads_modinfo() {
        let file = module_file(&[
            "license=GPL",
            "depends=dm-mod,reed_solomon",
            "softdep=pre: ecb crc-x post: late",
            "name=dm_verity",
            "vermagic=6.12.1 SMP mod_unload ",
        ]);
        let info = ModInfo::parse("dm-verity", &file).unwrap();
        assert_eq!(info.name, "dm_verity");
        assert_eq!(info.depends, ["dm_mod", "reed_solomon"]);
        assert_eq!(info.prefers, ["ecb", "crc_x"]);
        assert_eq!(info.release, "6.12.1");
    }

    #[test]
    fn missing_and_double_statements_are_refused() {
        let error = ModInfo::parse("m", &module_file(&["name=m", "vermagic=1"])).unwrap_err();
        assert_eq!(error.to_string(), "kernel module m: .modinfo has 0 values for `depends`, expected one");
        let error = ModInfo::parse("m", &module_file(&["name=m", "name=n", "depends=", "vermagic=1"])).unwrap_err();
        assert_eq!(error.to_string(), "kernel module m: .modinfo has 2 values for `name`, expected one");
        assert!(ModInfo::parse("m", b"#!/bin/sh").is_err());
    }

    #[test]
    fn signatures_are_cut_off_and_checked() {
        assert_eq!(without_signature("m", &signed(b"module", b"0123456789", 10)).unwrap(), b"module");
        assert_eq!(without_signature("m", b"module").unwrap(), b"module");
        assert!(without_signature("m", &signed(b"module", b"", 7)).is_err());
        assert!(without_signature("m", SIGNATURE_MARK).is_err());
    }

    proptest! {
        #[test]
        fn cutting_gives_back_the_module(body in prop::collection::vec(any::<u8>(), 0..100), signature in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assume!(!body.ends_with(SIGNATURE_MARK));
            let file = signed(&body, &signature, signature.len() as u32);
            prop_assert_eq!(without_signature("m", &file).unwrap(), &body[..]);
        }
    }
}
