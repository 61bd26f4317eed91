//! The launch context: one digest, extended page by page.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha384};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{Immutable, IntoBytes};

/// Bytes in a page, the unit of measurement.
pub(crate) const PAGE: usize = 4096;

/// Where the firmware records a VMSA under KVM: all ones, page-aligned, cut at bit 48 (QEMU and KVM, `snp_launch_update_vmsa`).
const VMSA_GPA: u64 = 0xffff_ffff_f000;

/// The SEV-SNP launch digest: 48 bytes (SHA-384), shown as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LaunchDigest([u8; Self::BYTES]);

impl LaunchDigest {
    /// Length in bytes.
    pub const BYTES: usize = 48;

    /// A digest from its bytes, as they stand in a report's MEASUREMENT field.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, in the order of a report's MEASUREMENT field.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Display for LaunchDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for LaunchDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaunchDigest({self})")
    }
}

/// Text that is no launch digest.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no launch digest: expected 96 lower-case hexadecimal digits")]
pub struct NotALaunchDigest(String);

impl FromStr for LaunchDigest {
    type Err = NotALaunchDigest;

    /// Parses exactly what `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || NotALaunchDigest(text.chars().take(128).collect());
        let mut bytes = [0; Self::BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| refuse())?;
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refuse());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for LaunchDigest {
    type Error = NotALaunchDigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<LaunchDigest> for String {
    fn from(digest: LaunchDigest) -> Self {
        digest.to_string()
    }
}

/// Page types of SNP_LAUNCH_UPDATE (SEV-SNP firmware ABI, table 67).
#[derive(Clone, Copy)]
enum PageType {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Unmeasured = 4,
    Secrets = 5,
    Cpuid = 6,
}

/// PAGE_INFO: what is hashed for each page (SEV-SNP firmware ABI, table 67).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct PageInfo {
    digest: [u8; 48],
    contents: [u8; 48],
    length: U16,
    page_type: u8,
    imi: u8,
    vmpl_permissions: [u8; 4],
    gpa: U64,
}

/// SHA-384 of `bytes`.
pub(crate) fn sha384(bytes: &[u8]) -> [u8; 48] {
    Sha384::digest(bytes).into()
}

/// The guest context's digest while a launch is replayed. Addresses and lengths have been checked by the caller.
#[derive(Clone, Debug)]
pub(crate) struct LaunchContext {
    digest: [u8; 48],
}

impl LaunchContext {
    /// The context after SNP_LAUNCH_START.
    pub(crate) const fn new() -> Self {
        Self { digest: [0; 48] }
    }

    /// Adds `data` as normal pages from `gpa` upwards; a last partial page counts as padded with zeros.
    pub(crate) fn normal_pages(&mut self, gpa: u64, data: &[u8]) {
        for (address, chunk) in page_addresses(gpa).zip(data.chunks(PAGE)) {
            let contents = match chunk.len() {
                PAGE => sha384(chunk),
                _ => {
                    let mut page = chunk.to_vec();
                    page.resize(PAGE, 0);
                    sha384(&page)
                }
            };
            self.update(PageType::Normal, address, contents);
        }
    }

    /// Adds `size / 4096` zero pages from `gpa` upwards.
    pub(crate) fn zero_pages(&mut self, gpa: u64, size: u64) {
        self.empty_pages(PageType::Zero, gpa, size);
    }

    /// Adds `size / 4096` unmeasured pages (their address counts, their contents do not) from `gpa` upwards.
    pub(crate) fn unmeasured_pages(&mut self, gpa: u64, size: u64) {
        self.empty_pages(PageType::Unmeasured, gpa, size);
    }

    /// Adds the secrets page at `gpa`.
    pub(crate) fn secrets_page(&mut self, gpa: u64) {
        self.update(PageType::Secrets, gpa, [0; 48]);
    }

    /// Adds the CPUID page at `gpa`.
    pub(crate) fn cpuid_page(&mut self, gpa: u64) {
        self.update(PageType::Cpuid, gpa, [0; 48]);
    }

    /// Adds a VMSA whose page has the SHA-384 `contents`.
    pub(crate) fn vmsa_page(&mut self, contents: [u8; 48]) {
        self.update(PageType::Vmsa, VMSA_GPA, contents);
    }

    /// The digest after SNP_LAUNCH_FINISH.
    pub(crate) const fn finish(self) -> LaunchDigest {
        LaunchDigest(self.digest)
    }

    fn empty_pages(&mut self, page_type: PageType, gpa: u64, size: u64) {
        let pages = usize::try_from(size >> 12).unwrap_or(usize::MAX);
        for address in page_addresses(gpa).take(pages) {
            self.update(page_type, address, [0; 48]);
        }
    }

    fn update(&mut self, page_type: PageType, gpa: u64, contents: [u8; 48]) {
        let info = PageInfo {
            digest: self.digest,
            contents,
            length: U16::new(0x70),
            page_type: page_type as u8,
            imi: 0,
            vmpl_permissions: [0; 4],
            gpa: U64::new(gpa),
        };
        self.digest = sha384(info.as_bytes());
    }
}

/// `gpa` and each page address above it, up to the end of the address space.
fn page_addresses(gpa: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(gpa), |address| address.checked_add(4096))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_info_is_as_long_as_its_length_field_says() {
        assert_eq!(size_of::<PageInfo>(), 0x70);
    }

    #[test]
    fn a_digest_is_read_only_in_the_form_it_is_written() {
        let digest = LaunchDigest::from_bytes([0xab; 48]);
        let text = digest.to_string();
        assert_eq!(text.parse::<LaunchDigest>().unwrap(), digest);
        assert!(text.to_uppercase().parse::<LaunchDigest>().is_err());
        assert!(text[2..].parse::<LaunchDigest>().is_err());
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
        assert!(serde_json::from_str::<LaunchDigest>("\"zz\"").is_err());
    }

    #[test]
    fn a_partial_last_page_counts_as_padded() {
        let mut short = LaunchContext::new();
        short.normal_pages(0x1000, &[7; 5000]);
        let mut padded = LaunchContext::new();
        let mut data = vec![7; 5000];
        data.resize(8192, 0);
        padded.normal_pages(0x1000, &data);
        assert_eq!(short.finish(), padded.finish());
    }
}
